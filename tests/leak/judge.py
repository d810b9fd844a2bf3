"""Says what the captures and the flows of a run show.

    judge.py WHO PHASES DIRECTORY RESULTS

WHO has a line for each party: what it is (client, home, node, exit, origin, net, source), its name, its addresses. PHASES has a line for each
part of the run: name, from, to (seconds since 1970), what may happen (`still`: no node and no client opens a connection to a node; `lane`: the client may,
to its guard; `moving`: nodes may, too), the guards of each client (`fritz=anna,ben`), and what must be found (`-`: nothing). DIRECTORY has a
capture cap-NAME.pcap of each party, `flows-NAME` of each node as `conntrack -E` writes them, logs, and files of the daemons. RESULTS gets a
line for each phase, then what was found in it.

What is found has a kind:

canary   a word stands where only the exit's side may see it, or a client's address anywhere in what is sent
client   a client's host sent to or heard from somebody who is neither its guard nor the source of the list
flow     a connection that nobody may open: between nodes, by an exit to where it must not connect, by a node that is no exit
log      a word stands in a daemon's log or files
"""

import collections
import multiprocessing
import os
import re
import sys
import time

import canary
import packets

LANE = 1717
SOURCE_PORT = 8443
EXIT_PORTS = (80, 8080, 8443)
MOST_SAID = 12


class Who:
    """Who has which address, and what he may do with it."""

    def __init__(self, path):
        self.parties = {}
        self.words = []
        for line in open(path):
            what, name, *addresses = line.split()
            if what == "word":
                self.words.append(name)
            else:
                self.parties[name] = (what, addresses)
        self.owner = {address: name for name, (_, addresses) in self.parties.items() for address in addresses}

    def what(self, address):
        """Who is there, and what he is. The net of the origin is all the origin's."""
        if address.startswith(("45.18.7.", "2a18:7:")):
            return "origin", "origin"
        name = self.owner.get(address)
        return (name, self.parties[name][0]) if name else (None, None)

    def is_node(self, address):
        return self.what(address)[1] in ("node", "exit")

    def client_words(self):
        """The clients' addresses as text, which are nobody's business either."""
        return [address for what, addresses in self.parties.values() if what in ("client", "home") for address in addresses]


class Phase:
    def __init__(self, line):
        self.name, since, until, self.mood, guards, wanted = line.rstrip("\n").split("\t")
        self.since, self.until = float(since), float(until)
        self.guards = dict(part.split("=") for part in guards.split() if "=" in part)
        self.wanted = [] if wanted == "-" else wanted.split(",")


# ---- Contents ----


def belongs_to_exit_side(who, packet):
    return {who.what(packet.source)[1], who.what(packet.destination)[1]} == {"exit", "origin"}


def find_words(who, name, chosen):
    """A piece is looked at where its sender is: what is on a cable is at both its ends."""
    sent = [packet for packet in chosen if who.owner.get(packet.source) in (name, None) or not packet.source]
    addresses = who.client_words()
    for found in canary.scan_packets(canary.Scanner(who.words + addresses), sent):
        if found.hit.word in addresses or not belongs_to_exit_side(who, found.piece.packet):
            yield "canary", str(found)


def control(who, chosen):
    """What must be there: without it nothing is proven by finding nothing."""
    seen = set()
    for piece in packets.contents(packet for packet in chosen if belongs_to_exit_side(who, packet)):
        data = piece.data.lower()
        seen.update(kind for word in who.words if word.encode() in data for kind in "nphud" if (kind + word).encode() in data)
    return seen


# ---- A client's host ----


NEIGHBOURS = [bytes([kind]) for kind in (130, 131, 132, 133, 134, 135, 136, 143)]
"""Types of ICMPv6: membership, routers, neighbours."""


def is_neighbour_talk(packet):
    """What a host and its router say below IP: ARP, neighbour discovery, multicast membership. It holds the router's address alone."""
    if packet.ethertype == packets.ARP:
        return True
    return packet.protocol == packets.ICMPV6 and bytes(packet.payload[:1]) in NEIGHBOURS


def asks_for(packet):
    """The address that ARP or neighbour discovery asks for."""
    if packet.ethertype == packets.ARP:
        return packets.address(packet.frame[38:42]) if len(packet.frame) >= 42 else ""
    if packet.protocol == packets.ICMPV6 and packet.payload[:1] == b"\x87" and len(packet.payload) >= 24:
        return packets.address(packet.payload[8:24])
    return ""


def judge_client(who, own, name, phase, chosen):
    guards = [address for guard in phase.guards.get(name, "").split(",") for address in who.parties.get(guard, ("", []))[1]]
    sources = [address for what, addresses in who.parties.values() if what == "source" for address in addresses]
    for packet in chosen:
        if is_neighbour_talk(packet):
            asked = asks_for(packet)
            near = ("fe80:", "10.17.", "2001:db8:1:", "2001:db8:2:", "198.51.100.")
            if asked and asked not in own and not asked.startswith(near):
                yield "client", f"asks its local network for {asked}"
            continue
        here, there, port = packet.source, packet.destination, packet.destination_port
        if there in own:
            here, there, port = there, here, packet.source_port
        allowed = packet.protocol == packets.TCP and here in own and (
            (there in guards and port == LANE) or (there in sources and port == SOURCE_PORT)
        )
        if not allowed:
            yield "client", packet.words()
        elif phase.mood == "still" and packet.flags & (packets.SYN | packets.ACK) == packets.SYN and there in guards:
            yield "client", f"a new lane for streams: {packet.words()}"


def judge_home(who, name, phase, chosen):
    """Behind the router: the same for all clients together."""
    merged = Phase("\t".join((phase.name, "0", "0", phase.mood, f"{name}={','.join(phase.guards.values())}", "-")))
    own = [address for what, addresses in who.parties.values() if what in ("client", "home") for address in addresses]
    yield from judge_client(who, own, name, merged, chosen)


# ---- Flows ----

EVENT = re.compile(r"^\[(\d+\.\d+)\s*\].*\[NEW\]\s+(?:ipv[46]\s+\d+\s+)?(\w+).*?src=(\S+) dst=(\S+)(?: sport=(\d+) dport=(\d+))?")


def flows(path):
    """(when, protocol, source, destination, destination's port) of each new flow."""
    for line in open(path):
        match = EVENT.match(line)
        if match:
            yield float(match[1]), match[2], match[3], match[4], int(match[6] or 0)


def is_flow_allowed(who, phase, protocol, source, destination, port):
    (source_name, source_is), (_, destination_is) = who.what(source), who.what(destination)
    if who.is_node(source) and who.is_node(destination):
        return phase.mood == "moving" and protocol == "tcp" and port == LANE
    if who.is_node(destination):
        # Clients come from behind a router, and each to its guard alone.
        guards = {guard for names in phase.guards.values() for guard in names.split(",")}
        is_guard = who.what(destination)[0] in guards
        return source_is in ("client", "home") and is_guard and protocol == "tcp" and port == LANE and phase.mood != "still"
    if destination_is == "source":
        return protocol == "tcp" and port == SOURCE_PORT
    if source_is == "exit" and destination_is == "origin":
        # ICMP: the socket that asked for a name is gone when the answer comes.
        return (protocol == "tcp" and port in EXIT_PORTS) or (protocol == "udp" and port == 53) or protocol in ("icmp", "icmpv6")
    return False


def judge_flows(who, phase, events):
    for when, protocol, source, destination, port in events:
        if phase.since <= when <= phase.until and not is_flow_allowed(who, phase, protocol, source, destination, port):
            # Below IP in all but name.
            if not (protocol == "icmpv6" and (destination.startswith("ff02:") or "fe80:" in source + destination)):
                yield "flow", f"{protocol} {source} > {destination} port {port}"


def judge_node(who, phase, chosen):
    """The same from the packets: what begins a connection, and all that is neither TCP nor neighbour talk."""
    for packet in chosen:
        if packet.protocol == packets.TCP and packet.flags & (packets.SYN | packets.ACK) != packets.SYN or is_neighbour_talk(packet):
            continue
        if packet.protocol in (packets.ICMP, packets.ICMPV6) and who.what(packet.source)[1] in ("origin", "net"):
            continue  # the net says that nobody is where an exit wants to go
        answers = who.what(packet.source)[1] == "origin" and who.what(packet.destination)[1] == "exit" and packet.source_port == 53
        protocol = packets.NAMES.get(packet.protocol, str(packet.protocol))
        if not answers and not is_flow_allowed(who, phase, protocol, packet.source, packet.destination, packet.destination_port):
            yield "flow", packet.words()


# ---- All of it ----


def capture(directory, name):
    return f"{directory}/cap-{name}.pcap"


def judge_capture(who, phases, directory, name):
    """What this party's capture and flows show, for each phase; and what the control saw."""
    began = time.time()
    what = who.parties[name][0]
    chosen = collections.defaultdict(list)
    for packet in packets.read(capture(directory, name)):
        for phase in phases:
            if phase.since <= packet.when <= phase.until:
                chosen[phase.name].append(packet)
    flow_file = f"{directory}/logs/flows-{name}"
    events = list(flows(flow_file)) if os.path.exists(flow_file) else []
    found, seen = collections.defaultdict(list), collections.defaultdict(set)
    for phase in phases:
        of_phase, here = found[phase.name], chosen.pop(phase.name, [])
        if what == "client":
            of_phase += judge_client(who, who.parties[name][1], name, phase, here)
        elif what == "home":
            of_phase += judge_home(who, name, phase, here)
        elif what in ("node", "exit"):
            of_phase += judge_flows(who, phase, events)
            of_phase += judge_node(who, phase, here)
        if what != "home":
            of_phase += find_words(who, name, here)
        if what in ("exit", "origin"):
            seen[phase.name] = control(who, here)
        found[phase.name] = [(kind, f"{name}: {text}") for kind, text in dict.fromkeys(of_phase)]
    return name, dict(found), dict(seen), time.time() - began


def judge_files(who, phases, directory):
    """Logs say when each line was written only to the second: they are kept for each phase."""
    scanner = canary.Scanner(who.words)
    for phase in phases:
        for root, _, names in os.walk(f"{directory}/said/{phase.name}"):
            for name in names:
                with open(os.path.join(root, name), "rb") as file:
                    for hit in scanner.scan(file.read()):
                        yield phase.name, ("log", f"{name}: {hit.word} ({hit.encoding}): {hit.around!r}")


def say(phase, found, seen, out):
    kinds = sorted({kind for kind, _ in found})
    missing = [kind for kind in phase.wanted if kind not in kinds]
    blind = not phase.wanted and set("nphud") - seen
    verdict = "ok"
    if phase.wanted:
        verdict = "ok" if not missing else "missed"
    elif found:
        verdict = "found"
    elif blind:
        verdict = "blind"
    out.write(f"{phase.name}\t{verdict}\t{','.join(kinds) or 'nothing'}\n")
    if blind:
        out.write(f"\tnot even the exit's side shows: {sorted(blind)}\n")
    for kind, text in found[:MOST_SAID]:
        out.write(f"\t{kind}: {text}\n")
    if len(found) > MOST_SAID:
        out.write(f"\tand {len(found) - MOST_SAID} more\n")


def main(who_file, phase_file, directory, results):
    who, phases = Who(who_file), [Phase(line) for line in open(phase_file)]
    found, seen = collections.defaultdict(list), collections.defaultdict(set)
    captures = [name for name in who.parties if os.path.exists(capture(directory, name))]
    captures.sort(key=lambda name: -os.path.getsize(capture(directory, name)))
    with multiprocessing.Pool(2) as pool:
        tasks = [pool.apply_async(judge_capture, (who, phases, directory, name)) for name in captures]
        for phase, what in judge_files(who, phases, directory):
            found[phase].append(what)
        for task in tasks:
            name, of_capture, control_seen, seconds = task.get()
            print(f"{name}: {os.path.getsize(capture(directory, name)) >> 20} MB in {seconds:.1f} s")
            for phase in phases:
                found[phase.name] += of_capture.get(phase.name, [])
                seen[phase.name] |= control_seen.get(phase.name, set())
    with open(results, "w") as out:
        for phase in phases:
            say(phase, found[phase.name], seen[phase.name], out)


if __name__ == "__main__":
    main(*sys.argv[1:])
