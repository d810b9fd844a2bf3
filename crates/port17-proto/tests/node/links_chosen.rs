//! Nodes that choose their links themselves, and what of it stands in Bottles.

use std::collections::BTreeSet;
use std::time::Duration;

use port17_proto::ids::NodeId;
use port17_proto::node::io::{Input, Peer};
use port17_proto::node::record::RecordKey;
use port17_proto::node::status::NodeStatus;
use port17_proto::params::Params;
use port17_proto::wire::message::{LaneSlot, Message};
use port17_proto::wire::registry::{GoAwayReason, Role};

use super::mesh::{Mesh, Plan, id_of, ordered_seeds};
use super::solo::{Solo, hello, neighbour_key};

const SECOND: Duration = Duration::from_secs(1);
const DAY_MS: i64 = 86_400_000;

fn plan(seed: u64) -> Plan {
    Plan { decides: true, ..Plan::new(seed) }
}

fn choosing(seeds: std::ops::RangeInclusive<u64>) -> Mesh {
    let mut mesh = Mesh::new();
    mesh.keeps_records = true;
    for seed in seeds {
        mesh.add(plan(seed));
    }
    mesh
}

fn status(mesh: &Mesh, host: usize) -> NodeStatus {
    mesh.hosts[host].node.as_ref().unwrap().status()
}

fn up(mesh: &Mesh, host: usize) -> BTreeSet<NodeId> {
    mesh.hosts[host].links.keys().filter_map(Peer::node).collect()
}

fn alive(mesh: &Mesh) -> Vec<usize> {
    (0..mesh.hosts.len()).filter(|host| mesh.hosts[*host].node.is_some()).collect()
}

/// Everybody has what it wants, and what is up is what both Bottles list.
fn is_settled(mesh: &Mesh) -> bool {
    mesh.hosts.iter().all(|host| !host.published.is_empty())
        && alive(mesh).into_iter().all(|host| {
            let links = up(mesh, host);
            let mutual = links.iter().all(|other| {
                let there = mesh.host_of(*other);
                mesh.hosts[host].lists(*other) && mesh.hosts[there].lists(mesh.hosts[host].id)
            });
            mutual && mesh.hosts[host].newest().content().links.len() == links.len() && status(mesh, host).waits_for.is_none()
        })
}

fn is_connected(mesh: &Mesh) -> bool {
    let alive = alive(mesh);
    reach(mesh, alive[0]) == alive.len()
}

/// Nodes that links lead to, with the one itself.
fn reach(mesh: &Mesh, from: usize) -> usize {
    let (mut seen, mut next) = (BTreeSet::from([from]), vec![from]);
    while let Some(host) = next.pop() {
        for other in up(mesh, host) {
            let other = mesh.host_of(other);
            if seen.insert(other) {
                next.push(other);
            }
        }
    }
    seen.len()
}

#[test]
fn six_nodes_link_as_many_as_they_want_and_all_lists_are_mutual() {
    let mut mesh = choosing(1..=6);
    mesh.run_until(5 * SECOND, "a settled mesh", is_settled);
    for host in 0..6 {
        assert!(up(&mesh, host).len() >= 4, "half of the degree of 8");
        assert_eq!(status(&mesh, host).degree, Some(8));
        assert!(mesh.hosts[host].published.len() <= 4, "changes are gathered");
    }
    let link = &status(&mesh, 0).links[0];
    assert!(link.published_here && link.published_there);
}

/// Nodes that know of each other what a signed list says, and learn the rest over links.
fn listed(seeds: std::ops::RangeInclusive<u64>, change: impl Fn(&mut Params)) -> Mesh {
    let mut mesh = Mesh::new();
    mesh.in_network = true;
    mesh.lanes_only = true;
    for seed in seeds {
        mesh.add(plan(seed));
    }
    mesh.run_for(SECOND);
    assert!(mesh.hosts.iter().all(|host| host.dials.is_empty()), "without a list nobody is known");
    let all: Vec<usize> = (0..mesh.hosts.len()).collect();
    let list = mesh.list(1, &all, change);
    mesh.give_list(&list);
    mesh
}

#[test]
fn six_listed_nodes_form_their_links_from_the_list_alone() {
    let mut mesh = listed(1..=6, |_| {});
    mesh.run_until(5 * SECOND, "a settled mesh", is_settled);
    assert!((0..6).all(|host| up(&mesh, host).len() >= 4 && status(&mesh, host).trusted == 5));
}

#[test]
fn a_network_that_was_off_for_a_week_comes_back_from_what_is_stored() {
    let mut mesh = listed(1..=6, |_| {});
    mesh.run_until(5 * SECOND, "a settled mesh", is_settled);
    mesh.run_for(15 * SECOND);
    for host in 0..6 {
        mesh.kill(host);
    }
    let week_ms = 7 * 24 * 3600 * 1000;
    for host in 0..6 {
        mesh.clock_error_ms.insert(host, week_ms);
        mesh.restart(host, plan(host as u64 + 1));
    }
    mesh.run_until(10 * SECOND, "a settled mesh", is_settled);
}

#[test]
fn a_node_that_signed_two_truths_loses_its_links() {
    let mut mesh = listed(1..=6, |_| {});
    mesh.run_until(5 * SECOND, "a settled mesh", is_settled);
    let caught = mesh.hosts[2].id;
    // The same identity on a second machine, with the same number for another Bottle.
    let twin = |label: &str| {
        let mut content = mesh.hosts[2].newest().content().clone();
        content.software = label.to_owned();
        content.sign(super::mesh::identity(3).0.key()).unwrap()
    };
    let other = twin("another truth");
    mesh.input(0, Input::Bottle(other));
    mesh.run_for(3 * SECOND);
    for host in [0, 1, 3, 4, 5] {
        assert!(!up(&mesh, host).contains(&caught), "host {host}");
        assert!(!mesh.hosts[host].lists(caught));
    }
    mesh.run_for(20 * SECOND);
    assert!(up(&mesh, 2).is_empty());
}

#[test]
fn where_published_links_lead_to_less_than_half_of_the_map_a_bridge_is_dialled() {
    let few = |params: &mut Params| (params.degree_min, params.degree_max) = (1, 1);
    let mut mesh = listed(1..=20, few);
    mesh.run_for(3 * SECOND);
    assert!(!is_connected(&mesh), "one link each is too few");
    mesh.run_for(60 * SECOND);
    let whole = (0..20).map(|host| reach(&mesh, host)).min().unwrap();
    assert!(whole >= 10, "{whole} of 20");
    let links: usize = (0..20).map(|host| up(&mesh, host).len()).sum();
    assert!(links <= 20 * 4, "{links}: bridges are few");
}

#[test]
fn forty_nodes_keep_the_bounds_of_the_degree_and_are_connected() {
    let mut mesh = choosing(1..=40);
    mesh.run_until(20 * SECOND, "a settled mesh", is_settled);
    assert!(is_connected(&mesh));
    for host in 0..40 {
        let links = up(&mesh, host).len();
        // N = 40: d = 13, of which 7 are dialled.
        assert!((7..=32).contains(&links), "{links}");
    }
    let all: usize = (0..40).map(|host| up(&mesh, host).len()).sum();
    assert!((40 * 7..=40 * 14).contains(&all), "{all}");
}

#[test]
fn both_ends_draw_the_same_and_dial_nobody_else() {
    let mut one = choosing(1..=40);
    one.run_until(20 * SECOND, "a settled mesh", is_settled);
    let mut again = choosing(1..=40);
    again.run_until(20 * SECOND, "a settled mesh", is_settled);
    for host in 0..40 {
        let chosen: BTreeSet<_> = one.hosts[host].dials.iter().map(|(_, node, _)| *node).collect();
        assert!(chosen.len() <= 14, "{}", chosen.len());
        assert_eq!(up(&one, host), up(&again, host));
    }
}

#[test]
fn a_restart_brings_the_same_links_back_and_costs_one_bottle() {
    let mut mesh = choosing(1..=12);
    mesh.run_until(10 * SECOND, "a settled mesh", is_settled);
    mesh.run_for(30 * SECOND);
    let (links, before) = (up(&mesh, 3), mesh.hosts.iter().map(|host| host.published.len()).collect::<Vec<_>>());
    assert!(!mesh.hosts[3].records[&RecordKey::Anchors].is_empty());
    mesh.kill(3);
    mesh.run_for(SECOND);
    mesh.restart(3, plan(4));
    mesh.run_until(5 * SECOND, "the same links", |mesh| up(mesh, 3) == links);
    mesh.run_for(30 * SECOND);
    assert_eq!(up(&mesh, 3), links);
    for (host, before) in before.into_iter().enumerate() {
        let more = mesh.hosts[host].published.len() - before;
        assert_eq!(more, usize::from(host == 3), "host {host}");
    }
    for node in &links {
        assert!(mesh.hosts[3].published.last().unwrap().1.content().link_to(node).is_some());
    }
}

#[test]
fn an_anchor_that_does_not_come_back_is_withdrawn_after_the_grace() {
    let mut mesh = choosing(1..=6);
    mesh.run_until(5 * SECOND, "a settled mesh", is_settled);
    mesh.run_for(15 * SECOND);
    let gone = *up(&mesh, 3).first().unwrap();
    let other = mesh.host_of(gone);
    mesh.kill(3);
    mesh.kill(other);
    mesh.restart(3, plan(4));
    mesh.run_for(SECOND);
    assert!(mesh.hosts[3].lists(gone));
    mesh.run_for(Params::demo().link_loss_grace + 2 * SECOND);
    assert!(!mesh.hosts[3].lists(gone));
    mesh.run_for(20 * SECOND);
    let status = status(&mesh, 3);
    assert_eq!(status.waits_for.is_none(), up(&mesh, 3).len() >= 4, "{:?}", status.waits_for);
}

#[test]
fn a_killed_node_is_withdrawn_after_the_grace_and_the_others_link_anew() {
    let mut mesh = choosing(1..=20);
    mesh.run_until(10 * SECOND, "a settled mesh", is_settled);
    let dead = mesh.hosts[5].id;
    let neighbours: Vec<usize> = up(&mesh, 5).iter().map(|node| mesh.host_of(*node)).collect();
    mesh.kill(5);
    let params = Params::demo();
    mesh.run_for(params.link_loss_grace - SECOND);
    assert!(neighbours.iter().all(|host| mesh.hosts[*host].lists(dead)));
    mesh.run_for(params.link_loss_interval + 3 * SECOND);
    assert!(neighbours.iter().all(|host| !mesh.hosts[*host].lists(dead)));
    for host in alive(&mesh) {
        assert!(up(&mesh, host).len() >= 5, "the next best took its place");
    }
}

#[test]
fn dead_nodes_do_not_eat_the_degree() {
    let mut mesh = choosing(1..=30);
    mesh.run_for(SECOND);
    for host in 0..15 {
        mesh.kill(host);
    }
    mesh.run_for(60 * SECOND);
    let late = mesh.add(plan(31));
    mesh.run_for(20 * SECOND);
    // It knows 30 others, dials 6, and half of those that it draws first are dead.
    assert!(up(&mesh, late).len() >= 6, "{}", up(&mesh, late).len());
    let dials = mesh.hosts[late].dials.len();
    mesh.run_for(10 * SECOND);
    assert!(mesh.hosts[late].dials.len() <= dials + 6, "who does not answer rests");
}

#[test]
fn hidden_nodes_dial_only() {
    let mut mesh = choosing(1..=8);
    let hidden = mesh.add(Plan { hidden: true, ..plan(9) });
    mesh.run_until(10 * SECOND, "a settled mesh", is_settled);
    assert!(up(&mesh, hidden).len() >= 4);
    let id = mesh.hosts[hidden].id;
    assert!(mesh.hosts.iter().all(|host| host.dials.iter().all(|(_, node, _)| *node != id)));
}

#[test]
fn loopback_addresses_are_not_chosen_where_the_parameters_do_not_allow_them() {
    let mut mesh = choosing(1..=4);
    mesh.add(Plan { hidden: true, params: Params { loopback_allowed: false, ..Params::demo() }, ..plan(5) });
    mesh.run_for(5 * SECOND);
    assert_eq!(mesh.hosts[4].dials, []);
}

#[test]
fn a_list_of_one_side_alone_never_stands_in_the_bottle() {
    let [small, large] = ordered_seeds();
    let mut solo = Solo::with(Plan { decides: true, ..Plan::new(large) }, small);
    solo.wait(SECOND);
    let lane = solo.accept(neighbour_key(small));
    solo.say(lane, &hello(Role::Node, LaneSlot::One, 7));
    assert_eq!(solo.lanes_of(Peer::Node(id_of(small))), [lane]);
    solo.wait(Params::demo().publish_after);
    assert!(solo.streamed(lane).contains(&Message::Publish));
    let status = solo.node.status().links[0].clone();
    assert!(status.published_here && !status.published_there);
    solo.outputs.clear();
    for _ in 0..5 {
        solo.wait(SECOND);
    }
    assert!(solo.published().is_empty(), "nothing changed");

    solo.say(lane, &Message::Publish);
    solo.say(lane, &Message::Publish);
    solo.wait(SECOND);
    assert!(solo.published().last().unwrap().content().link_to(&id_of(small)).is_some());
    solo.say(lane, &Message::Unpublish);
    solo.wait(SECOND);
    assert!(solo.published().last().unwrap().content().link_to(&id_of(small)).is_none());

    // Taken back, it stays out while the link stands, and for a while when it comes again.
    let before = solo.published().len();
    solo.say(lane, &Message::Publish);
    solo.wait(5 * SECOND);
    let lane = solo.accept(neighbour_key(small));
    solo.say(lane, &hello(Role::Node, LaneSlot::One, 8));
    solo.wait(SECOND);
    solo.say(lane, &Message::Publish);
    solo.wait(SECOND);
    assert_eq!(solo.published().len(), before);
}

#[test]
fn publish_from_a_client_closes_its_lane() {
    let mut solo = Solo::with(Plan { decides: true, ..Plan::new(1) }, 2);
    for message in [Message::Publish, Message::Unpublish] {
        let lane = solo.accept(super::solo::some_key(5));
        solo.say(lane, &hello(Role::Client, LaneSlot::One, 9));
        assert!(solo.is_admitted(lane));
        solo.say(lane, &message);
        assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
    }
}

#[test]
fn strangers_never_take_all_places_and_trusted_nodes_still_get_in() {
    let mut mesh = Mesh::new();
    mesh.in_network = true;
    let target = mesh.add(plan(1));
    let trusted: Vec<usize> = (2..=6).map(|seed| mesh.add(plan(seed))).collect();
    mesh.run_for(SECOND);
    let all: Vec<usize> = (0..6).collect();
    let list = mesh.list(1, &all, |_| {});
    mesh.input(target, Input::List(list.clone()));
    // They want the target alone, whatever it wants.
    let wanted = vec![mesh.hosts[target].id];
    for seed in 100..200 {
        // What they say about each other means nothing here, and is much.
        mesh.without_bottles.insert(mesh.hosts.len());
        mesh.add(Plan { neighbours: wanted.clone(), hidden: true, ..Plan::new(seed) });
    }
    mesh.run_for(20 * SECOND);
    let strangers = up(&mesh, target).iter().filter(|node| mesh.host_of(**node) > 5).count();
    assert!((10..=32).contains(&strangers), "{strangers}");
    assert!(mesh.hosts[target].count("links-full") > 50, "the others are told that there is no place");
    for host in trusted {
        mesh.input(host, Input::List(list.clone()));
    }
    mesh.run_for(10 * SECOND);
    let links = up(&mesh, target);
    assert!((1..=5).all(|host| links.contains(&mesh.hosts[host].id) || up(&mesh, host).len() >= 4));
    assert!(links.len() <= 64);
    assert!((2..=6).filter(|seed| links.contains(&id_of(*seed))).count() >= 3);
}

#[test]
fn who_is_told_that_there_is_no_place_takes_the_next_best() {
    // Four listed nodes, and strangers that know those alone and want three links each: 126 where there are 128 places.
    let mut mesh = Mesh::new();
    mesh.in_network = true;
    for seed in 1..=4 {
        mesh.add(plan(seed));
    }
    mesh.run_for(SECOND);
    let few_looks = |params: &mut Params| {
        params.degree_min = 2;
        params.link_evaluate = 4 * SECOND;
        params.repair_interval = 10 * SECOND;
    };
    let list = mesh.list(1, &[0, 1, 2, 3], few_looks);
    mesh.give_list(&list);
    mesh.run_for(SECOND);
    for host in 0..42 {
        mesh.without_bottles.insert(4 + host);
    }
    for seed in 100..142 {
        let host = mesh.add(plan(seed));
        mesh.input(host, Input::List(list.clone()));
    }
    let linked = |mesh: &Mesh| (4..46).filter(|host| !up(mesh, *host).is_empty()).count();
    for _ in 0..8 {
        mesh.run_for(5 * SECOND);
        if linked(&mesh) == 42 {
            break;
        }
    }
    assert_eq!(linked(&mesh), 42, "everybody found a place");
    assert!((0..4).map(|host| mesh.hosts[host].count("links-full")).sum::<u64>() > 0);
    for host in 0..4 {
        let strangers = up(&mesh, host).iter().filter(|node| mesh.host_of(**node) >= 4).count();
        assert!(strangers <= 32, "{strangers}");
    }
}

#[test]
fn nothing_that_a_client_says_changes_the_links() {
    // law 1
    let mut solo = Solo::with(Plan { decides: true, ..Plan::new(1) }, 2);
    solo.wait(SECOND);
    while solo.dial().is_some() {}
    let lane = solo.accept(super::solo::some_key(5));
    solo.say(lane, &hello(Role::Client, LaneSlot::One, 9));
    for message in [Message::ListSeq(9), Message::Publish, Message::Unpublish] {
        solo.say(lane, &message);
    }
    assert!(solo.dial().is_none());
    assert_eq!(solo.node.status().links.len(), 1);
}

#[test]
fn nothing_is_dialled_while_the_engine_stops_and_the_anchors_are_stored() {
    let mut mesh = choosing(1..=6);
    mesh.run_until(5 * SECOND, "a settled mesh", is_settled);
    for host in 0..6 {
        let dials = mesh.hosts[host].dials.len();
        let listed: Vec<NodeId> = up(&mesh, host).into_iter().collect();
        mesh.input(host, Input::Shutdown);
        assert_eq!(mesh.hosts[host].dials.len(), dials, "host {host}");
        let anchors: Vec<u8> = listed.iter().flat_map(|node| node.0).collect();
        assert_eq!(mesh.hosts[host].records[&RecordKey::Anchors], anchors, "host {host}");
    }
}

#[test]
fn two_runs_of_the_same_seeds_put_out_the_same() {
    let run = || {
        let mut mesh = listed(1..=40, |_| {});
        let list = mesh.list(1, &(0..40).collect::<Vec<_>>(), |_| {});
        let client = mesh.add_client(77, Params::demo(), None);
        mesh.input(client, Input::List(list));
        mesh.run_for(3 * SECOND);
        mesh.kill(7);
        mesh.run_for(2 * SECOND);
        mesh.restart(7, plan(8));
        mesh.run_for(3 * SECOND);
        mesh
    };
    let (one, again) = (run(), run());
    assert!((0..41).all(|host| !one.hosts[host].links.is_empty()));
    for (one, again) in one.hosts.iter().zip(&again.hosts) {
        assert_eq!(one.log, again.log);
        assert_eq!((&one.records, &one.bottle_bytes, one.streamed), (&again.records, &again.bottle_bytes, again.streamed));
    }
}

#[test]
fn a_clock_a_day_behind_is_said_and_heals() {
    let mut mesh = listed(1..=8, |_| {});
    mesh.run_for(5 * SECOND);
    mesh.kill(3);
    mesh.clock_error_ms.insert(3, -DAY_MS);
    mesh.restart(3, plan(4));
    mesh.run_for(10 * SECOND);
    let said = status(&mesh, 3).waits_for.unwrap();
    assert!(said.contains("this machine's clock to be right: by it, 7 of 8 listed nodes"), "{said}");
    let id = mesh.hosts[3].id;
    let held = |mesh: &Mesh| mesh.hosts[0].node.as_ref().unwrap().bottlerack().seq(&id);
    assert_eq!(held(&mesh), Some(mesh.hosts[3].newest().seq()), "its numbers go on where they were");
    mesh.clock_error_ms.remove(&3);
    mesh.run_for(5 * SECOND);
    assert_eq!(status(&mesh, 3).waits_for, None);
    assert_eq!(status(&mesh, 3).counts.iter().filter(|(name, _)| *name == "out-of-place").count(), 0);
}

#[test]
fn a_clock_a_day_ahead_is_said_while_it_is_and_after_it_was() {
    let mut mesh = listed(1..=8, |_| {});
    mesh.run_for(5 * SECOND);
    let id = mesh.hosts[3].id;
    let held = |mesh: &Mesh| mesh.hosts[0].node.as_ref().unwrap().bottlerack().seq(&id);
    let before = held(&mesh);
    mesh.kill(3);
    mesh.clock_error_ms.insert(3, DAY_MS);
    mesh.restart(3, plan(4));
    mesh.run_for(10 * SECOND);
    assert_eq!(held(&mesh), before, "nobody takes a Bottle from the future");
    let said = status(&mesh, 3).waits_for.unwrap();
    assert!(said.contains("hold an older one; is this machine's clock right?"), "{said}");
    mesh.clock_error_ms.remove(&3);
    mesh.run_for(SECOND);
    let said = status(&mesh, 3).waits_for.unwrap();
    assert!(said.contains("a restart, or 24 h 0 min to pass"), "{said}");
    mesh.kill(3);
    mesh.restart(3, plan(4));
    mesh.run_for(10 * SECOND);
    let said = status(&mesh, 3).waits_for.unwrap();
    assert!(said.contains("an earlier run had a clock that was ahead, and they will in 2"), "{said}");
    // The others are not worried by one.
    assert_eq!(status(&mesh, 0).waits_for, None);
}

#[test]
fn a_newcomer_that_is_sent_away_says_why() {
    let mut mesh = listed(1..=8, |_| {});
    let list = mesh.list(1, &(0..8).collect::<Vec<_>>(), |_| {});
    mesh.clock_error_ms.insert(8, DAY_MS);
    mesh.add(plan(9));
    mesh.input(8, Input::List(list));
    mesh.run_for(10 * SECOND);
    let said = status(&mesh, 8).waits_for.unwrap();
    assert!(said.contains("does not take its Bottle"), "{said}");
}

/// Everybody holds the newest Bottle of all who run.
fn all_known(mesh: &Mesh) -> bool {
    let nodes: Vec<usize> = alive(mesh).into_iter().filter(|host| !mesh.hosts[*host].published.is_empty()).collect();
    alive(mesh).into_iter().all(|host| {
        let rack = mesh.hosts[host].node.as_ref().unwrap().bottlerack();
        let others = nodes.iter().filter(|other| **other != host);
        others.into_iter().all(|other| rack.seq(&mesh.hosts[*other].id) == Some(mesh.hosts[*other].newest().seq()))
    })
}

#[test]
fn a_mesh_that_was_cut_in_two_for_long_grows_together_again() {
    let mut mesh = listed(1..=12, |_| {});
    mesh.run_until(5 * SECOND, "a settled mesh", is_settled);
    let list = mesh.list(1, &(0..12).collect::<Vec<_>>(), |_| {});
    let client = mesh.add_client(77, Params::demo(), None);
    mesh.input(client, Input::List(list));
    mesh.run_for(2 * SECOND);
    mesh.split = (0..6).collect();
    mesh.run_for(200 * SECOND);
    assert!(up(&mesh, 0).iter().all(|node| mesh.host_of(*node) < 6) && !up(&mesh, 0).is_empty());
    // Both parts go on: new keys, new links.
    mesh.kill(2);
    mesh.kill(8);
    mesh.run_for(SECOND);
    mesh.restart(2, plan(3));
    mesh.restart(8, plan(9));
    mesh.run_for(50 * SECOND);
    mesh.split.clear();
    mesh.run_until(15 * SECOND, "all known", all_known);
    mesh.run_for(15 * SECOND);
    assert_eq!(reach(&mesh, 0), 12);
    assert!(all_known(&mesh) && !mesh.hosts[client].links.is_empty());
    for host in 0..12 {
        assert_eq!(status(&mesh, host).waits_for, None, "host {host}");
    }
}
