//! SOCKS5 (RFC 1928, RFC 1929), SOCKS4 and SOCKS4a.
//!
//! CONNECT alone is served so far. Credentials are not checked: they keep streams apart. Where a SOCKS5 client offers both ways, it
//! is asked for its credentials, since that is the only way it has to be kept apart.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Bytes, BytesMut};
use port17_proto::limits;
use port17_proto::planted::planted;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::listener::{Entrance, OpenStream, Refusal, close_with};
use super::name;
use super::tunnel::{Host, Isolation, OpenError, Target};
use crate::edge::pump_socket;
use crate::planted;

pub(super) const VERSION_5: u8 = 5;
pub(super) const VERSION_4: u8 = 4;

const COMMAND_CONNECT: u8 = 1;
const METHOD_NONE: u8 = 0;
const METHOD_PASSWORD: u8 = 2;
const METHOD_UNACCEPTABLE: u8 = 0xff;
const PASSWORD_VERSION: u8 = 1;
const ADDRESS_IPV4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_IPV6: u8 = 4;
const GRANTED_4: u8 = 0x5a;
const REJECTED_4: u8 = 0x5b;

/// The reply codes of RFC 1928, section 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Reply {
    Succeeded = 0,
    GeneralFailure = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    TtlExpired = 6,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

impl Reply {
    /// The reply with an unspecified bound address: which one an exit used tells nobody anything.
    fn message(self) -> [u8; 10] {
        [VERSION_5, self as u8, 0, ADDRESS_IPV4, 0, 0, 0, 0, 0, 0]
    }

    fn of(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rule | Refusal::Open(OpenError::Policy) => Self::NotAllowed,
            Refusal::Open(OpenError::Refused) => Self::ConnectionRefused,
            Refusal::Open(OpenError::Unreachable) => Self::HostUnreachable,
            Refusal::Open(OpenError::Timeout) => Self::TtlExpired,
            Refusal::Open(OpenError::NoRoute) => Self::NetworkUnreachable,
            Refusal::Open(OpenError::Resource | OpenError::Protocol) => Self::GeneralFailure,
        }
    }
}

/// Why a negotiation ended without a request.
#[derive(Debug)]
pub enum Failure {
    /// The client is told and the connection closed.
    Reply(Vec<u8>),
    /// The client is gone.
    Gone,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<Reply> for Failure {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply.message().to_vec())
    }
}

/// What a client asks for.
#[derive(Debug)]
pub struct Request {
    /// Where to.
    pub target: Target,
    /// What its streams are kept apart by.
    pub isolation: Isolation,
}

/// Reads what a client sends, keeping what came too early.
pub struct Reader<S> {
    stream: S,
    early: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<S> {
    /// Nothing has been read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, early: BytesMut::with_capacity(1024) }
    }

    /// The client's connection, and what came behind the request.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.early.freeze())
    }

    /// The next `count` bytes. What is kept is bounded by the longest message, 513 bytes, and one read.
    async fn take(&mut self, count: usize) -> io::Result<BytesMut> {
        while self.early.len() < count {
            self.fill().await?;
        }
        Ok(self.early.split_to(count))
    }

    async fn byte(&mut self) -> io::Result<u8> {
        Ok(self.take(1).await?[0])
    }

    /// Bytes up to a zero, which is removed; none when there are more than `limit`.
    async fn take_to_zero(&mut self, limit: usize) -> io::Result<Option<BytesMut>> {
        loop {
            if let Some(end) = self.early.iter().take(limit + 1).position(|byte| *byte == 0) {
                let mut bytes = self.early.split_to(end + 1);
                bytes.truncate(end);
                return Ok(Some(bytes));
            }
            if self.early.len() > limit {
                return Ok(None);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.early).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Serves a connection whose first byte is 5.
pub(super) async fn serve5<T: OpenStream>(stream: TcpStream, peer: SocketAddr, entrance: &Entrance<T>) {
    let refused = |refusal| Reply::of(refusal).message().to_vec();
    let mut reader = Reader::new(stream);
    let negotiated = tokio::time::timeout(entrance.deadlines().handshake, negotiate5(&mut reader)).await;
    serve(reader, negotiated.unwrap_or(Err(Failure::Gone)), peer, entrance, &Reply::Succeeded.message(), refused).await;
}

/// Serves a connection whose first byte is 4.
pub(super) async fn serve4<T: OpenStream>(stream: TcpStream, peer: SocketAddr, entrance: &Entrance<T>) {
    let refused = |_| message4(REJECTED_4).to_vec();
    let mut reader = Reader::new(stream);
    let negotiated = tokio::time::timeout(entrance.deadlines().handshake, negotiate4(&mut reader)).await;
    serve(reader, negotiated.unwrap_or(Err(Failure::Gone)), peer, entrance, &message4(GRANTED_4), refused).await;
}

fn message4(code: u8) -> [u8; 8] {
    [0, code, 0, 0, 0, 0, 0, 0]
}

async fn serve<T: OpenStream>(
    reader: Reader<TcpStream>,
    negotiated: Result<Request, Failure>,
    peer: SocketAddr,
    entrance: &Entrance<T>,
    granted: &[u8],
    refused: impl Fn(Refusal) -> Vec<u8>,
) {
    let (mut stream, early) = reader.into_parts();
    let request = match negotiated {
        Ok(request) => request,
        Err(Failure::Reply(reply)) => return close_with(stream, &reply).await,
        Err(Failure::Gone) => return,
    };
    let opened = match entrance.open(peer, &request.target, &request.isolation, early).await {
        Ok(opened) => opened,
        Err(_) if planted("leak-direct") => return planted::go_directly(stream, &request.target, granted).await,
        Err(refusal) => return close_with(stream, &refused(refusal)).await,
    };
    if stream.write_all(granted).await.is_err() {
        return;
    }
    pump_socket(opened, stream, Vec::new()).await;
}

/// Negotiates with a client of SOCKS5, whose connection begins with its version, up to its request.
///
/// # Errors
/// What the client is told, or nothing where it is gone.
pub async fn negotiate5<S: AsyncRead + AsyncWrite + Unpin>(reader: &mut Reader<S>) -> Result<Request, Failure> {
    let isolation = authenticate(reader).await?;
    let head = reader.take(4).await?;
    if head[0] != VERSION_5 {
        return Err(Reply::GeneralFailure.into());
    }
    let address = read_address(reader, head[3]).await?;
    if head[1] != COMMAND_CONNECT {
        return Err(Reply::CommandNotSupported.into());
    }
    let port = reader.take(2).await?;
    let target = target_of(address, u16::from_be_bytes([port[0], port[1]])).ok_or(Reply::HostUnreachable)?;
    Ok(Request { target, isolation })
}

async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(reader: &mut Reader<S>) -> Result<Isolation, Failure> {
    let _version = reader.byte().await?;
    let count = usize::from(reader.byte().await?);
    let offered = reader.take(count).await?;
    if offered.contains(&METHOD_PASSWORD) {
        reader.stream.write_all(&[VERSION_5, METHOD_PASSWORD]).await?;
        return read_password(reader).await;
    }
    if !offered.contains(&METHOD_NONE) {
        return Err(Failure::Reply(vec![VERSION_5, METHOD_UNACCEPTABLE]));
    }
    reader.stream.write_all(&[VERSION_5, METHOD_NONE]).await?;
    Ok(Isolation::default())
}

async fn read_password<S: AsyncRead + AsyncWrite + Unpin>(reader: &mut Reader<S>) -> Result<Isolation, Failure> {
    if reader.byte().await? != PASSWORD_VERSION {
        return Err(Failure::Reply(vec![PASSWORD_VERSION, 1]));
    }
    let user = read_short(reader).await?.to_vec();
    let password = read_short(reader).await?.to_vec();
    reader.stream.write_all(&[PASSWORD_VERSION, 0]).await?;
    Ok(Isolation { credentials: Some((user, password)) })
}

/// Bytes after their length in one byte.
async fn read_short<S: AsyncRead + AsyncWrite + Unpin>(reader: &mut Reader<S>) -> io::Result<BytesMut> {
    let length = usize::from(reader.byte().await?);
    reader.take(length).await
}

enum Address {
    Ip(IpAddr),
    Name(Bytes),
}

async fn read_address<S: AsyncRead + AsyncWrite + Unpin>(reader: &mut Reader<S>, kind: u8) -> Result<Address, Failure> {
    match kind {
        ADDRESS_IPV4 => {
            let bytes = reader.take(4).await?;
            Ok(Address::Ip(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()))
        }
        ADDRESS_IPV6 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&reader.take(16).await?);
            Ok(Address::Ip(Ipv6Addr::from(octets).into()))
        }
        ADDRESS_NAME => Ok(Address::Name(read_short(reader).await?.freeze())),
        _ => Err(Reply::AddressTypeNotSupported.into()),
    }
}

/// None for what nothing can be reached at.
fn target_of(address: Address, port: u16) -> Option<Target> {
    match address {
        Address::Ip(ip) => (port != 0).then_some(Target { host: Host::Ip(ip), port }),
        Address::Name(text) => name::target(std::str::from_utf8(&text).ok()?, port).ok(),
    }
}

/// As [`negotiate5`], with a client of SOCKS4 or SOCKS4a.
///
/// # Errors
/// What the client is told, or nothing where it is gone.
pub async fn negotiate4<S: AsyncRead + AsyncWrite + Unpin>(reader: &mut Reader<S>) -> Result<Request, Failure> {
    let rejected = || Failure::Reply(message4(REJECTED_4).to_vec());
    let head = reader.take(8).await?;
    let user = reader.take_to_zero(limits::SOCKS_CREDENTIAL_BYTES).await?.ok_or_else(rejected)?;
    let address = match [head[4], head[5], head[6], head[7]] {
        // SOCKS4a: 0.0.0.x, x not 0, says that a name follows.
        [0, 0, 0, last] if last != 0 => {
            Address::Name(reader.take_to_zero(limits::HOST_NAME_BYTES).await?.ok_or_else(rejected)?.freeze())
        }
        octets => Address::Ip(Ipv4Addr::from(octets).into()),
    };
    if head[1] != COMMAND_CONNECT {
        return Err(rejected());
    }
    let target = target_of(address, u16::from_be_bytes([head[2], head[3]])).ok_or_else(rejected)?;
    let credentials = (!user.is_empty()).then(|| (user.to_vec(), Vec::new()));
    Ok(Request { target, isolation: Isolation { credentials } })
}
