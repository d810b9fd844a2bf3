//! How lanes come about: listening, dialling, and the limits before a handshake is done.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use port17_proto::crypto::{SigningKey, VerifyingKey};
use port17_proto::identity::LinkKey;
use port17_proto::limits::{HANDSHAKE_ADDRESSES, HANDSHAKES};
use port17_proto::node::io::{DialFailure, DialId};
use port17_proto::params::{Params, Rate};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use super::DaemonError;
use crate::lane::lock;
use crate::lane::tls::{self, Established, HandshakeError};

/// What became of a connection.
pub(super) enum LaneAttempt {
    /// Its handshake is complete.
    Up { connection: Box<Established>, dialled: Option<DialId>, remote: SocketAddr },
    /// A dial led nowhere.
    Failed { dial: DialId, why: DialFailure },
}

/// What waits in the kernel before it is accepted.
const BACKLOG: i32 = 1024;
/// Unsent bytes that the kernel holds for a lane: what waits longer waits in our queue, where it can be overtaken (spec 05, 3).
const UNSENT_BYTES: u32 = 128 * 1024;

/// A port that accepts lanes.
pub(super) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

/// What holds on all ports of a daemon until a handshake is done.
#[derive(Clone)]
pub(super) struct Reception {
    rates: Arc<Rates>,
    handshake_timeout: Duration,
}

impl Reception {
    pub(super) fn new(params: &Params) -> Self {
        Self { rates: Arc::new(Rates::new(params.handshakes_per_address)), handshake_timeout: params.handshake_timeout }
    }
}

impl Listener {
    pub(super) fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<Self>, DaemonError> {
        let bind = |address: &SocketAddr| {
            let listener = bind(*address).map_err(|error| DaemonError::Listen { address: *address, error })?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        addresses.iter().map(bind).collect()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn run(self, reception: Reception, tls: Arc<ServerConfig>, lanes: mpsc::Sender<LaneAttempt>) {
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        let mut is_failing = false;
        loop {
            // A place first: while there is none, the kernel's backlog waits.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (stream, remote) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                // Whoever connected has left: nobody else is to wait for that.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
                    continue;
                }
                Err(error) => {
                    // Once, not ten times a second.
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, address = %self.address, "cannot accept connections: out of files or memory?");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            is_failing = false;
            if !reception.rates.allows(remote.ip()) {
                continue;
            }
            let (tls, lanes, patience) = (Arc::clone(&tls), lanes.clone(), reception.handshake_timeout);
            tokio::spawn(async move {
                prepare(&stream);
                if let Ok(Ok(connection)) = timeout(patience, tls::accept(stream, tls)).await {
                    // The driver ends only with the daemon.
                    let _ = lanes.send(LaneAttempt::Up { connection: Box::new(connection), dialled: None, remote }).await;
                }
                drop(place);
            });
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Else `[::]` would take the IPv4 port as well.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Both are wishes: a lane works without.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
}

/// The key that a dial shows; it stays where it is.
pub(super) enum DialKey {
    Link(Arc<LinkKey>),
    ThrowAway(SigningKey),
}

impl DialKey {
    fn key(&self) -> &SigningKey {
        match self {
            Self::Link(link) => link.key(),
            Self::ThrowAway(key) => key,
        }
    }
}

/// A lane that the engine wants.
pub(super) struct Dial {
    pub(super) dial: DialId,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) expected: Vec<VerifyingKey>,
    pub(super) key: DialKey,
    pub(super) patience: Duration,
}

impl Dial {
    pub(super) async fn run(self, lanes: mpsc::Sender<LaneAttempt>) {
        let mut why = DialFailure::Unreachable;
        for address in &self.addresses {
            match timeout(self.patience, self.connect(*address)).await {
                Ok(Ok(connection)) => {
                    let up = LaneAttempt::Up { connection: Box::new(connection), dialled: Some(self.dial), remote: *address };
                    let _ = lanes.send(up).await;
                    return;
                }
                Ok(Err(failure)) => why = failure,
                Err(_) => why = DialFailure::Timeout,
            }
        }
        let _ = lanes.send(LaneAttempt::Failed { dial: self.dial, why }).await;
    }

    async fn connect(&self, address: SocketAddr) -> Result<Established, DialFailure> {
        let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => DialFailure::Refused,
            io::ErrorKind::TimedOut => DialFailure::Timeout,
            io::ErrorKind::PermissionDenied | io::ErrorKind::AddrInUse | io::ErrorKind::OutOfMemory => DialFailure::Local,
            _ => DialFailure::Unreachable,
        })?;
        prepare(&stream);
        tls::dial(stream, self.key.key(), self.expected.clone()).await.map_err(|error| match error {
            HandshakeError::WrongKey => DialFailure::WrongKey,
            HandshakeError::Io(_) | HandshakeError::Tls(_) => DialFailure::Tls,
        })
    }
}

/// Handshakes of each address in a second: public-key work that anyone can ask for.
struct Rates {
    rate: Rate,
    by_address: Mutex<BTreeMap<IpAddr, (f64, Instant)>>,
}

impl Rates {
    fn new(rate: Rate) -> Self {
        Self { rate, by_address: Mutex::default() }
    }

    fn allows(&self, ip: IpAddr) -> bool {
        let (now, burst, per_second) = (Instant::now(), f64::from(self.rate.burst), f64::from(self.rate.per_second));
        let mut by_address = lock(&self.by_address);
        let earned = |since: Instant| (now - since).as_secs_f64() * per_second;
        if by_address.len() >= HANDSHAKE_ADDRESSES {
            by_address.retain(|_, (left, since)| *left + earned(*since) < burst);
        }
        if by_address.len() >= HANDSHAKE_ADDRESSES && !by_address.contains_key(&ip) {
            return false;
        }
        let (left, since) = by_address.entry(ip).or_insert((burst, now));
        *left = (*left + earned(*since)).min(burst);
        *since = now;
        let allowed = *left >= 1.0;
        if allowed {
            *left -= 1.0;
        }
        allowed
    }
}
