//! The Port17 daemon: sockets, files and tasks around the pure core. It moves bytes; decisions are in `port17-proto`.

pub mod bottles;
pub mod client;
pub mod config;
pub mod control;
pub mod daemon;
pub mod edge;
pub mod exit;
pub mod keystore;
pub mod lane;
pub mod mesh_view;
pub mod plane;
pub mod portmaster;
pub mod store;
pub mod system;
