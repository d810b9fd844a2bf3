//! What a listener needs of the mesh: open a stream, then pump bytes.

use std::net::IpAddr;

use bytes::Bytes;

/// Where a connection wants to go: a name that stays unresolved until the exit, or an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A DNS name, lower case, without a trailing dot.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

/// A destination.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Name or address.
    pub host: Host,
    /// TCP port.
    pub port: u16,
}

/// Streams with different isolation keys never share a circuit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Isolation {
    /// User name and password given to the proxy, none where none were asked.
    pub credentials: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why a stream could not be opened; a listener turns it into its protocol's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The target refused the connection.
    #[error("the target refused the connection")]
    Refused,
    /// The target cannot be reached or its name not be resolved.
    #[error("the target cannot be reached, or its name cannot be resolved at the exit")]
    Unreachable,
    /// The exit's policy or the local Portmaster forbids it.
    #[error("the exit's policy does not allow this target")]
    Policy,
    /// Nobody answered in time.
    #[error("no answer in time")]
    Timeout,
    /// A limit was reached, here or at the exit.
    #[error("a limit was reached; try again later")]
    Resource,
    /// A peer broke the protocol.
    #[error("the circuit broke")]
    Protocol,
    /// No route: no exit or no links.
    #[error("no route to an exit: the mesh is not connected yet, or no exit allows this target")]
    NoRoute,
}

/// Opens streams through the mesh.
pub struct Tunnel;

/// An open stream.
pub struct TunnelStream;

impl Tunnel {
    /// Opens a stream to `target`; `first_data` travels with the request.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is ever sent directly instead (law 7).
    pub async fn open(&self, target: &Target, isolation: &Isolation, first_data: Bytes) -> Result<TunnelStream, OpenError> {
        let _ = (target, isolation, first_data);
        Err(OpenError::NoRoute)
    }
}

impl TunnelStream {
    /// Copies both ways until both directions have ended; a half-close travels as one.
    pub async fn pump<R, W>(self, from_app: R, to_app: W)
    where
        R: tokio::io::AsyncRead + Unpin + Send,
        W: tokio::io::AsyncWrite + Unpin + Send,
    {
        let _ = (from_app, to_app);
    }
}
