use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use super::codec;
use super::{BottleContent, BottleError, Seq};
use crate::cbor::{Reader, Writer};
use crate::crypto::{SIGNATURE_BYTES, Signature, SigningKey, VerifyingKey, hash};
use crate::ids::NodeId;
use crate::limits::BOTTLE_BYTES;
use crate::planted::planted;
use crate::portname::PortName;
use crate::wire::registry::{BOTTLE_ENVELOPE, BottleKey};

const SIGNATURE_TAG: &str = "p17-bottle-v1";
const SHORT_ID_TAG: &str = "p17-short-v1";

/// How long things in a Bottle live, and how far clocks may differ. Network parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BottleRules {
    /// From a Bottle's seq to its end, milliseconds.
    pub life_ms: u64,
    /// How far a seq may be ahead of our clock, milliseconds. The lives below are granted as much on top.
    pub ahead_ms: u64,
    /// A link key ends at most this long after the seq, milliseconds.
    pub link_key_life_ms: u64,
    /// A circuit key ends at most this long after the seq, milliseconds.
    pub circuit_key_life_ms: u64,
}

impl BottleRules {
    /// 30 hours, an hour, 90 days, 30 hours.
    pub const DEFAULT: Self = Self {
        life_ms: 30 * 3_600_000,
        ahead_ms: 3_600_000,
        link_key_life_ms: 90 * 24 * 3_600_000,
        circuit_key_life_ms: 30 * 3_600_000,
    };
}

impl Default for BottleRules {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Names one Bottle in gossip: the first 16 bytes of H("p17-short-v1", payload).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortId(pub [u8; 16]);

impl ShortId {
    fn of(payload: &[u8]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&hash(SHORT_ID_TAG, &[payload])[..16]);
        Self(id)
    }
}

impl fmt::Debug for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShortId({:032x})", u128::from_be_bytes(self.0))
    }
}

impl BottleContent {
    /// Signs the content; the result is the whole Bottle.
    ///
    /// # Errors
    /// When the key is not the identity in the content, or the content is out of bounds.
    pub fn sign(&self, identity: &SigningKey) -> Result<Vec<u8>, BottleError> {
        if identity.public() != self.identity {
            return Err(BottleError::WrongKey);
        }
        let payload = codec::encode(self);
        // Whatever is wrong with it, the receivers would find: so let them not get it.
        if codec::decode(&payload)? != *self {
            return Err(BottleError::NotCanonical);
        }
        let signature = identity.sign(SIGNATURE_TAG, &[&payload]);
        let envelope = encode_envelope(&payload, &signature);
        if envelope.len() > BOTTLE_BYTES { Err(BottleError::TooLarge) } else { Ok(envelope) }
    }
}

fn encode_envelope(payload: &[u8], signature: &Signature) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.array(3);
    writer.unsigned(u64::from(BOTTLE_ENVELOPE));
    writer.bytes(payload);
    writer.bytes(signature);
    writer.into_bytes()
}

/// What a Bottle's bytes say. Shared by whoever holds the Bottle; its signature is looked at once.
struct Signed {
    content: BottleContent,
    envelope: Vec<u8>,
    payload: std::ops::Range<usize>,
    signature: Signature,
    node_id: OnceLock<NodeId>,
    short_id: OnceLock<ShortId>,
    is_genuine: OnceLock<bool>,
}

/// A well-formed Bottle of which nothing is proven.
#[derive(Clone)]
pub struct UnverifiedBottle(Arc<Signed>);

impl fmt::Debug for UnverifiedBottle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UnverifiedBottle").field(&self.0.content).finish()
    }
}

impl UnverifiedBottle {
    /// Reads a Bottle (spec 04, 1 and 2).
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, BottleError> {
        if bytes.len() > BOTTLE_BYTES {
            return Err(BottleError::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        if reader.array()? != 3 || reader.unsigned()? != u64::from(BOTTLE_ENVELOPE) {
            return Err(BottleError::Envelope);
        }
        let payload = reader.bytes()?;
        let signature: Signature = reader.bytes()?.try_into().map_err(|_| BottleError::Envelope)?;
        reader.finish()?;
        let content = codec::decode(payload)?;
        if encode_envelope(payload, &signature) != bytes {
            return Err(BottleError::NotCanonical);
        }
        // A signature of 64 bytes takes two bytes before it, and nothing follows.
        let end = bytes.len() - SIGNATURE_BYTES - 2;
        Ok(Self(Arc::new(Signed {
            content,
            envelope: bytes.to_vec(),
            payload: end - payload.len()..end,
            signature,
            node_id: OnceLock::new(),
            short_id: OnceLock::new(),
            is_genuine: OnceLock::new(),
        })))
    }

    /// Whose Bottle it claims to be.
    pub fn claimed_node_id(&self) -> NodeId {
        *self.0.node_id.get_or_init(|| self.0.content.node_id())
    }

    /// Its claimed place in the order of its node's Bottles.
    pub fn claimed_seq(&self) -> Seq {
        self.0.content.seq
    }

    /// Its name in gossip.
    pub fn short_id(&self) -> ShortId {
        *self.0.short_id.get_or_init(|| ShortId::of(self.payload()))
    }

    /// Checks age and signature at `now_ms`, Unix milliseconds (spec 04, 3).
    ///
    /// # Errors
    /// `Ahead`, `Expired`, a key that would live too long, or `Signature`.
    pub fn verify(self, now_ms: u64, rules: &BottleRules) -> Result<VerifiedBottle, BottleError> {
        let seq_ms = self.0.content.seq.unix_ms();
        if seq_ms > now_ms.saturating_add(rules.ahead_ms) && !planted("bottle-from-the-future") {
            return Err(BottleError::Ahead);
        }
        if seq_ms.saturating_add(rules.life_ms) <= now_ms {
            return Err(BottleError::Expired);
        }
        self.verify_of_any_age(rules)
    }

    /// Checks all but the age: what an expired Bottle says is no hop, but may be where its node is found
    /// ([`VerifiedBottle::expires_ms`] tells them apart). For what this node has stored itself, and what a signed list names.
    ///
    /// # Errors
    /// A key that would live too long, or `Signature`.
    pub fn verify_of_any_age(self, rules: &BottleRules) -> Result<VerifiedBottle, BottleError> {
        let expires_ms = self.0.content.seq.unix_ms().saturating_add(rules.life_ms);
        self.check_key_lives(rules)?;
        let signed = &self.0;
        let verify = || signed.content.identity.verify(SIGNATURE_TAG, &[self.payload()], &signed.signature).is_ok();
        if !*signed.is_genuine.get_or_init(verify) && !planted("bottle-signature-unchecked") {
            return Err(BottleError::Signature);
        }
        Ok(VerifiedBottle { bottle: self, expires_ms })
    }

    fn check_key_lives(&self, rules: &BottleRules) -> Result<(), BottleError> {
        let seq_ms = self.0.content.seq.unix_ms();
        let ends_by = |end_s: u64, life_ms: u64| {
            let latest_ms = seq_ms.saturating_add(life_ms).saturating_add(rules.ahead_ms);
            end_s <= latest_ms / 1000
        };
        if !ends_by(self.0.content.link_key_expiry_s, rules.link_key_life_ms) {
            return Err(BottleError::Field(BottleKey::LinkKeyExpiry));
        }
        if !ends_by(self.0.content.circuit_key.not_after_s, rules.circuit_key_life_ms) {
            return Err(BottleError::Field(BottleKey::CircuitKeyNotAfter));
        }
        Ok(())
    }

    pub(crate) fn envelope(&self) -> &[u8] {
        &self.0.envelope
    }

    fn payload(&self) -> &[u8] {
        &self.0.envelope[self.0.payload.clone()]
    }
}

/// A Bottle that its node signed, and that was of the right age when it was verified. It cannot be made in another way (law 4):
///
/// ```compile_fail
/// use port17_proto::bottle::{UnverifiedBottle, VerifiedBottle};
/// fn trust(bottle: UnverifiedBottle, other: VerifiedBottle) -> VerifiedBottle {
///     VerifiedBottle { bottle, ..other }
/// }
/// ```
///
/// nor can a Bottlerack take another:
///
/// ```compile_fail
/// use port17_proto::{bottle::UnverifiedBottle, bottlerack::Bottlerack};
/// fn store(rack: &mut Bottlerack, bottle: UnverifiedBottle) {
///     rack.insert(bottle, 0);
/// }
/// ```
#[derive(Debug, Clone)]
pub struct VerifiedBottle {
    bottle: UnverifiedBottle,
    expires_ms: u64,
}

/// The same bytes, and the same end.
impl PartialEq for VerifiedBottle {
    fn eq(&self, other: &Self) -> bool {
        self.envelope() == other.envelope() && self.expires_ms == other.expires_ms
    }
}

impl Eq for VerifiedBottle {}

impl Hash for VerifiedBottle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.short_id().hash(state);
        self.expires_ms.hash(state);
    }
}

impl VerifiedBottle {
    /// What it says.
    pub fn content(&self) -> &BottleContent {
        &self.bottle.0.content
    }

    /// Whose it is.
    pub fn node_id(&self) -> NodeId {
        self.bottle.claimed_node_id()
    }

    /// The node's name.
    pub fn portname(&self) -> PortName {
        PortName::of(self.content().label.clone(), &self.node_id())
    }

    /// Its place in the order of its node's Bottles.
    pub fn seq(&self) -> Seq {
        self.content().seq
    }

    /// Its name in gossip.
    pub fn short_id(&self) -> ShortId {
        self.bottle.short_id()
    }

    /// When its life is over, Unix milliseconds.
    pub fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    /// The bytes as they came: what is passed on.
    pub fn envelope(&self) -> &[u8] {
        &self.bottle.0.envelope
    }

    /// The signed part of the bytes.
    pub fn payload(&self) -> &[u8] {
        self.bottle.payload()
    }

    /// The keys that the node's lanes may show at `now_ms` (spec 03, 3).
    pub fn link_keys(&self, now_ms: u64) -> Vec<VerifyingKey> {
        let content = self.content();
        let current = (now_ms / 1000 < content.link_key_expiry_s).then_some(content.link_key);
        current.into_iter().chain(content.next_link_key).collect()
    }

    /// Until when a client uses its circuit key, Unix milliseconds: `margin_ms` before the key ends, and not past the Bottle's life.
    pub fn usable_until_ms(&self, margin_ms: u64) -> u64 {
        let key_ends_ms = self.content().circuit_key.not_after_s.saturating_mul(1000);
        key_ends_ms.saturating_sub(margin_ms).min(self.expires_ms)
    }
}
