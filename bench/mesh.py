"""How fast a mesh makes itself, and what it costs when idle: figures of a running `port17 demo --processes`."""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TICK = os.sysconf("SC_CLK_TCK")


def control_map(binary, control):
    """The map that a daemon shows, none while it has no control socket."""
    asked = subprocess.run([binary, "--control", control, "map", "--json"], capture_output=True, check=False)
    return json.loads(asked.stdout) if asked.returncode == 0 else None


def is_linked_in(found, node_id):
    return found is not None and any(node_id in link["nodes"] for link in found["links"])


def init(binary, directory, network, *arguments):
    config = os.path.join(directory, "port17.toml")
    made = subprocess.run([binary, "--config", config, "--json", "init", "--network", network, *arguments],
                          capture_output=True, check=True)
    return config, json.loads(made.stdout)["node_id"]


def start(binary, config, role):
    return subprocess.Popen([binary, "--config", config, role], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def stop(process):
    process.terminate()
    process.wait()


def node_joins(binary, ready, number):
    """Seconds from the start of a new node's process until every member's map has a link of it."""
    directory = tempfile.mkdtemp(prefix="port17-join-")
    config, node_id = init(binary, directory, ready["network"], "--label", f"new-{number}", "--address", f"127.0.2.{number}:17170")
    missing = set(ready["controls"].values())
    began = time.monotonic()
    node = start(binary, config, "node")
    try:
        while missing and time.monotonic() - began < 60:
            missing = {control for control in missing if not is_linked_in(control_map(binary, control), node_id)}
        return time.monotonic() - began
    finally:
        stop(node)
        shutil.rmtree(directory)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def first_byte_through(port, host, target_port, deadline):
    """Waits for the first byte of an answer through a proxy that may not be there yet."""
    request = (f"GET http://{host}:{target_port}/1k.bin HTTP/1.1\r\nHost: {host}:{target_port}\r\nConnection: close\r\n\r\n").encode()
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as stream:
                stream.sendall(request)
                if stream.recv(64).startswith(b"HTTP/1.1 200"):
                    return True
        except OSError:
            pass
        time.sleep(0.005)
    return False


def client_starts(binary, ready):
    """Seconds from the start of a client's process, with nothing stored, to its first byte from the origin."""
    directory = tempfile.mkdtemp(prefix="port17-client-")
    config, _ = init(binary, directory, ready["network"])
    port = free_port()
    with open(config, encoding="utf-8") as file:
        text = file.read()
    with open(config, "w", encoding="utf-8") as file:
        file.write(text.replace("[client]", f'[client]\nproxy = "127.0.0.1:{port}"', 1))
    host, target_port = ready["origin_name"].removeprefix("http://").split(":")
    began = time.monotonic()
    client = start(binary, config, "client")
    try:
        arrived = first_byte_through(port, host, target_port, began + 60)
        return time.monotonic() - began if arrived else float("inf")
    finally:
        stop(client)
        shutil.rmtree(directory)


def cpu_seconds(process):
    with open(f"/proc/{process}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_mb(process):
    with open(f"/proc/{process}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) * 1024 / 1e6


def idle(ready, seconds):
    """Share of a core in percent and resident MB of the busiest and the largest node while nobody does anything."""
    nodes = [process for name, process in ready["processes"].items() if name.startswith("node")]
    before = {process: cpu_seconds(process) for process in nodes}
    time.sleep(seconds)
    busiest = max((cpu_seconds(process) - before[process]) / seconds * 100 for process in nodes)
    return busiest, max(resident_mb(process) for process in nodes)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("ready")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle-seconds", type=int, default=60)
    arguments = parser.parse_args()
    with open(arguments.ready, encoding="utf-8") as file:
        ready = json.load(file)
    busiest, largest = idle(ready, arguments.idle_seconds)
    clients = [client_starts(arguments.binary, ready) for _ in range(arguments.rounds)]
    nodes = [node_joins(arguments.binary, ready, number) for number in range(1, arguments.rounds + 1)]
    figures = {
        "demo_forms_s": ready.get("formed_s"),
        "node_known_by_all_s": round(statistics.median(nodes), 2),
        "node_known_by_all_s_max": round(max(nodes), 2),
        "client_first_byte_s": round(statistics.median(clients), 3),
        "client_first_byte_s_max": round(max(clients), 3),
        "idle_node_cpu_percent": round(busiest, 2),
        "idle_node_rss_mb": round(largest, 1),
    }
    for name, value in figures.items():
        print(f"{name:<26} {value}")
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
