//! The data plane in memory: lanes, relays, exits and clients on the shipped code, in virtual time (spec 05, 06).

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

#[path = "plane/edge.rs"]
mod edge;
#[path = "plane/ending.rs"]
mod ending;
#[path = "plane/lies.rs"]
mod lies;
#[path = "plane/mesh.rs"]
mod mesh;
#[path = "plane/setup.rs"]
mod setup;
#[path = "plane/traffic.rs"]
mod traffic;
