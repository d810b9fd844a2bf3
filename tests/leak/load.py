"""Writes a configuration for curl: so many transfers through the proxy, a canary in all that they say.

    load.py FILE COUNT WORD NODE-ADDRESS [BEGINNING]

By SOCKS with names and with addresses, by HTTP and by CONNECT, under eight user names; WORD stands in the name, the path, a header, and what is
posted. Besides these come transfers that must fail: a port that no exit allows, one that nobody listens on, a name that does not exist,
an address where nobody is, a node's own port, the exit itself, a private address. Numbers begin at BEGINNING.
"""

import sys

path, count, word, node, *beginning = sys.argv[1:]
first = int(beginning[0]) if beginning else 0
SOCKS, HTTP = "socks5h://user{}:secret@127.0.0.1:1080", "http://user{}:secret@127.0.0.1:1080"


def transfer(url, user, *more, proxy=SOCKS, seconds=60):
    return [
        f'url = "{url}"', f'proxy = "{proxy.format(user)}"', 'output = "/dev/null"', "silent", f"max-time = {seconds}",
        f'header = "X-Canary: h{word}"', r'write-out = "%{exitcode} %{http_code} %{url}\n"', *more,
    ]


def good(number):
    name, where, user = f"w{number}.n{word}.canary.test", f"/p{word}/{number}?q=p{word}", number % 8
    return [
        lambda: transfer(f"http://{name}{where}", user),
        lambda: transfer(f"http://{name}{where}", user),
        lambda: transfer(f"http://{name}{where}", user),
        lambda: transfer(f"http://{name}:8443{where}", user),
        lambda: transfer(f"http://{name}{where}", user, f'data = "{f"u{word} " * 150}"'),
        lambda: transfer(f"http://{name}{where}", user, proxy=HTTP),
        lambda: transfer(f"http://{name}{where}", user, "proxytunnel", proxy=HTTP),
        lambda: transfer(f"http://{name}:8443{where}", user),
        lambda: transfer(f"http://45.18.7.7{where}", user),
        lambda: transfer(f"http://[2a18:7::7]{where}", user),
    ][number % 10]()


def failing(number):
    host, where, user = f"n{word}.canary.test", f"/p{word}/fails{number}", number % 8
    urls = [
        f"http://w{number}.{host}:81{where}", f"http://w{number}.{host}:8080{where}", f"http://nx{number}.{host}{where}",
        f"http://{node}:1717{where}", f"http://127.0.0.1{where}", f"http://10.17.9.1:8443{where}",
    ]
    if int(count) > 50:  # this one takes its time
        urls.append(f"http://void.{host}:8443{where}")
    return transfer(urls[number % len(urls)], user, seconds=8)


transfers = [good(number) for number in range(first, first + int(count))]
# Between the others, so that they are under way together; each kind of failure at least once.
for number in range(max(7, int(count) // 20)):
    transfers.insert(number * 7 % len(transfers), failing(number))
with open(path, "w") as file:
    file.write("\nnext\n".join("\n".join(transfer) for transfer in transfers) + "\n")
