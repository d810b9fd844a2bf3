#!/usr/bin/env bash
# The guides, word for word: each machine is a network namespace with files of its own, the only route between them a bridge. Then all of
# it is stopped and started a week later.
# Debian: curl iproute2 util-linux openssl python3 libfaketime procps
set -euo pipefail
# shellcheck source=tests/e2e/checks.bash
source "$(dirname "${BASH_SOURCE[0]}")/checks.bash"

guides=$here/../../docs/guides
tag=p17g$$
hosts=(anna ben cleo dora emil)
# What the guides curl: an address that is public, in a world of its own.
world=45.17.9.9
private=(/etc/port17 /var/lib/port17 /run/port17)
made=()
declare -A keeper

may_make_namespaces() { [ "$(id -u)" -eq 0 ] && ip netns add "$tag-try" 2>/dev/null && ip netns delete "$tag-try"; }

tear_down() {
    local host
    for host in "${hosts[@]}" world; do
        ip netns pids "$tag-$host" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
        ip netns delete "$tag-$host" 2>/dev/null || true
    done
    [ ${#made[@]} -eq 0 ] || rmdir "${made[@]}" 2>/dev/null || true
    clean_up
}
trap tear_down EXIT

# The bridge stands in the world's namespace; nothing of it is on this machine.
make_world() {
    ip netns add "$tag-world"
    ip -n "$tag-world" link set lo up
    ip -n "$tag-world" link add bridge type bridge
    ip -n "$tag-world" addr add 192.0.2.254/24 dev bridge
    ip -n "$tag-world" addr add "$world/32" dev lo
    ip -n "$tag-world" link set bridge up
    mkdir -p "$work/site"
    echo "the world" >"$work/site/index.html"
    (cd "$work/site" && exec ip netns exec "$tag-world" python3 -m http.server --bind "$world" 80) >"$work/world.log" 2>&1 &
    wait_for 10 ip netns exec "$tag-world" curl -sS "http://$world/"
}

make_host() { # NAME NUMBER
    local name=$1 address=192.0.2.$2 directory
    ip netns add "$tag-$name"
    ip -n "$tag-$name" link set lo up
    ip -n "$tag-world" link add "to-$name" type veth peer name eth0 netns "$tag-$name"
    ip -n "$tag-world" link set "to-$name" master bridge up
    ip -n "$tag-$name" addr add "$address/24" dev eth0
    ip -n "$tag-$name" link set eth0 up
    ip -n "$tag-$name" route add default via 192.0.2.254
    # Files of its own, kept by a process that sleeps; the name server of this world is a file.
    printf '127.0.0.1 localhost\n%s example.com\n' "$world" >"$work/hosts"
    for directory in "${private[@]}"; do
        [ -d "$directory" ] || { mkdir -p "$directory" && made+=("$directory"); }
    done
    # shellcheck disable=SC2016
    ip netns exec "$tag-$name" unshare --mount --propagation private bash -c '
        for directory in '"${private[*]}"'; do mount -t tmpfs -o mode=700 tmpfs "$directory"; done
        mount --bind '"$work/hosts"' /etc/hosts
        echo $$ >'"$work/$name.keeper"'
        exec sleep infinity' &
    background+=($!)
    wait_for 10 test -s "$work/$name.keeper"
    keeper[$name]=$(cat "$work/$name.keeper")
}

# Runs a script on a host, in the directory where all exchange their files.
on() { # HOST SCRIPT
    (cd "$work/exchange" && PATH="$(dirname "$PORT17"):$PATH" nsenter -t "${keeper[$1]}" --net --mount --wd="$work/exchange" \
        bash -euo pipefail "$2" </dev/null >>"$work/$1.log" 2>&1)
}

# The blocks of a guide, in order: NUMBER.HOST or NUMBER.HOST.wait.
blocks() { # GUIDE
    awk -v out="$work/blocks" '
        /^```sh [a-z]+( wait)?$/ { name = sprintf("%s/%02d.%s%s", out, ++n, $2, $3 ? "." $3 : ""); next }
        /^```$/ { name = ""; next }
        name { print > name }' "$1"
}

run_guide() { # GUIDE
    local block host
    rm -rf "$work/blocks" && mkdir -p "$work/blocks"
    blocks "$guides/$1"
    local before=$failed
    for block in "$work"/blocks/*; do
        # What comes after a failed step says nothing.
        [ "$failed" -eq "$before" ] || return 0
        host=$(basename "$block" | cut -d. -f2)
        case $block in
            *.wait) check "$1: $host: $(tail -n 1 "$block")" told "$host" wait_for 30 on "$host" "$block" ;;
            *) check "$1: $host: $(head -n 1 "$block" | cut -c 1-60)" told "$host" on "$host" "$block" ;;
        esac
    done
}

# What a host last said goes with a failure.
told() { # HOST COMMAND...
    local host=$1
    shift
    "$@" || { tail -n 20 "$work/$host.log"; return 1; }
}

run_all() { # SCRIPT-TEXT HOSTS...
    local text=$1 host
    shift
    for host in "$@"; do
        printf '%s\n' "$text" >"$work/script.$host"
        on "$host" "$work/script.$host"
    done
}

stop_all() {
    run_all 'pkill -TERM -x port17 --ns $$ --nslist net || true
        for _ in $(seq 100); do pgrep -x port17 --ns $$ --nslist net >/dev/null || exit 0; sleep 0.1; done; exit 1' "${hosts[@]}"
}

# Wall clocks a week on; the monotonic one stays, as after a week in which all was off.
later="export LD_PRELOAD=$(find /usr/lib -name libfaketime.so.1 -print -quit)"' FAKETIME=+7d DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1'

a_week_later() {
    stop_all
    run_all "$later; port17 node &" anna ben cleo
    run_all "$later; port17 client &" dora
    printf '%s\n' 'curl --fail --silent --show-error --socks5-hostname 127.0.0.1:1080 http://example.com/' >"$work/fetch"
    wait_for 40 on dora "$work/fetch" || { tail -n 30 "$work"/{anna,dora}.log; return 1; }
}

nothing_goes_directly() {
    # The client's machine sent packets to its guard and to the list's server, and to nobody else.
    ip netns exec "$tag-dora" ss -Htn state established | awk '{ print $4 }' | grep -v '^127\.' | cut -d: -f1 | sort -u >"$work/peers"
    cat "$work/peers"
    ! grep -v -x -e '192\.0\.2\.[123]' "$work/peers"
}

if ! may_make_namespaces; then
    skip "the guides" "network namespaces need root and a kernel that has them"
    finish
    exit
fi
mkdir -p "$work/exchange"
make_world
number=0
for host in "${hosts[@]}"; do make_host "$host" $((number += 1)); done
run_guide own-network.md
check "the client's machine talks to its guard alone" nothing_goes_directly
# Dora begins again, as somebody who joins.
check "a client stops" run_all 'pkill -TERM -x port17 --ns $$ --nslist net; sleep 1; rm -rf /etc/port17/* /var/lib/port17/*' dora
run_guide join.md
check "all stopped, and started a week later" a_week_later
finish
