//! What a large map costs. Ignored: it takes long without optimisation, and its figures are for reading.

#![allow(clippy::disallowed_methods, reason = "it measures")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use port17_proto::bottle::{Address, BottleContent, CircuitKey, Flags, LinkClaim, NodePrefix, ProtocolRange, Seq};
use port17_proto::bottlerack::Trust;
use port17_proto::crypto::{KemPublicKey, PUBLIC_KEY_BYTES};
use port17_proto::ids::NodeId;
use port17_proto::navigator::Map;
use port17_proto::node::io::Input;
use port17_proto::params::Params;
use port17_proto::wire::registry::{LaneType, Scope};

use super::gossip::{BEGIN_MS, paper_id, paper_key};
use super::mesh::{Mesh, Plan};

const LINKS: u64 = 32;

/// The Bottle of a node in a ring of `nodes`, linked to the 32 next to it.
fn ring_bottle(seed: u64, ids: &[NodeId]) -> Vec<u8> {
    let (key, nodes) = (paper_key(seed), ids.len() as u64);
    let near = (1..=LINKS / 2).flat_map(|far| [(seed + far) % nodes, (seed + nodes - far) % nodes]);
    let links: BTreeMap<NodePrefix, LinkClaim> = near
        .map(|other| NodePrefix::from(&ids[usize::try_from(other).unwrap()]))
        .map(|peer| (peer, LinkClaim { peer, rtt: 255, capacity: 255 }))
        .collect();
    let at = format!("127.{}.{}.1:1717", 1 + seed / 250, seed % 250);
    let content = BottleContent {
        identity: key.public(),
        seq: Seq(BEGIN_MS),
        scope: Scope::Public,
        label: "paper".parse().unwrap(),
        group: String::new(),
        link_key: key.public(),
        link_key_expiry_s: BEGIN_MS / 1000 + 3600,
        next_link_key: None,
        circuit_key: CircuitKey {
            public: KemPublicKey::from_bytes([5; PUBLIC_KEY_BYTES]),
            not_after_s: BEGIN_MS / 1000 + 20 * 3600,
        },
        addresses: vec![Address::new(at.parse().unwrap(), LaneType::TlsTcp)],
        egress: vec![],
        links: links.into_values().collect(),
        exit_policy: None,
        load: 0,
        flags: Flags::default(),
        protocol: ProtocolRange::OURS,
        software: String::new(),
        unknown: BTreeMap::new(),
    };
    content.sign(&key).unwrap()
}

/// A node that holds `nodes` Bottles, another one and a client that get them over a link.
fn spread(nodes: u64) {
    let ids: Vec<NodeId> = (0..nodes).map(paper_id).collect();
    let bottles: Vec<Vec<u8>> = (0..nodes).map(|seed| ring_bottle(seed, &ids)).collect();
    let mut mesh = Mesh::new();
    mesh.lanes_only = true;
    mesh.in_network = true;
    let plan =
        |seed| Plan { decides: true, params: Params { degree_min: 1, degree_max: 1, ..Params::demo() }, ..Plan::new(seed) };
    for seed in 1..=2 {
        mesh.add(plan(seed));
    }
    mesh.run_for(Duration::from_secs(1));
    let list = mesh.list(1, &[0, 1], |params| (params.degree_min, params.degree_max) = (1, 1));
    mesh.give_list(&list);
    mesh.run_for(Duration::from_secs(3));
    let clock = Instant::now();
    for bottle in &bottles {
        mesh.input(0, Input::Bottle(bottle.clone()));
    }
    println!("{nodes} Bottles from a directory: {:?}", clock.elapsed());
    let want = usize::try_from(nodes.min(8192)).unwrap();
    let holds = |mesh: &Mesh, host: usize| mesh.hosts[host].node.as_ref().unwrap().bottlerack().len() > want;
    let clock = Instant::now();
    mesh.run_until(Duration::from_secs(30), "the map over a link", |mesh| holds(mesh, 1));
    println!("{nodes} Bottles over a link: {:?}", clock.elapsed());
    let client = mesh.add_client(9, Params::demo(), None);
    mesh.input(client, Input::List(list));
    let clock = Instant::now();
    mesh.run_until(Duration::from_secs(30), "the map at a client", |mesh| holds(mesh, client));
    println!("{nodes} Bottles to a client: {:?}", clock.elapsed());
    let rack = mesh.hosts[client].node.as_ref().unwrap().bottlerack();
    let clock = Instant::now();
    let map = Map::build(rack.iter().map(|it| (&it.bottle, Trust::Unknown)), 0);
    println!("a map of {}: {:?}", map.len(), clock.elapsed());
}

#[test]
#[ignore = "figures for reading"]
fn the_cost_of_a_bottle_does_not_grow_with_the_map() {
    for nodes in [2000, 4000, 8000] {
        spread(nodes);
    }
}
