//! The map over restarts.

use port17_proto::bottle::{Seq, Tombstone};
use port17_proto::bottlerack::Trust;
use port17_proto::node::Node;
use port17_proto::node::config::Config;
use port17_proto::node::io::{Input, Output};
use port17_proto::node::record::{Record, RecordKey};
use port17_proto::timers::Time;

use super::gossip::{BEGIN_MS, paper_bottle, paper_id, paper_key};
use super::mesh::{Plan, node_config};
use super::solo::{Solo, time};

const DAY_MS: u64 = 86_400_000;

/// The records that an engine has handed out, as a store holds them.
fn records(solo: &Solo) -> Vec<Record> {
    let mut kept = std::collections::BTreeMap::new();
    for output in &solo.outputs {
        match output {
            Output::Save(key, bytes) => drop(kept.insert(*key, bytes.clone())),
            Output::Forget(key) => drop(kept.remove(key)),
            _ => {}
        }
    }
    kept.into_iter().collect()
}

/// An engine that holds a Bottle, two truths and a farewell.
fn filled() -> Solo {
    let mut solo = Solo::alone(Plan::new(1));
    for bottle in
        [paper_bottle(1, BEGIN_MS, 0), paper_bottle(2, BEGIN_MS, 0), paper_bottle(2, BEGIN_MS, 1), paper_bottle(3, BEGIN_MS, 0)]
    {
        solo.handle(Input::Bottle(bottle));
    }
    solo.handle(Input::Tombstone(Tombstone::sign(&paper_key(3), Seq(BEGIN_MS))));
    solo
}

fn restarted(stored: Vec<Record>, at: Time) -> Solo {
    let mut solo = Solo::alone(Plan::new(1));
    let config = Config { stored, ..node_config(&Plan::new(1)) };
    solo.node = Node::new(config, at).unwrap();
    solo.outputs.clear();
    while !matches!(solo.node.poll(), Output::Wait { .. }) {}
    solo
}

#[test]
fn a_map_comes_back_as_it_was() {
    let before = filled();
    let stored = records(&before);
    let kinds: Vec<RecordKey> = stored.iter().map(|(key, _)| *key).collect();
    assert!(kinds.contains(&RecordKey::Evidence(paper_id(2))) && kinds.contains(&RecordKey::Tombstone(paper_id(3))));
    assert!(!kinds.contains(&RecordKey::Bottle(paper_id(3))), "who has left is forgotten");
    let after = restarted(stored.clone(), time(before.now));
    let held = |solo: &Solo| solo.node.bottlerack().iter().map(|it| it.bottle.payload().to_vec()).collect::<Vec<_>>();
    assert_eq!(held(&before), held(&after));
    assert_eq!(after.node.trust(&paper_id(2)), Trust::Distrusted);
    assert!(after.node.bottlerack().is_buried(&paper_id(3)));
    assert_eq!(after.node.status().counts, []);
}

#[test]
fn what_was_stored_is_not_stored_again_at_the_start() {
    let before = filled();
    let config = Config { stored: records(&before), ..node_config(&Plan::new(1)) };
    let mut node = Node::new(config, time(before.now)).unwrap();
    loop {
        match node.poll() {
            Output::Wait { .. } => return,
            output => assert!(!matches!(output, Output::Save(..) | Output::Forget(_)), "{output:?}"),
        }
    }
}

#[test]
fn an_expired_bottle_comes_back_as_a_hint_and_ends_after_its_time() {
    let before = filled();
    let at = |days: u64| Time { mono: before.now, unix_ms: BEGIN_MS + days * DAY_MS };
    let week = restarted(records(&before), at(7));
    assert!(week.node.bottlerack().is_empty());
    assert!(week.node.bottlerack().hint(&paper_id(1)).is_some() && week.node.bottlerack().hint(&paper_id(3)).is_none());
    assert_eq!(week.node.status().counts, []);
    let later = restarted(records(&before), at(33));
    assert_eq!(later.node.bottlerack().hints(), 0);
    assert!(!later.node.bottlerack().is_buried(&paper_id(3)));
}

#[test]
fn damaged_records_are_counted_and_dropped() {
    let before = filled();
    let mut stored = records(&before);
    let count = stored.len() as u64;
    for (at, (_, bytes)) in stored.iter_mut().enumerate() {
        match at % 3 {
            0 => bytes.truncate(bytes.len() - 1),
            1 => bytes.clear(),
            _ => *bytes.last_mut().unwrap() ^= 1,
        }
    }
    let mut solo = restarted(stored, time(before.now));
    assert_eq!(solo.count("record-damaged"), count);
    assert!(solo.node.bottlerack().is_empty());
    // A record under another node's key is no less damaged.
    let good = records(&before).into_iter().find(|(key, _)| *key == RecordKey::Bottle(paper_id(1))).unwrap().1;
    solo = restarted(vec![(RecordKey::Bottle(paper_id(9)), good)], time(before.now));
    assert_eq!(solo.count("record-damaged"), 1);
}

#[test]
fn the_own_bottle_is_never_taken_back_as_anothers() {
    // As a client, this machine kept the Bottle of the node that it is now again.
    let own = super::solo::bottle_of(1);
    let record = [&BEGIN_MS.to_be_bytes()[..], &own].concat();
    let key = RecordKey::Bottle(super::mesh::id_of(1));
    let config = Config { stored: vec![(key, record)], ..node_config(&Plan::new(1)) };
    let solo = Solo::of(config, std::time::Duration::from_secs(1010));
    assert!(solo.node.bottlerack().is_empty());
    assert!(solo.outputs.iter().any(|output| matches!(output, Output::Forget(forgotten) if *forgotten == key)));
}
