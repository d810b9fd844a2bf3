//! Maps to draw routes on.

use std::collections::{BTreeMap, BTreeSet};

use port17_proto::bottle::{Address, BottleContent, VerifiedBottle};
use port17_proto::bottlerack::Trust;
use port17_proto::circuit::message::{Host, Target};
use port17_proto::crypto::Entropy;
use port17_proto::ids::NodeId;
use port17_proto::navigator::{Map, NoRoute, RouteRequest, route};
use port17_proto::policy::ExitPolicy;
use port17_proto::wire::registry::{LaneType, StreamProtocol};

use crate::sample_bottle::{NOW_MS, links_to, minimal, verified};

pub const MARGIN_MS: u64 = 3_600_000;

/// Nodes 0..n, linked as listed; `exits` accept TCP to port 80. Each has an address in a /16 of its own.
pub fn contents(nodes: u8, links: &[(u8, u8)], exits: &[u8]) -> Vec<BottleContent> {
    let ids: Vec<NodeId> = (0..nodes).map(node).collect();
    let content = |index: u8| {
        let others = links.iter().filter_map(|(a, b)| if *a == index { Some(b) } else { (*b == index).then_some(a) });
        let mut content = minimal(index + 1);
        content.links = links_to(others.map(|other| &ids[usize::from(*other)]));
        content.addresses = vec![address(index, 1)];
        content.exit_policy = exits.contains(&index).then(|| ExitPolicy::parse(&["accept tcp *:80"]).unwrap());
        content
    };
    (0..nodes).map(content).collect()
}

/// An address in the /16 with this number.
pub fn address(block: u8, host: u8) -> Address {
    Address::new(format!("11.{block}.0.{host}:1717").parse().unwrap(), LaneType::TlsTcp)
}

pub fn sign(contents: &[BottleContent]) -> Vec<VerifiedBottle> {
    (1u8..).zip(contents).map(|(seed, content)| verified(content, seed)).collect()
}

/// All trusted.
pub fn map(contents: &[BottleContent]) -> Map {
    map_with(contents, |_| Trust::Trusted)
}

pub fn map_with(contents: &[BottleContent], trust: impl Fn(usize) -> Trust) -> Map {
    let bottles = sign(contents);
    Map::build(bottles.iter().enumerate().map(|(index, bottle)| (bottle, trust(index))), MARGIN_MS)
}

pub fn node(index: u8) -> NodeId {
    minimal(index + 1).node_id()
}

pub fn full_mesh(nodes: u8) -> Vec<(u8, u8)> {
    (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b))).collect()
}

pub fn web() -> Target {
    Target { host: Host::Name("example.org".into()), port: 80 }
}

/// From node 0, without diversity, hop 2 free.
pub fn request<'a>(hops: usize, target: &'a Target, exclude: &'a BTreeSet<NodeId>) -> RouteRequest<'a> {
    let guard = Some(node(0));
    RouteRequest { guard, hop2: &[], hops, diversity: false, protocol: StreamProtocol::Tcp, target, exclude, now_ms: NOW_MS }
}

pub fn draw(map: &Map, hops: usize, seed: u64) -> Result<Vec<NodeId>, NoRoute> {
    draw_without(map, hops, seed, &BTreeSet::new())
}

pub fn draw_without(map: &Map, hops: usize, seed: u64, exclude: &BTreeSet<NodeId>) -> Result<Vec<NodeId>, NoRoute> {
    route(map, &request(hops, &web(), exclude), &mut Entropy::from_number(seed))
}

/// How often each route is drawn.
pub fn tally(map: &Map, hops: usize, draws: u64) -> BTreeMap<Vec<NodeId>, u64> {
    tally_of(map, &request(hops, &web(), &BTreeSet::new()), draws)
}

pub fn tally_of(map: &Map, request: &RouteRequest<'_>, draws: u64) -> BTreeMap<Vec<NodeId>, u64> {
    let mut entropy = Entropy::from_number(7);
    let mut counts = BTreeMap::new();
    for _ in 0..draws {
        *counts.entry(route(map, request, &mut entropy).unwrap()).or_default() += 1;
    }
    counts
}

/// All counts within five standard deviations of the same number.
pub fn assert_uniform(counts: &BTreeMap<Vec<NodeId>, u64>, walks: u64) {
    assert_eq!(counts.len() as u64, walks);
    let expected = counts.values().sum::<u64>() / walks;
    for (route, count) in counts {
        let off = count.abs_diff(expected);
        assert!(off * off < 25 * expected, "{route:?}: {count}, not about {expected}");
    }
}
