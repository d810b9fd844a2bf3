#!/usr/bin/env bash
# The wire itself, before anything is judged by it: its tests without devices; then two hosts and the kernel's own counters.
# Debian: curl iproute2 iputils-ping nftables openssl procps python3 util-linux
set -euo pipefail
# shellcheck source=tests/hosts/hosts.bash
source "$(dirname "${BASH_SOURCE[0]}")/hosts.bash"

alone() { python3 -B "$hosts_here/wire_test.py"; }

set_up() {
    make_internet
    add_host anna 1 --wire delay_ms=20
    add_host ben 2 --wire loss_percent=5 duplicate_percent=3 reorder_percent=3 jitter_ms=2 delay_ms=3
    add_host cleo 3 --wire rate_kbit=16000 queue_ms=100
}

round_trip_is() { # HOST AT-LEAST-MS
    in_host "$1" ping -c 10 -i 0.02 -q $WORLD4 | tee "$work/ping"
    awk -F'[=/ ]+' -v least="$2" '/^rtt/ { exit !($6 >= least && $6 < least + 30) }' "$work/ping"
}

# So many frames have come since then, and none is on its way.
wire_is_empty() { # HOST FRAMES
    wire "$1" counts | python3 -c 'import json, sys
now, before = json.load(sys.stdin)["left"], json.load(open(sys.argv[2]))["left"]
came = now["taken"]["frames"] - before["taken"]["frames"]
sys.exit(came < int(sys.argv[1]) or now["queued"]["frames"] > 0 or now["copies_queued"]["frames"] > 0)' "$2" "$work/before"
}

# 3000 datagrams, each with its number: what came is what the wire says.
flood() {
    in_host world python3 -c 'import socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE: whatever this machine allows
udp.bind(("45.17.9.9", 9))
udp.settimeout(20)
open(sys.argv[1], "w").close()
came = []
while (data := udp.recv(2000)) != b"end":
    came.append(int.from_bytes(data[:8], "big"))
print(len(came), len(set(came)), came != sorted(came), file=open(sys.argv[1], "w"))' "$work/came" &
    wait_for 5 test -e "$work/came"
    # Who is where is known before.
    in_host ben ping -c 1 -W 5 $WORLD4 || in_host ben ping -c 3 -W 5 $WORLD4
    wire ben counts >"$work/before"
    in_host ben python3 -c 'import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(3000):
    udp.sendto(number.to_bytes(8, "big") + bytes(number % 1200), ("45.17.9.9", 9))' 
    wait_for 20 wire_is_empty ben 3000
    in_host anna python3 -c 'import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"end", ("45.17.9.9", 9))'
    wait_for 20 test -s "$work/came"
    read -r came different out_of_order <"$work/came"
    say "$came came, $different different ones, out of order: $out_of_order"
    [ "$out_of_order" = True ]
    wire ben counts | python3 -c 'import json, sys
came, different = map(int, sys.argv[1:3])
way, before = json.load(sys.stdin)["left"], json.load(open(sys.argv[3]))["left"]
for name, count in way.items():
    count["frames"] -= before[name]["frames"]
print({name: count["frames"] for name, count in way.items()})
# A few frames may be of ARP.
assert 0 <= way["taken"]["frames"] - 3000 <= 5
assert 0 <= way["delivered"]["frames"] - different <= 5, different
assert 0 <= way["delivered"]["frames"] + way["copies_delivered"]["frames"] - came <= 5, came
assert way["lost_full"]["frames"] == way["lost_refused"]["frames"] == 0
assert 90 <= way["lost_drawn"]["frames"] <= 210 and 50 <= way["copied"]["frames"] <= 130' "$came" "$different" "$work/before"
}

# TCP over the wire comes whole, whatever it meets.
comes_whole() { # HOST BYTES
    in_host "$1" curl -sS --fail "http://$WORLD4/bytes/$2" | python3 "$hosts_here/origin.py" check "$2"
}

rate_holds() {
    local from=$EPOCHREALTIME seconds
    comes_whole cleo 4000000
    seconds=$(seconds_since "$from")
    note "4 MB at 16 Mbit/s: $seconds s"
    awk "BEGIN { exit !($seconds >= 1.9 && $seconds < 10) }"
}

cut_and_mended() {
    cut_wire anna
    fails in_host anna ping -c 1 -W 1 $WORLD4
    mend_wire anna
    in_host anna ping -c 1 -W 5 $WORLD4
    wire anna counts | python3 -c 'import json, sys; assert json.load(sys.stdin)["left"]["lost_cut"]["frames"] >= 1'
}

check "the wire without devices and clock" alone
need_hosts
must "three hosts with a wire each" set_up
check "a delay of 20 ms each way" round_trip_is anna 40
check "loss, copies, another order: what came is what was counted" flood
check "TCP comes whole over a bad wire" comes_whole ben 300000
check "a rate holds" rate_holds
check "cut, and mended" cut_and_mended
for host in anna ben cleo; do
    check "the counts of $host's wire are the kernels' and the pcap file's, to the byte" wire_is_exact $host
done
finish_hosts
