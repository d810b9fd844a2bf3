#!/usr/bin/env bash
# Wall clocks that jump while all goes on: a little, by days, back, at nodes and at a client. No number ever goes down, what is wrong is said,
# the rest of the mesh does not care, and it heals.
# Debian: curl iproute2 libfaketime nftables openssl procps python3 util-linux
set -euo pipefail
# shellcheck source=tests/hosts/hosts.bash
source "$(dirname "${BASH_SOURCE[0]}")/hosts.bash"
need_hosts

nodes=(anna ben cleo dora emil)

set_up() {
    local host number=0
    make_internet
    for host in "${nodes[@]}"; do add_host "$host" $((number += 1)); done
    add_host fritz 9
    make_network "ping_interval=1 s" "ping_timeout=3 s" "backoff_max=2 s" "hop_skip=5 s" "bottle_interval=1 s" "repair_interval=2 s" \
        "link_loss_grace=3 s" "link_loss_interval=2 s" "guard_return=2 s"
    for host in anna ben; do join_as node "$host"; done
    for host in cleo dora emil; do join_as_exit "$host"; done
    join_as client fritz
    for host in "${nodes[@]}"; do begin "$host"; done
    sign_list "${nodes[@]}"
    for host in "${nodes[@]}"; do ask "$host" reload; done
    wait_for 90 have_one_map 5 "${nodes[@]}"
    begin fritz
    wait_for 90 reaches fritz
}

# shellcheck disable=SC2046
begin() { start "$1" $(own_clock "$1"); }

seq_of() { status "$1" bottle seq; }
# Also where it says it with exit code 4.
says() { { ask "$1" status || true; } | grep -i "$2"; } # HOST WHAT

# A change, so that there is a new Bottle.
changes() { # HOST
    kill_hard "$1"
    begin "$1"
    wait_for 20 has_links "$1" 4
}

# Numbers only grow, whatever the clock does: those of before stand in a file.
note_seqs() { for host in "${nodes[@]}"; do seq_of "$host" >"$work/at/$host/seq"; done; }
no_seq_went_down() {
    local host
    for host in "${nodes[@]}"; do [ "$(seq_of "$host")" -ge "$(cat "$work/at/$host/seq")" ]; done
}

# SETUPs name a quarter of an hour (spec 06, 1.6): a hop that is a little ahead takes the one before, one that is set back stands still.
a_little() {
    note_seqs
    set_clock anna +10m
    set_clock ben -40m
    within 10 "10 min ahead, 40 min set back: a stream" new_circuit
    changes cleo
    within 20 "one map" have_one_map 5 "${nodes[@]}"
    no_seq_went_down
}

# Another user name is another circuit.
new_circuit() { through fritz -m 5 --proxy-user "$RANDOM$RANDOM:x" -o /dev/null "http://$ORIGIN/bytes/1000"; }

# The clock of a hop under a download, days ahead: the stream does not care; the others take no Bottle of that time.
days_ahead() {
    local middle
    begin_download fritz ahead 20000000 8M
    wait_for 90 has_got fritz ahead 1000000
    middle=$(route_of fritz | cut -d' ' -f2)
    echo "$middle" >"$work/middle"
    set_clock "$middle" +3d
    wait_for 90 has_ended fritz ahead
    came_whole fritz ahead 20000000
    within 20 "3 days ahead: it says that its clock is wrong" says "$middle" clock
    within 20 "3 days ahead: a new circuit" new_circuit
}

set_right() {
    local middle
    middle=$(cat "$work/middle")
    note_seqs
    set_clock "$middle" +0
    within 20 "set right: it says that it was set back" says "$middle" "set back"
    stop "$middle"
    begin "$middle"
    within 20 "started again: it has its links" has_links "$middle" 3
    no_seq_went_down
    within 10 "a stream" reaches fritz
}

back() {
    local victim=emil
    [ "$(cat "$work/middle")" != emil ] || victim=dora
    note_seqs
    set_clock $victim -3d
    within 20 "3 days back: it says so" says $victim "set back"
    within 10 "3 days back: a new circuit" new_circuit
    set_clock $victim +0
    is_quiet() { fails says $victim "set back"; }
    within 20 "right again: it says nothing of it" is_quiet
    no_seq_went_down
}

# What stands goes on. A SETUP of three days ago nobody takes: the client says why, and it is over when the clock is right.
client_back() {
    begin_download fritz back 20000000 8M
    wait_for 90 has_got fritz back 1000000
    set_clock fritz -3d
    wait_for 90 has_ended fritz back
    came_whole fritz back 20000000
    within 10 "the client 3 days back: it says so" says fritz "set back"
    set_clock fritz +0
    within 20 "right again: a new circuit" new_circuit
}

# By its clock every key has ended: no circuit, and nothing goes directly. Once it is right, a start is enough.
client_ahead() {
    begin_download fritz far 20000000 8M
    wait_for 90 has_got fritz far 1000000
    set_clock fritz +3d
    wait_for 90 has_ended fritz far
    came_whole fritz far 20000000
    stop fritz
    begin fritz
    within 10 "the client 3 days ahead, started: it says that its clock is wrong" says fritz clock
    fails through fritz -m 3 "http://$ORIGIN/bytes/1"
    set_clock fritz +0
    stop fritz
    begin fritz
    within 20 "the client was 3 days ahead, is right again and started: a stream" reaches fritz
}

hosts="fritz ${nodes[*]}"
must "five nodes and a client, each with a clock of its own" told "$hosts" set_up
check "clocks that are minutes off: nobody cares" told "$hosts" a_little
check "a middle's clock jumps 3 days ahead under a download" told "$hosts" days_ahead
check "it is set right" told "$hosts" set_right
check "a node's clock jumps 3 days back" told "$hosts" back
check "the client's clock jumps back under a download" told "$hosts" client_back
check "the client's clock jumps ahead under a download" told "$hosts" client_ahead
finish_hosts
