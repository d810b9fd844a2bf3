//! The own Bottle: stored before it is published, never too often; and what becomes of others'.

use std::time::Duration;

use port17_proto::bottle::Seq;
use port17_proto::node::Node;
use port17_proto::node::config::ConfigError;
use port17_proto::node::io::Input;
use port17_proto::params::Params;
use port17_proto::timers::Time;

use super::mesh::{Disk, Mesh, Plan, id_of, node_config, ordered_seeds};
use super::solo::{Solo, bottle_of, time};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_bottle_is_published_only_after_its_seq_is_stored() {
    let mut mesh = Mesh::new();
    let host = mesh.add(Plan::new(1));
    // The answer of the disk is under way; nothing is out before it comes.
    assert!(mesh.hosts[host].published.is_empty());
    mesh.run_for(SECOND);
    assert_eq!(mesh.hosts[host].published.len(), 1);
}

#[test]
fn a_seq_that_cannot_be_stored_publishes_nothing_until_it_can() {
    let mut mesh = Mesh::new();
    let host = mesh.add(Plan::new(1));
    mesh.run_for(SECOND);
    mesh.hosts[host].disk = Disk::Fails;
    // A new circuit key wants a new Bottle.
    mesh.run_for(Params::demo().circuit_key_interval + 10 * SECOND);
    assert_eq!(mesh.hosts[host].published.len(), 1);
    assert!(mesh.hosts[host].count("seq-not-stored") >= 2);
    mesh.hosts[host].disk = Disk::Works;
    mesh.run_for(5 * SECOND);
    assert_eq!(mesh.hosts[host].published.len(), 2);
}

#[test]
fn a_disk_that_hangs_publishes_nothing() {
    let mut mesh = Mesh::new();
    let host = mesh.add(Plan::new(1));
    mesh.run_for(SECOND);
    mesh.hosts[host].disk = Disk::Hangs;
    mesh.run_for(Params::demo().circuit_key_interval * 3);
    assert_eq!(mesh.hosts[host].published.len(), 1);
}

#[test]
fn a_restarted_node_goes_on_after_its_stored_seq() {
    let stored = Seq(super::mesh::START_UNIX_MS + 2_000_000);
    let mut mesh = Mesh::new();
    let host = mesh.add(Plan { stored_seq: Some(stored), ..Plan::new(1) });
    mesh.run_for(SECOND);
    assert!(mesh.hosts[host].newest().seq() > stored);
}

#[test]
fn a_node_that_meets_its_own_newer_seq_jumps_past_it() {
    let mut mesh = Mesh::new();
    let host = mesh.add(Plan::new(1));
    mesh.run_for(60 * SECOND);
    let old = mesh.hosts[host].bottle_bytes.clone();

    // The same identity, its files lost, on a machine whose clock is behind.
    let mut other = Mesh::new();
    other.clock_error_ms.insert(0, -1_800_000);
    let again = other.add(Plan::new(1));
    other.run_for(SECOND);
    assert!(other.hosts[again].newest().seq() < mesh.hosts[host].newest().seq());
    other.input(again, Input::Bottle(old));
    other.run_for(2 * SECOND);
    assert!(other.hosts[again].newest().seq() > mesh.hosts[host].newest().seq());
    assert_eq!(other.hosts[again].published.len(), 2);
}

#[test]
fn a_link_down_for_long_is_withdrawn_and_listed_again_at_once() {
    let [small, large] = ordered_seeds();
    let mut mesh = Mesh::full(&[large, small]);
    mesh.run_for(SECOND);
    mesh.kill(0);
    let params = Params::demo();
    mesh.run_for(params.link_loss_grace - SECOND);
    assert_eq!(mesh.hosts[1].published.len(), 1);
    mesh.run_for(2 * SECOND);
    assert_eq!(mesh.hosts[1].published.len(), 2);
    assert!(!mesh.hosts[1].lists(id_of(large)));

    mesh.restart(0, Plan { neighbours: vec![id_of(small)], ..Plan::new(large) });
    mesh.run_for(params.backoff_max + params.bottle_interval + SECOND);
    assert!(mesh.hosts[1].is_linked_to(id_of(large)));
    assert!(mesh.hosts[1].lists(id_of(large)));
}

#[test]
fn losses_are_published_at_most_once_an_interval() {
    let seeds = ordered_seeds::<4>();
    let mut mesh = Mesh::full(&seeds);
    let params = Params { link_loss_interval: 600 * SECOND, ..Params::demo() };
    let plan = Plan { params, neighbours: seeds[..3].iter().map(|seed| id_of(*seed)).collect(), ..Plan::new(seeds[3]) };
    mesh.kill(3);
    mesh.restart(3, plan);
    mesh.run_for(5 * SECOND);
    let before = mesh.hosts[3].published.len();
    let start = mesh.now;
    mesh.kill(0);
    mesh.run_for(10 * SECOND);
    mesh.kill(1);
    mesh.run_for(10 * SECOND);
    assert_eq!(mesh.hosts[3].published.len(), before + 1, "the second loss waits");
    mesh.run_for(600 * SECOND);
    assert_eq!(mesh.hosts[3].published.len(), before + 2);
    assert!(mesh.hosts[3].published[before + 1].0 >= start + 600 * SECOND);
    assert!(!mesh.hosts[3].lists(id_of(seeds[0])) && !mesh.hosts[3].lists(id_of(seeds[1])));
    assert!(mesh.hosts[3].lists(id_of(seeds[2])));
}

#[test]
fn bottles_do_not_come_more_often_than_the_bucket_allows() {
    let [small, large] = ordered_seeds();
    let params = Params {
        bottle_interval: 60 * SECOND,
        bottle_burst: 2,
        link_loss_grace: SECOND,
        link_loss_interval: SECOND,
        ..Params::demo()
    };
    let mut mesh = Mesh::new();
    mesh.add(Plan { neighbours: vec![id_of(large)], params: params.clone(), ..Plan::new(small) });
    mesh.add(Plan { neighbours: vec![id_of(small)], params: params.clone(), ..Plan::new(large) });
    let start = mesh.now;
    while mesh.now < start + 600 * SECOND {
        mesh.run_for(5 * SECOND);
        mesh.kill(1);
        mesh.run_for(5 * SECOND);
        mesh.restart(1, Plan { neighbours: vec![id_of(small)], params: params.clone(), ..Plan::new(large) });
    }
    let published = mesh.hosts[0].published.len();
    assert!((5..=12).contains(&published), "{published} in 10 minutes: 2 and one a minute");
}

#[test]
fn bad_bottles_are_counted_and_change_nothing() {
    let mut mesh = Mesh::full(&[1, 2]);
    mesh.run_for(SECOND);
    let good = mesh.hosts[1].bottle_bytes.clone();
    let held = mesh.hosts[0].node.as_ref().unwrap().bottlerack().seq(&id_of(2));
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1;
        mesh.input(0, Input::Bottle(bad));
        mesh.input(0, Input::Bottle(good[..index].to_vec()));
    }
    assert_eq!(mesh.hosts[0].count("bottle-refused"), 2 * good.len() as u64);
    assert_eq!(mesh.hosts[0].node.as_ref().unwrap().bottlerack().seq(&id_of(2)), held);
    assert_eq!(mesh.hosts[0].node.as_ref().unwrap().bottlerack().len(), 1, "its own is not in it");
}

#[test]
fn an_older_bottle_does_not_replace_a_newer_one() {
    let mut mesh = Mesh::full(&[1, 2]);
    mesh.run_for(SECOND);
    let old = mesh.hosts[1].bottle_bytes.clone();
    mesh.run_for(Params::demo().circuit_key_interval + SECOND);
    let newest = mesh.hosts[1].newest().seq();
    mesh.input(0, Input::Bottle(old));
    assert_eq!(mesh.hosts[0].node.as_ref().unwrap().bottlerack().seq(&id_of(2)), Some(newest));
    assert_eq!(mesh.hosts[0].count("bottle-older"), 1);
}

#[test]
fn a_clock_set_back_revives_no_bottle() {
    let mut solo = Solo::alone(Plan::new(1));
    let early = time(solo.now);
    solo.wait(Duration::from_secs(31 * 3600));
    solo.handle(Input::Bottle(bottle_of(2)));
    assert_eq!(solo.count("bottle-refused"), 1, "it has expired");
    solo.node.handle(Input::Bottle(bottle_of(2)), Time { unix_ms: early.unix_ms, ..time(solo.now) });
    assert_eq!(solo.count("bottle-refused"), 2);
    assert!(solo.node.bottlerack().is_empty());
}

#[test]
fn a_wrong_configuration_is_refused() {
    let try_plan = |plan: Plan| Node::new(node_config(&plan), Mesh::new().time(0)).err();
    let plan = Plan::new(1);
    assert_eq!(try_plan(plan.clone()), None);
    assert_eq!(try_plan(Plan { neighbours: vec![id_of(1)], ..plan.clone() }), Some(ConfigError::NeighbourTwice));
    assert_eq!(try_plan(Plan { neighbours: vec![id_of(2), id_of(2)], ..plan.clone() }), Some(ConfigError::NeighbourTwice));
    let many = (100..165).map(id_of).collect();
    assert_eq!(try_plan(Plan { neighbours: many, ..plan.clone() }), Some(ConfigError::Neighbours));
    assert_eq!(try_plan(Plan { params: Params::DEFAULT, ..plan.clone() }), Some(ConfigError::Loopback));
    let params = Params { hops: 9, ..Params::demo() };
    assert!(matches!(try_plan(Plan { params, ..plan }), Some(ConfigError::Params(_))));
}
