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

# shellcheck source=bench/demo.bash
source "$here/demo.bash"
start_demo
python3 "$here/mesh.py" "$PORT17" "$work/ready.json" --rounds "$rounds"
