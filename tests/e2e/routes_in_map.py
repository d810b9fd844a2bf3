"""Says whether every link of a client's circuits is in its map: routes_in_map.py MAP_BEFORE CIRCUITS MAP_AFTER.

Circuits and map cannot be asked for at one moment: a circuit is judged by the maps before and after, and left out while they differ."""

import json
import sys


def links_of(path):
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    names = {node["node_id"]: node["portname"] for node in found["nodes"]}
    return {frozenset(names[node] for node in link["nodes"]) for link in found["links"]}


before, after = links_of(sys.argv[1]), links_of(sys.argv[3])
with open(sys.argv[2], encoding="utf-8") as file:
    circuits = json.load(file)["circuits"]
if before == after:
    for circuit in circuits:
        # A circuit that stood before a link was withdrawn is not built anew.
        if circuit["open"] and circuit["age_s"] > 0:
            continue
        for hop, following in zip(circuit["route"], circuit["route"][1:]):
            if frozenset((hop, following)) not in before:
                print(f"bad: {hop} {following} of a circuit of {circuit['age_s']} s is not in the map")
                sys.exit()
    print("ok", len(circuits), "circuits")
