//! The data plane of one host: what its lanes share, as the daemon's `plane.rs`, without threads.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use port17_proto::circuit::hop::{Hop, Onward};
use port17_proto::circuit::keyring::CircuitKeyring;
use port17_proto::crypto::KemBackend;
use port17_proto::ids::NodeId;
use port17_proto::lane::credit::Pool;
use port17_proto::lane::reader::Port;
use port17_proto::node::io::{LaneId, Peer};
use port17_proto::params::Params;

use crate::edge::EdgeRef;
use crate::lane::Lane;

/// A lane that carries circuits.
pub struct Carrying {
    /// The lane.
    pub lane: Lane,
    /// Its other end.
    pub peer: Peer,
    /// Circuits that the peer lets this side open on it.
    pub circuits: usize,
    /// The peer's share of memory.
    pub pool: Arc<Pool>,
}

/// What a host's lanes share. It ends with the process.
pub struct Plane {
    own: Option<NodeId>,
    is_exit: bool,
    /// Memory for cells.
    pub pool: Arc<Pool>,
    /// The clients' share of it.
    pub clients: Arc<Pool>,
    keyring: RefCell<CircuitKeyring>,
    /// Lanes that carry circuits.
    pub carrying: BTreeMap<LaneId, Carrying>,
    /// The lanes of each link.
    pub links: BTreeMap<Peer, Vec<LaneId>>,
    /// Edges of circuits that begin or end here.
    pub edges: Vec<EdgeRef>,
}

impl Plane {
    pub(crate) fn new(own: Option<NodeId>, is_exit: bool, params: &Params, pool_bytes: u64) -> Rc<RefCell<Self>> {
        let pool = Pool::new(pool_bytes);
        let keyring =
            CircuitKeyring::new(KemBackend::Seeded, params.circuit_key_interval.as_secs(), params.circuit_key_lifetime.as_secs());
        Rc::new(RefCell::new(Self {
            own,
            is_exit,
            clients: Pool::within(&pool, pool.bytes() / 100 * u64::from(params.pool_clients_percent)),
            pool,
            keyring: RefCell::new(keyring),
            carrying: BTreeMap::new(),
            links: BTreeMap::new(),
            edges: Vec::new(),
        }))
    }

    pub(crate) fn share(&self, peer: Peer) -> Arc<Pool> {
        match peer {
            Peer::Node(_) => Arc::clone(&self.pool),
            Peer::Client(_) => Arc::clone(&self.clients),
        }
    }

    pub(crate) fn keys<R>(&self, work: impl FnOnce(&mut CircuitKeyring) -> R) -> R {
        work(&mut self.keyring.borrow_mut())
    }

    /// The lane of a link with the fewest circuits, none when the link is down.
    pub fn lane_to(&self, node: NodeId) -> Option<&Carrying> {
        let lanes = self.links.get(&Peer::Node(node))?.iter().filter_map(|id| self.carrying.get(id));
        let usable = lanes.filter(|carrying| !carrying.lane.look(|queue| queue.is_closed()));
        usable.min_by_key(|carrying| carrying.lane.look(|queue| queue.circuits()))
    }
}

impl Hop<Lane> for Plane {
    fn own(&self) -> Option<NodeId> {
        self.own
    }

    fn keyring<R>(&self, work: impl FnOnce(&mut CircuitKeyring) -> R) -> R {
        self.keys(work)
    }

    fn came_from(&self, lane: &Lane) -> Option<NodeId> {
        self.carrying.values().find(|carrying| carrying.lane == *lane)?.peer.node()
    }

    fn onward(&self, next: NodeId) -> Option<Onward<Lane>> {
        self.lane_to(next).map(|carrying| Onward { lane: carrying.lane.clone(), circuits: carrying.circuits })
    }

    fn pool(&self, lane: &Lane) -> Arc<Pool> {
        let share = self.carrying.values().find(|carrying| carrying.lane == *lane).map(|carrying| Arc::clone(&carrying.pool));
        share.unwrap_or_else(|| Arc::clone(&self.pool))
    }

    fn is_exit(&self) -> bool {
        self.is_exit
    }
}

/// Whether any circuit is on any of the lanes.
pub(crate) fn is_busy(plane: &Plane) -> bool {
    !plane.edges.is_empty() || plane.carrying.values().any(|carrying| carrying.lane.look(|queue| queue.circuits() > 0))
}

/// What is done about once a second: see the daemon's `Plane::sweep`.
pub(crate) fn sweep(plane: &mut Plane, now_ms: u64, idle_ms: u64) {
    let mut asked = Vec::new();
    for carrying in plane.carrying.values() {
        carrying.lane.queue(|queue| {
            queue.sweep(now_ms, idle_ms);
            asked.extend(queue.idle(now_ms, idle_ms));
        });
    }
    asked.iter().for_each(|due| due.lane.queue(|queue| queue.push_reclaim(due.circuit, due.permitted)));
    plane.edges.retain(|edge| !edge.borrow().is_over);
    plane.edges.iter().for_each(|edge| edge.borrow_mut().sweep(now_ms, idle_ms));
}
