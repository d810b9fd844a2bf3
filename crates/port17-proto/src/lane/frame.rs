//! Frames: 2048 bytes, a header of 8 and a body of 2040 (spec 05, 2).

use crate::ids::CircuitId;
use crate::wire::message::is_zero;
use crate::wire::registry::{BODY_BYTES, CELL_FLAG_FRESH, CONTROL_FLAG_URGENT, Command, FRAME_BYTES, HEADER_BYTES, SETUP_PARTS};

/// The bytes of one frame.
pub type Frame = [u8; FRAME_BYTES];

/// A frame on the heap, made to be used again: see `LaneQueue::recycle`.
pub struct FrameBuf(Box<Frame>);

impl FrameBuf {
    /// A zeroed frame.
    pub fn new() -> Self {
        Self(vec![0; FRAME_BYTES].into_boxed_slice().try_into().expect("the vector has that length"))
    }

    /// The bytes.
    pub fn bytes(&self) -> &Frame {
        &self.0
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut Frame {
        &mut self.0
    }

    /// Writes a header; a node writes every outgoing header itself (spec 05, 2).
    pub fn set_header(&mut self, header: Header) {
        self.0[..HEADER_BYTES].copy_from_slice(&header.encode());
    }

    /// A frame with this header and body; what the body does not fill is zero.
    pub fn with_body(header: Header, body: &[u8]) -> Self {
        let mut frame = Self::new();
        frame.set_header(header);
        let length = body.len().min(BODY_BYTES);
        frame.0[HEADER_BYTES..HEADER_BYTES + length].copy_from_slice(&body[..length]);
        frame
    }
}

impl Default for FrameBuf {
    fn default() -> Self {
        Self::new()
    }
}

/// What stands in front of a body: circuit u32 | command u8 | flags u8 | two bytes, in SETUP depth and part, else zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The circuit, 0 for the lane itself.
    pub circuit: CircuitId,
    /// What the body is.
    pub command: Command,
    /// Bit 0 as the command defines it.
    pub flags: u8,
    /// SETUP: depth of the hop, 0..=5; else 0.
    pub depth: u8,
    /// SETUP: part 0..=3; else 0.
    pub part: u8,
}

/// A header that no honest peer writes; it closes the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The command is not assigned.
    #[error("unassigned command")]
    Command,
    /// A reserved bit or byte is set.
    #[error("reserved bits set")]
    Reserved,
    /// A circuit where none belongs, or none where one does.
    #[error("circuit id does not fit the command")]
    Circuit,
}

impl Header {
    /// A header without flags, depth and part.
    pub fn new(circuit: CircuitId, command: Command) -> Self {
        Self { circuit, command, flags: 0, depth: 0, part: 0 }
    }

    /// The eight bytes.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = self.circuit.0.to_be_bytes();
        [a, b, c, d, self.command.code(), self.flags, self.depth, self.part]
    }

    /// Reads and checks the eight bytes (spec 05, 2).
    ///
    /// # Errors
    /// When a peer that follows the protocol cannot have written them.
    pub fn decode(frame: &[u8]) -> Result<Self, HeaderError> {
        let Some(&[a, b, c, d, command, flags, depth, part]) = frame.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Reserved);
        };
        let circuit = CircuitId(u32::from_be_bytes([a, b, c, d]));
        let command = Command::from_code(command).ok_or(HeaderError::Command)?;
        let (allowed, of_circuit) = match command {
            Command::Control => (CONTROL_FLAG_URGENT, false),
            Command::Cell => (CELL_FLAG_FRESH, true),
            Command::Setup | Command::Created | Command::Destroy => (0, true),
            Command::Padding | Command::Credit | Command::Reclaim | Command::Limit => (0, false),
        };
        if (circuit.0 != 0) != of_circuit {
            return Err(HeaderError::Circuit);
        }
        let flags_ok = flags & !allowed == 0;
        let tail_ok = if command == Command::Setup { usize::from(part) < SETUP_PARTS } else { depth == 0 && part == 0 };
        if !flags_ok || !tail_ok {
            return Err(HeaderError::Reserved);
        }
        Ok(Self { circuit, command, flags, depth, part })
    }
}

/// The pairs of a CREDIT, RECLAIM or LIMIT body: (circuit u32, cells u64)…, circuit 0 ends, the rest is zero (spec 06, 4).
pub const PAIR_BYTES: usize = 12;
/// Pairs in one frame.
pub const PAIRS_PER_FRAME: usize = BODY_BYTES / PAIR_BYTES;

/// Reads the pairs of a CREDIT, RECLAIM or LIMIT body.
///
/// # Errors
/// When something stands behind the end.
pub fn pairs(body: &[u8]) -> Result<impl Iterator<Item = (CircuitId, u64)> + '_, HeaderError> {
    let read = |pair: &[u8]| -> (CircuitId, u64) {
        let (circuit, cells) = pair.split_at(4);
        let circuit = u32::from_be_bytes(circuit.try_into().unwrap_or_default());
        (CircuitId(circuit), u64::from_be_bytes(cells.try_into().unwrap_or_default()))
    };
    let used = body.chunks_exact(PAIR_BYTES).take_while(|pair| pair[..4] != [0; 4]).count();
    if !is_zero(&body[used * PAIR_BYTES..]) {
        return Err(HeaderError::Reserved);
    }
    Ok(body[..used * PAIR_BYTES].chunks_exact(PAIR_BYTES).map(read))
}

/// Writes pairs into a frame; at most [`PAIRS_PER_FRAME`].
pub fn pairs_frame(command: Command, pairs: &[(CircuitId, u64)]) -> FrameBuf {
    let mut frame = FrameBuf::new();
    frame.set_header(Header::new(CircuitId(0), command));
    for (slot, (circuit, cells)) in frame.bytes_mut()[HEADER_BYTES..].chunks_exact_mut(PAIR_BYTES).zip(pairs) {
        slot[..4].copy_from_slice(&circuit.0.to_be_bytes());
        slot[4..].copy_from_slice(&cells.to_be_bytes());
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trip() {
        let header = Header { circuit: CircuitId(7), command: Command::Setup, flags: 0, depth: 5, part: 3 };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn header_refuses_what_no_honest_peer_writes() {
        let decode = |bytes: [u8; 8]| Header::decode(&bytes).map(|_| ());
        assert_eq!(decode([0, 0, 0, 1, 9, 0, 0, 0]), Err(HeaderError::Command));
        assert_eq!(decode([0, 0, 0, 0, 4, 0, 0, 0]), Err(HeaderError::Circuit), "a CELL without a circuit");
        assert_eq!(decode([0, 0, 0, 1, 1, 0, 0, 0]), Err(HeaderError::Circuit), "CONTROL of a circuit");
        assert_eq!(decode([0, 0, 0, 1, 4, 2, 0, 0]), Err(HeaderError::Reserved), "an unknown flag");
        assert_eq!(decode([0, 0, 0, 1, 8, 1, 0, 0]), Err(HeaderError::Reserved), "DESTROY has no flag");
        assert_eq!(decode([0, 0, 0, 1, 4, 0, 1, 0]), Err(HeaderError::Reserved), "depth outside SETUP");
        assert_eq!(decode([0, 0, 0, 1, 2, 0, 0, 4]), Err(HeaderError::Reserved), "a fifth part");
        assert_eq!(Header::decode(&[0; 7]), Err(HeaderError::Reserved), "cut");
    }

    #[test]
    fn pairs_round_trip_and_refuse_a_tail() {
        let sent = [(CircuitId(3), 16), (CircuitId(5), u64::MAX)];
        let mut frame = pairs_frame(Command::Credit, &sent);
        let read: Vec<_> = pairs(&frame.bytes()[HEADER_BYTES..]).unwrap().collect();
        assert_eq!(read, sent);
        frame.bytes_mut()[FRAME_BYTES - 1] = 1;
        assert!(pairs(&frame.bytes()[HEADER_BYTES..]).is_err());
    }

    #[test]
    fn a_full_frame_of_pairs_is_read_whole() {
        let sent: Vec<_> = (1..).take(PAIRS_PER_FRAME).map(|n| (CircuitId(n), u64::from(n))).collect();
        let frame = pairs_frame(Command::Limit, &sent);
        assert_eq!(pairs(&frame.bytes()[HEADER_BYTES..]).unwrap().collect::<Vec<_>>(), sent);
    }
}
