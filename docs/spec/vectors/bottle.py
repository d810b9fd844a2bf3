"""Bottles (spec 04), from the specification."""

import ipaddress

import cbor
import ed25519
import exit_policy
from identity import check_label, identity_of, node_id, port_name
from primitives import Refused, tagged_hash

ENVELOPE, SUITE = 1, 1
BOTTLE_BYTES = 4096
SIGNATURE_TAG = b"p17-bottle-v1"
LINK_BYTES = 10
(
    KEY_SUITE, KEY_IDENTITY, KEY_SEQ, KEY_SCOPE, KEY_LABEL, KEY_GROUP, KEY_LINK_KEY, KEY_LINK_KEY_EXPIRY, KEY_NEXT_LINK_KEY,
    KEY_CIRCUIT_KEY, KEY_NOT_AFTER, KEY_ADDRESSES, KEY_EGRESS, KEY_LINKS, KEY_EXIT_POLICY, KEY_LOAD, KEY_FLAGS, KEY_PROTOCOL,
    KEY_SOFTWARE,
) = range(1, 20)
REQUIRED = {
    KEY_SUITE, KEY_IDENTITY, KEY_SEQ, KEY_SCOPE, KEY_LABEL, KEY_LINK_KEY, KEY_LINK_KEY_EXPIRY, KEY_CIRCUIT_KEY, KEY_NOT_AFTER,
    KEY_LOAD, KEY_FLAGS, KEY_PROTOCOL, KEY_SOFTWARE,
}  # fmt: skip
UNKNOWN_FIELDS, UNKNOWN_DEPTH = 16, 4
HOUR_MS = 3_600_000
AHEAD_MS, LIFE_MS, LINK_KEY_LIFE_MS, CIRCUIT_KEY_LIFE_MS = HOUR_MS, 30 * HOUR_MS, 90 * 24 * HOUR_MS, 30 * HOUR_MS


def short_id(payload):
    return tagged_hash("p17-short-v1", payload)[:16]


def sign(identity_seed, payload):
    """The envelope."""
    return cbor.encode([ENVELOPE, payload, ed25519.sign(identity_seed, SIGNATURE_TAG + payload)])


def parse(envelope):
    """(fields by key, payload, signature) of a well-formed Bottle; nothing is proven by it."""
    if len(envelope) > BOTTLE_BYTES:
        raise Refused("longer than 4096 bytes")
    outer = cbor.decode(envelope)
    if not isinstance(outer, list) or len(outer) != 3 or outer[0] is True or outer[0] != ENVELOPE:
        raise Refused("not an envelope")
    _, payload, signature = outer
    if not isinstance(payload, bytes) or not isinstance(signature, bytes) or len(signature) != 64:
        raise Refused("not an envelope")
    return read_payload(payload), payload, signature


class RefusedLater(Refused):
    """A well-formed Bottle that is refused for its age or its signature. `reason` as the vectors call it."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


def verify(envelope, now_ms):
    """Parses, checks age and signature in the order of spec 04, 3: (fields, payload, signature)."""
    fields, payload, signature = parse(envelope)
    seq = fields[KEY_SEQ]
    if seq > now_ms + AHEAD_MS:
        raise RefusedLater("Ahead")
    if seq + LIFE_MS <= now_ms:
        raise RefusedLater("Expired")
    if fields[KEY_LINK_KEY_EXPIRY] > (seq + LINK_KEY_LIFE_MS + AHEAD_MS) // 1000:
        raise RefusedLater("Field(LinkKeyExpiry)")
    if fields[KEY_NOT_AFTER] > (seq + CIRCUIT_KEY_LIFE_MS + AHEAD_MS) // 1000:
        raise RefusedLater("Field(CircuitKeyNotAfter)")
    try:
        ed25519.verify(fields[KEY_IDENTITY], SIGNATURE_TAG + payload, signature)
    except Refused:
        raise RefusedLater("Signature") from None
    return fields, payload, signature


def read_payload(payload):
    fields = cbor.decode(payload)
    if not isinstance(fields, dict) or not all(_is_number(key) for key in fields):
        raise Refused("not a map of integer keys")
    if not REQUIRED <= fields.keys():
        raise Refused("a field is missing")
    unknown = {key: value for key, value in fields.items() if not KEY_SUITE <= key <= KEY_SOFTWARE}
    if len(unknown) > UNKNOWN_FIELDS or any(_depth(value) > UNKNOWN_DEPTH for value in unknown.values()):
        raise Refused("too many unknown fields, or nested too deep")
    for key, value in fields.items():
        if key in CHECKS and not CHECKS[key](value):
            raise Refused(f"field {key} is out of bounds")
    check_label(fields[KEY_LABEL])
    if KEY_EXIT_POLICY in fields:
        exit_policy.check(fields[KEY_EXIT_POLICY])
    return fields


def _is_number(value, least=0, most=2**64 - 1):
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _depth(value):
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 0


def _is_bytes(length):
    return lambda value: isinstance(value, bytes) and len(value) == length


def _is_key(value):
    """Canonical and not of small order; whether it is on the curve is not asked."""
    if not _is_bytes(32)(value):
        return False
    y = int.from_bytes(value, "little") & (2**255 - 1)
    x = ed25519.recover_x(y, 0)
    return y < ed25519.P and (x is None or ed25519.multiply(8, (x, y)) != ed25519.NEUTRAL)


def _is_printable(most, least=0):
    return lambda value: isinstance(value, str) and least <= len(value) <= most and all(" " <= c <= "~" for c in value)


def _is_list(most, is_item):
    def check(value):
        items = value if isinstance(value, list) else []
        return 1 <= len(items) <= most and all(map(is_item, items)) and all(items.count(item) == 1 for item in items)

    return check


def _is_host(value):
    if not isinstance(value, bytes) or len(value) not in (4, 16):
        return False
    ip = ipaddress.ip_address(value)
    mapped = ip.version == 6 and ip.ipv4_mapped
    return not (ip.is_unspecified or ip.is_multicast or mapped or value == b"\xff" * 4)


def _is_address(value):
    if not isinstance(value, list) or len(value) != 3:
        return False
    ip, port, lane_type = value
    return _is_host(ip) and _is_number(port, 1, 65535) and _is_number(lane_type, 0, 255)


def _are_links(value):
    if not isinstance(value, bytes) or not value or len(value) % LINK_BYTES or len(value) > 64 * LINK_BYTES:
        return False
    peers = [value[at : at + 8] for at in range(0, len(value), LINK_BYTES)]
    return all(before < after for before, after in zip(peers, peers[1:]))


def _is_protocol(value):
    is_pair = isinstance(value, list) and len(value) == 2 and all(_is_number(version, 1, 255) for version in value)
    return is_pair and value[0] <= value[1]


CHECKS = {
    KEY_SUITE: lambda value: _is_number(value, SUITE, SUITE),
    KEY_IDENTITY: _is_bytes(32),
    KEY_SEQ: _is_number,
    KEY_SCOPE: lambda value: _is_number(value, 0, 1),
    KEY_LABEL: lambda value: isinstance(value, str),
    KEY_GROUP: _is_printable(32, 1),
    KEY_LINK_KEY: _is_key,
    KEY_LINK_KEY_EXPIRY: _is_number,
    KEY_NEXT_LINK_KEY: _is_key,
    KEY_CIRCUIT_KEY: _is_bytes(1216),
    KEY_NOT_AFTER: _is_number,
    KEY_ADDRESSES: _is_list(8, _is_address),
    KEY_EGRESS: _is_list(4, _is_host),
    KEY_LINKS: _are_links,
    KEY_EXIT_POLICY: lambda value: isinstance(value, bytes),
    KEY_LOAD: lambda value: _is_number(value, 0, 3),
    KEY_FLAGS: lambda value: _is_number(value, 0, 65535),
    KEY_PROTOCOL: _is_protocol,
    KEY_SOFTWARE: _is_printable(32),
}


# ---- Codes (spec 04, 4) ----


def round_trip_ns(code):
    value = 100_000
    for _ in range(code):
        value = value * 28 // 25
    return value


def round_trip_code(microseconds):
    return next((code for code in range(254) if round_trip_ns(code) >= 1000 * microseconds), 254)


def capacity_code(mbit_s):
    return max(mbit_s.bit_length() - 1, 0)


# ---- The vectors ----

FIELD_NAMES = {
    KEY_SUITE: "suite",
    KEY_SEQ: "seq",
    KEY_SCOPE: "scope",
    KEY_LABEL: "label",
    KEY_LINK_KEY_EXPIRY: "link_key_expiry_s",
    KEY_NOT_AFTER: "circuit_key_not_after_s",
    KEY_LOAD: "load",
    KEY_FLAGS: "flags",
    KEY_PROTOCOL: "protocol",
    KEY_SOFTWARE: "software",
}
BYTES_NAMES = {
    KEY_IDENTITY: "identity",
    KEY_LINK_KEY: "link_key",
    KEY_NEXT_LINK_KEY: "next_link_key",
    KEY_CIRCUIT_KEY: "circuit_key",
    KEY_EXIT_POLICY: "exit_policy",
}


def _payload_of(fields):
    """The payload that says what the fields of a vector say."""
    content = {key: fields[name] for key, name in FIELD_NAMES.items()}
    content |= {key: bytes.fromhex(fields[name]) for key, name in BYTES_NAMES.items() if fields[name] is not None}
    packed = lambda ip: ipaddress.ip_address(ip).packed
    addresses = [[packed(address["ip"]), address["port"], address["lane_type"]] for address in fields["addresses"]]
    links = b"".join(bytes.fromhex(link["prefix"]) + bytes([link["rtt"], link["capacity"]]) for link in fields["links"])
    egress = [packed(ip) for ip in fields["egress"]]
    optional = {KEY_GROUP: fields["group"], KEY_ADDRESSES: addresses, KEY_EGRESS: egress, KEY_LINKS: links}
    content |= {key: value for key, value in optional.items() if value}
    content |= {item["key"]: cbor.decode(bytes.fromhex(item["value"])) for item in fields["unknown"]}
    return cbor.encode(content)


def _expect(what, made, expected):
    if made != expected:
        raise Refused(f"{what} differs")


def _check_valid(case, now_ms):
    value = lambda name: bytes.fromhex(case[name])
    fields, payload, signature = verify(value("envelope"), now_ms)
    _expect("the payload made from the fields", _payload_of(case["fields"]), value("payload"))
    _expect("the payload in the envelope", payload, value("payload"))
    _expect("the signature in the envelope", signature, value("signature"))
    _expect("the envelope made from the seed", sign(value("identity_seed"), payload), value("envelope"))
    _expect("the NodeID", node_id(fields[KEY_IDENTITY]), value("node_id"))
    _expect("the identity", identity_of(value("identity_seed")), (fields[KEY_IDENTITY], value("node_id")))
    _expect("the PortName", port_name(fields[KEY_LABEL], value("node_id")), case["portname"])
    _expect("the short id", short_id(payload), value("short_id"))
    _expect("the end of its life", fields[KEY_SEQ] + LIFE_MS, case["expires_ms"])


LATER = {"Ahead", "Expired", "Field(LinkKeyExpiry)", "Field(CircuitKeyNotAfter)", "Signature"}


def _check_invalid(case):
    try:
        verify(bytes.fromhex(case["envelope"]), case["now_ms"])
    except RefusedLater as refusal:
        _expect("the reason", refusal.reason, case["error"])
    except Refused:
        # Which of the rules of encoding and bounds is broken first is the reader's affair; that one is, is not.
        if case["error"] in LATER:
            raise Refused(f"refused as malformed, expected {case['error']}") from None
    else:
        raise Refused("taken, where it must be refused")


def _check_policy(case):
    compiled = bytes.fromhex(case["compiled"])
    exit_policy.check(compiled)
    _expect("the compiled policy", exit_policy.compile_rules(case["rules"]), compiled)


def _check_round_trip(case):
    _expect("the code", round_trip_code(case["rtt_us"]), case["code"])
    _expect("the time of the code", round_trip_ns(case["code"]) // 1000, case["code_means_us"])


def _check_capacity(case):
    _expect("the code", capacity_code(case["mbit_s"]), case["code"])
    _expect("the capacity of the code", 2 ** case["code"], case["code_means_mbit_s"])


def check_vectors(vectors):
    """Yields (name, check) for everything in bottle.json."""
    for case in vectors["valid"]:
        yield f"valid: {case['name']}", lambda case=case: _check_valid(case, vectors["now_ms"])
    for case in vectors["invalid"]:
        yield f"invalid: {case['name']}", lambda case=case: _check_invalid(case)
    for case in vectors["exit_policies"]:
        yield f"exit policy: {'; '.join(case['rules'])}", lambda case=case: _check_policy(case)
    for case in vectors["round_trips"]:
        yield f"round trip of {case['rtt_us']} us", lambda case=case: _check_round_trip(case)
    for case in vectors["capacities"]:
        yield f"capacity of {case['mbit_s']} Mbit/s", lambda case=case: _check_capacity(case)
