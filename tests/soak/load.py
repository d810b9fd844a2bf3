"""Streams through the clients' proxy ports, and what became of each."""

import asyncio
import base64
import itertools
import random
import socket
import struct
import time

from mesh import ORIGIN_NAME
from pattern import LENGTH, Check, Wrong, piece

# A step of a stream that takes longer has failed: longer than the client's own limit for opening one.
STALL_S = 40
CHUNK = 64 * 1024
WORKERS, HOLDERS = 6, 5
# Users of the proxy, each with circuits of its own.
USERS = 24

# SOCKS replies (RFC 1928) and the HTTP statuses of the same refusals.
REFUSED, UNREACHABLE, FORBIDDEN = 5, 4, 2


class Refused(Exception):
    """The proxy said no."""

    def __init__(self, code):
        super().__init__(f"the proxy answers {code}")
        self.code = code


class Short(Exception):
    """Fewer bytes came than should, without an end in order."""


class Stream:
    """One attempt of an application."""

    numbers = itertools.count(1)

    def __init__(self, kind, client):
        self.kind, self.client = kind, client
        self.id = f"s{next(self.numbers)}"
        self.began = time.monotonic()
        self.ended = None
        # None: right to the end. Else why not, in words.
        self.why = None
        self.bytes = 0


class Connection:
    """A connection to a proxy, with deadlines."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port):
        async with asyncio.timeout(STALL_S):
            return cls(*await asyncio.open_connection("127.0.0.1", port, limit=256 * 1024))

    async def exactly(self, count):
        async with asyncio.timeout(STALL_S):
            return await self.reader.readexactly(count)

    async def some(self, most=CHUNK):
        async with asyncio.timeout(STALL_S):
            return await self.reader.read(most)

    async def line(self):
        async with asyncio.timeout(STALL_S):
            return await self.reader.readline()

    async def send(self, data):
        self.writer.write(data)
        async with asyncio.timeout(STALL_S):
            await self.writer.drain()

    def finish(self):
        self.writer.write_eof()

    def close(self):
        self.writer.close()

    def reset(self):
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def socks(self, host, port, user):
        await self.send(b"\x05\x01\x02" if user else b"\x05\x01\x00")
        if (await self.exactly(2))[1] == 2:
            name = user.encode()
            await self.send(bytes([1, len(name)]) + name + b"\x01x")
            await self.exactly(2)
        name = host.encode()
        await self.send(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", port))
        reply = await self.exactly(4)
        if reply[1] != 0:
            raise Refused(reply[1])
        await self.exactly(6)

    async def connect(self, host, port, user):
        await self.send(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{credentials(user)}\r\n".encode())
        status = await self.head()
        if status != 200:
            raise Refused(status)

    async def head(self):
        line = await self.line()
        if not line:
            raise Short("no answer")
        while (await self.line()) not in (b"\r\n", b""):
            pass
        return int(line.split()[1])

    async def take(self, stream, key, count, cut=Wrong):
        """Exactly these bytes; `cut` is what an end in order before the last one is."""
        check = Check(key)
        while check.got < count:
            data = await self.some(min(CHUNK, count - check.got))
            if not data:
                raise cut(f"an end in order after {check.got} of {count} bytes")
            check.feed(data)
            stream.bytes += len(data)

    async def give(self, stream, key, count):
        for at in range(0, count, CHUNK):
            size = min(CHUNK, count - at)
            await self.send(piece(key, at, size))
            stream.bytes += size

    async def end(self):
        if await self.some():
            raise Wrong("bytes behind the last one")


def credentials(user):
    if not user:
        return ""
    return f"Proxy-Authorization: Basic {base64.b64encode(f'{user}:x'.encode()).decode()}\r\n"


class Load:
    """What keeps both clients busy until it is stopped."""

    KINDS = {"small": 40, "http": 8, "connect": 8, "download": 5, "upload": 8, "half": 8, "late": 5, "abort": 8, "refused": 7,
             "burst": 3}

    def __init__(self, seed, origin, clients, forbidden):
        self.seed, self.origin, self.clients = seed, origin, clients
        # A node's own port: an exit refuses it.
        self.forbidden = forbidden
        self.streams = []
        self.corrupt = []
        self.stopping = asyncio.Event()
        self.tasks = []
        self.fresh = itertools.count(1)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            self.closed_port = closed.getsockname()[1]

    def start(self):
        for client in self.clients:
            for number in range(WORKERS):
                draw = random.Random(f"{self.seed} {client.name} {number}")
                self.tasks.append(asyncio.create_task(self._work(client, draw)))
            for number in range(HOLDERS):
                draw = random.Random(f"{self.seed} {client.name} holder {number}")
                self.tasks.append(asyncio.create_task(self._hold(client, draw)))

    async def stop(self):
        self.stopping.set()
        await asyncio.gather(*self.tasks)

    async def _pause(self, seconds):
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    async def _work(self, client, draw):
        kinds, weights = zip(*self.KINDS.items())
        while not self.stopping.is_set():
            kind = draw.choices(kinds, weights)[0]
            if kind == "burst":
                await asyncio.gather(*(self.run("small", client, random.Random(draw.random())) for _ in range(20)))
            else:
                await self.run(kind, client, draw)
            await self._pause(draw.expovariate(1 / 0.4))

    async def _hold(self, client, draw):
        while not self.stopping.is_set():
            await self.run("echo", client, draw)
            await self._pause(draw.uniform(0, 2))

    def user(self, draw):
        what = draw.random()
        if what < 0.15:
            return None
        return f"fresh-{next(self.fresh)}" if what < 0.22 else f"user-{draw.randrange(USERS)}"

    async def run(self, kind, client, draw):
        """One stream from its opening to its end."""
        stream = Stream(kind, client.name)
        self.streams.append(stream)
        connection = None
        try:
            connection = await Connection.open(client.port)
            await getattr(self, f"_{kind}")(stream, connection, draw)
        except Wrong as wrong:
            stream.why = f"corrupt: {wrong}"
            self.corrupt.append(f"{kind} {stream.id} of {client.name}: {wrong}")
        except Refused as refused:
            stream.why = str(refused)
        except asyncio.TimeoutError:
            stream.why = f"nothing for {STALL_S} s"
        except asyncio.IncompleteReadError as short:
            stream.why = f"ended in the proxy's answer after {len(short.partial)} bytes"
        except (OSError, Short) as error:
            stream.why = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
        finally:
            stream.ended = time.monotonic()
            if connection:
                connection.close()
        return stream

    async def probe(self, client, user, patience):
        """Whether a small stream of this user comes whole; it is no part of the load."""
        stream, connection = Stream("probe", client.name), None
        key, count = random.randrange(LENGTH), 1000
        try:
            async with asyncio.timeout(patience):
                connection = await Connection.open(client.port)
                await connection.socks(ORIGIN_NAME, self.origin.port, user)
                await connection.send(f"GET {stream.id} {key} {count}\n".encode())
                await connection.take(stream, key, count)
                await connection.end()
            return True
        except Wrong as wrong:
            self.corrupt.append(f"probe of {client.name}: {wrong}")
            return False
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, Refused, Short):
            return False
        finally:
            if connection:
                connection.close()

    # ---- What applications do; each ends only when all is right ----

    async def _open(self, stream, connection, draw, line):
        await connection.socks(ORIGIN_NAME, self.origin.port, self.user(draw))
        await connection.send(f"{line}\n".encode())

    async def _get(self, stream, connection, draw, count):
        key = draw.randrange(LENGTH)
        await self._open(stream, connection, draw, f"GET {stream.id} {key} {count}")
        await connection.take(stream, key, count)
        await connection.end()

    async def _small(self, stream, connection, draw):
        await self._get(stream, connection, draw, draw.choice((0, 1, 100, 1000, 4000, 30_000)))

    async def _download(self, stream, connection, draw):
        await self._get(stream, connection, draw, 10_000_000)

    async def _http(self, stream, connection, draw):
        key, count = draw.randrange(LENGTH), draw.choice((0, 1000, 20_000))
        host = f"{ORIGIN_NAME}:{self.origin.port}"
        user = credentials(self.user(draw))
        await connection.send(f"GET http://{host}/bytes/{key}/{count} HTTP/1.1\r\nHost: {host}\r\n{user}Connection: close\r\n\r\n".encode())
        status = await connection.head()
        if status != 200:
            raise Refused(status)
        # Its length is told: an end before that is seen as one, and needs no reset.
        await connection.take(stream, key, count, cut=Short)
        await connection.end()

    async def _connect(self, stream, connection, draw):
        key, count = draw.randrange(LENGTH), draw.choice((0, 1000, 20_000))
        await connection.connect(ORIGIN_NAME, self.origin.port, self.user(draw))
        await connection.send(f"GET {stream.id} {key} {count}\n".encode())
        await connection.take(stream, key, count)
        await connection.end()

    async def _upload(self, stream, connection, draw):
        key, count = draw.randrange(LENGTH), draw.randrange(1, 3_000_000)
        await self._open(stream, connection, draw, f"PUT {stream.id} {key} {count}")
        await connection.give(stream, key, count)
        if await connection.line() != f"ok {count}\n".encode():
            raise Short("the origin's answer is cut")
        connection.finish()
        await connection.end()

    async def _half(self, stream, connection, draw):
        key, there, back = draw.randrange(LENGTH), draw.randrange(200_000), draw.randrange(400_000)
        await self._open(stream, connection, draw, f"HALF {stream.id} {key} {there} {back}")
        await connection.give(stream, key, there)
        connection.finish()
        await connection.take(stream, key + 1, back)
        await connection.end()

    async def _late(self, stream, connection, draw):
        key, there, back = draw.randrange(LENGTH), draw.randrange(200_000), draw.randrange(200_000)
        await self._open(stream, connection, draw, f"LATE {stream.id} {key} {there} {back}")
        await connection.take(stream, key + 1, back)
        await connection.end()
        await connection.give(stream, key, there)
        connection.finish()
        async with asyncio.timeout(STALL_S):
            while stream.id not in self.origin.whole:
                await asyncio.sleep(0.02)
        self.origin.whole.discard(stream.id)

    async def _abort(self, stream, connection, draw):
        key, count = draw.randrange(LENGTH), 5_000_000
        self.origin.broken_off.add(stream.id)
        way = draw.choice(("reset while taking", "close while taking", "reset while giving", "close at once"))
        word = "PUT" if way == "reset while giving" else "GET"
        await self._open(stream, connection, draw, f"{word} {stream.id} {key} {count}")
        if way == "reset while giving":
            await connection.give(stream, key, draw.randrange(1, 500_000))
        elif way != "close at once":
            await connection.take(stream, key, draw.randrange(1, 1_000_000))
        if way.startswith("reset"):
            connection.reset()

    async def _refused(self, stream, connection, draw):
        node = self.forbidden.partition(":")
        target, port, expected = draw.choice((
            ("127.0.0.1", self.closed_port, REFUSED),
            ("no-such-name.invalid", 80, UNREACHABLE),
            (node[0], int(node[2]), FORBIDDEN),
        ))
        try:
            await connection.socks(target, port, self.user(draw))
        except Refused as refused:
            if refused.code == expected:
                return
            raise
        raise Wrong(f"{target}:{port} was reached")

    async def _echo(self, stream, connection, draw):
        """Words with pauses, for a while; half of all time nothing is on the way."""
        key, until = draw.randrange(LENGTH), time.monotonic() + draw.uniform(5, 60)
        await self._open(stream, connection, draw, f"ECHO {stream.id} {key}")
        check, sent = Check(key), 0
        while time.monotonic() < until and not self.stopping.is_set():
            count = draw.choice((1, 50, 1000, 20_000, 200_000))
            for at in range(0, count, CHUNK):
                size = min(CHUNK, count - at)
                await connection.send(piece(key, sent + at, size))
            sent += count
            while check.got < sent:
                data = await connection.some(min(CHUNK, sent - check.got))
                if not data:
                    raise Wrong(f"an end in order after {check.got} of {sent} bytes")
                check.feed(data)
                stream.bytes += len(data)
            await self._pause(draw.expovariate(1 / 1.5))
        connection.finish()
        await connection.end()
