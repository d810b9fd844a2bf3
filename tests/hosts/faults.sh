#!/usr/bin/env bash
# Processes killed, frozen and cut off while a client downloads: what was cut is seen to be cut, new streams work again within a
# stated time, and the map becomes what it was.
# Debian: curl iproute2 nftables openssl procps python3 util-linux
set -euo pipefail
# shellcheck source=tests/hosts/hosts.bash
source "$(dirname "${BASH_SOURCE[0]}")/hosts.bash"
need_hosts

nodes=(anna ben cleo dora emil)
# Longer than all that may wait between the exit and curl.
bytes=60000000

set_up() {
    make_internet
    add_host anna 1
    add_host ben 2
    add_host cleo 3
    add_host dora 4
    add_host emil 5
    add_home house 9
    add_inside house fritz 2
    # Silence is noticed within 4 s here, not within 35.
    make_network "ping_interval=1 s" "ping_timeout=3 s" "guard_return=2 s" "backoff_max=2 s" "hop_skip=5 s"
    for host in anna ben; do join_as node "$host"; done
    # One may be the guard, another is killed.
    for host in cleo dora emil; do join_as_exit "$host"; done
    join_as client fritz
    form "${nodes[@]}"
    start fritz
    wait_for 90 reaches fritz
}

# A download that takes some seconds, and the route it takes.
under_way() { # NAME
    begin_download fritz "$1" $bytes 4M
    wait_for 90 has_got fritz "$1" 1000000
    route_of fritz >"$work/route"
    cat "$work/route"
}

hop() { cut -d' ' -f"$1" "$work/route"; } # 1|2|3

killed() { # HOP
    local victim
    under_way killed
    victim=$(hop "$1")
    kill_hard "$victim"
    within 15 "hop $1 killed: a new stream" reaches fritz
    wait_for 90 has_ended fritz killed
    was_cut fritz killed $bytes
    start "$victim"
    within 20 "hop $1 started again: one map" have_one_map 5 "${nodes[@]}"
}

# Frozen for less than silence is noticed: nothing happens but a pause.
frozen_for_a_moment() {
    local victim stood
    begin_download fritz moment 8000000 4M
    wait_for 90 has_got fritz moment 500000
    route_of fritz >"$work/route"
    victim=$(hop 2)
    send_signal "$victim" STOP
    # Nothing comes through any more; then it goes on.
    stood=0
    stands_still() { local before=$stood; stood=$(stat -c %s "$work/at/fritz/moment"); [ "$stood" = "$before" ]; }
    wait_for 3 stands_still
    send_signal "$victim" CONT
    wait_for 90 has_ended fritz moment
    came_whole fritz moment 8000000
}

no_link_to() { # HOST OTHER
    ask "$1" status --json | python3 -c 'import json, sys
sys.exit(any(link["up"] and link["portname"].startswith(sys.argv[1] + "~") for link in json.load(sys.stdin)["links"]))' "$2"
}

# Frozen until nobody believes in it any more, then let go.
frozen() { # HOP
    local victim
    under_way frozen
    victim=$(hop "$1")
    send_signal "$victim" STOP
    within 15 "hop $1 frozen: a new stream" reaches fritz
    for host in "${nodes[@]}"; do
        [ "$host" = "$victim" ] || wait_for 15 no_link_to "$host" "$victim"
    done
    wait_for 90 has_ended fritz frozen
    was_cut fritz frozen $bytes
    send_signal "$victim" CONT
    within 20 "hop $1 let go: one map" have_one_map 5 "${nodes[@]}"
    within 20 "and its links" has_links "$victim" 4
}

sockets_to() { in_host "$1" ss -Htn state established dst "$2" | wc -l; } # HOST ADDRESS

# Kills all sockets between a client's host and its guard, by the kernel.
client_lanes_killed() {
    local guard
    under_way lanes
    guard=$(hop 1)
    in_host fritz ss -K dst "$(address "$guard" 4)" dport = 1717 >"$work/killed"
    in_host fritz ss -K dst "[$(address "$guard" 6)]" dport = 1717 >>"$work/killed"
    grep -c ESTAB "$work/killed"
    within 10 "a client's lanes killed: a new stream" reaches fritz
    wait_for 90 has_ended fritz lanes
    was_cut fritz lanes $bytes
}

node_lanes_killed() {
    local middle
    under_way lanes
    middle=$(hop 2)
    in_host "$middle" ss -K state established '( sport = 1717 or dport = 1717 )' >"$work/killed"
    grep -c 1717 "$work/killed"
    within 10 "all of a middle's lanes killed: a new stream" reaches fritz
    wait_for 90 has_ended fritz lanes
    was_cut fritz lanes $bytes
    within 15 "its links again" has_links "$middle" 4
}

client_killed() {
    kill_hard fritz
    fails through fritz -m 2 "http://$ORIGIN/bytes/1"
    start fritz
    within 10 "a client killed and started again: a stream" reaches fritz
}

all_killed() {
    local host
    for host in "${nodes[@]}"; do kill_hard "$host"; done
    for host in "${nodes[@]}"; do start "$host"; done
    within 20 "all nodes killed at once and started again: one map" have_one_map 5 "${nodes[@]}"
    within 20 "and a stream" reaches fritz
}

hosts="fritz ${nodes[*]}"
must "five nodes, a client behind NAT" told "$hosts" set_up
for n in 1 2 3; do
    check "kill -9 of hop $n under a download" told "$hosts" killed $n
done
check "a middle that is frozen for a moment costs no stream" told "$hosts" frozen_for_a_moment
check "SIGSTOP of the guard until it is given up, then SIGCONT" told "$hosts" frozen 1
check "SIGSTOP of a middle until it is given up, then SIGCONT" told "$hosts" frozen 2
check "ss -K of the client's lanes under a download" told "$hosts" client_lanes_killed
check "ss -K of all lanes of a middle under a download" told "$hosts" node_lanes_killed
check "kill -9 of the client" told "$hosts" client_killed
check "kill -9 of all nodes at once" told "$hosts" all_killed
finish_hosts
