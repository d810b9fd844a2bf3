#!/usr/bin/env bash
# Keys that change under a stream: circuit keys every minute, cell keys every 65,536 cells, in one download over a slow line that takes longer than
# a minute. Not a byte is wrong, and new circuits use the new keys.
# Debian: curl iproute2 nftables openssl procps python3 util-linux
set -euo pipefail
# shellcheck source=tests/hosts/hosts.bash
source "$(dirname "${BASH_SOURCE[0]}")/hosts.bash"
need_hosts

nodes=(anna ben cleo dora)
# More than 65,536 cells, in more than a minute at the line's rate.
bytes=150000000

set_up() {
    make_internet
    for number in 1 2 3 4; do add_host "${nodes[number - 1]}" $number; done
    add_home house 9 --wire rate_kbit=18500 delay_ms=10 queue_ms=100
    add_inside house fritz 2
    make_network "circuit_key_interval=1 min" "circuit_key_lifetime=90 s" "circuit_key_margin=10 s" "bottle_interval=1 s"
    for host in anna ben; do join_as node $host; done
    for host in cleo dora; do join_as_exit $host; done
    join_as client fritz
    form "${nodes[@]}"
    start fritz
    wait_for 90 reaches fritz
}

# When the key ends that a node's newest Bottle carries.
key_end() { ask "$1" bottle export | "$PORT17" --json bottle show - | json /dev/stdin circuit_key_not_after_s; }
note_keys() { for host in "${nodes[@]}"; do key_end "$host" >"$work/at/$host/key"; done; }
has_new_key() { [ "$(key_end "$1")" -gt "$(cat "$work/at/$1/key")" ]; }
all_have_new_keys() { for host in "${nodes[@]}"; do has_new_key "$host" || return; done; }

begins() {
    note_keys
    begin_download fritz long $bytes
    wait_for 90 has_got fritz long 1000000
}

# Another user name is another circuit: it is built now, with the keys of now.
new_circuit() { through fritz -m 10 --proxy-user "$RANDOM$RANDOM:x" -o /dev/null "http://$ORIGIN/bytes/1000"; }

rotate() {
    within 75 "all nodes have new keys" all_have_new_keys
    fails has_ended fritz long
    for _ in 1 2 3; do new_circuit; done
    fails has_ended fritz long
}

ends_whole() {
    wait_for 90 has_ended fritz long
    came_whole fritz long $bytes
    origin_gave $bytes
    for _ in 1 2 3; do new_circuit; done
}

hosts="fritz ${nodes[*]}"
must "four nodes whose circuit keys last a minute, a client with a slow line" told "$hosts" set_up
check "a download begins" told "$hosts" begins
check "circuit keys change under it; new circuits are built with them" told "$hosts" rotate
check "the download is whole, $bytes bytes: cell keys changed, too" told "$hosts" ends_whole
check "the wire's counts are the kernels' and the pcap file's, to the byte" wire_is_exact house
finish_hosts
