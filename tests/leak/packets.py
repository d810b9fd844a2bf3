"""Reads captures: pcap files, without help of anything but Python.

`read` gives the packets of a file, dissected as far as the rules of `judge.py` need it: Ethernet, cooked and raw IP; IPv4, IPv6; TCP, UDP,
ICMP. `contents` makes of packets the pieces of bytes that `canary.py` searches: each direction of a TCP connection put together by
sequence number, the datagrams of a flow one behind the other, fragments joined, and all that is left as it came.
"""

import collections
import mmap
import socket
import struct
from dataclasses import dataclass

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6"}
ARP = 0x0806
SYN, RST, ACK = 2, 4, 16
ETHERNET, RAW_IP, COOKED, COOKED_2 = 1, (12, 14, 101, 228, 229), 113, 276
IPV6_EXTENSIONS = (0, 43, 60)
IPV6_FRAGMENT = 44


class Truncated(Exception):
    """The capture does not hold whole packets: nothing can be concluded from it."""


@dataclass(slots=True)
class Packet:
    """A packet; `source` and `destination` are addresses as text, empty where it is not IP."""

    when: float
    frame: memoryview
    ethertype: int
    source: str = ""
    destination: str = ""
    protocol: int = 0
    source_port: int = 0
    destination_port: int = 0
    sequence: int = 0
    flags: int = 0
    payload: memoryview = memoryview(b"")
    fragment: tuple | None = None
    """(what it is a fragment of, where it belongs)"""

    def flow(self):
        return (self.protocol, self.source, self.source_port, self.destination, self.destination_port)

    def words(self):
        """For people."""
        if not self.source:
            return f"ethertype {self.ethertype:#06x}"
        name = NAMES.get(self.protocol, f"protocol {self.protocol}")
        if self.protocol in (TCP, UDP):
            return f"{name} {self.source}:{self.source_port} > {self.destination}:{self.destination_port}"
        return f"{name} {self.source} > {self.destination}"


_texts = {}


def address(raw):
    raw = bytes(raw)
    if raw not in _texts:
        _texts[raw] = socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
    return _texts[raw]


def read(path, since=0.0, until=float("inf")):
    """The packets of a pcap file that were seen from `since` to `until`, in seconds since 1970."""
    with open(path, "rb") as file:
        file.seek(0, 2)
        if file.tell() < 24:
            return
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    order, fraction = {
        b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
        b"\xa1\xb2\xc3\xd4": (">", 1e-6),
        b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
        b"\xa1\xb2\x3c\x4d": (">", 1e-9),
    }.get(bytes(data[:4]), (None, None))
    if order is None:
        raise Truncated(f"{path}: not a pcap file")
    link = struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF
    record = struct.Struct(order + "IIII")
    offset = 24
    while offset + 16 <= len(data):
        seconds, parts, captured, original = record.unpack_from(data, offset)
        if offset + 16 + captured > len(data):
            return  # still being written
        when = seconds + parts * fraction
        if since <= when <= until:
            if captured != original:
                raise Truncated(f"{path}: a packet of {original} bytes was cut to {captured}")
            yield dissect(link, data[offset + 16 : offset + 16 + captured], when)
        offset += 16 + captured


def dissect(link, frame, when=0.0):
    """A frame as a packet. What is too short to be what it says stays a frame."""
    if link == ETHERNET and len(frame) >= 14:
        ethertype, at = struct.unpack_from(">H", frame, 12)[0], 14
        while ethertype in (0x8100, 0x88A8) and len(frame) >= at + 4:
            ethertype, at = struct.unpack_from(">H", frame, at + 2)[0], at + 4
    elif link == COOKED and len(frame) >= 16:
        ethertype, at = struct.unpack_from(">H", frame, 14)[0], 16
    elif link == COOKED_2 and len(frame) >= 20:
        ethertype, at = struct.unpack_from(">H", frame, 0)[0], 20
    elif link in RAW_IP and len(frame):
        ethertype, at = (0x0800 if frame[0] >> 4 == 4 else 0x86DD), 0
    else:
        ethertype, at = 0, 0
    packet = Packet(when, frame, ethertype)
    if ethertype == 0x0800 and len(frame) >= at + 20:
        _ipv4(packet, frame[at:])
    elif ethertype == 0x86DD and len(frame) >= at + 40:
        _ipv6(packet, frame[at:])
    return packet


def _ipv4(packet, ip):
    header, length = (ip[0] & 15) * 4, struct.unpack_from(">H", ip, 2)[0]
    # With segmentation offload a length can be zero.
    ip = ip[: length or len(ip)]
    packet.source, packet.destination, packet.protocol = address(ip[12:16]), address(ip[16:20]), ip[9]
    identifier, fragment = struct.unpack_from(">HH", ip, 4)
    packet.payload = ip[header:]
    if fragment & 0x3FFF:
        packet.fragment = ((packet.source, packet.destination, packet.protocol, identifier), (fragment & 0x1FFF) * 8)
    if not fragment & 0x1FFF:
        _transport(packet, ip[header:])


def _ipv6(packet, ip):
    length, following = struct.unpack_from(">HB", ip, 4)
    packet.source, packet.destination = address(ip[8:24]), address(ip[24:40])
    rest = ip[40 : 40 + length if length else len(ip)]
    while following in IPV6_EXTENSIONS and len(rest) >= 8:
        following, rest = rest[0], rest[8 + rest[1] * 8 :]
    packet.protocol, packet.payload = following, rest
    if following == IPV6_FRAGMENT and len(rest) >= 8:
        offset, identifier = struct.unpack_from(">HI", rest, 2)
        packet.protocol, packet.payload = rest[0], rest[8:]
        packet.fragment = ((packet.source, packet.destination, packet.protocol, identifier), offset & 0xFFF8)
        if offset & 0xFFF8:
            return
    _transport(packet, packet.payload)


def _transport(packet, data):
    if packet.protocol == TCP and len(data) >= 20:
        packet.source_port, packet.destination_port, packet.sequence = struct.unpack_from(">HHI", data)
        packet.flags, packet.payload = data[13], data[(data[12] >> 4) * 4 :]
    elif packet.protocol == UDP and len(data) >= 8:
        packet.source_port, packet.destination_port = struct.unpack_from(">HH", data)
        packet.payload = data[8:]


class Stream:
    """One direction of a TCP connection. Where the capture begins in the middle, the first packet that it has is the beginning."""

    def __init__(self, sequence):
        self.start = sequence
        self.parts = []
        self.began = False

    def add(self, packet):
        if packet.flags & SYN:
            self.start, self.began = (packet.sequence + 1) % 2**32, True
        if len(packet.payload):
            self.parts.append(packet)

    def belongs(self, packet):
        """A SYN with another number is another connection by the same ports."""
        return not packet.flags & SYN or not self.began or self.start == (packet.sequence + 1) % 2**32

    def assemble(self):
        """The bytes; how many are missing between them; the packets that do not say what was put together."""
        place = lambda packet: (packet.sequence - self.start + 2**31) % 2**32 - 2**31
        out, missing, others, base = bytearray(), 0, [], None
        for packet in sorted(self.parts, key=lambda packet: (place(packet), -len(packet.payload))):
            at = place(packet)
            if base is None:
                base = min(at, 0)
            at -= base + missing
            if at > len(out):
                missing, at = missing + at - len(out), len(out)
            known = out[at : at + len(packet.payload)]
            if known != packet.payload[: len(known)]:
                others.append(packet)
            out += packet.payload[len(known) :]
        return bytes(out), missing, others


@dataclass(slots=True)
class Piece:
    """Bytes to be searched, and a packet that says whose they are."""

    packet: Packet
    data: bytes
    kind: str


def query_name(payload):
    """The first name of a DNS message without its dots, empty if it is none: what is spread over labels comes together."""
    at, labels = 12, []
    while at < len(payload) and 0 < payload[at] < 64 and len(labels) < 128:
        labels.append(bytes(payload[at + 1 : at + 1 + payload[at]]))
        at += 1 + payload[at]
    return b"".join(labels) if labels and at < len(payload) and payload[at] == 0 else b""


def contents(packets):
    """The pieces that these packets have; of TCP segments that are part of a stream the headers alone stay as they are."""
    streams = collections.defaultdict(list)
    datagrams = collections.defaultdict(list)
    fragments = collections.defaultdict(list)
    for packet in packets:
        if packet.fragment:
            fragments[packet.fragment[0]].append(packet)
            yield Piece(packet, bytes(packet.frame), "packet")
        elif packet.protocol == TCP:
            of_flow = streams[packet.flow()]
            if not of_flow or not of_flow[-1].belongs(packet):
                of_flow.append(Stream(packet.sequence))
            of_flow[-1].add(packet)
            yield Piece(packet, bytes(packet.frame[: len(packet.frame) - len(packet.payload)]), "headers")
        else:
            if packet.source:
                datagrams[packet.flow()].append(packet)
            yield Piece(packet, bytes(packet.frame), "packet")
            name = query_name(packet.payload) if packet.protocol == UDP else b""
            if name:
                yield Piece(packet, name, "name")
    for parts in fragments.values():
        parts.sort(key=lambda packet: packet.fragment[1])
        yield Piece(parts[0], b"".join(packet.payload for packet in parts), "fragments")
    for parts in datagrams.values():
        if len(parts) > 1:
            yield Piece(parts[0], b"".join(packet.payload for packet in parts), "flow")
    for of_flow in streams.values():
        for stream in of_flow:
            if not stream.parts:
                continue
            data, _missing, others = stream.assemble()
            yield Piece(stream.parts[0], data, "stream")
            for packet in others:
                yield Piece(packet, bytes(packet.payload), "retransmission")

