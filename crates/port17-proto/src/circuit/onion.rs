//! Cells: one AEAD layer per hop and direction (spec 06, 2).
//!
//! A layer at δ takes the first L(δ) bytes of a body: a kind and L(δ + 1) inner bytes under AES-256-GCM; past it all is zero. Which
//! cell it is, both ends count by themselves: the counter is the nonce, so a cell that is lost, doubled, reordered or changed
//! opens nowhere, and every failure here means that the circuit must be destroyed.
//!
//! Nothing is allocated and nothing is copied per cell: a relay opens or seals from the incoming frame straight into the outgoing
//! one, both ends work in one frame. That is why the kind byte of an opened layer lands on the last header byte, which the caller
//! overwrites anyway.
//!
//! ```text
//! at a hop      frame | header 8 | L(δ) ...                   opened: frame | header 7 | kind | inner L(δ+1) ... | zeros
//! client, hop h frame | header 8 | kind 1 .. kind h+1 | message area P | zeros | tag h+1 .. tag 1 | zeros
//! ```

use std::ops::Range;

use super::depth::Depth;
use crate::crypto::{AeadKey, CryptoError, Prk, Secret, TAG_BYTES};
use crate::planted::planted;
use crate::wire::registry::{BODY_BYTES, CELL_FLAG_FRESH, FRAME_BYTES, HEADER_BYTES, HopKind, MESSAGE_BYTES, REKEY_SHIFT};
pub use crate::wire::registry::{CellKind, Direction};

/// Where an answering hop puts its message area in a frame, so that it is sealed where it lies: the kind goes in front.
pub const ANSWER_AREA: Range<usize> = HEADER_BYTES + 1..HEADER_BYTES + 1 + MESSAGE_BYTES;

/// Where a hop finds the message area in the frame that it opened into.
pub const OPENED_AREA: Range<usize> = HEADER_BYTES..HEADER_BYTES + MESSAGE_BYTES;

/// The kind byte of a layer that a relay opens or seals: the last byte of the frame's header.
const KIND_AT: usize = HEADER_BYTES - 1;

/// Where the client puts the message area for `hop` (0 is the guard) in a frame, and, less the header, finds the area of a message
/// from it in a body: one kind byte for each layer around it.
pub const fn client_area(hop: usize) -> Range<usize> {
    HEADER_BYTES + 1 + hop..HEADER_BYTES + 1 + hop + MESSAGE_BYTES
}

/// The key of one layer and direction in its current generation.
struct LayerKey {
    chain: Secret<32>,
    aead: AeadKey,
}

impl LayerKey {
    fn new(chain: Secret<32>) -> Self {
        let aead = AeadKey::new(&chain);
        Self { chain, aead }
    }

    /// The key as it is after `generations`.
    fn after(chain: Secret<32>, generations: u64) -> Self {
        let mut key = chain;
        for _ in 0..generations {
            key = next_generation(&key);
        }
        Self::new(key)
    }

    /// Takes the next generation; the old key is zeroised.
    fn ratchet(&mut self) {
        *self = Self::new(next_generation(&self.chain));
    }
}

fn next_generation(key: &Secret<32>) -> Secret<32> {
    // spec 06, 2
    Prk::from_key(key).expand("rekey")
}

/// Which cell of which layer comes next.
struct Place {
    direction: Direction,
    depth: Depth,
    counter: u64,
}

const AAD_TAG: &[u8; 11] = b"p17-cell-v1";
const AAD_BYTES: usize = AAD_TAG.len() + 3;

impl Place {
    fn nonce(&self) -> [u8; 12] {
        // spec 06, 2
        let mut nonce = [0; 12];
        nonce[3] = self.direction.code();
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        nonce
    }

    fn aad(&self, flag: u8) -> [u8; AAD_BYTES] {
        // spec 06, 2
        let mut aad = [0; AAD_BYTES];
        aad[..AAD_TAG.len()].copy_from_slice(AAD_TAG);
        aad[AAD_TAG.len()..].copy_from_slice(&[self.direction.code(), flag, self.depth.code()]);
        aad
    }

    fn generation(&self) -> u64 {
        self.counter >> REKEY_SHIFT
    }

    /// Counts a cell; true when the next one belongs to a new generation.
    fn advance(&mut self) -> bool {
        let before = self.generation();
        // 2^64 cells are 37 million petabytes on one circuit.
        self.counter += 1;
        self.generation() != before
    }
}

/// One layer of the forward direction: at its hop, which opens, or at the client, which seals.
///
/// Two keys serve in turn, under one counter: f0 until CREATED, f1 from then on.
pub struct ForwardLayer {
    first: Option<LayerKey>,
    fresh: Option<LayerKey>,
    place: Place,
    last: bool,
}

impl ForwardLayer {
    /// The client's layer: seals with f0 until it is upgraded.
    pub fn client(first: Secret<32>, depth: Depth) -> Self {
        Self { first: Some(LayerKey::new(first)), fresh: None, place: forward_place(depth), last: false }
    }

    /// A hop's layer: opens with f0 until the first cell under f1.
    pub fn hop(first: Secret<32>, fresh: Secret<32>, depth: Depth, kind: HopKind) -> Self {
        Self {
            first: Some(LayerKey::new(first)),
            fresh: Some(LayerKey::new(fresh)),
            place: forward_place(depth),
            last: kind == HopKind::Exit,
        }
    }

    /// The client has seen CREATED: from now on f1 seals, and f0 is erased.
    pub fn upgrade(&mut self, fresh: Secret<32>) {
        // Generations count from the circuit's first cell, for both keys (spec 06, 2).
        self.fresh = Some(LayerKey::after(fresh, self.place.generation()));
        self.first = None;
    }

    /// Where the hop stands.
    pub fn depth(&self) -> Depth {
        self.place.depth
    }

    /// Opens this hop's layer of a forward cell: the kind lands in `out[7]`, the inner bytes at `out[8..]`, all past them is zero.
    /// The caller then writes the header over `out[..8]`. A message's area is [`OPENED_AREA`].
    ///
    /// # Errors
    /// When `flag` is not 0 or 1, or is 0 after it was 1; `body` is not 2040 bytes, was not sealed so, or holds anything behind
    /// its layer or behind the message area; kind is unknown, or another layer at the exit. The circuit must then be destroyed.
    pub fn open_forward(&mut self, flag: u8, body: &[u8], out: &mut [u8; FRAME_BYTES]) -> Result<CellKind, CryptoError> {
        let body: &[u8; BODY_BYTES] = body.try_into().map_err(|_| CryptoError)?;
        let (layer, past) = body.split_at(self.place.depth.cell_bytes());
        if !planted("padding-behind-a-layer") {
            all_zero(past)?;
        }
        let inner_end = HEADER_BYTES + self.place.depth.inner_cell_bytes();
        let key = self.key(flag)?;
        key.open_into(self.place.nonce(), &self.place.aad(flag), layer, &mut out[KIND_AT..inner_end])?;
        out[inner_end..].fill(0);
        self.count(flag);
        match CellKind::from_code(out[KIND_AT]).ok_or(CryptoError)? {
            CellKind::Next if self.last => Err(CryptoError),
            CellKind::Next => Ok(CellKind::Next),
            // spec 06, 2
            CellKind::Message => all_zero(&out[OPENED_AREA.end..inner_end]).map(|()| CellKind::Message),
        }
    }

    /// Seals the client's layer in place: kind at `frame[at]`, inner bytes behind it, then the tag.
    fn seal_at(&mut self, flag: u8, kind: CellKind, frame: &mut [u8; FRAME_BYTES], at: usize) -> Result<(), CryptoError> {
        let plain = at..at + 1 + self.place.depth.inner_cell_bytes();
        let tag_at = plain.end;
        frame[at] = kind.code();
        let tag = self.key(flag)?.seal(self.place.nonce(), &self.place.aad(flag), &mut frame[plain]);
        frame[tag_at..tag_at + TAG_BYTES].copy_from_slice(&tag);
        self.count(flag);
        Ok(())
    }

    fn key(&self, flag: u8) -> Result<&AeadKey, CryptoError> {
        let key = match flag {
            0 => self.first.as_ref(),
            CELL_FLAG_FRESH => self.fresh.as_ref(),
            _ => None,
        };
        Ok(&key.ok_or(CryptoError)?.aead)
    }

    /// Counts an authentic cell.
    fn count(&mut self, flag: u8) {
        if flag == CELL_FLAG_FRESH && !planted("first-key-not-erased") {
            // The first authentic cell under f1 erases f0 (spec 06, 2).
            self.first = None;
        }
        if self.place.advance() {
            self.first.iter_mut().chain(&mut self.fresh).for_each(LayerKey::ratchet);
        }
    }
}

fn forward_place(depth: Depth) -> Place {
    Place { direction: Direction::Forward, depth, counter: 0 }
}

/// Seals a message of the client for the hop of the last of `layers`, in place. The caller has put the message area at
/// [`client_area`]`(layers.len() - 1)` and writes the header, with `flag`, itself; everything behind the area is overwritten.
///
/// # Errors
/// When there is no layer or more than six, or `flag` does not fit the keys in force; nothing was sealed then.
pub fn seal_message_forward(layers: &mut [ForwardLayer], flag: u8, frame: &mut [u8; FRAME_BYTES]) -> Result<(), CryptoError> {
    for layer in &*layers {
        layer.key(flag)?;
    }
    let target = layers.len().checked_sub(1).ok_or(CryptoError)?;
    if client_area(target).end + TAG_BYTES * layers.len() > FRAME_BYTES {
        return Err(CryptoError);
    }
    frame[client_area(target).end..].fill(0);
    for (hop, layer) in layers.iter_mut().enumerate().rev() {
        let kind = if hop == target { CellKind::Message } else { CellKind::Next };
        layer.seal_at(flag, kind, frame, HEADER_BYTES + hop)?;
    }
    Ok(())
}

/// One layer of the backward direction: at its hop, which seals, or at the client, which opens. Only b1 is ever used.
pub struct BackwardLayer {
    key: LayerKey,
    place: Place,
}

impl BackwardLayer {
    /// The layer of the hop at `depth`, the same at both ends.
    pub fn new(key: Secret<32>, depth: Depth) -> Self {
        Self { key: LayerKey::new(key), place: Place { direction: Direction::Backward, depth, counter: 0 } }
    }

    /// A relay's part: puts its layer around the one in `frame`'s body and writes the result to the body of `out`, zero behind it.
    /// `frame[7]` is overwritten; both headers are the caller's.
    ///
    /// # Errors
    /// When there is anything behind the layer in `frame`, or this is the deepest place. The circuit must then be destroyed.
    pub fn seal_backward(&mut self, frame: &mut [u8; FRAME_BYTES], out: &mut [u8; FRAME_BYTES]) -> Result<(), CryptoError> {
        let depth = self.place.depth;
        let inner_end = HEADER_BYTES + depth.inner_cell_bytes();
        let sealed_end = HEADER_BYTES + depth.cell_bytes();
        if depth == Depth::DEEPEST {
            return Err(CryptoError);
        }
        // spec 06, 2
        all_zero(&frame[inner_end..])?;
        frame[KIND_AT] = CellKind::Next.code();
        let (nonce, aad) = (self.place.nonce(), self.place.aad(0));
        self.key.aead.seal_into(nonce, &aad, &frame[KIND_AT..inner_end], &mut out[HEADER_BYTES..sealed_end])?;
        out[sealed_end..].fill(0);
        if planted("relay-forgets-rekey") {
            self.place.advance();
            return Ok(());
        }
        self.count();
        Ok(())
    }

    /// A hop's own message, sealed in place. The caller has put the message area at [`ANSWER_AREA`] and writes the header itself;
    /// everything behind the area is overwritten.
    pub fn seal_message_backward(&mut self, frame: &mut [u8; FRAME_BYTES]) {
        let plain = HEADER_BYTES..ANSWER_AREA.start + self.place.depth.inner_cell_bytes();
        let tag_at = plain.end;
        frame[HEADER_BYTES] = CellKind::Message.code();
        frame[ANSWER_AREA.end..].fill(0);
        let tag = self.key.aead.seal(self.place.nonce(), &self.place.aad(0), &mut frame[plain]);
        frame[tag_at..tag_at + TAG_BYTES].copy_from_slice(&tag);
        self.count();
    }

    /// Opens the client's layer in place: `layer` is L(δ) bytes, the kind becomes its first.
    fn open(&mut self, layer: &mut [u8]) -> Result<CellKind, CryptoError> {
        let plain = self.key.aead.open(self.place.nonce(), &self.place.aad(0), layer)?;
        let kind = plain.first().copied().and_then(CellKind::from_code).ok_or(CryptoError)?;
        self.count();
        Ok(kind)
    }

    fn count(&mut self) {
        if self.place.advance() {
            self.key.ratchet();
        }
    }
}

/// Opens a backward cell at the client, in place, layer by layer. Returns the hop that speaks (0 is the guard) and where in `body`
/// its message area lies.
///
/// # Errors
/// When a layer was not sealed so, the last hop says that there is another one, or anything stands behind a layer or the message
/// area. The circuit must then be destroyed.
pub fn open_message_backward(layers: &mut [BackwardLayer], body: &mut [u8]) -> Result<(usize, Range<usize>), CryptoError> {
    let body: &mut [u8; BODY_BYTES] = body.try_into().map_err(|_| CryptoError)?;
    all_zero(&body[layers.first().ok_or(CryptoError)?.place.depth.cell_bytes()..])?;
    for (hop, layer) in layers.iter_mut().enumerate() {
        let depth = layer.place.depth;
        let inner = hop + 1..hop + 1 + depth.inner_cell_bytes();
        let area = hop + 1..hop + 1 + MESSAGE_BYTES;
        let sealed = body.get_mut(hop..hop + depth.cell_bytes()).ok_or(CryptoError)?;
        match layer.open(sealed)? {
            CellKind::Next => {}
            CellKind::Message => {
                // spec 06, 2
                all_zero(&body[area.end..inner.end])?;
                return Ok((hop, area));
            }
        }
    }
    Err(CryptoError)
}

/// Checks padding. Without an early exit, so that it is a few wide instructions.
pub(super) fn all_zero(bytes: &[u8]) -> Result<(), CryptoError> {
    if bytes.iter().fold(0, |seen, byte| seen | byte) == 0 { Ok(()) } else { Err(CryptoError) }
}
