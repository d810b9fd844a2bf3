//! The Port17 daemon: sockets, files and tasks around the pure core. It moves bytes; decisions are in `port17-proto`.

pub mod bootstrap;
pub mod bottles;
pub mod client;
pub mod config;
pub mod control;
pub mod daemon;
pub mod edge;
pub mod exit;
pub mod fetcher;
pub mod keystore;
pub mod lane;
pub mod list_file;
pub mod mesh_view;
pub mod network_file;
pub mod objects;
pub mod plane;
pub mod planted;
pub mod portmaster;
pub mod store;
pub mod system;
