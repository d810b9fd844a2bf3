#!/usr/bin/python3
"""Makes the "own" cases of ed25519.json and xwing.json again; the published ones stay as they are."""

import hashlib
import json
from pathlib import Path

import ed25519
import mlkem768
import xwing
from ed25519 import BASE, L, NEUTRAL, P, add, challenge, encode, multiply, negate, recover_x

HERE = Path(__file__).parent
MESSAGE = b"p17-bottle-v1a message"
SEED = hashlib.sha256(b"an Ed25519 seed").digest()


def torsion_points():
    """The eight points whose order divides 8, by multiples of one of order 8."""
    y = 2
    while True:
        x = recover_x(y, 0)
        point = x is not None and multiply(L, (x, y))
        if point and multiply(4, point) != NEUTRAL:
            return [multiply(i, point) for i in range(8)]
        y += 1


def small_order_encodings():
    """Every 32 bytes that a lenient decoder takes for a small-order point: canonical or not."""
    out = []
    for _, y in torsion_points():
        for value in (y, y + P):
            if value < 2**255:
                out += [(value | sign << 255).to_bytes(32, "little") for sign in (0, 1)]
    return sorted(set(out))


def case(name, why, public, message, signature, valid):
    return {
        "name": name,
        "why": why,
        "public_key": public.hex(),
        "message": message.hex(),
        "signature": signature.hex(),
        "valid": valid,
    }


def sign_with(scalar, nonce, public, message, r_extra=NEUTRAL):
    """A signature under `public` = scalar * B + torsion, whose R is nonce * B + r_extra."""
    r = encode(add(multiply(nonce, BASE), r_extra))
    s = (nonce + challenge(r, public, message) * scalar) % L
    return r + s.to_bytes(32, "little")


def search(make, accept):
    """The first message for which `make` gives what `accept` wants, with what it made."""
    for i in range(1000):
        message = MESSAGE + i.to_bytes(2, "big")
        made = make(message)
        if accept(message, made):
            return message, made
    raise AssertionError("nothing found")


def ed25519_cases():
    scalar, _ = ed25519.expand_seed(SEED)
    public, good = ed25519.public_key(SEED), ed25519.sign(SEED, MESSAGE)
    s = int.from_bytes(good[32:], "little")
    torsion = torsion_points()[1]
    nonce = int.from_bytes(hashlib.sha512(b"a nonce").digest(), "little") % L
    cases = [
        case("plain", "a signature by RFC 8032", public, MESSAGE, good, True),
        case("empty message", "a signature by RFC 8032", public, b"", ed25519.sign(SEED, b""), True),
        case("another message", "one bit of the message", public, b"q" + MESSAGE[1:], good, False),
        case("another R", "one bit of R", public, MESSAGE, bytes([good[0] ^ 1]) + good[1:], False),
        case("another S", "one bit of S", public, MESSAGE, good[:32] + bytes([good[32] ^ 1]) + good[33:], False),
        case("all zero", "R = y 0, S = 0", public, MESSAGE, bytes(64), False),
    ]
    for factor in (1, 2, 15):
        big = s + factor * L
        if big < 2**256:
            why = "S not below L, the equation holds"
            cases.append(case(f"S + {factor} L", why, public, MESSAGE, good[:32] + big.to_bytes(32, "little"), False))
    cases.append(case("S = L", "S not below L", public, MESSAGE, good[:32] + L.to_bytes(32, "little"), False))
    cases.append(case("S = 2^256 - 1", "S not below L", public, MESSAGE, good[:32] + b"\xff" * 32, False))

    r_identity = encode(NEUTRAL)
    for encoded in small_order_encodings():
        # With S = 0 and R = 0 the equation holds for each small-order A whose order divides k.
        why = "small-order A, lenient verifiers take it for some messages"
        name = f"A = {encoded.hex()[:4]}..{encoded.hex()[-2:]}"
        cases.append(case(name, why, encoded, MESSAGE, r_identity + bytes(32), False))
        k = challenge(encoded, public, MESSAGE)
        why = "small-order R, S = k a: holds if R is the neutral element, else after multiplying by the cofactor"
        name = f"R = {encoded.hex()[:4]}..{encoded.hex()[-2:]}"
        signature = encoded + (k * scalar % L).to_bytes(32, "little")
        cases.append(case(name, why, public, MESSAGE, signature, False))

    mixed = encode(add(multiply(scalar, BASE), torsion))
    message, signature = search(
        lambda m: sign_with(scalar, nonce, mixed, m), lambda m, made: challenge(made[:32], mixed, m) % 8 == 0
    )
    why = "mixed-order A, 8 divides k: the equation holds as points"
    cases.append(case("mixed-order A, holds", why, mixed, message, signature, True))
    message, signature = search(
        lambda m: sign_with(scalar, nonce, mixed, m), lambda m, made: challenge(made[:32], mixed, m) % 8 == 3
    )
    why = "mixed-order A, holds only after multiplying by the cofactor"
    cases.append(case("mixed-order A, does not hold", why, mixed, message, signature, False))
    why = "mixed-order R, holds only after multiplying by the cofactor"
    signature = sign_with(scalar, nonce, public, MESSAGE, torsion)
    cases.append(case("mixed-order R", why, public, MESSAGE, signature, False))
    negative = negate(torsion)
    message, signature = search(
        lambda m: sign_with(scalar, nonce, mixed, m, negative),
        lambda m, made: add(multiply(challenge(made[:32], mixed, m) % 8, torsion), negative) == NEUTRAL,
    )
    why = "mixed-order A and R, the torsion cancels: the equation holds as points"
    cases.append(case("mixed-order A and R, holds", why, mixed, message, signature, True))

    for y in range(2, 19):
        for sign in (0, 1):
            encoded = (y + P | sign << 255).to_bytes(32, "little")
            on_curve = recover_x(y, 0) is not None
            if on_curve and sign == 0 or y == 2:
                why = "not canonical: y + p" + ("" if on_curve else ", and not on the curve")
                cases.append(case(f"A = y {y} + p, sign {sign}", why, encoded, MESSAGE, good, False))
                cases.append(case(f"R = y {y} + p, sign {sign}", why, public, MESSAGE, encoded + good[32:], False))
    off = next(y for y in range(2, 100) if recover_x(y, 0) is None).to_bytes(32, "little")
    cases.append(case("A off the curve", "no x for this y", off, MESSAGE, good, False))
    cases.append(case("R off the curve", "no x for this y", public, MESSAGE, off + good[32:], False))
    return cases


def xwing_case(name, seed, encapsulation_seed):
    public = xwing.public_key(seed)
    shared, ciphertext = xwing.encapsulate(public, encapsulation_seed)
    return {
        "name": name,
        "seed": seed.hex(),
        "encapsulation_seed": encapsulation_seed.hex(),
        "public_key": public.hex(),
        "ciphertext": ciphertext.hex(),
        "shared_secret": shared.hex(),
    }


def implicitly_rejected(name, base, ciphertext):
    seed = bytes.fromhex(base["seed"])
    shared = xwing.decapsulate(seed, ciphertext)
    fields = {"public_key": base["public_key"], "ciphertext": ciphertext.hex(), "shared_secret": shared.hex()}
    return {"name": name, "seed": base["seed"], **fields}


def xwing_cases():
    base = xwing_case("plain", hashlib.sha256(b"a seed").digest(), hashlib.sha512(b"another seed").digest())
    ciphertext = bytes.fromhex(base["ciphertext"])
    ml, x = ciphertext[: mlkem768.CIPHERTEXT_BYTES], ciphertext[mlkem768.CIPHERTEXT_BYTES :]
    high_bit = x[:31] + bytes([x[31] | 0x80])
    return [
        base,
        xwing_case("zero seeds", bytes(32), bytes(64)),
        implicitly_rejected("ML-KEM ciphertext with one bit changed", base, bytes([ml[0] ^ 1]) + ml[1:] + x),
        implicitly_rejected("ML-KEM ciphertext all zero", base, bytes(len(ml)) + x),
        implicitly_rejected("X25519 share with its unused top bit set: another secret, since it is hashed", base, ml + high_bit),
        implicitly_rejected("X25519 share 9 + p: not canonical, taken as 9", base, ml + (9 + P).to_bytes(32, "little")),
    ]


def low_order_shares():
    """The X25519 shares that give zero whatever the secret (RFC 7748, 6.1), each with and without the unused bit."""
    eights = [
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    ]
    values = [0, 1, P - 1, P, P + 1, *eights]
    return sorted({(value | bit << 255).to_bytes(32, "little") for value in values for bit in (0, 1)})


def refused(base):
    public, ciphertext = bytes.fromhex(base["public_key"]), bytes.fromhex(base["ciphertext"])
    ml_public, x_public = public[: mlkem768.ENCAPSULATION_KEY_BYTES], public[mlkem768.ENCAPSULATION_KEY_BYTES :]
    q_first = bytes([mlkem768.Q & 0xFF, ml_public[1] & 0xF0 | mlkem768.Q >> 8]) + ml_public[2:]
    all_ones = b"\xff" * (384 * mlkem768.K) + ml_public[384 * mlkem768.K :]
    keys = [
        {"name": "a coefficient equal to q", "public_key": (q_first + x_public).hex()},
        {"name": "all coefficients 4095", "public_key": (all_ones + x_public).hex()},
    ]
    ciphertexts = []
    for share in low_order_shares():
        keys.append({"name": f"X25519 share {share.hex()}", "public_key": (ml_public + share).hex()})
        spoilt = ciphertext[: mlkem768.CIPHERTEXT_BYTES] + share
        ciphertexts.append({"name": f"X25519 share {share.hex()}", "seed": base["seed"], "ciphertext": spoilt.hex()})
    return keys, ciphertexts


def rewrite(name, **fields):
    path = HERE / name
    content = json.loads(path.read_text())
    content.update(fields)
    path.write_text(json.dumps(content, indent=1) + "\n")


def main():
    rewrite("ed25519.json", own=ed25519_cases())
    own = xwing_cases()
    keys, ciphertexts = refused(own[0])
    rewrite("xwing.json", own=own, refused_keys=keys, refused_ciphertexts=ciphertexts)


if __name__ == "__main__":
    main()
