//! Hops of different groups and networks, where the network asks for it.

use std::collections::BTreeSet;

use port17_proto::bottle::{Address, BottleContent};
use port17_proto::bottlerack::Trust;
use port17_proto::crypto::Entropy;
use port17_proto::ids::NodeId;
use port17_proto::navigator::{AddressBlock, NoRoute, RouteRequest, Shared, route};
use port17_proto::wire::registry::LaneType;

use crate::every_route::{Known, assert_all_equally_likely};
use crate::mesh::{address, contents, draw, full_mesh, map, node, request, web};

fn draw_diverse(contents: &[BottleContent], hops: usize, seed: u64) -> Result<Vec<NodeId>, NoRoute> {
    let (target, exclude) = (web(), BTreeSet::new());
    let wanted = RouteRequest { diversity: true, ..request(hops, &target, &exclude) };
    route(&map(contents), &wanted, &mut Entropy::from_number(seed))
}

fn trusted(contents: Vec<BottleContent>) -> Known {
    Known { trust: vec![Trust::Trusted; contents.len()], contents }
}

#[test]
fn no_two_hops_are_of_one_group() {
    let mut contents = contents(6, &full_mesh(6), &[5]);
    contents[0].group = "one".into();
    contents[1].group = "one".into();
    contents[2].group = "two".into();
    contents[5].group = "two".into();
    for seed in 0..30 {
        let drawn = draw_diverse(&contents, 4, seed).unwrap();
        assert_eq!(drawn[1..3].iter().collect::<BTreeSet<_>>(), BTreeSet::from([&node(3), &node(4)]));
    }
    assert_eq!(draw_diverse(&contents, 5, 1), Err(NoRoute::Constraints { hops: 5, shared: Shared::Group }));
    assert!(draw(&map(&contents), 5, 1).is_ok(), "off: as without");
}

#[test]
fn no_two_hops_have_addresses_in_one_network() {
    let mut contents = contents(5, &full_mesh(5), &[4]);
    contents[1].addresses = vec![address(99, 1), address(0, 77)];
    for seed in 0..30 {
        assert!(!draw_diverse(&contents, 4, seed).unwrap().contains(&node(1)));
    }
    let why = draw_diverse(&contents, 5, 1).unwrap_err();
    assert_eq!(why, NoRoute::Constraints { hops: 5, shared: Shared::AddressBlock });
    let text = "no 5 hops of different groups and networks: every path to an exit that allows it has two nodes of one network (/16, \
                IPv6: /32)";
    assert_eq!(why.to_string(), text);
}

#[test]
fn an_egress_address_can_only_add_a_conflict() {
    let mut contents = contents(4, &full_mesh(4), &[3]);
    contents[3].egress = vec![address(1, 200).ip];
    for seed in 0..20 {
        assert_eq!(draw_diverse(&contents, 3, seed).unwrap(), [0, 2, 3].map(node));
    }
    assert!(draw_diverse(&contents, 4, 1).is_err());
}

#[test]
fn no_group_and_no_address_conflict_with_nothing() {
    let mut contents = contents(5, &full_mesh(5), &[4]);
    // Both hidden, neither in a group.
    contents[2].addresses.clear();
    contents[3].addresses.clear();
    assert!((0..20).all(|seed| draw_diverse(&contents, 5, seed).is_ok_and(|drawn| drawn[1] == node(1))));
}

#[test]
fn both_rules_together_can_leave_nothing() {
    let mut contents = contents(4, &full_mesh(4), &[3]);
    contents[1].group = "one".into();
    contents[2].group = "one".into();
    contents[1].addresses = vec![address(2, 9)];
    let why = draw_diverse(&contents, 4, 1);
    assert_eq!(why, Err(NoRoute::Constraints { hops: 4, shared: Shared::Either }));
}

#[test]
fn networks_are_16_bits_of_ipv4_and_32_of_ipv6() {
    let block = |ip: &str| AddressBlock::from(ip.parse::<std::net::IpAddr>().unwrap());
    assert_eq!(block("11.22.33.44"), block("11.22.0.1"));
    assert_eq!(block("11.22.33.44"), block("::ffff:11.22.1.1"));
    assert_ne!(block("11.22.33.44"), block("11.23.33.44"));
    assert_eq!(block("2001:db8:1::1"), block("2001:db8:2::2"));
    assert_ne!(block("2001:db8::1"), block("2001:db9::1"));
    let mut contents = contents(4, &full_mesh(4), &[3]);
    let at = |ip: &str| vec![Address::new(ip.parse().unwrap(), LaneType::TlsTcp)];
    contents[0].addresses = at("[2001:db8:1::1]:1717");
    contents[1].addresses = at("[2001:db8:2::1]:1717");
    assert!((0..20).all(|seed| draw_diverse(&contents, 3, seed) == Ok([0, 2, 3].map(node).to_vec())));
}

#[test]
fn all_routes_that_keep_the_rules_are_equally_likely() {
    let mut links = full_mesh(8);
    links.retain(|link| ![(0, 5), (1, 6), (2, 7), (3, 4)].contains(link));
    let mut contents = contents(8, &links, &[5, 6, 7]);
    for (index, group) in [(1, "a"), (2, "a"), (3, "b"), (6, "b")] {
        contents[index].group = group.into();
    }
    contents[4].egress = vec![address(7, 3).ip];
    let (target, exclude) = (web(), BTreeSet::new());
    let known = trusted(contents);
    for hops in 2..=5 {
        assert_all_equally_likely(&known, &RouteRequest { diversity: true, ..request(hops, &target, &exclude) });
    }
    let hop2 = [node(5), node(2)];
    assert_all_equally_likely(&known, &RouteRequest { diversity: true, hop2: &hop2, ..request(4, &target, &exclude) });
}

#[test]
fn the_search_keeps_the_rules_and_is_uniform_too() {
    // Sixty middles of one group between two others: nearly every walk has two of them.
    let mut links = vec![(0, 1), (1, 2), (2, 3), (3, 4), (2, 5), (5, 4)];
    links.extend((10..60).flat_map(|leaf| [(0, leaf), (leaf, 4)]));
    links.extend((10..60).flat_map(|a| (a + 1..60).filter(move |b| (b - a) % 5 == 0).map(move |b| (a, b))));
    let mut contents = contents(60, &links, &[4]);
    (10..60).for_each(|leaf| contents[leaf].group = "crowd".into());
    let (target, exclude) = (web(), BTreeSet::new());
    let wanted = RouteRequest { diversity: true, ..request(5, &target, &exclude) };
    let known = trusted(contents);
    assert_eq!(known.every_route(&wanted).len(), 2);
    assert_all_equally_likely(&known, &wanted);
}
