"""What is computed of what was seen: percentiles, success, slopes of memory, objects that are left over."""

import bisect
import math

MIB = 1024
# A line through fewer minutes than this says nothing of hours.
LEAST_S = 600
# The first minutes grow in any case: buffers and windows reach their size.
WARM_UP_S = 300


def percentile(values, share):
    """The nearest rank; none of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def slope(samples):
    """Least squares through (seconds, KiB): MiB an hour, and its standard error as if each sample were independent."""
    count = len(samples)
    mean_t = sum(t for t, _ in samples) / count
    mean_y = sum(y for _, y in samples) / count
    spread = sum((t - mean_t) ** 2 for t, _ in samples)
    steep = sum((t - mean_t) * (y - mean_y) for t, y in samples) / spread
    rest = sum((y - mean_y - steep * (t - mean_t)) ** 2 for t, y in samples)
    error = math.sqrt(rest / (count - 2) / spread) if count > 2 else float("inf")
    hour = 3600 / MIB
    return steep * hour, error * hour


def resident(member, load_began):
    """The slope of a member's longest life under load: a dictionary, with `judged` false where it is too short."""
    lives = []
    for life in member.lives:
        after = [(t, kib) for t, kib in life.resident if t >= max(life.began, load_began) + WARM_UP_S]
        lives.append((after[-1][0] - after[0][0] if len(after) > 2 else 0, after, life))
    seconds, samples, life = max(lives, key=lambda it: it[0])
    everything = [kib for _, kib in life.resident]
    found = {"lives": len(member.lives), "judged_minutes": round(seconds / 60, 1), "judged": seconds >= LEAST_S,
             "rss_last_mib": round(everything[-1] / MIB, 1) if everything else None,
             "rss_most_mib": round(max(everything) / MIB, 1) if everything else None}
    if len(samples) > 2:
        steep, error = slope(samples)
        found.update(slope_mib_h=round(steep, 2), slope_error=round(error, 2))
    return found


def success(streams, faults):
    """Streams by how they met the faults: all; opened in no window; those of them that no fault met before their end (judged)."""
    # One fault is over before the next one begins.
    windows = {}
    for fault in faults:
        for client in fault.clients if fault.has_window else ():
            begins, ends = windows.setdefault(client, ([], []))
            begins.append(fault.began)
            ends.append(fault.closed or math.inf)
    groups = {"all": [], "opened_quiet": [], "judged": []}
    for stream in streams:
        groups["all"].append(stream)
        begins, ends = windows.get(stream.client, ([], []))
        following = bisect.bisect_right(begins, stream.began)
        if following and stream.began < ends[following - 1]:
            continue
        groups["opened_quiet"].append(stream)
        if following == len(begins) or stream.ended < begins[following]:
            groups["judged"].append(stream)
    return groups


def share(streams):
    good = sum(stream.why is None for stream in streams)
    return {"streams": len(streams), "good": good, "percent": round(100 * good / len(streams), 3) if streams else None}


class Objects:
    """What all members say that they hold at one moment."""

    KINDS = ("lanes", "half_hops", "edges", "streams")

    def __init__(self, statuses, descriptors):
        self.statuses, self.descriptors = statuses, descriptors

    def of(self, name):
        return (self.statuses[name] or {}).get("objects")

    def total(self, kind):
        return sum(self.of(name)[kind]["live"] for name in self.statuses)

    def reserved(self):
        return sum(self.of(name)["reserved_cells"] for name in self.statuses)

    def left_over(self, idle_cells, spares, hops):
        """Sentences, one for each thing that should not be there when nobody uses the mesh; none when all is well."""
        silent = [f"{name} does not say what it holds" for name in self.statuses if not self.of(name)]
        if silent:
            return silent
        said = []
        clients = [name for name in self.statuses if name.startswith("client")]
        for name, status in self.statuses.items():
            objects = self.of(name)
            if objects["streams"]["live"]:
                said.append(f"{name} has {objects['streams']['live']} streams")
            if objects["setups_waiting"] or objects["inputs_waiting"]:
                said.append(f"{name}: {objects['setups_waiting']} SETUPs and {objects['inputs_waiting']} inputs wait")
            lanes = sum(link["lanes"] for link in status["links"]) + 2 * status["clients"]
            if objects["lanes"]["live"] != lanes:
                said.append(f"{name} has {objects['lanes']['live']} lanes, its links have {lanes}")
            if objects["reserved_cells"] > idle_cells * objects["half_hops"]["live"]:
                said.append(f"{name} has {objects['reserved_cells']} cells reserved for {objects['half_hops']['live']} idle half-hops")
        for name in clients:
            held = self.of(name)
            circuits = self.statuses[name].get("standing", [])
            if held["edges"]["live"] != spares or len(circuits) != spares:
                said.append(f"{name} has {held['edges']['live']} circuits, {len(circuits)} of them standing, and keeps {spares} spare ones")
            if held["half_hops"]["live"] != held["edges"]["live"]:
                said.append(f"{name} has {held['half_hops']['live']} half-hops for {held['edges']['live']} circuits")
        circuits = sum(self.of(name)["edges"]["live"] for name in clients)
        exits = sum(self.of(name)["edges"]["live"] for name in self.statuses if name not in clients)
        if exits != circuits:
            said.append(f"exits have {exits} circuits, clients {circuits}")
        half_hops = 2 * hops * circuits
        if self.total("half_hops") != half_hops:
            said.append(f"{self.total('half_hops')} half-hops of {circuits} circuits: {half_hops} expected")
        return said
