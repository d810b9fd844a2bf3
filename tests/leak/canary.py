"""Finds canaries in captures and other files, in whatever usual encoding they stand there.

    canary.py WORD[,WORD...] FILE...

prints where each word is found and ends with 1 if any is. A word is what a test hides in names, URLs and bodies; it should have at least 8
characters, so that none of its encodings comes about by chance. It is looked for

- as it is, in any case; with the dots of a name as DNS writes them; in UTF-16 and UTF-32; backwards; by ROT13; with every byte changed by
  one and the same XOR;
- percent-encoded and quoted-printable, in whole or in part, also twice;
- as hexadecimal or decimal numbers, whatever stands between them (`6b:61`, `0x6b, 0x61`, `&#107;&#97;`, `\\u006b`);
- in base64 and base32, each of the usual alphabets, wherever in a group it begins, also with line ends inside; UTF-16 in base64;
- inside of all this where a gzip or zlib header begins, and where a datagram or a stream could be bare DEFLATE.
"""

import base64
import bisect
import codecs
import re
import sys
import zlib
from dataclasses import dataclass

import packets

INFLATED_BYTES = 256 * 1024
"""So much of what is inflated is searched."""
NESTED = 2
"""So often something inflated may hold something to be inflated."""
GAP = b"\n\0\xff" * 16
"""Between two pieces; longer than what may stand between two numbers of a word."""

_ZLIB_HEADERS = {bytes((method, flags)) for method in range(0x08, 0x79, 0x10) for flags in range(256)
                 if (method * 256 + flags) % 31 == 0 and not flags & 0x20}
_COMPRESSED = re.compile(b"\x1f\x8b\x08|" + b"|".join(map(re.escape, sorted(_ZLIB_HEADERS))), re.DOTALL)
_BLANKS = b" \t\r\n"


@dataclass(frozen=True)
class Hit:
    """A word was found."""

    word: str
    encoding: str
    at: int
    """Where: in the data, or in what it was decoded to."""
    around: bytes


def _spellings(word):
    return dict.fromkeys(text.encode() for text in (word, word.lower(), word.upper()))


def _aligned(encode, group_in, group_out, word):
    """What surely stands in an encoding of anything that has the word in it, for each place in a group where it can begin."""
    for before in range(group_in):
        encoded = encode(b"\0" * before + word)
        first = -(-before * group_out // group_in)
        yield encoded[first : (before + len(word)) * group_out // group_in]


def _differences(data):
    """Each byte XOR the next one: the same whatever constant the data were changed by."""
    if len(data) < 2:
        return b""
    number = int.from_bytes(data, "big")
    return (number ^ (number >> 8)).to_bytes(len(data), "big")[1:]


class Word:
    """A word in all its encodings: what to look for in which view of the data."""

    def __init__(self, word):
        self.word = word
        lower = word.lower().encode()
        self.needles = {"lower": {}, "exact": {}, "differences": {}}
        self.patterns = {}
        self._add("lower", "plain", lower)
        if "." in word:
            # The length in front of the first label is behind whatever comes before it.
            labels = lower.split(b".")
            self._add("lower", "DNS labels", labels[0] + b"".join(bytes([len(label)]) + label for label in labels[1:]))
        for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
            self._add("lower", encoding, word.lower().encode(encoding))
        self._add("lower", "reversed", lower[::-1])
        self._add("lower", "rot13", codecs.encode(word.lower(), "rot13").encode())
        for spelling in _spellings(word):
            self._add("differences", "xor", _differences(spelling))
            for form, name in ((spelling, "base64"), (spelling.decode().encode("utf-16-le"), "base64 of UTF-16")):
                for encoded in _aligned(base64.b64encode, 3, 4, form):
                    self._add("exact", name, encoded)
                    self._add("exact", name + ", URL alphabet", encoded.translate(bytes.maketrans(b"+/", b"-_")))
            for encoded in _aligned(base64.b32encode, 5, 8, spelling):
                self._add("lower", "base32", encoded.lower())
            for encoded in _aligned(base64.b32hexencode, 5, 8, spelling):
                self._add("lower", "base32hex", encoded.lower())
            self._number("hexadecimal", "%02x", spelling)
            self._number("decimal", "%d", spelling)
        # Each byte by itself may be escaped, once or again and again; lines may be broken as quoted-printable does; UTF-16 may be inside.
        each = [b"(?:%s|%%(?:25)*%02x|=%02x)" % (re.escape(bytes([byte])), byte, byte) for byte in lower]
        self.patterns[re.compile(b"(?:=\r?\n|%(?:25)*00)?".join(each), re.DOTALL)] = "escaped"

    def _add(self, view, encoding, needle):
        self.needles[view].setdefault(needle, encoding)

    def _number(self, encoding, form, spelling):
        numbers = [form.encode() % byte for byte in spelling]
        # At most what `\u00` or `&#x` with a semicolon takes.
        between = b".{0,5}?" if form == "%02x" else b"[^0-9]{1,5}"
        self.patterns[re.compile(between.join(numbers), re.DOTALL)] = encoding


class Scanner:
    """Looks for words in bytes."""

    def __init__(self, words):
        self.words = [Word(word) for word in words]

    def scan(self, data, most=64):
        """The hits in `data`, at most so many of each word and encoding."""
        return list(self._scan(data, most, NESTED, ""))

    def _scan(self, data, most, nested, prefix):
        seen = set()
        for hit in self._views(data, most, prefix):
            # What is found twice is named by what is simplest.
            if (hit.word, hit.at) not in seen:
                seen.add((hit.word, hit.at))
                yield hit
        if nested:
            for at, inflated in compressed(data):
                for hit in self._scan(inflated, most, nested - 1, prefix + "compressed, "):
                    yield Hit(hit.word, hit.encoding, at, hit.around)

    def _views(self, data, most, prefix):
        lower = data.lower()
        yield from self._find(data, lower, "lower", most, prefix)
        yield from self._find(data, data, "exact", most, prefix)
        yield from self._match(data, lower, most, prefix)
        yield from self._find(data, _differences(data), "differences", most, prefix)
        packed = data.translate(None, _BLANKS)
        if len(packed) < len(data):
            yield from self._elsewhere(data, packed, "exact", most, prefix + "wrapped, ")
            yield from self._elsewhere(data, packed.lower(), "lower", most, prefix + "wrapped, ")

    def _find(self, data, view, kind, most, prefix):
        for word in self.words:
            for needle, encoding in word.needles[kind].items():
                at, left = view.find(needle), most
                while at >= 0 and left:
                    yield Hit(word.word, prefix + encoding, at, data[max(at - 24, 0) : at + len(needle) + 24])
                    at, left = view.find(needle, at + 1), left - 1

    def _elsewhere(self, data, view, kind, most, prefix):
        """In a view whose places are not those of the data: what shows there and not in the data as they are."""
        for word in self.words:
            for needle, encoding in word.needles[kind].items():
                at = view.find(needle)
                if at >= 0 and view.count(needle) > (data if kind == "exact" else data.lower()).count(needle):
                    yield Hit(word.word, prefix + encoding, -1, view[max(at - 24, 0) : at + len(needle) + 24])

    def _match(self, data, lower, most, prefix):
        for word in self.words:
            for pattern, encoding in word.patterns.items():
                for _, match in zip(range(most), pattern.finditer(lower)):
                    yield Hit(word.word, prefix + encoding, match.start(), data[max(match.start() - 24, 0) : match.end() + 24])


def inflate(data, window):
    """What can be inflated, as far as it can."""
    engine = zlib.decompressobj(window)
    out = bytearray()
    try:
        # Little by little: what comes before an error counts.
        for at in range(0, len(data), 64):
            out += engine.decompress(data[at : at + 64], INFLATED_BYTES - len(out))
            if engine.eof or len(out) >= INFLATED_BYTES:
                break
    except zlib.error:
        pass
    return bytes(out)


def compressed(data):
    """All that begins like gzip or zlib and gives something: where, and what. Bare DEFLATE is tried at the beginning."""
    shortest = 8
    bare = inflate(data[: 1 << 16], -15)
    if len(bare) >= shortest:
        yield 0, bare
    for match in _COMPRESSED.finditer(data):
        at = match.start()
        inflated = inflate(data[at : at + (1 << 18)], 31 if data[at] == 0x1F else 15)
        if len(inflated) >= shortest:
            yield at, inflated


class Found:
    """A hit in a capture: a word, how it stands there, and whose bytes they are."""

    def __init__(self, hit, piece):
        self.hit, self.piece = hit, piece

    def __str__(self):
        packet = self.piece.packet
        return f"{self.hit.word} ({self.hit.encoding}) in {packet.words()}, {self.piece.kind}: {self.hit.around!r}"


def scan_packets(scanner, chosen):
    """Looks for the words in all that these packets hold."""
    pieces = list(packets.contents(chosen))
    starts, data = [], bytearray()
    for piece in pieces:
        starts.append(len(data))
        data += piece.data + GAP
    data = bytes(data)
    for hit in scanner.scan(data):
        if hit.at >= 0:
            yield Found(hit, pieces[bisect.bisect(starts, hit.at) - 1])
        else:
            # Found where places are lost: each piece by itself says whose it is.
            for piece in pieces:
                for again in scanner.scan(piece.data):
                    if again.encoding == hit.encoding:
                        yield Found(again, piece)
    # Bare DEFLATE has no header to go by.
    for piece in pieces:
        if piece.kind not in ("stream", "packet", "flow"):
            continue
        payload = piece.data if piece.kind != "packet" else bytes(piece.packet.payload)
        bare = inflate(payload[: 1 << 16], -15)
        if len(bare) >= 8:
            for hit in scanner.scan(bare):
                yield Found(Hit(hit.word, "bare DEFLATE, " + hit.encoding, 0, hit.around), piece)


def main(words, *paths):
    scanner, found = Scanner(words.split(",")), 0
    for path in paths:
        with open(path, "rb") as file:
            is_capture = file.read(4) in (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d")
        if is_capture:
            lines = list(map(str, scan_packets(scanner, packets.read(path))))
        else:
            with open(path, "rb") as file:
                lines = [f"{hit.word} ({hit.encoding}): {hit.around!r}" for hit in scanner.scan(file.read())]
        found += len(lines)
        for line in lines:
            print(f"{path}: {line}")
    print(f"{found} found in {len(paths)} files")
    return found > 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
