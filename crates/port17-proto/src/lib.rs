//! The pure core of Port17: no sockets, clock, files, threads, async or global randomness (law 2). Time and randomness come in as
//! parameters; actions come out as values.

pub mod bottle;
pub mod bottlerack;
mod cbor;
pub mod circuit;
pub mod crypto;
pub mod identity;
pub mod ids;
pub mod lane;
pub mod limits;
pub mod navigator;
pub mod network;
pub mod node;
pub mod params;
pub mod planted;
pub mod policy;
pub mod portname;
pub mod timers;
pub mod wire;
