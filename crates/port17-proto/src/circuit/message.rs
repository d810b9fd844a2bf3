//! Messages inside cells: type u8 | stream u16 | length u16 | data (spec 06, 3).
//!
//! The message areas of a circuit's cells form one byte stream. Headers never split; data may span cells. [`CellReader`] takes the
//! areas apart, [`encode`] writes what is not DATA; DATA is written by the mux, straight into cells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ids::StreamId;
use crate::limits::{HOST_NAME_BYTES, SMALL_MESSAGE_BYTES};
use crate::wire::registry::{CellType, HostKind, MESSAGE_BYTES, MESSAGE_HEADER_BYTES, ResetCode, StreamProtocol};

/// The message area of one cell.
pub type Area = [u8; MESSAGE_BYTES];

/// Where a connection wants to go: a name that stays unresolved until the exit, or an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A DNS name, lower case, without a trailing dot.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

impl Host {
    /// The address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Name(_) => None,
        }
    }
}

/// A destination.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Name or address.
    pub host: Host,
    /// Port.
    pub port: u16,
}

/// A message other than DATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Opens a stream.
    Open {
        /// TCP in this version.
        protocol: StreamProtocol,
        /// Where to.
        target: Target,
    },
    /// The stream is open, to this address; a resolved name's time to live in seconds.
    Opened {
        /// The address the exit dialled.
        ip: IpAddr,
        /// How long it may be remembered, 0 for an address that was given.
        ttl_s: u32,
    },
    /// The sender has no more bytes.
    Fin,
    /// The stream is over.
    Reset(ResetCode),
    /// Bytes of the stream permitted so far.
    Window(u64),
}

/// Something no honest peer sends: the circuit is destroyed, since junk is a side channel (spec 06, 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Junk {
    /// Unassigned or not served in this version, or not allowed in this direction.
    #[error("unexpected message type")]
    Type,
    /// A length that cannot be.
    #[error("message has an impossible length")]
    Length,
    /// Contents that cannot be.
    #[error("message has impossible contents")]
    Contents,
    /// Bytes behind the end are not zero.
    #[error("bytes behind the end of a cell")]
    Padding,
    /// A stream that was never opened, or is over.
    #[error("message for a stream that is not open")]
    Stream,
    /// More bytes than permitted.
    #[error("stream window overrun")]
    Window,
}

/// What [`CellReader`] finds, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The next bytes of a stream.
    Data(StreamId, &'a [u8]),
    /// A whole message.
    Message(StreamId, Message),
}

/// Takes the cells of one direction of a circuit apart.
#[derive(Default)]
pub struct CellReader {
    unfinished: Option<Unfinished>,
}

struct Unfinished {
    kind: CellType,
    stream: StreamId,
    missing: usize,
    /// What has come of a message that is not DATA.
    held: Vec<u8>,
}

impl CellReader {
    /// Reads one message area.
    ///
    /// # Errors
    /// On the first thing no honest peer sends, or what `found` answers.
    pub fn read<'a>(&mut self, area: &'a Area, mut found: impl FnMut(Piece<'a>) -> Result<(), Junk>) -> Result<(), Junk> {
        let mut rest = &area[..];
        loop {
            rest = self.finish(rest, &mut found)?;
            if rest.len() < MESSAGE_HEADER_BYTES || rest[0] == CellType::End.code() {
                // spec 06, 3: a header never splits, and behind the end all is zero.
                return if rest.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(Junk::Padding) };
            }
            let (header, data) = rest.split_at(MESSAGE_HEADER_BYTES);
            self.unfinished = Some(begin(header)?);
            rest = data;
        }
    }

    /// Whether a message is cut by the end of the last cell.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished.is_some()
    }

    fn finish<'a>(&mut self, rest: &'a [u8], found: &mut impl FnMut(Piece<'a>) -> Result<(), Junk>) -> Result<&'a [u8], Junk> {
        let Some(unfinished) = &mut self.unfinished else { return Ok(rest) };
        let (data, behind) = rest.split_at(unfinished.missing.min(rest.len()));
        unfinished.missing -= data.len();
        if unfinished.kind == CellType::Data {
            if !data.is_empty() {
                found(Piece::Data(unfinished.stream, data))?;
            }
        } else {
            unfinished.held.extend_from_slice(data);
        }
        if unfinished.missing > 0 {
            return Ok(behind);
        }
        let Some(done) = self.unfinished.take() else { return Ok(behind) };
        if done.kind != CellType::Data {
            found(Piece::Message(done.stream, decode(done.kind, &done.held)?))?;
        }
        Ok(behind)
    }
}

fn begin(header: &[u8]) -> Result<Unfinished, Junk> {
    let &[kind, s1, s0, l1, l0] = header else { return Err(Junk::Length) };
    let kind = CellType::from_code(kind).ok_or(Junk::Type)?;
    let missing = usize::from(u16::from_be_bytes([l1, l0]));
    let fits = match kind {
        CellType::Data => missing >= 1,
        CellType::Fin => missing == 0,
        CellType::Reset => missing == 1,
        CellType::Window => missing == 8,
        CellType::Open | CellType::Opened => missing <= SMALL_MESSAGE_BYTES,
        // Reserved for later versions: without agreement they are junk (spec 06, 3).
        CellType::End | CellType::Dgram | CellType::Resolve | CellType::Resolved | CellType::Echo | CellType::Pad => {
            return Err(Junk::Type);
        }
    };
    if !fits {
        return Err(Junk::Length);
    }
    Ok(Unfinished { kind, stream: StreamId(u16::from_be_bytes([s1, s0])), missing, held: Vec::new() })
}

fn decode(kind: CellType, data: &[u8]) -> Result<Message, Junk> {
    match kind {
        CellType::Open => decode_open(data),
        CellType::Opened => {
            let (ttl, address) = data.split_first_chunk::<4>().ok_or(Junk::Length)?;
            let (family, bytes) = address.split_first().ok_or(Junk::Length)?;
            Ok(Message::Opened { ip: decode_ip(*family, bytes)?, ttl_s: u32::from_be_bytes(*ttl) })
        }
        CellType::Fin => Ok(Message::Fin),
        CellType::Reset => data.first().and_then(|code| ResetCode::from_code(*code)).map(Message::Reset).ok_or(Junk::Contents),
        CellType::Window => Ok(Message::Window(u64::from_be_bytes(data.try_into().map_err(|_| Junk::Length)?))),
        CellType::Data
        | CellType::End
        | CellType::Dgram
        | CellType::Resolve
        | CellType::Resolved
        | CellType::Echo
        | CellType::Pad => Err(Junk::Type),
    }
}

fn decode_open(data: &[u8]) -> Result<Message, Junk> {
    let (&[protocol, flags, p1, p0, kind], host) = data.split_first_chunk::<5>().ok_or(Junk::Length)?;
    let protocol = StreamProtocol::from_code(protocol).ok_or(Junk::Contents)?;
    if flags != 0 {
        return Err(Junk::Contents);
    }
    let host = match HostKind::from_code(kind) {
        Some(HostKind::Name) => Host::Name(decode_name(host)?),
        Some(HostKind::V4 | HostKind::V6) | None => Host::Ip(decode_ip(kind, host)?),
    };
    Ok(Message::Open { protocol, target: Target { host, port: u16::from_be_bytes([p1, p0]) } })
}

fn decode_name(bytes: &[u8]) -> Result<String, Junk> {
    if bytes.is_empty() || bytes.len() > HOST_NAME_BYTES {
        return Err(Junk::Length);
    }
    let allowed = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(byte);
    if !bytes.iter().all(allowed) {
        return Err(Junk::Contents);
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| Junk::Contents)
}

fn decode_ip(family: u8, bytes: &[u8]) -> Result<IpAddr, Junk> {
    match HostKind::from_code(family) {
        Some(HostKind::V4) => Ok(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).map_err(|_| Junk::Length)?).into()),
        Some(HostKind::V6) => Ok(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).map_err(|_| Junk::Length)?).into()),
        Some(HostKind::Name) | None => Err(Junk::Contents),
    }
}

/// Writes a message, header included. A name longer than allowed is cut; who makes a [`Target`] checks it first.
pub fn encode(stream: StreamId, message: &Message) -> Vec<u8> {
    let (kind, data) = match message {
        Message::Open { protocol, target } => {
            let [p1, p0] = target.port.to_be_bytes();
            let mut data = vec![protocol.code(), 0, p1, p0];
            match &target.host {
                Host::Name(name) => {
                    data.push(HostKind::Name.code());
                    data.extend(name.bytes().take(HOST_NAME_BYTES));
                }
                Host::Ip(ip) => push_ip(&mut data, *ip),
            }
            (CellType::Open, data)
        }
        Message::Opened { ip, ttl_s } => {
            let mut data = ttl_s.to_be_bytes().to_vec();
            push_ip(&mut data, *ip);
            (CellType::Opened, data)
        }
        Message::Fin => (CellType::Fin, Vec::new()),
        Message::Reset(code) => (CellType::Reset, vec![code.code()]),
        Message::Window(permitted) => (CellType::Window, permitted.to_be_bytes().to_vec()),
    };
    let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
    let mut out = header(kind, stream, length).to_vec();
    out.extend_from_slice(&data);
    out
}

/// A message's header.
pub fn header(kind: CellType, stream: StreamId, length: u16) -> [u8; MESSAGE_HEADER_BYTES] {
    let ([s1, s0], [l1, l0]) = (stream.0.to_be_bytes(), length.to_be_bytes());
    [kind.code(), s1, s0, l1, l0]
}

fn push_ip(data: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            data.push(HostKind::V4.code());
            data.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            data.push(HostKind::V6.code());
            data.extend(ip.octets());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<String>, Junk> {
        let (mut reader, mut found) = (CellReader::default(), Vec::new());
        for chunk in bytes.chunks(MESSAGE_BYTES) {
            let mut area = [0; MESSAGE_BYTES];
            area[..chunk.len()].copy_from_slice(chunk);
            reader.read(&area, |piece| {
                found.push(format!("{piece:?}"));
                Ok(())
            })?;
        }
        Ok(found)
    }

    fn messages() -> Vec<Message> {
        let name = Target { host: Host::Name("a-1.example".into()), port: 443 };
        let v6 = Target { host: Host::Ip("2001:db8::1".parse().unwrap()), port: 1 };
        vec![
            Message::Open { protocol: StreamProtocol::Tcp, target: name },
            Message::Open { protocol: StreamProtocol::Tcp, target: v6 },
            Message::Opened { ip: "192.0.2.1".parse().unwrap(), ttl_s: 60 },
            Message::Fin,
            Message::Reset(ResetCode::Timeout),
            Message::Window(u64::MAX),
        ]
    }

    #[test]
    fn messages_round_trip_packed_in_one_cell() {
        let bytes: Vec<u8> = messages().iter().flat_map(|message| encode(StreamId(7), message)).collect();
        let expected: Vec<_> = messages().into_iter().map(|m| format!("{:?}", Piece::Message(StreamId(7), m))).collect();
        assert_eq!(read(&bytes), Ok(expected));
    }

    #[test]
    fn data_spans_cells_and_other_messages_may_too() {
        let mut bytes = header(CellType::Data, StreamId(1), 1930).to_vec();
        bytes.extend([9; 1930]);
        // 3 bytes remain in the area: no header fits, they are zero.
        bytes.extend([0; 3]);
        bytes.extend(header(CellType::Data, StreamId(1), 5000));
        bytes.extend([8; 5000]);
        bytes.extend(encode(StreamId(1), &Message::Fin));
        let found = read(&bytes).unwrap();
        assert_eq!(found.len(), 5, "1930, then 5000 in three pieces, then FIN");
        assert!(found[4].contains("Fin"));
    }

    #[test]
    fn junk_is_named() {
        let open = |data: &[u8]| {
            let mut bytes = header(CellType::Open, StreamId(1), data.len() as u16).to_vec();
            bytes.extend(data);
            read(&bytes).unwrap_err()
        };
        assert_eq!(read(&[CellType::Echo.code(), 0, 1, 0, 0]), Err(Junk::Type), "an unasked ECHO");
        assert_eq!(read(&[CellType::Pad.code(), 0, 0, 0, 9]), Err(Junk::Type), "PAD without an agreed machine");
        assert_eq!(read(&[99, 0, 1, 0, 0]), Err(Junk::Type));
        assert_eq!(read(&[CellType::Data.code(), 0, 1, 0, 0]), Err(Junk::Length), "empty DATA");
        assert_eq!(read(&[CellType::Fin.code(), 0, 1, 0, 1, 0]), Err(Junk::Length));
        assert_eq!(read(&[CellType::Reset.code(), 0, 1, 0, 1, 0]), Err(Junk::Contents));
        assert_eq!(read(&[0, 0, 0, 0, 0, 0, 1]), Err(Junk::Padding));
        assert_eq!(open(&[1, 0, 0, 80]), Junk::Length);
        assert_eq!(open(&[1, 1, 0, 80, 4, 1, 2, 3, 4]), Junk::Contents, "an unknown flag");
        assert_eq!(open(&[9, 0, 0, 80, 4, 1, 2, 3, 4]), Junk::Contents, "an unknown protocol");
        assert_eq!(open(&[1, 0, 0, 80, 4, 1, 2, 3]), Junk::Length);
        assert_eq!(open(&[1, 0, 0, 80, 5, 1, 2, 3, 4]), Junk::Contents);
        assert_eq!(open(b"\x01\x00\x00\x50\x01"), Junk::Length, "an empty name");
        assert_eq!(open(b"\x01\x00\x00\x50\x01a\nb"), Junk::Contents);
        assert_eq!(open(&[b'a'; 400]), Junk::Length);
    }

    #[test]
    fn a_header_that_would_split_is_junk() {
        let mut bytes = header(CellType::Data, StreamId(1), 1930).to_vec();
        bytes.extend([9; 1930]);
        bytes.extend(&header(CellType::Fin, StreamId(1), 0)[..3]);
        assert_eq!(read(&bytes), Err(Junk::Padding));
    }
}
