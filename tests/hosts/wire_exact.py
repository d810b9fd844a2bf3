"""Compares what a stopped wire counted with both kernels and its pcap file: wire_exact.py PREFIX, with PREFIX.json, .left, .right, .pcap."""

import json
import struct
import sys

prefix = sys.argv[1]


def load(ending):
    with open(prefix + ending, encoding="utf-8") as file:
        return json.load(file)


def in_pcap():
    """(frames, bytes) of the file."""
    with open(prefix + ".pcap", "rb") as file:
        data = file.read()
    frames, length, at = 0, 0, 24
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at + 8)
        frames, length, at = frames + 1, length + size, at + 16 + size
    assert at == len(data), "the file ends within a frame"
    return frames, length


counts = load(".json")
kernel = {"left": load(".left")[0]["stats64"], "right": load(".right")[0]["stats64"]}
arrived = [0, 0]
for side, other in (("left", "right"), ("right", "left")):
    way = counts[side]
    pair = lambda name: (way[name]["frames"], way[name]["bytes"])
    sent = kernel[side]["tx"]
    assert pair("taken") == (sent["packets"], sent["bytes"]), (side, "sent", way, sent)
    out = [a + b for a, b in zip(pair("delivered"), pair("copies_delivered"))]
    received = kernel[other]["rx"]
    assert out == [received["packets"], received["bytes"]], (other, "received", way, received)
    assert way["queued"]["frames"] == 0
    # In = out + lost, and copies apart.
    assert pair("taken") == tuple(a + b for a, b in zip(pair("delivered"), pair("lost")))
    arrived = [a + b for a, b in zip(arrived, out)]
    print(f"{side}: {way['taken']['frames']} frames of {way['taken']['bytes']} bytes in, {way['lost']['frames']} lost, {way['copied']['frames']} copied")
assert tuple(arrived) == in_pcap(), (arrived, in_pcap())
