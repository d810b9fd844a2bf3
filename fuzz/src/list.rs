//! A signed bootstrap list: its envelope, and what it says (spec 12).
//!
//! The first byte says what the rest is: a whole envelope, or a payload that enough roots sign.

use port17_proto::limits::{LIST_BYTES, LIST_LIFE_S, LIST_NODES, LIST_RELEASES, LIST_SIGNATURES};
use port17_proto::network::{ListContent, Release, Roots, SignedList, VerifiedList};
use port17_proto::params::Params;

use crate::choices::Choices;
use crate::sample_bottle::key;
use crate::sample_list::{self as sample, NOW_S, definition, signed_by};

const ENVELOPE: u8 = 0;
const PAYLOAD: u8 = 1;

/// Reads a list.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    match choices.byte() {
        ENVELOPE => envelope(choices.rest()),
        _ => payload(choices.rest()),
    }
}

fn envelope(bytes: &[u8]) {
    let Ok(list) = SignedList::decode(bytes) else { return };
    assert!(bytes.len() <= LIST_BYTES && list.signatures.len() <= LIST_SIGNATURES);
    assert_eq!(list.encode(), bytes, "an envelope has one form");
    if let Ok(verified) = list.verify(&definition(), NOW_S) {
        check(&verified);
    }
}

fn payload(payload: &[u8]) {
    let unsigned = SignedList::new(payload.to_vec());
    let Ok(content) = unsigned.read_unverified() else { return };
    assert!(content.nodes.len() <= LIST_NODES && content.releases.len() <= LIST_RELEASES);
    assert!(content.seq > 0 && (1..=LIST_LIFE_S).contains(&(content.expires_s - content.issued_s)));
    assert!(content.params.validate().is_ok(), "parameters are in range");
    assert!(unsigned.clone().verify(&definition(), NOW_S).is_err(), "nobody has signed it");
    let one = signed_by(payload.to_vec(), &[41]);
    assert!(one.verify_whatever_age(&definition()).is_err(), "one root is not enough");
    let signed = signed_by(payload.to_vec(), &[41, 43]);
    let aged = signed.clone().verify_whatever_age(&definition());
    match (aged, signed.verify(&definition(), NOW_S)) {
        (Ok(_), Ok(verified)) => check(&verified),
        (Ok(aged), Err(_)) => assert!(aged.has_expired(NOW_S) || aged.issued_s() > NOW_S),
        (Err(_), young) => assert!(young.is_err(), "age is not all that counts"),
    }
}

fn check(list: &VerifiedList) {
    // Parameters of a later version are skipped, so the payload may say more than the content.
    let payload = list.content().encode().expect("what was taken can be said");
    assert_eq!(SignedList::new(payload).read_unverified().as_ref(), Ok(list.content()), "a content reads back as itself");
    assert_eq!(list.content().network, definition().id());
    assert_eq!(list.nodes().len(), list.content().nodes.len());
    assert!(list.nodes().is_sorted_by(|one, other| one.node_id() < other.node_id()));
    assert!(list.nodes().iter().all(|node| list.node(&node.node_id()).is_some()));
    assert!((2..=3).contains(&list.signers()) && !list.has_expired(NOW_S));
    let back = SignedList::decode(&list.signed().encode());
    assert_eq!(back.as_ref(), Ok(list.signed()));
}

/// Small lists with nodes and without, with everything that a list can have; and their payloads.
pub fn seeds() -> Vec<Vec<u8>> {
    let bare = ListContent { nodes: vec![], ..sample::content() };
    let release = Release { version: "1.2.3".into(), platform: "x86_64-linux".into(), sha256: [1; 32], url: "https://x/y".into() };
    let roots = Roots::new(2, vec![key(44).public(), key(45).public()]).expect("two different keys");
    let full = ListContent {
        params: Params::demo(),
        roots: Some(roots),
        releases: vec![release.clone(), Release { version: "1.2.4".into(), ..release }],
        unknown: [(40, vec![0x07])].into(),
        ..bare.clone()
    };
    let mut seeds = Vec::new();
    for content in [bare, full, sample::content()] {
        let payload = content.encode().expect("samples are well formed");
        seeds.push([vec![ENVELOPE], signed_by(payload.clone(), &[41, 43]).encode()].concat());
        seeds.push([vec![PAYLOAD], payload].concat());
    }
    seeds
}
