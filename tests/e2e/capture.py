"""Looks into a capture: capture.py CHECK FILE NODE-PREFIX SERVER-PORT WORD...

CHECK is `control` (the words are found on the server's connections: the capture could show them), `plaintext` (none is found on the
lanes: connections with an address that begins with NODE-PREFIX), or `records` (TLS records of the lanes have the one size that they
may have). TCP streams are put together by sequence number, each direction by itself.
"""

import collections
import mmap
import struct
import sys

HANDSHAKE_RECORDS = 8
"""So many encrypted records at most belong to one side's handshake: certificate request, certificate, verify, finished."""
ALERT = 2 + 17
"""A TLS 1.3 alert: level and description, its true type, the tag."""


def packets(path):
    with open(path, "rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    magic, = struct.unpack_from("<I", data)
    assert magic in (0xA1B2C3D4, 0xA1B23C4D), "not a little-endian pcap"
    assert struct.unpack_from("<I", data, 20)[0] == 1, "not Ethernet"
    offset = 24
    while offset + 16 <= len(data):
        _, _, captured, original = struct.unpack_from("<IIII", data, offset)
        assert captured == original, "a packet was cut"
        yield data[offset + 16 : offset + 16 + captured]
        offset += 16 + captured


def segments(path):
    """(source, destination), first sequence number, whether it is a SYN, payload."""
    for packet in packets(path):
        if packet[12:14] != b"\x08\x00":
            continue
        ip = packet[14:]
        header = (ip[0] & 15) * 4
        length, = struct.unpack_from(">H", ip, 2)
        # With segmentation offload a packet of lo can have a length of zero.
        ip = ip[: length or len(ip)]
        tcp = ip[header:]
        source_port, destination_port, sequence = struct.unpack_from(">HHI", tcp)
        address = lambda at: ".".join(map(str, ip[at : at + 4]))
        key = ((address(12), source_port), (address(16), destination_port))
        yield key, sequence, bool(tcp[13] & 2), tcp[(tcp[12] >> 4) * 4 :]


class Stream:
    """One direction of one connection."""

    def __init__(self):
        self.start = None
        self.parts = []

    def add(self, sequence, is_syn, payload):
        if is_syn:
            self.start = sequence + 1
        if len(payload):
            self.parts.append((sequence, payload))

    def bytes(self):
        assert self.start is not None, "the capture began after the connection"
        # Sequence numbers wrap around: those of one stream of less than 4 GiB are ordered by their distance from the start.
        ordered = sorted(((sequence - self.start) % 2**32, len(payload), payload) for sequence, payload in self.parts)
        out = bytearray()
        for at, length, payload in ordered:
            assert at <= len(out), f"{at - len(out)} bytes are missing at {len(out)}"
            out += payload[len(out) - at :] if at + length > len(out) else b""
        return bytes(out)


def streams(path, is_chosen):
    """The chosen streams, one after the other: all of them together may not fit into memory."""
    found = collections.defaultdict(list)
    for key, sequence, is_syn, payload in segments(path):
        if not is_chosen(key):
            continue
        # A port that is used again begins another stream.
        if not found[key] or (is_syn and found[key][-1].parts):
            found[key].append(Stream())
        found[key][-1].add(sequence, is_syn, payload)
    for key, of_key in found.items():
        for stream in of_key:
            yield key, stream.bytes()


def check_records(key, data):
    """The number of application records after the handshake."""
    lengths, at = [], 0
    while at + 5 <= len(data):
        kind, major, length = data[at], data[at + 1], struct.unpack_from(">H", data, at + 3)[0]
        assert kind in (20, 21, 22, 23) and major == 3 and length <= 2**14 + 256, f"{key}: no TLS record at {at}"
        if kind == 23 and at + 5 + length <= len(data):
            lengths.append(length)
        at += 5 + length
    fits = [length > 17 and (length - 17) % 2048 == 0 for length in lengths]
    if True not in fits:
        assert len(lengths) <= HANDSHAKE_RECORDS, f"{key}: no frame in {len(lengths)} records"
        return 0
    first = fits.index(True)
    assert first <= HANDSHAKE_RECORDS, f"{key}: {first} records before the first frame"
    wrong = [length for length, fit in zip(lengths[first:], fits[first:]) if not fit and length != ALERT]
    assert not wrong, f"{key}: {len(wrong)} of {len(lengths)} records have other lengths: {wrong[:10]}"
    return len(lengths) - first


def main():
    check, path, prefix, port, *words = sys.argv[1:]
    of_server = lambda key: any(end[1] == int(port) for end in key)
    of_lane = lambda key: any(end[0].startswith(prefix) for end in key) and not of_server(key)
    count = total = records = 0
    found = set()
    for key, data in streams(path, of_server if check == "control" else of_lane):
        count, total = count + 1, total + len(data)
        if check == "records":
            records += check_records(key, data)
        else:
            found |= {word for word in words if word.encode() in data}
    print(f"{count} streams, {total} bytes, {records} records, found {sorted(found)}")
    if check == "control":
        assert words[0] in found and "GET /" in found
        return
    # Three lanes carried the demo's download.
    assert total > 300_000_000, "too little to be lanes under load"
    assert not found
    if check == "records":
        assert records > 18_000, "too few to be lanes under load"


main()
