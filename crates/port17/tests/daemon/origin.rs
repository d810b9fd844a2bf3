//! Servers to reach through a mesh, and applications that do.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::mesh::PATIENCE;

/// A server that counts who reached it.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Origin {
    /// Serves each connection in a thread of its own, as long as the process lives.
    pub(crate) fn serve(ip: impl Into<IpAddr>, answer: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((ip.into(), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let (stream, answer) = (stream.unwrap(), Arc::clone(&answer));
                std::thread::spawn(move || answer(stream));
            }
        });
        Self { address, connections }
    }

    /// Sends back what comes, until it ends.
    pub(crate) fn echo(ip: impl Into<IpAddr>) -> Self {
        Self::serve(ip, |mut stream| {
            let mut back = stream.try_clone().unwrap();
            // A broken connection ends both.
            let _ = io::copy(&mut stream, &mut back);
            let _ = back.shutdown(std::net::Shutdown::Write);
        })
    }

    /// Reads `length seed`, two u64, and answers with that many bytes of [`stream_of`].
    pub(crate) fn bytes(ip: impl Into<IpAddr>) -> Self {
        Self::serve(ip, |mut stream| {
            let mut request = [0; 16];
            if stream.read_exact(&mut request).is_err() {
                return;
            }
            let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
            let mut bytes = stream_of(number(&request[8..])).take(number(&request[..8]));
            let _ = io::copy(&mut bytes, &mut stream);
        })
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Bytes that differ with the seed and the place.
pub(crate) fn stream_of(seed: u64) -> impl Read {
    struct Bytes(u64);
    impl Read for Bytes {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            for eight in out.chunks_mut(8) {
                // SplitMix64.
                self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                eight.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes()[..eight.len()]);
            }
            Ok(out.len())
        }
    }
    // In whole words, however it is read.
    io::BufReader::with_capacity(64 * 1024, Bytes(seed))
}

/// SHA-256 of all that can be read.
pub(crate) fn hash_of(mut from: impl Read) -> io::Result<[u8; 32]> {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(context.finish().as_ref().try_into().unwrap()),
            read => context.update(&buffer[..read]),
        }
    }
}

/// A SOCKS5 reply that is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) u8);

pub(crate) const GENERAL_FAILURE: Refused = Refused(1);
pub(crate) const NOT_ALLOWED: Refused = Refused(2);
pub(crate) const NETWORK_UNREACHABLE: Refused = Refused(3);
pub(crate) const CONNECTION_REFUSED: Refused = Refused(5);
pub(crate) const TTL_EXPIRED: Refused = Refused(6);

/// Connects to an address through the proxy.
pub(crate) fn connect(proxy: SocketAddr, target: SocketAddr) -> Result<TcpStream, Refused> {
    connect_as(proxy, target, None)
}

/// Connects with credentials.
pub(crate) fn connect_as(proxy: SocketAddr, target: SocketAddr, credentials: Option<(&str, &str)>) -> Result<TcpStream, Refused> {
    let mut request = vec![5, 1, 0];
    match target.ip() {
        IpAddr::V4(ip) => request.extend([&[1][..], &ip.octets()].concat()),
        IpAddr::V6(ip) => request.extend([&[4][..], &ip.octets()].concat()),
    }
    request.extend(target.port().to_be_bytes());
    exchange(proxy, &request, credentials)
}

/// Connects to a name.
pub(crate) fn connect_name(proxy: SocketAddr, name: &str, port: u16) -> Result<TcpStream, Refused> {
    let length = u8::try_from(name.len()).unwrap();
    let request = [&[5, 1, 0, 3, length][..], name.as_bytes(), &port.to_be_bytes()].concat();
    exchange(proxy, &request, None)
}

fn exchange(proxy: SocketAddr, request: &[u8], credentials: Option<(&str, &str)>) -> Result<TcpStream, Refused> {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let method = if credentials.is_some() { 2 } else { 0 };
    stream.write_all(&[5, 1, method]).unwrap();
    assert_eq!(take(&mut stream), [5, method]);
    if let Some((user, password)) = credentials {
        let short = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        stream.write_all(&[vec![1], short(user), short(password)].concat()).unwrap();
        assert_eq!(take(&mut stream), [1, 0]);
    }
    stream.write_all(request).unwrap();
    let reply: [u8; 10] = take(&mut stream);
    if reply[1] == 0 { Ok(stream) } else { Err(Refused(reply[1])) }
}

fn take<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// One word there and back.
pub(crate) fn assert_echo(stream: &mut TcpStream) {
    stream.write_all(b"hello there").unwrap();
    assert_eq!(&take(stream), b"hello there");
}

/// A connection that the server answers nothing on, ever: its backlog is full.
pub(crate) struct Silent {
    pub(crate) address: SocketAddr,
    _listener: socket2::Socket,
    _waiting: Vec<socket2::Socket>,
}

impl Silent {
    pub(crate) fn at(ip: impl Into<IpAddr>) -> Self {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::new(ip.into(), 0).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let waiting = (0..8).map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            // The first ones fill the queue, the others stay unanswered.
            let _ = socket.connect_timeout(&address.into(), Duration::from_millis(20));
            socket
        });
        Self { address, _waiting: waiting.collect(), _listener: listener }
    }
}
