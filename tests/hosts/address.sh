#!/usr/bin/env bash
# Addresses that change under a running mesh: a home gets another public one, a client another one in the house, a client loses IPv4, the
# router forgets all flows, a node moves. Streams that lose their way are cut; new ones work again within a stated time.
# Debian: conntrack curl iproute2 nftables openssl procps python3 util-linux
set -euo pipefail
# shellcheck source=tests/hosts/hosts.bash
source "$(dirname "${BASH_SOURCE[0]}")/hosts.bash"
need_hosts

nodes=(anna ben cleo dora)
bytes=60000000

set_up() {
    make_internet
    for number in 1 2 3 4; do add_host "${nodes[number - 1]}" $number; done
    add_home house 9
    add_inside house fritz 2
    make_network "ping_interval=1 s" "ping_timeout=3 s" "guard_return=2 s" "backoff_max=2 s" "hop_skip=5 s" "bottle_interval=2 s"
    for host in anna ben; do join_as node $host; done
    for host in cleo dora; do join_as_exit $host; done
    join_as client fritz
    form "${nodes[@]}"
    start fritz
    wait_for 90 reaches fritz
}

under_way() { # NAME
    begin_download fritz "$1" $bytes 4M
    wait_for 90 has_got fritz "$1" 1000000
}

new_stream_and_the_old_is_cut() { # WHAT NAME
    within 15 "$1: a new stream" reaches fritz
    wait_for 90 has_ended fritz "$2"
    was_cut fritz "$2" $bytes
}

# By which family the client is linked to its guard.
families() { in_host fritz ss -Htn state established dport = 1717 | awk '{ print ($4 ~ /^\[/) ? 6 : 4 }' | sort -u | tr -d '\n'; }

# From here on by IPv4 alone: NAT is in every way.
without_ipv6() {
    ip -n "$tag-fritz" -6 route del default
    in_host fritz ss -K -6 dport = 1717 >"$work/killed" || true
    within 15 "IPv6 gone: a new stream" reaches fritz
    [ "$(families)" = 4 ]
}

another_public_address() {
    under_way public
    ip -n "$tag-house" addr del 198.51.100.38/30 dev eth0
    ip -n "$tag-net" addr add 198.51.100.129/30 dev to-house
    give_address house 198.51.100.130/30 198.51.100.129
    in_host house conntrack -F 2>/dev/null
    new_stream_and_the_old_is_cut "another public address" public
    in_host anna ss -Htn >"$work/seen"
    for host in ben cleo dora; do in_host $host ss -Htn >>"$work/seen"; done
    grep -F 198.51.100.130 "$work/seen"
}

# A router that forgets: what comes from outside has no way in until the client sends something itself.
router_forgets() {
    under_way forgotten
    in_host house conntrack -F 2>/dev/null
    within 15 "the router forgot all flows: a stream" reaches fritz
    wait_for 90 has_ended fritz forgotten
    came_whole fritz forgotten $bytes || was_cut fritz forgotten $bytes
}

another_address_inside() {
    under_way inside
    ip -n "$tag-fritz" addr del 10.17.9.2/24 dev eth0
    give_address fritz 10.17.9.77/24 10.17.9.1
    new_stream_and_the_old_is_cut "another address inside" inside
}

other_family() {
    under_way family
    ip -n "$tag-fritz" -6 route add default via 2001:db8:1:9::1
    ip -n "$tag-fritz" -4 route del default
    ip -n "$tag-fritz" addr flush dev eth0 scope global to 10.0.0.0/8
    new_stream_and_the_old_is_cut "IPv4 gone, IPv6 there" family
    [ "$(families)" = 6 ]
}

# A node's next Bottle says where it is now; the list still says where it was.
node_moves() {
    local guard number
    guard=$(guard_of fritz)
    number=$(address "$guard" 4)
    number=$((${number##*.} + 60))
    stop "$guard"
    ip -n "$tag-$guard" addr flush dev eth0 scope global
    give_address "$guard" 192.0.2.$number/24 192.0.2.254
    give_address "$guard" 2001:db8::$number/64 2001:db8::fe
    sed -i "s/^addresses = .*/addresses = [\"192.0.2.$number:1717\", \"[2001:db8::$number]:1717\"]/" "$work/at/$guard/port17.toml"
    start "$guard"
    within 20 "the guard moved: one map" have_one_map 4 "${nodes[@]}"
    knows_where() { ask fritz map --json | grep -qF "192.0.2.$number:1717"; }
    within 20 "the client knows where it is" knows_where
    is_used() { [ "$(guard_of fritz)" = "$guard" ] && in_host fritz ss -Htn state established | grep -qF -e "[2001:db8::$number]:1717" -e "192.0.2.$number:1717"; }
    within 30 "and uses it again" is_used
    within 10 "a new stream" reaches fritz
}

hosts="fritz ${nodes[*]}"
must "four nodes, a client behind NAT" told "$hosts" set_up
check "IPv6 goes: IPv4 it is" told "$hosts" without_ipv6
check "the router forgets all flows under a download" told "$hosts" router_forgets
check "the home gets another public address under a download" told "$hosts" another_public_address
check "the client gets another address under a download" told "$hosts" another_address_inside
check "IPv4 goes and IPv6 comes under a download" told "$hosts" other_family
check "the guard moves to another address" told "$hosts" node_moves
finish_hosts
