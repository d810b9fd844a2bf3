//! Whole daemons over real sockets on loopback: lanes, the exit, the client.
#![allow(clippy::unwrap_used)]

mod client;
mod control;
mod exit;
mod lanes;
mod mesh;
mod network;
mod origin;
mod peer;
