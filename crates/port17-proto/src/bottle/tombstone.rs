//! A node's signed farewell (spec 04, 6): from then on nobody takes a Bottle of it.
//!
//! Envelope: `[2, payload bytes, signature bytes]`, at most 256 bytes; the signature is over `"p17-tombstone-v1" ‖ payload`. The
//! payload is the map `{1: suite, 2: identity key, 3: seq}`. Both are deterministic CBOR.

use super::Seq;
use crate::cbor::{CborError, Reader, Writer};
use crate::crypto::{Signature, SigningKey, VerifyingKey};
use crate::ids::NodeId;
use crate::limits::TOMBSTONE_BYTES;
use crate::wire::registry::{SUITE, TOMBSTONE_ENVELOPE, tombstone_key};

const SIGNATURE_TAG: &str = "p17-tombstone-v1";

/// Why bytes are not a valid tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TombstoneError {
    /// More than 256 bytes.
    #[error("the tombstone is larger than 256 bytes")]
    TooLarge,
    /// Not deterministic CBOR, or not of the right shape.
    #[error("the tombstone is not encoded as it must be: {0}")]
    Encoding(#[from] CborError),
    /// Not `[2, {1: suite, 2: identity key, 3: seq}, signature]`.
    #[error("the tombstone is not one of version 1")]
    Shape,
    /// The signature is not the identity key's.
    #[error("the tombstone's signature is wrong")]
    Signature,
    /// Its seq is too far in the future.
    #[error("the tombstone comes from the future: check the clocks")]
    Ahead,
    /// It is so old that whoever took it has forgotten it.
    #[error("the tombstone is too old")]
    Old,
}

/// A well-formed tombstone of which nothing is proven.
#[derive(Debug, Clone)]
pub struct UnverifiedTombstone {
    envelope: Vec<u8>,
    payload: Vec<u8>,
    identity: VerifyingKey,
    seq: Seq,
    signature: Signature,
}

impl UnverifiedTombstone {
    /// Reads a tombstone.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, TombstoneError> {
        if bytes.len() > TOMBSTONE_BYTES {
            return Err(TombstoneError::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        if reader.array()? != 3 || reader.unsigned()? != u64::from(TOMBSTONE_ENVELOPE) {
            return Err(TombstoneError::Shape);
        }
        let payload = reader.bytes()?.to_vec();
        let signature = reader.bytes()?.try_into().map_err(|_| TombstoneError::Shape)?;
        reader.finish()?;
        let (identity, seq) = read_payload(&payload)?;
        Ok(Self { envelope: bytes.to_vec(), payload, identity, seq, signature })
    }

    /// Whose farewell it claims to be.
    pub fn claimed_node_id(&self) -> NodeId {
        NodeId::of(&self.identity)
    }

    /// Checks age and signature. `now_ms` in Unix milliseconds; it may be `ahead_ms` ahead of that and `life_ms` behind.
    ///
    /// # Errors
    /// `Ahead`, `Old` or `Signature`.
    pub fn verify(self, now_ms: u64, life_ms: u64, ahead_ms: u64) -> Result<Tombstone, TombstoneError> {
        if self.seq.unix_ms() > now_ms.saturating_add(ahead_ms) {
            return Err(TombstoneError::Ahead);
        }
        // Else those who forget it and those who do not yet would hand it back and forth for ever.
        if self.seq.unix_ms().saturating_add(life_ms) <= now_ms {
            return Err(TombstoneError::Old);
        }
        let signed = self.identity.verify(SIGNATURE_TAG, &[&self.payload], &self.signature);
        signed.map_err(|_| TombstoneError::Signature)?;
        Ok(Tombstone { node: self.claimed_node_id(), seq: self.seq, envelope: self.envelope })
    }
}

/// A farewell that its node signed. It cannot be made in another way (law 4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tombstone {
    node: NodeId,
    seq: Seq,
    envelope: Vec<u8>,
}

impl Tombstone {
    /// The farewell of the node with this identity. `seq` is at least that of its last Bottle.
    pub fn sign(identity: &SigningKey, seq: Seq) -> Vec<u8> {
        let payload = write_payload(&identity.public(), seq);
        let signature = identity.sign(SIGNATURE_TAG, &[&payload]);
        let mut writer = Writer::default();
        writer.array(3);
        writer.unsigned(u64::from(TOMBSTONE_ENVELOPE));
        writer.bytes(&payload);
        writer.bytes(&signature);
        writer.into_bytes()
    }

    /// Who has left.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// Its place in the order of the node's Bottles: the last.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The bytes as they came: what is passed on.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }
}

fn write_payload(identity: &VerifyingKey, seq: Seq) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.map(3);
    writer.unsigned(u64::from(tombstone_key::SUITE));
    writer.unsigned(u64::from(SUITE));
    writer.unsigned(u64::from(tombstone_key::IDENTITY));
    writer.bytes(&identity.0);
    writer.unsigned(u64::from(tombstone_key::SEQ));
    writer.unsigned(seq.0);
    writer.into_bytes()
}

fn read_payload(payload: &[u8]) -> Result<(VerifyingKey, Seq), TombstoneError> {
    let mut reader = Reader::new(payload);
    let shape = |holds: bool| if holds { Ok(()) } else { Err(TombstoneError::Shape) };
    shape(reader.map()? == 3)?;
    shape(reader.unsigned()? == u64::from(tombstone_key::SUITE) && reader.unsigned()? == u64::from(SUITE))?;
    shape(reader.unsigned()? == u64::from(tombstone_key::IDENTITY))?;
    let identity = reader.bytes()?.try_into().map(VerifyingKey).map_err(|_| TombstoneError::Shape)?;
    shape(reader.unsigned()? == u64::from(tombstone_key::SEQ))?;
    let seq = Seq(reader.unsigned()?);
    reader.finish()?;
    Ok((identity, seq))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;

    const NOW_MS: u64 = 1_800_000_000_000;
    const DAY_MS: u64 = 86_400_000;

    fn key() -> SigningKey {
        SigningKey::from_seed(Secret::new([1; 32]))
    }

    fn verify(bytes: &[u8], now_ms: u64) -> Result<Tombstone, TombstoneError> {
        UnverifiedTombstone::parse(bytes)?.verify(now_ms, 30 * DAY_MS, 3_600_000)
    }

    #[test]
    fn a_tombstone_reads_back_as_itself() {
        let bytes = Tombstone::sign(&key(), Seq(NOW_MS));
        let tombstone = verify(&bytes, NOW_MS).unwrap();
        assert_eq!((tombstone.node_id(), tombstone.seq()), (NodeId::of(&key().public()), Seq(NOW_MS)));
        assert_eq!(tombstone.envelope(), bytes);
        assert!(bytes.len() <= TOMBSTONE_BYTES);
    }

    #[test]
    fn a_changed_tombstone_is_refused_whichever_bit_it_is() {
        let bytes = Tombstone::sign(&key(), Seq(NOW_MS));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(verify(&bad, NOW_MS).is_err(), "byte {at}, bit {bit}");
            }
            assert!(verify(&bytes[..at], NOW_MS).is_err());
        }
        assert!(verify(&[&bytes[..], &[0]].concat(), NOW_MS).is_err());
        assert_eq!(UnverifiedTombstone::parse(&[0; 257]).err(), Some(TombstoneError::TooLarge));
    }

    #[test]
    fn a_tombstone_has_an_age() {
        let bytes = Tombstone::sign(&key(), Seq(NOW_MS));
        assert_eq!(verify(&bytes, NOW_MS - 3_600_001), Err(TombstoneError::Ahead));
        assert!(verify(&bytes, NOW_MS + 30 * DAY_MS - 1).is_ok());
        assert_eq!(verify(&bytes, NOW_MS + 30 * DAY_MS), Err(TombstoneError::Old));
    }
}
