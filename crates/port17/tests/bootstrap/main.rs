//! Sources of signed lists over real sockets: servers that behave, servers that do not, and when they are asked.
#![allow(clippy::unwrap_used)]

mod fetch;
mod schedule;
mod server;
