#!/usr/bin/env bash
# A network comes up from nothing over real links: nodes with both families, two with IPv6 alone, one behind a link of 1280 bytes, clients behind
# NAT. They get the signed list by HTTPS, find each other, and what is downloaded is what the origin gave.
# Debian: conntrack curl iproute2 iputils-ping nftables openssl procps python3 tcpdump util-linux
set -euo pipefail
# shellcheck source=tests/hosts/hosts.bash
source "$(dirname "${BASH_SOURCE[0]}")/hosts.bash"
need_hosts

nodes=(anna ben cleo dora emil)

topology() {
    make_internet
    add_host anna 1
    add_host ben 2 --only 6
    add_routed_host cleo 3 --mtu 1280
    add_host dora 4 --only 6
    add_host emil 5 --wire delay_ms=5 jitter_ms=1
    add_home house 9 --mtu 1280
    add_inside house fritz 2
    add_inside house greta 3 --only 4
}

all_reach_the_world() {
    local host
    for host in anna emil cleo fritz greta; do in_host "$host" curl -sS --fail "http://$WORLD4/bytes/100000" | wc -c | grep -qx 100000; done
    for host in "${nodes[@]}" fritz; do in_host "$host" curl -sS --fail "http://[$WORLD6]/bytes/100000" | wc -c | grep -qx 100000; done
}

nobody_reaches_who_is_behind_nat() {
    fails in_host anna ping -c 1 -W 1 10.17.9.2
    fails in_host anna ping -c 1 -W 1 "$(address fritz 6)"
}

# The world sees the router's address and not the host's.
nat_hides() {
    in_host fritz curl -sS --fail -o /dev/null "http://$WORLD4/bytes/12345"
    origin_gave 12345 | grep -F "::ffff:$(address house 4)"
}

udp_flows() { in_host house conntrack -L -p udp --orig-port-dst 7 2>/dev/null; }
no_udp_flow() { [ -z "$(udp_flows)" ]; }

nat_forgets_udp() {
    in_host fritz python3 -c 'import socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(5)
udp.sendto(b"ping", (sys.argv[1], 7))
assert udp.recv(100) == b"ping"' "$WORLD4"
    udp_flows | grep -q 45.17.9.9
    wait_for 6 no_udp_flow
}

join() {
    # A slow machine is no lost guard.
    make_network guard_patience=5s
    join_as node anna
    join_as node ben
    join_as_exit cleo
    join_as node dora
    join_as_exit emil
    join_as client fritz
    join_as client greta
}

v6_pair_is_linked() {
    in_host ben ss -Htn6 state established | grep -F "[$(address dora 6)]"
    map_line anna | grep -F ben+dora
}

clients_start() {
    start fritz
    start greta
    within 20 "a client behind NAT, from its start to the first byte" reaches fritz
    within 20 "one with IPv4 alone" reaches greta
}

same_bytes() { # CLIENT NAME BYTES
    local from=$EPOCHREALTIME
    download "$1" "$3" "$2"
    note "$1, $3 bytes: $(seconds_since "$from") s"
    origin_gave "$3"
}

# A client talks to its guard and to who has the list.
client_talks_to_its_guard_alone() {
    local guard
    guard=$(status fritz guard portname)
    guard=${guard%%~*}
    in_host fritz ss -Htn state established | awk '{ print $4 }' | grep -v -e '^127\.' | sed 's/:[0-9]*$//' | tr -d '[]' | sort -u >"$work/peers"
    cat "$work/peers" && [ -s "$work/peers" ]
    fails grep -vxF -e "$(address "$guard" 4 || echo none)" -e "$(address "$guard" 6)" "$work/peers"
}

routes_are_drawn() {
    local _
    for _ in $(seq 20); do ask fritz route "$ORIGIN:80" --json | python3 -c 'import json, sys
route = json.load(sys.stdin)
route = route.get("route", route)
hops = [hop["portname"].split("~")[0] for hop in route["hops"]]
assert len(set(hops)) == 3 and hops[-1] in ("cleo", "emil"), hops
print(*hops)'; done | sort | uniq -c
}

must "hosts, a bridge, a home behind NAT, a link of 1280 bytes, a wire" topology
check "every host reaches the world by each of its families" all_reach_the_world
check "nobody reaches who is behind the router" nobody_reaches_who_is_behind_nat
check "the router gives its own address" nat_hides
check "the router forgets a flow of UDP within seconds" nat_forgets_udp
must "five hosts become nodes, two clients" join
from=$EPOCHREALTIME
must "five nodes get a list by HTTPS, and one map" told "${nodes[*]}" form "${nodes[@]}"
note "from the start of the first to one map: $(seconds_since "$from") s"
check "two nodes with IPv6 alone are linked" v6_pair_is_linked
check "clients behind NAT reach the world through the mesh" told "fritz greta" clients_start
check "what is downloaded is what the origin gave: IPv4" told fritz same_bytes fritz $ORIGIN 20000001
check "what is downloaded is what the origin gave: IPv6" told fritz same_bytes fritz $ORIGIN6 3000002
check "a client with IPv4 alone downloads" told greta same_bytes greta $ORIGIN 5000003
check "a client's host talks to its guard alone" client_talks_to_its_guard_alone
check "routes have three different hops and end at an exit" routes_are_drawn
check "daemons end in order" eval 'for host in fritz greta "${nodes[@]}"; do stop "$host"; done'
check "the wire's counts are the kernels', to the byte" wire_is_exact emil
finish_hosts
