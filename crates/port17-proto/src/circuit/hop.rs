//! What a node does with a whole SETUP (spec 06, 1.4, from step 4 on): the decisions, and what they put into its lanes.
//!
//! Public-key work: a node calls [`process`] on a worker, never on a reader. Lanes are changed through their [`Port`]s, so the
//! outcome says only what is left to do: an exit's edge has to be made and given to [`serve`].

use std::sync::Arc;

use super::keyring::CircuitKeyring;
use super::onion::BackwardLayer;
use super::setup::{AdmittedSetup, HopKeys, SetupError, SetupPacket};
use crate::crypto::Entropy;
use crate::ids::{CircuitId, NodeId};
use crate::lane::credit::{Granter, Pool};
use crate::lane::frame::{FrameBuf, Header};
use crate::lane::queue::{Outgoing, Upstream};
use crate::lane::reader::{Command, Install, Port};
use crate::limits::FIRST_WINDOW_CELLS;
use crate::wire::registry::{BODY_BYTES, Command as Code, SetupStatus};

/// What a hop has to know of its node.
pub trait Hop<P: Port> {
    /// Itself; none at a client, which serves no circuit.
    fn own(&self) -> Option<NodeId>;

    /// Its circuit keys. Called for short work only.
    fn keyring<R>(&self, work: impl FnOnce(&mut CircuitKeyring) -> R) -> R;

    /// The node at the other end of a lane, none when it is a client.
    fn came_from(&self, lane: &P) -> Option<NodeId>;

    /// The lane for a new circuit of a link that is up now, none when there is no such link.
    fn onward(&self, next: NodeId) -> Option<Onward<P>>;

    /// The share of memory that this lane's peer has, for cells of its circuits in both directions.
    fn pool(&self, lane: &P) -> Arc<Pool>;

    /// Whether it serves as an exit.
    fn is_exit(&self) -> bool;
}

/// A lane that a circuit may go on.
pub struct Onward<P> {
    /// The lane.
    pub lane: P,
    /// Circuits that may be on it.
    pub circuits: usize,
}

/// A SETUP that is complete, its first window reserved.
pub struct Setup<P> {
    /// The lane it came on.
    pub lane: P,
    /// Its circuit there.
    pub circuit: CircuitId,
    /// The packet.
    pub packet: SetupPacket,
    /// Permits the cells of the circuit.
    pub granter: Granter,
}

/// The time of a SETUP's processing, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Unix seconds, for keys and slots.
    pub unix_seconds: u64,
    /// Milliseconds of the lanes' monotone clock.
    pub ms: u64,
}

/// What became of a SETUP.
pub enum Decision<P> {
    /// It was passed on; the next hop's answer is awaited.
    Relayed,
    /// The circuit ends here: its edge is to be made, then [`serve`] to be called.
    Exit(Box<Exit<P>>),
    /// It was answered with this status, never OK, and ends.
    Declined(SetupStatus),
    /// It got DESTROY and nothing else.
    Refused(SetupError),
}

/// A circuit that ends at this node.
pub struct Exit<P> {
    /// The lane it came on.
    pub lane: P,
    /// Its circuit there.
    pub circuit: CircuitId,
    /// Permits its cells: for the edge.
    pub granter: Granter,
    /// Its keys.
    pub keys: HopKeys,
}

/// Processes a SETUP: opens it, decides, and answers or passes it on.
pub fn process<P: Port>(hop: &impl Hop<P>, setup: Setup<P>, now: Now, entropy: &mut Entropy) -> Decision<P> {
    let Setup { lane, circuit, packet, granter } = setup;
    let opened = open(hop, packet, now.unix_seconds).and_then(|mut admitted| {
        let packet = admitted.forward_packet.take();
        let next = admitted.info.next;
        Ok((admitted.answer(entropy)?, packet.map(|packet| (next, packet))))
    });
    match opened {
        Ok((keys, Some((next, packet)))) => match onward(hop, &lane, next, now.ms) {
            Ok((onward, backward)) => relay(Setup { lane, circuit, packet, granter }, keys, onward, backward),
            Err(status) => decline(&lane, circuit, keys, status),
        },
        Ok((keys, None)) if hop.is_exit() => Decision::Exit(Box::new(Exit { lane, circuit, granter, keys })),
        Ok((keys, None)) => decline(&lane, circuit, keys, SetupStatus::Policy),
        Err(error) => {
            refuse(&lane, circuit);
            Decision::Refused(error)
        }
    }
}

/// Ends a circuit whose SETUP is not processed: DESTROY and nothing else (spec 06, 1.4).
pub fn refuse<P: Port>(lane: &P, circuit: CircuitId) {
    lane.queue(|queue| queue.destroy(circuit, false));
    lane.command(Command::Over(circuit));
}

/// Answers OK for an exit and lets its cells in. What it sends is sealed by the layer that comes back.
pub fn serve<P: Port>(lane: &P, circuit: CircuitId, keys: HopKeys, sink: P::Sink) -> BackwardLayer {
    let HopKeys { forward, backward, created } = keys;
    send_created(lane, circuit, &created.answer(SetupStatus::Ok));
    lane.command(Command::Install(circuit, Install::Exit { layer: forward, sink }));
    backward
}

/// Queues the four parts of a SETUP, together.
pub fn send_setup<P: Port>(lane: &P, circuit: CircuitId, packet: &SetupPacket) {
    let depth = packet.depth().code();
    let part = |(part, body): (u8, &[u8])| {
        let header = Header { depth, part, ..Header::new(circuit, Code::Setup) };
        Outgoing { circuit, frame: FrameBuf::with_body(header, body) }
    };
    let mut parts: Vec<_> = (0..).zip(packet.parts()).map(part).collect();
    lane.queue(|queue| queue.hand_over(&mut parts, &mut Vec::new()));
}

/// Steps 4 to 9: the key is known, the record authentic, new, in its time and sensible.
fn open<P: Port>(hop: &impl Hop<P>, packet: SetupPacket, unix_seconds: u64) -> Result<AdmittedSetup, SetupError> {
    let own = hop.own().ok_or(SetupError::UnknownKey)?;
    let key = hop.keyring(|keyring| keyring.find(packet.key_id(), unix_seconds).cloned()).ok_or(SetupError::UnknownKey)?;
    let opened = packet.open(own, &key)?;
    hop.keyring(|keyring| opened.admit(keyring, unix_seconds))
}

/// Step 10: the lane to the next hop, and memory for what comes back on it; else what to answer.
fn onward<P: Port>(hop: &impl Hop<P>, from: &P, next: NodeId, now_ms: u64) -> Result<(P, Granter), SetupStatus> {
    // spec 06, 1.4 and law 1: only over a link that exists; never back, never to itself.
    let elsewhere = hop.own() != Some(next) && hop.came_from(from) != Some(next);
    let Onward { lane, circuits } = elsewhere.then(|| hop.onward(next)).flatten().ok_or(SetupStatus::NotConnected)?;
    let room = lane.queue(|queue| queue.circuits()) < circuits;
    let reservation = room.then(|| hop.pool(from).reserve(FIRST_WINDOW_CELLS)).flatten().ok_or(SetupStatus::Overload)?;
    let pace = lane.queue(|queue| queue.pace());
    Ok((lane, Granter::new(reservation, pace, now_ms)))
}

/// Step 11: the rest of the packet goes on, and both readers get their half of the hop.
fn relay<P: Port>(setup: Setup<P>, keys: HopKeys, onward: P, backward: Granter) -> Decision<P> {
    let Setup { lane, circuit, packet, granter } = setup;
    let permitted = backward.permitted();
    let upstream = Upstream { lane: lane.clone(), circuit, granter };
    let Ok(there) = onward.queue(|queue| queue.open(Some(upstream))) else {
        return decline(&lane, circuit, keys, SetupStatus::Overload);
    };
    let back = Upstream { lane: onward.clone(), circuit: there, granter: backward };
    lane.queue(|queue| queue.set_upstream(circuit, back));
    let HopKeys { forward, backward, created } = keys;
    let back = Install::Backward { layer: backward, created, to: lane.clone(), circuit, permitted };
    // The onward reader has its half before the SETUP can be answered.
    onward.command(Command::Install(there, back));
    send_setup(&onward, there, &packet);
    let forward = Install::Forward { layer: forward, to: onward.clone(), circuit: there };
    lane.command(Command::Install(circuit, forward));
    if lane.queue(|queue| queue.is_closed()) {
        // The lane was lost meanwhile, perhaps before its reader could take the command: nobody else would end the circuit there.
        refuse(&onward, there);
    }
    Decision::Relayed
}

/// Answers with a status that is not OK, then ends the circuit (spec 06, 1.5).
fn decline<P: Port>(lane: &P, circuit: CircuitId, keys: HopKeys, status: SetupStatus) -> Decision<P> {
    send_created(lane, circuit, &keys.created.answer(status));
    lane.queue(|queue| queue.destroy(circuit, true));
    lane.command(Command::Over(circuit));
    Decision::Declined(status)
}

fn send_created<P: Port>(lane: &P, circuit: CircuitId, body: &[u8; BODY_BYTES]) {
    let frame = FrameBuf::with_body(Header::new(circuit, Code::Created), body);
    lane.queue(|queue| queue.hand_over(&mut vec![Outgoing { circuit, frame }], &mut Vec::new()));
}
