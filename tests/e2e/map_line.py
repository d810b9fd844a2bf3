"""A map as one line, the same for the same map: the count of linked nodes, their names, and their links."""

import json
import sys

found = json.load(sys.stdin)
names = {node["node_id"]: (node["portname"] or node["node_id"]).split("~")[0] for node in found["nodes"]}
links = sorted("+".join(sorted(names[node] for node in link["nodes"])) for link in found["links"])
linked = sorted({name for link in links for name in link.split("+")})
print(len(linked), *linked, "|", *links)
