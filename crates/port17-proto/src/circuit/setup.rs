//! SETUP: the whole route in one packet (spec 06, 1).
//!
//! A packet is a nest of records. A hop opens the outermost one with its circuit key, learns the next hop and what it is to be,
//! takes its record away, fills up with zeros and passes the packet on: always 8160 bytes in four frames. Each stage is its own
//! type, so that none can be left out:
//!
//! ```text
//! SetupParts ─▶ SetupPacket ─open─▶ OpenedSetup ─admit─▶ AdmittedSetup ─answer─▶ HopKeys
//!              (key known)   (public-key work)   (replay, slot, content)   (public-key work)
//! ```
//!
//! Whatever fails on this way, the peer gets DESTROY and nothing else.

use super::created::CreatedSealer;
use super::depth::Depth;
use super::keyring::{CircuitKey, CircuitKeyring, KeyId};
use super::onion::{BackwardLayer, ForwardLayer, all_zero};
use super::replay::{ReplayError, Stamp};
use super::schedule::{FirstKeys, Upgrade};
use crate::crypto::{
    AeadKey, CIPHERTEXT_BYTES, CryptoError, Entropy, EphemeralKey, ExchangePublicKey, KemBackend, KemPublicKey, Secret, TAG_BYTES,
};
use crate::ids::NodeId;
use crate::wire::registry::{
    BODY_BYTES, HopKind, KEY_ID_BYTES, MAX_HOPS, SETUP_BYTES, SETUP_INFO_BYTES, SETUP_PARTS, SUITE, VERSION,
};

/// Where a record's info begins, in front of it key id and ciphertext.
const INFO_AT: usize = KEY_ID_BYTES + CIPHERTEXT_BYTES;
/// Where a record's rest begins.
const REST_AT: usize = INFO_AT + SETUP_INFO_BYTES;
/// K_set seals one message only.
const NONCE: [u8; 12] = [0; 12];

/// Why a SETUP is not served. The peer gets DESTROY for all of them; the reason is only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// A part is missing, double, of another length or of another depth.
    #[error("the parts do not make one packet")]
    Parts,
    /// δ is above 5, or a relay stands at 5.
    #[error("too deep")]
    Depth,
    /// The record names a key that this node does not have (any more).
    #[error("unknown circuit key")]
    UnknownKey,
    /// The record does not open.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The record was used before, there is no room to remember it, or its slot is not accepted now.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Version, suite, kind or flags are not known.
    #[error("a version, suite, kind or flag this node does not know")]
    Unsupported,
    /// Something that must be zero is not.
    #[error("padding is not zero")]
    Padding,
}

/// What a record tells its hop. No `Debug`: it names a part of a route.
#[derive(Clone, PartialEq, Eq)]
pub struct SetupInfo {
    /// What the hop is to be.
    pub kind: HopKind,
    /// The client's time slot.
    pub slot: u32,
    /// The next hop, all zero at the exit.
    pub next: NodeId,
    /// eC: the client's ephemeral key for this hop.
    pub ephemeral: ExchangePublicKey,
}

const NOWHERE: NodeId = NodeId([0; 32]);

impl SetupInfo {
    /// version u8 | kind u8 | suite u8 | flags u8 | slot u32 | next 32 | eC 32.
    pub fn encode(&self) -> [u8; SETUP_INFO_BYTES] {
        let mut out = [0; SETUP_INFO_BYTES];
        out[..4].copy_from_slice(&[VERSION, self.kind.code(), SUITE, 0]);
        out[4..8].copy_from_slice(&self.slot.to_be_bytes());
        out[8..40].copy_from_slice(&self.next.0);
        out[40..].copy_from_slice(&self.ephemeral);
        out
    }

    /// Reads an info and checks all that it says by itself.
    ///
    /// # Errors
    /// [`SetupError::Unsupported`] for unknown numbers, [`SetupError::Padding`] for an exit with a next hop.
    pub fn decode(bytes: &[u8; SETUP_INFO_BYTES]) -> Result<Self, SetupError> {
        // spec 06, 1
        let [version, kind, suite, flags, s0, s1, s2, s3, keys @ ..] = bytes;
        if (*version, *suite, *flags) != (VERSION, SUITE, 0) {
            return Err(SetupError::Unsupported);
        }
        let kind = HopKind::from_code(*kind).ok_or(SetupError::Unsupported)?;
        let (mut next, mut ephemeral) = ([0; 32], [0; 32]);
        next.copy_from_slice(&keys[..32]);
        ephemeral.copy_from_slice(&keys[32..]);
        let info = Self { kind, slot: claimed_slot(&[*s0, *s1, *s2, *s3]), next: NodeId(next), ephemeral };
        match kind {
            HopKind::Exit if info.next != NOWHERE => Err(SetupError::Padding),
            HopKind::Exit | HopKind::Relay => Ok(info),
        }
    }
}

fn claimed_slot(bytes: &[u8; 4]) -> u32 {
    u32::from_be_bytes(*bytes)
}

/// A SETUP packet on its way: four frame bodies, and the δ of who is to open it.
#[derive(Clone, PartialEq, Eq)]
pub struct SetupPacket {
    depth: Depth,
    bytes: Box<[u8; SETUP_BYTES]>,
}

impl SetupPacket {
    /// Takes the bytes and δ as they came.
    ///
    /// # Errors
    /// When δ is above 5.
    pub fn new(delta: u8, bytes: Box<[u8; SETUP_BYTES]>) -> Result<Self, SetupError> {
        Ok(Self { depth: Depth::new(delta).ok_or(SetupError::Depth)?, bytes })
    }

    /// The δ of each of its frames' headers.
    pub fn depth(&self) -> Depth {
        self.depth
    }

    /// All of it.
    pub fn as_bytes(&self) -> &[u8; SETUP_BYTES] {
        &self.bytes
    }

    /// The bodies of its frames, parts 0 to 3.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.bytes.chunks_exact(BODY_BYTES)
    }

    /// The circuit key that the outermost record is sealed to.
    pub fn key_id(&self) -> KeyId {
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&self.bytes[..KEY_ID_BYTES]);
        KeyId(id)
    }

    /// Opens the outermost record: decapsulation and one AEAD pass, the expensive half of a SETUP. `key` is the one that
    /// [`Self::key_id`] names, so that no lock is held over this.
    ///
    /// # Errors
    /// When `key` is another one, the record does not open, or anything stands behind the layer.
    pub fn open(self, node: NodeId, key: &CircuitKey) -> Result<OpenedSetup, SetupError> {
        let Self { depth, mut bytes } = self;
        if bytes[..KEY_ID_BYTES] != key.id().0 {
            return Err(SetupError::UnknownKey);
        }
        all_zero(&bytes[depth.setup_bytes()..]).map_err(|CryptoError| SetupError::Padding)?;
        let mut ct = [0; CIPHERTEXT_BYTES];
        ct.copy_from_slice(&bytes[KEY_ID_BYTES..INFO_AT]);
        let shared = key.secret().decapsulate(&ct)?;
        let keys = FirstKeys::derive(node, key.id(), key.public(), &ct, &shared);
        let aad = record_aad(node, key.id(), depth);
        AeadKey::new(&keys.setup).open(NONCE, &aad, &mut bytes[INFO_AT..depth.setup_bytes()])?;
        let mut info = [0; SETUP_INFO_BYTES];
        info.copy_from_slice(&bytes[INFO_AT..REST_AT]);
        // This hop's record leaves, zeros come in behind (spec 06, 1).
        bytes.copy_within(REST_AT..REST_AT + depth.inner_setup_bytes(), 0);
        bytes[depth.inner_setup_bytes()..].fill(0);
        Ok(OpenedSetup { key_id: key.id(), stamp: Stamp::of(&ct), depth, info, keys, rest: bytes })
    }
}

fn record_aad(node: NodeId, key_id: KeyId, depth: Depth) -> [u8; 53] {
    // spec 06, 1
    let mut aad = [0; 53];
    aad[..12].copy_from_slice(b"p17-setup-v1");
    aad[12..44].copy_from_slice(&node.0);
    aad[44..52].copy_from_slice(&key_id.0);
    aad[52] = depth.code();
    aad
}

/// Puts the four frames of a packet together again, in order.
pub struct SetupParts {
    depth: Depth,
    next: usize,
    bytes: Box<[u8; SETUP_BYTES]>,
}

impl SetupParts {
    /// Begins with part 0. Allocates the packet: the caller has reserved the circuit's credit before.
    ///
    /// # Errors
    /// When this is not part 0 of a packet at most 5 deep.
    pub fn begin(part: u8, delta: u8, body: &[u8]) -> Result<Self, SetupError> {
        let depth = Depth::new(delta).ok_or(SetupError::Depth)?;
        let mut parts = Self { depth, next: 0, bytes: Box::new([0; SETUP_BYTES]) };
        parts.push(part, delta, body)?;
        Ok(parts)
    }

    /// Takes the next part; true when it was the last one.
    ///
    /// # Errors
    /// When it is another part, of another packet, or not a whole body.
    pub fn push(&mut self, part: u8, delta: u8, body: &[u8]) -> Result<bool, SetupError> {
        // spec 06, 1
        let expected = self.next < SETUP_PARTS && usize::from(part) == self.next && delta == self.depth.code();
        if !expected || body.len() != BODY_BYTES {
            return Err(SetupError::Parts);
        }
        self.bytes[self.next * BODY_BYTES..][..BODY_BYTES].copy_from_slice(body);
        self.next += 1;
        Ok(self.next == SETUP_PARTS)
    }

    /// The packet.
    ///
    /// # Errors
    /// When parts are missing.
    pub fn finish(self) -> Result<SetupPacket, SetupError> {
        if self.next != SETUP_PARTS {
            return Err(SetupError::Parts);
        }
        Ok(SetupPacket { depth: self.depth, bytes: self.bytes })
    }
}

/// A record that opened: authentic, but perhaps used before, out of its time, or nonsense. Nothing of it can be read yet.
pub struct OpenedSetup {
    key_id: KeyId,
    stamp: Stamp,
    depth: Depth,
    info: [u8; SETUP_INFO_BYTES],
    keys: FirstKeys,
    rest: Box<[u8; SETUP_BYTES]>,
}

impl OpenedSetup {
    /// What the replay cache will remember.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Remembers the record, whatever follows, then judges its slot and its content. Cheap: to be called under the keyring's lock.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn admit(self, keyring: &mut CircuitKeyring, unix_seconds: u64) -> Result<AdmittedSetup, SetupError> {
        // spec 06, 1: insert, then the slot, then the rest.
        let slot = claimed_slot(&[self.info[4], self.info[5], self.info[6], self.info[7]]);
        keyring.admit(self.key_id, self.stamp, slot, unix_seconds).ok_or(SetupError::UnknownKey)??;
        let info = SetupInfo::decode(&self.info)?;
        let forward_packet = match (info.kind, self.depth.next()) {
            (HopKind::Relay, Some(depth)) => Some(SetupPacket { depth, bytes: self.rest }),
            (HopKind::Relay, None) => return Err(SetupError::Depth),
            (HopKind::Exit, _) => {
                // The only token known in version 1 is none at all (spec 06, 1).
                all_zero(&self.rest[..]).map_err(|CryptoError| SetupError::Padding)?;
                None
            }
        };
        let upgrade = Upgrade::new(self.keys.transcript, &self.info, self.keys.upgrade);
        Ok(AdmittedSetup { info, depth: self.depth, forward_packet, first: self.keys.forward, upgrade })
    }
}

/// A SETUP that this node serves, unless it has no way to the next hop or no room.
pub struct AdmittedSetup {
    /// What this hop is to be.
    pub info: SetupInfo,
    /// Where it stands.
    pub depth: Depth,
    /// What goes to the next hop, with δ + 1 in the headers; none at the exit. To be taken out.
    pub forward_packet: Option<SetupPacket>,
    first: Secret<32>,
    upgrade: Upgrade,
}

impl AdmittedSetup {
    /// Draws the hop's ephemeral key and derives all keys of the circuit. Public-key work, before the first cell is opened.
    ///
    /// Takes from `entropy`: eN, 32 bytes.
    ///
    /// # Errors
    /// When the client's ephemeral key is zero or of small order.
    pub fn answer(self, entropy: &mut Entropy) -> Result<HopKeys, SetupError> {
        let ephemeral = EphemeralKey::generate(entropy);
        let exchanged = ephemeral.exchange(&self.info.ephemeral)?;
        let fresh = self.upgrade.derive(ephemeral.public(), &exchanged);
        let created = CreatedSealer::new(self.depth, *ephemeral.public(), fresh.transcript, fresh.confirmation, &fresh.created);
        Ok(HopKeys {
            forward: ForwardLayer::hop(self.first, fresh.forward, self.depth, self.info.kind),
            backward: BackwardLayer::new(fresh.backward, self.depth),
            created,
        })
    }
}

/// What a hop keeps of a circuit.
pub struct HopKeys {
    /// For the reader of the lane towards the client.
    pub forward: ForwardLayer,
    /// For the reader of the lane towards the exit, or the exit's own task.
    pub backward: BackwardLayer,
    /// For the one answer.
    pub created: CreatedSealer,
}

/// A hop as the client knows it from its Bottle.
pub struct RouteHop {
    /// Who.
    pub node: NodeId,
    /// Its circuit key.
    pub key: KemPublicKey,
}

/// The route cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No hop, more than six, or an offset that leaves no room for them.
    #[error("a route has 1 to 6 hops, its offset at most the places that are left")]
    Length,
    /// The circuit key in this hop's Bottle cannot be used (0 is the guard).
    #[error("the circuit key of hop {hop} cannot be used")]
    Key {
        /// Whose key.
        hop: usize,
    },
}

/// Draws a route's offset: uniform over the places left. A node that acts as a client never looks like one with nothing in front,
/// where there is room (spec 06, 1).
pub fn draw_offset(hops: usize, as_client_of_a_node: bool, entropy: &mut Entropy) -> u8 {
    let places = u8::try_from(MAX_HOPS.saturating_sub(hops)).unwrap_or(0);
    let least = u8::from(as_client_of_a_node && places > 0);
    let drawn = entropy.below(u64::from(places - least) + 1);
    // Drawn from at most six numbers.
    least + u8::try_from(drawn).unwrap_or(0)
}

/// The client's side between SETUP and CREATED: one ephemeral key and one half-done key schedule for each hop.
pub struct OriginSetup {
    pub(super) pending: Vec<PendingHop>,
}

/// What the client keeps of one hop until its answer has come.
pub(super) struct PendingHop {
    pub(super) depth: Depth,
    pub(super) ephemeral: EphemeralKey,
    pub(super) upgrade: Upgrade,
}

impl OriginSetup {
    /// Builds the packet for a route from the guard to the exit, and the layers that seal cells at once (under f0).
    ///
    /// Takes from `entropy`, hop by hop from the guard on: eC, 32 bytes, then what the KEM takes: the X25519 secret, 32
    /// bytes, with [`KemBackend::Seeded`] ML-KEM's m, 32 bytes, before it.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn new(
        hops: &[RouteHop],
        offset: u8,
        slot: u32,
        backend: KemBackend,
        entropy: &mut Entropy,
    ) -> Result<(Self, Vec<ForwardLayer>, SetupPacket), RouteError> {
        if hops.is_empty() || hops.len() + usize::from(offset) > MAX_HOPS {
            return Err(RouteError::Length);
        }
        let mut packet = Box::new([0; SETUP_BYTES]);
        let (mut pending, mut layers, mut seals) = (Vec::new(), Vec::new(), Vec::new());
        for ((index, hop), delta) in hops.iter().enumerate().zip(offset..) {
            let depth = Depth::new(delta).ok_or(RouteError::Length)?;
            let key_id = KeyId::of(&hop.key);
            let ephemeral = EphemeralKey::generate(entropy);
            let (ct, shared) = hop.key.encapsulate(backend, entropy).map_err(|CryptoError| RouteError::Key { hop: index })?;
            let keys = FirstKeys::derive(hop.node, key_id, &hop.key, &ct, &shared);
            let next = hops.get(index + 1).map(|hop| hop.node);
            let info = SetupInfo {
                kind: if next.is_some() { HopKind::Relay } else { HopKind::Exit },
                slot,
                next: next.unwrap_or(NOWHERE),
                ephemeral: *ephemeral.public(),
            }
            .encode();
            // Each record begins where the rest of the one around it begins, so that all are sealed where they lie.
            let record = &mut packet[index * REST_AT..];
            record[..KEY_ID_BYTES].copy_from_slice(&key_id.0);
            record[KEY_ID_BYTES..INFO_AT].copy_from_slice(&ct);
            record[INFO_AT..REST_AT].copy_from_slice(&info);
            seals.push((AeadKey::new(&keys.setup), record_aad(hop.node, key_id, depth), depth));
            layers.push(ForwardLayer::client(keys.forward, depth));
            pending.push(PendingHop { depth, ephemeral, upgrade: Upgrade::new(keys.transcript, &info, keys.upgrade) });
        }
        for (index, (key, aad, depth)) in seals.iter().enumerate().rev() {
            let record = &mut packet[index * REST_AT..][..depth.setup_bytes()];
            seal_record(key, aad, record);
        }
        let depth = pending.first().ok_or(RouteError::Length)?.depth;
        Ok((Self { pending }, layers, SetupPacket { depth, bytes: packet }))
    }
}

/// Seals a record of setup_bytes(δ): key id and ciphertext stay readable, the tag is its last 16 bytes.
fn seal_record(key: &AeadKey, aad: &[u8], record: &mut [u8]) {
    let tag_at = record.len() - TAG_BYTES;
    let tag = key.seal(NONCE, aad, &mut record[INFO_AT..tag_at]);
    record[tag_at..].copy_from_slice(&tag);
}
