"""NodeIDs and PortNames (spec 03), from the specification."""

import base64
import re

import ed25519
from primitives import Refused, tagged_hash

SUITE = 1
SUFFIX_CHARS = 13


def node_id(public):
    return tagged_hash("p17-id-v1", bytes([SUITE]), public)


def node_id_text(node):
    """Base32 (RFC 4648), lower case, unpadded."""
    return base64.b32encode(node).decode().rstrip("=").lower()


def identity_of(seed):
    """(public key, NodeID) of an Ed25519 seed."""
    public = ed25519.public_key(seed)
    return public, node_id(public)


def check_label(label):
    if not re.fullmatch("[a-z][a-z0-9-]{2,23}", label):
        raise Refused("not a label")


def port_name(label, node):
    check_label(label)
    return f"{label}~{node_id_text(node)[:SUFFIX_CHARS]}"


# ---- The vectors ----


def _check_identity(case):
    made = identity_of(bytes.fromhex(case["seed"]))
    made = (made[0].hex(), made[1].hex(), node_id_text(made[1]), port_name(case["label"], made[1]))
    if made != (case["public_key"], case["node_id"], case["node_id_text"], case["portname"]):
        raise Refused(f"made {made}")


def check_vectors(vectors):
    """Yields (name, check) for everything in identity.json."""
    if vectors["suite"] != SUITE:
        raise ValueError("another suite")
    for case in vectors["identities"]:
        yield case["portname"], lambda case=case: _check_identity(case)
