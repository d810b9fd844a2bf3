# What the measurements beside this file share: the program, and a demo of separate processes that is ended whatever happens. To be sourced.
# shellcheck shell=bash
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

start_demo() { # ARGUMENTS...
    TMPDIR=$work "$PORT17" demo --processes "$@" --ready-file "$work/ready.json" >"$work/demo.log" 2>&1 &
    demo=$!
    until [ -e "$work/ready.json" ]; do
        if ! kill -0 "$demo" 2>/dev/null; then
            cat "$work/demo.log" >&2
            exit 1
        fi
        sleep 0.1
    done
}
