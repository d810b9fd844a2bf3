//! The proxy port over real sockets, with a tunnel that connects to a loopback origin instead of a mesh.
#![allow(clippy::unwrap_used)]

mod http;
mod isolation;
mod socks4;
mod socks5;
mod world;
