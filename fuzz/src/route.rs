//! A route through nodes that are keys and nothing else: what SETUP and CREATED go through, hop by hop.

use std::sync::{Arc, OnceLock};

use port17_proto::circuit::created::CreatedSealer;
use port17_proto::circuit::keyring::{CircuitKey, CircuitKeyring};
use port17_proto::circuit::origin::Origin;
use port17_proto::circuit::replay::slot_of;
use port17_proto::circuit::setup::{AdmittedSetup, RouteHop, SetupError, SetupPacket};
use port17_proto::crypto::{Entropy, KemBackend, KemSecretKey, Secret};
use port17_proto::ids::NodeId;
use port17_proto::wire::registry::MAX_HOPS;

use crate::choices::Choices;

/// The wall clock, Unix seconds.
pub const NOW_S: u64 = 1_800_000_000;
const LIFETIME_S: u64 = 30 * 3600;

/// The circuit keys of the nodes of all routes, made once.
fn keys() -> &'static [Arc<CircuitKey>] {
    static KEYS: OnceLock<Vec<Arc<CircuitKey>>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let secret = |seed| KemSecretKey::from_seed(&Secret::new([seed; 32])).expect("any seed makes a key");
        (0..MAX_HOPS as u8).map(|seed| Arc::new(CircuitKey::new(secret(seed), NOW_S - 60, NOW_S + LIFETIME_S))).collect()
    })
}

fn node(index: usize) -> NodeId {
    NodeId([index as u8 + 1; 32])
}

/// A route that was chosen, and what its client sends first.
pub struct Route {
    /// How many hops it has.
    pub hops: usize,
    /// The client's half.
    pub origin: Origin,
    /// For the guard.
    pub packet: SetupPacket,
    /// What hops draw from.
    pub entropy: Entropy,
}

impl Route {
    /// One to six hops with as much in front of them as fits.
    pub fn chosen(choices: &mut Choices<'_>) -> Self {
        let hops = 1 + choices.below(MAX_HOPS);
        let offset = choices.below(MAX_HOPS + 1 - hops) as u8;
        let mut entropy = Entropy::from_number(u64::from(choices.byte()));
        let route: Vec<_> = keys()[..hops]
            .iter()
            .enumerate()
            .map(|(index, key)| RouteHop { node: node(index), key: key.public().clone() })
            .collect();
        let made = Origin::new(&route, offset, slot_of(NOW_S), KemBackend::Seeded, &mut entropy);
        let (origin, packet) = made.expect("a route of good keys can be built");
        Self { hops, origin, packet, entropy }
    }

    /// All hops take the untouched packet: their answers, guard first.
    pub fn sealers(&mut self) -> Vec<CreatedSealer> {
        let (mut sealers, mut packet) = (Vec::new(), Some(self.packet.clone()));
        for hop in 0..self.hops {
            let taken = packet.take().expect("the packet goes on to the exit");
            let mut admitted = process(hop, taken, &mut keyring(hop)).expect("an honest SETUP is served");
            packet = admitted.forward_packet.take();
            sealers.push(admitted.answer(&mut self.entropy).expect("an honest ephemeral key").created);
        }
        assert!(packet.is_none(), "nothing goes beyond the exit");
        sealers
    }
}

/// What a hop knows before its first SETUP.
pub fn keyring(hop: usize) -> CircuitKeyring {
    let mut keyring = CircuitKeyring::new(KemBackend::Seeded, LIFETIME_S, LIFETIME_S);
    keyring.hold(Arc::clone(&keys()[hop]));
    keyring
}

/// A hop's whole work on a SETUP, short of its answer.
pub fn process(hop: usize, packet: SetupPacket, keyring: &mut CircuitKeyring) -> Result<AdmittedSetup, SetupError> {
    let key = keyring.find(packet.key_id(), NOW_S).map(Arc::clone).ok_or(SetupError::UnknownKey)?;
    packet.open(node(hop), &key)?.admit(keyring, NOW_S)
}

/// Who follows a hop.
pub fn next_of(hop: usize, hops: usize) -> NodeId {
    if hop + 1 < hops { node(hop + 1) } else { NodeId([0; 32]) }
}
