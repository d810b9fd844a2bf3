//! The engine in virtual time: two and more of them wired together, and one alone against a peer that lies.

// A test's modules have no outside to be reached from.
#![allow(unreachable_pub)]
// All of this is test code, also what stands outside of the test functions.
#![allow(clippy::unwrap_used)]

#[path = "node/mesh.rs"]
mod mesh;
#[path = "node/solo.rs"]
mod solo;

#[path = "node/bottles.rs"]
mod bottles;
#[path = "node/gossip.rs"]
mod gossip;
#[path = "node/gossip_lies.rs"]
mod gossip_lies;
#[path = "node/gossip_records.rs"]
mod gossip_records;
#[path = "node/guard.rs"]
mod guard;
#[path = "node/hello.rs"]
mod hello;
#[path = "node/keys.rs"]
mod keys;
#[path = "node/links.rs"]
mod links;
#[path = "node/links_chosen.rs"]
mod links_chosen;
#[path = "node/list.rs"]
mod list;
#[path = "node/scale.rs"]
mod scale;
