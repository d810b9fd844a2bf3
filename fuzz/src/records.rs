//! What a disk gives back to an engine: records that are as they were written, changed, or anything at all (spec 11, 5).
//!
//! The input is a role, and records one after the other: a real one, a real one that is changed, or some bytes under some key.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use port17_proto::bottle::{Seq, Tombstone};
use port17_proto::crypto::Entropy;
use port17_proto::ids::NodeId;
use port17_proto::node::Node;
use port17_proto::node::config::{ClientSetup, Config, Role};
use port17_proto::node::io::{Counted, Input, Output};
use port17_proto::node::record::{Record, RecordKey};
use port17_proto::params::Params;

use crate::choices::{Choices, tamper};
use crate::engine::mesh::{Plan, START_UNIX_MS, network, node_config};
use crate::engine::solo::{Solo, time};
use crate::paper::{self, paper_bottle, paper_id, paper_key};

const MOST: usize = 24;
const NOW: Duration = Duration::from_secs(1010);
const SEQ_MS: u64 = START_UNIX_MS + 1_000_000;

/// Starts an engine with records, and again with what it says is to be kept.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let is_client = choices.byte() & 1 == 1;
    let mut stored = BTreeMap::new();
    while !choices.is_empty() && stored.len() < MOST {
        let (key, bytes) = chosen(&mut choices);
        stored.insert(key, bytes);
    }
    let (damaged, kept) = started(is_client, stored.clone());
    assert!(damaged <= stored.len());
    let (damaged_again, _) = started(is_client, kept.clone());
    let read: usize = stored.keys().filter(|key| !kept.contains_key(key)).count();
    // What was damaged has been dropped; what is kept is read.
    assert!(damaged_again == 0 || read == 0, "{damaged_again} records are damaged once more");
}

/// Records that are there after a start, and how many were damaged.
fn started(is_client: bool, stored: BTreeMap<RecordKey, Vec<u8>>) -> (usize, BTreeMap<RecordKey, Vec<u8>>) {
    let mut node = Node::new(config(is_client, stored.clone().into_iter().collect()), time(NOW)).expect("records stop no engine");
    node.handle(Input::Tick, time(NOW));
    let (mut damaged, mut kept) = (0, stored);
    for _ in 0..10_000 {
        match node.poll() {
            Output::Wait { .. } => {
                let known = node.bottlerack().iter().all(|it| it.bottle.expires_ms() > time(NOW).unix_ms);
                assert!(known, "what has expired is no hop");
                return (damaged, kept);
            }
            Output::Counted(Counted::RecordDamaged) => damaged += 1,
            Output::Save(key, bytes) => drop(kept.insert(key, bytes)),
            Output::Forget(key) => drop(kept.remove(&key)),
            _ => {}
        }
    }
    panic!("an engine that starts comes to rest");
}

fn config(is_client: bool, stored: Vec<Record>) -> Config {
    let config = node_config(&Plan { decides: true, ..Plan::new(1) });
    let network = Some(network());
    if !is_client {
        return Config { stored, network, ..config };
    }
    let role = Role::Client(ClientSetup { guard: None, hops: None });
    Config { role, params: Params::demo(), network, stored, entropy: Entropy::from_number(5001) }
}

fn chosen(choices: &mut Choices<'_>) -> Record {
    let real = real();
    let (key, mut bytes) = real[choices.below(real.len())].clone();
    match choices.byte() % 4 {
        0 => return (key, bytes),
        1 => drop(tamper(&mut bytes, choices)),
        2 => bytes = choices.bytes().to_vec(),
        _ => bytes = [choices.take(8), &bytes[bytes.len().min(8)..]].concat(),
    }
    (other_key(key, choices.byte()), bytes)
}

/// The key, or that of another kind, or of another node.
fn other_key(key: RecordKey, change: u8) -> RecordKey {
    let node = paper_id(u64::from(change >> 4));
    match change & 15 {
        0 => RecordKey::Bottle(node),
        1 => RecordKey::Evidence(node),
        2 => RecordKey::Tombstone(node),
        3 => RecordKey::List,
        4 => RecordKey::Anchors,
        5 => RecordKey::Guards,
        _ => key,
    }
}

/// What engines have handed out, of each kind.
fn real() -> &'static [Record] {
    static REAL: OnceLock<Vec<Record>> = OnceLock::new();
    REAL.get_or_init(|| {
        let mut solo = Solo::alone(Plan::new(1));
        let bottles = [(1, 0), (2, 0), (2, 1), (3, 0), (4, 0)];
        bottles.iter().for_each(|(seed, load)| solo.handle(Input::Bottle(paper_bottle(*seed, SEQ_MS, *load))));
        solo.handle(Input::Tombstone(Tombstone::sign(&paper_key(3), Seq(SEQ_MS))));
        let mut records: BTreeMap<RecordKey, Vec<u8>> = BTreeMap::new();
        for output in &solo.outputs {
            match output {
                Output::Save(key, bytes) => drop(records.insert(*key, bytes.clone())),
                Output::Forget(key) => drop(records.remove(key)),
                _ => {}
            }
        }
        let ids: Vec<NodeId> = (1..4).map(paper_id).collect();
        records.insert(RecordKey::Anchors, ids.iter().flat_map(|id| id.0).collect());
        records.insert(RecordKey::Guards, guards(&ids));
        records.insert(RecordKey::List, paper::list(5));
        records.into_iter().collect()
    })
}

/// `version u8 ‖ replaced u64 ‖ count u8 ‖ (NodeID 32 ‖ flags u8 ‖ drawn u64 ‖ lost u64 ‖ count u8 ‖ NodeIDs)…`
fn guards(ids: &[NodeId]) -> Vec<u8> {
    let mut out = [&[1][..], &0u64.to_be_bytes(), &[2]].concat();
    for id in &ids[..2] {
        out.extend([&id.0[..], &[0], &(SEQ_MS / 1000).to_be_bytes(), &0u64.to_be_bytes(), &[1], &ids[2].0].concat());
    }
    out
}

/// All real records, for both roles, and each alone with a change.
pub fn seeds() -> Vec<Vec<u8>> {
    let count = real().len() as u8;
    let all = |role: u8| [vec![role], (0..count).flat_map(|at| [at, 0]).collect()].concat();
    let one = |at: u8| vec![at & 1, at, 1, 0, 0, 9, 0, 3, 0xff];
    let timed = |at: u8| vec![0, at, 3, 0, 0, 1, 0x90, 0, 0, 0, 0, 0xff];
    let mixed = |at: u8| vec![0, at, 2, 4, 1, 2, 3, 4, at];
    let mut seeds = vec![all(0), all(1)];
    (0..count).for_each(|at| seeds.extend([one(at), timed(at), mixed(at)]));
    seeds
}
