"""The language of exit policies and its compiled form (spec 07, 1 and 2), from the specification."""

import ipaddress

from primitives import Refused

POLICY_BYTES = 256
PROTOCOLS = {"*": 0, "tcp": 1, "udp": 2}
NET_ANY, NET_V4, NET_V6, NET_PRIVATE = range(4)
MOST_RANGES = 7
ALL_PORTS = (1, 65535)


def _net(text):
    """(PolicyNet, prefix length, network bytes) of a RANGE."""
    if text in ("*", "private"):
        return (NET_ANY if text == "*" else NET_PRIVATE), 0, b""
    network = ipaddress.ip_network(text.replace("[", "").replace("]", ""))
    return (NET_V4 if network.version == 4 else NET_V6), network.prefixlen, network.network_address.packed


def _ports(text):
    """The port ranges in their one form: ascending, joined where they touch, none for all."""
    if text == "*":
        return []
    ranges = []
    for item in text.split(","):
        first, _, last = item.partition("-")
        ranges.append((int(first), int(last or first)))
    joined = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return [] if joined == [ALL_PORTS] else joined


def compile_rules(rules):
    out = b""
    for rule in rules:
        verdict, protocol, target = rule.split()
        where, _, ports = target.rpartition(":")
        net, length, network = _net(where)
        ranges = _ports(ports)
        for at in range(0, max(len(ranges), 1), MOST_RANGES):
            part = ranges[at : at + MOST_RANGES]
            out += bytes([(verdict == "accept") << 7 | PROTOCOLS[protocol] << 5 | net << 3 | len(part)])
            if net in (NET_V4, NET_V6):
                out += bytes([length]) + network[: (length + 7) // 8]
            out += b"".join(port.to_bytes(2, "big") for pair in part for port in pair)
    return out


def check(compiled):
    """Refuses what is not a compiled policy in its one form."""
    if not 1 <= len(compiled) <= POLICY_BYTES:
        raise Refused("a policy of another length")
    rest = compiled
    while rest:
        rest = _check_rule(rest)


def _take(data, length):
    if len(data) < length:
        raise Refused("a policy that is cut")
    return data[:length], data[length:]


def _check_rule(data):
    head, data = _take(data, 1)
    protocol, net, count = head[0] >> 5 & 3, head[0] >> 3 & 3, head[0] & 7
    if protocol not in PROTOCOLS.values():
        raise Refused("a protocol that is not known")
    if net in (NET_V4, NET_V6):
        length, data = _take(data, 1)
        length, most = length[0], 32 if net == NET_V4 else 128
        if length > most:
            raise Refused("a prefix that is too long")
        network, data = _take(data, (length + 7) // 8)
        if int.from_bytes(network, "big") & ((1 << -length % 8) - 1):
            raise Refused("bits past the prefix")
    ranges, data = _take(data, 4 * count)
    ports = [int.from_bytes(ranges[at : at + 2], "big") for at in range(0, 4 * count, 2)]
    pairs = list(zip(ports[::2], ports[1::2]))
    ordered = all(before[1] + 2 <= after[0] for before, after in zip(pairs, pairs[1:]))
    if not ordered or any(not 1 <= first <= last for first, last in pairs) or pairs == [ALL_PORTS]:
        raise Refused("port ranges not in their one form")
    return data
