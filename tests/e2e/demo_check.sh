#!/usr/bin/env bash
# `port17 demo` as it is promised: its last line, its time, its ready file, wrong use, and that it leaves nothing behind.
# Debian: curl iproute2 procps python3 util-linux
set -euo pipefail
# shellcheck source=tests/e2e/checks.bash
source "$(dirname "${BASH_SOURCE[0]}")/checks.bash"

LINE='^ok 100000000 bytes sha256 [0-9a-f]{64} hops 3 [0-9]+(\.[0-9]+)? MB/s, first byte [0-9]+(\.[0-9]+)? ms$'

ends_with_ok() { # ARGUMENTS...
    local from=$SECONDS
    mkdir -p "$work/tmp"
    TMPDIR=$work/tmp timeout 60 "$PORT17" demo --check "$@" >"$work/out"
    cat "$work/out"
    [ $((SECONDS - from)) -le 60 ]
    tail -n 1 "$work/out" | grep -Eq "$LINE"
    grep -q "demo set" "$work/out"
    rmdir "$work/tmp"
}

ready_file() {
    ends_with_ok --processes --ready-file "$work/ready"
    python3 - "$work/ready" <<'PYTHON'
import json, re, sys
ready = json.load(open(sys.argv[1]))
assert set(ready) == {"socks", "control", "controls", "network", "origin", "origin_name", "processes", "formed_s"}, ready
assert 0 < ready["formed_s"] <= 10, ready
assert set(ready["controls"]) == set(ready["processes"]) and ready["controls"]["client"] == ready["control"], ready
assert re.fullmatch(r"127\.0\.0\.1:\d+", ready["socks"]), ready
port = re.fullmatch(r"http://127\.0\.0\.1:(\d+)", ready["origin"])[1]
assert ready["origin_name"] == f"http://origin.demo:{port}", ready
assert ready["control"].startswith("/"), ready
assert set(ready["processes"]) == {"client"} | {f"node-{n}" for n in range(1, 7)}, ready
assert len(set(ready["processes"].values())) == 7, ready
PYTHON
    rm -f "$work/ready"
}

usage_error() { # ARGUMENTS...
    local status=0
    "$PORT17" demo "$@" || status=$?
    [ "$status" -eq 2 ]
}

few_hops() {
    "$PORT17" demo --check --hops 1 2>&1 | tee "$work/out"
    grep -q 'for measuring' "$work/out"
    tail -n 1 "$work/out" | grep -q ' hops 1 '
}

# Holds 1717 on all addresses of the demo while the command runs.
with_ports_taken() {
    python3 - "$@" <<'PYTHON'
import socket, subprocess, sys
held = []
for address in ["127.0.0.1"] + [f"127.0.1.{n}" for n in range(1, 10)]:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, 1717))
        listener.listen()
        held.append(listener)
    except OSError:
        pass  # Taken already: just as well.
sys.exit(subprocess.call(sys.argv[1:]))
PYTHON
}

ports_taken() {
    with_ports_taken "$PORT17" demo --check >"$work/out"
    cat "$work/out"
    tail -n 1 "$work/out" | grep -Eq "$LINE"
    grep -Eq '^node-1 +127\.0\.1\.1:(2[0-9]|3[01])[0-9]{3}' "$work/out"
}

# A node itself does not move away.
node_port_taken() {
    local status=0
    mkdir -p "$work/node"
    printf 'state = "state"\nparameters = "demo"\n[node]\nlisten = ["127.0.1.1:1717"]\n' >"$work/node/port17.toml"
    "$PORT17" --config "$work/node/port17.toml" init
    with_ports_taken timeout 20 "$PORT17" --config "$work/node/port17.toml" node >"$work/out" 2>&1 || status=$?
    cat "$work/out"
    [ "$status" -eq 6 ]
    grep -q '127.0.1.1:1717' "$work/out"
    rm -r "$work/node"
}

only_loopback() {
    unshare -n sh -c 'ip link set lo up && exec "$0" demo --check --processes' "$PORT17" | tee "$work/out"
    tail -n 1 "$work/out" | grep -Eq "$LINE"
}

alive() { kill -0 "$1" 2>/dev/null && ! grep -q '^State:.*Z' "/proc/$1/status"; }

members() { python3 -c 'import json, sys; print(*json.load(open(sys.argv[1]))["processes"].values())' "$work/ready.json"; }

none_alive() {
    local process
    for process in "$@"; do if alive "$process"; then return 1; fi; done
}

killed_demo_leaves_no_child() {
    local children
    start_demo --processes
    children=$(members)
    # shellcheck disable=SC2086
    ! none_alive $children
    kill -KILL "$demo_process"
    # shellcheck disable=SC2086
    wait_for 10 none_alive $children
    # Its files nobody could remove.
    rm -r "$work"/port17-demo-*
}

sigterm_is_an_orderly_end() {
    local children
    start_demo --processes
    children=$(members)
    kill -TERM "$demo_process"
    wait "$demo_process"
    # shellcheck disable=SC2086
    none_alive $children
    ! ls -d "$work"/port17-demo-* 2>/dev/null
}

comes_back() {
    local old new
    start_demo --processes
    old=$(process_of node-2)
    kill -KILL "$old"
    changed() { [ "$(process_of node-2)" != "$old" ]; }
    wait_for 5 changed
    new=$(process_of node-2)
    alive "$new"
    # It may have been the guard.
    wait_for 5 mesh -o "$work/1k" "$named/1k.bin"
    kill -TERM "$demo_process"
    wait "$demo_process"
}

check "demo --check: exit 0 and its last line within 60 s" ends_with_ok
check "demo --check --processes" ends_with_ok --processes
check "nine nodes" ends_with_ok --nodes 9
check "ready file" ready_file
check "few hops are said to be for measuring" few_hops
for arguments in "--nodes 10" "--nodes 0" "--hops 7" "--hops 0" "--nodes 3 --hops 4" "--nonsense" "--ready-file"; do
    # shellcheck disable=SC2086
    check "usage error: $arguments" usage_error $arguments
done
check "usual ports taken: others are found" ports_taken
check "a node's port taken: exit 6, and which" node_port_taken
if unshare -n true 2>/dev/null; then
    check "a network namespace with lo alone" only_loopback
else
    skip "a network namespace with lo alone" "no permission to make one"
fi
check "kill -9 of the demo leaves no child" killed_demo_leaves_no_child
check "SIGTERM ends the demo and all children in order" sigterm_is_an_orderly_end
check "a killed child comes back within seconds" comes_back
finish
