//! A mesh in which Bottles travel over lanes alone: what one node knows, all learn.

use std::collections::BTreeMap;
use std::time::Duration;

use port17_proto::bottle::{BottleContent, CircuitKey, Flags, ProtocolRange, Seq, ShortId, Tombstone, UnverifiedBottle};
use port17_proto::bottlerack::Trust;
use port17_proto::crypto::{Entropy, KemPublicKey, PUBLIC_KEY_BYTES, SigningKey};
use port17_proto::ids::NodeId;
use port17_proto::node::io::Input;
use port17_proto::params::Params;
use port17_proto::wire::registry::Scope;

use super::mesh::{Disk, Mesh, Plan, START_UNIX_MS, id_of};

const SECOND: Duration = Duration::from_secs(1);

/// When the meshes of these tests begin.
pub const BEGIN_MS: u64 = START_UNIX_MS + 1_000_000;

/// The key of a node that is nothing but its Bottle.
pub fn paper_key(seed: u64) -> SigningKey {
    SigningKey::generate(&mut Entropy::from_number(seed + 40_000))
}

pub fn paper_id(seed: u64) -> NodeId {
    NodeId::of(&paper_key(seed).public())
}

/// A Bottle of a node that is nothing but its Bottle, `load` to tell versions apart. Cheap: its circuit key is nobody's.
pub fn paper_bottle(seed: u64, seq_ms: u64, load: u8) -> Vec<u8> {
    let key = paper_key(seed);
    let content = BottleContent {
        identity: key.public(),
        seq: Seq(seq_ms),
        scope: Scope::Public,
        label: "paper".parse().unwrap(),
        group: String::new(),
        link_key: key.public(),
        link_key_expiry_s: seq_ms / 1000 + 3600,
        next_link_key: None,
        circuit_key: CircuitKey { public: KemPublicKey::from_bytes([5; PUBLIC_KEY_BYTES]), not_after_s: seq_ms / 1000 + 3600 },
        addresses: vec![],
        egress: vec![],
        links: vec![],
        exit_policy: None,
        load,
        flags: Flags::default(),
        protocol: ProtocolRange::OURS,
        software: String::new(),
        unknown: BTreeMap::new(),
    };
    content.sign(&key).unwrap()
}

pub fn short_id(bottle: &[u8]) -> ShortId {
    UnverifiedBottle::parse(bottle).unwrap().short_id()
}

/// The plan of the `index`th of `length` nodes in a row.
fn chain_plan(index: u64, length: u64) -> Plan {
    let near = [index.checked_sub(1), Some(index + 1).filter(|next| *next < length)];
    Plan { neighbours: near.into_iter().flatten().map(|near| id_of(near + 1)).collect(), ..Plan::new(index + 1) }
}

/// Nodes in a row, each of which is given the Bottles of its neighbours and no others.
fn chain(length: u64) -> Mesh {
    let mut mesh = Mesh::new();
    mesh.lanes_only = true;
    for index in 0..length {
        mesh.add(chain_plan(index, length));
    }
    mesh.run_for(Duration::from_millis(10));
    for host in 1..mesh.hosts.len() {
        introduce(&mut mesh, host - 1, host);
    }
    mesh
}

fn introduce(mesh: &mut Mesh, one: usize, other: usize) {
    let bottles = [one, other].map(|host| mesh.hosts[host].bottle_bytes.clone());
    let [first, second] = bottles;
    mesh.input(one, Input::Bottle(second));
    mesh.input(other, Input::Bottle(first));
}

fn seq_at(mesh: &Mesh, host: usize, node: NodeId) -> Option<Seq> {
    mesh.hosts[host].node.as_ref()?.bottlerack().seq(&node)
}

/// Every running node holds the newest Bottle of every other one.
fn all_known(mesh: &Mesh) -> bool {
    let running: Vec<usize> = (0..mesh.hosts.len()).filter(|host| mesh.hosts[*host].node.is_some()).collect();
    running.iter().all(|host| {
        let others = running.iter().filter(|other| *other != host);
        others.into_iter().all(|other| seq_at(mesh, *host, mesh.hosts[*other].id) == Some(mesh.hosts[*other].newest().seq()))
    })
}

fn everyone(mesh: &Mesh, holds: impl Fn(&port17_proto::node::Node) -> bool) -> bool {
    mesh.hosts.iter().filter_map(|host| host.node.as_ref()).all(holds)
}

#[test]
fn a_chain_of_six_learns_all_bottles() {
    let mut mesh = chain(6);
    mesh.run_until(3 * SECOND, "all known", all_known);
    for host in &mesh.hosts {
        assert_eq!(host.count("bottle-refused") + host.count("out-of-place") + host.count("malformed"), 0);
    }
}

#[test]
fn a_node_dials_nobody_before_its_first_bottle_is_out() {
    let mut mesh = chain(3);
    mesh.run_until(3 * SECOND, "all known", all_known);
    for host in 0..3 {
        mesh.kill(host);
        mesh.hosts[host].dials.clear();
        mesh.hosts[host].disk = Disk::Hangs;
        mesh.restart(host, chain_plan(host as u64, 3));
    }
    mesh.run_for(5 * SECOND);
    assert!(mesh.hosts.iter().all(|host| host.dials.is_empty()));
    // One that was dialled meanwhile says its first word when it has one.
    mesh.kill(1);
    mesh.hosts[1].disk = Disk::Works;
    mesh.restart(1, chain_plan(1, 3));
    mesh.run_for(SECOND);
    let drawn: Vec<Seq> = [0, 2].map(|host| mesh.hosts[host].last_drawn.unwrap()).into();
    for (host, seq) in [0, 2].into_iter().zip(drawn) {
        mesh.hosts[host].disk = Disk::Works;
        mesh.hosts[host].stored = Some(seq);
        mesh.input(host, Input::SeqStored(seq));
    }
    mesh.run_until(3 * SECOND, "all known", all_known);
}

#[test]
fn trust_is_the_operators_word_where_there_is_no_network() {
    let mut mesh = chain(3);
    mesh.run_until(3 * SECOND, "all known", all_known);
    let trust = |mesh: &Mesh, node: NodeId| mesh.hosts[0].node.as_ref().unwrap().trust(&node);
    assert_eq!((trust(&mesh, id_of(2)), trust(&mesh, id_of(3))), (Trust::Trusted, Trust::Unknown));
    let bottle = mesh.hosts[2].bottle_bytes.clone();
    mesh.input(0, Input::Bottle(bottle));
    assert_eq!(trust(&mesh, id_of(3)), Trust::Trusted);
}

#[test]
fn a_new_node_is_known_by_all_through_one_neighbour() {
    let mut mesh = chain(4);
    mesh.run_until(3 * SECOND, "all known", all_known);
    // Node 4 expects node 5 as its neighbour, and knows nothing of it.
    let expects = Plan { neighbours: vec![id_of(3), id_of(5)], ..Plan::new(4) };
    mesh.kill(3);
    mesh.restart(3, expects);
    let new = mesh.add(Plan { neighbours: vec![id_of(4)], ..Plan::new(5) });
    mesh.run_for(10 * Duration::from_millis(1));
    let contact = mesh.hosts[3].bottle_bytes.clone();
    mesh.input(new, Input::Bottle(contact));
    // Who of the two dials depends on their NodeIDs; the one that must know the other does.
    let known = mesh.hosts[new].bottle_bytes.clone();
    mesh.input(3, Input::Bottle(known));
    mesh.run_until(5 * SECOND, "all known", all_known);
    assert!(mesh.hosts[0].node.as_ref().unwrap().bottlerack().get(&id_of(5)).is_some());
}

#[test]
fn halves_that_were_apart_learn_what_is_new_in_the_other() {
    let mut mesh = chain(5);
    mesh.run_until(3 * SECOND, "all known", all_known);
    // The middle is gone; both ends publish anew.
    mesh.kill(2);
    for end in [0, 4] {
        mesh.kill(end);
        mesh.restart(end, chain_plan(end as u64, 5));
    }
    mesh.run_for(10 * SECOND);
    assert_ne!(seq_at(&mesh, 4, id_of(1)), Some(mesh.hosts[0].newest().seq()));
    mesh.restart(2, chain_plan(2, 5));
    mesh.run_until(10 * SECOND, "all known again", all_known);
}

#[test]
fn a_bottle_that_was_missed_comes_with_the_next_repair() {
    let mut mesh = chain(3);
    mesh.run_until(3 * SECOND, "all known", all_known);
    // Whatever is said while node 2 hears nothing is lost.
    mesh.silent.insert(1);
    let bottle = paper_bottle(1, BEGIN_MS, 0);
    mesh.input(0, Input::Bottle(bottle));
    mesh.run_for(Params::demo().gossip_batch * 2);
    mesh.silent.clear();
    mesh.run_until(20 * SECOND, "all have it", |mesh| everyone(mesh, |node| node.bottlerack().get(&paper_id(1)).is_some()));
}

#[test]
fn who_has_left_is_not_revived_by_a_node_that_comes_back() {
    let mut mesh = chain(4);
    mesh.input(0, Input::Bottle(paper_bottle(1, BEGIN_MS, 0)));
    mesh.run_until(3 * SECOND, "all have it", |mesh| everyone(mesh, |node| node.bottlerack().get(&paper_id(1)).is_some()));
    mesh.kill(3);
    mesh.input(1, Input::Tombstone(Tombstone::sign(&paper_key(1), Seq(BEGIN_MS + 1000))));
    let is_gone = |node: &port17_proto::node::Node| {
        node.bottlerack().is_buried(&paper_id(1)) && node.bottlerack().get(&paper_id(1)).is_none()
    };
    mesh.run_until(SECOND, "it is gone", |mesh| everyone(mesh, is_gone));
    mesh.restart(3, chain_plan(3, 4));
    assert!(!is_gone(mesh.hosts[3].node.as_ref().unwrap()), "the stale node has it still");
    mesh.run_until(5 * SECOND, "it is gone there too", |mesh| everyone(mesh, is_gone));
    mesh.run_for(5 * SECOND);
    assert!(everyone(&mesh, is_gone));
    // Not even by a newer Bottle, nor after a restart.
    mesh.input(0, Input::Bottle(paper_bottle(1, BEGIN_MS + 9000, 0)));
    mesh.kill(1);
    mesh.restart(1, chain_plan(1, 4));
    mesh.run_for(5 * SECOND);
    assert!(everyone(&mesh, is_gone));
}

#[test]
fn two_truths_reach_all_and_all_distrust() {
    let mut mesh = chain(5);
    mesh.run_until(3 * SECOND, "all known", all_known);
    mesh.input(0, Input::Bottle(paper_bottle(1, BEGIN_MS, 0)));
    mesh.input(4, Input::Bottle(paper_bottle(1, BEGIN_MS, 1)));
    let distrusts = |node: &port17_proto::node::Node| node.trust(&paper_id(1)) == Trust::Distrusted;
    mesh.run_until(3 * SECOND, "all distrust it", |mesh| everyone(mesh, distrusts));
    // Its newer Bottles are stored, and it stays distrusted; so it does over a restart, and for who comes later.
    mesh.input(2, Input::Bottle(paper_bottle(1, BEGIN_MS + 5000, 2)));
    mesh.kill(3);
    mesh.restart(3, chain_plan(3, 5));
    assert!(distrusts(mesh.hosts[3].node.as_ref().unwrap()));
    let newer = |mesh: &Mesh| everyone(mesh, |node| node.bottlerack().seq(&paper_id(1)) == Some(Seq(BEGIN_MS + 5000)));
    mesh.run_until(5 * SECOND, "all have its newer one", newer);
    mesh.hosts[4].records.clear();
    mesh.kill(4);
    mesh.restart(4, chain_plan(4, 5));
    introduce(&mut mesh, 3, 4);
    mesh.run_until(5 * SECOND, "a new one distrusts it", |mesh| everyone(mesh, distrusts));
}

#[test]
fn a_node_that_is_caught_loses_its_links() {
    let mut mesh = chain(3);
    mesh.run_until(3 * SECOND, "all known", all_known);
    let caught = mesh.hosts[2].newest().content().clone();
    let mut other = caught;
    other.load = 3;
    let lie = other.sign(super::mesh::identity(3).0.key()).unwrap();
    mesh.input(0, Input::Bottle(lie));
    mesh.run_until(3 * SECOND, "the link ends", |mesh| !mesh.hosts[1].is_linked_to(id_of(3)));
    mesh.run_for(10 * SECOND);
    assert!(!mesh.hosts[1].is_linked_to(id_of(3)));
    assert_eq!(mesh.hosts[0].node.as_ref().unwrap().trust(&id_of(3)), Trust::Distrusted);
}

#[test]
fn a_map_of_a_thousand_goes_over_one_link() {
    let mut mesh = chain(2);
    mesh.run_until(3 * SECOND, "linked", all_known);
    for seed in 0..1000 {
        mesh.input(0, Input::Bottle(paper_bottle(seed, BEGIN_MS, 0)));
    }
    let (messages, bytes) = mesh.hosts[0].streamed;
    let (asked, _) = mesh.hosts[1].streamed;
    let start = mesh.now;
    let holds = |mesh: &Mesh| mesh.hosts[1].node.as_ref().unwrap().bottlerack().len() == 1001;
    mesh.run_until(SECOND, "the whole map", holds);
    let (messages, bytes) = (mesh.hosts[0].streamed.0 - messages, mesh.hosts[0].streamed.1 - bytes);
    let asked = mesh.hosts[1].streamed.0 - asked;
    println!("1000 Bottles: {messages} messages, {bytes} bytes, {asked} back, {:?}", mesh.now - start);
    assert!(messages <= 50 && asked <= 20, "{messages} messages, {asked} back");
    let size = paper_bottle(0, BEGIN_MS, 0).len();
    assert!(bytes < 1000 * (size + 100), "{bytes} bytes for 1000 of {size}");
    assert_eq!(mesh.hosts[1].count("bottle-omitted") + mesh.hosts[0].count("too-much-gossip"), 0);
}

#[test]
fn a_client_gets_the_whole_map_and_hears_what_is_new() {
    let mut mesh = chain(4);
    mesh.run_until(3 * SECOND, "all known", all_known);
    let client = mesh.add_client(9, Params::demo(), Some(id_of(1)));
    let guard = mesh.hosts[0].bottle_bytes.clone();
    mesh.input(client, Input::Bottle(guard));
    let whole = |mesh: &Mesh| mesh.hosts[client].node.as_ref().unwrap().bottlerack().len() == 4;
    mesh.run_until(SECOND, "the whole map", whole);
    mesh.input(3, Input::Bottle(paper_bottle(1, BEGIN_MS, 0)));
    let heard = |mesh: &Mesh| mesh.hosts[client].node.as_ref().unwrap().bottlerack().get(&paper_id(1)).is_some();
    mesh.run_until(SECOND, "what is new", heard);
    assert_eq!(mesh.hosts[client].node.as_ref().unwrap().trust(&paper_id(1)), Trust::Unknown);
    assert!(mesh.hosts[client].log.iter().all(|(_, line)| !line.starts_with("Close")));
}

#[test]
fn a_node_that_meets_its_own_newer_bottle_in_gossip_jumps_past_it() {
    let mut mesh = chain(3);
    mesh.run_until(3 * SECOND, "all known", all_known);
    // An older run's Bottle with a higher seq is still about, at the far end.
    let mut content = mesh.hosts[0].newest().content().clone();
    content.seq = Seq(content.seq.0 + 60_000);
    let met = content.sign(super::mesh::identity(1).0.key()).unwrap();
    mesh.input(2, Input::Bottle(met));
    mesh.run_until(5 * SECOND, "it jumps", |mesh| mesh.hosts[0].newest().seq() > content.seq);
    mesh.run_until(5 * SECOND, "all know", all_known);
}
