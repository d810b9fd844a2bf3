"""ML-KEM-768 in pure Python, by FIPS 203. Slow, not constant time: for checking vectors only."""

import hashlib

from primitives import Refused

Q, N, K = 3329, 256, 3
ETA1, ETA2, DU, DV = 2, 2, 10, 4
ENCAPSULATION_KEY_BYTES = 384 * K + 32
CIPHERTEXT_BYTES = 32 * (DU * K + DV)


def _bit_reverse_7(value):
    return int(f"{value:07b}"[::-1], 2)


ZETAS = [pow(17, _bit_reverse_7(i), Q) for i in range(128)]
GAMMAS = [pow(17, 2 * _bit_reverse_7(i) + 1, Q) for i in range(128)]


def _g(data):
    digest = hashlib.sha3_512(data).digest()
    return digest[:32], digest[32:]


def _h(data):
    return hashlib.sha3_256(data).digest()


def _j(data):
    return hashlib.shake_256(data).digest(32)


def _prf(eta, seed, counter):
    return hashlib.shake_256(seed + bytes([counter])).digest(64 * eta)


def _byte_encode(d, values):
    """Algorithm 5."""
    bits = 0
    for i, value in enumerate(values):
        bits |= value << (d * i)
    return bits.to_bytes(32 * d, "little")


def _byte_decode(d, data):
    """Algorithm 6."""
    bits, modulus = int.from_bytes(data, "little"), Q if d == 12 else 1 << d
    return [((bits >> (d * i)) & ((1 << d) - 1)) % modulus for i in range(N)]


def _compress(d, x):
    return (((x << d) + Q // 2) // Q) % (1 << d)


def _decompress(d, y):
    return (y * Q + (1 << (d - 1))) >> d


def _sample_ntt(seed):
    """Algorithm 7. SHAKE128 is asked for more until 256 coefficients are found."""
    length = 840
    while True:
        stream, out = hashlib.shake_128(seed).digest(length), []
        for i in range(0, length, 3):
            d1 = stream[i] + 256 * (stream[i + 1] % 16)
            d2 = stream[i + 1] // 16 + 16 * stream[i + 2]
            for d in (d1, d2):
                if d < Q and len(out) < N:
                    out.append(d)
        if len(out) == N:
            return out
        length *= 2


def _sample_cbd(eta, data):
    """Algorithm 8."""
    bits = int.from_bytes(data, "little")
    bit = lambda i: (bits >> i) & 1
    return [
        (sum(bit(2 * i * eta + j) for j in range(eta)) - sum(bit(2 * i * eta + eta + j) for j in range(eta))) % Q
        for i in range(N)
    ]


def _ntt(f):
    """Algorithm 9."""
    f, i, length = list(f), 1, 128
    while length >= 2:
        for start in range(0, N, 2 * length):
            zeta = ZETAS[i]
            i += 1
            for j in range(start, start + length):
                t = zeta * f[j + length] % Q
                f[j + length] = (f[j] - t) % Q
                f[j] = (f[j] + t) % Q
        length //= 2
    return f


def _inverse_ntt(f):
    """Algorithm 10."""
    f, i, length = list(f), 127, 2
    while length <= 128:
        for start in range(0, N, 2 * length):
            zeta = ZETAS[i]
            i -= 1
            for j in range(start, start + length):
                t = f[j]
                f[j] = (t + f[j + length]) % Q
                f[j + length] = zeta * (f[j + length] - t) % Q
        length *= 2
    return [x * 3303 % Q for x in f]


def _multiply(f, g):
    """Algorithms 11 and 12."""
    out = []
    for i in range(128):
        a0, a1, b0, b1 = f[2 * i], f[2 * i + 1], g[2 * i], g[2 * i + 1]
        out += [(a0 * b0 + a1 * b1 * GAMMAS[i]) % Q, (a0 * b1 + a1 * b0) % Q]
    return out


def _add(*polynomials):
    return [sum(values) % Q for values in zip(*polynomials)]


def _subtract(f, g):
    return [(a - b) % Q for a, b in zip(f, g)]


def _matrix(rho):
    return [[_sample_ntt(rho + bytes([j, i])) for j in range(K)] for i in range(K)]


def _pke_keygen(d):
    """Algorithm 13."""
    rho, sigma = _g(d + bytes([K]))
    a = _matrix(rho)
    s = [_ntt(_sample_cbd(ETA1, _prf(ETA1, sigma, i))) for i in range(K)]
    e = [_ntt(_sample_cbd(ETA1, _prf(ETA1, sigma, K + i))) for i in range(K)]
    t = [_add(*[_multiply(a[i][j], s[j]) for j in range(K)], e[i]) for i in range(K)]
    return b"".join(_byte_encode(12, p) for p in t) + rho, b"".join(_byte_encode(12, p) for p in s)


def _pke_encrypt(ek, message, randomness):
    """Algorithm 14."""
    t = [_byte_decode(12, ek[384 * i : 384 * (i + 1)]) for i in range(K)]
    a = _matrix(ek[384 * K :])
    y = [_ntt(_sample_cbd(ETA1, _prf(ETA1, randomness, i))) for i in range(K)]
    e1 = [_sample_cbd(ETA2, _prf(ETA2, randomness, K + i)) for i in range(K)]
    e2 = _sample_cbd(ETA2, _prf(ETA2, randomness, 2 * K))
    u = [_add(_inverse_ntt(_add(*[_multiply(a[j][i], y[j]) for j in range(K)])), e1[i]) for i in range(K)]
    mu = [_decompress(1, bit) for bit in _byte_decode(1, message)]
    v = _add(_inverse_ntt(_add(*[_multiply(t[i], y[i]) for i in range(K)])), e2, mu)
    c1 = b"".join(_byte_encode(DU, [_compress(DU, x) for x in p]) for p in u)
    return c1 + _byte_encode(DV, [_compress(DV, x) for x in v])


def _pke_decrypt(dk, ciphertext):
    """Algorithm 15."""
    size = 32 * DU
    u = [[_decompress(DU, y) for y in _byte_decode(DU, ciphertext[size * i : size * (i + 1)])] for i in range(K)]
    v = [_decompress(DV, y) for y in _byte_decode(DV, ciphertext[size * K :])]
    s = [_byte_decode(12, dk[384 * i : 384 * (i + 1)]) for i in range(K)]
    w = _subtract(v, _inverse_ntt(_add(*[_multiply(s[i], _ntt(u[i])) for i in range(K)])))
    return _byte_encode(1, [_compress(1, x) for x in w])


def keygen(d, z):
    """Algorithm 16: (encapsulation key, decapsulation key)."""
    ek, dk_pke = _pke_keygen(d)
    return ek, dk_pke + ek + _h(ek) + z


def check_encapsulation_key(ek):
    """Section 7.2: the length and the modulus."""
    if len(ek) != ENCAPSULATION_KEY_BYTES:
        raise Refused("the ML-KEM key has another length")
    for i in range(K):
        part = ek[384 * i : 384 * (i + 1)]
        if _byte_encode(12, _byte_decode(12, part)) != part:
            raise Refused("the ML-KEM key is not canonical")


def encapsulate(ek, m):
    """Algorithm 17 with the check of 7.2: (shared secret, ciphertext)."""
    check_encapsulation_key(ek)
    shared, randomness = _g(m + _h(ek))
    return shared, _pke_encrypt(ek, m, randomness)


def decapsulate(dk, ciphertext):
    """Algorithm 18. A wrong ciphertext gives an unrelated secret."""
    if len(ciphertext) != CIPHERTEXT_BYTES:
        raise Refused("the ML-KEM ciphertext has another length")
    dk_pke, ek, h, z = dk[: 384 * K], dk[384 * K : 768 * K + 32], dk[768 * K + 32 : 768 * K + 64], dk[768 * K + 64 :]
    m = _pke_decrypt(dk_pke, ciphertext)
    shared, randomness = _g(m + h)
    if _pke_encrypt(ek, m, randomness) != ciphertext:
        return _j(z + ciphertext)
    return shared
