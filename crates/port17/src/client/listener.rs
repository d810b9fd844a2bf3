//! The proxy port: SOCKS5, SOCKS4, SOCKS4a and HTTP on one socket; the first byte tells which.
//!
//! Every connection passes the Portmaster and goes into the tunnel or is refused: there is no code here that could dial a target
//! (law 7). A client that is slow with its request, or stops in the middle, meets a deadline.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use port17_proto::limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::tunnel::{Isolation, OpenError, Target, Tunnel, TunnelStream};
use super::{http, socks};
pub use crate::edge::PumpStream;
use crate::portmaster::{Connection, Entry, Portmaster, Verdict};

/// What a listener needs of the mesh; [`Tunnel`] has it, and in tests something that needs no mesh.
pub trait OpenStream: Send + Sync + 'static {
    /// An open stream.
    type Stream: PumpStream;

    /// Opens a stream to `target`; `first_data` travels with the request.
    ///
    /// # Errors
    /// See [`OpenError`].
    fn open(
        &self,
        target: &Target,
        isolation: &Isolation,
        first_data: Bytes,
    ) -> impl Future<Output = Result<Self::Stream, OpenError>> + Send;
}

impl OpenStream for Tunnel {
    type Stream = TunnelStream;

    async fn open(&self, target: &Target, isolation: &Isolation, first_data: Bytes) -> Result<TunnelStream, OpenError> {
        Tunnel::open(self, target, isolation, first_data).await
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// From accepting a connection to its complete request; for HTTP from one request's end to the next one's head.
    pub handshake: Duration,
    /// For opening a stream, whatever the mesh does meanwhile.
    pub open: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(30), open: Duration::from_secs(60) }
    }
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The Portmaster does not tunnel it.
    #[error("a rule on this machine does not let this connection into the tunnel")]
    Rule,
    /// The mesh could not open it.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What all connections of a proxy port share: the review, then the way into the mesh.
pub struct Entrance<T> {
    tunnel: Arc<T>,
    portmaster: Portmaster,
    deadlines: Deadlines,
}

impl<T: OpenStream> Entrance<T> {
    /// An entrance to `tunnel` with the usual deadlines.
    pub fn new(tunnel: Arc<T>, portmaster: Portmaster) -> Self {
        Self { tunnel, portmaster, deadlines: Deadlines::default() }
    }

    /// Changes the deadlines.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// The deadlines.
    pub fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    /// Reviews the connection and opens its stream.
    ///
    /// # Errors
    /// When a rule or the mesh refuses it; nothing was sent then.
    pub async fn open(
        &self,
        peer: SocketAddr,
        target: &Target,
        isolation: &Isolation,
        first_data: Bytes,
    ) -> Result<T::Stream, Refusal> {
        let options = match self.portmaster.review(&Connection { entry: Entry::Proxy, peer, target, isolation }) {
            Verdict::Tunnel(options) => options,
            // The application asked for the tunnel: not having one is no reason to go without (law 7).
            Verdict::Direct | Verdict::Block => return Err(Refusal::Rule),
        };
        let opening = self.tunnel.open(target, &options.isolation, first_data);
        let opened = tokio::time::timeout(self.deadlines.open, opening).await.unwrap_or(Err(OpenError::Timeout));
        opened.map_err(|error| {
            tracing::debug!(%error, "no stream");
            Refusal::Open(error)
        })
    }
}

/// The proxy port cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen for proxy connections at {address}: {source}; if another program has this port, name another one by `proxy = …` under [client]"
)]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// The proxy port.
pub struct ProxyListener<T> {
    socket: TcpListener,
    local: SocketAddr,
    entrance: Arc<Entrance<T>>,
    places: Arc<Semaphore>,
}

impl<T: OpenStream> ProxyListener<T> {
    /// Opens the port; port 0 lets the system choose.
    ///
    /// # Errors
    /// When the system refuses it.
    pub async fn bind(address: SocketAddr, entrance: Arc<Entrance<T>>) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, local, entrance, places: Arc::new(Semaphore::new(limits::PROXY_CONNECTIONS)) })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Serves connections; never returns. Dropping the future closes the port and all its connections.
    pub async fn run(self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(&mut connections, stream, peer),
                    Err(error) => pause_after(&error).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    fn admit(&self, connections: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::warn!(limit = limits::PROXY_CONNECTIONS, "too many proxy connections: one was closed");
            return;
        };
        connections.spawn(serve(stream, peer, Arc::clone(&self.entrance), place));
    }
}

/// Without a file descriptor left, accept fails at once and again: let some connections end first.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "a proxy connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn serve<T: OpenStream>(stream: TcpStream, peer: SocketAddr, entrance: Arc<Entrance<T>>, place: OwnedSemaphorePermit) {
    let _place = place;
    // Failing only costs latency.
    let _ = stream.set_nodelay(true);
    let mut first = [0; 1];
    let Ok(Ok(1)) = tokio::time::timeout(entrance.deadlines.handshake, stream.peek(&mut first)).await else { return };
    match first[0] {
        socks::VERSION_5 => socks::serve5(stream, peer, &entrance).await,
        socks::VERSION_4 => socks::serve4(stream, peer, &entrance).await,
        _ => http::serve(stream, peer, entrance).await,
    }
}

/// Bytes a client may still send after its refusal, and how long.
const LINGER_BYTES: u64 = 64 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// Sends a last reply and closes. What the client still sends is read for a moment: closing a socket with unread bytes resets the
/// connection, and the reply would be lost with it.
pub(super) async fn close_with(mut stream: TcpStream, reply: &[u8]) {
    let farewell = async {
        stream.write_all(reply).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Whether the client has read it is its own matter.
    let _ = tokio::time::timeout(LINGER, farewell).await;
}
