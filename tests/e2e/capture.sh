#!/usr/bin/env bash
# What an observer of the lanes, those of a middle among them, sees under load: no plaintext, no destination, records of one size, and no new connections.
# In a network namespace of its own that has only `lo`, so that nothing else is in the capture.
# Debian: curl iproute2 python3 tcpdump util-linux
set -euo pipefail

if [ -z "${PORT17_E2E_NAMESPACE:-}" ]; then
    if ! unshare -n true 2>/dev/null || ! command -v tcpdump >/dev/null; then
        echo "skip  capture of lanes: it takes root and tcpdump"
        echo "0 passed, 0 failed, 1 skipped"
        exit 0
    fi
    PORT17_E2E_NAMESPACE=1 exec unshare -n bash "${BASH_SOURCE[0]}"
fi
ip link set lo up
# shellcheck source=tests/e2e/checks.bash
source "$(dirname "${BASH_SOURCE[0]}")/checks.bash"

CANARY=canary-4f9d1c7e-in-plaintext
# The nodes' addresses. Which lanes are the middle's cannot be told by address alone, since who dials does so from 127.0.0.1: all
# lanes of all nodes are looked at, client and guard included.
NODES=127.0.1

# tcpdump with a large buffer and ahead of others: a packet that it misses makes the capture worthless.
start_capture() { # FILE FILTER
    # What the last one said is not this one's word.
    : >"$work/tcpdump.log"
    nice -n -15 tcpdump -i lo -s 0 -B 262144 -w "$1" "$2" 2>"$work/tcpdump.log" &
    tcpdump_process=$!
    background+=("$tcpdump_process")
    wait_for 10 grep -q 'listening on' "$work/tcpdump.log"
}

# Ends tcpdump once it has had time to write what it has.
stop_capture() {
    sleep 1
    kill -INT "$tcpdump_process"
    # It says so last; a subshell could not wait for it.
    wait_for 60 grep -q 'dropped by kernel' "$work/tcpdump.log"
}

is_complete() {
    cat "$work/tcpdump.log"
    grep -q '^0 packets dropped by kernel' "$work/tcpdump.log"
}

# A demo and its load, captured from before the first connection, so that every record has its place in its stream. On a busy
# machine tcpdump falls behind; then it is done again.
capture_load() {
    local _
    for _ in 1 2 3 4 5; do
        start_capture "$work/capture.pcap" "tcp and (net $NODES.0/24 or port $server_port)"
        start_demo --processes
        load
        stop_capture
        if is_complete >/dev/null; then return 0; fi
        stop_demo
    done
    start_demo --processes
}

load() {
    local processes=() process
    for _ in 1 2 3 4; do
        mesh -o "$work/through" "http://origin.demo:$server_port/canary" &
        processes+=($!)
    done
    mesh -o "$work/same" "http://127.0.0.1:$server_port/canary?directly-by-address"
    for process in "${processes[@]}"; do wait "$process"; done
    cmp "$work/same" "$work/files/canary"
}

connections() { ss -Htn state established dst "$NODES.0/24" | wc -l; }

# The count while 200 streams of the client are open, and after them, is the count before.
connections_are_static() {
    local before
    before=$(connections)
    say "$before connections before"
    [ "$before" -ge 30 ]
    python3 - "$socks" "$server_port" "$before" <<'PYTHON'
import socket, struct, subprocess, sys

proxy, port, before = sys.argv[1].rsplit(":", 1), int(sys.argv[2]), int(sys.argv[3])

def count():
    out = subprocess.run(["ss", "-Htn", "state", "established", "dst", "127.0.1.0/24"], capture_output=True, text=True, check=True)
    return len(out.stdout.splitlines())

def exactly(stream, size):
    data = b""
    while len(data) < size:
        more = stream.recv(size - len(data))
        assert more, "the proxy hung up"
        data += more
    return data

streams = []
for _ in range(200):
    stream = socket.create_connection((proxy[0], int(proxy[1])), timeout=20)
    stream.sendall(b"\x05\x01\x00\x05\x01\x00\x03\x0borigin.demo" + struct.pack(">H", port))
    assert exactly(stream, 2) == b"\x05\x00"
    assert exactly(stream, 10)[:2] == b"\x05\x00"
    streams.append(stream)
during = count()
for stream in streams:
    stream.sendall(b"GET /small HTTP/1.0\r\n\r\n")
assert all(b"200 OK" in exactly(stream, 15) for stream in streams)
print(during, "with 200 streams")
assert during == before, (during, before)
PYTHON
    [ "$(connections)" = "$before" ]
}

analysis() { # CHECK
    python3 "$here/capture.py" "$1" "$work/capture.pcap" "$NODES." "$server_port" \
        "$CANARY" origin.demo "GET /" "HTTP/1.1"
}

exits_stopped() {
    local before process
    before=$(wc -l <"$work/server.log")
    for process in $(process_of node-5) $(process_of node-6); do kill -TERM "$process"; done
    down() { ! process_of node-5 && ! process_of node-6; }
    wait_for 20 down
    start_capture "$work/after.pcap" "tcp and port $server_port"
    for address in origin.demo 127.0.0.1; do
        if mesh -m 4 -o "$work/through" "http://$address:$server_port/small"; then return 1; fi
    done
    stop_capture
    cat "$work/tcpdump.log"
    grep -q '^0 packets captured' "$work/tcpdump.log"
    [ "$(wc -l <"$work/server.log")" = "$before" ]
}

mkdir "$work/files"
python3 -c 'import sys; sys.stdout.write((sys.argv[1] + "\n") * 300000)' "$CANARY" >"$work/files/canary"
echo small >"$work/files/small"
serve_files "$work/files" "$work/server"
server_port=$(cat "$work/server.port")
capture_load

check "the capture is complete" is_complete
check "the canary is in the capture between exit and server" analysis control
check "no plaintext, no destination on any lane" analysis plaintext
check "all application records after the handshake: (length - 17) mod 2048 = 0" analysis records
rm "$work/capture.pcap"
check "five downloads of the canary through three hops" load
check "200 client streams make no connection between nodes" connections_are_static
check "all exits stopped: nothing leaves directly" exits_stopped
finish
