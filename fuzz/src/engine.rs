//! Engines and meshes of them, as the product's tests drive them.

#![allow(dead_code, reason = "tests use the rest")]

#[path = "../../crates/port17-proto/tests/node/mesh.rs"]
pub(crate) mod mesh;
#[path = "../../crates/port17-proto/tests/node/solo.rs"]
pub(crate) mod solo;
