//! A client's guards: drawn, stored, used in turn, and pinned second hops.

use std::collections::BTreeSet;
use std::time::Duration;

use port17_proto::bottle::Tombstone;
use port17_proto::ids::NodeId;
use port17_proto::node::io::{Input, Peer};
use port17_proto::node::record::RecordKey;
use port17_proto::params::Params;

use super::mesh::{Mesh, Plan, id_of, identity};

const SECOND: Duration = Duration::from_secs(1);
const CLIENT: u64 = 77;

/// Seven listed nodes that choose their links, and a client that knows them.
fn world(change: impl Fn(&mut Params)) -> (Mesh, usize) {
    let mut mesh = Mesh::new();
    mesh.in_network = true;
    mesh.lanes_only = true;
    for seed in 1..=7 {
        mesh.add(Plan { decides: true, ..Plan::new(seed) });
    }
    mesh.run_for(SECOND);
    let list = mesh.list(1, &[0, 1, 2, 3, 4, 5, 6], change);
    mesh.give_list(&list);
    mesh.run_for(5 * SECOND);
    let client = mesh.add_client(CLIENT, Params::demo(), None);
    mesh.input(client, Input::List(list));
    mesh.run_until(2 * SECOND, "a guard's link", |mesh| !mesh.hosts[client].links.is_empty());
    mesh.run_for(SECOND);
    (mesh, client)
}

fn guards(mesh: &Mesh, client: usize) -> Vec<NodeId> {
    mesh.hosts[client].guards.as_ref().unwrap().guards.iter().map(|guard| guard.node).collect()
}

fn active(mesh: &Mesh, client: usize) -> NodeId {
    mesh.hosts[client].guards.as_ref().unwrap().active
}

fn linked(mesh: &Mesh, client: usize) -> BTreeSet<NodeId> {
    mesh.hosts[client].links.keys().filter_map(Peer::node).collect()
}

fn waits_for(mesh: &Mesh, client: usize) -> Option<String> {
    mesh.hosts[client].node.as_ref().unwrap().status().waits_for
}

/// Long after the backup was closed again.
fn settle(mesh: &mut Mesh) {
    mesh.run_for(Params::demo().guard_return * 3 + SECOND);
}

#[test]
fn a_client_draws_a_primary_and_two_backups_and_links_to_the_primary_alone() {
    let mut primaries = BTreeSet::new();
    for draw in 0..8 {
        let (mut mesh, _) = world(|_| {});
        let client = mesh.add_client(CLIENT + 100 + draw, Params::demo(), None);
        let list = mesh.list(1, &[0, 1, 2, 3, 4, 5, 6], |_| {});
        mesh.input(client, Input::List(list));
        mesh.run_for(2 * SECOND);
        let set = guards(&mesh, client);
        assert_eq!(set.iter().collect::<BTreeSet<_>>().len(), 3);
        assert_eq!(linked(&mesh, client), BTreeSet::from([set[0]]));
        assert_eq!(active(&mesh, client), set[0]);
        assert_eq!(waits_for(&mesh, client), None);
        primaries.insert(set[0]);
        assert!(mesh.hosts[client].records.contains_key(&RecordKey::Guards));
    }
    assert!(primaries.len() >= 3, "clients draw different ones");
}

#[test]
fn the_only_exit_is_no_guard() {
    let mut mesh = Mesh::new();
    (mesh.in_network, mesh.lanes_only) = (true, true);
    for seed in 1..=3 {
        mesh.add(Plan { decides: true, exit: seed == 3, ..Plan::new(seed) });
    }
    mesh.run_for(SECOND);
    let list = mesh.list(1, &[0, 1, 2], |_| {});
    mesh.give_list(&list);
    mesh.run_for(5 * SECOND);
    for draw in 0..8 {
        let client = mesh.add_client(CLIENT + 200 + draw, Params::demo(), None);
        mesh.input(client, Input::List(list.clone()));
        mesh.run_for(2 * SECOND);
        assert!(!guards(&mesh, client).contains(&id_of(3)), "no route begins and ends at one node");
        assert_eq!(guards(&mesh, client).len(), 2);
    }
}

#[test]
fn without_a_list_no_guard_is_drawn_and_the_client_says_why() {
    let mut mesh = Mesh::new();
    mesh.in_network = true;
    mesh.add(Plan { decides: true, ..Plan::new(1) });
    mesh.run_for(SECOND);
    let client = mesh.add_client(CLIENT, Params::demo(), None);
    mesh.run_for(5 * SECOND);
    assert!(mesh.hosts[client].guards.is_none() && mesh.hosts[client].dials.is_empty());
    assert_eq!(waits_for(&mesh, client).unwrap(), "the network's signed list: none is here yet");
}

#[test]
fn unknown_nodes_are_never_guards() {
    let mut mesh = Mesh::new();
    mesh.in_network = true;
    for seed in 1..=9 {
        mesh.add(Plan { decides: true, ..Plan::new(seed) });
    }
    mesh.run_for(SECOND);
    let list = mesh.list(1, &[0, 1], |_| {});
    for seed in 0..10 {
        let client = mesh.add_client(CLIENT + seed, Params::demo(), None);
        mesh.input(client, Input::List(list.clone()));
        mesh.run_for(2 * SECOND);
        let set: BTreeSet<_> = guards(&mesh, client).into_iter().collect();
        assert_eq!(set, BTreeSet::from([id_of(1), id_of(2)]), "as many as can be had");
    }
}

#[test]
fn guards_outlive_a_restart() {
    let (mut mesh, client) = world(|_| {});
    let before = mesh.hosts[client].guards.clone().unwrap();
    for again in 0..3 {
        mesh.restart_client(client, CLIENT + again, Params::demo(), None);
        mesh.run_for(5 * SECOND);
        let after = mesh.hosts[client].guards.clone().unwrap();
        assert_eq!(after.guards, before.guards, "with what is pinned to them");
        assert_eq!(linked(&mesh, client), BTreeSet::from([before.active]));
    }
}

#[test]
fn a_damaged_record_costs_new_guards_and_nothing_else() {
    let (mut mesh, client) = world(|_| {});
    mesh.hosts[client].records.insert(RecordKey::Guards, vec![1, 2, 3]);
    mesh.restart_client(client, CLIENT, Params::demo(), None);
    mesh.run_for(3 * SECOND);
    assert_eq!(guards(&mesh, client).len(), 3);
}

#[test]
fn a_configured_guard_is_primary() {
    let (mut mesh, client) = world(|_| {});
    let other = *[id_of(1), id_of(2), id_of(3), id_of(4)].iter().find(|id| !guards(&mesh, client).contains(id)).unwrap();
    let before = guards(&mesh, client);
    mesh.restart_client(client, CLIENT, Params::demo(), Some(other));
    mesh.run_for(3 * SECOND);
    assert_eq!(guards(&mesh, client), [other, before[0], before[1]]);
    assert_eq!(linked(&mesh, client), BTreeSet::from([other]));
    mesh.restart_client(client, CLIENT, Params::demo(), None);
    mesh.run_for(3 * SECOND);
    assert_eq!(guards(&mesh, client)[..2], before[..2], "it was never drawn");
}

#[test]
fn a_dead_primary_is_replaced_in_use_by_a_backup_and_used_again_when_it_is_back() {
    let (mut mesh, client) = world(|_| {});
    let set = guards(&mesh, client);
    let primary = mesh.host_of(set[0]);
    let params = Params::demo();
    mesh.kill(primary);
    mesh.run_for(params.guard_patience / 2);
    assert_eq!(active(&mesh, client), set[0], "it may be back in a moment");
    mesh.run_for(params.guard_patience);
    assert_eq!(active(&mesh, client), set[1]);
    assert_eq!(linked(&mesh, client), BTreeSet::from([set[1]]), "one backup at a time");
    assert_eq!(waits_for(&mesh, client), None);
    mesh.run_for(10 * SECOND);
    let seed = (1..=7).find(|seed| id_of(*seed) == set[0]).unwrap();
    mesh.restart(primary, Plan { decides: true, ..Plan::new(seed) });
    mesh.run_until(5 * SECOND, "both links", |mesh| linked(mesh, client).len() == 2);
    assert_eq!(active(&mesh, client), set[1], "not before it has stood for a while");
    mesh.run_until(params.guard_return * 2, "the primary in use", |mesh| active(mesh, client) == set[0]);
    assert_eq!(linked(&mesh, client).len(), 2, "what flows over the backup may end");
    settle(&mut mesh);
    assert_eq!(linked(&mesh, client), BTreeSet::from([set[0]]));
    let same: BTreeSet<_> = guards(&mesh, client).into_iter().collect();
    assert_eq!(same, set.into_iter().collect(), "the guards are the same three");
}

#[test]
fn the_link_of_a_backup_that_is_used_no_more_stands_while_streams_flow_over_it() {
    let (mut mesh, client) = world(|_| {});
    let set = guards(&mesh, client);
    let primary = mesh.host_of(set[0]);
    let params = Params::demo();
    mesh.kill(primary);
    mesh.run_until(5 * SECOND, "the backup in use", |mesh| active(mesh, client) == set[1]);
    mesh.hosts[client].has_streams = true;
    let seed = (1..=7).find(|seed| id_of(*seed) == set[0]).unwrap();
    mesh.restart(primary, Plan { decides: true, ..Plan::new(seed) });
    mesh.run_until(10 * SECOND, "the primary in use", |mesh| active(mesh, client) == set[0]);
    mesh.run_for(params.guard_return * 20);
    assert_eq!(linked(&mesh, client).len(), 2, "a stream would be cut");
    mesh.hosts[client].has_streams = false;
    mesh.run_for(params.guard_return * 2);
    assert_eq!(linked(&mesh, client), BTreeSet::from([set[0]]));
}

#[test]
fn a_backup_in_use_is_not_left_by_a_late_word() {
    let (mut mesh, client) = world(|_| {});
    let set = guards(&mesh, client);
    let primary = mesh.host_of(set[0]);
    mesh.kill(primary);
    mesh.run_until(5 * SECOND, "the backup in use", |mesh| active(mesh, client) == set[1]);
    mesh.input(client, Input::GuardIdle(set[1]));
    mesh.run_for(SECOND);
    assert_eq!(linked(&mesh, client), BTreeSet::from([set[1]]));
}

#[test]
fn backups_are_tried_in_turn_and_never_two_at_once() {
    let (mut mesh, client) = world(|_| {});
    let set = guards(&mesh, client);
    for node in &set[..2] {
        let host = mesh.host_of(*node);
        mesh.kill(host);
    }
    mesh.run_until(6 * SECOND, "the second backup", |mesh| active(mesh, client) == set[2]);
    assert_eq!(linked(&mesh, client), BTreeSet::from([set[2]]));
    let last = mesh.host_of(set[2]);
    mesh.kill(last);
    mesh.run_for(20 * SECOND);
    assert!(linked(&mesh, client).is_empty(), "no fourth node, whatever happens");
    assert!(waits_for(&mesh, client).unwrap().contains("its guard"));
    let dialled: BTreeSet<_> = mesh.hosts[client].dials.iter().map(|(_, node, _)| *node).collect();
    assert_eq!(dialled, set.iter().copied().collect());
}

#[test]
fn a_backup_that_was_given_up_gets_no_link_when_it_is_back() {
    // Not the regular look shall find it.
    let (mut mesh, client) = world(|params| params.link_evaluate = Duration::from_secs(3600));
    let set = guards(&mesh, client);
    let hosts = [mesh.host_of(set[0]), mesh.host_of(set[1])];
    hosts.into_iter().for_each(|host| mesh.kill(host));
    mesh.run_until(6 * SECOND, "the second backup", |mesh| active(mesh, client) == set[2]);
    let seed = (1..=7).find(|seed| id_of(*seed) == set[1]).unwrap();
    mesh.restart(hosts[1], Plan { decides: true, ..Plan::new(seed) });
    mesh.run_for(20 * SECOND);
    assert_eq!(linked(&mesh, client), BTreeSet::from([set[2]]));
}

#[test]
fn a_guard_that_flaps_is_not_changed_for_each_loss() {
    let (mut mesh, client) = world(|_| {});
    let set = guards(&mesh, client);
    for _ in 0..5 {
        for lane in mesh.hosts[client].lanes_to(set[0]) {
            mesh.break_lane(client, lane);
        }
        mesh.run_for(SECOND);
        assert_eq!(active(&mesh, client), set[0]);
    }
    assert!(mesh.hosts[client].dials.iter().all(|(_, node, _)| *node == set[0]));
}

#[test]
fn a_guard_out_of_reach_for_long_is_replaced_once_in_the_interval() {
    let change = |params: &mut Params| {
        params.guard_replace_after = 60 * SECOND;
        params.guard_change_interval = 600 * SECOND;
    };
    let (mut mesh, client) = world(change);
    let set = guards(&mesh, client);
    for node in [set[0], set[2]] {
        let host = mesh.host_of(node);
        mesh.kill(host);
    }
    mesh.run_for(50 * SECOND);
    let same: BTreeSet<_> = guards(&mesh, client).into_iter().collect();
    assert_eq!(same, set.iter().copied().collect());
    mesh.run_for(30 * SECOND);
    let next: BTreeSet<_> = guards(&mesh, client).into_iter().collect();
    assert!(!next.contains(&set[0]) && next.contains(&set[1]) && next.len() == 3, "one is replaced");
    assert!(next.contains(&set[2]), "the other has to wait");
    assert_eq!(active(&mesh, client), set[1], "the first backup is the primary now");
    mesh.run_for(500 * SECOND);
    assert_eq!(guards(&mesh, client).into_iter().collect::<BTreeSet<_>>(), next);
}

#[test]
fn a_client_without_a_network_to_reach_replaces_nobody() {
    let (mut mesh, client) = world(|params| params.guard_replace_after = 60 * SECOND);
    let set: BTreeSet<_> = guards(&mesh, client).into_iter().collect();
    mesh.silent.insert(client);
    mesh.run_for(300 * SECOND);
    assert_eq!(guards(&mesh, client).into_iter().collect::<BTreeSet<_>>(), set);
    assert!(linked(&mesh, client).is_empty());
}

#[test]
fn a_guard_that_the_new_list_does_not_name_is_not_used_any_more() {
    let (mut mesh, client) = world(|_| {});
    let set = guards(&mesh, client);
    let others: Vec<usize> = (0..7).filter(|host| mesh.hosts[*host].id != set[0]).collect();
    let list = mesh.list(2, &others, |_| {});
    mesh.give_list(&list);
    mesh.run_for(3 * SECOND);
    assert!(!guards(&mesh, client).contains(&set[0]));
    assert_eq!(linked(&mesh, client), BTreeSet::from([set[1]]));
}

#[test]
fn three_second_hops_are_pinned_with_each_guard() {
    let (mesh, client) = world(|_| {});
    for guard in &mesh.hosts[client].guards.as_ref().unwrap().guards {
        let host = mesh.host_of(guard.node);
        assert_eq!(guard.hop2.len(), 3);
        assert_eq!(guard.hop2.iter().collect::<BTreeSet<_>>().len(), 3);
        for hop in &guard.hop2 {
            let there = mesh.host_of(*hop);
            assert!(mesh.hosts[host].lists(*hop) && mesh.hosts[there].lists(guard.node));
        }
    }
}

#[test]
fn a_second_hop_whose_link_is_gone_keeps_its_place_for_a_while_and_is_replaced_then() {
    let (mut mesh, client) = world(|_| {});
    let pinned = |mesh: &Mesh| mesh.hosts[client].guards.as_ref().unwrap().guards[0].hop2.clone();
    let before = pinned(&mesh);
    let gone = mesh.host_of(before[0]);
    mesh.kill(gone);
    let params = Params::demo();
    mesh.run_for(params.link_loss_grace + 3 * SECOND);
    let guard = mesh.host_of(active(&mesh, client));
    assert!(!mesh.hosts[guard].lists(before[0]));
    assert_eq!(pinned(&mesh), before, "it may be back");
    mesh.run_for(params.link_loss_interval + 10 * SECOND);
    let after = pinned(&mesh);
    assert_eq!(after[..2], before[1..], "the others move up");
    assert!(after.len() == 3 && !after.contains(&before[0]));
}

#[test]
fn when_all_second_hops_are_gone_another_is_drawn_at_once() {
    let (mut mesh, client) = world(|_| {});
    let pinned = |mesh: &Mesh| mesh.hosts[client].guards.as_ref().unwrap().guards[0].hop2.clone();
    let before = pinned(&mesh);
    for hop in &before {
        let host = mesh.host_of(*hop);
        mesh.kill(host);
    }
    // Withdrawn by the guard, all together.
    mesh.run_for(Params::demo().link_loss_grace + 10 * SECOND);
    let after = pinned(&mesh);
    let hosts: Vec<usize> = before.iter().map(|hop| mesh.host_of(*hop)).collect();
    assert!(hosts.iter().all(|host| mesh.hosts[*host].node.is_none()));
    let fresh: Vec<_> = after.iter().filter(|hop| !before.contains(hop)).collect();
    assert!(!fresh.is_empty() && fresh.iter().all(|hop| mesh.hosts[mesh.host_of(**hop)].node.is_some()), "{after:?}");
    mesh.run_for(Params::demo().link_loss_interval + 10 * SECOND);
    assert!(pinned(&mesh).iter().all(|hop| !before.contains(hop)), "the others follow when they had their time");
}

#[test]
fn without_a_network_one_guard_is_drawn_and_nothing_is_stored() {
    let mut mesh = Mesh::full(&[1, 2, 3]);
    mesh.run_for(SECOND);
    let client = mesh.add_client(CLIENT, Params::demo(), None);
    mesh.run_for(2 * SECOND);
    assert_eq!(guards(&mesh, client).len(), 1);
    assert!(!mesh.hosts[client].records.contains_key(&RecordKey::Guards));
}

#[test]
fn a_backup_that_became_the_primary_is_dialled_like_one() {
    let change = |params: &mut Params| {
        params.guard_replace_after = 60 * SECOND;
        params.guard_change_interval = 600 * SECOND;
        // No regular look comes to help.
        params.link_evaluate = 3600 * SECOND;
    };
    let (mut mesh, client) = world(change);
    let set = guards(&mesh, client);
    let first = mesh.host_of(set[0]);
    mesh.kill(first);
    mesh.run_for(2 * SECOND);
    assert_eq!(active(&mesh, client), set[1]);
    let others: Vec<usize> = (0..7).filter(|host| *host != first).collect();
    let list = mesh.list(2, &others, change);
    mesh.input(client, Input::List(list));
    mesh.run_for(SECOND);
    assert_eq!(guards(&mesh, client)[0], set[1]);
    for lane in mesh.hosts[client].lanes_to(set[1]) {
        mesh.break_lane(client, lane);
    }
    mesh.run_for(SECOND);
    assert_eq!(linked(&mesh, client), BTreeSet::from([set[1]]), "its link comes back and stays");
    let primary = mesh.host_of(set[1]);
    mesh.kill(primary);
    mesh.run_for(10 * SECOND);
    assert_ne!(active(&mesh, client), set[1]);
    let seed = (1..=7).find(|seed| id_of(*seed) == set[1]).unwrap();
    mesh.restart(primary, Plan { decides: true, ..Plan::new(seed) });
    settle(&mut mesh);
    assert_eq!((active(&mesh, client), linked(&mesh, client)), (set[1], BTreeSet::from([set[1]])));
}

#[test]
fn a_guard_that_has_left_for_good_is_replaced_at_once() {
    let (mut mesh, client) = world(|_| {});
    let set = guards(&mesh, client);
    let seed = (1..=7).find(|seed| id_of(*seed) == set[0]).unwrap();
    let gone = mesh.host_of(set[0]);
    let seq = mesh.hosts[gone].newest().seq();
    mesh.kill(gone);
    mesh.input((gone + 1) % 7, Input::Tombstone(Tombstone::sign(identity(seed).0.key(), seq)));
    mesh.run_for(5 * SECOND);
    assert!(!guards(&mesh, client).contains(&set[0]));
    assert_eq!((active(&mesh, client), guards(&mesh, client).len()), (set[1], 3));
    assert_eq!(linked(&mesh, client), BTreeSet::from([set[1]]));
}

#[test]
fn the_clients_own_end_is_not_its_guards_failure() {
    let (mut mesh, client) = world(|params| params.guard_replace_after = 60 * SECOND);
    let before = mesh.hosts[client].records[&RecordKey::Guards].clone();
    mesh.input(client, Input::Shutdown);
    assert_eq!(mesh.hosts[client].records[&RecordKey::Guards], before);
    let first = mesh.host_of(guards(&mesh, client)[0]);
    let set: BTreeSet<_> = guards(&mesh, client).into_iter().collect();
    mesh.run_for(100 * SECOND);
    mesh.kill(first);
    mesh.restart_client(client, CLIENT, Params::demo(), None);
    mesh.run_for(10 * SECOND);
    assert_eq!(guards(&mesh, client).into_iter().collect::<BTreeSet<_>>(), set, "it was not out of reach for long");
}

#[test]
fn when_all_guards_were_down_for_long_the_first_that_is_back_is_used_and_then_the_primary() {
    let (mut mesh, client) = world(|_| {});
    let set = guards(&mesh, client);
    for node in &set {
        let host = mesh.host_of(*node);
        mesh.kill(host);
    }
    mesh.run_for(60 * SECOND);
    assert!(waits_for(&mesh, client).unwrap().contains("its guard"));
    for node in [set[2], set[0]] {
        let host = mesh.host_of(node);
        let seed = (1..=7).find(|seed| id_of(*seed) == node).unwrap();
        mesh.restart(host, Plan { decides: true, ..Plan::new(seed) });
        mesh.run_for(10 * SECOND);
        assert_eq!((active(&mesh, client), linked(&mesh, client)), (node, BTreeSet::from([node])));
    }
    assert_eq!(guards(&mesh, client), set, "the same three");
}
