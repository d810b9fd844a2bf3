"""X-Wing (draft-connolly-cfrg-xwing-kem) with the one stricter rule of spec 02, 4: an X25519 secret of zero is refused."""

import hashlib

import mlkem768
from primitives import Refused, x25519, x25519_public

LABEL = rb"\.//^" + b"\\"
PUBLIC_KEY_BYTES = mlkem768.ENCAPSULATION_KEY_BYTES + 32
CIPHERTEXT_BYTES = mlkem768.CIPHERTEXT_BYTES + 32


def _combine(ss_m, ss_x, ct_x, pk_x):
    return hashlib.sha3_256(ss_m + ss_x + ct_x + pk_x + LABEL).digest()


def _expand_key(seed):
    expanded = hashlib.shake_256(seed).digest(96)
    ek, dk = mlkem768.keygen(expanded[:32], expanded[32:64])
    return ek, dk, expanded[64:]


def public_key(seed):
    """The public key of a 32-byte seed."""
    ek, _, sk_x = _expand_key(seed)
    return ek + x25519_public(sk_x)


def encapsulate(public, encapsulation_seed):
    """(shared secret, ciphertext); the seed is ML-KEM's m 32 || the X25519 secret 32."""
    if len(public) != PUBLIC_KEY_BYTES:
        raise Refused("the X-Wing key has another length")
    ek, pk_x = public[: mlkem768.ENCAPSULATION_KEY_BYTES], public[mlkem768.ENCAPSULATION_KEY_BYTES :]
    m, sk_e = encapsulation_seed[:32], encapsulation_seed[32:]
    ss_m, ct_m = mlkem768.encapsulate(ek, m)
    ct_x, ss_x = x25519_public(sk_e), x25519(sk_e, pk_x)
    return _combine(ss_m, ss_x, ct_x, pk_x), ct_m + ct_x


def decapsulate(seed, ciphertext):
    if len(ciphertext) != CIPHERTEXT_BYTES:
        raise Refused("the X-Wing ciphertext has another length")
    _, dk, sk_x = _expand_key(seed)
    ct_m, ct_x = ciphertext[: mlkem768.CIPHERTEXT_BYTES], ciphertext[mlkem768.CIPHERTEXT_BYTES :]
    ss_m, ss_x = mlkem768.decapsulate(dk, ct_m), x25519(sk_x, ct_x)
    return _combine(ss_m, ss_x, ct_x, x25519_public(sk_x))
