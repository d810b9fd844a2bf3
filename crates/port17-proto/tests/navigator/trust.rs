//! Who may stand where, by how far it is trusted.

use port17_proto::bottlerack::Trust;
use port17_proto::navigator::{Map, NoRoute};
use port17_proto::wire::registry::StreamProtocol;

use crate::mesh::{contents, draw, full_mesh, map_with, node};
use crate::sample_bottle::NOW_MS;

fn mesh(exits: &[u8], trust: impl Fn(usize) -> Trust) -> Map {
    map_with(&contents(6, &full_mesh(6), exits), trust)
}

#[test]
fn unknown_nodes_are_middles_and_nothing_else() {
    let map = mesh(&[1, 5], |index| if index == 1 { Trust::Unknown } else { Trust::Trusted });
    let routes: Vec<_> = (0..60).map(|seed| draw(&map, 4, seed).unwrap()).collect();
    assert!(routes.iter().all(|route| route[3] == node(5)));
    assert!(routes.iter().any(|route| route[1..3].contains(&node(1))));
    let unknown_exit = mesh(&[5], |index| if index == 5 { Trust::Unknown } else { Trust::Trusted });
    assert_eq!(draw(&unknown_exit, 4, 1), Err(NoRoute::NoExit { protocol: StreamProtocol::Tcp, port: 80 }));
}

#[test]
fn an_unknown_or_hidden_guard_is_refused() {
    let unknown = mesh(&[5], |index| if index == 0 { Trust::Unknown } else { Trust::Trusted });
    assert_eq!(draw(&unknown, 4, 1), Err(NoRoute::GuardNotTrusted(node(0))));
    assert_eq!(unknown.trust(&node(0)), Some(Trust::Unknown));
    let mut contents = contents(4, &full_mesh(4), &[3]);
    contents[0].addresses.clear();
    let hidden = map_with(&contents, |_| Trust::Trusted);
    assert_eq!(draw(&hidden, 3, 1), Err(NoRoute::GuardNotTrusted(node(0))));
}

#[test]
fn distrusted_nodes_are_in_no_route() {
    let map = mesh(&[4, 5], |index| if [1, 4].contains(&index) { Trust::Distrusted } else { Trust::Trusted });
    for seed in 0..40 {
        let route = draw(&map, 4, seed).unwrap();
        assert!(!route.contains(&node(1)) && !route.contains(&node(4)));
    }
    assert_eq!(draw(&map, 5, 1), Err(NoRoute::TooFewNodes { hops: 5, usable: 4 }));
    assert!(!map.carries(&[0, 1, 5].map(node), NOW_MS));
    let guard = mesh(&[5], |index| if index == 0 { Trust::Distrusted } else { Trust::Trusted });
    assert_eq!(draw(&guard, 3, 1), Err(NoRoute::GuardUnusable(node(0))));
}

#[test]
fn a_hidden_node_is_never_the_second_of_three_or_more() {
    let mut contents = contents(5, &full_mesh(5), &[4]);
    contents[1].addresses.clear();
    let map = map_with(&contents, |_| Trust::Trusted);
    let routes: Vec<_> = (0..60).map(|seed| draw(&map, 4, seed).unwrap()).collect();
    assert!(routes.iter().all(|route| route[1] != node(1)));
    assert!(routes.iter().any(|route| route[2] == node(1)));
}
