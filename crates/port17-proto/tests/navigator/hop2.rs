//! The hop that is pinned behind the guard.

use std::collections::BTreeSet;

use port17_proto::bottle::BottleContent;
use port17_proto::bottlerack::Trust;
use port17_proto::crypto::Entropy;
use port17_proto::ids::NodeId;
use port17_proto::navigator::{Hop2Request, HopRole, Map, NoRoute, RouteRequest, hop2_choices, route, sample};

use crate::every_route::{Known, assert_all_equally_likely};
use crate::mesh::{contents, full_mesh, map, map_with, node, request, web};
use crate::sample_bottle::{NOW_MS, links_to};

fn draw_over(map: &Map, hop2: &[NodeId], hops: usize, exclude: &[NodeId]) -> Result<Vec<NodeId>, NoRoute> {
    let (target, exclude) = (web(), exclude.iter().copied().collect());
    route(map, &RouteRequest { hop2, ..request(hops, &target, &exclude) }, &mut Entropy::from_number(5))
}

fn choices(contents: &[BottleContent], hops: usize, diversity: bool) -> BTreeSet<NodeId> {
    let wanted = Hop2Request { guard: node(0), hops, diversity, now_ms: NOW_MS };
    hop2_choices(&map(contents), &wanted).into_iter().collect()
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
fn pinned_may_be_who_is_linked_to_the_guard_and_leads_to_an_exit() {
    // 4 is a dead end, 5 the only exit, 6 no neighbour of the guard.
    let links = [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 6), (2, 6), (3, 6), (6, 5), (0, 7), (7, 6)];
    let mut contents = contents(8, &links, &[5]);
    assert_eq!(choices(&contents, 4, false), [1, 2, 3, 7].map(node).into());
    assert_eq!(choices(&contents, 3, false), [].into(), "none of them is linked to the exit");
    contents[1].addresses.clear();
    contents[2].group = "one".into();
    contents[0].group = "one".into();
    contents[5].group = "two".into();
    contents[7].group = "two".into();
    assert_eq!(choices(&contents, 4, false), [2, 3, 7].map(node).into());
    assert_eq!(choices(&contents, 4, true), [node(3)].into());
    assert_eq!(choices(&contents[..1], 4, false), [].into());
}

#[test]
fn the_only_exit_is_never_pinned() {
    let mut contents = contents(4, &full_mesh(4), &[3]);
    assert_eq!(choices(&contents, 3, false), [1, 2].map(node).into());
    contents[2].exit_policy = contents[3].exit_policy.clone();
    assert_eq!(choices(&contents, 3, false), [1, 2, 3].map(node).into());
}
