#!/usr/bin/env bash
# Disks that are full: daemons go on, say so, lose nothing that was stored, and store again once there is room.
# Debian: curl iproute2 mount nftables openssl procps python3 util-linux
set -euo pipefail
# shellcheck source=tests/hosts/hosts.bash
source "$(dirname "${BASH_SOURCE[0]}")/hosts.bash"
need_hosts

nodes=(anna ben cleo dora)
small=(anna cleo fritz)

set_up() {
    make_internet
    for number in 1 2 3 4; do add_host "${nodes[number - 1]}" $number; done
    add_host fritz 5
    add_host gus 6
    for host in "${small[@]}"; do small_disk "$host" 4m; done
    small_disk gus 1m
    make_network "bottle_interval=1 s"
    for host in anna ben; do join_as node $host; done
    for host in cleo dora; do join_as_exit $host; done
    join_as node gus
    join_as client fritz
    form "${nodes[@]}"
    start fritz
    wait_for 90 reaches fritz
}

seq_of() { status "$1" bottle seq; }
list_of() { status "$1" network list seq; }
has_list() { [ "$(list_of "$1")" = "$2" ]; }        # HOST SEQ
store_complains() { status "$1" store problem | grep -i 'no space'; }
store_is_content() { [ "$(status "$1" store problem)" = None ] && [ "$(status "$1" store waiting)" = 0 ]; }

# A new list is in force at once, and cannot be stored.
goes_on() {
    local host list
    for host in "${small[@]}"; do fill_disk "$host"; done
    for host in anna cleo; do seq_of $host >"$work/$host.seq"; done
    sign_list "${nodes[@]}"
    list=$(json <("$PORT17" --json network show "$work/network/bootstrap-nodes.json") seq)
    for host in "${nodes[@]}" fritz; do ask "$host" reload; done
    for host in "${nodes[@]}" fritz; do wait_for 10 has_list "$host" "$list"; done
    for host in "${small[@]}"; do wait_for 10 store_complains "$host"; done
    download fritz 10000000
}

# A Bottle is out only after its seq is stored: a change waits.
no_bottle_without_its_seq() {
    kill_hard ben
    wait_for 20 fails has_links anna 3
    start ben
    wait_for 20 has_links anna 3
    local host
    for host in anna cleo; do [ "$(seq_of $host)" = "$(cat "$work/$host.seq")" ]; done
    ask anna status
}

# Killed on a full disk: it comes back with what it had, or says why not; nothing is taken for damaged.
starts_on_a_full_disk() {
    local host
    for host in anna fritz; do
        kill_hard $host
        start $host
    done
    for host in anna fritz; do
        if wait_for 10 is_ready $host; then
            note "$host: works on a full disk"
        else
            tail -n 1 "$work/logs/$host"
            grep -i 'no space' "$work/logs/$host"
            note "$host: says why it does not start"
        fi
        ls "$work/at/$host/state"
        fails grep -q 'set aside' "$work/logs/$host"
    done
}

stored_again() {
    local host list
    list=$(list_of ben)
    for host in "${small[@]}"; do free_disk "$host"; done
    for host in anna fritz; do is_alive $host || start $host; done
    for host in "${small[@]}"; do within 30 "$host has stored all" store_is_content "$host"; done
    # A node's next Bottle is out, and above the last one.
    higher() { [ "$(seq_of "$1")" -gt "$(cat "$work/$1.seq")" ]; }
    for host in anna cleo; do within 20 "$host has a new Bottle" higher $host; done
    within 20 "a stream" reaches fritz
    # All is there after an end without warning, the list first.
    rm "$web/bootstrap-nodes.json"
    for host in anna cleo fritz; do
        kill_hard $host
        start $host
    done
    for host in anna cleo fritz; do within 10 "$host knows the list" has_list $host "$list"; done
    within 20 "a stream" reaches fritz
}

# A disk that was always too small.
too_small() {
    start gus
    works_or_says_why() { has_links gus 2 || grep -qi 'no space' "$work/logs/gus"; }
    wait_for 40 works_or_says_why
    if has_links gus 2; then
        ask gus status
        note "a node with 1 MB: works"
    else
        tail -n 2 "$work/logs/gus"
        grep -i 'no space' "$work/logs/gus"
        note "a node with 1 MB: $(tail -n 1 "$work/logs/gus" | cut -c 1-120)"
    fi
}

hosts="fritz ${nodes[*]}"
must "four nodes and a client, three of them with a disk of 4 MB" told "$hosts" set_up
check "disks full: a new list is in force, a download comes whole, all say so" told "$hosts" goes_on
check "disks full: no Bottle is out before its number is stored" told "$hosts" no_bottle_without_its_seq
check "disks full: kill -9, and a start" told "$hosts" starts_on_a_full_disk
check "a disk of 1 MB from the beginning" too_small
check "room again: all is stored, and there after kill -9" told "$hosts" stored_again
finish_hosts
