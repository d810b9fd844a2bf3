//! The tasks and sockets around the core.

use std::future::Future;

use crate::config::Config;

/// Why a daemon could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// This part of the software is not there.
    #[error("this build has no daemon")]
    Absent,
}

/// Runs a node until `stop` is ready, then ends it in order.
///
/// # Errors
/// When it cannot start or has to end.
pub async fn run_node(config: Config, stop: impl Future<Output = ()> + Send) -> Result<(), DaemonError> {
    let _ = (config, stop);
    Err(DaemonError::Absent)
}

/// Runs a client until `stop` is ready, then ends it in order.
///
/// # Errors
/// When it cannot start or has to end.
pub async fn run_client(config: Config, stop: impl Future<Output = ()> + Send) -> Result<(), DaemonError> {
    let _ = (config, stop);
    Err(DaemonError::Absent)
}
