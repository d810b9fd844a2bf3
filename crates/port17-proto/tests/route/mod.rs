//! A route in memory: what the tests of circuits arrange.
// Each test binary that takes this in uses another part of it.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use port17_proto::circuit::created::CreatedSealer;
use port17_proto::circuit::depth::Depth;
use port17_proto::circuit::keyring::CircuitKeyring;
use port17_proto::circuit::onion::{ANSWER_AREA, BackwardLayer, CellKind, ForwardLayer, OPENED_AREA};
use port17_proto::circuit::origin::{Answer, Origin, OriginError, OriginForward};
use port17_proto::circuit::replay::slot_of;
use port17_proto::circuit::schedule::FirstKeys;
use port17_proto::circuit::setup::{AdmittedSetup, RouteHop, SetupError, SetupInfo, SetupPacket, SetupParts};
use port17_proto::crypto::{AeadKey, CryptoError, Entropy, EphemeralKey, KemBackend, Secret};
use port17_proto::ids::NodeId;
use port17_proto::wire::registry::{BODY_BYTES, FRAME_BYTES, HEADER_BYTES, HopKind, MESSAGE_BYTES, SETUP_BYTES, SetupStatus};

/// The time of all tests, Unix seconds.
pub const NOW: u64 = 1_760_000_000;
/// Rotation and life of circuit keys.
pub const ROTATION: u64 = 6 * 3600;
pub const LIFETIME: u64 = 30 * 3600;

pub type Frame = [u8; FRAME_BYTES];
pub type Body = [u8; BODY_BYTES];

/// A node: its name and its keys.
pub struct Node {
    pub id: NodeId,
    pub keyring: CircuitKeyring,
}

impl Node {
    pub fn hop(&self) -> RouteHop {
        RouteHop { node: self.id, key: self.keyring.current().unwrap().public().clone() }
    }

    /// All that a node does with a packet before it asks for the next hop.
    pub fn take(&mut self, packet: SetupPacket, now: u64) -> Result<AdmittedSetup, SetupError> {
        let key = self.keyring.find(packet.key_id(), now).ok_or(SetupError::UnknownKey)?.clone();
        packet.open(self.id, &key)?.admit(&mut self.keyring, now)
    }

    pub fn refusal(&mut self, packet: SetupPacket, now: u64) -> SetupError {
        self.take(packet, now).err().expect("the packet should be refused")
    }
}

pub fn nodes(count: usize, backend: KemBackend, entropy: &mut Entropy) -> Vec<Node> {
    let node = |_| {
        let mut keyring = CircuitKeyring::new(backend, ROTATION, LIFETIME);
        keyring.rotate(NOW, entropy).unwrap();
        Node { id: NodeId(entropy.bytes()), keyring }
    };
    (0..count).map(node).collect()
}

pub fn origin(nodes: &[Node], offset: u8, slot: u32, seed: u64) -> (Origin, SetupPacket) {
    let hops: Vec<_> = nodes.iter().map(Node::hop).collect();
    Origin::new(&hops, offset, slot, KemBackend::Seeded, &mut Entropy::from_number(seed)).unwrap()
}

/// A packet of one exit record, with a changed info and something in its rest: what no honest client makes.
pub fn record(node: &Node, depth: Depth, change: impl FnOnce(&mut [u8; 72]), rest: &[u8]) -> SetupPacket {
    record_at(node, depth, slot_of(NOW), change, rest)
}

pub fn record_at(node: &Node, depth: Depth, slot: u32, change: impl FnOnce(&mut [u8; 72]), rest: &[u8]) -> SetupPacket {
    // Not a constant: else two records would have one ciphertext and the second be a replay.
    let mut entropy = Entropy::from_seed(port17_proto::crypto::hash("test", &[&node.id.0, &[depth.code()], rest, &next_seed()]));
    let key = node.keyring.current().unwrap();
    let (ct, shared) = key.public().encapsulate(KemBackend::Seeded, &mut entropy).unwrap();
    let keys = FirstKeys::derive(node.id, key.id(), key.public(), &ct, &shared);
    let ephemeral = *EphemeralKey::generate(&mut entropy).public();
    let mut info = SetupInfo { kind: HopKind::Exit, slot, next: NodeId([0; 32]), ephemeral }.encode();
    change(&mut info);
    let mut bytes = Box::new([0; SETUP_BYTES]);
    bytes[..8].copy_from_slice(&key.id().0);
    bytes[8..1128].copy_from_slice(&ct);
    bytes[1128..1200].copy_from_slice(&info);
    bytes[1200..1200 + rest.len()].copy_from_slice(rest);
    let aad = [&b"p17-setup-v1"[..], &node.id.0, &key.id().0, &[depth.code()]].concat();
    let tag_at = depth.setup_bytes() - 16;
    let tag = AeadKey::new(&keys.setup).seal([0; 12], &aad, &mut bytes[1128..tag_at]);
    bytes[tag_at..tag_at + 16].copy_from_slice(&tag);
    SetupPacket::new(depth.code(), bytes).unwrap()
}

fn next_seed() -> [u8; 8] {
    static SEED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    SEED.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_be_bytes()
}

pub fn message(number: u8) -> [u8; MESSAGE_BYTES] {
    let mut area = [number; MESSAGE_BYTES];
    area[MESSAGE_BYTES - 1] = !number;
    area
}

/// A frame full of old bytes, with a message at `at`.
pub fn message_frame(at: usize, number: u8) -> Frame {
    let mut frame = [0xee; FRAME_BYTES];
    frame[at..at + MESSAGE_BYTES].copy_from_slice(&message(number));
    frame
}

/// What a hop keeps of the circuit.
pub struct Hop {
    pub forward: ForwardLayer,
    pub backward: BackwardLayer,
    pub created: Option<CreatedSealer>,
}

/// A client and its hops after SETUP has gone through.
pub struct Route {
    pub nodes: Vec<Node>,
    pub origin: Origin,
    pub hops: Vec<Hop>,
    pub packets: Vec<SetupPacket>,
    /// Of the cells that the client sends now.
    pub flag: u8,
}

impl Route {
    pub fn build(hops: usize, offset: u8, seed: u64) -> Self {
        Self::build_with(hops, offset, seed, KemBackend::Seeded)
    }

    pub fn build_with(hops: usize, offset: u8, seed: u64, backend: KemBackend) -> Self {
        let mut entropy = Entropy::from_number(seed);
        let nodes = nodes(hops, backend, &mut entropy);
        let mut answers: Vec<_> = (0..hops).map(|_| entropy.fork()).collect();
        Self::join(nodes, offset, backend, &mut Entropy::from_number(seed), &mut answers)
    }

    /// Sends a client's SETUP through these nodes; `answers` is the randomness of each.
    pub fn join(mut nodes: Vec<Node>, offset: u8, backend: KemBackend, client: &mut Entropy, answers: &mut [Entropy]) -> Self {
        let route: Vec<_> = nodes.iter().map(Node::hop).collect();
        let (origin, packet) = Origin::new(&route, offset, slot_of(NOW), backend, client).unwrap();
        let (mut kept, mut packets, mut next) = (Vec::new(), Vec::new(), Some(packet));
        for (index, node) in nodes.iter_mut().enumerate() {
            let packet = through_frames(&next.take().unwrap());
            packets.push(packet.clone());
            let mut admitted = node.take(packet, NOW).unwrap();
            next = admitted.forward_packet.take();
            let following = route.get(index + 1).map_or(NodeId([0; 32]), |hop| hop.node);
            assert!(admitted.info.next == following && admitted.info.slot == slot_of(NOW));
            assert_eq!(
                (admitted.info.kind == HopKind::Exit, next.is_none()),
                (index + 1 == route.len(), index + 1 == route.len())
            );
            let keys = admitted.answer(&mut answers[index]).unwrap();
            kept.push(Hop { forward: keys.forward, backward: keys.backward, created: Some(keys.created) });
        }
        Self { nodes, origin, hops: kept, packets, flag: 0 }
    }

    /// The second hop's forward layer, as it would be if its record had made it the exit.
    pub fn second_hop_as_exit(&self, seed: u64) -> ForwardLayer {
        let mut entropy = Entropy::from_number(seed);
        // What the client takes before the second hop's KEM: eC, m and ek_X of the guard, then this hop's eC.
        let _ = (entropy.bytes::<32>(), entropy.bytes::<32>(), entropy.bytes::<32>(), entropy.bytes::<32>());
        let key = self.nodes[1].keyring.current().unwrap();
        let (ct, shared) = key.public().encapsulate(KemBackend::Seeded, &mut entropy).unwrap();
        let keys = FirstKeys::derive(self.nodes[1].id, key.id(), key.public(), &ct, &shared);
        ForwardLayer::hop(keys.forward, Secret::new([1; 32]), Depth::new(1).unwrap(), HopKind::Exit)
    }

    /// CREATED as the client gets it when hop `answering` speaks.
    pub fn created_from(&mut self, answering: usize, status: SetupStatus) -> Box<Body> {
        let mut body = self.hops[answering].created.take().unwrap().answer(status);
        for hop in self.hops[..answering].iter_mut().rev() {
            body = hop.created.take().unwrap().relay(&body[..]).unwrap();
        }
        body
    }

    pub fn complete(&mut self) -> Result<Answer, OriginError> {
        let body = self.created_from(self.hops.len() - 1, SetupStatus::Ok);
        let answer = self.origin.handle_created(&body[..])?;
        self.flag = 1;
        Ok(answer)
    }

    /// The body of a forward cell as it leaves the client.
    pub fn sealed(&mut self, hop: usize, number: u8) -> Body {
        let mut frame = message_frame(OriginForward::area(hop).start, number);
        assert_eq!(self.origin.seal(hop, &mut frame), Ok(self.flag));
        frame[HEADER_BYTES..].try_into().unwrap()
    }

    /// A message to `hop`, through all hops in front of it; the body as each of them gets it.
    pub fn send_bodies(&mut self, hop: usize, number: u8) -> Vec<Body> {
        let mut body = self.sealed(hop, number);
        let mut bodies = vec![body];
        let mut out = [0xee; FRAME_BYTES];
        for (index, state) in self.hops[..=hop].iter_mut().enumerate() {
            let kind = state.forward.open_forward(self.flag, &body, &mut out).unwrap();
            assert_eq!(kind == CellKind::Message, index == hop);
            body.copy_from_slice(&out[HEADER_BYTES..]);
            bodies.push(body);
        }
        bodies.pop();
        assert_eq!(out[OPENED_AREA], message(number));
        assert!(out[OPENED_AREA.end..].iter().all(|byte| *byte == 0));
        bodies
    }

    pub fn send(&mut self, hop: usize, number: u8) -> Result<(), CryptoError> {
        self.send_bodies(hop, number);
        Ok(())
    }

    /// A message from `hop`; the body as each hop in front of it, and at last the client, gets it.
    pub fn answer_bodies(&mut self, hop: usize, number: u8) -> Vec<Body> {
        let mut frame = message_frame(ANSWER_AREA.start, number);
        self.hops[hop].backward.seal_message_backward(&mut frame);
        let mut bodies = vec![frame[HEADER_BYTES..].try_into().unwrap()];
        for state in self.hops[..hop].iter_mut().rev() {
            let mut out = [0xee; FRAME_BYTES];
            state.backward.seal_backward(&mut frame, &mut out).unwrap();
            bodies.push(out[HEADER_BYTES..].try_into().unwrap());
            frame = out;
        }
        bodies
    }

    pub fn answer(&mut self, hop: usize, number: u8) -> Result<(), OriginError> {
        let mut body = self.answer_bodies(hop, number).pop().unwrap();
        let (from, area) = self.origin.open(&mut body)?;
        assert_eq!(from, hop);
        assert_eq!(body[area], message(number));
        Ok(())
    }
}

/// Splits a packet into frame bodies and puts it together again.
pub fn through_frames(packet: &SetupPacket) -> SetupPacket {
    let delta = packet.depth().code();
    let mut bodies = packet.parts();
    let mut parts = SetupParts::begin(0, delta, bodies.next().unwrap()).unwrap();
    for (part, body) in (1..).zip(bodies) {
        assert_eq!(parts.push(part, delta, body), Ok(part == 3));
    }
    parts.finish().unwrap()
}
