#!/usr/bin/env bash
# Leaks, and what only the mesh may do, judged by what is on the cables: captures at every host, and the kernel's own list of new flows. Then
# each leak that can be planted is planted, and has to be found.
#
#   leak.sh             all
#   leak.sh FAULT...    the honest part is short, and these faults alone are planted
#
# With PORT17_LEAK_KEEP=DIRECTORY the captures are kept there.
# PORT17 is the release, PORT17_PLANTED_PROGRAM the same with the feature `planted`. docs/threat-model.md says what is judged.
# Debian: conntrack curl iproute2 nftables openssl procps python3 tcpdump util-linux
set -euo pipefail
# shellcheck source=tests/hosts/hosts.bash
source "$(dirname "${BASH_SOURCE[0]}")/../hosts/hosts.bash"
leak_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONDONTWRITEBYTECODE=1

nodes=(anna ben cleo dora emil)
exits=(dora emil)
only=("$@")
# In everything that the clients say; no two runs have the same.
word=$(python3 -c 'import random; print("".join(random.SystemRandom().choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(18)))')
streams=1000
guards="fritz=anna greta=anna"

# Each leak, whose program has it, and the kinds of findings that must come of it (judge.py).
faults() {
    cat <<'FAULTS'
leak-direct               fritz  client,canary
leak-resolve              fritz  client,canary
leak-mdns                 fritz  client,canary
leak-probe                fritz  client
leak-exit-dial            fritz  client
leak-map                  fritz  client
leak-udp                  fritz  canary
leak-dns                  fritz  canary
leak-sni                  fritz  canary
leak-alpn                 fritz  canary
leak-record               fritz  canary
leak-guard-names-client   anna   canary
leak-lane-for-setup       anna   flow
leak-exit-tells           emil   canary
leak-exit-policy          emil   flow
leak-log                  emil   log
FAULTS
}

# ---- Hosts ----

# The origin has a net of its own; nothing keeps a client from it but the client, so that a leak would arrive there.
add_origin() {
    make_space origin
    plug origin
    ip -n "$tag-net" addr add 45.18.7.1/24 dev to-origin
    ip -n "$tag-net" addr add 2a18:7::1/64 dev to-origin
    give_address origin 45.18.7.7/24 45.18.7.1
    give_address origin 2a18:7::7/64 2a18:7::1
    spawn leak-origin origin python3 "$leak_here/origin.py" "$work/origin.ready" "$word" 45.18.7.7 2a18:7::7
    wait_for 10 test -e "$work/origin.ready"
}

topology() {
    make_internet
    local host number=0
    for host in "${nodes[@]}"; do add_host "$host" $((number += 1)); done
    add_origin
    add_home house 9
    add_inside house fritz 2
    add_inside house greta 3 --only 4
    printf 'nameserver 45.18.7.7\noptions timeout:2 attempts:3\n' >"$work/resolv.conf"
    who >"$work/who"
}

who() {
    local host
    for host in anna ben cleo; do echo "node $host $(cat "$work/at/$host"/address?)" | xargs; done
    for host in "${exits[@]}"; do echo "exit $host $(cat "$work/at/$host"/address?)" | xargs; done
    for host in fritz greta; do echo "client $host $(cat "$work/at/$host"/address?)" | xargs; done
    echo "home house $(cat "$work/at/house"/address?)" | xargs
    echo "origin origin $(cat "$work/at/origin"/address?)" | xargs
    echo "source source $WORLD4 $WORLD6"
    echo "net net 192.0.2.254 2001:db8::fe"
    echo "word $word"
}

# What waits for a timeout waits briefly; what this machine may be slow at has all the time it needs.
join() {
    make_network bottle_interval=500ms bottle_burst=30 exit_dial_timeout=4s exit_resolve_timeout=10s created_timeout=5s guard_patience=5s \
        guard_return=1s client_setups="100/s burst 500" backoff_min=200ms backoff_max=1s link_loss_grace=2s link_loss_interval=2s
    all_at_once join_as node -- anna ben cleo
    all_at_once join_as client -- fritz greta
    join_as node dora --exit "accept tcp *:80,443,1717,8080"
    join_as node emil --exit "accept tcp *:80,443,1717,8080,8443"
}

# A command for each of these hosts, all at the same time.
all_at_once() { # COMMAND... -- HOST...
    local command=() host process processes=()
    while [ "$1" != -- ]; do command+=("$1") && shift; done
    shift
    for host in "$@"; do "${command[@]}" "$host" & processes+=($!); done
    for process in "${processes[@]}"; do wait "$process"; done
}

# A daemon that asks the name server of this world, honest or with a fault.
launch() { # HOST [PROGRAM [FAULT]]
    spawn "$1" "$1" unshare --mount --propagation private bash -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' "$work/resolv.conf" \
        env ${3:+PORT17_PLANTED="$3"} "${2:-$PORT17}" --config "$work/at/$1/port17.toml" "$(cat "$work/at/$1/role")"
}

# Two lanes with each other node: then nothing is left to be dialled.
all_lanes_stand() {
    local host
    for host in "${nodes[@]}"; do [ "$(lanes_between "$host")" -eq $((2 * (${#nodes[@]} - 1))) ] || return; done
}

# Connections of a host with other nodes: both ends are at the bridge.
lanes_between() { # HOST
    in_host "$1" ss -Htn state established "( sport = :1717 or dport = :1717 )" |
        awk '{ here = $3; there = $4; node = "^\\[?(192\\.0\\.2\\.|2001:db8::)"; if (here ~ node && there ~ node) n++ } END { print n + 0 }'
}

mesh_forms() {
    local host
    for host in "${nodes[@]}"; do launch "$host"; done
    sign_list "${nodes[@]}"
    for host in "${nodes[@]}"; do wait_for 20 ask "$host" reload; done
    wait_for 60 have_one_map ${#nodes[@]} "${nodes[@]}"
    wait_for 30 all_lanes_stand
}

# By their configuration both have anna for their first guard; the backups are drawn.
clients_start() {
    local anna
    anna=$(status anna node_id)
    sed -i "s/^\[client\]/[client]\nguard = \"$anna\"/" "$work"/at/{fritz,greta}/port17.toml
    launch fritz
    launch greta
    wait_for 30 gets_through fritz
    wait_for 30 gets_through greta
}

gets_through() { through "$1" -m 5 -o /dev/null "http://w.n$word.canary.test/"; }

guard_of() { # CLIENT
    status "$1" guard portname | cut -d~ -f1
}

# Before the first connection: so that every stream has its beginning, and no flow that stood before seems new.
watch_all() {
    all_at_once watch_packets -- "${nodes[@]}" fritz greta origin house
    all_at_once watch_new_flows -- "${nodes[@]}"
}

watch_packets() { capture "cap-$1" "$1" eth0; }
watch_new_flows() { watch_flows "flows-$1" "$1"; }

nothing_was_missed() { all_at_once has_missed_nothing -- "${nodes[@]}" fritz greta origin house; }
has_missed_nothing() { end_capture "cap-$1" || { cat "$work/logs/cap-$1"; return 1; }; }

# ---- Phases ----

begin() {
    sleep 0.2
    echo "$EPOCHREALTIME" >"$work/phase"
}

# What is written for the judge: the phase is over, this was allowed, this must be found; what daemons have said since the last one is kept.
end() { # NAME still|lane|moving GUARDS [KINDS]
    local host file since
    sleep 0.3
    since=$(cat "$work/phase")
    mkdir -p "$work/said/$1"
    for host in "${nodes[@]}" fritz greta; do
        file=$work/logs/$host
        tail -c +$(($(cat "$work/at/$host/said" 2>/dev/null || echo 0) + 1)) "$file" >"$work/said/$1/$host.log"
        stat -c %s "$file" >"$work/at/$host/said"
    done
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$since" "$EPOCHREALTIME" "$2" "$3" "${4:--}" >>"$work/phases"
    note "$1: $(seconds_since "$since") s"
}

# So many transfers by curl on a client, forty at a time, and those that must fail; what became of each of them.
transfers() { # CLIENT COUNT [BEGINNING [SECONDS]]
    python3 "$leak_here/load.py" "$work/curl.$1" "$2" "$word" "$(address dora)" "${3:-0}"
    in_host "$1" timeout "${4:-120}" curl --parallel --parallel-immediate --parallel-max 40 --config "$work/curl.$1" >"$work/transfers.$1" 2>/dev/null || true
}

arrived() { grep -c '^0 200 ' "$work/transfers.$1" || true; } # CLIENT

# Applications that go on trying, whatever happens to the mesh; until `applications_end`, in the same check.
applications_begin() {
    local client
    : >"$work/applications.go"
    for client in fritz greta; do
        (while [ -e "$work/applications.go" ]; do transfers "$client" 20 "$((RANDOM * 100))" 10 && cat "$work/transfers.$client" >>"$work/applications.$client" && sleep 0.3; done) 4<&- &
        echo $! >"$work/pids/applications-$client"
    done
    wait_for 20 some_arrived 20
}

some_arrived() { # COUNT
    [ "$(cat "$work"/applications.* 2>/dev/null | grep -c '^0 200 ')" -ge "$1" ]
}

applications_end() {
    local client count
    rm "$work/applications.go"
    for client in fritz greta; do wait "$(process "applications-$client")" || true; done
    count=$(cat "$work"/applications.* | wc -l)
    note "of $count transfers meanwhile $(cat "$work"/applications.* | grep -c '^0 200 ') arrived"
    rm "$work"/applications.*
}

streams_pass() {
    begin
    transfers fritz $streams 0 300
    end streams still "$guards"
    cut -d' ' -f1,2 "$work/transfers.fritz" | sort | uniq -c
    [ "$(arrived fritz)" -eq $streams ]
    # Those that must fail have failed.
    [ "$(grep -vc '^0 200 ' "$work/transfers.fritz")" -ge 7 ]
}

exits_are_killed() {
    begin
    applications_begin
    kill_hard emil
    sleep 1
    kill_hard dora
    sleep 2
    launch emil
    launch dora
    wait_for 30 gets_through fritz
    applications_end
    mesh_is_whole
    end exits-killed moving "$guards"
}

# Both clients go over to a backup, and back when their first guard is there again.
guard_is_killed() {
    local fritz greta
    begin
    applications_begin
    kill_hard anna
    wait_for 40 gets_through fritz
    wait_for 40 gets_through greta
    fritz=$(guard_of fritz) greta=$(guard_of greta)
    note "fritz's guard is $fritz now, greta's $greta"
    launch anna
    wait_for 40 is_guard_of fritz anna
    wait_for 40 is_guard_of greta anna
    applications_end
    mesh_is_whole
    end guard-killed moving "fritz=anna,$fritz greta=anna,$greta"
}

is_guard_of() { [ "$(guard_of "$1")" = "$2" ]; } # CLIENT NODE

clients_are_killed() {
    begin
    applications_begin
    kill_hard fritz
    sleep 1
    launch fritz
    wait_for 20 gets_through fritz
    send_signal fritz STOP
    sleep 1
    kill_hard fritz
    launch fritz
    wait_for 20 gets_through fritz
    stop fritz
    stop greta
    sleep 1
    applications_end
    end clients-killed lane "$guards"
}

mesh_is_whole() {
    wait_for 40 all_lanes_stand
    wait_for 40 have_one_map ${#nodes[@]} "${nodes[@]}"
}

# The daemon of a host anew, with a fault or without one; a node's links stand again before it returns.
again() { # HOST [PROGRAM [FAULT]]
    kill_hard "$1"
    launch "$@"
    wait_for 40 all_lanes_stand
}

# The program of the faults by itself does nothing wrong: what is found later comes of the fault.
nothing_planted() {
    kill_hard emil
    launch emil "$PORT17_PLANTED_PROGRAM"
    again anna "$PORT17_PLANTED_PROGRAM"
    kill_hard fritz || true
    begin
    launch fritz "$PORT17_PLANTED_PROGRAM"
    wait_for 20 gets_through fritz
    transfers fritz 60
    end no-fault lane "$guards"
    [ "$(arrived fritz)" -eq 60 ]
}

# A fault in one program, the honest or faultless one in all others. A client begins anew within the phase.
plant() { # FAULT HOST KINDS
    local last
    last=$(cat "$work/faulty" 2>/dev/null || true)
    if [ -n "$last" ] && [ "$last" != "$2" ]; then again "$last"; fi
    kill_hard fritz || true
    if [ "$2" = fritz ]; then
        begin
        launch fritz "$PORT17_PLANTED_PROGRAM" "$1"
    else
        echo "$2" >"$work/faulty"
        again "$2" "$PORT17_PLANTED_PROGRAM" "$1"
        begin
        launch fritz
    fi
    # With some faults it does not come to that.
    wait_for 15 is_ready fritz || true
    transfers fritz 24 0 10
    end "$1" lane "$guards" "$3"
}

# Every fault is in the table above, with its finding, and what ships has none of them.
faults_are_known() {
    diff <(sed -n 's/.*Fault { name: "\(leak-[a-z-]*\)".*/\1/p' "$leak_here/../../crates/port17/src/planted.rs" | sort) <(faults | cut -d' ' -f1 | sort)
    fails grep -q -a -e leak-direct -e PORT17_PLANTED "$PORT17"
    grep -q -a leak-direct "$PORT17_PLANTED_PROGRAM"
}

# ---- The verdict ----

judge() {
    python3 "$leak_here/judge.py" "$work/who" "$work/phases" "$work" "$work/results" >"$work/logs/judge"
}

# A phase's line of the results, and what was found in it.
verdict() { # PHASE WANTED
    awk -v phase="$1" -F'\t' '$1 == phase { on = 1; print; next } $1 != "" { on = 0 } on' "$work/results"
    grep -qP "^$1\t$2\t" "$work/results"
}

found_in() { awk -v phase="$1" -F'\t' '$1 == phase { print $3 }' "$work/results"; } # PHASE

verdicts() {
    local phase kinds
    while IFS=$'\t' read -r phase _ _ _ _ kinds; do
        if [ "$kinds" = - ]; then
            check "nothing leaks, nothing moves: $phase" verdict "$phase" ok
        else
            check "found: $phase, by $(found_in "$phase")" verdict "$phase" ok
        fi
    done <"$work/phases"
}

files_hold_no_word() {
    python3 "$leak_here/canary.py" "$word" "$work"/at/{anna,ben,cleo,dora,emil,fritz,greta}/{state/store.redb,port17.toml} "$work/logs/network"
}

need_hosts
check "the scanner finds every encoding, and nothing where nothing is" python3 "$leak_here/test_canary.py" -q
if [ -z "${PORT17_PLANTED_PROGRAM:-}" ]; then
    skip "planted leaks" "PORT17_PLANTED_PROGRAM is not set"
    faults() { true; }
else
    check "the faults are known, and not in what ships" faults_are_known
fi
[ ${#only[@]} -eq 0 ] || streams=100
check "five nodes, a home with two clients, an origin" topology
check "every packet is captured, every flow noted" watch_all
check "all join" join
check "the mesh forms" told "${nodes[*]}" mesh_forms
check "the clients get through" told "fritz greta" clients_start
check "$streams client streams pass" told "fritz anna dora emil" streams_pass
if [ ${#only[@]} -eq 0 ]; then
    check "exits are killed under load" told "fritz greta" exits_are_killed
    check "the guard is killed under load" told "fritz greta" guard_is_killed
    check "clients are killed under load" told "fritz greta" clients_are_killed
fi
while read -r -u 4 fault host kinds; do
    [ ${#only[@]} -eq 0 ] || [[ " ${only[*]} " == *" $fault "* ]] || continue
    [ -e "$work/said/no-fault" ] || check "the program with faults, none of them planted" told "fritz anna" nothing_planted
    check "planted: $fault" told "$host" plant "$fault" "$host" "$kinds"
done 4< <(faults)
check "no capture has lost a packet" nothing_was_missed
from=$EPOCHREALTIME
if [ -n "${PORT17_LEAK_KEEP:-}" ]; then mkdir -p "$PORT17_LEAK_KEEP" && cp -r "$work"/{*.pcap,who,phases,said,logs} "$PORT17_LEAK_KEEP"; fi
check "all of it is judged" told judge judge
sed "s/^/      /" "$work/logs/judge"; note "judged in $(seconds_since "$from") s"
verdicts
check "no daemon's store or configuration holds a word" files_hold_no_word
finish_hosts
