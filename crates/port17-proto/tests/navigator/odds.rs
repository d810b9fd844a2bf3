//! How likely each exit is, counted and drawn.

use std::collections::{BTreeMap, BTreeSet};

use port17_proto::ids::NodeId;
use port17_proto::navigator::{ExitOdds, Map, NoRoute, RouteRequest, exit_odds};

use crate::mesh::{contents, full_mesh, map, node, request, tally_of, web};

const STEPS: usize = 100_000;

/// Counted walks, and how often routes that were drawn ended there: within five standard deviations of each other.
fn assert_drawn_as_counted(map: &Map, request: &RouteRequest<'_>) -> ExitOdds {
    const DRAWS: u64 = 12_000;
    let odds = exit_odds(map, request, STEPS).unwrap().unwrap();
    let mut drawn: BTreeMap<NodeId, u64> = BTreeMap::new();
    for (route, times) in tally_of(map, request, DRAWS) {
        *drawn.entry(*route.last().unwrap()).or_default() += times;
    }
    let all: u64 = odds.walks.values().sum();
    assert_eq!(drawn.keys().collect::<Vec<_>>(), odds.walks.keys().collect::<Vec<_>>());
    for (exit, times) in drawn {
        let expected = DRAWS * odds.walks[&exit] / all;
        let off = times.abs_diff(expected);
        assert!(off * off < 25 * expected, "{exit}: {times} times, not about {expected}");
    }
    odds
}

#[test]
fn exits_are_drawn_as_often_as_walks_end_there() {
    // From 0 to 5 over 1 and 3, 1 and 4, or 2 and 4; to 6 over 1 and 3 alone.
    let links = [(0, 1), (0, 2), (1, 3), (1, 4), (2, 4), (3, 5), (4, 5), (3, 6)];
    let map = map(&contents(7, &links, &[5, 6]));
    let (target, nobody) = (web(), BTreeSet::new());
    let odds = assert_drawn_as_counted(&map, &request(4, &target, &nobody));
    assert_eq!(odds, ExitOdds { eligible: 2, walks: [(node(5), 3), (node(6), 1)].into() });
}

#[test]
fn behind_a_pinned_hop_only_its_walks_count() {
    let links = [(0, 1), (0, 2), (1, 3), (1, 4), (2, 4), (3, 5), (4, 5), (3, 6)];
    let map = map(&contents(7, &links, &[5, 6]));
    let (target, nobody) = (web(), BTreeSet::new());
    let hop2 = [node(6), node(2), node(1)];
    let pinned = RouteRequest { hop2: &hop2, ..request(4, &target, &nobody) };
    // 6 is not linked to the guard; 2 leads to one of the two exits.
    let odds = assert_drawn_as_counted(&map, &pinned);
    assert_eq!(odds, ExitOdds { eligible: 2, walks: [(node(5), 1)].into() });
}

#[test]
fn in_a_full_mesh_all_exits_are_alike() {
    let map = map(&contents(8, &full_mesh(8), &[0, 4, 5, 6]));
    let (target, nobody) = (web(), BTreeSet::new());
    let odds = assert_drawn_as_counted(&map, &request(4, &target, &nobody));
    // The guard is one of the four and never the exit; two of the six others stand in the middle.
    assert_eq!(odds, ExitOdds { eligible: 4, walks: [4, 5, 6].map(|exit| (node(exit), 30)).into() });
}

#[test]
fn too_many_walks_have_no_odds_and_no_walk_has_a_reason() {
    let (target, nobody) = (web(), BTreeSet::new());
    let mesh = map(&contents(8, &full_mesh(8), &[6]));
    assert_eq!(exit_odds(&mesh, &request(5, &target, &nobody), 10), Ok(None));
    let chain = map(&contents(4, &[(0, 1), (1, 2), (2, 3)], &[3]));
    assert_eq!(exit_odds(&chain, &request(3, &target, &nobody), STEPS), Err(NoRoute::NoPath { hops: 3 }));
}
