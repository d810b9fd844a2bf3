"""What the mesh leads to: web servers that know exactly what they gave.

    origin.py serve DIRECTORY LOG [CERTIFICATE KEY]
    origin.py sha BYTES
    origin.py check BYTES [LENGTH]

`http://…/bytes/N` on port 80, IPv4 and IPv6: N bytes, always the same. Each request is a line of JSON in LOG: who asked, how many bytes the
socket took, their sha256, and whether that was all. `https://…:8443/` has the files of DIRECTORY, where a certificate is given. UDP port 7
answers with what came. FILE LOG.ready is there once all of them listen. `check` says where standard input
is not what /bytes/BYTES gives, or its first LENGTH bytes.
"""

import functools
import hashlib
import http.server
import json
import random
import socket
import ssl
import sys
import threading

BLOCK = random.Random(17).randbytes(65536 - 8)


def pieces(length):
    """The bytes of /bytes/LENGTH. Each block has its number, so that none can stand for another."""
    for number in range(-(-length // 65536)):
        yield (number.to_bytes(8, "big") + BLOCK)[: length - number * 65536]


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log_file = None

    def do_GET(self):
        length = int(self.path.rpartition("/")[2]) if self.path.startswith("/bytes/") else None
        if length is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        given, sha = 0, hashlib.sha256()
        try:
            for piece in pieces(length):
                self.wfile.write(piece)
                given += len(piece)
                sha.update(piece)
        except OSError:
            self.close_connection = True
        line = {"peer": self.client_address[0], "path": self.path, "bytes": given, "sha256": sha.hexdigest(), "whole": given == length}
        self.log_file.write(json.dumps(line) + "\n")
        self.log_file.flush()

    def log_message(self, *_):
        pass


class DualStack(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def echo(udp):
    while True:
        udp.sendto(*udp.recvfrom(65536))


def serve(directory, log, *secure):
    Origin.log_file = open(log, "a", encoding="utf-8")
    servers = [DualStack(("::", 80), Origin)]
    if secure:
        files = DualStack(("::", 8443), functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*secure)
        files.socket = context.wrap_socket(files.socket, server_side=True)
        servers.append(files)
    # An answer leaves from the address that was asked: a socket for each.
    for family, address in [(socket.AF_INET, "45.17.9.9"), (socket.AF_INET6, "2a17:9::9")]:
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.bind((address, 7))
        threading.Thread(target=echo, args=[udp], daemon=True).start()
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    open(log + ".ready", "w").close()
    servers[0].serve_forever()


def sha(length):
    whole = hashlib.sha256()
    for piece in pieces(int(length)):
        whole.update(piece)
    print(whole.hexdigest())


def check(bytes, length=None):
    at, length = 0, int(length or bytes)
    for piece in pieces(int(bytes)):
        piece = piece[: length - at]
        got = sys.stdin.buffer.read(len(piece))
        if got != piece:
            sys.exit(f"{at + len(got)} bytes came, and not all of them were right" if len(got) < len(piece) else f"wrong between {at} and {at + len(piece)}")
        at += len(piece)
    if sys.stdin.buffer.read(1):
        sys.exit(f"more than {length} bytes came")


if __name__ == "__main__":
    {"serve": serve, "sha": sha, "check": check}[sys.argv[1]](*sys.argv[2:])
