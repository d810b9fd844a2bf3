//! Circuit keys on virtual time.

use std::time::Duration;

use port17_proto::bottle::NodePrefix;
use port17_proto::circuit::keyring::KeyId;
use port17_proto::ids::NodeId;
use port17_proto::params::Params;

use super::mesh::{Mesh, Plan};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn current(mesh: &Mesh) -> KeyId {
    KeyId::of(&mesh.hosts[0].newest().content().circuit_key.public)
}

fn one() -> Mesh {
    let mut mesh = Mesh::new();
    mesh.add(Plan::new(1));
    mesh.run_for(Duration::from_secs(1));
    mesh
}

#[test]
fn a_new_key_comes_with_a_new_bottle_and_the_old_one_is_erased_at_its_end() {
    let mut mesh = one();
    let first = current(&mesh);
    assert_eq!(mesh.hosts[0].keys.len(), 1);
    let not_after_s = mesh.hosts[0].newest().content().circuit_key.not_after_s;

    mesh.run_for(6 * HOUR);
    assert_eq!(mesh.hosts[0].published.len(), 2);
    assert_ne!(current(&mesh), first);
    assert_eq!(mesh.hosts[0].keys.len(), 2, "both open records");

    mesh.run_for(24 * HOUR - 2 * MINUTE);
    assert!(mesh.hosts[0].keys.contains(&first));
    assert!(mesh.time(0).unix_ms / 1000 < not_after_s);
    mesh.run_for(2 * MINUTE);
    assert!(!mesh.hosts[0].keys.contains(&first));
    let live = mesh.hosts[0].keys.len();
    assert!((5..=6).contains(&live), "{live}");
    let status = mesh.hosts[0].node.as_ref().unwrap().status();
    assert_eq!(status.circuit_keys, live);
}

#[test]
fn a_clock_set_back_keeps_no_key_alive_and_seq_still_grows() {
    let mut mesh = one();
    let first = current(&mesh);
    mesh.clock_error_ms.insert(0, -48 * 3_600_000);
    mesh.run_for(30 * HOUR + MINUTE);
    assert!(!mesh.hosts[0].keys.contains(&first), "the monotone clock counts too");
    let seqs: Vec<_> = mesh.hosts[0].published.iter().map(|(_, bottle)| bottle.seq()).collect();
    assert!(seqs.len() >= 5 && seqs.is_sorted());
}

#[test]
fn a_machine_that_slept_makes_and_erases_keys_within_a_minute() {
    let mut mesh = one();
    let first = current(&mesh);
    mesh.clock_error_ms.insert(0, 31 * 3_600_000);
    mesh.run_for(MINUTE + Duration::from_secs(5));
    assert!(!mesh.hosts[0].keys.contains(&first));
    assert_eq!(mesh.hosts[0].keys.len(), 1);
    assert_eq!(mesh.hosts[0].published.len(), 2);
}

#[test]
fn the_link_key_ends_no_later_than_the_parameters_allow() {
    let mesh = one();
    let content = mesh.hosts[0].newest().content();
    let latest = content.seq.unix_ms() / 1000 + Params::demo().link_key_lifetime.as_secs();
    assert_eq!(content.link_key_expiry_s, latest);
    assert_eq!(content.links.iter().map(|link| link.peer).collect::<Vec<NodePrefix>>(), []);
    assert_eq!(content.node_id(), NodeId::of(&content.identity));
}
