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
