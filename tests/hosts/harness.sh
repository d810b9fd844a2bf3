#!/usr/bin/env bash
# The harness itself: however a scenario ends, nothing of it is left.
# Debian: iproute2 openssl procps python3 util-linux
set -euo pipefail
# shellcheck source=tests/hosts/hosts.bash
source "$(dirname "${BASH_SOURCE[0]}")/hosts.bash"
need_hosts

# What runs stands in a file: prefix, directory, processes. It makes all there is, and then waits to be ended.
cat >"$work/inner.sh" <<INNER
set -euo pipefail
source "$hosts_here/hosts.bash"
need_hosts
all() {
    make_internet
    add_home house 9 --wire delay_ms=5
    make_space fritz
    small_disk fritz 1m
    capture packets house eth0 tcp
    spawn stubborn fritz bash -c 'trap "" TERM INT; exec sleep infinity'
}
must "all there is" all
printf '%s\n' "\$tag" "\$work" \$(cat "\$work"/pids/*) >"$work/inner.new"
mv "$work/inner.new" "$work/inner"
if [ "\$1" = fails ]; then false; fi
read -r _ <>"$work/fifo"
finish_hosts
INNER
mkfifo "$work/fifo"

# One that hangs ends with this script.
end_inner() { [ ! -e "$work/inner.process" ] || kill "$(cat "$work/inner.process")" 2>/dev/null || true; }
trap 'end_inner; end_hosts' EXIT

runs() { # end|fails
    rm -f "$work/inner"
    bash "$work/inner.sh" "$1" >"$work/inner.log" 2>&1 &
    echo $! >"$work/inner.process"
    wait_for 60 test -e "$work/inner" || { cat "$work/inner.log"; return 1; }
}

inner_is_gone() { is_dead "$(cat "$work/inner.process")"; }

nothing_is_left() {
    local prefix directory processes process
    { read -r prefix && read -r directory && mapfile -t processes; } <"$work/inner"
    [ ${#processes[@]} -eq 4 ]
    fails compgen -G "/run/netns/$prefix-*"
    fails test -e "$directory"
    fails grep -F "$directory" /proc/self/mountinfo
    for process in "${processes[@]}"; do
        wait_for 5 is_dead "$process"
    done
}

ends_by() { # SIGNAL
    runs end
    kill "-$1" "$(cat "$work/inner.process")"
    wait_for 20 inner_is_gone
    nothing_is_left
}

ends_by_itself() {
    runs end
    echo go >"$work/fifo"
    wait_for 20 inner_is_gone
    cat "$work/inner.log"
    grep -qx '2 passed, 0 failed, 0 skipped' "$work/inner.log"
    nothing_is_left
}

ends_by_a_failure() {
    runs fails
    wait_for 20 inner_is_gone
    nothing_is_left
}

# What is killed so hard cleans up nothing; the next run does.
killed() {
    runs end
    kill -9 "$(cat "$work/inner.process")"
    wait_for 20 inner_is_gone
    forget_the_dead
    nothing_is_left
}

check "a scenario that comes to its end" ends_by_itself
check "one that fails in the middle" ends_by_a_failure
check "SIGTERM" ends_by TERM
check "kill -9: the next run clears away" killed
finish_hosts
