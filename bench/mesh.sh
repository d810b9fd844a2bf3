#!/usr/bin/env bash
# Measures how a mesh makes itself, and what it costs when idle: bench/mesh.sh [--rounds N]. What the figures mean: bench/README.md.
# Builds the release binary where it is missing; PORT17 names another one. Never part of ./test: it measures, it judges nothing.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

rounds=5
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=$2 ;;
    *)
        echo "usage: bench/mesh.sh [--rounds N]" >&2
        exit 2
        ;;
    esac
    shift 2
done

if [ -z "${PORT17:-}" ]; then
    PORT17=$(realpath -m "${CARGO_TARGET_DIR:-$here/../target}")/release/port17
    [ -x "$PORT17" ] || (cd "$here/.." && cargo build --release --locked)
fi

work=$(mktemp -d /tmp/port17-bench-XXXXXX)
demo=
clean_up() {
    if [ -n "$demo" ]; then
        kill -TERM "$demo" 2>/dev/null || true
        wait "$demo" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

TMPDIR=$work "$PORT17" demo --processes --ready-file "$work/ready.json" >"$work/demo.log" 2>&1 &
demo=$!
until [ -e "$work/ready.json" ]; do
    if ! kill -0 "$demo" 2>/dev/null; then
        cat "$work/demo.log" >&2
        exit 1
    fi
    sleep 0.1
done
python3 "$here/mesh.py" "$PORT17" "$work/ready.json" --rounds "$rounds"
