//! A proxy port, the tunnel behind it and the origin behind that.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use port17::client::listener::{Deadlines, Entrance, OpenStream, ProxyListener, PumpStream};
use port17::client::tunnel::{Host, Isolation, OpenError, Target};
use port17::edge::StreamBroken;
use port17::portmaster::Portmaster;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Nothing here takes as long; a test that meets it has found a hang.
pub(crate) const HANG: Duration = Duration::from_secs(20);

/// What the tunnel was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) target: Target,
    pub(crate) isolation: Isolation,
    pub(crate) first_data: Bytes,
}

/// Names ending in `.fails` give the error of that name, `never.test` never an answer; all others are the origin.
pub(crate) struct FakeTunnel {
    origin: SocketAddr,
    opened: Mutex<Vec<Opened>>,
}

pub(crate) const FAILURES: [(&str, OpenError); 7] = [
    ("refused.fails", OpenError::Refused),
    ("unreachable.fails", OpenError::Unreachable),
    ("policy.fails", OpenError::Policy),
    ("timeout.fails", OpenError::Timeout),
    ("resource.fails", OpenError::Resource),
    ("protocol.fails", OpenError::Protocol),
    ("noroute.fails", OpenError::NoRoute),
];

impl OpenStream for FakeTunnel {
    type Stream = FakeStream;

    async fn open(&self, target: &Target, isolation: &Isolation, first_data: Bytes) -> Result<FakeStream, OpenError> {
        let opened = Opened { target: target.clone(), isolation: isolation.clone(), first_data: first_data.clone() };
        self.opened.lock().unwrap().push(opened);
        if let Host::Name(name) = &target.host {
            if let Some((_, error)) = FAILURES.iter().find(|(failing, _)| failing == name) {
                return Err(*error);
            }
            if name == "never.test" {
                std::future::pending::<()>().await;
            }
        }
        let stream = TcpStream::connect(self.origin).await.map_err(|_| OpenError::Refused)?;
        Ok(FakeStream { stream, first_data })
    }
}

pub(crate) struct FakeStream {
    stream: TcpStream,
    first_data: Bytes,
}

impl PumpStream for FakeStream {
    async fn pump<R, W>(self, mut from_app: R, mut to_app: W) -> Result<(), StreamBroken>
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let (mut from_origin, mut to_origin) = self.stream.into_split();
        let forward = async {
            let _ = to_origin.write_all(&self.first_data).await;
            let _ = tokio::io::copy(&mut from_app, &mut to_origin).await;
            let _ = to_origin.shutdown().await;
        };
        let backward = async {
            let _ = tokio::io::copy(&mut from_origin, &mut to_app).await;
            let _ = to_app.shutdown().await;
        };
        tokio::join!(forward, backward);
        Ok(())
    }
}

pub(crate) struct World {
    pub(crate) proxy: SocketAddr,
    tunnel: Arc<FakeTunnel>,
    _tasks: JoinSet<()>,
}

impl World {
    /// An origin that sends back what it gets.
    pub(crate) async fn echo() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = socket.local_addr().unwrap();
        let serving = async move {
            loop {
                let (mut stream, _) = socket.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        };
        Self::with(origin, serving, Portmaster::new()).await
    }

    pub(crate) async fn with(
        origin: SocketAddr,
        serving: impl Future<Output = ()> + Send + 'static,
        portmaster: Portmaster,
    ) -> Self {
        let tunnel = Arc::new(FakeTunnel { origin, opened: Mutex::default() });
        let deadlines = Deadlines { handshake: Duration::from_millis(500), open: Duration::from_millis(300) };
        let entrance = Arc::new(Entrance::new(Arc::clone(&tunnel), portmaster).with_deadlines(deadlines));
        let listener = ProxyListener::bind("127.0.0.1:0".parse().unwrap(), entrance).await.unwrap();
        let proxy = listener.local_address();
        let mut tasks = JoinSet::new();
        tasks.spawn(serving);
        tasks.spawn(listener.run());
        Self { proxy, tunnel, _tasks: tasks }
    }

    /// What the tunnel was asked for so far.
    pub(crate) fn opened(&self) -> Vec<Opened> {
        self.tunnel.opened.lock().unwrap().clone()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.proxy).await.unwrap()
    }

    /// Sends everything, ends the sending side, and returns all that comes back until the end.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        read_all(&mut stream).await
    }

    /// Sends everything, keeps the sending side open, and returns all that comes back until the other side ends.
    pub(crate) async fn exchange_open(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_all(&mut stream).await
    }
}

pub(crate) async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut out = Vec::new();
    // A reset after the answer is an end as well.
    let _ = tokio::time::timeout(HANG, stream.read_to_end(&mut out)).await.expect("the proxy hangs");
    out
}

pub(crate) async fn read_exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut out = vec![0; count];
    tokio::time::timeout(HANG, stream.read_exact(&mut out)).await.expect("the proxy hangs").unwrap();
    out
}

pub(crate) fn named(host: &str, port: u16) -> Target {
    Target { host: Host::Name(host.into()), port }
}

pub(crate) fn credentials(user: &[u8], password: &[u8]) -> Isolation {
    Isolation { credentials: Some((user.to_vec(), password.to_vec())) }
}
