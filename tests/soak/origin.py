"""The server behind the mesh. Each connection says in its first line what is to happen, and both ends check every byte.

    GET id key n        n bytes, then the end
    PUT id key n        takes n bytes, answers `ok n`, ends
    ECHO id key         gives back what comes, until the other side ends
    HALF id key n m     takes n bytes and their end, and only then sends m bytes of the stream key + 1
    LATE id key n m     sends m bytes of key + 1 and ends its side first, then takes n bytes and their end
    GET /bytes/key/n    the same as GET, as HTTP
"""

import asyncio

from pattern import LENGTH, Check, Wrong, piece

CHUNK = 64 * 1024
# An application that stops talking for this long is taken for gone.
IDLE_S = 120


class Origin:
    """Serves, and keeps what it saw."""

    def __init__(self):
        self.port = None
        self.live = 0
        self.served = 0
        self.bytes = 0
        # Corruption that only this end can see, in words.
        self.wrong = []
        # LATE and PUT: ids of the streams that came whole.
        self.whole = set()
        # Streams that the application breaks off on purpose: their end in order is no fault.
        self.broken_off = set()
        self._server = None

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1024 * 1024, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self):
        self._server.close()

    async def _serve(self, reader, writer):
        self.live += 1
        self.served += 1
        try:
            async with asyncio.timeout(30):
                line = (await reader.readline()).decode("ascii", "replace").split()
            if line:
                await self._answer(line, reader, writer)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError):
            # The other side broke: it will say so itself.
            writer.transport.abort()
        except Wrong as wrong:
            self.wrong.append(f"at the origin: {' '.join(line)}: {wrong}")
            writer.transport.abort()
        finally:
            self.live -= 1
            writer.close()

    async def _answer(self, line, reader, writer):
        word, rest = line[0], line[1:]
        if word == "GET" and rest[0].startswith("/"):
            return await self._http(rest[0], reader, writer)
        stream, numbers = rest[0], [int(number) for number in rest[1:]]
        if word == "GET":
            key, count = numbers
            await self._send(writer, key, count)
            writer.write_eof()
            await self._end(reader)
        elif word == "PUT":
            key, count = numbers
            await self._take(reader, stream, key, count)
            writer.write(f"ok {count}\n".encode())
            await writer.drain()
            writer.write_eof()
            await self._end(reader)
        elif word == "ECHO":
            await self._echo(reader, writer, numbers[0])
        elif word == "HALF":
            key, there, back = numbers
            await self._take(reader, stream, key, there)
            await self._end(reader)
            await self._send(writer, key + 1, back)
            writer.write_eof()
        elif word == "LATE":
            key, there, back = numbers
            await self._send(writer, key + 1, back)
            writer.write_eof()
            await self._take(reader, stream, key, there)
            await self._end(reader)
            self.whole.add(stream)
        else:
            raise Wrong("no such word")

    async def _http(self, path, reader, writer):
        _, _, key, count = path.split("/")
        while (await reader.readline()) not in (b"\r\n", b""):
            pass
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {count}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        await self._send(writer, int(key), int(count))
        writer.write_eof()
        await self._end(reader)

    async def _send(self, writer, key, count):
        for at in range(0, count, CHUNK):
            size = min(CHUNK, count - at)
            writer.write(piece(key, at, size))
            async with asyncio.timeout(IDLE_S):
                await writer.drain()
            self.bytes += size

    async def _take(self, reader, stream, key, count):
        check = Check(key)
        while check.got < count:
            data = await self._read(reader, min(CHUNK, count - check.got))
            if not data:
                if stream in self.broken_off:
                    raise ConnectionResetError
                raise Wrong(f"an end in order after {check.got} of {count} bytes")
            check.feed(data)
            self.bytes += len(data)

    async def _echo(self, reader, writer, key):
        check = Check(key)
        while data := await self._read(reader, CHUNK):
            check.feed(data)
            self.bytes += len(data)
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def _end(self, reader):
        if await self._read(reader, LENGTH):
            raise Wrong("bytes behind the last one")

    async def _read(self, reader, most):
        async with asyncio.timeout(IDLE_S):
            return await reader.read(most)
