//! A network with fixed keys, and lists of it.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;

use port17_proto::bottle::Seq;
use port17_proto::crypto::SigningKey;
use port17_proto::network::{Definition, ListContent, Roots, SignedList};
use port17_proto::params::Params;

use super::sample_bottle::{SEQ, array, bytes, head, key, minimal, uint};

/// Roots 41, 42 and 43, of which two must sign.
pub(crate) fn definition() -> Definition {
    let keys = [41, 42, 43].map(|seed| key(seed).public());
    Definition::new("sample-net", Roots::new(2, keys.into()).unwrap()).unwrap()
}

/// When lists are looked at: 15 January 2027, 08:00 UTC.
pub(crate) const NOW_S: u64 = 1_800_000_000;
pub(crate) const DAY_S: u64 = 24 * 3600;

/// The nodes of keys 6 and 7, made an hour ago for 30 days.
pub(crate) fn content() -> ListContent {
    let nodes = [6, 7].map(|seed| minimal(seed).sign(&key(seed)).unwrap());
    ListContent {
        network: definition().id(),
        seq: 5,
        issued_s: NOW_S - 3600,
        expires_s: NOW_S - 3600 + 30 * DAY_S,
        random: [9; 32],
        nodes: nodes.into(),
        params: Params::DEFAULT,
        roots: None,
        releases: vec![],
        unknown: BTreeMap::new(),
    }
}

/// An old Bottle of the node of key `seed`, a year before the list.
pub(crate) fn old_bottle(seed: u8) -> Vec<u8> {
    let mut content = minimal(seed);
    let year_ms = 365 * DAY_S * 1000;
    content.seq = Seq(SEQ - year_ms);
    content.link_key_expiry_s -= year_ms / 1000;
    content.circuit_key.not_after_s -= year_ms / 1000;
    content.sign(&key(seed)).unwrap()
}

pub(crate) fn signed_by(payload: Vec<u8>, seeds: &[u8]) -> SignedList {
    let mut list = SignedList::new(payload);
    seeds.iter().for_each(|seed| list.sign(&key(*seed)));
    list
}

/// By two of three roots.
pub(crate) fn signed(content: &ListContent) -> SignedList {
    signed_by(content.encode().unwrap(), &[41, 43])
}

/// The fields of `content()`, by hand: whatever is wrong can be put in their place.
pub(crate) fn fields() -> BTreeMap<u64, Vec<u8>> {
    let content = content();
    let nodes: Vec<Vec<u8>> = content.nodes.iter().map(|node| bytes(node)).collect();
    BTreeMap::from([
        (1, bytes(&content.network.0)),
        (2, uint(content.seq)),
        (3, uint(content.issued_s)),
        (4, uint(content.expires_s)),
        (5, bytes(&content.random)),
        (6, array(&nodes)),
        (7, head(5, 0)),
    ])
}

pub(crate) fn payload(fields: &BTreeMap<u64, Vec<u8>>) -> Vec<u8> {
    let pairs: Vec<Vec<u8>> = fields.iter().map(|(key, value)| [uint(*key), value.clone()].concat()).collect();
    [head(5, pairs.len() as u64), pairs.concat()].concat()
}

/// `fields()` with some in the place of others, signed by enough roots.
pub(crate) fn with_fields(others: &[(u64, Vec<u8>)]) -> SignedList {
    let mut all = fields();
    all.extend(others.iter().cloned());
    signed_by(payload(&all), &[41, 42])
}

/// An envelope around any signature entries.
pub(crate) fn envelope(payload: &[u8], entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<Vec<u8>> = entries.iter().map(|(key, it)| array(&[bytes(key), bytes(it)])).collect();
    array(&[uint(3), bytes(payload), array(&entries)])
}

pub(crate) fn sign_payload(payload: &[u8], root: &SigningKey) -> (Vec<u8>, Vec<u8>) {
    (root.public().0.to_vec(), root.sign("p17-list-v1", &[payload]).to_vec())
}
