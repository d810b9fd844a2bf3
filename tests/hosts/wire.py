"""A wire between two network namespaces: two TAP devices, and between them delay, jitter, loss, duplication, reorder and rate.

    wire.py run --left NAMESPACE:DEVICE --right NAMESPACE:DEVICE --control SOCKET [--seed N] [--pcap FILE] [NAME=VALUE ...]
    wire.py ask SOCKET WORDS...

It makes both devices, which end with it. NAME=VALUE is one of the settings of `Settings`, for both ways; `left.NAME=VALUE` is for what comes
from the left alone. One line to the control socket is answered by one line of JSON:

    set [left.|right.]NAME=VALUE ...   from the next frame on
    counts                             what has happened so far
    stop                               read nothing more, deliver what is queued, then answer with the counts; the devices stay
    end                                end

Each way has its own seeded randomness: the same frames at the same times meet the same fate. A frame that was read is exactly one of
delivered, lost or queued; copies are counted apart. `pcap` gets what was delivered, copies included.
"""

import argparse
import ctypes
import dataclasses
import fcntl
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
CLONE_NEWNET = 0x40000000
# Longer than any frame of a device without offloads.
FRAME_BYTES = 65536
# Frames that are read from one device before the other gets its turn.
FRAMES_AT_ONCE = 64


@dataclasses.dataclass
class Settings:
    """What happens to the frames of one way."""

    delay_ms: float = 0.0
    # Each frame waits up to so much longer or shorter; the order stays.
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    # A second copy directly behind the first.
    duplicate_percent: float = 0.0
    # A frame is held back by `reorder_ms`: those behind it overtake it.
    reorder_percent: float = 0.0
    reorder_ms: float = 5.0
    # 0: as fast as it goes. A frame that would wait longer than `queue_ms` for its turn is lost.
    rate_kbit: float = 0.0
    queue_ms: float = 200.0
    # 1: everything is lost, as on a cable that was pulled out. What is under way arrives.
    cut: float = 0.0

    def set(self, name, value):
        if name not in {field.name for field in dataclasses.fields(self)}:
            raise ValueError(f"{name}: no setting")
        value = float(value)
        limit = 100.0 if name.endswith("_percent") else 1.0 if name == "cut" else 1e9
        if not 0.0 <= value <= limit:
            raise ValueError(f"{name}: 0 to {limit:g}")
        setattr(self, name, value)


@dataclasses.dataclass
class Count:
    """Frames and their bytes."""

    frames: int = 0
    bytes: int = 0

    def add(self, frame):
        self.frames += 1
        self.bytes += len(frame)


class Way:
    """One direction: what is taken at one time comes out at another, or never. It has neither clock nor device."""

    # Why a frame is lost: drawn, cut, no place in the queue, not taken by the device it should go to.
    REASONS = ("drawn", "cut", "full", "refused")

    def __init__(self, seed):
        self.settings = Settings()
        self.taken, self.delivered = Count(), Count()
        self.copied, self.copies_delivered, self.copies_refused = Count(), Count(), Count()
        self.lost = {reason: Count() for reason in self.REASONS}
        self._random = random.Random(seed)
        # (due, number, frame, is_copy); the number keeps the order of what is due at one time.
        self._queue = []
        self._number = 0
        self._free_at = 0.0
        self._last_due = 0.0

    def take(self, frame, now):
        self.taken.add(frame)
        settings = self.settings
        # All is drawn for each frame, so that one setting does not move what another one meets.
        loss, duplicate, reorder, jitter = (self._random.random() for _ in range(4))
        if settings.cut:
            return self.lost["cut"].add(frame)
        if loss * 100.0 < settings.loss_percent:
            return self.lost["drawn"].add(frame)
        start = max(now, self._free_at)
        if settings.rate_kbit:
            if start - now > settings.queue_ms / 1e3:
                return self.lost["full"].add(frame)
            start += len(frame) * 8 / (settings.rate_kbit * 1e3)
            self._free_at = start
        due = start + max(0.0, settings.delay_ms + settings.jitter_ms * (2 * jitter - 1)) / 1e3
        due = max(due, self._last_due)
        if reorder * 100.0 < settings.reorder_percent:
            due += settings.reorder_ms / 1e3
        else:
            self._last_due = due
        self._push(due, frame, False)
        if duplicate * 100.0 < settings.duplicate_percent:
            self.copied.add(frame)
            self._push(due, frame, True)

    def _push(self, due, frame, is_copy):
        heapq.heappush(self._queue, (due, self._number, frame, is_copy))
        self._number += 1

    def next_due(self):
        """When something comes out next, none for an empty way."""
        return self._queue[0][0] if self._queue else None

    def pop(self, now):
        """What is due by now, as (frame, is_copy), and then nothing."""
        if self._queue and self._queue[0][0] <= now:
            _, _, frame, is_copy = heapq.heappop(self._queue)
            return frame, is_copy
        return None

    def came_out(self, frame, is_copy, was_taken):
        """Says what became of a popped frame at its device."""
        if was_taken:
            (self.copies_delivered if is_copy else self.delivered).add(frame)
        else:
            (self.copies_refused if is_copy else self.lost["refused"]).add(frame)

    def counts(self):
        queued, copies_queued = Count(), Count()
        for _, _, frame, is_copy in self._queue:
            (copies_queued if is_copy else queued).add(frame)
        lost = Count(sum(count.frames for count in self.lost.values()), sum(count.bytes for count in self.lost.values()))
        assert self.taken == Count(self.delivered.frames + lost.frames + queued.frames, self.delivered.bytes + lost.bytes + queued.bytes)
        assert self.copied.frames == self.copies_delivered.frames + self.copies_refused.frames + copies_queued.frames
        found = {
            "taken": self.taken,
            "delivered": self.delivered,
            "lost": lost,
            "queued": queued,
            "copied": self.copied,
            "copies_delivered": self.copies_delivered,
            "copies_refused": self.copies_refused,
            "copies_queued": copies_queued,
        }
        found |= {f"lost_{reason}": count for reason, count in self.lost.items()}
        return {name: dataclasses.asdict(count) for name, count in found.items()}


class Pcap:
    """Frames with their times, in nanoseconds."""

    def __init__(self, path):
        self._file = open(path, "wb") if path else None
        if self._file:
            self._file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, FRAME_BYTES, 1))

    def write(self, frame):
        if self._file:
            seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
            self._file.write(struct.pack("<IIII", seconds, nanoseconds, len(frame), len(frame)) + frame)

    def flush(self):
        if self._file:
            self._file.flush()


def open_tap(namespace, device):
    """A TAP device in a namespace; it stays where it was made when the process looks elsewhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    if libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    os.close(fd)
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TAP | IFF_NO_PI))
    return tap


class Wire:
    """Two ways between two devices, and who is asking about them."""

    SIDES = ("left", "right")

    def __init__(self, taps, listener, seed, pcap):
        self.taps = dict(zip(self.SIDES, taps))
        self.ways = {side: Way(f"{seed} {side}") for side in self.SIDES}
        self.listener, self.pcap = listener, pcap
        # Connections with what they have said of a line; and those that wait for an empty wire.
        self.asking, self.waiting = {}, []
        self.reads, self.runs = True, True

    def set(self, words):
        for word in words:
            name, equals, value = word.partition("=")
            if not equals:
                raise ValueError(f"{word}: NAME=VALUE is expected")
            side, dot, own = name.partition(".")
            for way in [self.ways[side]] if dot and side in self.ways else self.ways.values():
                way.settings.set(own if dot else name, value)

    def counts(self):
        self.pcap.flush()
        return {side: way.counts() for side, way in self.ways.items()}

    def run(self):
        while self.runs:
            taps = list(self.taps.values()) if self.reads else []
            ready, _, _ = select.select([*taps, self.listener, *self.asking], [], [], self._wait())
            for side, tap in self.taps.items():
                if tap in ready:
                    self._read(tap, self.ways[side])
            self._deliver("left", "right")
            self._deliver("right", "left")
            if self.listener in ready:
                self.asking[self.listener.accept()[0]] = b""
            for connection in [connection for connection in self.asking if connection in ready]:
                self._hear(connection)
            if self.waiting and all(way.next_due() is None for way in self.ways.values()):
                for connection in self.waiting:
                    self._answer(connection, self.counts())
                self.waiting = []

    def _wait(self):
        due = [way.next_due() for way in self.ways.values() if way.next_due() is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _read(self, tap, way):
        for _ in range(FRAMES_AT_ONCE):
            try:
                frame = os.read(tap, FRAME_BYTES)
            except OSError:
                # Nothing more there, or the device is down.
                return
            way.take(frame, time.monotonic())

    def _deliver(self, side, other):
        way, tap = self.ways[side], self.taps[other]
        while found := way.pop(time.monotonic()):
            frame, is_copy = found
            try:
                os.write(tap, frame)
                was_taken = True
                self.pcap.write(frame)
            except OSError:
                was_taken = False
            way.came_out(frame, is_copy, was_taken)

    def _hear(self, connection):
        said = connection.recv(4096)
        self.asking[connection] += said
        line, newline, _ = self.asking[connection].partition(b"\n")
        if not said or newline:
            del self.asking[connection]
        if not said:
            connection.close()
        elif newline:
            self._obey(connection, line.decode().split())

    def _obey(self, connection, words):
        match words:
            case ["set", *rest]:
                try:
                    self.set(rest)
                    self._answer(connection, {"ok": True})
                except ValueError as error:
                    self._answer(connection, {"error": str(error)})
            case ["counts"]:
                self._answer(connection, self.counts())
            case ["stop"]:
                self.reads = False
                self.waiting.append(connection)
            case ["end"]:
                self.runs = False
                self._answer(connection, {"ok": True})
            case _:
                self._answer(connection, {"error": "set, counts, stop or end is expected"})

    @staticmethod
    def _answer(connection, value):
        try:
            connection.sendall(json.dumps(value).encode() + b"\n")
        except OSError:
            pass  # Who asked has gone.
        connection.close()


def run(arguments):
    taps = [open_tap(*end.split(":")) for end in (arguments.left, arguments.right)]
    listener = socket.socket(socket.AF_UNIX)
    # Who waits for the socket finds one that listens.
    listener.bind(arguments.control + ".new")
    listener.listen()
    os.rename(arguments.control + ".new", arguments.control)
    wire = Wire(taps, listener, arguments.seed, Pcap(arguments.pcap))
    wire.set(arguments.settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    print(f"wire with seed {arguments.seed}", flush=True)
    try:
        wire.run()
    finally:
        print(json.dumps(wire.counts()), flush=True)
        os.unlink(arguments.control)


def ask(arguments):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(arguments.control)
        connection.sendall(" ".join(arguments.words).encode() + b"\n")
        answer = connection.makefile().readline()
    print(answer, end="")
    if not answer or "error" in json.loads(answer):
        sys.exit(1)


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--left", required=True)
    runs.add_argument("--right", required=True)
    runs.add_argument("--control", required=True)
    runs.add_argument("--seed", type=int, default=17)
    runs.add_argument("--pcap")
    runs.add_argument("settings", nargs="*")
    runs.set_defaults(do=run)
    asks = commands.add_parser("ask")
    asks.add_argument("control")
    asks.add_argument("words", nargs="+")
    asks.set_defaults(do=ask)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
