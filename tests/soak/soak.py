"""A soak: a mesh of processes on loopback under load, with faults from outside. `./test soak --minutes N --seed S` starts it.

What is judged, and how:
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import faults as faults_of
import figures
from faults import BOUND_S, Faults
from figures import LEAST_S, WARM_UP_S, Objects
from load import STALL_S, USERS, Load
from mesh import CLIENTS, HOPS, LASTING, NODES, Failed, Mesh
from origin import Origin

DEFINITIONS = f"""\
stream       One thing that an application does by a client's SOCKS5 or HTTP port: small requests, 10 MB downloads, uploads, half-closes
             from either side, words with pauses over up to a minute, broken-off ones, refused targets; {USERS} users and new ones.
             It is good when it ends as it should, all bytes checked at both ends; a step of {STALL_S} s fails it.
window       From a fault on until it has recovered, at most {BOUND_S} s behind it (behind its end for SIGSTOP). A killed client has a window
             for its own streams alone; a full disk has none: it is to disturb nobody.
success      Of the streams that were opened in no window and that no fault met before their end. Also given: of those opened in no
             window, which a fault may have cut later, and of all.
recovery     From the fault (SIGSTOP: from SIGCONT) until new small streams have come whole: of each client one of a user that has a
             circuit, one without a user, one of a new user; each tries again when it fails, after 10 s at the latest. The last one counts.
corruption   A wrong byte, one too many, or an end in order before the last one, seen at either end, at any time.
crash        A process that ended and that nobody ended, or `panicked` in a log.
left over    After the load and the idle times: a stream; a circuit that is no spare one; a lane of no link; cells reserved beyond what
             idle circuits keep; half-hops of no circuit. Of every process, also those that were killed and came back.
resident     Least squares through the resident memory of the longest life of each process, from {WARM_UP_S // 60} min of load on; judged where that
             is {LEAST_S // 60} min or more. {', '.join(LASTING)} are never killed. The error given takes samples as independent, which they
             are not."""

SUCCESS_PERCENT, RECOVERY_S, SLOPE_MIB_H = 99.5, BOUND_S, 8
SAMPLE_S = 5
# What an idle circuit keeps in each direction, and how many circuits a client keeps ready.
IDLE_CELLS, SPARES = 4, 2
# Until all that was used is gone: circuits live for 2 min, then what is idle is given back after 5 s.
QUIET_S = 180


def say(line):
    print(line, flush=True)


def free_places(count, clients):
    """Addresses of loopback that nobody else uses, and ports for the clients."""
    draw = random.SystemRandom()
    for _ in range(100):
        net = f"127.{draw.randrange(64, 250)}.{draw.randrange(256)}"
        sockets = []
        try:
            for number in range(count):
                sockets.append(socket.create_server((f"{net}.{number + 1}", 0)))
            for _ in range(clients):
                sockets.append(socket.create_server(("127.0.0.1", 0)))
            names = [f"{host}:{port}" for host, port in (one.getsockname() for one in sockets)]
            return names[:count], [int(name.rpartition(":")[2]) for name in names[count:]]
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise Failed("no free addresses on loopback")


class Soak:
    """One run."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.work = tempfile.mkdtemp(prefix="port17-soak-", dir="/tmp")
        self.mesh = Mesh(arguments.binary, self.work, arguments.logs, say)
        self.origin = Origin()
        self.load = self.faults = None
        self.mounted = []
        self.began = self.load_began = None
        self.baseline = self.after = None
        self.interrupted = False
        self.late = []

    async def run(self):
        """Everything; the report as a dictionary."""
        loop = asyncio.get_running_loop()
        body = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, body)
        try:
            await self._form()
            await self._soak()
            await self._quiet()
        except asyncio.CancelledError:
            self.interrupted = True
            say("interrupted: ending in order")
        finally:
            await self._end()
        return self._report()

    def _interrupt(self, body):
        if not self.mesh.ending:
            body.cancel()

    async def _form(self):
        addresses, ports = free_places(NODES, len(CLIENTS))
        await self.origin.start()
        self._mount()
        began = time.monotonic()
        await self.mesh.form(addresses, ports)
        say(f"{NODES} nodes and {len(CLIENTS)} clients, ready after {time.monotonic() - began:.1f} s")
        self.load = Load(self.arguments.seed, self.origin, self.mesh.clients, addresses[0])
        self.faults = Faults(self.arguments.seed, self.arguments.only, self.mesh, self.load, self.mounted, say)
        self.baseline = await self._await_nothing_left(30)

    def _mount(self):
        """A small file system for each state directory whose disk may be full; without root there is none of these faults."""
        for number in range(1, NODES + 1):
            name = f"node-{number}"
            state = os.path.join(self.work, name, "state")
            os.makedirs(state, mode=0o700)
            mounted = name not in LASTING and os.geteuid() == 0 and subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "port17-soak", state], check=False, stderr=subprocess.DEVNULL).returncode == 0
            if mounted:
                self.mounted.append(state)

    async def _soak(self):
        self.began = self.load_began = time.monotonic()
        until = self.began + 60 * self.arguments.minutes
        self.load.start()
        sampling = asyncio.create_task(self._sample(until))
        try:
            await self.faults.run(until)
            await asyncio.sleep(max(0, until - time.monotonic()))
            await self.load.stop()
        finally:
            sampling.cancel()

    async def _sample(self, until):
        """Resident memory each few seconds, a line each minute."""
        minute = 1
        while True:
            for member in self.mesh.members.values():
                kib = member.resident_kib()
                if kib is not None:
                    member.life.resident.append((time.monotonic(), kib))
            if time.monotonic() >= self.began + 60 * minute:
                self._minute(minute)
                minute += 1
            await asyncio.sleep(SAMPLE_S)

    def _minute(self, minute):
        ended = [stream for stream in self.load.streams if stream.ended]
        groups = figures.success(ended, self.faults.done)
        judged, everything = figures.share(groups["judged"]), figures.share(groups["all"])
        recoveries = [fault.recovery_s for fault in self.faults.done if fault.recovery_s is not None]
        lasting = " ".join(f"{name} {self.mesh.members[name].resident_kib() / 1024:.0f}" for name in LASTING)
        say(f"minute {minute}: {everything['streams']} streams, success {judged['percent']} % of {judged['streams']} judged, "
            f"{everything['percent']} % of all; {len(self.faults.done)} faults, recovery most "
            f"{max(recoveries, default=0):.2f} s; {self.origin.bytes / 1e6:.0f} MB; RSS MiB: {lasting}")

    async def _await_nothing_left(self, patience):
        """What all hold once nothing is left over; or what they hold when that takes too long."""
        until = time.monotonic() + patience
        while True:
            objects = await self._objects()
            if not objects.left_over(IDLE_CELLS, SPARES, HOPS) or time.monotonic() > until:
                return objects
            await asyncio.sleep(1)

    async def _objects(self):
        members = self.mesh.members
        statuses = dict(zip(members, await asyncio.gather(*(member.ask() for member in members.values()))))
        return Objects(statuses, {name: member.descriptors() for name, member in members.items()})

    async def _quiet(self):
        say("the load has ended; waiting for what it used to be given back")
        self.after = await self._await_nothing_left(QUIET_S)

    async def _end(self):
        for task in self.load.tasks if self.load else []:
            task.cancel()
        self.late = await self.mesh.stop()
        self.origin.stop()
        for state in self.mounted:
            subprocess.run(["umount", "--lazy", state], check=False)
        shutil.rmtree(self.work, ignore_errors=True)

    # ---- The report ----

    def _report(self):
        corrupt = (self.load.corrupt if self.load else []) + self.origin.wrong
        done = [stream for stream in (self.load.streams if self.load else []) if stream.ended]
        faults = self.faults.done if self.faults else []
        groups = figures.success(done, [fault for fault in faults if fault.began])
        recoveries = [fault.recovery_s for fault in faults if fault.recovery_s is not None]
        probes = [seconds for fault in faults for seconds in fault.probes.values()]
        report = {
            "seed": self.arguments.seed, "minutes": self.arguments.minutes, "interrupted": self.interrupted,
            "bytes": self.origin.bytes,
            "success": {name: figures.share(streams) for name, streams in groups.items()},
            "kinds": {kind: figures.share([stream for stream in groups["judged"] if stream.kind == kind])
                      for kind in sorted({stream.kind for stream in done})},
            "failures": count(f"{stream.kind}: {stream.why}" for stream in groups["judged"] if stream.why),
            "failed": [{"at_s": round(stream.began - self.began, 2), "lasted_s": round(stream.ended - stream.began, 2), "client": stream.client,
                        "id": stream.id, "kind": stream.kind, "why": stream.why} for stream in groups["judged"] if stream.why],
            "windows": [{"from_s": round(fault.began - self.began, 2), "to_s": round(fault.closed - self.began, 2), "what": fault.words() + fault.role,
                         "recovery_s": rounded(fault.recovery_s)} for fault in faults if fault.closed],
            "faults": count(fault.kind for fault in faults),
            "recovery": {"faults": len(recoveries), "p50_s": rounded(figures.percentile(recoveries, 0.5)),
                         "p99_s": rounded(figures.percentile(recoveries, 0.99)), "most_s": rounded(max(recoveries, default=None)),
                         "probes": len(probes), "probe_p50_s": rounded(figures.percentile(probes, 0.5)),
                         "probe_p99_s": rounded(figures.percentile(probes, 0.99))},
            "slow": [f"{fault.words()}{fault.role}: {fault.probes}" for fault in faults
                     if fault.recovery_s is not None and fault.recovery_s > BOUND_S],
            "corruption": corrupt, "crashes": self.mesh.crashes + self.mesh.panics(), "ended_late": self.late,
            "left_over": self.after.left_over(IDLE_CELLS, SPARES, HOPS) if self.after else ["not looked for"],
            "objects": self._objects_table(),
            "resident": {name: figures.resident(member, self.load_began or 0)
                         for name, member in self.mesh.members.items() if member.lives},
            "log": self.mesh.errors(),
        }
        report["broken"] = broken(report)
        return report

    def _objects_table(self):
        if not self.after or not self.baseline:
            return {}
        table = {}
        for name in self.mesh.members:
            before, after = self.baseline.of(name), self.after.of(name)
            if not before or not after:
                continue
            table[name] = {kind: {**after[kind], "destroyed": after[kind]["created"] - after[kind]["live"], "live_before": before[kind]["live"]}
                           for kind in Objects.KINDS}
            table[name].update(reserved_cells=after["reserved_cells"], reserved_cells_before=before["reserved_cells"],
                               live_bytes=2048 * after["reserved_cells"],
                               descriptors=self.after.descriptors[name], descriptors_before=self.baseline.descriptors[name],
                               counts=self.after.statuses[name].get("counts", {}))
        return table


def count(words):
    counted = {}
    for word in words:
        counted[word] = counted.get(word, 0) + 1
    return dict(sorted(counted.items(), key=lambda item: -item[1]))


def rounded(value):
    return None if value is None else round(value, 2)


def broken(report):
    """The bounds that do not hold, in words."""
    percent = report["success"]["judged"]["percent"]
    said = []
    if percent is None or percent < SUCCESS_PERCENT:
        said.append(f"success {percent} % is below {SUCCESS_PERCENT} %")
    p99 = report["recovery"]["p99_s"]
    if p99 is not None and p99 > RECOVERY_S:
        said.append(f"recovery p99 {p99} s is above {RECOVERY_S} s")
    for what in ("corruption", "crashes", "left_over"):
        said.extend(f"{what}: {words}" for words in report[what][:10])
    said.extend(f"{name} did not end in order" for name in report["ended_late"])
    for name, found in report["resident"].items():
        if found["judged"] and found["slope_mib_h"] > SLOPE_MIB_H:
            said.append(f"{name} grows by {found['slope_mib_h']} ± {found['slope_error']} MiB/h, above {SLOPE_MIB_H}")
    return said


def show(report):
    say("")
    for name, found in report["success"].items():
        say(f"success, {name:<14} {found['percent']} % of {found['streams']} streams")
    for kind, found in report["kinds"].items():
        say(f"  {kind:<20} {found['percent']} % of {found['streams']}")
    for why, times in list(report["failures"].items())[:20]:
        say(f"  failed {times} times   {why}")
    recovery = report["recovery"]
    say(f"recovery               p50 {recovery['p50_s']} s, p99 {recovery['p99_s']} s, most {recovery['most_s']} s "
        f"of {recovery['faults']} faults; single probes p50 {recovery['probe_p50_s']} s, p99 {recovery['probe_p99_s']} s")
    for words in report["slow"]:
        say(f"  {words}")
    say(f"faults                 {', '.join(f'{times} {kind}' for kind, times in report['faults'].items())}")
    say(f"{'member':<10} {'lives':>5} {'judged min':>10} {'MiB/h':>16} {'RSS MiB':>9} {'most':>6}   live (created): lanes, half-hops, edges, streams; cells; fds")
    for name, found in report["resident"].items():
        steep = f"{found['slope_mib_h']} ± {found['slope_error']}" if "slope_mib_h" in found else "-"
        note = "" if found["judged"] else " *"
        objects = report["objects"].get(name)
        held = ""
        if objects:
            held = ", ".join(f"{objects[kind]['live']} ({objects[kind]['created']})" for kind in Objects.KINDS)
            held += f"; {objects['reserved_cells']} (before {objects['reserved_cells_before']}); {objects['descriptors']} (before {objects['descriptors_before']})"
        say(f"{name:<10} {found['lives']:>5} {found['judged_minutes']:>10} {steep + note:>16} {found['rss_last_mib'] or '-':>9} {found['rss_most_mib'] or '-':>6}   {held}")
    say(f"* lived less than {LEAST_S // 60} min beyond the first {WARM_UP_S // 60}: not judged")
    for line, times in list(report["log"].items())[:12]:
        say(f"log {times:>5} x {line}")
    say("")
    for words in report["broken"]:
        say(f"BROKEN {words}")
    say(f"to repeat: ./test soak --minutes {report['minutes']:g} --seed {report['seed']}")
    say("interrupted" if report["interrupted"] else f"{len(report['broken'])} bounds broken" if report["broken"] else "all bounds hold")


def main():
    parser = argparse.ArgumentParser(prog="./test soak", description=__doc__ + DEFINITIONS, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="the release binary")
    parser.add_argument("--logs", required=True, help="where the members' logs go")
    parser.add_argument("--minutes", type=float, default=30, help="how long the load lasts (30)")
    parser.add_argument("--seed", type=int, default=1, help="what the faults and the load are drawn by (1)")
    parser.add_argument("--only", nargs="+", default=(), choices=faults_of.KINDS, metavar="KIND",
                        help=f"only these faults, of: {', '.join(faults_of.KINDS)}")
    parser.add_argument("--json", metavar="FILE", help="the report as JSON")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.logs, ignore_errors=True)
    os.makedirs(arguments.logs)
    say(f"soak: {arguments.minutes:g} min, seed {arguments.seed}\n\n{DEFINITIONS}\n")
    planned = faults_of.schedule(arguments.seed, arguments.only)
    say("faults: " + ", ".join(next(planned).words() for _ in range(min(30, int(arguments.minutes * 5)))) + ", …\n")
    try:
        report = asyncio.run(Soak(arguments).run())
    except Failed as failed:
        say(f"soak: {failed}")
        return 1
    show(report)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    if report["interrupted"]:
        return 130
    return 1 if report["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
