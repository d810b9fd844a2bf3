#!/usr/bin/env bash
# A real browser through the demo, for loopback addresses too; and that it fails when the exits are stopped.
# Debian: curl python3
# Chromium itself is optional: it is large. Without it everything here is skipped.
set -euo pipefail
# shellcheck source=tests/e2e/checks.bash
source "$(dirname "${BASH_SOURCE[0]}")/checks.bash"

TITLE='<h1>Port17 demo origin</h1>'

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
    skip "chromium" "it is not installed"
    finish
    exit
fi

# Loads a page and prints what became of it.
page() { # URL
    rm -rf "$work/profile"
    timeout 60 "$browser" --headless=new --no-sandbox --disable-gpu --user-data-dir="$work/profile" \
        --proxy-server="socks5://$socks" --proxy-bypass-list='<-loopback>' --disable-quic --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --timeout=20000 --dump-dom "$1" 2>"$work/browser.log"
}

shows() { # URL
    page "$1" >"$work/dom"
    head -c 300 "$work/dom"
    grep -q "$TITLE" "$work/dom"
}

fails() { # URL
    page "$1" >"$work/dom" || true
    head -c 300 "$work/dom"
    ! grep -q "$TITLE" "$work/dom"
}

stop_exits() {
    local process
    for process in $(process_of node-5) $(process_of node-6); do kill -TERM "$process"; done
    down() { ! process_of node-5 && ! process_of node-6; }
    wait_for 20 down
}

start_demo --processes
check "a page by its name in the mesh" shows "$named/"
check "a page by its loopback address" shows "$origin/"
stop_exits
check "exits stopped: the name fails" fails "$named/"
check "exits stopped: the loopback address fails, and is not asked directly" fails "$origin/"
finish
