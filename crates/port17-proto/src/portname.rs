//! PortNames: a node's unique name, `label~suffix` (spec 03, 3).
