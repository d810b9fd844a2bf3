"""Measures a standing demo by its ready file: measure.py READY.json [--rounds N] [--hops N].

Its own part of the work is kept small, since it runs on the same cores: bodies are thrown away in the kernel (MSG_TRUNC), many
connections are driven by one epoll loop.
"""

import argparse
import http.client
import json
import os
import select
import socket
import statistics
import struct
import time

DOWNLOAD = 100_000_000
TICKS = os.sysconf("SC_CLK_TCK")
BUFFER = bytearray(1 << 20)


class Demo:
    """Where everything is."""

    def __init__(self, path):
        with open(path) as file:
            ready = json.load(file)
        host, port = ready["socks"].rsplit(":", 1)
        self.proxy = (host, int(port))
        self.control = ready["control"]
        self.processes = ready["processes"]
        self.name, port = ready["origin_name"].removeprefix("http://").rsplit(":", 1)
        self.port = int(port)

    def cpu_seconds(self):
        """User and system time of all processes that carry cells."""
        total = 0
        for process in self.processes.values():
            with open(f"/proc/{process}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory_mb(self, member):
        with open(f"/proc/{self.processes[member]}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) * 1024 / 1e6

    def circuits(self):
        connection = http.client.HTTPConnection("port17")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.control)
        connection.request("GET", "/v1/status")
        return json.load(connection.getresponse()).get("standing", [])

    def request(self, path):
        return f"GET {path} HTTP/1.1\r\nHost: {self.name}:{self.port}\r\nConnection: close\r\n\r\n".encode()

    def connect_message(self):
        name = self.name.encode()
        return b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", self.port)

    def open(self, user=None):
        """A stream to the origin; with a user, on circuits of that user's own."""
        stream = socket.create_connection(self.proxy)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if user is None:
            stream.sendall(b"\x05\x01\x00")
            assert exactly(stream, 2) == b"\x05\x00"
        else:
            stream.sendall(b"\x05\x01\x02")
            assert exactly(stream, 2) == b"\x05\x02"
            stream.sendall(b"\x01" + bytes([len(user)]) + user.encode() + b"\x01x")
            assert exactly(stream, 2) == b"\x01\x00"
        stream.sendall(self.connect_message())
        reply = exactly(stream, 10)
        assert reply[:2] == b"\x05\x00", f"SOCKS reply {reply[1]}"
        return stream


def exactly(stream, size):
    data = b""
    while len(data) < size:
        more = stream.recv(size - len(data))
        assert more, "the connection ended"
        data += more
    return data


def download(stream, request, size):
    """Megabytes a second, from the request to the last byte."""
    started = time.perf_counter()
    stream.sendall(request)
    head = b""
    while b"\r\n\r\n" not in head:
        more = stream.recv(4096)
        assert more, "the connection ended"
        head += more
    left = size - (len(head) - head.index(b"\r\n\r\n") - 4)
    while left:
        count = stream.recv_into(BUFFER, len(BUFFER), socket.MSG_TRUNC)
        assert count, "the connection ended"
        left -= count
    stream.close()
    return size / 1e6 / (time.perf_counter() - started)


def first_byte(demo):
    """Milliseconds from connecting to the proxy to the first byte of the answer."""
    started = time.perf_counter()
    stream = demo.open()
    stream.sendall(demo.request("/1k.bin"))
    stream.recv(1)
    taken = time.perf_counter() - started
    while stream.recv(65536):
        pass
    stream.close()
    return taken * 1e3


def circuit_build(demo, number):
    """Milliseconds until the SOCKS reply for a user never seen before."""
    started = time.perf_counter()
    demo.open(f"bench-{os.getpid()}-{number}").close()
    return (time.perf_counter() - started) * 1e3


class Worker:
    """Fetches 1 kB again and again, each on a new stream; a stream may be refused, when there are too many at once."""

    def __init__(self, demo, poll):
        self.demo, self.poll = demo, poll
        self.begin()

    def begin(self):
        self.stream = socket.create_connection(self.demo.proxy)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream.setblocking(False)
        self.is_refused = False
        self.stream.send(b"\x05\x01\x00")
        self.buffer, self.wanted, self.step = b"", 2, self.greeted
        self.poll.register(self.stream, select.EPOLLIN)

    def readable(self):
        """Whether that ended a request."""
        more = self.stream.recv(65536)
        if not more:
            return self.ended()
        self.buffer += more
        if self.step and len(self.buffer) >= self.wanted:
            self.step()
        return False

    def greeted(self):
        self.stream.send(self.demo.connect_message())
        self.buffer, self.wanted, self.step = b"", 10, self.connected

    def connected(self):
        if self.buffer[1] != 0:
            self.is_refused = True
            self.step = None
            return
        self.stream.send(self.demo.request("/1k.bin"))
        self.buffer, self.step = b"", None

    def ended(self):
        if not self.is_refused:
            assert len(self.buffer) - self.buffer.index(b"\r\n\r\n") - 4 == 1000, "an answer was cut"
        self.poll.unregister(self.stream)
        self.stream.close()
        return True


def requests_per_second(demo, workers, seconds):
    """Answered requests a second, and how many were refused in all."""
    poll = select.epoll()
    by_descriptor = {}

    def add(worker):
        by_descriptor[worker.stream.fileno()] = worker

    for _ in range(workers):
        add(Worker(demo, poll))
    done, refused, started = 0, 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for descriptor, _ in poll.poll(1):
            worker = by_descriptor[descriptor]
            if worker.readable():
                done, refused = done + (not worker.is_refused), refused + worker.is_refused
                worker.begin()
                add(worker)
    taken = time.perf_counter() - started
    for worker in by_descriptor.values():
        worker.stream.close()
    return done / taken, refused


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def idle_memory(demo):
    """The largest of the nodes that no circuit of the client goes through, or of all where each has one."""
    busy = {hop.split("~")[0] for circuit in demo.circuits() for hop in circuit["route"]}
    nodes = [member for member in demo.processes if member != "client"]
    return max(demo.memory_mb(node) for node in ([node for node in nodes if node not in busy] or nodes))


def measure(demo, rounds):
    figures = {}
    time.sleep(1)
    figures["idle_node_rss_mb"] = idle_memory(demo)
    direct = socket.create_connection(("127.0.0.1", demo.port))
    figures["direct_mb_s"] = download(direct, demo.request("/100m.bin"), DOWNLOAD)

    download(demo.open(), demo.request("/10m.bin"), 10_000_000)
    before = demo.cpu_seconds()
    rates = [download(demo.open(), demo.request("/100m.bin"), DOWNLOAD) for _ in range(rounds)]
    figures["cpu_s_per_gb"] = (demo.cpu_seconds() - before) / (rounds * DOWNLOAD / 1e9)
    figures["one_stream_mb_s"] = statistics.median(rates)
    figures["one_stream_mb_s_min"], figures["one_stream_mb_s_max"] = min(rates), max(rates)

    firsts = [first_byte(demo) for _ in range(220)][20:]
    figures["first_byte_ms_p50"], figures["first_byte_ms_p99"] = percentile(firsts, 50), percentile(firsts, 99)
    builds = [circuit_build(demo, number) for number in range(100)]
    figures["circuit_ms_p50"], figures["circuit_ms_p99"] = percentile(builds, 50), percentile(builds, 99)
    figures["requests_s_20_workers"], figures["requests_refused"] = requests_per_second(demo, 20, 5)
    figures["node_rss_after_mb"] = max(demo.memory_mb(member) for member in demo.processes if member != "client")
    figures["client_rss_after_mb"] = demo.memory_mb("client")
    return figures


TABLE = [
    ("one stream, MB/s (median, min..max)", "{one_stream_mb_s:.0f}  ({one_stream_mb_s_min:.0f}..{one_stream_mb_s_max:.0f})"),
    ("the origin without mesh, MB/s", "{direct_mb_s:.0f}"),
    ("client and nodes, CPU s/GB", "{cpu_s_per_gb:.2f}"),
    ("first byte of a new stream, ms (p50, p99)", "{first_byte_ms_p50:.2f}, {first_byte_ms_p99:.2f}"),
    ("new user to SOCKS reply, ms (p50, p99)", "{circuit_ms_p50:.2f}, {circuit_ms_p99:.2f}"),
    ("requests of 1 kB a second, 20 workers", "{requests_s_20_workers:.0f}  ({requests_refused} refused)"),
    ("idle node, MB", "{idle_node_rss_mb:.1f}"),
    ("busiest node and client afterwards, MB", "{node_rss_after_mb:.1f}, {client_rss_after_mb:.1f}"),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ready")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--hops", type=int, default=3)
    arguments = parser.parse_args()
    figures = measure(Demo(arguments.ready), arguments.rounds)
    print(f"{arguments.hops} hops, {arguments.rounds} rounds of 100 MB, {os.cpu_count()} cores")
    for what, form in TABLE:
        print(f"  {what:<44}{form.format(**figures)}")
    setting = {"hops": arguments.hops, "rounds": arguments.rounds, "cores": os.cpu_count()}
    print(json.dumps(setting | {key: round(value, 3) for key, value in figures.items()}))


main()
