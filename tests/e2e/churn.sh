#!/usr/bin/env bash
# Processes killed by SIGKILL one after the other under load; a node leaves for good, another joins. Each time the maps of all become the
# same again, and the client never uses a link that is not in its map.
# Debian: curl python3 procps
set -euo pipefail
# shellcheck source=tests/e2e/checks.bash
source "$(dirname "${BASH_SOURCE[0]}")/checks.bash"

# The map of a member: `COUNT NAMES | LINKS`, of the nodes that have a link.
map_of() { # MEMBER
    local control
    if [ "$1" = joined ]; then control=$work/joined/state/control.sock; else control=$(json "$work/ready.json" controls "$1"); fi
    "$PORT17" --control "$control" map --json | python3 "$here/map_line.py"
}

# Who runs, the client included.
members() { json "$work/ready.json" processes | tr -d "{},'" | tr ' ' '\n' | grep -E '^(node-|client)' | tr -d :; }

# All who run have the same map, and so many nodes in it have links.
converged() { # COUNT [MEMBER...]
    local count=$1 member line first=
    shift
    for member in $(members) "$@"; do
        line=$(map_of "$member") || return 1
        [ -n "$first" ] || first=$line
        [ "$line" = "$first" ] || return 1
    done
    [ "${first%% *}" = "$count" ]
}

load() {
    while :; do
        mesh --max-time 20 "$named/10m.bin" 2>/dev/null | sha >>"$work/sums" || true
        sleep 0.05
    done
}

# The links of the client's new circuits are in its map.
watch_routes() {
    while :; do
        "$PORT17" --control "$control" map --json >"$work/before.json" 2>/dev/null &&
            curl -sS --unix-socket "$control" http://port17/v1/circuits >"$work/circuits.json" 2>/dev/null &&
            "$PORT17" --control "$control" map --json >"$work/after.json" 2>/dev/null &&
            python3 "$here/routes_in_map.py" "$work/before.json" "$work/circuits.json" "$work/after.json" >>"$work/routes.log" 2>&1 || true
        sleep 0.1
    done
}

changed() { [ "$(process_of "$1")" != "$2" ]; }
runs() { members | grep -qx "$1"; }
gone() { ! runs "$1"; }

comes_back() { # MEMBER
    local before
    before=$(process_of "$1")
    kill -9 "$before"
    wait_for 20 changed "$1" "$before"
    wait_for 30 converged 6
    wait_for 20 mesh "$named/1k.bin"
}

# Its Bottle stays for a day; its links do not.
leaves() {
    kill -TERM "$(process_of node-2)"
    wait_for 20 gone node-2
    wait_for 30 converged 5
    wait_for 20 mesh "$named/1k.bin"
}

joins() {
    mkdir -p "$work/joined"
    "$PORT17" --config "$work/joined/port17.toml" init --network "$(json "$work/ready.json" network)" --label joined --address 127.0.1.77:17177
    "$PORT17" --config "$work/joined/port17.toml" node >"$work/joined.log" 2>&1 &
    echo $! >"$work/joined.process"
    wait_for 30 converged 6 joined || { cat "$work/joined.log"; return 1; }
    map_of client | grep joined
}

whole() {
    python3 - "$work/sums" "$(curl -sS "$origin/10m.bin" | sha)" <<'PYTHON'
import sys
lines = open(sys.argv[1]).read().split()
good = lines.count(sys.argv[2])
print(len(lines), "downloads,", good, "whole")
assert good >= 10
PYTHON
}

routes_held() {
    tail -n 3 "$work/routes.log"
    grep -c '^ok' "$work/routes.log"
    ! grep -v '^ok' "$work/routes.log"
}

end_joined() { [ ! -e "$work/joined.process" ] || kill "$(cat "$work/joined.process")" 2>/dev/null || true; }
trap 'end_joined; clean_up' EXIT

start_demo --processes
check "six nodes, one map" wait_for 20 converged 6
load & background+=($!)
watch_routes & background+=($!)
for member in $(members); do
    check "kill -9 of $member under load: it comes back, and so does the map" comes_back "$member"
done
check "a node leaves for good: nobody lists a link to it" leaves
check "a node joins: everyone's map has it and its links" joins
check "what was downloaded under load is whole or nothing" whole
check "no circuit used a link that is not in the map" routes_held
finish
