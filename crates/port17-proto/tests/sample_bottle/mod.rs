//! Bottles with fixed content, and a second, careless CBOR writer to make wrong ones with.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;

use port17_proto::bottle::{
    Address, BottleContent, BottleRules, CircuitKey, Flags, LinkClaim, NodePrefix, ProtocolRange, Seq, UnverifiedBottle,
    VerifiedBottle,
};
use port17_proto::crypto::{KemPublicKey, KemSecretKey, PUBLIC_KEY_BYTES, Secret, SigningKey};
use port17_proto::ids::NodeId;
use port17_proto::policy::ExitPolicy;
use port17_proto::wire::registry::{LaneType, Scope};

/// 15 January 2027, 08:00 UTC.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;
/// Half a minute before.
pub(crate) const SEQ: u64 = 1_799_999_970_021;

/// The key of a seed of 32 equal bytes.
pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(Secret::new([seed; 32]))
}

/// Every field that a Bottle can have.
pub(crate) fn full() -> BottleContent {
    let circuit_key = KemSecretKey::from_seed(&Secret::new([3; 32])).unwrap();
    BottleContent {
        identity: key(1).public(),
        seq: Seq(SEQ),
        scope: Scope::Public,
        label: "sample-node".parse().unwrap(),
        group: "Example Operator".into(),
        link_key: key(2).public(),
        link_key_expiry_s: 1_805_000_000,
        next_link_key: Some(key(4).public()),
        circuit_key: CircuitKey { public: circuit_key.public().clone(), not_after_s: 1_800_100_000 },
        addresses: vec![
            Address::new("192.0.2.17:1717".parse().unwrap(), LaneType::TlsTcp),
            Address::new("[2001:db8::17]:443".parse().unwrap(), LaneType::Quic),
        ],
        egress: vec!["192.0.2.18".parse().unwrap(), "2001:db8::18".parse().unwrap()],
        links: vec![
            LinkClaim { peer: NodePrefix([0x11; 8]), rtt: 42, capacity: 10 },
            LinkClaim { peer: NodePrefix([0x22; 8]), rtt: 255, capacity: 255 },
        ],
        exit_policy: Some(
            ExitPolicy::parse(&["reject * private:*", "accept tcp *:80,443", "accept udp [2001:db8::]/32:53"]).unwrap(),
        ),
        load: 2,
        flags: Flags(2),
        protocol: ProtocolRange { lowest: 1, highest: 1 },
        software: "port17 0.1.0".into(),
        unknown: BTreeMap::from([(20, uint(7)), (1000, array(&[text("from the future"), map(&[(1, vec![0xf6])])]))]),
    }
}

/// The least that a Bottle can say. `seed` is the identity's.
pub(crate) fn minimal(seed: u8) -> BottleContent {
    BottleContent {
        identity: key(seed).public(),
        seq: Seq(SEQ),
        scope: Scope::Public,
        label: "abc".parse().unwrap(),
        group: String::new(),
        link_key: key(2).public(),
        link_key_expiry_s: 1_805_000_000,
        next_link_key: None,
        circuit_key: CircuitKey { public: KemPublicKey::from_bytes([5; PUBLIC_KEY_BYTES]), not_after_s: 1_800_100_000 },
        addresses: Vec::new(),
        egress: Vec::new(),
        links: Vec::new(),
        exit_policy: None,
        load: 0,
        flags: Flags(0),
        protocol: ProtocolRange::OURS,
        software: String::new(),
        unknown: BTreeMap::new(),
    }
}

/// Signs, reads and verifies content whose identity is `key(seed)`.
pub(crate) fn verified(content: &BottleContent, seed: u8) -> VerifiedBottle {
    let bytes = content.sign(&key(seed)).unwrap();
    UnverifiedBottle::parse(&bytes).unwrap().verify(NOW_MS, &BottleRules::DEFAULT).unwrap()
}

/// The links of a node to others, in order.
pub(crate) fn links_to<'a>(others: impl IntoIterator<Item = &'a NodeId>) -> Vec<LinkClaim> {
    let mut links: Vec<LinkClaim> =
        others.into_iter().map(|other| LinkClaim { peer: NodePrefix::from(other), rtt: 0, capacity: 10 }).collect();
    links.sort_by_key(|link| link.peer);
    links
}

// ---- Careless CBOR ----

/// A head in its shortest form.
pub(crate) fn head(major: u8, argument: u64) -> Vec<u8> {
    let bytes = argument.to_be_bytes();
    let (info, tail) = match argument {
        0..=23 => (bytes[7], &bytes[8..]),
        24..=0xff => (24, &bytes[7..]),
        0x100..=0xffff => (25, &bytes[6..]),
        0x1_0000..=0xffff_ffff => (26, &bytes[4..]),
        _ => (27, &bytes[..]),
    };
    [&[(major << 5) | info], tail].concat()
}

pub(crate) fn uint(value: u64) -> Vec<u8> {
    head(0, value)
}

pub(crate) fn bytes(value: &[u8]) -> Vec<u8> {
    [head(2, value.len() as u64), value.to_vec()].concat()
}

pub(crate) fn text(value: &str) -> Vec<u8> {
    [head(3, value.len() as u64), value.as_bytes().to_vec()].concat()
}

pub(crate) fn array(values: &[Vec<u8>]) -> Vec<u8> {
    [head(4, values.len() as u64), values.concat()].concat()
}

pub(crate) fn map(pairs: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let pairs: Vec<Vec<u8>> = pairs.iter().map(|(key, value)| [uint(*key), value.clone()].concat()).collect();
    [head(5, pairs.len() as u64), pairs.concat()].concat()
}

pub(crate) fn address(ip: &[u8], port: u64, lane: u64) -> Vec<u8> {
    array(&[bytes(ip), uint(port), uint(lane)])
}

/// The fields of `full()`, encoded by hand.
pub(crate) fn full_fields() -> Vec<(u64, Vec<u8>)> {
    let content = full();
    let v6 = |last: u8| [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let links = [&[0x11; 8][..], &[42, 10], &[0x22; 8], &[255, 255]].concat();
    vec![
        (1, uint(1)),
        (2, bytes(&key(1).public().0)),
        (3, uint(SEQ)),
        (4, uint(0)),
        (5, text("sample-node")),
        (6, text("Example Operator")),
        (7, bytes(&key(2).public().0)),
        (8, uint(1_805_000_000)),
        (9, bytes(&key(4).public().0)),
        (10, bytes(content.circuit_key.public.as_bytes())),
        (11, uint(1_800_100_000)),
        (12, array(&[address(&[192, 0, 2, 17], 1717, 1), address(&v6(0x17), 443, 2)])),
        (13, array(&[bytes(&[192, 0, 2, 18]), bytes(&v6(0x18))])),
        (14, bytes(&links)),
        (15, bytes(&[0x18, 0xa2, 0, 80, 0, 80, 1, 0xbb, 1, 0xbb, 0xd1, 32, 0x20, 0x01, 0x0d, 0xb8, 0, 53, 0, 53])),
        (16, uint(2)),
        (17, uint(2)),
        (18, array(&[uint(1), uint(1)])),
        (19, text("port17 0.1.0")),
        (20, uint(7)),
        (1000, array(&[text("from the future"), map(&[(1, vec![0xf6])])])),
    ]
}

/// The signature of a payload by `key(seed)`.
pub(crate) fn signature(payload: &[u8], seed: u8) -> [u8; 64] {
    key(seed).sign("p17-bottle-v1", &[payload])
}

/// A whole Bottle around any payload, signed by `key(1)`.
pub(crate) fn envelope(payload: &[u8]) -> Vec<u8> {
    array(&[uint(1), bytes(payload), bytes(&signature(payload, 1))])
}
