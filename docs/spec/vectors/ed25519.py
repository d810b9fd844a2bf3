"""Ed25519 by RFC 8032, in pure Python, with the one verification rule of spec 02, 3."""

import hashlib

from primitives import Refused

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
NEUTRAL = (0, 1)


def add(a, b):
    """Adds two points of the curve -x^2 + y^2 = 1 + d x^2 y^2, in affine coordinates."""
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, P - 2, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - product, P - 2, P)
    return x % P, y % P


def add_extended(a, b):
    """As add, of points (x z, y z, z, x y z): without a division (RFC 8032, 5.1.4)."""
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    minus, plus = (y1 - x1) * (y2 - x2), (y1 + x1) * (y2 + x2)
    product, both = 2 * D * t1 * t2, 2 * z1 * z2
    e, f, g, h = plus - minus, both - product, both + product, plus + minus
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(scalar, point):
    x, y = point
    power, result = (x, y, 1, x * y % P), (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add_extended(result, power)
        power = add_extended(power, power)
        scalar >>= 1
    x, y, z, _ = result
    inverse = pow(z, P - 2, P)
    return x * inverse % P, y * inverse % P


def negate(point):
    return -point[0] % P, point[1]


def recover_x(y, sign):
    """The x of a y, none if there is none (RFC 8032, 5.1.3); x = 0 with sign 1 gives 0."""
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_M1 % P
    if (x * x - x2) % P:
        return None
    return -x % P if x & 1 != sign else x


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = (recover_x(BASE_Y, 0), BASE_Y)


def encode(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decode(encoded):
    """The point, if the encoding is canonical and the point is not of small order."""
    value = int.from_bytes(encoded, "little")
    sign, y = value >> 255, value & (2**255 - 1)
    if y >= P:
        raise Refused("not a canonical encoding")
    x = recover_x(y, sign)
    if x is None:
        raise Refused("not a point of the curve")
    if x == 0 and sign:
        raise Refused("not a canonical encoding")
    if multiply(8, (x, y)) == NEUTRAL:
        raise Refused("a point of small order")
    return x, y


def challenge(r, public, message):
    return int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L


def expand_seed(seed):
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little")
    scalar = scalar & ((1 << 254) - 8) | (1 << 254)
    return scalar, digest[32:]


def public_key(seed):
    return encode(multiply(expand_seed(seed)[0], BASE))


def sign(seed, message):
    scalar, prefix = expand_seed(seed)
    public = public_key(seed)
    r = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % L
    encoded_r = encode(multiply(r, BASE))
    s = (r + challenge(encoded_r, public, message) * scalar) % L
    return encoded_r + s.to_bytes(32, "little")


def verify(public, message, signature):
    """Raises Refused unless every part of the rule holds."""
    if len(public) != 32 or len(signature) != 64:
        raise Refused("another length")
    a, r = decode(public), decode(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if s >= L:
        raise Refused("S is not below L")
    k = challenge(signature[:32], public, message)
    # Cofactorless: the two points themselves must be equal.
    if multiply(s, BASE) != add(r, multiply(k, a)):
        raise Refused("the equation does not hold")
