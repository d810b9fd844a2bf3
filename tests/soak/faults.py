"""Faults from outside: what is drawn, how it is done, and how long until new streams succeed again."""

import asyncio
import os
import random
import signal
import time

from mesh import CLIENTS, LASTING, NODES

KINDS = {"kill": 30, "stop": 22, "cut": 18, "restart": 12, "kill-client": 8, "stop-client": 5, "disk": 5}
# From the end of one fault's window to the next fault.
GAP_S = (4, 12)
STOP_S = (1, 10)
# How long a killed or restarted one stays away.
AWAY_S = (0.2, 3)
DISK_S = 5
# A fault's window closes with its recovery, but never later than this: what fails then is the mesh's failure.
BOUND_S = 5
# A probe that takes longer is given up, and another one made.
PROBE_S = 10
GIVE_UP_S = 60


class Fault:
    """One fault, as it was drawn and as it went."""

    def __init__(self, kind, member, lasts_s, gap_s):
        self.kind, self.member, self.lasts_s, self.gap_s = kind, member, lasts_s, gap_s
        self.role = ""
        # The window, monotonic seconds.
        self.began = self.closed = None
        # Whose streams it concerns.
        self.clients = CLIENTS
        # Seconds until new streams succeeded, by probe.
        self.probes = {}

    @property
    def has_window(self):
        """A full disk is to disturb nobody: its time is judged as any other."""
        return self.kind != "disk"

    @property
    def recovery_s(self):
        return max(self.probes.values()) if self.probes else None

    def words(self):
        lasts = f" {self.lasts_s:.1f} s" if self.kind != "cut" else ""
        return f"{self.kind} {self.member}{lasts}"


def schedule(seed, only=()):
    """Faults without end, the same for the same seed; of some kinds alone, for who looks for a cause."""
    draw = random.Random(f"{seed} faults")
    nodes = [f"node-{number}" for number in range(1, NODES + 1)]
    mortal = [node for node in nodes if node not in LASTING]
    kinds, weights = zip(*((kind, weight) for kind, weight in KINDS.items() if not only or kind in only))
    last = None
    while True:
        kind = draw.choices(kinds, weights)[0]
        gap = draw.uniform(*GAP_S)
        if kind in ("kill", "restart", "disk"):
            member = draw.choice([node for node in mortal if node != last])
        elif kind == "kill-client":
            member = next(client for client in CLIENTS if client not in LASTING)
        elif kind == "stop-client":
            member = draw.choice(CLIENTS)
        else:
            member = draw.choice(nodes)
        lasts = {"stop": STOP_S, "stop-client": STOP_S, "disk": (DISK_S, DISK_S)}.get(kind, AWAY_S)
        last = member
        yield Fault(kind, member, draw.uniform(*lasts), gap)


class Faults:
    """Carries them out, one after the other."""

    def __init__(self, seed, only, mesh, load, disks, say):
        self.mesh, self.load, self.disks, self.say = mesh, load, disks, say
        self.schedule = schedule(seed, only)
        self.done = []
        self.users = 0

    async def run(self, until):
        """Faults until that time; the last one is seen to its end."""
        while True:
            fault = next(self.schedule)
            if time.monotonic() + fault.gap_s >= until:
                return
            await asyncio.sleep(fault.gap_s)
            await self._carry_out(fault)

    async def _carry_out(self, fault):
        member = self.mesh.members[fault.member]
        fault.role = await self._role(member)
        if member.is_client:
            fault.clients = (member.name,)
        self.done.append(fault)
        fault.began = time.monotonic()
        # A stop is over when it ends; from any other fault on, time counts at once.
        if fault.kind in ("stop", "stop-client"):
            member.signal(signal.SIGSTOP)
            await asyncio.sleep(fault.lasts_s)
            member.signal(signal.SIGCONT)
            await self._recover(fault)
        elif fault.kind == "disk":
            await self._fill_disk(member, fault)
        elif fault.kind == "cut":
            await self._cut(member)
            await self._recover(fault)
        else:
            member.signal(signal.SIGTERM if fault.kind == "restart" else signal.SIGKILL)
            await asyncio.gather(self._come_back(member, fault), self._recover(fault))
        recovery = fault.recovery_s
        late = "" if recovery is None or recovery <= BOUND_S else "   OVER THE BOUND"
        shown = "" if recovery is None else f"  recovery {recovery:.2f} s{late}"
        self.say(f"fault {len(self.done)}: {fault.words()}{fault.role}{shown}")

    async def _come_back(self, member, fault):
        await member.gone()
        away = fault.began + fault.lasts_s - time.monotonic()
        if away > 0:
            await asyncio.sleep(away)
        await member.start()

    async def _cut(self, member):
        """Ends all TCP connections of the member's port, or those that a client has: by its own address alone."""
        if member.is_client:
            return
        await self._run("ss", "-K", "-t", "src", member.address)

    async def _fill_disk(self, member, fault):
        """The state directory is a small file system of its own; where that could not be mounted, nothing is done."""
        state = os.path.join(member.directory, "state")
        if state not in self.disks:
            return
        path = os.path.join(state, "fill")
        try:
            with open(path, "wb", buffering=0) as file:
                while file.write(b"\0" * 65536):
                    pass
        except OSError:
            pass
        await asyncio.sleep(fault.lasts_s)
        try:
            os.remove(path)
        except OSError:
            pass
        fault.closed = time.monotonic()

    @staticmethod
    async def _run(*command):
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        await process.wait()

    async def _role(self, member):
        """What the member is to the clients at this moment, in words."""
        roles = set()
        for client in self.mesh.clients:
            status = await client.ask("/v1/circuits", patience=1) if client is not member else None
            for circuit in (status or {}).get("circuits", []):
                route = [hop.partition("~")[0] for hop in circuit["route"]]
                if member.name in route:
                    at = route.index(member.name)
                    roles.add("guard" if at == 0 else "exit" if at == len(route) - 1 else "middle")
        return f" ({', '.join(sorted(roles))})" if roles else ""

    async def _recover(self, fault):
        """A probe for each client and way of asking: a user that has a circuit, nobody in particular, a user never seen."""
        began = time.monotonic()
        self.users += 1
        users = {"standing": "user-0", "plain": None, "fresh": f"probe-{self.users}"}
        probes = [self._probe(fault, client, way, user, began)
                  for client in self.mesh.clients if client.name in fault.clients for way, user in users.items()]
        await asyncio.gather(*probes)
        fault.closed = min(time.monotonic(), began + BOUND_S)

    async def _probe(self, fault, client, way, user, began):
        while time.monotonic() - began < GIVE_UP_S:
            if await self.load.probe(client, user, PROBE_S):
                break
            await asyncio.sleep(0.05)
        fault.probes[f"{client.name} {way}"] = time.monotonic() - began
