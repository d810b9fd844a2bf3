#!/usr/bin/env bash
# One stream that is longer than many key generations: 2 GB with the right hash. LONG_STREAM_BYTES sets another length.
# Debian: curl python3
set -euo pipefail
# shellcheck source=tests/e2e/checks.bash
source "$(dirname "${BASH_SOURCE[0]}")/checks.bash"

bytes=${LONG_STREAM_BYTES:-2000000000}

arrives_whole() {
    local through direct
    through=$(mesh -m 900 "$named/bytes/$bytes" | sha)
    direct=$(curl -sS --fail "$origin/bytes/$bytes" | sha)
    say "$through through the mesh, $direct directly"
    [ "$through" = "$direct" ]
}

start_demo --processes
from=$SECONDS
check "a stream of $bytes bytes" arrives_whole
say "$((SECONDS - from)) s"
finish
