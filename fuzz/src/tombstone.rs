//! A node's farewell (spec 04, 6).
//!
//! The first byte says what the rest is: a whole envelope, or a payload that its node signs.

use port17_proto::bottle::{Tombstone, TombstoneError, UnverifiedTombstone};
use port17_proto::crypto::SIGNATURE_BYTES;
use port17_proto::limits::TOMBSTONE_BYTES;

use crate::choices::Choices;
use crate::sample_bottle::{self as sample, NOW_MS, SEQ, key};

const ENVELOPE: u8 = 0;
const PAYLOAD: u8 = 1;
const SEED: u8 = 1;
const LIFE_MS: u64 = 30 * 86_400_000;
const AHEAD_MS: u64 = 3_600_000;

/// Reads a tombstone.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    match choices.byte() {
        ENVELOPE => envelope(choices.rest()),
        _ => payload(choices.rest()),
    }
}

fn payload(payload: &[u8]) {
    let wrapped = |signature| sample::array(&[sample::uint(2), sample::bytes(payload), sample::bytes(signature)]);
    if UnverifiedTombstone::parse(&wrapped(&[0; SIGNATURE_BYTES])).is_ok() {
        envelope(&wrapped(&key(SEED).sign("p17-tombstone-v1", &[payload])));
    }
}

fn envelope(bytes: &[u8]) {
    let parsed = UnverifiedTombstone::parse(bytes);
    if bytes.len() > TOMBSTONE_BYTES {
        assert_eq!(parsed.err(), Some(TombstoneError::TooLarge));
        return;
    }
    let Ok(parsed) = parsed else { return };
    let claimed = parsed.claimed_node_id();
    let Ok(tombstone) = parsed.verify(NOW_MS, LIFE_MS, AHEAD_MS) else { return };
    assert_eq!((tombstone.envelope(), tombstone.node_id()), (bytes, claimed));
    assert!(tombstone.seq().unix_ms() <= NOW_MS + AHEAD_MS);
    if claimed == sample::minimal(SEED).node_id() {
        assert_eq!(Tombstone::sign(&key(SEED), tombstone.seq()), bytes, "a farewell has one form");
    }
}

/// A farewell, whole and as its payload.
pub fn seeds() -> Vec<Vec<u8>> {
    let signed = Tombstone::sign(&key(SEED), port17_proto::bottle::Seq(SEQ));
    let payload = signed[4..signed.len() - SIGNATURE_BYTES - 2].to_vec();
    vec![[vec![ENVELOPE], signed].concat(), [vec![PAYLOAD], payload].concat()]
}
