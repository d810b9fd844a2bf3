//! Nodes that are nothing but their Bottles, and lists that name them.

use std::collections::BTreeMap;
use std::time::Duration;

use port17_proto::bottle::{Address, BottleContent, CircuitKey, Flags, LinkClaim, NodePrefix, ProtocolRange, Seq};
use port17_proto::crypto::{Entropy, KemPublicKey, PUBLIC_KEY_BYTES, SigningKey};
use port17_proto::ids::NodeId;
use port17_proto::policy::ExitPolicy;
use port17_proto::wire::registry::{LaneType, Scope};

use crate::engine::mesh::{Mesh, Plan};

/// The key of such a node.
pub fn paper_key(seed: u64) -> SigningKey {
    SigningKey::generate(&mut Entropy::from_number(seed + 40_000))
}

/// Who it is.
pub fn paper_id(seed: u64) -> NodeId {
    NodeId::of(&paper_key(seed).public())
}

/// Its Bottle, `load` to tell versions apart: it can be dialled, is an exit, and links to its neighbours by number.
pub fn paper_bottle(seed: u64, seq_ms: u64, load: u8) -> Vec<u8> {
    let key = paper_key(seed);
    let mut links: Vec<LinkClaim> = [seed.wrapping_sub(1), seed + 1]
        .map(|other| LinkClaim { peer: NodePrefix::from(&paper_id(other % 16)), rtt: 40, capacity: 10 })
        .into();
    links.sort_by_key(|link| link.peer);
    let content = BottleContent {
        identity: key.public(),
        seq: Seq(seq_ms),
        scope: Scope::Public,
        label: "paper".parse().expect("a label"),
        group: String::new(),
        link_key: key.public(),
        link_key_expiry_s: seq_ms / 1000 + 3600,
        next_link_key: None,
        circuit_key: CircuitKey { public: KemPublicKey::from_bytes([5; PUBLIC_KEY_BYTES]), not_after_s: seq_ms / 1000 + 3600 },
        addresses: vec![Address::new(([127, 0, 9, (seed % 250) as u8], 1717).into(), LaneType::TlsTcp)],
        egress: vec![],
        links,
        exit_policy: (seed % 2 == 0).then(|| ExitPolicy::parse(&["accept tcp *:*"]).expect("a policy")),
        load,
        flags: Flags::default(),
        protocol: ProtocolRange::OURS,
        software: String::new(),
        unknown: BTreeMap::new(),
    };
    content.sign(&key).expect("a Bottle of paper is well formed")
}

/// A list of the network that names the nodes 21, 22 and 23.
pub fn list(seq: u64) -> Vec<u8> {
    let mut mesh = Mesh::new();
    mesh.in_network = true;
    let hosts: Vec<usize> = (21..24).map(|seed| mesh.add(Plan { decides: true, ..Plan::new(seed) })).collect();
    mesh.run_for(Duration::from_secs(1));
    mesh.list(seq, &hosts, |_| {})
}
