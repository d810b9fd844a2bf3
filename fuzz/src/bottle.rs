//! A node's record, as a neighbour, a list or a disk hands it over (spec 04).
//!
//! The first byte says what the rest is: a whole envelope, or a payload that its node signs, so that what comes behind the signature
//! is reached too.

use port17_proto::bottle::{BottleError, BottleRules, UnverifiedBottle, VerifiedBottle};
use port17_proto::bottlerack::{Bottlerack, Insert};
use port17_proto::crypto::SIGNATURE_BYTES;
use port17_proto::limits::{BOTTLE_ADDRESSES, BOTTLE_BYTES, BOTTLE_EGRESS, BOTTLE_LINKS, UNKNOWN_FIELDS};
use port17_proto::node::record::RecordKey;
use port17_proto::policy::ExitPolicy;
use port17_proto::wire::registry::Scope;

use crate::choices::Choices;
use crate::sample_bottle::{self as sample, NOW_MS, key};

const ENVELOPE: u8 = 0;
const PAYLOAD: u8 = 1;
/// Whose payloads are signed: that of all samples here.
const SEED: u8 = 1;

/// Reads a Bottle.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    match choices.byte() {
        ENVELOPE => envelope(choices.rest()),
        _ => payload(choices.rest()),
    }
}

fn envelope(bytes: &[u8]) {
    let parsed = UnverifiedBottle::parse(bytes);
    if bytes.len() > BOTTLE_BYTES {
        assert_eq!(parsed.err(), Some(BottleError::TooLarge));
        return;
    }
    let Ok(parsed) = parsed else { return };
    if let Ok(verified) = parsed.verify(NOW_MS, &BottleRules::DEFAULT) {
        check(&verified, bytes);
    }
}

fn payload(payload: &[u8]) {
    let wrapped = |signature| sample::array(&[sample::uint(1), sample::bytes(payload), sample::bytes(signature)]);
    // Signing is slow: only what is well formed is worth it.
    if UnverifiedBottle::parse(&wrapped(&[0; SIGNATURE_BYTES])).is_err() {
        return;
    }
    let bytes = wrapped(&key(SEED).sign("p17-bottle-v1", &[payload]));
    let parsed = UnverifiedBottle::parse(&bytes).expect("the signature is no matter of form");
    let aged = parsed.clone().verify_of_any_age(&BottleRules::DEFAULT);
    let young = parsed.verify(NOW_MS, &BottleRules::DEFAULT);
    match (&aged, &young) {
        (Ok(_), Ok(verified)) => check(verified, &bytes),
        (Ok(_), Err(why)) => assert!(matches!(why, BottleError::Ahead | BottleError::Expired)),
        (Err(_), young) => assert!(young.is_err(), "age is not all that counts"),
    }
}

fn check(bottle: &VerifiedBottle, bytes: &[u8]) {
    assert_eq!(bottle.envelope(), bytes);
    let content = bottle.content();
    if content.identity == key(SEED).public() {
        assert_eq!(content.sign(&key(SEED)).as_deref(), Ok(bytes), "a content has one form");
    }
    assert_eq!(bottle.node_id(), content.node_id());
    assert!(bottle.portname().belongs_to(&bottle.node_id()));
    assert!(content.addresses.len() <= BOTTLE_ADDRESSES && content.egress.len() <= BOTTLE_EGRESS);
    assert!(content.links.len() <= BOTTLE_LINKS && content.unknown.len() <= UNKNOWN_FIELDS);
    assert!(content.links.is_sorted_by(|one, other| one.peer < other.peer));
    if let Some(policy) = &content.exit_policy {
        assert_eq!(ExitPolicy::decode(&policy.compile()).as_ref(), Ok(policy));
    }
    assert!(bottle.expires_ms() > NOW_MS && bottle.usable_until_ms(0) <= bottle.expires_ms());
    assert!(bottle.link_keys(NOW_MS).len() <= 2);
    stored(bottle, bytes);
}

/// A Bottlerack takes it once, and gives it to a store and back.
fn stored(bottle: &VerifiedBottle, bytes: &[u8]) {
    let mut rack = Bottlerack::new(Scope::Public);
    let first = rack.insert(bottle.clone(), NOW_MS);
    if bottle.content().scope != Scope::Public {
        assert!(first == Insert::WrongScope && rack.is_empty());
        return;
    }
    assert_eq!((first, rack.insert(bottle.clone(), NOW_MS)), (Insert::New, Insert::Same));
    let key = RecordKey::Bottle(bottle.node_id());
    let record = rack.record(key).expect("what is held has a record");
    let mut other = Bottlerack::new(Scope::Public);
    other.restore(key, &record, NOW_MS, &BottleRules::DEFAULT).expect("a record is what was stored");
    assert_eq!(other.get(&bottle.node_id()).map(|it| it.bottle.envelope()), Some(bytes));
    assert_eq!((other.record(key), other.take_changed()), (Some(record), vec![]));
}

/// The fullest and the emptiest Bottle, and payloads of both.
pub fn seeds() -> Vec<Vec<u8>> {
    let contents = [sample::full(), sample::minimal(SEED)];
    let signed = contents.map(|content| content.sign(&key(SEED)).expect("samples are well formed"));
    let payloads = signed.clone().map(|bytes| bytes[4..bytes.len() - SIGNATURE_BYTES - 2].to_vec());
    let marked = |mark: u8, bytes: Vec<u8>| [vec![mark], bytes].concat();
    signed.into_iter().map(|it| marked(ENVELOPE, it)).chain(payloads.into_iter().map(|it| marked(PAYLOAD, it))).collect()
}
