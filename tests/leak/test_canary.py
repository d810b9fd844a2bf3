"""The scanner finds what it must: each encoding is planted in a made capture and found; a made capture without is clean."""

import base64
import codecs
import gzip
import os
import quopri
import random
import struct
import tempfile
import unittest
import urllib.parse
import zlib

import canary
import packets

WORD = "kq7zmarlin4w8vexp"
NAME = "a1." + WORD + ".canary.test"
CLIENT, GUARD = "10.0.0.2", "192.0.2.1"
CLIENT_6, GUARD_6 = "fd00::2", "2001:db8::1"


def ip4(protocol, body, identifier=1, fragment=0, source=CLIENT, destination=GUARD):
    raw = lambda text: bytes(map(int, text.split(".")))
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), identifier, fragment, 64, protocol, 0) + raw(source) + raw(destination) + body


def ip6(following, body):
    raw = lambda text: packets.socket.inet_pton(packets.socket.AF_INET6, text)
    return struct.pack(">IHBB", 6 << 28, len(body), following, 64) + raw(CLIENT_6) + raw(GUARD_6) + body


def ethernet(ip):
    return b"\2" * 6 + b"\4" * 6 + (b"\x08\x00" if ip[0] >> 4 == 4 else b"\x86\xdd") + ip


def tcp(sequence, payload=b"", flags=packets.ACK, options=b"", ports=(40000, 1717)):
    return struct.pack(">HHIIBBHHH", *ports, sequence % 2**32, 0, (5 + len(options) // 4) << 4, flags, 1000, 0, 0) + options + payload


def udp(payload, ports=(40000, 53)):
    return struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload


def stream(data, segment=7, start=2**32 - 20):
    """A connection's frames; its sequence numbers wrap around."""
    yield ethernet(ip4(packets.TCP, tcp(start, flags=packets.SYN)))
    for at in range(0, len(data), segment):
        yield ethernet(ip4(packets.TCP, tcp(start + 1 + at, data[at : at + segment])))


def pcap(frames, link=packets.ETHERNET, order="<"):
    out = struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link)
    for number, frame in enumerate(frames):
        out += struct.pack(order + "IIII", 1000 + number, 500000, len(frame), len(frame)) + frame
    return out


def found(frames, word=WORD, **form):
    with tempfile.NamedTemporaryFile() as file:
        file.write(pcap(frames, **form))
        file.flush()
        return list(canary.scan_packets(canary.Scanner([word]), packets.read(file.name)))


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def in_labels(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def numbers(form, between):
    return between.join(form % byte for byte in WORD.encode()).encode()


def bare(data):
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    return engine.compress(data) + engine.flush()


TEXT = f"GET /{WORD}?x=1 HTTP/1.1\r\nHost: {NAME}\r\n\r\n" * 2
ENCODINGS = {
    "plain": WORD.encode(),
    "upper case": WORD.upper().encode(),
    "mixed case": "".join(c.upper() if i % 2 else c for i, c in enumerate(WORD)).encode(),
    "utf-16-le": WORD.encode("utf-16-le"),
    "utf-16-be": WORD.encode("utf-16-be"),
    "utf-32-le": WORD.encode("utf-32-le"),
    "hexadecimal": WORD.encode().hex().encode(),
    "hexadecimal, upper case": WORD.encode().hex().upper().encode(),
    "hexadecimal of upper case": WORD.upper().encode().hex().encode(),
    "hexadecimal with colons": WORD.encode().hex(":").encode(),
    "hexadecimal as in C": numbers("0x%02x", ", "),
    "hexadecimal with escapes": numbers("\\x%02X", ""),
    "JSON escapes": numbers("\\u00%02x", ""),
    "decimal as Rust prints bytes": numbers("%d", ", "),
    "HTML entities": numbers("&#%d;", ""),
    "HTML entities, hexadecimal": numbers("&#x%x;", ""),
    "percent, all": numbers("%%%02X", ""),
    "percent, some": WORD.replace("q", "%71").replace("m", "%6D").encode(),
    "percent, twice": WORD.replace("q", "%2571").encode(),
    "percent, UTF-16": "".join(f"%{ord(c):02x}%00" for c in WORD).encode(),
    "quoted-printable": "".join(f"={ord(c):02X}" for c in WORD).encode(),
    "quoted-printable, wrapped": quopri.encodestring(b"x" * 70 + WORD.encode()),
    "reversed": WORD[::-1].encode(),
    "rot13": codecs.encode(WORD, "rot13").encode(),
    "xor": bytes(byte ^ 0xA5 for byte in WORD.encode()),
    "inverted": bytes(byte ^ 0xFF for byte in WORD.encode()),
    "base64, wrapped": base64.encodebytes(b"x" * 50 + WORD.encode() + b"y" * 30),
    "base64 of UTF-16": base64.b64encode(WORD.encode("utf-16-le")),
    "base64 of upper case": base64.b64encode(WORD.upper().encode()),
    "base32, lower case": base64.b32encode(WORD.encode()).lower(),
    "base32hex": base64.b32hexencode(WORD.encode()),
    "gzip": gzip.compress(TEXT.encode()),
    "zlib": zlib.compress(TEXT.encode()),
    "zlib, fast": zlib.compress(TEXT.encode(), 1),
    "zlib, cut": zlib.compress(TEXT.encode() + noise(500))[:-300],
    "zlib in base64 in gzip": gzip.compress(base64.b64encode(TEXT.encode())),
    "gzip in gzip": gzip.compress(gzip.compress(TEXT.encode() + noise(99))),
} | {
    f"base64 behind {before} bytes": base64.b64encode(noise(before) + WORD.encode() + b"z") for before in range(3)
} | {
    f"base64 for URLs behind {before} bytes": base64.urlsafe_b64encode(noise(before) + WORD.encode() + b"z") for before in range(3)
} | {
    f"base32 behind {before} bytes": base64.b32encode(noise(before) + WORD.encode() + b"z") for before in range(5)
}


class Encodings(unittest.TestCase):
    def each(self, frames_of):
        for name, encoded in ENCODINGS.items():
            with self.subTest(name):
                self.assertTrue(found(frames_of(encoded)), name)

    def test_in_a_stream_over_the_borders_of_segments(self):
        self.each(lambda encoded: stream(noise(333) + b" " + encoded + b" " + noise(222)))

    def test_in_one_datagram(self):
        self.each(lambda encoded: [ethernet(ip4(packets.UDP, udp(b"x" + encoded)))])

    def test_in_one_datagram_of_ipv6(self):
        self.each(lambda encoded: [ethernet(ip6(packets.UDP, udp(encoded)))])

    def test_in_an_echo_request(self):
        self.each(lambda encoded: [ethernet(ip4(packets.ICMP, b"\x08\0\0\0\0\1\0\1" + encoded))])

    def test_in_a_file(self):
        for name, encoded in ENCODINGS.items():
            self.assertTrue(canary.Scanner([WORD]).scan(noise(100) + encoded + noise(100)), name)

    def test_both_alphabets_of_base64(self):
        word = "kq7~>?marlin~>?w8v"
        for before in range(3):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                self.assertTrue(found(stream(encode(noise(before) + word.encode() + b"z")), word=word))

    def test_bare_deflate_where_a_datagram_begins(self):
        self.assertTrue(found([ethernet(ip4(packets.UDP, udp(bare(TEXT.encode()))))]))

    def test_bare_deflate_where_a_stream_begins(self):
        self.assertTrue(found(stream(bare(TEXT.encode()))))


class Places(unittest.TestCase):
    def test_names_in_dns(self):
        query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + in_labels(NAME) + b"\0\1\0\1"
        for payload in (query, query.swapcase()):
            self.assertTrue(found([ethernet(ip4(packets.UDP, udp(payload)))], word=NAME))
            self.assertTrue(found([ethernet(ip6(packets.UDP, udp(payload)))], word=NAME))

    def test_a_word_spread_over_labels(self):
        spread = ".".join(WORD[at : at + 5] for at in range(0, len(WORD), 5)) + ".test"
        query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + in_labels(spread) + b"\0\1\0\1"
        self.assertTrue(found([ethernet(ip4(packets.UDP, udp(query)))]))

    def test_a_word_spread_over_datagrams(self):
        parts = [WORD[at : at + 4].encode() for at in range(0, len(WORD), 4)]
        self.assertTrue(found([ethernet(ip4(packets.UDP, udp(part))) for part in parts]))

    def test_fragments(self):
        datagram = udp(noise(12) + WORD.encode() + noise(40))
        frames = [ethernet(ip4(packets.UDP, datagram[at : at + 24], 77, at // 8 | 0x2000)) for at in range(0, len(datagram), 24)]
        self.assertTrue(found(frames))
        self.assertTrue(found(reversed(frames)), "the order does not matter")

    def test_segments_out_of_order_and_twice(self):
        frames = list(stream(noise(100) + WORD.encode() + noise(100)))
        random.Random(3).shuffle(frames)
        self.assertTrue(found(frames + frames[:20]))

    def test_a_stream_that_began_before_the_capture(self):
        frames = list(stream(noise(100) + WORD.encode() + noise(100)))
        self.assertTrue(found(frames[5:]))

    def test_a_retransmission_that_says_something_else(self):
        frames = [*stream(noise(100), 50), ethernet(ip4(packets.TCP, tcp(2**32 - 19 + 10, WORD.encode())))]
        self.assertTrue(found(frames))

    def test_a_port_used_again(self):
        frames = [*stream(noise(100)), *stream(noise(50) + WORD.encode(), start=5000)]
        self.assertTrue(found(frames))

    def test_options_and_unknown_protocols(self):
        self.assertTrue(found([ethernet(ip4(packets.TCP, tcp(1, options=(WORD + "...").encode(), flags=packets.SYN)))]))
        self.assertTrue(found([ethernet(ip4(253, WORD.encode()))]))
        self.assertTrue(found([b"\xff" * 12 + b"\x88\xb5" + WORD.encode()]), "not even IP")
        self.assertTrue(found([ethernet(b"\x45" + WORD.encode())]), "hardly IP")

    def test_other_kinds_of_captures(self):
        packet = ip4(packets.UDP, udp(WORD.encode()))
        self.assertTrue(found([packet], link=101))
        self.assertTrue(found([b"\0" * 14 + b"\x08\0" + packet], link=packets.COOKED))
        self.assertTrue(found([b"\x08\0" + b"\0" * 18 + packet], link=packets.COOKED_2))
        self.assertTrue(found([ethernet(packet)], order=">"))

    def test_whose_it_is_is_said(self):
        (only, *_) = found([*stream(noise(500)), *stream(b"x" + WORD.encode(), start=9)])
        self.assertIn("tcp 10.0.0.2:40000 > 192.0.2.1:1717", str(only))

    def test_a_packet_that_was_cut_is_an_error(self):
        with tempfile.NamedTemporaryFile() as file:
            cut = pcap([]) + struct.pack("<IIII", 1, 0, 20, 60) + bytes(20)
            file.write(cut)
            file.flush()
            with self.assertRaises(packets.Truncated):
                list(packets.read(file.name))

    def test_packets_are_chosen_by_time(self):
        frames = [ethernet(ip4(packets.UDP, udp(bytes([number])))) for number in range(5)]
        with tempfile.NamedTemporaryFile() as file:
            file.write(pcap(frames))
            file.flush()
            self.assertEqual([packet.payload[0] for packet in packets.read(file.name, 1001, 1003)], [1, 2])


class Clean(unittest.TestCase):
    def test_a_capture_without_the_word_is_clean(self):
        other = WORD[::-1][3:] + WORD[:-4]
        plain = b"GET /index.html HTTP/1.1\r\nHost: example.test\r\n\r\n" + gzip.compress(b"nothing " * 99) + other.encode()
        frames = [
            *stream(noise(300_000), 1448),
            *stream(plain + base64.b64encode(plain) + plain.hex().encode() + urllib.parse.quote(plain).encode(), start=9),
            *(ethernet(ip4(packets.UDP, udp(noise(200, seed)))) for seed in range(50)),
            *(ethernet(ip6(packets.ICMPV6, noise(50, seed))) for seed in range(50)),
            *(noise(seed, seed) for seed in range(80)),
        ]
        self.assertEqual(list(map(str, found(frames))), [])
        self.assertEqual(list(map(str, found(frames, word=NAME))), [])

    def test_noise_is_clean(self):
        self.assertEqual(canary.Scanner([WORD, "203.0.113.77"]).scan(os.urandom(4_000_000)), [])

    def test_an_empty_file_is_clean(self):
        self.assertEqual(canary.Scanner([WORD]).scan(b""), [])
        self.assertEqual(found([]), [])


if __name__ == "__main__":
    unittest.main()
