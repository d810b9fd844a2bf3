//! Circuits: setup, onion layers, hops, streams (spec 06).

mod batch;
pub mod created;
pub mod depth;
pub mod hop;
pub mod keyring;
pub mod message;
pub mod mux;
pub mod onion;
pub mod origin;
pub mod replay;
pub mod schedule;
pub mod setup;
