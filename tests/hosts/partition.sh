#!/usr/bin/env bash
# The network falls into two parts, each with nodes, exits and clients; each goes on by itself. What one part learned the other learns once it
# is whole again: a node that restarted, one that joined, a new signed list.
# Debian: curl iproute2 nftables openssl procps python3 util-linux
set -euo pipefail
# shellcheck source=tests/hosts/hosts.bash
source "$(dirname "${BASH_SOURCE[0]}")/hosts.bash"
need_hosts

near=(anna ben cleo hanna)
distant=(dora emil frida)

set_up() {
    make_internet
    make_far delay_ms=5 jitter_ms=2 loss_percent=0.1 duplicate_percent=0.5 reorder_percent=0.5
    add_host anna 1
    add_host ben 2
    add_host cleo 3
    add_host dora 4 --far
    add_host emil 5 --far
    add_host frida 6 --far
    add_host gus 7
    add_host hanna 10
    add_home house 9
    add_inside house fritz 2
    add_host greta 8 --far
    make_network "ping_interval=1 s" "ping_timeout=3 s" "guard_return=2 s" "backoff_max=2 s" "hop_skip=5 s" \
        "link_loss_grace=4 s" "link_loss_interval=2 s" "bottle_interval=2 s"
    for host in anna ben dora emil gus; do join_as node "$host"; done
    # A guard is no exit of the same route: two in the near part.
    for host in cleo hanna frida; do join_as_exit "$host"; done
    for host in fritz greta; do join_as client "$host"; done
    form "${near[@]}" "${distant[@]}"
    # The three that it would draw may all be beyond the wire, and it draws no others for that (10-M18).
    sed -i "s/^# guard = \"\"/guard = \"$(status anna node_id)\"/" "$work/at/fritz/port17.toml"
    start fritz
    start greta
    wait_for 90 reaches fritz
    wait_for 90 reaches greta
}

falls_apart() {
    begin_download greta torn 60000000 4M
    wait_for 90 has_got greta torn 500000
    cut_wire far
    within 20 "the near part has no link to the far one in its maps" are_parted "${near[@]}"
    # One of three that has drawn neighbours beyond the wire alone hears of nothing until it has given those up, after three dials each that nobody answers.
    within 120 "the far part none to the near one" are_parted "${distant[@]}"
}

# What the parts knew of each other stays: links within the other one. Links between them are gone from these hosts' maps.
are_parted() { # HOST...
    local host
    for host in "$@"; do
        map_line "$host" | tr ' ' '\n' | grep + | python3 -c 'import sys
near = set(sys.argv[1].split())
sys.exit(any(len(near & set(link.split("+"))) == 1 for link in sys.stdin.read().split()))' "${near[*]} gus" || return
    done
}

near_goes_on() {
    within 20 "a client of the near part: a new stream" reaches fritz
    download fritz 5000000
}

# There is no way to the world from there: nothing comes, and what was under way is seen to be cut.
far_reaches_nothing() {
    wait_for 90 has_ended greta torn
    was_cut greta torn 60000000
    fails through greta -m 3 "http://$ORIGIN/bytes/1"
}

near_changes() {
    kill_hard ben
    start ben
    start gus
    wait_for 20 has_links gus 1
    wait_for 20 has_links ben 2
    sign_list "${near[@]}" "${distant[@]}" gus
    for host in "${near[@]}" gus; do ask "$host" reload; done
    for host in "${near[@]}" gus; do wait_for 10 has_list_of 8 "$host"; done
    has_list_of 7 dora
}

has_list_of() { [ "$(status "$2" network list nodes)" = "$1" ]; } # NODES HOST

heals() {
    mend_wire far
    within 20 "whole again: one map of eight" have_one_map 8 "${near[@]}" "${distant[@]}" gus
    for host in "${distant[@]}" fritz greta; do within 10 "$host has the new list" has_list_of 8 "$host"; done
    within 10 "the far client reaches the world" reaches greta
    download greta 5000000
    download fritz 5000000
}

# Cut for less than silence is noticed: TCP brings it.
moment() {
    begin_download greta moment 8000000 4M
    wait_for 90 has_got greta moment 500000
    cut_wire far
    lost_some() { wire far counts | python3 -c 'import json, sys
counts = json.load(sys.stdin)
sys.exit(not all(way["lost_cut"]["frames"] > 3 for way in counts.values()))'; }
    wait_for 2 lost_some
    mend_wire far
    wait_for 90 has_ended greta moment
    came_whole greta moment 8000000
}

all="fritz greta ${near[*]} ${distant[*]}"
must "seven nodes and two clients at two bridges, a bad wire between them" told "$all" set_up
check "the wire is cut for a moment: no stream is lost" told "$all" moment
check "the wire is cut under a download: two parts, a map each" told "$all" falls_apart
check "the part with the world goes on" told "$all" near_goes_on
check "the other part reaches nothing, and says so" told "$all" far_reaches_nothing
check "meanwhile one part changes: a restart, a new node, a new list" told "$all gus" near_changes
check "whole again: both parts have one map and the new list" told "$all gus" heals
check "the wire's counts are the kernels', to the byte" wire_is_exact far
finish_hosts
