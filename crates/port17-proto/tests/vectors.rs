//! The vectors of circuits: a whole route from fixed randomness, with every intermediate value, for other implementations.
//!
//! `docs/spec/vectors/circuit.json` is what this code gives; the test fails when they differ. After a deliberate change of the
//! protocol: `PORT17_BLESS=1 cargo test -p port17-proto --test vectors`.

#![allow(clippy::unwrap_used)]

mod route;

use std::path::PathBuf;
use std::sync::Arc;

use port17_proto::circuit::depth::Depth;
use port17_proto::circuit::keyring::{CircuitKey, CircuitKeyring, KeyId};
use port17_proto::circuit::origin::Answer;
use port17_proto::circuit::replay::{Stamp, slot_of};
use port17_proto::circuit::schedule::{FirstKeys, Upgrade};
use port17_proto::circuit::setup::SetupInfo;
use port17_proto::crypto::{Entropy, EphemeralKey, KemBackend, KemSecretKey, Secret, SigningKey, hash, hmac};
use port17_proto::ids::NodeId;
use port17_proto::wire::registry::{HopKind, MESSAGE_BYTES, SETUP_INFO_BYTES, SetupStatus};
use route::{Body, LIFETIME, NOW, Node, ROTATION, Route};
use serde_json::{Value, json};

const HOPS: usize = 3;
const OFFSET: u8 = 1;
/// The seeds of the client's and of each hop's randomness.
const CLIENT_SEED: u64 = 1717;
const HOP_SEED: u64 = 17_000;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fixed bytes that look like nothing.
fn fixed(name: &str, number: usize) -> [u8; 32] {
    hash("p17-vector-v1", &[name.as_bytes(), &[u8::try_from(number).unwrap()]])
}

fn node(number: usize) -> Node {
    let identity = SigningKey::from_seed(Secret::new(fixed("identity", number)));
    let secret = KemSecretKey::from_seed(&Secret::new(fixed("circuit key", number))).unwrap();
    let mut keyring = CircuitKeyring::new(KemBackend::Seeded, ROTATION, LIFETIME);
    keyring.hold(Arc::new(CircuitKey::new(secret, NOW, NOW + LIFETIME)));
    Node { id: NodeId::of(&identity.public()), keyring }
}

fn build() -> Route {
    let mut answers: Vec<_> = (0..HOPS as u64).map(|hop| Entropy::from_number(HOP_SEED + hop)).collect();
    let mut client = Entropy::from_number(CLIENT_SEED);
    Route::join((0..HOPS).map(node).collect(), OFFSET, KemBackend::Seeded, &mut client, &mut answers)
}

/// HMAC-SHA-256 by its definition, for a key of one block: the code under test has no such function.
fn hmac_of_block(key: &[u8; 64], data: &[u8]) -> [u8; 32] {
    let inner = hash("", &[&key.map(|byte| byte ^ 0x36), data]);
    hash("", &[&key.map(|byte| byte ^ 0x5c), &inner])
}

/// One hop's part of the route: randomness, keys, and what passes through its hands.
fn hop_vector(route: &Route, hop: usize, client: &mut Entropy) -> Value {
    let identity = SigningKey::from_seed(Secret::new(fixed("identity", hop)));
    let node = &route.nodes[hop];
    let key = node.keyring.current().unwrap();
    let delta = OFFSET + u8::try_from(hop).unwrap();

    // In the order in which OriginSetup::new and AdmittedSetup::answer take them.
    let (client_secret, m, kem_secret) = (client.bytes::<32>(), client.bytes::<32>(), client.bytes::<32>());
    let node_secret = Entropy::from_number(HOP_SEED + hop as u64).bytes::<32>();
    let mut eseed = [0; 64];
    eseed[..32].copy_from_slice(&m);
    eseed[32..].copy_from_slice(&kem_secret);
    let (ct, shared) = key.public().encapsulate_from_seed(&Secret::new(eseed)).unwrap();

    let first = FirstKeys::derive(node.id, KeyId::of(key.public()), key.public(), &ct, &shared);
    let (client_key, node_key) =
        (EphemeralKey::from_secret(&Secret::new(client_secret)), EphemeralKey::from_secret(&Secret::new(node_secret)));
    let next = route.nodes.get(hop + 1).map(|node| node.id);
    let info: [u8; SETUP_INFO_BYTES] = SetupInfo {
        kind: if next.is_some() { HopKind::Relay } else { HopKind::Exit },
        slot: slot_of(NOW),
        next: next.unwrap_or(NodeId([0; 32])),
        ephemeral: *client_key.public(),
    }
    .encode();
    let exchanged = client_key.exchange(node_key.public()).unwrap();
    let mut salt = [0; 64];
    salt[..32].copy_from_slice(first.upgrade.expose());
    let upgrade_shown = hex(first.upgrade.expose());
    let fresh = Upgrade::new(first.transcript, &info, first.upgrade).derive(node_key.public(), &exchanged);
    salt[32..].copy_from_slice(&fresh.transcript);

    json!({
        "identity_seed": hex(&fixed("identity", hop)),
        "identity_public": hex(&identity.public().0),
        "node_id": hex(&node.id.0),
        "xwing_seed": hex(&fixed("circuit key", hop)),
        "circuit_public": hex(key.public().as_bytes()),
        "key_id": hex(&key.id().0),
        "delta": delta,
        "eC_secret": hex(&client_secret),
        "eC_public": hex(client_key.public()),
        "kem_m": hex(&m),
        "kem_ek_X": hex(&kem_secret),
        "ct": hex(&ct),
        "ss": hex(shared.expose()),
        "stamp": hex(Stamp::of(&ct).as_bytes()),
        "th0": hex(&first.transcript),
        "PRK0": hex(&hmac(&Secret::new(first.transcript), shared.expose())),
        "K_set": hex(first.setup.expose()),
        "f0": hex(first.forward.expose()),
        "up": upgrade_shown,
        "info": hex(&info),
        "eN_secret": hex(&node_secret),
        "eN_public": hex(node_key.public()),
        "dh": hex(exchanged.expose()),
        "th1": hex(&fresh.transcript),
        "PRK1": hex(&hmac_of_block(&salt, exchanged.expose())),
        "f1": hex(fresh.forward.expose()),
        "b1": hex(fresh.backward.expose()),
        "created": hex(fresh.created.expose()),
        "conf": hex(&fresh.confirmation),
        "packet": hex(route.packets[hop].as_bytes()),
    })
}

/// CREATED as each hop sends it, guard first.
fn created_bodies(route: &mut Route, answering: usize, status: SetupStatus) -> Vec<Body> {
    let mut bodies = vec![*route.hops[answering].created.take().unwrap().answer(status)];
    for hop in route.hops[..answering].iter_mut().rev() {
        let inner = bodies.last().unwrap();
        bodies.push(*hop.created.take().unwrap().relay(inner).unwrap());
    }
    bodies.reverse();
    bodies
}

/// Sends cells and writes down those that are asked for, with the counter of every layer.
struct Recorder {
    route: Route,
    flag: u8,
    sent: [u64; HOPS],
    answered: [u64; HOPS],
    cells: Vec<Value>,
}

impl Recorder {
    fn send(&mut self, hop: usize) {
        let number = self.cells.len() as u8 + 1;
        let bodies = self.route.send_bodies(hop, number);
        self.record("forward", self.flag, hop, number, &bodies, self.sent);
        self.skip_sent(hop);
    }

    fn answer(&mut self, hop: usize) {
        let number = self.cells.len() as u8 + 1;
        let mut bodies = self.route.answer_bodies(hop, number);
        let mut opened = *bodies.last().unwrap();
        assert_eq!(self.route.origin.open(&mut opened).map(|(from, _)| from), Ok(hop));
        bodies.reverse();
        self.record("backward", 0, hop, number, &bodies, self.answered);
        self.skip_answered(hop);
    }

    fn record(&mut self, direction: &str, flag: u8, hop: usize, number: u8, bodies: &[Body], counters: [u64; HOPS]) {
        let area = route::message(number);
        assert_eq!(area.len(), MESSAGE_BYTES);
        self.cells.push(json!({
            "direction": direction,
            "flag": flag,
            "hop": hop,
            "counters": &counters[..=hop],
            "area": hex(&area),
            "bodies": bodies.iter().map(|body| hex(body)).collect::<Vec<_>>(),
        }));
    }

    fn skip_sent(&mut self, hop: usize) {
        self.sent[..=hop].iter_mut().for_each(|counter| *counter += 1);
    }

    fn skip_answered(&mut self, hop: usize) {
        self.answered[..=hop].iter_mut().for_each(|counter| *counter += 1);
    }

    /// Cells that are not written down, until the guard has counted this many each way.
    fn pass_over(&mut self, cells: u64) {
        while self.sent[0] < cells {
            self.route.send(HOPS - 1, 0).unwrap();
            self.skip_sent(HOPS - 1);
        }
        while self.answered[0] < cells {
            self.route.answer(HOPS - 1, 0).unwrap();
            self.skip_answered(HOPS - 1);
        }
    }
}

fn vectors() -> Value {
    let route = build();
    let mut client = Entropy::from_number(CLIENT_SEED);
    let mut hops: Vec<_> = (0..HOPS).map(|hop| hop_vector(&route, hop, &mut client)).collect();

    let mut recorder = Recorder { route, flag: 0, sent: [0; HOPS], answered: [0; HOPS], cells: Vec::new() };
    recorder.send(2);
    recorder.send(0);

    let created = created_bodies(&mut recorder.route, HOPS - 1, SetupStatus::Ok);
    for (hop, body) in hops.iter_mut().zip(&created) {
        hop["created_body"] = json!(hex(&body[..]));
    }
    assert_eq!(recorder.route.origin.handle_created(&created[0][..]), Ok(Answer::Complete));
    recorder.route.flag = 1;
    recorder.flag = 1;

    recorder.send(2);
    recorder.send(1);
    recorder.answer(2);
    recorder.answer(1);
    // The layers have counted differently by now, so that each crosses the rekey with another cell.
    recorder.pass_over((1 << 16) - 1);
    for _ in 0..4 {
        recorder.send(2);
        recorder.answer(2);
    }

    let mut refused = build();
    let refusal = created_bodies(&mut refused, 1, SetupStatus::NotConnected);
    let failed = Answer::Failed { hop: 1, status: SetupStatus::NotConnected };
    assert_eq!(refused.origin.handle_created(&refusal[0][..]), Ok(failed));

    json!({
        "about": "A 3-hop circuit from fixed randomness: spec 02 and 06. Bytes in hex; hop 0 is the guard; packet, created_body and \
                  bodies are what hop i receives (packet, forward) or sends towards the client (created_body, backward).",
        "offset": OFFSET,
        "slot": slot_of(NOW),
        "unix_seconds": NOW,
        "hops": hops,
        "cells": recorder.cells,
        "refused": {
            "about": "The same circuit when hop 1 answers NOT_CONNECTED instead.",
            "hop": 1,
            "status": SetupStatus::NotConnected.code(),
            "created_bodies": refusal.iter().map(|body| hex(&body[..])).collect::<Vec<_>>(),
        },
    })
}

#[test]
fn circuit_vectors_are_what_this_code_gives() {
    assert_eq!(Depth::new(OFFSET).unwrap().code(), OFFSET);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/spec/vectors/circuit.json");
    let text = serde_json::to_string_pretty(&vectors()).unwrap() + "\n";
    if std::env::var_os("PORT17_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    // Not assert_eq: half a megabyte of hex helps nobody.
    assert!(committed == text, "docs/spec/vectors/circuit.json differs from what the code gives");
}
