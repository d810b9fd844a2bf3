//! Portmaster: reviews each new local connection first, and says what becomes of it.
//!
//! There is one rule so far: what comes in at a proxy listener goes into the tunnel. Rules by application, name and country take
//! this same place later; listeners already obey every verdict.

use std::net::SocketAddr;

use crate::client::tunnel::{Isolation, Target};

/// Where a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entry {
    /// The SOCKS and HTTP port: the application asked for the proxy.
    Proxy,
}

/// A new local connection.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// Where it came in.
    pub entry: Entry,
    /// The application's end.
    pub peer: SocketAddr,
    /// Where it wants to go.
    pub target: &'a Target,
    /// What the application gave to be kept apart by.
    pub isolation: &'a Isolation,
}

/// How a tunnelled connection is carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Streams with different keys never share a circuit.
    pub isolation: Isolation,
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes through the mesh.
    Tunnel(Options),
    /// It goes out as if there were no Port17. Never from a proxy listener: that one refuses (law 7).
    Direct,
    /// It is refused.
    Block,
}

/// Decides about connections.
#[derive(Debug, Default)]
pub struct Portmaster {
    always: Option<Verdict>,
}

impl Portmaster {
    /// The built-in rule alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// One verdict for every connection.
    pub fn always(verdict: Verdict) -> Self {
        Self { always: Some(verdict) }
    }

    /// Reviews a connection; called for each one before anything else is done for it.
    pub fn review(&self, connection: &Connection<'_>) -> Verdict {
        if let Some(verdict) = &self.always {
            return verdict.clone();
        }
        match connection.entry {
            Entry::Proxy => Verdict::Tunnel(Options { isolation: connection.isolation.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tunnel::Host;

    #[test]
    fn proxy_connections_are_tunnelled_with_their_isolation() {
        let target = Target { host: Host::Name("a.example".into()), port: 80 };
        let isolation = Isolation { credentials: Some((b"user".to_vec(), b"password".to_vec())) };
        let connection =
            Connection { entry: Entry::Proxy, peer: ([127, 0, 0, 1], 5).into(), target: &target, isolation: &isolation };
        assert_eq!(Portmaster::new().review(&connection), Verdict::Tunnel(Options { isolation: isolation.clone() }));
        assert_eq!(Portmaster::always(Verdict::Block).review(&connection), Verdict::Block);
    }
}
