#!/usr/bin/env bash
# A client whose line has 50 ms and loses 1 %: what the mesh makes of it beside plain TCP on the same line, and that not a byte is wrong.
# Debian: curl iproute2 nftables openssl procps python3 util-linux
set -euo pipefail
# shellcheck source=tests/hosts/hosts.bash
source "$(dirname "${BASH_SOURCE[0]}")/hosts.bash"
need_hosts

nodes=(anna ben cleo dora)
bytes=6000000

set_up() {
    make_internet
    for number in 1 2 3 4; do add_host "${nodes[number - 1]}" $number; done
    # 25 ms and 1 % each way.
    add_home house 9 --wire delay_ms=25 loss_percent=1
    add_inside house fritz 2
    make_network
    for host in anna ben; do join_as node $host; done
    for host in cleo dora; do join_as_exit $host; done
    join_as client fritz
    form "${nodes[@]}"
    start fritz
    wait_for 90 reaches fritz
}

rate() { awk "BEGIN { printf \"%.0f\", $bytes / ($EPOCHREALTIME - $1) / 1000 }"; } # SINCE

# How fast it is depends on the kernel's congestion control above all, so that both are measured on the same line.
# Plain TCP and the mesh alternate, three times; the medians count, for loss is luck.
half_of_plain() {
    local from
    for _ in 1 2 3; do
        from=$EPOCHREALTIME
        in_host fritz curl -sS --fail "http://$WORLD4/bytes/$bytes" | python3 "$hosts_here/origin.py" check $bytes
        rate "$from" >>"$work/plain" && echo >>"$work/plain"
        from=$EPOCHREALTIME
        download fritz $bytes
        rate "$from" >>"$work/mesh" && echo >>"$work/mesh"
    done
    local plain mesh
    plain=$(sort -n "$work/plain" | sed -n 2p) mesh=$(sort -n "$work/mesh" | sed -n 2p)
    note "medians: plain TCP $plain kB/s, the mesh $mesh kB/s"
    [ "$mesh" -ge $((plain / 2)) ]
}

# Worse than any line: copies, another order, jitter.
worse() {
    wire house set duplicate_percent=2 reorder_percent=2 jitter_ms=10
    local from=$EPOCHREALTIME
    download fritz 1000001
    note "1 MB over a worse line: $(seconds_since "$from") s"
    origin_gave 1000001
}

# Both lanes of a client and the direct connections went over the wire: no more bytes than what was asked for and what cells, TLS and TCP add.
overhead() {
    wire house counts | python3 -c 'import json, sys
direct, mesh = 3 * int(sys.argv[1]), 3 * int(sys.argv[1]) + 1000001
down = json.load(sys.stdin)["right"]
# What was lost was sent again.
sent = down["taken"]["bytes"] - down["lost"]["bytes"]
print("%.3f bytes on the line for each byte" % (sent / (direct + mesh)), file=open("/dev/fd/3", "w"))
share = down["lost_drawn"]["frames"] / down["taken"]["frames"]
assert 0.005 < share < 0.017, share
assert sent >= direct + mesh and sent < 1.25 * (direct + mesh), sent' $bytes
}

must "four nodes, a client behind a long line that loses" told "fritz ${nodes[*]}" set_up
check "three downloads: at least half of what plain TCP makes" told fritz half_of_plain
check "copies and another order on top: not a byte is wrong" told fritz worse
check "what the line carried is what was asked for, and little more" overhead
check "the wire's counts are the kernels' and the pcap file's, to the byte" wire_is_exact house
finish_hosts
