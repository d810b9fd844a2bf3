# What the scripts beside this file share: the program, counted checks, a demo that is ended whatever happens. To be sourced.
# shellcheck shell=bash

export LC_ALL=C.UTF-8
# Proxies of the environment would decide which way a test's own connections go.
unset http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY PORT17_LOG

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d /tmp/port17-e2e-XXXXXX)
passed=0 failed=0 skipped=0
background=()
demo_process=

if [ -z "${PORT17:-}" ]; then
    PORT17=$(realpath -m "${CARGO_TARGET_DIR:-$here/../../target}")/release/port17
    [ -x "$PORT17" ] || (cd "$here/../.." && cargo build --release --locked)
fi

say() { printf '%s\n' "$*"; }

# Runs a command or function; every command of a function must succeed.
check() { # NAME COMMAND...
    local name=$1 status=0
    shift
    set +e
    (
        set -e
        # A demo of this check alone ends with it.
        outer=$demo_process
        trap '[ "$demo_process" = "$outer" ] || stop_demo' EXIT
        "$@"
    ) >"$work/check.log" 2>&1
    status=$?
    set -e
    if [ "$status" -eq 0 ]; then
        passed=$((passed + 1))
        say "ok    $name"
    else
        failed=$((failed + 1))
        say "FAIL  $name (exit $status)"
        tail -n 25 "$work/check.log" | sed 's/^/      | /'
    fi
}

skip() { # NAME WHY
    skipped=$((skipped + 1))
    say "skip  $1: $2"
}

finish() {
    say "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}

clean_up() {
    local process
    stop_demo || true
    for process in "${background[@]}"; do kill "$process" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

has() { command -v "$1" >/dev/null; }

# Repeats a command until it succeeds.
wait_for() { # SECONDS COMMAND...
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            say "gave up waiting for: $*"
            return 1
        fi
        sleep 0.1
    done
}

# A value of a JSON file: json FILE KEY...
json() {
    python3 -c 'import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2:]:
    value = value[key]
print(value)' "$@"
}

# Starts a demo that stays up, and learns where everything is.
start_demo() { # ARGUMENTS...
    rm -f "$work/ready.json"
    TMPDIR=$work "$PORT17" demo --ready-file "$work/ready.json" "$@" >"$work/demo.log" 2>&1 &
    demo_process=$!
    if ! wait_for 60 test -e "$work/ready.json"; then
        cat "$work/demo.log"
        return 1
    fi
    socks=$(json "$work/ready.json" socks)
    control=$(json "$work/ready.json" control)
    origin=$(json "$work/ready.json" origin)
    named=$(json "$work/ready.json" origin_name)
    export socks control origin named
}

stop_demo() {
    [ -n "$demo_process" ] || return 0
    kill -TERM "$demo_process" 2>/dev/null || true
    wait "$demo_process" 2>/dev/null || true
    demo_process=''
}

# The process of a member.
process_of() { json "$work/ready.json" processes "$1"; }

# The route of the client's busiest circuit, as `node-3 node-1 node-6`.
route() {
    curl -sS --unix-socket "$control" http://port17/v1/status | python3 -c 'import json, sys
standing = [circuit for circuit in json.load(sys.stdin).get("standing", []) if circuit["open"]]
busiest = max(standing, key=lambda circuit: circuit["streams"])
print(*(hop.split("~")[0] for hop in busiest["route"]))'
}

sha() { sha256sum | cut -d' ' -f1; }

# curl through the mesh by SOCKS5, the name resolved at the exit.
mesh() { curl -sS --fail --socks5-hostname "$socks" "$@"; }

# A file server on a free port; its port in FILE.port, a line for each request in FILE.log.
serve_files() { # DIRECTORY FILE [CERTIFICATE KEY]
    python3 "$here/file_server.py" "$@" 2>"$2.log" &
    background+=($!)
    wait_for 10 test -s "$2.port"
}
