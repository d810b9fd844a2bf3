"""Deterministic CBOR (RFC 8949, 4.2.1) in the profile of spec 04, 1: integers, bytes, texts, arrays, maps, false, true, null."""

from primitives import Refused

UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)
CONSTANTS = {20: False, 21: True, 22: None}


def _head(major, argument):
    for size, code in ((0, argument), (1, 24), (2, 25), (4, 26), (8, 27)):
        if argument < (24 if size == 0 else 1 << 8 * size):
            return bytes([major << 5 | code]) + (argument.to_bytes(size, "big") if size else b"")
    raise Refused("an integer above 64 bits")


def encode(value):
    for code, constant in CONSTANTS.items():
        if value is constant:
            return bytes([SIMPLE << 5 | code])
    if isinstance(value, int):
        return _head(UNSIGNED, value) if value >= 0 else _head(NEGATIVE, -1 - value)
    if isinstance(value, bytes):
        return _head(BYTES, len(value)) + value
    if isinstance(value, str):
        return _head(TEXT, len(value.encode())) + value.encode()
    if isinstance(value, (list, tuple)):
        return _head(ARRAY, len(value)) + b"".join(encode(item) for item in value)
    if isinstance(value, dict):
        pairs = sorted((encode(key), encode(item)) for key, item in value.items())
        return _head(MAP, len(pairs)) + b"".join(key + item for key, item in pairs)
    raise TypeError(type(value))


def decode(data):
    """The one value that `data` is. What does not encode to itself is refused: longer forms, keys out of order or double."""
    value, rest = _value(data)
    if rest:
        raise Refused("bytes after the end")
    if encode(value) != data:
        raise Refused("not the deterministic form")
    return value


def _take(data, length):
    if length > len(data):
        raise Refused("cut short")
    return data[:length], data[length:]


def _value(data):
    first, data = _take(data, 1)
    major, argument = first[0] >> 5, first[0] & 31
    if argument > 27 or major == TAG or (major == SIMPLE and argument not in CONSTANTS):
        raise Refused("an indefinite length, a tag, a float or another simple value")
    if argument >= 24:
        encoded, data = _take(data, 1 << argument - 24)
        argument = int.from_bytes(encoded, "big")
    if major == UNSIGNED:
        return argument, data
    if major == NEGATIVE:
        return -1 - argument, data
    if major == BYTES:
        return _take(data, argument)
    if major == TEXT:
        encoded, data = _take(data, argument)
        try:
            return encoded.decode(), data
        except UnicodeDecodeError:
            raise Refused("not UTF-8") from None
    if major == SIMPLE:
        return CONSTANTS[argument], data
    items = []
    for _ in range(argument * (2 if major == MAP else 1)):
        item, data = _value(data)
        items.append(item)
    if major == ARRAY:
        return items, data
    if any(isinstance(key, (list, dict)) for key in items[::2]):
        raise Refused("a map or array as a key")
    return dict(zip(items[::2], items[1::2])), data
