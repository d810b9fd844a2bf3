# Real hosts: network namespaces around a bridge, with NAT and wires between them, and daemons of Port17 on them. To be sourced by the
# scenarios beside this file; README.md draws the topology. What a function needs to remember stands in files, so that it may be called
# within `check`, too. Everything made here begins with this run's prefix or lies in $work, and is destroyed on any exit.
# shellcheck shell=bash disable=SC2154

# shellcheck source=tests/e2e/checks.bash
source "$(dirname "${BASH_SOURCE[0]}")/../e2e/checks.bash"

# Debian's programs: what a version manager puts in front of Python takes longer than most of what is asked of it here.
PATH=/usr/sbin:/usr/bin:$PATH
hosts_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scenario=$(basename "$0" .sh)
tag=p17h$$
web=$work/web
# The world's server, by each of its names and addresses.
WORLD4=45.17.9.9 WORLD6=2a17:9::9
# The names of it that every exit knows.
ORIGIN=origin.example ORIGIN6=origin6.example
began=$EPOCHREALTIME
echo $$ >"$work/hosts.process"
mkdir -p "$work"/{pids,logs,wires,at,spaces} "$web"
exec 3>&1

# A figure beside a check that passes.
note() { printf '      %s\n' "$*" >&3; }

# A check that all others build on: without it the script ends.
must() { # NAME COMMAND...
    local before=$failed
    check "$@"
    [ "$failed" -eq "$before" ] || { finish_hosts; exit 1; }
}

seconds_since() { awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $1 }"; }

# Ends the script with a skip where this machine cannot do it.
need_hosts() {
    local why=''
    [ "$(id -u)" -eq 0 ] || why="it takes root"
    if [ -z "$why" ] && ! { ip netns add "$tag-try" && ip netns delete "$tag-try"; } 2>/dev/null; then
        why="this kernel gives no network namespaces here"
    fi
    [ -n "$why" ] || [ -c /dev/net/tun ] || why="there is no /dev/net/tun"
    [ -n "$why" ] || { ip -o link >"$work/links.before" && forget_the_dead && return; }
    skip "hosts $scenario" "$why"
    finish
    exit
}

# ---- Hosts ----

space() { printf '%s-%s' "$tag" "$1"; }

# Runs a command on a host: its network, the files of this machine.
in_host() { # HOST COMMAND...
    local host=$1
    shift
    nsenter --net="/run/netns/$tag-$host" "$@"
}

make_space() { # HOST
    local space
    space=$(space "$1")
    ip netns add "$space"
    stat -Lc %i "/run/netns/$space" >"$work/spaces/$1"
    mkdir -p "$work/at/$1"
    # An address holds at once, and nobody talks unasked.
    in_host "$1" sysctl -qw net.ipv6.conf.{all,default}.accept_dad=0 net.ipv6.conf.{all,default}.accept_ra=0 \
        net.ipv6.conf.{all,default}.router_solicitations=0
    ip -n "$space" link set lo up
}

# The middle of everything: a bridge, and routes between it and all other links. And the world, with its servers.
make_internet() {
    make_space net
    in_host net sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    ip -n "$tag-net" link add bridge type bridge mcast_snooping 0
    ip -n "$tag-net" addr add 192.0.2.254/24 dev bridge
    ip -n "$tag-net" addr add 2001:db8::fe/64 dev bridge
    ip -n "$tag-net" link set bridge up
    make_space world
    plug world
    ip -n "$tag-net" addr add 45.17.9.1/24 dev to-world
    ip -n "$tag-net" addr add 2a17:9::1/64 dev to-world
    give_address world $WORLD4/24 45.17.9.1
    give_address world $WORLD6/64 2a17:9::1
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=world -addext "subjectAltName=IP:$WORLD4,IP:$WORLD6" \
        -addext basicConstraints=critical,CA:FALSE -keyout "$work/web.key" -out "$work/web.pem" 2>/dev/null
    spawn origin world python3 "$hosts_here/origin.py" serve "$web" "$work/origin.log" "$work/web.pem" "$work/web.key"
    wait_for 60 test -e "$work/origin.log.ready"
}

# A cable from a host's eth0 to `to-HOST` in the middle: a veth pair, or a wire where settings of one are given.
plug() { # HOST [WIRE-SETTING...]
    local host=$1
    shift
    if [ $# -eq 0 ]; then
        ip -n "$tag-net" link add "to-$host" type veth peer name eth0 netns "$tag-$host"
    else
        lay_wire "$host" net "to-$host" "$@"
    fi
    ip -n "$tag-net" link set "to-$host" up
    ip -n "$tag-$host" link set eth0 up
}

give_address() { # HOST ADDRESS/LENGTH GATEWAY
    local family=4
    [[ $2 != *:* ]] || family=6
    ip -n "$tag-$1" addr add "$2" dev eth0
    ip -n "$tag-$1" "-$family" route replace default via "$3"
    echo "${2%/*}" >"$work/at/$1/address$family"
}

# A host's own address; fails where it has none of that family.
address() { # HOST [4|6]
    cat "$work/at/$1/address${2:-4}"
}

# A second bridge, at the other end of a wire from the first: what is cut there falls into two parts.
make_far() { # [WIRE-SETTING...]
    make_space far
    plug far "${@:-delay_ms=0}"
    ip -n "$tag-net" link set to-far master bridge
    ip -n "$tag-far" link add bridge type bridge mcast_snooping 0
    ip -n "$tag-far" link set eth0 master bridge
    ip -n "$tag-far" link set bridge up
}

# A host at the bridge, or the far one: 192.0.2.NUMBER and 2001:db8::NUMBER.
add_host() { # HOST NUMBER [--only 4|6] [--far | --wire SETTING...]
    local host=$1 number=$2 only='' bridge=net
    shift 2
    if [ "${1:-}" = --only ]; then only=$2 && shift 2; fi
    if [ "${1:-}" = --far ]; then bridge=far && shift; fi
    if [ "${1:-}" = --wire ]; then shift && set -- "${@:-delay_ms=0}"; fi
    make_space "$host"
    if [ "$bridge" = far ]; then
        ip -n "$tag-far" link add "to-$host" type veth peer name eth0 netns "$tag-$host"
        ip -n "$tag-far" link set "to-$host" up
        ip -n "$tag-$host" link set eth0 up
    else
        plug "$host" "$@"
    fi
    ip -n "$tag-$bridge" link set "to-$host" master bridge
    [ "$only" = 6 ] || give_address "$host" "192.0.2.$number/24" 192.0.2.254
    [ "$only" = 4 ] || give_address "$host" "2001:db8::$number/64" 2001:db8::fe
}

# A host with a link of its own to the middle, which may be narrower: 198.51.100.(4 NUMBER + 2) and 2001:db8:2:NUMBER::2.
add_routed_host() { # HOST NUMBER [--mtu N] [--wire SETTING...]
    local host=$1 number=$2 mtu=1500
    shift 2
    if [ "${1:-}" = --mtu ]; then mtu=$2 && shift 2; fi
    if [ "${1:-}" = --wire ]; then shift && set -- "${@:-delay_ms=0}"; fi
    make_space "$host"
    plug "$host" "$@"
    ip -n "$tag-net" link set "to-$host" mtu "$mtu"
    ip -n "$tag-$host" link set eth0 mtu "$mtu"
    ip -n "$tag-net" addr add "198.51.100.$((4 * number + 1))/30" dev "to-$host"
    ip -n "$tag-net" addr add "2001:db8:2:$number::1/64" dev "to-$host"
    give_address "$host" "198.51.100.$((4 * number + 2))/30" "198.51.100.$((4 * number + 1))"
    give_address "$host" "2001:db8:2:$number::2/64" "2001:db8:2:$number::1"
}

# A router as people have it at home: IPv4 behind one address, IPv6 with a firewall that lets nothing in unasked, flows of UDP soon forgotten.
add_home() { # HOME NUMBER [--mtu N] [--wire SETTING...]
    local home=$1 number=$2
    add_routed_host "$@"
    echo "$number" >"$work/at/$home/number"
    ip -n "$tag-$home" link add lan type bridge mcast_snooping 0
    ip -n "$tag-$home" addr add "10.17.$number.1/24" dev lan
    ip -n "$tag-$home" addr add "2001:db8:1:$number::1/64" dev lan
    ip -n "$tag-$home" link set lan up
    ip -n "$tag-net" route add "2001:db8:1:$number::/64" via "2001:db8:2:$number::2"
    in_host "$home" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    in_host "$home" nft -f - <<'NFT'
table inet home {
    chain out { type nat hook postrouting priority srcnat; meta nfproto ipv4 oifname "eth0" masquerade; }
    chain pass {
        type filter hook forward priority filter; policy drop
        ct state established,related accept
        iifname "lan" accept
    }
}
NFT
    in_host "$home" sysctl -qw net.netfilter.nf_conntrack_udp_timeout=2 net.netfilter.nf_conntrack_udp_timeout_stream=4
}

# A host behind a home's router: 10.17.HOME.NUMBER and 2001:db8:1:HOME::NUMBER.
add_inside() { # HOME HOST NUMBER [--only 4|6]
    local home=$1 host=$2 number=$3 lan only=${5:-}
    lan=$(cat "$work/at/$home/number")
    make_space "$host"
    ip -n "$tag-$home" link add "to-$host" type veth peer name eth0 netns "$tag-$host"
    ip -n "$tag-$home" link set "to-$host" master lan up
    ip -n "$tag-$host" link set eth0 up
    [ "$only" = 6 ] || give_address "$host" "10.17.$lan.$number/24" "10.17.$lan.1"
    [ "$only" = 4 ] || give_address "$host" "2001:db8:1:$lan::$number/64" "2001:db8:1:$lan::1"
}

# ---- Wires ----

lay_wire() { # HOST OTHER DEVICE-THERE SETTING...
    local host=$1 other=$2 device=$3
    shift 3
    spawn "wire-$host" net python3 "$hosts_here/wire.py" run --left "$tag-$host:eth0" --right "$tag-$other:$device" \
        --control "$work/wires/$host" --pcap "$work/wires/$host.pcap" --seed "${SEED:-17}" "$@"
    wait_for 60 test -S "$work/wires/$host" || { cat "$work/logs/wire-$host"; return 1; }
    # What the wire is too slow for is its own to lose, and counted there.
    ip -n "$tag-$host" link set eth0 txqueuelen 10000
    ip -n "$tag-$other" link set "$device" txqueuelen 10000
}

# Says something to a host's wire: set, counts, stop, end. Left is the host, right the middle.
wire() { # HOST WORDS...
    python3 "$hosts_here/wire.py" ask "$work/wires/$1" "${@:2}"
}

cut_wire() { wire "$1" set cut=1; }  # HOST
mend_wire() { wire "$1" set cut=0; } # HOST

# A counter of a device as the kernel has it: rx_packets, tx_bytes, tx_dropped ...
counter() { # HOST DEVICE NAME
    in_host "$1" ip -j -s link show dev "$2" | python3 -c 'import json, sys
way, _, name = sys.argv[1].partition("_")
print(json.load(sys.stdin)[0]["stats64"][way][name])' "$3"
}

# Stops a host's wire and compares its counts with those of both kernels and with its pcap file, to the byte.
wire_is_exact() { # HOST
    wire "$1" stop >"$work/wires/$1.json"
    in_host "$1" ip -j -s link show dev eth0 >"$work/wires/$1.left"
    in_host net ip -j -s link show dev "to-$1" >"$work/wires/$1.right"
    python3 "$hosts_here/wire_exact.py" "$work/wires/$1"
}

# ---- Processes ----

# Starts a program on a host; its process in pids/NAME, what it says in logs/NAME.
spawn() { # NAME HOST COMMAND...
    local name=$1 host=$2
    shift 2
    (exec 3>&- && exec nsenter --net="/run/netns/$tag-$host" "$@") >>"$work/logs/$name" 2>&1 </dev/null &
    echo $! >"$work/pids/$name"
}

process() { cat "$work/pids/$1"; } # NAME

# What has ended and was not asked for yet still has its number.
is_dead() { ! grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"; } # PROCESS

is_gone() { is_dead "$(process "$1")"; } # NAME

is_alive() { ! is_gone "$1"; } # NAME

send_signal() { kill "-$2" "$(process "$1")"; } # NAME SIGNAL

# Ends a program in order.
stop() { # NAME
    send_signal "$1" TERM
    wait_for 20 is_gone "$1"
}

kill_hard() { # NAME
    send_signal "$1" KILL
    wait_for 5 is_gone "$1"
}

# Packets at a host's device, complete or a failure: begun before it returns, read back by `tcpdump -r`.
capture() { # NAME HOST DEVICE FILTER...
    local name=$1 host=$2 device=$3
    shift 3
    spawn "$name" "$host" tcpdump -i "$device" -n -s 0 -B 65536 -U -Z root -w "$work/$name.pcap" "$@"
    wait_for 60 grep -q 'listening on' "$work/logs/$name"
}

# Fails where the kernel dropped a packet.
end_capture() { # NAME
    wait_for 10 nothing_waits "$1"
    send_signal "$1" INT
    wait_for 20 is_gone "$1"
    grep -q '^0 packets dropped by kernel' "$work/logs/$1"
}

# A capture that has written all it saw grows no more.
nothing_waits() { # NAME
    local before
    before=$(stat -c %s "$work/$1.pcap")
    sleep 0.3
    [ "$(stat -c %s "$work/$1.pcap")" = "$before" ]
}

# Every new flow of a host, a line each in logs/NAME, by the kernel's own tracking.
watch_flows() { # NAME HOST
    local name=$1 host=$2
    in_host "$host" nft 'table inet watch { chain out { type filter hook output priority 0; ct state new counter; }; chain in { type filter hook input priority 0; ct state new counter; }; }'
    spawn "$name" "$host" conntrack -E -e NEW -o timestamp
    wait_for 60 hears_events "$(process "$name")"
}

# A netlink socket of netfilter (12) that is in some group.
hears_events() { awk '$2 == 12 && $4 != "00000000" { found = 1 } END { exit !found }' "/proc/$1/net/netlink"; } # PROCESS

# ---- Port17 ----

# The network of this run: `--private`, its list by HTTPS from the world, with own parameters as NAME=VALUE.
make_network() { # [PARAMETER=VALUE...]
    local parameter sources=(--source "https://$WORLD4:8443/bootstrap-nodes.json" --source "https://[$WORLD6]:8443/bootstrap-nodes.json")
    "$PORT17" network new mesh --private "${sources[@]}" --ca "$work/web.pem" --output "$work/network" >"$work/logs/network" 2>&1
    for parameter in "$@"; do printf '%s = "%s"\n' "${parameter%%=*}" "${parameter#*=}" >>"$work/network/mesh.network.toml"; done
}

# Makes a host a node or a client of the network.
join_as() { # node|client HOST [INIT-OPTION...]
    local role=$1 host=$2 at=$work/at/$2 addresses=()
    shift 2
    if [ "$role" = node ]; then
        [ ! -e "$at/address4" ] || addresses+=(--address "$(address "$host" 4):1717")
        [ ! -e "$at/address6" ] || addresses+=(--address "[$(address "$host" 6)]:1717")
    fi
    echo "$role" >"$at/role"
    in_host "$host" "$PORT17" --config "$at/port17.toml" init --network "$work/network/mesh.network.toml" --label "$host" "${addresses[@]}" "$@" \
        >>"$work/logs/$host" 2>&1
}

join_as_exit() { # HOST [INIT-OPTION...]
    join_as node "$1" --exit "accept tcp *:80,443" "${@:2}"
    sed -i "s/^# \[exit.hosts\]/[exit.hosts]\n\"$ORIGIN\" = \"$WORLD4\"\n\"$ORIGIN6\" = \"$WORLD6\"/" "$work/at/$1/port17.toml"
}

# Gives a host a state directory on a disk of its own, so large; before it joins.
small_disk() { # HOST SIZE
    mkdir -p "$work/at/$1/state"
    mount -t tmpfs -o "size=$2,mode=700" tmpfs "$work/at/$1/state"
}

fill_disk() { # HOST
    fails dd if=/dev/zero of="$work/at/$1/state/filler" bs=4k status=none
    [ "$(df --output=avail "$work/at/$1/state" | tail -n 1)" -eq 0 ]
}

free_disk() { rm "$work/at/$1/state/filler"; } # HOST

# Sets a host's wall clock, as libfaketime has it: +0, +2d, -90m; the monotonic one goes on. For daemons started with `own_clock HOST`.
set_clock() { # HOST OFFSET
    echo "$2" >"$work/at/$1/clock.new"
    mv "$work/at/$1/clock.new" "$work/at/$1/clock"
}

# The variables that give a daemon its host's clock: start HOST $(own_clock HOST).
own_clock() { # HOST
    [ -e "$work/at/$1/clock" ] || set_clock "$1" +0
    echo "LD_PRELOAD=$(find /usr/lib -name libfaketime.so.1 -print -quit) FAKETIME_TIMESTAMP_FILE=$work/at/$1/clock FAKETIME_NO_CACHE=1" \
        "DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1"
}

# Starts a host's daemon, with variables of the environment where they are given.
start() { # HOST [VARIABLE=VALUE...]
    spawn "$1" "$1" env "${@:2}" "$PORT17" --config "$work/at/$1/port17.toml" "$(cat "$work/at/$1/role")"
}

# A command of Port17 about a host's daemon.
ask() { # HOST COMMAND...
    "$PORT17" --config "$work/at/$1/port17.toml" "${@:2}"
}

# What a host's daemon says of itself, or a value of it: status anna bottle seq.
status() { # HOST [KEY...]
    ask "$1" status --json >"$work/at/$1/status.json" || [ -s "$work/at/$1/status.json" ] || return
    json "$work/at/$1/status.json" "${@:2}"
}

is_ready() { ask "$1" status >/dev/null; } # HOST

guard_of() { status "$1" guard portname | cut -d~ -f1; } # CLIENT

# The hosts of a client's busiest circuit, guard first.
route_of() { control=$work/at/$1/state/control.sock route; } # CLIENT

# Links of a host's daemon that stand in both Bottles, or are a client's.
links_up() { # HOST
    ask "$1" status --json | python3 -c 'import json, sys
links = json.load(sys.stdin)["links"]
print(sum(link["up"] and all(link.get("published", {"": True}).values()) for link in links))'
}

has_links() { [ "$(links_up "$1")" -ge "$2" ]; } # HOST COUNT

# A map as one line, the same for the same map.
map_line() { ask "$1" map --json | python3 "$here/map_line.py"; } # HOST

# All these have the same map, with so many linked nodes in it.
have_one_map() { # COUNT HOST...
    local host line first
    first=$(map_line "$2") || return
    [ "${first%% *}" = "$1" ] || return
    for host in "${@:3}"; do
        line=$(map_line "$host") || return
        [ "$line" = "$first" ] || return
    done
}

# Signs a list of these nodes and puts it where the network looks for it.
sign_list() { # HOST...
    local host bottles=()
    for host in "$@"; do
        wait_for 60 ask "$host" bottle export --output "$work/network/$host.bottle"
        bottles+=("$work/network/$host.bottle")
    done
    "$PORT17" network sign --network "$work/network/mesh.network.toml" --key "$work/network/root-1.key" \
        --list "$work/network/bootstrap-nodes.json" "${bottles[@]}" >>"$work/logs/network" 2>&1
    cp "$work/network/bootstrap-nodes.json" "$web/new" && mv "$web/new" "$web/bootstrap-nodes.json"
}

# Starts these nodes, gives them a list of themselves, and waits until all have one map of all.
form() { # NODE...
    local host
    for host in "$@"; do start "$host"; done
    sign_list "$@"
    for host in "$@"; do wait_for 60 ask "$host" reload; done
    wait_for 90 have_one_map $# "$@" || { for host in "$@"; do ask "$host" status; map_line "$host"; done; return 1; }
}

# curl on a client, through the mesh.
through() { # CLIENT CURL-ARGUMENT...
    in_host "$1" curl -sS --fail --socks5-hostname 127.0.0.1:1080 "${@:2}"
}

reaches() { through "$1" -m 5 -o /dev/null "http://$ORIGIN/bytes/1000"; } # CLIENT

# Downloads, and compares every byte with what the origin has.
download() { # CLIENT BYTES [NAME [CURL-ARGUMENT...]]
    through "$1" "${@:4}" "http://${3:-$ORIGIN}/bytes/$2" | python3 "$hosts_here/origin.py" check "$2"
}

# Begins a download in the background, no faster than RATE (curl's words). It is over when at/CLIENT/NAME.end is there.
begin_download() { # CLIENT NAME BYTES [RATE]
    local file=$work/at/$1/$2
    rm -f "$file" "$file.end"
    # shellcheck disable=SC2016
    spawn "$1.$2" "$1" bash -c 'status=0
        curl -sS --fail --socks5-hostname 127.0.0.1:1080 --limit-rate "$1" -o "$2" "$3" || status=$?
        echo $status >"$2.end.new" && mv "$2.end.new" "$2.end"' download "${4:-1000M}" "$file" "http://$ORIGIN/bytes/$3"
}

has_got() { [ "$(stat -c %s "$work/at/$1/$2" 2>/dev/null || echo 0)" -ge "$3" ]; } # CLIENT NAME BYTES
has_ended() { [ -e "$work/at/$1/$2.end" ]; }                                      # CLIENT NAME

# A download that was begun came to its end, whole.
came_whole() { # CLIENT NAME BYTES
    cat "$work/logs/$1.$2"
    grep -qx 0 "$work/at/$1/$2.end"
    python3 "$hosts_here/origin.py" check "$3" <"$work/at/$1/$2"
}

# It was cut off and curl was told so; and not a byte of what came is wrong.
was_cut() { # CLIENT NAME BYTES
    local got
    got=$(stat -c %s "$work/at/$1/$2")
    say "$got bytes of $3, and curl ended with $(cat "$work/at/$1/$2.end")"
    fails grep -qx 0 "$work/at/$1/$2.end"
    python3 "$hosts_here/origin.py" check "$3" "$got" <"$work/at/$1/$2"
}

# A line of the origin's log for so many bytes that were given whole, with the hash they should have.
# The origin says so once it has sent the last byte.
origin_gave() { # BYTES
    local line
    line="\"bytes\": $1, \"sha256\": \"$(python3 "$hosts_here/origin.py" sha "$1")\", \"whole\": true"
    wait_for 10 grep -qF "$line" "$work/origin.log"
    grep -F "$line" "$work/origin.log"
}

# Succeeds where a command fails: `! COMMAND` alone would not end a check. One that is not there has not failed.
fails() { # COMMAND...
    local status=0
    "$@" || status=$?
    [ "$status" -ne 0 ] && [ "$status" -lt 126 ]
}

# Says how long a command took to succeed, trying again and again, and fails where that is too long.
within() { # SECONDS WHAT COMMAND...
    local limit=$1 what=$2 from=$EPOCHREALTIME
    shift 2
    wait_for "$limit" "$@"
    note "$what: $(seconds_since "$from") s (at most $limit)"
}

# What daemons last said goes with a failure, before what failed.
told() { # HOSTS COMMAND...
    local host hosts=$1 status=0
    shift
    # In a condition no command of a function would end it.
    set +e
    (set -e && "$@") >"$work/told" 2>&1
    status=$?
    set -e
    [ "$status" -eq 0 ] || for host in $hosts; do printf '%s: %s\n' "$host" "$(ask "$host" status 2>&1 | head -n 1)"; done
    tail -n 12 "$work/told"
    return "$status"
}

# ---- The end ----

tear_down() {
    local space
    for space in "$work"/spaces/*; do
        [ ! -e "$space" ] || destroy_space "$(space "$(basename "$space")")"
    done
    unmount_below "$work"
}

destroy_space() { # NAMESPACE
    ip netns pids "$1" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
    ip netns delete "$1" 2>/dev/null || true
}

unmount_below() { # DIRECTORY
    local place
    for place in $(awk -v below="$1/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo); do
        umount -l "$place" || true
    done
}

# What is left of runs whose script was killed so hard that it could not clean up.
forget_the_dead() {
    local file space
    for file in /tmp/port17-e2e-*/hosts.process; do
        if [ -e "$file" ] && is_dead "$(cat "$file")"; then
            for space in /run/netns/"p17h$(cat "$file")"-*; do destroy_space "$(basename "$space")"; done
            unmount_below "$(dirname "$file")"
            rm -rf "$(dirname "$file")"
        fi
    done
}

# Processes whose network is one of this run's, as lines of /proc/PROCESS/ns/net.
processes_in_spaces() {
    find /proc/[0-9]*/ns/net -maxdepth 0 -printf '%p %l\n' 2>/dev/null | grep -F -f <(sed 's/.*/[&]/' "$work"/spaces/*) || true
}

nothing_runs() { [ -z "$(processes_in_spaces)" ]; }

# Of the lines of `ip -o link` those of devices that a run makes.
links_of_runs() { grep -oE '^[0-9]+: (to-[^:]*|lan|bridge)[:@]' || true; }

# Destroys all that was made, and looks whether that is so.
all_is_destroyed() {
    local name
    tear_down
    wait_for 5 nothing_runs || { processes_in_spaces; return 1; }
    for name in "$work"/pids/*; do wait_for 5 is_gone "$(basename "$name")" || { say "$name is still there"; return 1; }; done
    fails compgen -G "/run/netns/$tag-*"
    # Other links of this machine come and go.
    diff <(links_of_runs <"$work/links.before") <(ip -o link | links_of_runs)
    fails grep -F -e "$work" -e "$tag" /proc/self/mountinfo
}

# Instead of `finish`: destroys everything as the last check, and says how long all of it took.
finish_hosts() {
    check "everything that was made is destroyed" all_is_destroyed
    say "hosts $scenario: $(seconds_since "$began") s"
    finish
}

end_hosts() {
    # For who looks for the reason of a failure.
    if [ "$failed" -gt 0 ]; then
        local kept=${CARGO_TARGET_DIR:-$here/../../target}/test-logs/hosts-$scenario
        rm -rf "$kept" && mkdir -p "$kept" && cp -r "$work/logs/." "$kept" && say "what all said is in $kept"
    fi
    tear_down
    clean_up
}
trap end_hosts EXIT
