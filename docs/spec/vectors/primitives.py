"""The primitives of suite 1 (spec 02), from hashlib and python3-cryptography."""

import hashlib
import hmac as hmac_lib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TAG_BYTES = 16


class Refused(Exception):
    """A rule of the specification does not hold."""


def tagged_hash(tag, *parts):
    """H(tag, x) = SHA-256(tag || x)."""
    return hashlib.sha256(tag.encode() + b"".join(parts)).digest()


def hmac(key, data):
    return hmac_lib.new(key, data, hashlib.sha256).digest()


def extract(salt, ikm):
    """HKDF-SHA-256 Extract (RFC 5869, 2.2)."""
    return hmac(salt, ikm)


def expand(prk, label, length=32):
    """HKDF-SHA-256 Expand (RFC 5869, 2.3)."""
    info = label if isinstance(label, bytes) else label.encode()
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac(prk, block + info + bytes([counter]))
        out += block
        counter += 1
    return out[:length]


def seal(key, nonce, aad, plaintext):
    """AES-256-GCM: ciphertext || tag."""
    assert len(key) == 32 and len(nonce) == 12
    return AESGCM(key).encrypt(nonce, plaintext, aad)


def open_sealed(key, nonce, aad, sealed):
    assert len(key) == 32 and len(nonce) == 12
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise Refused("the AEAD tag is wrong") from None


def x25519_public(secret):
    key = X25519PrivateKey.from_private_bytes(secret)
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def x25519(secret, peer):
    """The shared secret; zero is refused."""
    try:
        shared = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError:
        raise Refused("the X25519 secret is zero") from None
    if shared == bytes(32):
        raise Refused("the X25519 secret is zero")
    return shared
