//! The client's edge: listeners and the tunnel behind them.

pub mod tunnel;
