"""Serves a directory by HTTP or HTTPS on a free loopback port: file_server.py DIRECTORY FILE [CERTIFICATE KEY].

The port goes to FILE.port; requests are logged to standard error.
"""

import functools
import http.server
import os
import ssl
import sys

directory, file, *secure = sys.argv[1:]
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
if secure:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*secure)
    server.socket = context.wrap_socket(server.socket, server_side=True)
with open(file + ".port.new", "w") as out:
    out.write(str(server.server_address[1]))
os.rename(file + ".port.new", file + ".port")
server.serve_forever()
