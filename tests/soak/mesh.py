"""The members: daemons of the release binary on loopback, each a process with a log, a state directory and a control socket of its own."""

import asyncio
import json
import os
import re
import signal
import subprocess
import time

NODES = 8
UNLISTED = (1, 2)
EXITS = (6, 7, 8)
# Of each route: with 4 also nodes that the list does not name carry streams.
HOPS = 4
# Who is never killed or restarted, so that the slope of its memory means something.
LASTING = ("node-2", "node-5", "node-8", "client-2")
CLIENTS = ("client-1", "client-2")
# The first hop of client-1: it is one that may be killed.
GUARD_OF_CLIENT_1 = "node-3"
ORIGIN_NAME = "origin.soak"
STARTS_IN_S = 30
ENDS_IN_S = 10

NODE = """\
label = "{name}"
network = "{network}"
state = "state"
[node]
listen = ["{address}"]
addresses = ["{address}"]
"""
EXIT = """\
[exit]
policy = ["accept tcp *:*"]
danger_exit_private = ["127.0.0.1/32:*"]
[exit.hosts]
"{origin}" = "127.0.0.1"
"""
CLIENT = """\
network = "{network}"
state = "state"
[client]
proxy = "127.0.0.1:{port}"
hops = {hops}
"""
# Times of a mesh on one machine; circuits live for 2 min in the place of 10, so that a soak has many lives of them.
PARAMETERS = """
[parameters]
set = "demo"
circuit_max_age = "2 min"
"""


class Failed(Exception):
    """The mesh could not be made."""


class Life:
    """One life of one member: from its start to its end."""

    def __init__(self, process):
        self.process = process
        self.pid = process.pid
        self.began = time.monotonic()
        self.ended = None
        # Its end was ours: a signal that we sent.
        self.asked = False
        # (seconds since the soak's start, KiB)
        self.resident = []


class Member:
    """A node or a client, over all its lives."""

    def __init__(self, mesh, name, address):
        self.mesh, self.name, self.address = mesh, name, address
        self.is_client = name.startswith("client")
        self.directory = os.path.join(mesh.directory, name)
        self.log = os.path.join(mesh.logs, f"{name}.log")
        self.control = os.path.join(self.directory, "state", "control.sock")
        self.node_id = None
        self.lives = []
        self.ending = False
        # Nothing is to be expected of it at the moment.
        self.is_stopped = False

    @property
    def life(self):
        return self.lives[-1] if self.lives and self.lives[-1].ended is None else None

    @property
    def port(self):
        return int(self.address.rpartition(":")[2])

    def prepare(self):
        config = os.path.join(self.directory, "port17.toml")
        os.makedirs(self.directory, exist_ok=True)
        arguments = ["--network", self.mesh.network]
        if not self.is_client:
            arguments += ["--label", self.name, "--address", self.address]
        made = self.mesh.run("--config", config, "--json", "init", *arguments)
        self.node_id = json.loads(made)["node_id"]
        values = {"name": self.name, "network": self.mesh.network, "address": self.address,
                  "port": self.port, "hops": HOPS, "origin": ORIGIN_NAME}
        text = (CLIENT if self.is_client else NODE).format(**values)
        if self.name in [f"node-{number}" for number in EXITS]:
            text += EXIT.format(**values)
        if self.name == "client-1":
            text += f'guard = "{self.mesh.members[GUARD_OF_CLIENT_1].node_id}"\n'
        with open(config, "w", encoding="utf-8") as file:
            file.write(text)

    async def start(self):
        role = "client" if self.is_client else "node"
        config = os.path.join(self.directory, "port17.toml")
        environment = {**os.environ, "PORT17_LOG": os.environ.get("PORT17_LOG", "warn"), "RUST_BACKTRACE": "1"}
        with open(self.log, "ab") as log:
            # Its standard input ends with this process, whatever ends it, and with that the daemon.
            process = await asyncio.create_subprocess_exec(
                self.mesh.binary, "--config", config, role, "--until-stdin-ends", stdin=asyncio.subprocess.PIPE,
                stdout=log, stderr=log, env=environment, start_new_session=True)
        life = Life(process)
        self.lives.append(life)
        self.mesh.tasks.append(asyncio.create_task(self._watch(life)))

    async def _watch(self, life):
        code = await life.process.wait()
        life.ended = time.monotonic()
        if not life.asked and not self.mesh.ending:
            self.mesh.crashes.append(f"{self.name} ended by itself with {code}")
            self.mesh.say(f"CRASH {self.mesh.crashes[-1]}")
            await asyncio.sleep(1)
            if not self.mesh.ending:
                await self.start()

    def signal(self, number):
        """Only ever to the process that was started here and has not been waited for."""
        life = self.life
        if life is None:
            return
        if number in (signal.SIGKILL, signal.SIGTERM):
            life.asked = True
        self.is_stopped = number == signal.SIGSTOP
        life.process.send_signal(number)

    async def gone(self):
        life = self.lives[-1]
        while life.ended is None:
            await asyncio.sleep(0.01)

    async def ask(self, path="/v1/status", patience=5):
        """What its control socket says; none where nobody answers."""
        try:
            async with asyncio.timeout(patience):
                reader, writer = await asyncio.open_unix_connection(self.control, limit=4 * 1024 * 1024)
                try:
                    writer.write(f"GET {path} HTTP/1.1\r\nHost: port17\r\nConnection: close\r\n\r\n".encode())
                    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
                finally:
                    writer.close()
            return json.loads(body) if b" 200 " in head.split(b"\r\n")[0] else None
        except (OSError, asyncio.TimeoutError, ValueError):
            return None

    def resident_kib(self):
        try:
            with open(f"/proc/{self.life.pid}/status", encoding="ascii") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        except (OSError, AttributeError, StopIteration):
            return None

    def descriptors(self):
        try:
            return len(os.listdir(f"/proc/{self.life.pid}/fd"))
        except (OSError, AttributeError):
            return None


class Mesh:
    """All members, and what became of them."""

    def __init__(self, binary, directory, logs, say):
        self.binary, self.directory, self.logs, self.say = binary, directory, logs, say
        self.network = os.path.join(directory, "soak.network.toml")
        self.list = os.path.join(directory, "bootstrap-nodes.json")
        self.members = {}
        self.tasks = []
        self.crashes = []
        self.ending = False

    @property
    def nodes(self):
        return [member for member in self.members.values() if not member.is_client]

    @property
    def clients(self):
        return [self.members[name] for name in CLIENTS]

    def run(self, *arguments):
        done = subprocess.run([self.binary, *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"port17 {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    async def form(self, addresses, ports):
        """Keys, network, list; all members started, and ready."""
        self.run("network", "new", "soak", "--source", f"file:{self.list}", "--output", self.directory)
        with open(self.network, "a", encoding="utf-8") as file:
            file.write(PARAMETERS)
        for number, address in enumerate(addresses, start=1):
            self.members[f"node-{number}"] = Member(self, f"node-{number}", address)
        for name, port in zip(CLIENTS, ports):
            self.members[name] = Member(self, name, f"127.0.0.1:{port}")
        for member in self.members.values():
            member.prepare()
        for member in self.members.values():
            await member.start()
        await self._sign()
        async with asyncio.timeout(STARTS_IN_S):
            for member in self.members.values():
                while not await self._is_ready(member):
                    await asyncio.sleep(0.1)

    async def _is_ready(self, member):
        if self.crashes:
            raise Failed(self.crashes[0])
        status = await member.ask()
        return bool(status) and status["ready"] and not status["waiting_for"]

    async def _sign(self):
        bottles = []
        for number in range(1, NODES + 1):
            if number in UNLISTED:
                continue
            node = self.members[f"node-{number}"]
            bottle = os.path.join(node.directory, "state", "bottles", f"{node.node_id}.bottle")
            async with asyncio.timeout(STARTS_IN_S):
                while not os.path.exists(bottle):
                    await asyncio.sleep(0.05)
            bottles.append(bottle)
        key = os.path.join(self.directory, "root-1.key")
        self.run("network", "sign", "--network", self.network, "--key", key, "--list", self.list, *bottles)
        for member in self.members.values():
            if member.life:
                member.life.process.send_signal(signal.SIGHUP)

    async def stop(self):
        """Ends all in order; who takes too long is killed, and that is told."""
        self.ending = True
        late = []
        for member in self.members.values():
            if member.life:
                if member.is_stopped:
                    member.life.process.send_signal(signal.SIGCONT)
                member.life.process.stdin.close()
        for member in self.members.values():
            if not member.life:
                continue
            try:
                await asyncio.wait_for(member.gone(), ENDS_IN_S)
            except asyncio.TimeoutError:
                late.append(member.name)
                member.life.process.kill()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        return late

    def panics(self):
        """Lines of the logs in which a thread says that it has panicked."""
        return [line for line in self.log_lines() if "panicked" in line]

    def log_lines(self):
        for member in self.members.values():
            try:
                with open(member.log, encoding="utf-8", errors="replace") as file:
                    yield from (f"{member.name}: {line.rstrip()}" for line in file)
            except OSError:
                continue

    def errors(self):
        """Log lines by level and text, without what differs between two of a kind."""
        plain = re.compile(r"\x1b\[[0-9;]*m")
        counted = {}
        for line in self.log_lines():
            found = re.search(r"\b(WARN|ERROR)\b\s+(.*)", plain.sub("", line))
            if found:
                text = re.sub(r"[a-z2-7]{13,}|\d+", "#", found[2])[:110]
                counted[f"{found[1]} {text}"] = counted.get(f"{found[1]} {text}", 0) + 1
        return dict(sorted(counted.items(), key=lambda item: -item[1]))
