"""Tombstones (spec 04, 6), from the specification."""

import cbor
import ed25519
from identity import node_id
from primitives import Refused

ENVELOPE, SUITE = 2, 1
TOMBSTONE_BYTES = 256
SIGNATURE_TAG = b"p17-tombstone-v1"
KEY_SUITE, KEY_IDENTITY, KEY_SEQ = 1, 2, 3


class RefusedFor(Refused):
    """A refusal with its reason as the vectors call it."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


def sign(identity_seed, seq):
    """The envelope."""
    payload = cbor.encode({KEY_SUITE: SUITE, KEY_IDENTITY: ed25519.public_key(identity_seed), KEY_SEQ: seq})
    return cbor.encode([ENVELOPE, payload, ed25519.sign(identity_seed, SIGNATURE_TAG + payload)])


def parse(envelope):
    """(identity, seq, payload, signature) of a well-formed tombstone; nothing is proven by it."""
    if len(envelope) > TOMBSTONE_BYTES:
        raise Refused("longer than 256 bytes")
    outer = cbor.decode(envelope)
    if not isinstance(outer, list) or len(outer) != 3 or outer[0] is True or outer[0] != ENVELOPE:
        raise Refused("not an envelope")
    _, payload, signature = outer
    if not isinstance(payload, bytes) or not isinstance(signature, bytes) or len(signature) != 64:
        raise Refused("not an envelope")
    fields = cbor.decode(payload)
    if not isinstance(fields, dict) or list(fields) != [KEY_SUITE, KEY_IDENTITY, KEY_SEQ]:
        raise Refused("not the three fields")
    suite, identity, seq = fields.values()
    if any(isinstance(number, bool) or not isinstance(number, int) or number < 0 for number in (suite, seq)) or suite != SUITE:
        raise Refused("not a suite and a seq")
    if not isinstance(identity, bytes) or len(identity) != 32:
        raise Refused("not an identity")
    return identity, seq, payload, signature


def verify(envelope, now_ms, life_ms, ahead_ms):
    """(NodeID, seq)"""
    identity, seq, payload, signature = parse(envelope)
    if seq > now_ms + ahead_ms:
        raise RefusedFor("Ahead")
    if seq + life_ms <= now_ms:
        raise RefusedFor("Old")
    try:
        ed25519.verify(identity, SIGNATURE_TAG + payload, signature)
    except Refused:
        raise RefusedFor("Signature") from None
    return node_id(identity), seq


# ---- The vectors ----


def _expect(what, made, expected):
    if made != expected:
        raise Refused(f"{what} differs")


def _check_valid(case, life_ms, ahead_ms):
    envelope, identity_seed = bytes.fromhex(case["envelope"]), bytes.fromhex(case["identity_seed"])
    _expect("the envelope made from the seed", sign(identity_seed, case["seq"]), envelope)
    verified = verify(envelope, case["seq"], life_ms, ahead_ms)
    _expect("who has left, and when", verified, (bytes.fromhex(case["node_id"]), case["seq"]))


def _check_invalid(case, life_ms, ahead_ms):
    try:
        verify(bytes.fromhex(case["envelope"]), case["now_ms"], life_ms, ahead_ms)
    except RefusedFor as refusal:
        _expect("the reason", refusal.reason, case["error"])
    except Refused:
        _expect("the reason", "Malformed", case["error"])
    else:
        raise Refused("taken, where it must be refused")


def check_vectors(vectors):
    """Yields (name, check) for everything in tombstone.json."""
    times = vectors["life_ms"], vectors["ahead_ms"]
    for case in vectors["valid"]:
        yield f"valid: seq {case['seq']}", lambda case=case: _check_valid(case, *times)
    for case in vectors["invalid"]:
        yield f"invalid: {case['name']}", lambda case=case: _check_invalid(case, *times)
