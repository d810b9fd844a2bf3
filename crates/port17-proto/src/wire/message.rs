//! The control stream: what two neighbours say to each other beside cells (spec 05, 4).
//!
//! A message is `length u32 ‖ type u8 ‖ CBOR`; the length counts the type and the CBOR. It travels in CONTROL frames, whose body is
//! `length u16 ‖ bytes ‖ zeros`: with flag bit 0 set the bytes are one whole *urgent* message, without it they are the next piece of
//! the lane's message stream. A type belongs to one of the two ways ([`Message::is_urgent`]), so that HELLO can never be overtaken
//! by what it permits, and a PONG never waits behind Bottles.
//!
//! Decoding is two steps: [`MessageStream`] or [`RawMessage::from_urgent`] cut the bytes into [`RawMessage`]s within their bounds;
//! [`Message::decode`] reads the CBOR. The CBOR is deterministic (RFC 8949, 4.2.1): what does not re-encode to itself is invalid.

use super::content;
use super::registry::{BODY_BYTES, ControlType, GoAwayReason, Role};
use crate::bottle::{Seq, ShortId};
use crate::ids::{NetworkId, NodeId};
use crate::limits::CONTROL_MESSAGE_BYTES;

/// Most bytes of a message, or of a piece of the stream, in one CONTROL frame: the body less its length.
pub const PIECE_BYTES: usize = BODY_BYTES - 2;

/// Bytes before a message's type: its length.
const LENGTH_BYTES: usize = 4;

/// A message of the control stream is not well formed. The lane it came on is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A CONTROL frame's length is 0 or more than the frame holds.
    #[error("a CONTROL frame's length is wrong")]
    FrameLength,
    /// The rest of a CONTROL frame is not zero.
    #[error("a CONTROL frame ends in bytes that are not zero")]
    FrameRest,
    /// A message has no type, or is longer than is allowed.
    #[error("a control message's length is wrong")]
    Length,
    /// An urgent frame holds less or more than one message.
    #[error("an urgent frame does not hold exactly one message")]
    NotOneMessage,
    /// The type is below 16 and not assigned.
    #[error("the control message's type is unknown")]
    UnknownType,
    /// The message came urgent but belongs into the stream, or the other way round.
    #[error("the control message came in the wrong class")]
    WrongClass,
    /// The CBOR is cut, not deterministic, of the wrong types, or has more or fewer fields than the type has.
    #[error("the control message's content is malformed")]
    Malformed,
}

/// Puts a message or a piece into a CONTROL frame's body, which must be all zero.
///
/// # Errors
/// When `bytes` is empty or longer than [`PIECE_BYTES`].
pub fn write_control_body(bytes: &[u8], body: &mut [u8; BODY_BYTES]) -> Result<(), MessageError> {
    let length = u16::try_from(bytes.len()).map_err(|_| MessageError::FrameLength)?;
    if bytes.is_empty() || bytes.len() > PIECE_BYTES {
        return Err(MessageError::FrameLength);
    }
    body[..2].copy_from_slice(&length.to_be_bytes());
    body[2..2 + bytes.len()].copy_from_slice(bytes);
    Ok(())
}

/// The bytes of a CONTROL frame's body.
///
/// # Errors
/// When the length is 0 or does not fit, or the rest is not zero (spec 05, 2).
pub fn read_control_body(body: &[u8; BODY_BYTES]) -> Result<&[u8], MessageError> {
    let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
    if length == 0 || length > PIECE_BYTES {
        return Err(MessageError::FrameLength);
    }
    let (bytes, rest) = body[2..].split_at(length);
    if !is_zero(rest) {
        return Err(MessageError::FrameRest);
    }
    Ok(bytes)
}

/// Whether nothing stands there. All is looked at: so it is done with vectors, which a search that may end early is not.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |all, byte| all | byte) == 0
}

/// A message as it came: its type's code and its CBOR, not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    /// The type's code, assigned or not.
    pub code: u8,
    /// The CBOR.
    pub body: Vec<u8>,
}

impl RawMessage {
    /// The one message of an urgent frame.
    ///
    /// # Errors
    /// When `bytes` is anything but exactly one message.
    pub fn from_urgent(bytes: &[u8]) -> Result<Self, MessageError> {
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(MessageError::NotOneMessage)?;
        if message_length(*length)? != rest.len() {
            return Err(MessageError::NotOneMessage);
        }
        Ok(Self::from_content(rest))
    }

    /// The message's bytes, length first.
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(1 + self.body.len()).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(LENGTH_BYTES + 1 + self.body.len());
        out.extend_from_slice(&length.to_be_bytes());
        out.push(self.code);
        out.extend_from_slice(&self.body);
        out
    }

    /// `content` = type ‖ CBOR, never empty: its length was checked to be at least 1.
    fn from_content(content: &[u8]) -> Self {
        let (code, body) = content.split_first().map_or((0, &[][..]), |(code, body)| (*code, body));
        Self { code, body: body.to_vec() }
    }
}

fn message_length(bytes: [u8; LENGTH_BYTES]) -> Result<usize, MessageError> {
    let length = usize::try_from(u32::from_be_bytes(bytes)).map_err(|_| MessageError::Length)?;
    if (1..=CONTROL_MESSAGE_BYTES).contains(&length) { Ok(length) } else { Err(MessageError::Length) }
}

/// The receiving end of one lane's message stream: pieces in, messages out.
///
/// Invariant: it never holds more than one unfinished message, so at most `CONTROL_MESSAGE_BYTES` + 4 and one piece; the length is
/// checked before anything is stored for it, and memory grows with what came, not with what was announced.
#[derive(Debug, Default)]
pub struct MessageStream {
    held: Vec<u8>,
}

impl MessageStream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece and gives the messages that it completes, in order.
    ///
    /// # Errors
    /// When a message's length is 0 or above the limit. The lane must then be closed: the stream has lost its place.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Vec<RawMessage>, MessageError> {
        if self.held.is_empty() {
            // Most messages come whole.
            let (messages, used) = whole_messages(piece)?;
            self.held.extend_from_slice(&piece[used..]);
            return Ok(messages);
        }
        self.held.extend_from_slice(piece);
        let (messages, used) = whole_messages(&self.held)?;
        self.held.drain(..used);
        if self.held.is_empty() {
            // A lane is quiet most of its life: one large message must not keep its memory for ever.
            self.held = Vec::new();
        }
        Ok(messages)
    }

    /// Bytes held of the message that is not complete yet.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }
}

/// The messages that are complete, and how many bytes they take.
fn whole_messages(bytes: &[u8]) -> Result<(Vec<RawMessage>, usize), MessageError> {
    let (mut messages, mut at) = (Vec::new(), 0);
    while let Some((length, rest)) = bytes[at..].split_first_chunk::<LENGTH_BYTES>() {
        let length = message_length(*length)?;
        let Some(content) = rest.get(..length) else { break };
        messages.push(RawMessage::from_content(content));
        at += LENGTH_BYTES + length;
    }
    Ok((messages, at))
}

/// Cuts an encoded message into the pieces that CONTROL frames carry, in order.
pub fn split_into_pieces(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    message.chunks(PIECE_BYTES)
}

/// Opens a lane (spec 05, 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The lowest and the highest protocol version that the sender speaks.
    pub versions: (u8, u8),
    /// Who speaks.
    pub role: Role,
    /// Which lane of the link this is: 1 or 2.
    pub slot: LaneSlot,
    /// The dialler's random name of the link; the acceptor repeats it.
    pub link: LinkId,
    /// Circuits that the sender lets its peer open on this lane.
    pub circuits: u32,
    /// The network that the sender belongs to.
    pub network: NetworkId,
}

/// Which lane of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneSlot {
    /// The first: it makes the link and carries the message stream.
    One,
    /// The second.
    Two,
}

impl LaneSlot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// The slot of a number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            _ => None,
        }
    }

    /// 0 or 1, for arrays.
    pub const fn index(self) -> usize {
        match self {
            Self::One => 0,
            Self::Two => 1,
        }
    }
}

/// A link's random name, drawn by who dialled its first lane. Who knows it may open the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub [u8; 16]);

/// One Bottle that a node holds, as RECONCILE names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Whose it is.
    pub node: NodeId,
    /// Its sequence number.
    pub seq: Seq,
    /// Its short id.
    pub short_id: ShortId,
}

/// A message of this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Opens a lane.
    Hello(Hello),
    /// Asks for PONG with the same token.
    Ping(u64),
    /// Answers PING.
    Pong(u64),
    /// The sender will close this lane.
    GoAway(GoAwayReason),
    /// Bottles that are new at the sender, 1 to `limits::ANNOUNCE_IDS`.
    Announce(Vec<ShortId>),
    /// Bottles that the sender wants, 1 to `limits::WANT_IDS`.
    Want(Vec<ShortId>),
    /// Envelopes of Bottles: the answer to WANT in one message or more, and each node's own Bottle as its first word on lane 1.
    Bottles {
        /// More of the same answer follows.
        more: bool,
        /// The envelopes, not looked at yet; none for a WANT whose Bottles are gone.
        envelopes: Vec<Vec<u8>>,
    },
    /// Envelopes of tombstones.
    Tombstones(Vec<Vec<u8>>),
    /// The sequence number of the bootstrap list that the sender goes by.
    ListSeq(u64),
    /// Asks for the piece of that list that begins at `offset`.
    WantList {
        /// The list's sequence number.
        seq: u64,
        /// Where the piece begins.
        offset: u32,
    },
    /// A piece of a bootstrap list.
    List {
        /// The list's sequence number.
        seq: u64,
        /// Where the piece begins.
        offset: u32,
        /// Length of the whole list.
        total: u32,
        /// The piece.
        bytes: Vec<u8>,
    },
    /// What the sender holds, for the receiver to compare.
    Reconcile {
        /// More of the same comparison follows.
        more: bool,
        /// Up to `limits::RECONCILE_ENTRIES`.
        held: Vec<Held>,
    },
    /// The link may stand in Bottles.
    Publish,
    /// The link must not stand in Bottles.
    Unpublish,
    /// A type of 16 or above that this version does not use: skipped, so that a later version can speak to this one.
    Later(u8),
}

impl Message {
    /// The type's code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Hello(_) => ControlType::Hello.code(),
            Self::Ping(_) => ControlType::Ping.code(),
            Self::Pong(_) => ControlType::Pong.code(),
            Self::GoAway(_) => ControlType::GoAway.code(),
            Self::Announce(_) => ControlType::Announce.code(),
            Self::Want(_) => ControlType::Want.code(),
            Self::Bottles { .. } => ControlType::Bottles.code(),
            Self::Tombstones(_) => ControlType::Tombstones.code(),
            Self::ListSeq(_) => ControlType::ListSeq.code(),
            Self::WantList { .. } => ControlType::WantList.code(),
            Self::List { .. } => ControlType::List.code(),
            Self::Reconcile { .. } => ControlType::Reconcile.code(),
            Self::Publish => ControlType::Publish.code(),
            Self::Unpublish => ControlType::Unpublish.code(),
            Self::Later(code) => *code,
        }
    }

    /// Whether the message travels as one urgent frame (spec 05, 4): all types below 16 do, all others are part of the stream.
    pub fn is_urgent(&self) -> bool {
        is_urgent(self.code())
    }

    /// The message's bytes, length first: what [`RawMessage::from_urgent`] and [`MessageStream`] take.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH_BYTES + 1 + content::room(self));
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        out.push(self.code());
        let mut out = content::write(self, out);
        let length = u32::try_from(out.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
        out[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        out
    }

    /// Reads a message that came urgent or in the stream.
    ///
    /// # Errors
    /// When its type is unknown and below 16, it came in the wrong class, or its CBOR is not exactly what the type has.
    pub fn decode(raw: &RawMessage, urgent: bool) -> Result<Self, MessageError> {
        // spec 05, 4: types from 16 on that this version does not use are skipped, those below 16 are a violation
        let known = ControlType::from_code(raw.code);
        if known.is_none() && is_urgent(raw.code) {
            return Err(MessageError::UnknownType);
        }
        if urgent != is_urgent(raw.code) {
            return Err(MessageError::WrongClass);
        }
        let Some(known) = known else { return Ok(Self::Later(raw.code)) };
        let message = content::read(known, &raw.body).ok_or(MessageError::Malformed)?;
        // Deterministic CBOR: there is one encoding of a value, and it is ours. This also refuses trailing bytes.
        let is_canonical =
            matches!(message, Self::Later(_)) || content::write(&message, Vec::with_capacity(raw.body.len())) == raw.body;
        if is_canonical { Ok(message) } else { Err(MessageError::Malformed) }
    }
}

/// From this code on a type that is not known is skipped; such messages are part of the stream.
const FIRST_LATER_CODE: u8 = 16;

/// See [`Message::is_urgent`].
fn is_urgent(code: u8) -> bool {
    code < FIRST_LATER_CODE
}
