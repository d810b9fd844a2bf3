"""What the clients of the leak tests want to reach: a web server and the name server of its zone.

    origin.py READY-FILE WORD ADDRESS...

HTTP on ports 80 and 8443 of each ADDRESS; any path, any method; the answer holds `d` and WORD. DNS on port 53: every name has the first
ADDRESS of its family, but names that begin with `nx` do not exist, and `void` is where nobody is.
"""

import asyncio
import socket
import struct
import sys

ready, word, *addresses = sys.argv[1:]
BODY = (f"what the server says: d{word}\n" * 40).encode()
NOBODY = {4: "45.18.7.200", 6: "2a18:7::200"}


async def serve(reader, writer):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                await reader.readexactly(int(line.split(b":")[1]))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nX-Down: d%s\r\nContent-Length: %d\r\n\r\n%s" % (word.encode(), len(BODY), BODY))
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


class Names(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, query, peer):
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        question, kind = query[12 : at + 5], struct.unpack_from(">H", query, at + 1)[0]
        answer = b""
        family = {1: 4, 28: 6}.get(kind)
        if family and not labels[0].startswith("nx"):
            own = next((address for address in addresses if (":" in address) == (family == 6)), None)
            text = NOBODY[family] if labels[0] == "void" else own
            if text:
                raw = socket.inet_pton(socket.AF_INET if family == 4 else socket.AF_INET6, text)
                answer = b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(raw)) + raw
        code = 3 if labels[0].startswith("nx") else 0
        header = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, bool(answer), 0, 0)
        self.transport.sendto(header + question + answer, peer)


async def main():
    loop = asyncio.get_running_loop()
    for address in addresses:
        for port in (80, 8443):
            await asyncio.start_server(serve, address, port, backlog=1024)
        await loop.create_datagram_endpoint(Names, local_addr=(address, 53))
    open(ready, "w").close()
    await asyncio.Event().wait()


asyncio.run(main())
