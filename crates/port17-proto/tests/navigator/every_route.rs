//! All routes of a small mesh, one by one and by the rules as they are written: what drawing is measured against.

use std::collections::BTreeSet;
use std::net::IpAddr;

use port17_proto::bottle::{BottleContent, Flags};
use port17_proto::bottlerack::Trust;
use port17_proto::crypto::Entropy;
use port17_proto::ids::NodeId;
use port17_proto::navigator::{Map, NoRoute, RouteRequest, route, sample};
use port17_proto::policy::ExitPolicy;
use proptest::prelude::*;

use crate::mesh::{address, contents, map_with, node, request, tally_of, web};

/// A mesh as the rules see it.
#[derive(Debug, Clone)]
pub struct Known {
    pub contents: Vec<BottleContent>,
    pub trust: Vec<Trust>,
}

impl Known {
    pub fn map(&self) -> Map {
        map_with(&self.contents, |index| self.trust[index])
    }

    fn index(&self, id: &NodeId) -> usize {
        self.contents.iter().position(|content| content.node_id() == *id).unwrap()
    }

    fn is_usable(&self, index: usize) -> bool {
        self.trust[index] != Trust::Distrusted && !self.contents[index].flags.is_draining()
    }

    fn may_face(&self, index: usize) -> bool {
        self.trust[index] == Trust::Trusted && !self.contents[index].addresses.is_empty()
    }

    fn are_linked(&self, one: usize, other: usize) -> bool {
        let lists = |a: usize, b: usize| self.contents[a].link_to(&self.contents[b].node_id()).is_some();
        lists(one, other) && lists(other, one)
    }

    fn fit(&self, one: usize, other: usize, diversity: bool) -> bool {
        let (a, b) = (&self.contents[one], &self.contents[other]);
        let same_group = !a.group.is_empty() && a.group == b.group;
        let same_block = blocks(a).intersection(&blocks(b)).next().is_some();
        one != other && !(diversity && (same_group || same_block))
    }

    /// Every way to go on to `hops` nodes.
    fn extend(&self, walk: &mut Vec<usize>, request: &RouteRequest<'_>, found: &mut BTreeSet<Vec<NodeId>>) {
        let last = *walk.last().unwrap();
        if walk.len() == request.hops {
            if self.may_face(last) && self.contents[last].exit_policy.is_some() {
                found.insert(walk.iter().map(|index| self.contents[*index].node_id()).collect());
            }
            return;
        }
        for next in 0..self.contents.len() {
            let fits = walk.iter().all(|before| self.fit(*before, next, request.diversity));
            let is_hidden_second = walk.len() == 1 && request.hops >= 3 && self.contents[next].addresses.is_empty();
            if fits && self.is_usable(next) && self.are_linked(last, next) && !is_hidden_second {
                walk.push(next);
                self.extend(walk, request, found);
                walk.pop();
            }
        }
    }

    /// All routes that a request may be answered with.
    pub fn every_route(&self, request: &RouteRequest<'_>) -> BTreeSet<Vec<NodeId>> {
        let guard = self.index(&request.guard.unwrap());
        let mut found = BTreeSet::new();
        if !self.is_usable(guard) || !self.may_face(guard) {
            return found;
        }
        self.extend(&mut vec![guard], request, &mut found);
        if request.hops < 3 || request.hop2.is_empty() {
            return found;
        }
        for candidate in request.hop2 {
            let over: BTreeSet<_> = found.iter().filter(|route| route[1] == *candidate).cloned().collect();
            if !over.is_empty() && self.may_face(self.index(candidate)) {
                return over;
            }
        }
        BTreeSet::new()
    }
}

fn blocks(content: &BottleContent) -> BTreeSet<Vec<u8>> {
    let block = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets()[..2].to_vec(),
        IpAddr::V6(v6) => v6.octets()[..4].to_vec(),
    };
    content.addresses.iter().map(|address| address.ip).chain(content.egress.iter().copied()).map(block).collect()
}

/// Draws 300 times as many routes as there are; each comes about equally often, and the entropy is nearly that of their number.
pub fn assert_all_equally_likely(known: &Known, request: &RouteRequest<'_>) {
    let every = known.every_route(request);
    assert!(!every.is_empty());
    let routes = every.len() as u64;
    let counts = tally_of(&known.map(), request, routes * 300);
    assert!(counts.keys().all(|drawn| every.contains(drawn)));
    crate::mesh::assert_uniform(&counts, routes);
    let drawn = (routes * 300) as f64;
    let bits: f64 = counts.values().map(|count| *count as f64 / drawn).map(|share| -share * share.log2()).sum();
    assert!((routes as f64).log2() - bits < 0.02, "{bits} bits for {routes} routes");
}

fn any_trust() -> impl Strategy<Value = Trust> {
    prop_oneof![6 => Just(Trust::Trusted), 2 => Just(Trust::Unknown), 1 => Just(Trust::Distrusted)]
}

prop_compose! {
    /// What one node is: trust, group (0 none), block of its address (0 hidden), block of its egress (0 none), exit, draining.
    fn any_node()(
        trust in any_trust(), group in 0u8..5, block in 0u8..9, egress in 0u8..12, exit in any::<bool>(), drains in 0u8..10
    ) -> (Trust, u8, u8, u8, bool, bool) {
        (trust, group, block, egress, exit, drains == 0)
    }
}

prop_compose! {
    fn any_mesh()(kinds in proptest::collection::vec(any_node(), 2..9))(
        links in proptest::collection::vec((0..kinds.len(), 0..kinds.len(), 0u8..8), 0..40), kinds in Just(kinds)
    ) -> Known {
        let nodes = u8::try_from(kinds.len()).unwrap();
        let mutual: BTreeSet<(u8, u8)> = links.iter().filter(|(a, b, _)| a < b)
            .map(|(a, b, _)| (u8::try_from(*a).unwrap(), u8::try_from(*b).unwrap())).collect();
        let mut contents = contents(nodes, &mutual.into_iter().collect::<Vec<_>>(), &[]);
        for (content, (_, group, block, egress, exit, drains)) in contents.iter_mut().zip(&kinds) {
            content.group = if *group == 0 { String::new() } else { format!("group {group}") };
            content.addresses = if *block == 0 { Vec::new() } else { vec![address(*block, 1)] };
            content.egress = if *egress == 0 { Vec::new() } else { vec![address(*egress, 2).ip] };
            content.exit_policy = exit.then(|| ExitPolicy::parse(&["accept tcp *:80"]).unwrap());
            content.flags = Flags(u16::from(*drains));
        }
        // Some links are claimed by one end alone.
        for (a, b, kind) in links {
            if kind == 0 && a != b {
                let other = contents[b].node_id();
                contents[a].links.retain(|link| link.peer != (&other).into());
            }
        }
        Known { contents, trust: kinds.iter().map(|kind| kind.0).collect() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_route_is_drawn_exactly_when_there_is_one_and_keeps_every_rule(
        known in any_mesh(), hops in 1usize..6, pins in proptest::collection::vec(0u8..8, 0..4), diversity: bool, seed: u64
    ) {
        let hop2: Vec<NodeId> =
            pins.iter().filter(|pin| usize::from(**pin) < known.contents.len()).map(|pin| node(*pin)).collect();
        let (target, exclude) = (web(), BTreeSet::new());
        let wanted = RouteRequest { hop2: &hop2, diversity, ..request(hops, &target, &exclude) };
        let every = known.every_route(&wanted);
        match route(&known.map(), &wanted, &mut Entropy::from_number(seed)) {
            Ok(drawn) => prop_assert!(every.contains(&drawn)),
            Err(why) => {
                prop_assert!(every.is_empty(), "{}", why);
                let loose = RouteRequest { diversity: false, ..wanted };
                let is_constraint = matches!(why, NoRoute::Constraints { .. });
                let asks_for_more = matches!(why, NoRoute::NoPath { .. } | NoRoute::Hop2 { .. });
                prop_assert!(!is_constraint || !known.every_route(&loose).is_empty());
                prop_assert!(!asks_for_more || known.every_route(&loose).is_empty());
            }
        }
    }

    #[test]
    fn a_sample_counts_what_could_have_stood_there(known in any_mesh(), hops in 1usize..6, diversity: bool, seed: u64) {
        let (target, exclude) = (web(), BTreeSet::new());
        let wanted = RouteRequest { diversity, ..request(hops, &target, &exclude) };
        let Ok(drawn) = sample(&known.map(), &wanted, &mut Entropy::from_number(seed)) else { return Ok(()) };
        let every = known.every_route(&wanted);
        let route: Vec<NodeId> = drawn.hops.iter().map(|hop| hop.node).collect();
        for place in 1..hops {
            let alike = every.iter().filter(|other| other[..place] == route[..place]);
            let nodes: BTreeSet<NodeId> = alike.map(|other| other[place]).collect();
            prop_assert_eq!(drawn.hops[place].alternatives, nodes.len());
        }
    }
}
