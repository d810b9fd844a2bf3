//! A data plane in memory: lanes, nodes and clients on the shipped code, in virtual time, moved in an order that a seed draws.
//!
//! A lane is two ends; each end has the queue of what it sends, the reader of what comes, and the wire to it. An end without a
//! reader is the test's own: it sends what it likes and sees what comes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use port17_proto::circuit::hop::{self, Decision, Exit, Hop, Now, Onward, Setup};
use port17_proto::circuit::keyring::CircuitKeyring;
use port17_proto::circuit::mux::{Mux, Side, StreamRules};
use port17_proto::circuit::origin::Origin;
use port17_proto::circuit::replay::slot_of;
use port17_proto::circuit::setup::{RouteHop, SetupError, SetupPacket};
use port17_proto::crypto::{Entropy, KemBackend};
use port17_proto::ids::{CircuitId, NodeId};
use port17_proto::lane::credit::{Granter, Pace, Pool};
use port17_proto::lane::frame::{Frame, FrameBuf, Header};
use port17_proto::lane::queue::{LaneEnd, LaneQueue};
use port17_proto::lane::reader::{Admission, CircuitFault, Command, Event, Install, LinkFault, Port, Reader};
use port17_proto::limits::{FIRST_WINDOW_CELLS, LANE_WRITE_FRAMES};
use port17_proto::params::Params;
use port17_proto::wire::registry::{Command as Code, FRAME_BYTES, SetupStatus};

use crate::edge::{Edge, EdgeSink, Sealing};

/// The wall clock at the start of all tests, Unix seconds.
pub const NOW: u64 = 1_760_000_000;
/// How quickly half a window must drain to grow.
pub const GROWTH_MS: u64 = 10;
/// Frames that fit between two neighbours: what TCP and the socket buffers hold.
pub const WIRE_FRAMES: usize = 96;

/// What most tests let a peer do.
pub const ADMISSION: Admission =
    Admission { circuits: 1000, setups_per_second: 1000, setups_burst: 1000, breach_window_ms: 600_000 };

/// What the network says about streams.
pub fn stream_rules() -> StreamRules {
    StreamRules::from(&Params::DEFAULT)
}

// ---- Lanes ----

struct Shared {
    queue: RefCell<LaneQueue<Lane>>,
    /// None once the reader is gone.
    commands: RefCell<Option<Vec<Command<Lane>>>>,
}

/// A handle to one end of a lane.
#[derive(Clone)]
pub struct Lane(Rc<Shared>);

impl PartialEq for Lane {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Lane {
    /// Commands that wait are lost.
    pub fn forget_commands(&self) {
        if let Some(commands) = &mut *self.0.commands.borrow_mut() {
            commands.clear();
        }
    }
}

impl Port for Lane {
    type Sink = EdgeSink;

    fn queue<R>(&self, work: impl FnOnce(&mut LaneQueue<Self>) -> R) -> R {
        work(&mut self.0.queue.borrow_mut())
    }

    fn command(&self, command: Command<Self>) {
        if let Some(commands) = &mut *self.0.commands.borrow_mut() {
            commands.push(command);
        }
    }
}

/// One end of a lane.
pub struct End {
    pub lane: Lane,
    pub reader: Option<Reader<Lane>>,
    /// Frames on their way to this end.
    pub wire: VecDeque<FrameBuf>,
    /// It reads nothing for now.
    pub stalled: bool,
    /// Why it closed the lane.
    pub fault: Option<LinkFault>,
    /// Circuits it destroyed, by reason.
    pub faults: BTreeMap<CircuitFault, u64>,
    pub open: bool,
    owner: usize,
    peer: usize,
}

// ---- Nodes and clients ----

/// A node, or a client.
pub struct Member {
    pub id: Option<NodeId>,
    pub keyring: RefCell<CircuitKeyring>,
    pub pool: Arc<Pool>,
    pub exit: bool,
    /// Circuits that its lanes take.
    pub circuits: usize,
    /// Asked for a lane to a node with which there was no link.
    pub strangers: Cell<usize>,
    links: Vec<(Option<NodeId>, Lane)>,
}

impl Hop<Lane> for Member {
    fn own(&self) -> Option<NodeId> {
        self.id
    }

    fn keyring<R>(&self, work: impl FnOnce(&mut CircuitKeyring) -> R) -> R {
        work(&mut self.keyring.borrow_mut())
    }

    fn came_from(&self, lane: &Lane) -> Option<NodeId> {
        self.links.iter().find(|(_, other)| other == lane).and_then(|(node, _)| *node)
    }

    fn onward(&self, next: NodeId) -> Option<Onward<Lane>> {
        let up = |lane: &Lane| !lane.queue(|queue| queue.is_closed());
        let found = self.links.iter().find(|(node, lane)| *node == Some(next) && up(lane));
        self.strangers.set(self.strangers.get() + usize::from(found.is_none()));
        found.map(|(_, lane)| Onward { lane: lane.clone(), circuits: self.circuits })
    }

    fn pool(&self, _lane: &Lane) -> Arc<Pool> {
        Arc::clone(&self.pool)
    }

    fn is_exit(&self) -> bool {
        self.exit
    }
}

/// Everything.
pub struct Mesh {
    pub now_ms: u64,
    pub members: Vec<Member>,
    pub ends: Vec<End>,
    pub edges: Vec<Rc<RefCell<Edge>>>,
    /// SETUPs that were not served, by node: what the peer is not told.
    pub refused: Vec<(usize, SetupError)>,
    /// SETUPs that were answered with another status than OK.
    pub declined: Vec<(usize, SetupStatus)>,
    /// Whether SETUPs wait for public-key work for now.
    pub workers_busy: bool,
    /// SETUPs that took public-key work.
    pub processed: usize,
    /// The pool of each member that is added from now on.
    pub pool_cells: u64,
    setups: VecDeque<(usize, Setup<Lane>)>,
    pub entropy: Entropy,
    order: Entropy,
}

impl Mesh {
    /// Nobody yet. Everything drawn follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut entropy = Entropy::from_number(seed);
        Self {
            now_ms: 1000,
            members: Vec::new(),
            ends: Vec::new(),
            edges: Vec::new(),
            refused: Vec::new(),
            declined: Vec::new(),
            workers_busy: false,
            processed: 0,
            pool_cells: 32_768,
            setups: VecDeque::new(),
            order: entropy.fork(),
            entropy,
        }
    }

    /// A client (member 0) and a chain of nodes (members 1 to `nodes`), each linked to the next; all of them exits.
    /// The ends of lane k are 2k (towards the client) and 2k + 1.
    pub fn chain(nodes: usize, seed: u64) -> Self {
        let mut mesh = Self::new(seed);
        mesh.client();
        for node in 1..=nodes {
            mesh.node();
            mesh.link(node - 1, node);
        }
        mesh
    }

    pub fn client(&mut self) -> usize {
        self.member(None)
    }

    pub fn node(&mut self) -> usize {
        let id = NodeId(self.entropy.bytes());
        self.member(Some(id))
    }

    fn member(&mut self, id: Option<NodeId>) -> usize {
        let mut keyring = CircuitKeyring::new(KemBackend::Seeded, 6 * 3600, 30 * 3600);
        if id.is_some() {
            keyring.rotate(NOW, &mut self.entropy).unwrap();
        }
        let pool = Pool::new(self.pool_cells * FRAME_BYTES as u64);
        let (keyring, strangers) = (RefCell::new(keyring), Cell::new(0));
        self.members.push(Member { id, keyring, pool, exit: id.is_some(), circuits: 1000, strangers, links: Vec::new() });
        self.members.len() - 1
    }

    /// A lane that `a` dialled to `b`; gives `a`'s end, `b`'s is the next number.
    pub fn link(&mut self, a: usize, b: usize) -> usize {
        let at = self.ends.len();
        self.end(a, at + 1, LaneEnd::Dialler, self.members[b].id);
        self.end(b, at, LaneEnd::Acceptor, self.members[a].id);
        at
    }

    /// As [`Self::link`], but the test plays `a`.
    pub fn link_raw(&mut self, a: usize, b: usize) -> usize {
        let end = self.link(a, b);
        self.ends[end].reader = None;
        end
    }

    fn end(&mut self, owner: usize, peer: usize, end: LaneEnd, neighbour: Option<NodeId>) {
        let queue = RefCell::new(LaneQueue::new(end, GROWTH_MS));
        let lane = Lane(Rc::new(Shared { queue, commands: RefCell::new(Some(Vec::new())) }));
        lane.command(Command::Admit(ADMISSION));
        self.members[owner].links.push((neighbour, lane.clone()));
        let reader = Some(Reader::new(lane.clone(), Arc::clone(&self.members[owner].pool)));
        let (wire, faults) = (VecDeque::new(), BTreeMap::new());
        self.ends.push(End { lane, reader, wire, stalled: false, fault: None, faults, open: true, owner, peer });
    }

    pub fn id(&self, member: usize) -> NodeId {
        self.members[member].id.unwrap()
    }

    pub fn hop(&self, member: usize) -> RouteHop {
        let member = &self.members[member];
        RouteHop { node: member.id.unwrap(), key: member.keyring.borrow().current().unwrap().public().clone() }
    }

    pub fn origin(&mut self, route: &[usize], offset: u8) -> (Origin, SetupPacket) {
        let hops: Vec<_> = route.iter().map(|node| self.hop(*node)).collect();
        self.origin_of(&hops, offset)
    }

    pub fn origin_of(&mut self, hops: &[RouteHop], offset: u8) -> (Origin, SetupPacket) {
        let slot = slot_of(self.unix_seconds());
        Origin::new(hops, offset, slot, KemBackend::Seeded, &mut self.entropy).unwrap()
    }

    /// Opens a circuit of the client that owns `end`, on that lane.
    pub fn circuit(&mut self, end: usize, route: &[usize]) -> Rc<RefCell<Edge>> {
        let offset = self.entropy.below(7 - route.len() as u64) as u8;
        let (origin, packet) = self.origin(route, offset);
        let (lane, pool) = (self.ends[end].lane.clone(), Arc::clone(&self.members[self.ends[end].owner].pool));
        let granter = Granter::new(pool.reserve(FIRST_WINDOW_CELLS).unwrap(), Pace::new(GROWTH_MS), self.now_ms);
        let permitted = granter.permitted();
        let circuit = lane.queue(|queue| queue.open(None)).unwrap();
        let mux = Mux::new(Side::Client, granter, stream_rules());
        let sealing = Sealing::Building { origin: Box::new(origin), hops: route.len(), sent: 0 };
        let edge = Edge::new(lane.clone(), circuit, mux, sealing);
        lane.command(Command::Install(circuit, Install::Origin { sink: EdgeSink(Rc::clone(&edge)), permitted }));
        hop::send_setup(&lane, circuit, &packet);
        self.edges.push(Rc::clone(&edge));
        edge
    }

    pub fn unix_seconds(&self) -> u64 {
        NOW + self.now_ms / 1000
    }

    // ---- What the test does at an end ----

    /// Puts a frame on the wire from `end`, past its queue.
    pub fn send(&mut self, end: usize, frame: FrameBuf) {
        let peer = self.ends[end].peer;
        self.ends[peer].wire.push_back(frame);
    }

    pub fn send_body(&mut self, end: usize, header: Header, body: &[u8]) {
        self.send(end, FrameBuf::with_body(header, body));
    }

    /// Puts a whole SETUP on the wire from `end`.
    pub fn send_setup(&mut self, end: usize, circuit: u32, packet: &SetupPacket) {
        for part in 0..4 {
            self.send_part(end, circuit, packet, part);
        }
    }

    pub fn send_part(&mut self, end: usize, circuit: u32, packet: &SetupPacket, part: u8) {
        let header = Header { depth: packet.depth().code(), part, ..Header::new(CircuitId(circuit), Code::Setup) };
        let body = packet.parts().nth(usize::from(part)).unwrap().to_vec();
        self.send_body(end, header, &body);
    }

    /// What came to the test's own end since the last call.
    pub fn received(&mut self, end: usize) -> Vec<FrameBuf> {
        assert!(self.ends[end].reader.is_none());
        self.ends[end].wire.drain(..).collect()
    }

    /// The commands of what came, without those of circuit 0, by circuit.
    pub fn answers(&mut self, end: usize) -> Vec<(u32, Code)> {
        let frames = self.received(end);
        let headers = frames.iter().map(|frame| Header::decode(frame.bytes()).unwrap());
        headers.filter(|header| header.circuit.0 != 0).map(|header| (header.circuit.0, header.command)).collect()
    }

    /// Why the other end closed the lane.
    pub fn fault(&self, end: usize) -> Option<LinkFault> {
        self.ends[self.ends[end].peer].fault
    }

    /// Circuits that the other end destroyed for this.
    pub fn faults(&self, end: usize, fault: CircuitFault) -> u64 {
        self.ends[self.ends[end].peer].faults.get(&fault).copied().unwrap_or(0)
    }

    /// The connection breaks.
    pub fn cut(&mut self, end: usize) {
        for end in [end, self.ends[end].peer] {
            self.close(end);
        }
    }

    fn close(&mut self, at: usize) {
        let now_ms = self.now_ms;
        let end = &mut self.ends[at];
        end.open = false;
        end.wire.clear();
        if let Some(reader) = &mut end.reader {
            let commands = Rc::clone(&end.lane.0);
            reader.close(|| commands.commands.take().unwrap_or_default(), now_ms);
        }
    }

    // ---- Moving ----

    /// Moves everything until nothing moves; each round takes a millisecond.
    pub fn run(&mut self) {
        self.run_with(|_| {});
    }

    /// As [`Self::run`], with a look at everything after each round.
    pub fn run_with(&mut self, mut look: impl FnMut(&mut Self)) {
        const ROUNDS: u32 = 200_000;
        for _ in 0..ROUNDS {
            let moved = self.round();
            look(self);
            if !moved {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Lets time pass, with the sweep that a node makes each second.
    pub fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now_ms += 1000;
            self.sweep();
            self.run();
        }
    }

    /// What a node does about once a second.
    pub fn sweep(&mut self) {
        const IDLE_MS: u64 = 5000;
        let now_ms = self.now_ms;
        for end in &self.ends {
            let asked = end.lane.queue(|queue| {
                queue.sweep(now_ms, IDLE_MS);
                queue.idle(now_ms, IDLE_MS)
            });
            asked.iter().for_each(|due| due.lane.queue(|queue| queue.push_reclaim(due.circuit, due.permitted)));
        }
        self.edges.iter().for_each(|edge| edge.borrow_mut().sweep(now_ms, IDLE_MS));
    }

    /// Everything moves once, in an order that the seed draws.
    pub fn round(&mut self) -> bool {
        self.now_ms += 1;
        let (ends, edges) = (self.ends.len(), self.edges.len());
        let mut turns: Vec<usize> = (0..2 * ends + edges + 1).collect();
        for at in (1..turns.len()).rev() {
            turns.swap(at, self.order.below(at as u64 + 1) as usize);
        }
        let mut moved = false;
        for turn in turns {
            moved |= match turn {
                turn if turn < ends => self.write(turn),
                turn if turn < 2 * ends => self.read(turn - ends),
                turn if turn < 2 * ends + edges => {
                    let edge = Rc::clone(&self.edges[turn - 2 * ends]);
                    edge.borrow_mut().work(self.now_ms)
                }
                _ => self.set_up(),
            };
        }
        moved
    }

    fn write(&mut self, at: usize) -> bool {
        let end = &self.ends[at];
        let room = WIRE_FRAMES.saturating_sub(self.ends[end.peer].wire.len());
        let most = (1 + self.order.below(LANE_WRITE_FRAMES as u64) as usize).min(room);
        if !end.open || end.reader.is_none() || most == 0 {
            return false;
        }
        let (mut frames, mut due) = (Vec::new(), Vec::new());
        end.lane.queue(|queue| queue.take(most, self.now_ms, &mut frames, &mut due));
        due.iter().for_each(|due| due.lane.queue(|queue| queue.push_credit(due.circuit, due.permitted)));
        let (peer, moved) = (end.peer, !frames.is_empty());
        self.ends[peer].wire.extend(frames);
        moved
    }

    fn read(&mut self, at: usize) -> bool {
        let (now_ms, owner) = (self.now_ms, self.ends[at].owner);
        let end = &mut self.ends[at];
        let Some(reader) = end.reader.as_mut().filter(|_| end.open) else { return false };
        let commands = end.lane.0.commands.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default();
        let mut moved = !commands.is_empty();
        commands.into_iter().for_each(|command| reader.command(command, now_ms));
        let batch = 1 + self.order.below(40) as usize;
        let most = if end.stalled { 0 } else { batch.min(end.wire.len()) };
        for mut frame in end.wire.drain(..most) {
            moved = true;
            if let Err(fault) = reader.frame(frame.bytes_mut(), now_ms) {
                end.fault = Some(fault);
                break;
            }
        }
        reader.end_batch(now_ms);
        for event in reader.drain_events() {
            match event {
                Event::Setup { circuit, packet, granter } => {
                    self.setups.push_back((owner, Setup { lane: end.lane.clone(), circuit, packet, granter }));
                }
                Event::Control { .. } => {}
            }
        }
        reader.take_faults().into_iter().for_each(|(fault, times)| *end.faults.entry(fault).or_default() += times);
        if end.fault.is_some() {
            self.cut(at);
        }
        moved
    }

    /// One SETUP's public-key work.
    pub fn set_up(&mut self) -> bool {
        let Some((member, setup)) = (!self.workers_busy).then(|| self.setups.pop_front()).flatten() else { return false };
        self.processed += 1;
        let now = Now { unix_seconds: self.unix_seconds(), ms: self.now_ms };
        match hop::process(&self.members[member], setup, now, &mut self.entropy) {
            Decision::Relayed => {}
            Decision::Declined(status) => self.declined.push((member, status)),
            Decision::Refused(error) => self.refused.push((member, error)),
            Decision::Exit(exit) => {
                let Exit { lane, circuit, granter, keys } = *exit;
                let edge = Edge::new(lane.clone(), circuit, Mux::new(Side::Exit, granter, stream_rules()), Sealing::Nothing);
                let layer = hop::serve(&lane, circuit, keys, EdgeSink(Rc::clone(&edge)));
                edge.borrow_mut().sealing = Sealing::Exit(layer);
                self.edges.push(edge);
            }
        }
        true
    }

    // ---- What must hold ----

    /// Cells' memory that is reserved, on all members.
    pub fn reserved(&self) -> u64 {
        self.members.iter().map(|member| member.pool.reserved_cells()).sum()
    }

    /// Circuits in any state, on all ends.
    pub fn circuits(&self) -> usize {
        let at = |end: &End| end.lane.queue(|queue| queue.circuits()) + end.reader.as_ref().map_or(0, Reader::circuits);
        self.ends.iter().map(at).sum()
    }

    /// All circuits are over: nothing of them is kept, and all memory was given back.
    #[track_caller]
    pub fn assert_clean(&mut self) {
        self.edges.clear();
        assert_eq!((self.circuits(), self.reserved()), (0, 0), "circuits and cells that are left");
    }

    /// Nobody destroyed anything for a fault, no lane broke.
    #[track_caller]
    pub fn assert_peaceful(&self) {
        for (at, end) in self.ends.iter().enumerate() {
            assert_eq!((end.fault, &end.faults), (None, &BTreeMap::new()), "end {at}");
        }
    }
}

/// A frame's bytes, copied.
pub fn copy(frame: &FrameBuf) -> FrameBuf {
    let mut copy = FrameBuf::new();
    copy.bytes_mut().copy_from_slice(frame.bytes());
    copy
}

pub fn is_cell(frame: &Frame) -> bool {
    frame.len() == FRAME_BYTES && frame[4] == Code::Cell.code()
}
