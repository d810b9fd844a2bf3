#!/usr/bin/env bash
# Programs that people use, through a demo of separate processes; and what they see when something fails.
# Debian: curl git netcat-openbsd openssh-client openssh-server openssl procps python3
set -euo pipefail
# shellcheck source=tests/e2e/checks.bash
source "$(dirname "${BASH_SOURCE[0]}")/checks.bash"

same_as_directly() { # PATH CURL-ARGUMENTS...
    local path=$1 direct through
    shift
    direct=$(curl -sS --fail "$origin$path" | sha)
    through=$(curl -sS --fail "$@" "$named$path" | sha)
    [ "$direct" = "$through" ]
}

absolute_ip() {
    [ "$(mesh "$origin/10m.bin" | sha)" = "$(curl -sS --fail "$origin/10m.bin" | sha)" ]
}

# --- git

make_repository() {
    export HOME=$work GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=e2e GIT_AUTHOR_EMAIL=e2e@example.org
    export GIT_COMMITTER_NAME=e2e GIT_COMMITTER_EMAIL=e2e@example.org
    mkdir -p "$work/files"
    git init -q "$work/source"
    head -c 3000000 /dev/urandom >"$work/source/data"
    seq 100000 >"$work/source/numbers"
    git -C "$work/source" add .
    git -C "$work/source" commit -q -m one
    git clone -q --bare "$work/source" "$work/files/repository.git"
    git -C "$work/files/repository.git" update-server-info
}

git_clone() {
    export HOME=$work
    rm -rf "$work/clone"
    git -c http.proxy="socks5h://$socks" clone -q "http://origin.demo:$(cat "$work/plain.port")/repository.git" "$work/clone"
    git -C "$work/clone" fsck --full
    [ "$(git -C "$work/clone" rev-parse HEAD)" = "$(git -C "$work/source" rev-parse HEAD)" ]
    cmp "$work/clone/data" "$work/source/data"
}

# --- ssh

start_sshd() {
    ssh_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    mkdir -p "$work/ssh"
    ssh-keygen -q -t ed25519 -N '' -f "$work/ssh/host"
    ssh-keygen -q -t ed25519 -N '' -f "$work/ssh/user"
    cp "$work/ssh/user.pub" "$work/ssh/authorized_keys"
    cat >"$work/ssh/sshd_config" <<CONFIG
ListenAddress 127.0.0.1:$ssh_port
HostKey $work/ssh/host
AuthorizedKeysFile $work/ssh/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
CONFIG
    [ "$(id -u)" -ne 0 ] || mkdir -p /run/sshd
    "$(command -v sshd || echo /usr/sbin/sshd)" -D -e -f "$work/ssh/sshd_config" 2>"$work/ssh/log" &
    background+=($!)
    wait_for 10 nc -z 127.0.0.1 "$ssh_port"
}

ssh_over_nc() {
    local sum
    head -c 20000000 /dev/urandom >"$work/ssh/data"
    sum=$(ssh -F none -i "$work/ssh/user" -p "$ssh_port" -o IdentitiesOnly=yes -o BatchMode=yes \
        -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ProxyCommand="nc -X 5 -x $socks %h %p" \
        "$(id -un)@origin.demo" sha256sum <"$work/ssh/data" | cut -d' ' -f1) || { cat "$work/ssh/log"; return 1; }
    [ "$sum" = "$(sha <"$work/ssh/data")" ]
}

# --- https

make_certificates() {
    cd "$work"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=e2e root' \
        -keyout ca.key -out ca.pem
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=origin.demo' -keyout server.key -out server.csr
    printf 'subjectAltName=DNS:origin.demo,IP:127.0.0.1\n' >extensions
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.pem
}

certificate() { # S_CLIENT-ARGUMENTS...
    openssl s_client -servername origin.demo -CAfile "$work/ca.pem" -verify_return_error "$@" </dev/null 2>/dev/null |
        openssl x509 -outform PEM
}

https_certificate() {
    local port through
    port=$(cat "$work/secure.port")
    through=$(certificate -proxy "$socks" -connect "origin.demo:$port")
    [ "$through" = "$(certificate -connect "127.0.0.1:$port")" ]
    [ "$through" = "$(openssl x509 -in "$work/server.pem" -outform PEM)" ]
}

https_bytes() { # CURL-ARGUMENTS...
    local port
    port=$(cat "$work/secure.port")
    curl -sS --fail --cacert "$work/ca.pem" "$@" "https://origin.demo:$port/data" -o "$work/through"
    curl -sS --fail --cacert "$work/ca.pem" --resolve "origin.demo:$port:127.0.0.1" "https://origin.demo:$port/data" -o "$work/direct"
    cmp "$work/through" "$work/direct"
    cmp "$work/through" "$work/files/data"
}

https_wrong_root() {
    local status=0
    mesh -o "$work/through" "https://origin.demo:$(cat "$work/secure.port")/data" || status=$?
    [ "$status" -eq 60 ]
}

# --- many

fifty_downloads() {
    local number
    rm -rf "$work/many"
    mkdir "$work/many"
    seq 50 | xargs -P 50 -I{} curl -sS --fail --socks5-hostname "$socks" -o "$work/many/{}" "$named/bytes/{}00017"
    for number in $(seq 50); do
        [ "$(sha <"$work/many/$number")" = "$(curl -sS --fail "$origin/bytes/${number}00017" | sha)" ]
    done
}

credentials_isolate() {
    local all
    curl -sS --fail -o "$work/1k" --proxy-user one:x --socks5-hostname "$socks" "$named/1k.bin"
    curl -sS --fail -o "$work/1k" --proxy-user two:x --socks5-hostname "$socks" "$named/1k.bin"
    all=$(curl -sS --unix-socket "$control" http://port17/v1/status | python3 -c 'import json, sys
print(len([circuit for circuit in json.load(sys.stdin)["standing"] if circuit["open"]]))')
    [ "$all" -ge 3 ]
}

# --- what fails

not_found() {
    [ "$(curl -s -o "$work/404" -w '%{http_code}' --socks5-hostname "$socks" "$named/nowhere")" = 404 ]
    curl -s "$origin/nowhere" | cmp - "$work/404"
    [ "$(curl -s -o "$work/404" -w '%{http_code}' -x "http://$socks" "$named/nowhere")" = 404 ]
}

socks_refusal() { # URL REPLIES
    local status=0
    mesh -m 20 "$1" 2>"$work/error" || status=$?
    cat "$work/error"
    [ "$status" -eq 97 ]
    grep -Eq "\(($2)\)" "$work/error"
}

http_refusal() { # URL STATUS
    local status
    status=$(curl -sS -m 20 -o "$work/error" -w '%{http_code}' -x "http://$socks" "$1")
    say "$status"
    [ "$status" = "$2" ]
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# A node's own port is not for clients, whatever the demo's exits may reach (law 1).
nodes_are_out_of_reach() {
    local address
    # Those that the signed list names: what others claim refuses nothing.
    for address in $(grep -Eo '127\.0\.1\.[3-6]:[0-9]+' "$work/demo.log" | sort -u); do
        socks_refusal "http://$address/" 2
    done
}

middle_killed() {
    local middle process loads=() from status=0
    for _ in 1 2 3 4; do
        curl -s -o /dev/null --socks5-hostname "$socks" "$named/bytes/4000000000" &
        loads+=($!)
    done
    sleep 1
    middle=$(route | cut -d' ' -f2)
    process=$(process_of "$middle")
    say "kills $middle of: $(route)"
    kill -KILL "$process"
    from=$EPOCHREALTIME
    mesh -m 5 -o "$work/1k" "$named/1k.bin" || status=$?
    say "exit $status after $(awk "BEGIN { print $EPOCHREALTIME - $from }") s"
    kill "${loads[@]}" 2>/dev/null || true
    if [ "$status" -ne 0 ]; then
        wait_for 5 mesh -m 5 -o "$work/1k" "$named/1k.bin" && say "a later one worked"
        return 1
    fi
    [ "$(sha <"$work/1k")" = "$(curl -sS "$origin/1k.bin" | sha)" ]
    is_back() { [ "$(process_of "$middle")" != "$process" ]; }
    wait_for 10 is_back
}

requests_seen() { wc -l <"$work/plain.log"; }

exits_stopped() {
    local before process
    before=$(requests_seen)
    for process in $(process_of node-5) $(process_of node-6); do kill -TERM "$process"; done
    down() { ! process_of node-5 && ! process_of node-6; }
    wait_for 20 down
    for address in origin.demo 127.0.0.1; do
        if mesh -m 4 "http://$address:$(cat "$work/plain.port")/data" -o "$work/through"; then return 1; fi
        if curl -sS --fail -m 4 -x "http://$socks" "http://$address:$(cat "$work/plain.port")/data" -o "$work/through"; then return 1; fi
    done
    [ "$(requests_seen)" = "$before" ]
    # It would have been seen.
    curl -sS -o "$work/direct" "http://127.0.0.1:$(cat "$work/plain.port")/data"
    [ "$(requests_seen)" -gt "$before" ]
}

start_demo --processes
make_repository >"$work/check.log" 2>&1
head -c 5000000 /dev/urandom >"$work/files/data"
serve_files "$work/files" "$work/plain"

check "curl --socks5-hostname" same_as_directly /10m.bin --socks5-hostname "$socks"
check "curl --socks5, an address" absolute_ip
check "curl --socks4a" same_as_directly /10m.bin --socks4a "$socks"
check "curl -x, absolute-form" same_as_directly /10m.bin -x "http://$socks"
check "curl -x, CONNECT" same_as_directly /10m.bin --proxytunnel -x "http://$socks"
check "the page /" same_as_directly / --socks5-hostname "$socks"
check "credentials isolate" credentials_isolate
check "git clone" git_clone
if has ssh && has nc && { has sshd || [ -x /usr/sbin/sshd ]; } && nc -h 2>&1 | grep -q -- '-X'; then
    start_sshd
    check "ssh over nc -X 5" ssh_over_nc
else
    skip "ssh over nc -X 5" "sshd, ssh or nc of OpenBSD is missing"
fi
(make_certificates) >"$work/check.log" 2>&1
serve_files "$work/files" "$work/secure" "$work/server.pem" "$work/server.key"
check "https: the certificate is the origin's" https_certificate
check "https: bytes by SOCKS" https_bytes --socks5-hostname "$socks"
check "https: bytes by CONNECT" https_bytes -x "http://$socks"
check "https: an unknown root is still refused" https_wrong_root
check "50 parallel downloads" fifty_downloads
check "a 404 stays a 404" not_found
# Where this machine's resolver does not answer at all, an exit can only say that it took too long.
resolves=0
timeout 4 getent hosts no-such-name.invalid >/dev/null || resolves=$?
if [ "$resolves" -ne 124 ]; then
    check "a name that does not resolve, by SOCKS" socks_refusal http://no-such-name.invalid/ 4
    check "a name that does not resolve, by HTTP" http_refusal http://no-such-name.invalid/ 502
else
    skip "a name that does not resolve" "the resolver of this machine does not answer"
fi
check "a refused port, by SOCKS" socks_refusal "http://127.0.0.1:$(free_port)/" 5
check "a refused port, by HTTP" http_refusal "http://127.0.0.1:$(free_port)/" 502
check "the nodes' own ports are refused" nodes_are_out_of_reach
check "kill -9 of a middle under load: a new stream within 5 s" middle_killed
check "all exits stopped: curl fails, and nothing leaves directly" exits_stopped
finish
