//! A whole mesh in one process and virtual time, on the code that ships: the engine of each host, the queues and readers of its lanes,
//! SETUP, onion layers and streams. Only sockets, TLS, disks and clocks are the simulator's.
//!
//! A [`scenario::Scenario`] and a seed give one run ([`run::run`]); the same two give the same run, which its trace hash shows. What must
//! be true whatever happens stands in `judge`.

pub mod client;
pub mod disk;
pub mod edge;
mod faults;
pub mod geography;
pub mod host;
pub mod judge;
pub mod lane;
pub mod liar;
pub mod plane;
pub mod report;
pub mod run;
pub mod scenario;
pub mod trace;
pub mod world;
