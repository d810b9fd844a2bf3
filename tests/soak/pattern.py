"""Bytes that can be checked wherever they arrive: each stream has its own place in one block of random bytes, which repeats.

The block's length is odd, so that a frame, record or page that is lost, doubled or misplaced changes every byte after it; a byte of another
stream is a wrong one, because it begins elsewhere.
"""

import random

LENGTH = 1024 * 1024 - 3
_TWICE = random.Random(17).randbytes(LENGTH) * 2


def piece(key, position, length):
    """`length` bytes (at most a block) of the stream `key`, from `position` on."""
    start = (key + position) % LENGTH
    return _TWICE[start:start + length]


class Wrong(Exception):
    """Bytes arrived that nobody sent so, or an end in order came before the end: corruption."""


class Check:
    """What has come of a stream; raises `Wrong` at the first byte that is not the right one."""

    def __init__(self, key):
        self.key, self.got = key, 0

    def feed(self, data):
        at = 0
        while at < len(data):
            part = data[at:at + LENGTH]
            if part != piece(self.key, self.got, len(part)):
                expected = piece(self.key, self.got, len(part))
                first = next(i for i, (is_, was) in enumerate(zip(part, expected)) if is_ != was)
                raise Wrong(f"a wrong byte at {self.got + first}, {len(part)} bytes at {self.got}")
            self.got += len(part)
            at += len(part)
