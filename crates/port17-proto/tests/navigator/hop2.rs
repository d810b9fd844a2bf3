//! The hop that is pinned behind the guard.

use std::collections::BTreeSet;

use port17_proto::bottle::BottleContent;
use port17_proto::bottlerack::Trust;
use port17_proto::crypto::Entropy;
use port17_proto::ids::NodeId;
use port17_proto::navigator::{Hop2Request, HopRole, Map, NoRoute, RouteRequest, renew_hop2, route, sample};

use crate::every_route::{Known, assert_all_equally_likely};
use crate::mesh::{contents, full_mesh, map, map_with, node, request, web};
use crate::sample_bottle::{NOW_MS, links_to};

fn draw_over(map: &Map, hop2: &[NodeId], hops: usize, exclude: &[NodeId]) -> Result<Vec<NodeId>, NoRoute> {
    let (target, exclude) = (web(), exclude.iter().copied().collect());
    route(map, &RouteRequest { hop2, ..request(hops, &target, &exclude) }, &mut Entropy::from_number(5))
}

fn renew(contents: &[BottleContent], stored: &[NodeId], seed: u64) -> Vec<NodeId> {
    let exclude = BTreeSet::new();
    let wanted = Hop2Request { guard: node(0), most: 3, hops: 4, diversity: false, exclude: &exclude, now_ms: NOW_MS };
    renew_hop2(&map(contents), &wanted, stored, &mut Entropy::from_number(seed))
}

#[test]
fn the_first_candidate_that_can_be_used_is_hop_2() {
    let contents = contents(7, &full_mesh(7), &[5, 6]);
    let map = map(&contents);
    let hop2 = [3, 1, 2].map(node);
    for hops in 3..=6 {
        assert_eq!(draw_over(&map, &hop2, hops, &[]).unwrap()[1], node(3));
    }
    // It does not answer: the next one, never any.
    assert_eq!(draw_over(&map, &hop2, 4, &[node(3)]).unwrap()[1], node(1));
    assert_eq!(draw_over(&map, &hop2, 4, &[node(3), node(1)]).unwrap()[1], node(2));
    let none_left = draw_over(&map, &hop2, 4, &hop2);
    assert_eq!(none_left, Err(NoRoute::Hop2 { hops: 4, candidates: 3, usable: 0 }));
    let text =
        "of 3 nodes that may stand behind the guard 0 can be used, and none of these leads to an exit that allows it in 4 hops";
    assert_eq!(none_left.unwrap_err().to_string(), text);
}

#[test]
fn a_candidate_whose_link_to_the_guard_is_gone_is_passed_over() {
    let mut contents = contents(5, &full_mesh(5), &[4]);
    let hop2 = [1, 2].map(node);
    assert_eq!(draw_over(&map(&contents), &hop2, 3, &[]).unwrap()[1], node(1));
    contents[1].links = links_to([&node(2), &node(3), &node(4)]);
    assert_eq!(draw_over(&map(&contents), &hop2, 3, &[]).unwrap()[1], node(2));
}

#[test]
fn a_candidate_that_cannot_lead_to_an_exit_is_passed_over() {
    let exit_first = [3, 1].map(node);
    let map = map(&contents(4, &full_mesh(4), &[3]));
    assert_eq!(draw_over(&map, &exit_first, 3, &[]).unwrap(), [0, 1, 3].map(node));
    let only_exit = draw_over(&map, &[node(3)], 3, &[]);
    assert_eq!(only_exit, Err(NoRoute::Hop2 { hops: 3, candidates: 1, usable: 1 }));
}

#[test]
fn two_hops_and_fewer_have_no_pinned_one() {
    let map = map(&contents(4, &full_mesh(4), &[0, 3]));
    assert_eq!(draw_over(&map, &[node(1)], 2, &[]).unwrap(), [0, 3].map(node));
    assert_eq!(draw_over(&map, &[node(1)], 1, &[]).unwrap(), [node(0)]);
}

#[test]
fn hidden_nodes_and_strangers_are_never_pinned() {
    let mut contents = contents(6, &full_mesh(6), &[5]);
    contents[1].addresses.clear();
    let trust = |index| if index == 2 { Trust::Unknown } else { Trust::Trusted };
    let map = map_with(&contents, trust);
    assert_eq!(draw_over(&map, &[1, 2, 3].map(node), 4, &[]).unwrap()[1], node(3));
    assert_eq!(draw_over(&map, &[1, 2].map(node), 4, &[]), Err(NoRoute::Hop2 { hops: 4, candidates: 2, usable: 0 }));
}

#[test]
fn behind_the_pinned_hop_all_routes_are_equally_likely() {
    let links = [(0, 1), (0, 2), (1, 3), (1, 4), (3, 5), (4, 5), (4, 6), (2, 3), (3, 6), (1, 5)];
    let contents = contents(7, &links, &[5, 6]);
    let known = Known { trust: vec![Trust::Trusted; contents.len()], contents };
    let (target, exclude) = (web(), BTreeSet::new());
    for hops in 3..=5 {
        assert_all_equally_likely(&known, &RouteRequest { hop2: &[node(1)], ..request(hops, &target, &exclude) });
    }
}

#[test]
fn a_sample_names_the_pinned_hop_and_what_could_have_been_pinned() {
    let mut contents = contents(6, &full_mesh(6), &[5]);
    contents[4].addresses.clear();
    let (target, exclude) = (web(), BTreeSet::new());
    let wanted = RouteRequest { hop2: &[node(2)], ..request(4, &target, &exclude) };
    let drawn = sample(&map(&contents), &wanted, &mut Entropy::from_number(1)).unwrap();
    assert_eq!((drawn.hops[1].node, drawn.hops[1].role, drawn.hops[1].alternatives), (node(2), HopRole::Pinned, 3));
    assert_eq!((drawn.hops[2].role, drawn.hops[2].alternatives), (HopRole::Middle, 3));
    assert_eq!((drawn.hops[3].role, drawn.hops[3].alternatives), (HopRole::Exit, 1));
}

#[test]
fn candidates_are_drawn_from_all_neighbours_that_lead_to_an_exit() {
    // 4 is a dead end, 5 the only exit, 6 no neighbour of the guard.
    let links = [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 6), (2, 6), (3, 6), (6, 5), (0, 7), (7, 6)];
    let contents = contents(8, &links, &[5]);
    let drawn: Vec<Vec<NodeId>> = (0..40).map(|seed| renew(&contents, &[], seed)).collect();
    assert!(drawn.iter().all(|nodes| nodes.iter().collect::<BTreeSet<_>>().len() == 3));
    let seen: BTreeSet<NodeId> = drawn.into_iter().flatten().collect();
    assert_eq!(seen, [1, 2, 3, 7].map(node).into());
}

#[test]
fn candidates_that_can_be_used_stay_and_the_others_are_replaced() {
    let mut contents = contents(7, &full_mesh(7), &[6]);
    let stored = [2, 1, 3].map(node);
    assert_eq!(renew(&contents, &stored, 1), stored);
    assert_eq!(renew(&contents, &[2, 2, 1].map(node), 1)[..2], [2, 1].map(node));
    contents[1].addresses.clear();
    let renewed = renew(&contents, &stored, 1);
    assert_eq!(renewed[..2], [2, 3].map(node));
    assert!([4, 5].map(node).contains(&renewed[2]), "not the only exit");
    assert_eq!(renew(&contents[..1], &stored, 1), []);
}

#[test]
fn candidates_that_lead_nowhere_give_way_one_at_a_time() {
    // 1, 2 and 3 are linked to the guard and among themselves alone.
    let mut links = full_mesh(4);
    links.extend([(0, 4), (4, 5), (5, 6)]);
    let contents = contents(7, &links, &[6]);
    assert_eq!(renew(&contents, &[1, 2, 3].map(node), 1), [1, 2, 4].map(node));
    let route = draw_over(&map(&contents), &[1, 2, 4].map(node), 4, &[]).unwrap();
    assert_eq!(route, [0, 4, 5, 6].map(node));
}
