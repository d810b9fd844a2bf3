#!/usr/bin/env bash
# Measures a demo of separate processes: bench/run.sh [--rounds N] [--hops N]. What the figures mean: bench/README.md.
# Builds the release binary where it is missing; PORT17 names another one. Never part of ./test: it measures, it judges nothing.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

hops=3 rounds=6
while [ $# -gt 0 ]; do
    case $1 in
    --hops) hops=$2 ;;
    --rounds) rounds=$2 ;;
    *)
        echo "usage: bench/run.sh [--rounds N] [--hops N]" >&2
        exit 2
        ;;
    esac
    shift 2
done

# shellcheck source=bench/demo.bash
source "$here/demo.bash"
start_demo --hops "$hops"
python3 "$here/measure.py" "$work/ready.json" --hops "$hops" --rounds "$rounds"
