//! The client's edge: listeners and the tunnel behind them.

pub mod http;
pub mod listener;
pub mod name;
pub mod socks;
pub mod tunnel;
