//! Links form, are lost, and come back.

use std::time::Duration;

use port17_proto::bottle::{Seq, UnverifiedBottle};
use port17_proto::node::io::{Input, Peer, ShownKey};
use port17_proto::params::Params;

use super::mesh::{LATENCY, Mesh, Plan, START_UNIX_MS, id_of, identity, ordered_seeds};
use super::solo::{Solo, bottle_of};

const SECOND: Duration = Duration::from_secs(1);

fn all_linked(mesh: &Mesh) -> bool {
    let ids: Vec<_> = mesh.hosts.iter().map(|host| host.id).collect();
    mesh.hosts.iter().all(|host| ids.iter().all(|id| *id == host.id || host.lanes_to(*id).len() == 2))
}

#[test]
fn links_form_with_two_lanes_and_stand_in_both_bottles() {
    let mut mesh = Mesh::full(&[1, 2, 3, 4]);
    mesh.run_until(SECOND, "all links", all_linked);
    for host in &mesh.hosts {
        for other in mesh.hosts.iter().filter(|other| other.id != host.id) {
            assert!(host.lists(other.id));
        }
        assert_eq!(host.published.len(), 1, "links that come up as configured cost no Bottle");
    }
}

#[test]
fn the_smaller_node_id_dials() {
    let [small, large] = ordered_seeds();
    let mut mesh = Mesh::full(&[large, small]);
    mesh.run_until(SECOND, "all links", all_linked);
    assert_eq!(mesh.hosts[0].dials, []);
    let dialled: Vec<_> = mesh.hosts[1].dials.iter().map(|(_, node, show)| (*node, *show)).collect();
    assert_eq!(dialled, [(id_of(large), ShownKey::Link); 2]);
}

#[test]
fn a_hidden_node_dials_even_if_it_is_the_larger() {
    let [small, large] = ordered_seeds();
    let mut mesh = Mesh::new();
    mesh.add(Plan { neighbours: vec![id_of(large)], ..Plan::new(small) });
    mesh.add(Plan { neighbours: vec![id_of(small)], hidden: true, ..Plan::new(large) });
    mesh.run_until(SECOND, "all links", all_linked);
    assert_eq!(mesh.hosts[0].dials.len(), 0);
}

#[test]
fn a_node_whose_link_key_has_ended_is_not_dialled_until_a_newer_bottle_comes() {
    let [small, large] = ordered_seeds();
    let mut solo = Solo::alone(Plan { neighbours: vec![id_of(large)], ..Plan::new(small) });
    let now_ms = START_UNIX_MS + 1_010_000;
    let parsed = UnverifiedBottle::parse(&bottle_of(large)).unwrap();
    let mut content = parsed.verify(now_ms, &Params::demo().bottle_rules()).unwrap().content().clone();
    content.link_key_expiry_s = now_ms / 1000;
    solo.handle(Input::Bottle(content.sign(identity(large).0.key()).unwrap()));
    solo.wait(SECOND);
    assert_eq!(solo.dial(), None);
    let why = solo.node.status().links[0].why.clone();
    assert_eq!(why.as_deref(), Some("the link key in its Bottle has ended, and no newer Bottle has come"));

    content.seq = Seq(content.seq.0 + 1);
    content.link_key_expiry_s += 3600;
    solo.handle(Input::Bottle(content.sign(identity(large).0.key()).unwrap()));
    assert!(solo.dial().is_some());
}

#[test]
fn nobody_links_to_who_is_not_configured() {
    let [small, large] = ordered_seeds();
    let mut mesh = Mesh::new();
    mesh.add(Plan { neighbours: vec![id_of(large)], ..Plan::new(small) });
    mesh.add(Plan::new(large));
    mesh.run_for(10 * SECOND);
    assert!(mesh.hosts.iter().all(|host| host.links.is_empty()));
    assert!(mesh.hosts[1].count("stranger") >= 1);
    let why = mesh.hosts[0].node.as_ref().unwrap().status().links[0].why.clone().unwrap();
    assert_eq!(why, "it does not know this node as its neighbour, or does not take its Bottle");
}

#[test]
fn an_unknown_key_works_once_its_bottle_has_come_behind_hello() {
    let [small, large] = ordered_seeds();
    let mut mesh = Mesh::new();
    mesh.add(Plan { neighbours: vec![id_of(small)], ..Plan::new(large) });
    mesh.without_bottles.insert(0);
    mesh.add(Plan { neighbours: vec![id_of(large)], ..Plan::new(small) });
    mesh.run_until(SECOND, "the link", all_linked);
    assert_eq!(mesh.hosts[0].count("stranger"), 0);
}

#[test]
fn failed_dials_wait_twice_as_long_each_time_up_to_the_limit() {
    let [small, large] = ordered_seeds();
    let mut mesh = Mesh::full(&[large, small]);
    mesh.run_until(SECOND, "all links", all_linked);
    mesh.hosts[1].dials.clear();
    mesh.kill(0);
    mesh.run_for(30 * SECOND);
    let params = Params::demo();
    let times: Vec<_> = mesh.hosts[1].dials.iter().map(|(at, ..)| *at).collect();
    assert!(times.len() > 20);
    let mut longest = params.backoff_min * 2;
    for pair in times.windows(2) {
        let wait = pair[1] - pair[0] - LATENCY;
        assert!(wait >= longest / 2 && wait <= longest, "{wait:?} where {longest:?} is the most");
        longest = (longest * 2).min(params.backoff_max);
    }
}

#[test]
fn a_killed_neighbour_comes_back_without_a_new_bottle_of_the_other() {
    let [small, large] = ordered_seeds();
    for (killed, seed, other) in [(0, large, small), (1, small, large)] {
        let mut mesh = Mesh::full(&[large, small]);
        mesh.run_until(SECOND, "all links", all_linked);
        mesh.kill(killed);
        mesh.run_for(SECOND);
        assert!(mesh.hosts[1 - killed].links.is_empty());
        mesh.restart(killed, Plan { neighbours: vec![id_of(other)], ..Plan::new(seed) });
        mesh.run_until(3 * SECOND, "the link again", all_linked);
        mesh.run_for(10 * SECOND);
        assert_eq!(mesh.hosts[1 - killed].published.len(), 1);
        let [first, second] = &mesh.hosts[killed].published[..] else { panic!("a Bottle a start") };
        assert!(second.1.seq() > first.1.seq());
    }
}

#[test]
fn one_lost_lane_is_made_again_while_the_link_stays_up() {
    let [small, large] = ordered_seeds();
    for lost in [0, 1] {
        let mut mesh = Mesh::full(&[large, small]);
        mesh.run_until(SECOND, "all links", all_linked);
        let lane = mesh.hosts[1].lanes_to(id_of(large))[lost];
        mesh.break_lane(1, lane);
        mesh.run_for(2 * LATENCY);
        assert_eq!(mesh.hosts[1].lanes_to(id_of(large)).len(), 1);
        assert_eq!(mesh.hosts[0].lanes_to(id_of(small)).len(), 1);
        mesh.run_until(SECOND, "both lanes", all_linked);
        let downs = |host: usize| mesh.hosts[host].log.iter().filter(|(_, line)| line.starts_with("LinkDown")).count();
        assert_eq!((downs(0), downs(1)), (0, 0));
    }
}

#[test]
fn a_silent_peer_is_closed_and_dialled_again() {
    let [small, large] = ordered_seeds();
    let mut mesh = Mesh::full(&[large, small]);
    mesh.run_until(SECOND, "all links", all_linked);
    mesh.silent.insert(0);
    let params = Params::demo();
    mesh.run_for(params.ping_interval * 2 + params.ping_timeout);
    assert!(mesh.hosts.iter().all(|host| host.links.is_empty()));
    assert_eq!(mesh.hosts[1].count("ping-timeout"), 2);
    mesh.silent.clear();
    mesh.run_until(params.backoff_max * 2, "the link again", all_linked);
}

#[test]
fn round_trips_are_measured() {
    let mut mesh = Mesh::full(&[1, 2]);
    mesh.run_for(5 * SECOND);
    let status = mesh.hosts[0].node.as_ref().unwrap().status();
    assert!(status.links[0].is_up && status.waits_for.is_none());
    assert_eq!(status.links[0].lanes.iter().map(|lane| lane.rtt).collect::<Vec<_>>(), [Some(2 * LATENCY); 2]);
}

#[test]
fn a_client_links_to_its_guard_with_a_key_that_it_throws_away() {
    let mut mesh = Mesh::full(&[1, 2, 3]);
    mesh.run_until(SECOND, "all links", all_linked);
    let client = mesh.add_client(9, Params::demo(), Some(id_of(2)));
    mesh.run_until(SECOND, "the guard's link", |mesh| mesh.hosts[client].lanes_to(id_of(2)).len() == 2);
    assert!(mesh.hosts[client].dials.iter().all(|(_, node, show)| *node == id_of(2) && *show == ShownKey::ThrowAway));
    assert!(mesh.hosts[1].links.keys().any(|peer| matches!(peer, Peer::Client(_))));
    assert!(mesh.hosts[client].published.is_empty());
    assert_eq!(mesh.hosts[1].node.as_ref().unwrap().status().clients, 1);

    mesh.kill(client);
    mesh.run_for(SECOND);
    assert_eq!(mesh.hosts[1].node.as_ref().unwrap().status().clients, 0);
}

#[test]
fn a_client_without_a_guard_draws_one_and_keeps_it() {
    let mut drawn = std::collections::BTreeSet::new();
    for seed in 0..12 {
        let mut mesh = Mesh::full(&[1, 2, 3]);
        mesh.run_until(SECOND, "all links", all_linked);
        let client = mesh.add_client(seed, Params::demo(), None);
        mesh.run_until(SECOND, "a guard", |mesh| !mesh.hosts[client].links.is_empty());
        let guard = mesh.hosts[client].guard.unwrap();
        drawn.insert(guard);

        let index = mesh.hosts.iter().position(|host| host.id == guard).unwrap();
        mesh.kill(index);
        mesh.run_for(20 * SECOND);
        assert_eq!(mesh.hosts[client].guard, Some(guard));
        assert!(mesh.hosts[client].links.is_empty(), "no guard, no link");
        let waits_for = mesh.hosts[client].node.as_ref().unwrap().status().waits_for.unwrap();
        assert!(waits_for.contains("nobody listens"), "{waits_for}");
    }
    assert_eq!(drawn.len(), 3, "every node is drawn by some client");
}

#[test]
fn a_node_that_takes_no_clients_sends_them_away() {
    let mut mesh = Mesh::new();
    mesh.add(Plan { accept_clients: false, ..Plan::new(1) });
    let client = mesh.add_client(9, Params::demo(), Some(id_of(1)));
    mesh.run_for(3 * SECOND);
    assert!(mesh.hosts[client].links.is_empty());
    assert!(mesh.hosts[0].count("client-refused") >= 1);
}

#[test]
fn clients_from_one_address_are_bounded() {
    let params = Params { clients_per_address: 2, ..Params::demo() };
    let mut mesh = Mesh::new();
    mesh.add(Plan { params: params.clone(), ..Plan::new(1) });
    let clients: Vec<_> = (9..12).map(|seed| mesh.add_client(seed, params.clone(), Some(id_of(1)))).collect();
    mesh.run_for(3 * SECOND);
    assert_eq!(clients.iter().filter(|client| !mesh.hosts[**client].links.is_empty()).count(), 2);
    assert!(mesh.hosts[0].count("clients-full") >= 1);
}

#[test]
fn loopback_addresses_are_dialled_only_where_the_parameters_allow_it() {
    let mut mesh = Mesh::new();
    mesh.add(Plan::new(1));
    let client = mesh.add_client(9, Params::DEFAULT, Some(id_of(1)));
    mesh.run_for(3 * SECOND);
    assert_eq!(mesh.hosts[client].dials, []);
}

#[test]
fn shutdown_says_goaway_and_erases_the_keys() {
    let [small, large] = ordered_seeds();
    let mut mesh = Mesh::full(&[large, small]);
    mesh.run_until(SECOND, "all links", all_linked);
    mesh.input(1, Input::Shutdown);
    assert!(mesh.hosts[1].keys.is_empty() && mesh.hosts[1].links.is_empty());
    assert_eq!(mesh.hosts[1].log.last().unwrap().1, "Stopped");
    mesh.run_for(2 * LATENCY);
    assert!(mesh.hosts[0].links.is_empty());
    let why = mesh.hosts[0].node.as_ref().unwrap().status().links[0].why.clone().unwrap();
    assert_eq!(why, "it stopped");
    let dials = mesh.hosts[1].dials.len();
    mesh.run_for(60 * SECOND);
    assert_eq!(mesh.hosts[1].dials.len(), dials, "a stopped engine does nothing");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut mesh = Mesh::full(&[1, 2, 3]);
        mesh.run_for(2 * SECOND);
        mesh.kill(1);
        mesh.run_for(5 * SECOND);
        mesh.hosts.into_iter().map(|host| host.log).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
