"""Bottles (spec 04), from the specification."""

import ipaddress

import cbor
import ed25519
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


def verify(envelope):
    """Parses and checks the signature; age is not looked at."""
    fields, payload, signature = parse(envelope)
    ed25519.verify(fields[KEY_IDENTITY], SIGNATURE_TAG + payload, signature)
    return fields, payload


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
    KEY_EXIT_POLICY: lambda value: isinstance(value, bytes) and 1 <= len(value) <= 256,
    KEY_LOAD: lambda value: _is_number(value, 0, 3),
    KEY_FLAGS: lambda value: _is_number(value, 0, 65535),
    KEY_PROTOCOL: _is_protocol,
    KEY_SOFTWARE: _is_printable(32),
}
