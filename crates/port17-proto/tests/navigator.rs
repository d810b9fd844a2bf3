//! Routes (spec 08).
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test that cannot go on should stop, and has no outside")]

#[path = "navigator/every_route.rs"]
mod every_route;
#[path = "navigator/mesh.rs"]
mod mesh;
mod sample_bottle;

#[path = "navigator/diversity.rs"]
mod diversity;
#[path = "navigator/hop2.rs"]
mod hop2;
#[path = "navigator/odds.rs"]
mod odds;
#[path = "navigator/trust.rs"]
mod trust;

use std::collections::BTreeSet;

use mesh::{MARGIN_MS, assert_uniform, contents, draw, draw_without, full_mesh, map, node, request, tally, web};
use port17_proto::bottle::{CircuitKey, Flags, NodePrefix};
use port17_proto::circuit::message::{Host, Target};
use port17_proto::crypto::Entropy;
use port17_proto::navigator::{HopRole, NoRoute, RouteRequest, route, sample};
use port17_proto::policy::ExitPolicy;
use port17_proto::wire::registry::StreamProtocol;
use sample_bottle::{NOW_MS, links_to};

#[test]
fn a_route_starts_at_the_guard_ends_at_an_exit_and_never_repeats() {
    let map = map(&contents(9, &full_mesh(9), &[7, 8]));
    for hops in 2..=6 {
        for seed in 0..50 {
            let route = draw(&map, hops, seed).unwrap();
            assert_eq!(route.len(), hops);
            assert_eq!(route[0], node(0));
            assert!([node(7), node(8)].contains(&route[hops - 1]));
            assert_eq!(route.iter().collect::<BTreeSet<_>>().len(), hops);
            assert!(route.windows(2).all(|pair| map.neighbours(&pair[0]).contains(&pair[1])));
        }
    }
}

#[test]
fn all_simple_walks_are_equally_likely_in_a_full_mesh() {
    // Guard, two of the four others that are not the exit walked to, exit: 2 exits · 4 · 3.
    let map = map(&contents(6, &full_mesh(6), &[4, 5]));
    assert_uniform(&tally(&map, 4, 24 * 400), 24);
}

#[test]
fn all_simple_walks_are_equally_likely_in_an_uneven_map() {
    // Two ways through 1, one through 2, one through 3 and 1: choosing neighbours evenly would not do.
    let links = [(0, 1), (0, 2), (1, 4), (1, 5), (2, 4), (4, 6), (5, 6), (0, 3), (3, 1)];
    let map = map(&contents(7, &links, &[6]));
    assert_uniform(&tally(&map, 4, 3 * 1000), 3);
    assert_uniform(&tally(&map, 5, 2 * 1000), 2);
}

#[test]
fn the_search_finds_what_drawing_hardly_does() {
    // A dumbbell with many dead ends: nearly all walks of six nodes go to and fro among the leaves.
    let mut links = vec![(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (1, 5)];
    links.extend((10..70).map(|leaf| (1, leaf)));
    links.extend((10..70).map(|leaf| (leaf, 5)));
    links.push((5, 70));
    let map = map(&contents(71, &links, &[5]));
    for seed in 0..5 {
        assert_eq!(draw(&map, 6, seed).unwrap(), [0, 1, 2, 3, 4, 5].map(node));
    }
}

#[test]
fn the_search_is_uniform_too() {
    // Two simple walks of six nodes among very many others.
    let mut links = vec![(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (2, 6), (6, 4)];
    links.extend((10..70).map(|leaf| (1, leaf)));
    links.extend((10..70).map(|leaf| (leaf, 5)));
    let map = map(&contents(70, &links, &[5]));
    assert_uniform(&tally(&map, 6, 400), 2);
}

#[test]
fn a_link_counts_only_if_both_ends_list_it() {
    let mut contents = contents(3, &[(0, 1), (1, 2)], &[2]);
    assert!(draw(&map(&contents), 3, 1).is_ok());
    contents[1].links = links_to([&node(0)]);
    let map = map(&contents);
    assert_eq!(map.neighbours(&node(2)), []);
    assert_eq!(map.neighbours(&node(1)), [node(0)]);
    assert_eq!(draw(&map, 3, 1), Err(NoRoute::NoPath { hops: 3 }));
}

#[test]
fn claims_about_oneself_and_strangers_count_for_nothing() {
    let mut contents = contents(2, &[(0, 1)], &[1]);
    contents[0].links = links_to([&node(0), &node(1), &node(200)]);
    assert_eq!(map(&contents).neighbours(&node(0)), [node(1)]);
    let prefix = NodePrefix::from(&node(1));
    assert_eq!(contents[0].link_to(&node(1)).map(|link| link.peer), Some(prefix));
}

#[test]
fn the_guard_alone_is_a_route_of_one_hop_if_it_is_an_exit() {
    assert_eq!(draw(&map(&contents(2, &[(0, 1)], &[0, 1])), 1, 1), Ok(vec![node(0)]));
    assert_eq!(draw(&map(&contents(2, &[(0, 1)], &[1])), 1, 1), Err(NoRoute::NoPath { hops: 1 }));
}

#[test]
fn excluded_nodes_are_not_touched() {
    let map = map(&contents(6, &full_mesh(6), &[4, 5]));
    let exclude = BTreeSet::from([node(1), node(4)]);
    for seed in 0..50 {
        let route = draw_without(&map, 4, seed, &exclude).unwrap();
        assert!(route.iter().all(|hop| !exclude.contains(hop)));
    }
    let both_exits = BTreeSet::from([node(4), node(5)]);
    assert_eq!(draw_without(&map, 3, 1, &both_exits), Err(NoRoute::NoExit { protocol: StreamProtocol::Tcp, port: 80 }));
    assert_eq!(draw_without(&map, 3, 1, &BTreeSet::from([node(0)])), Err(NoRoute::GuardUnusable(node(0))));
}

#[test]
fn an_exit_is_one_whose_policy_may_allow_the_target() {
    let mut contents = contents(4, &full_mesh(4), &[2, 3]);
    contents[3].exit_policy = Some(ExitPolicy::parse(&["accept tcp 9.0.0.0/8:*"]).unwrap());
    let map = map(&contents);
    let exclude = BTreeSet::new();
    let draw_to = |host: Host, port, seed| {
        let target = Target { host, port };
        let request = request(3, &target, &exclude);
        route(&map, &request, &mut Entropy::from_number(seed))
    };
    for seed in 0..20 {
        let to_address = draw_to(Host::Ip("8.8.8.8".parse().unwrap()), 80, seed).unwrap();
        assert_eq!(to_address[2], node(2));
        let to_port = draw_to(Host::Name("example.org".into()), 22, seed).unwrap();
        assert_eq!(to_port[2], node(3));
    }
    let nowhere = draw_to(Host::Ip("8.8.8.8".parse().unwrap()), 22, 1).unwrap_err();
    assert_eq!(nowhere.to_string(), "no exit that can be used allows TCP port 22");
}

#[test]
fn nodes_that_drain_or_whose_circuit_key_ends_are_not_used() {
    let mut draining = contents(4, &full_mesh(4), &[3]);
    draining[1].flags = Flags(1);
    for seed in 0..20 {
        assert_eq!(draw(&map(&draining), 3, seed).unwrap()[1], node(2));
    }
    let mut ending = contents(4, &full_mesh(4), &[3]);
    let public = ending[1].circuit_key.public.clone();
    ending[1].circuit_key = CircuitKey { public, not_after_s: (NOW_MS + MARGIN_MS) / 1000 };
    for seed in 0..20 {
        assert_eq!(draw(&map(&ending), 3, seed).unwrap()[1], node(2));
    }
}

#[test]
fn hidden_nodes_are_middles_only() {
    let mut contents = contents(4, &full_mesh(4), &[2, 3]);
    contents[3].addresses.clear();
    let map = map(&contents);
    for seed in 0..30 {
        assert_eq!(draw(&map, 3, seed).unwrap()[2], node(2));
    }
}

#[test]
fn no_route_says_why() {
    let map = map(&contents(3, &full_mesh(3), &[2]));
    let (target, exclude) = (web(), BTreeSet::new());
    let request = request(3, &target, &exclude);
    let mut entropy = Entropy::from_number(1);
    let mut why = |request: RouteRequest<'_>| route(&map, &request, &mut entropy).unwrap_err();
    assert_eq!(why(RouteRequest { guard: None, ..request }), NoRoute::NoGuard);
    assert_eq!(why(RouteRequest { guard: Some(node(9)), ..request }), NoRoute::GuardUnknown(node(9)));
    assert_eq!(why(RouteRequest { hops: 4, ..request }), NoRoute::TooFewNodes { hops: 4, usable: 3 });
    assert_eq!(why(RouteRequest { hops: 0, ..request }), NoRoute::Hops(0));
    assert_eq!(why(RouteRequest { hops: 7, ..request }), NoRoute::Hops(7));
    assert_eq!(why(RouteRequest { now_ms: u64::MAX, ..request }), NoRoute::GuardUnusable(node(0)));
}

#[test]
fn no_route_on_a_map_where_walks_exist_but_none_is_simple() {
    // 0 - 1 - 2 with exit 1: four nodes 0 1 2 1 would be a walk.
    let map = map(&contents(4, &[(0, 1), (1, 2), (2, 3)], &[1]));
    assert_eq!(draw(&map, 4, 1), Err(NoRoute::NoPath { hops: 4 }));
}

#[test]
fn the_same_seed_draws_the_same_route() {
    let map = map(&contents(9, &full_mesh(9), &[7, 8]));
    assert_eq!(draw(&map, 5, 11), draw(&map, 5, 11));
}

#[test]
fn a_sample_says_how_many_nodes_could_have_stood_at_each_place() {
    // 0 leads over 1 or 2 to the exits 4 and 5, over 3 nowhere.
    let links = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (2, 5)];
    let map = map(&contents(6, &links, &[4, 5]));
    let (target, exclude) = (web(), BTreeSet::new());
    for seed in 0..20 {
        let drawn = sample(&map, &request(3, &target, &exclude), &mut Entropy::from_number(seed)).unwrap();
        let roles: Vec<HopRole> = drawn.hops.iter().map(|hop| hop.role).collect();
        assert_eq!(roles, [HopRole::Guard, HopRole::Middle, HopRole::Exit]);
        let exits = if drawn.hops[1].node == node(1) { 1 } else { 2 };
        assert_eq!(drawn.hops.iter().map(|hop| hop.alternatives).collect::<Vec<_>>(), [6, 2, exits]);
    }
}

#[test]
fn a_route_that_was_drawn_stands_as_long_as_its_links_and_keys() {
    let mut contents = contents(4, &full_mesh(4), &[3]);
    let route = [0, 1, 3].map(node);
    assert!(map(&contents).carries(&route, NOW_MS));
    assert!(!map(&contents).carries(&route, u64::MAX));
    assert!(!map(&contents).carries(&[node(0), node(9)], NOW_MS));
    assert!(!map(&contents).carries(&[], NOW_MS));
    contents[1].links = links_to([&node(0)]);
    assert!(!map(&contents).carries(&route, NOW_MS));
    assert!(map(&contents).carries(&[0, 2, 3].map(node), NOW_MS));
    contents[3].addresses.clear();
    assert!(!map(&contents).carries(&[0, 2, 3].map(node), NOW_MS));
}
