//! Credit along a circuit (spec 06, 4): a client, relays and an exit, on real queues, readers, granters, pools and layers.
//!
//! Each lane is a wire in each direction that keeps the order and delivers whenever it likes; writers write and the exit's application
//! takes when it likes; circuits fall idle and their permission is asked back at any moment. Nobody may be sent more than was
//! permitted, no memory be promised twice, and whatever comes to rest must have delivered everything and be ready for more.
//!
//! None of the parts can be copied, so a state is the way to it, gone again for each step; two are the same if all their parts say the
//! same of themselves.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use port17_proto::circuit::depth::Depth;
use port17_proto::circuit::message::{Area, Junk};
use port17_proto::circuit::onion::{ForwardLayer, client_area, seal_message_forward};
use port17_proto::crypto::Secret;
use port17_proto::ids::CircuitId;
use port17_proto::lane::credit::{CreditError, Granter, Pool};
use port17_proto::lane::frame::{FrameBuf, Header, pairs};
use port17_proto::lane::queue::{LaneEnd, LaneQueue, Outgoing, Upstream};
use port17_proto::lane::reader::{Admission, Command, Event, Install, Port, Reader, Sink};
use port17_proto::limits::LANE_WRITE_FRAMES;
use port17_proto::wire::registry::{Command as Code, FRAME_BYTES, HEADER_BYTES, HopKind};
use stateright::{Model, Property};

use super::check;

/// Cells that the client's application has at a time: half of the first window, more than an idle one.
const HEAP_CELLS: u64 = 8;
const IDLE_MS: u64 = 5000;

// ---- Lanes ----

struct Parts {
    queue: RefCell<LaneQueue<Lane>>,
    commands: RefCell<Vec<Command<Lane>>>,
}

/// One end of a lane.
#[derive(Clone)]
struct Lane(Rc<Parts>);

impl PartialEq for Lane {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Port for Lane {
    type Sink = Edge;

    fn queue<R>(&self, work: impl FnOnce(&mut LaneQueue<Self>) -> R) -> R {
        work(&mut self.0.queue.borrow_mut())
    }

    fn command(&self, command: Command<Self>) {
        self.0.commands.borrow_mut().push(command);
    }
}

/// One end of a lane, what reads there, and what is on its way to it.
struct End {
    lane: Lane,
    reader: Reader<Lane>,
    wire: VecDeque<FrameBuf>,
}

impl End {
    fn new(end: LaneEnd, pool: &Arc<Pool>, growth_ms: u64) -> Self {
        let queue = RefCell::new(LaneQueue::new(end, growth_ms));
        let lane = Lane(Rc::new(Parts { queue, commands: RefCell::default() }));
        let mut reader = Reader::new(lane.clone(), Arc::clone(pool));
        let admission = Admission { circuits: 9, setups_per_second: 1000, setups_burst: 1000, breach_window_ms: 600_000 };
        reader.command(Command::Admit(admission), 0);
        Self { lane, reader, wire: VecDeque::new() }
    }
}

/// The exit's edge: cells that its application has not taken yet.
struct AtExit {
    granter: Granter,
    untaken: u64,
    arrived: u64,
}

struct Edge(Rc<RefCell<AtExit>>);

impl Sink for Edge {
    fn cell(&mut self, _: &Area) -> Result<(), Junk> {
        let exit = &mut *self.0.borrow_mut();
        exit.untaken += 1;
        exit.arrived += 1;
        Ok(())
    }

    fn flush(&mut self, _: u64) -> Result<(), Junk> {
        Ok(())
    }

    fn created(&mut self, _: &[u8]) {}

    fn limited(&mut self, limit: u64, now_ms: u64) -> Result<Option<u64>, CreditError> {
        self.0.borrow_mut().granter.limited(limit, now_ms)
    }

    fn closed(&mut self) {}
}

// ---- A circuit ----

/// A client, relays and an exit, and one circuit through all.
struct World {
    now_ms: u64,
    pools: Vec<Arc<Pool>>,
    /// Lane k is from node k to node k + 1: the ends at 2k and 2k + 1.
    ends: Vec<End>,
    circuit: CircuitId,
    exit: Rc<RefCell<AtExit>>,
    /// Cells that the client's application has handed over.
    handed: u64,
    /// The client's edge waits until the queue says that there is room.
    waits: bool,
    idled: u8,
    broken: bool,
}

impl World {
    fn new(plan: &Credit) -> Self {
        let pools: Vec<_> = (0..plan.nodes).map(|_| Pool::new(plan.pool_cells * FRAME_BYTES as u64)).collect();
        let ends = (0..plan.nodes - 1).flat_map(|lane| {
            let near = End::new(LaneEnd::Dialler, &pools[lane], plan.growth_ms);
            [near, End::new(LaneEnd::Acceptor, &pools[lane + 1], plan.growth_ms)]
        });
        let mut ends: Vec<End> = ends.collect();
        let circuit = ends[0].lane.queue(|queue| queue.open(None)).unwrap();
        let mut exit = None;
        for hop in 0..plan.nodes - 1 {
            let granter = set_up(&mut ends[2 * hop + 1], circuit);
            let (last, depth) = (hop + 2 == plan.nodes, Depth::new(u8::try_from(hop).unwrap()).unwrap());
            let kind = if last { HopKind::Exit } else { HopKind::Relay };
            let layer = ForwardLayer::hop(first_key(hop), Secret::new([99; 32]), depth, kind);
            let install = if last {
                let edge = Rc::new(RefCell::new(AtExit { granter, untaken: 0, arrived: 0 }));
                exit = Some(Rc::clone(&edge));
                Install::Exit { layer, sink: Edge(edge) }
            } else {
                let (from, to) = (ends[2 * hop + 1].lane.clone(), ends[2 * hop + 2].lane.clone());
                let upstream = Upstream { lane: from, circuit, granter };
                assert_eq!(to.queue(|queue| queue.open(Some(upstream))), Ok(circuit));
                Install::Forward { layer, to, circuit }
            };
            ends[2 * hop + 1].reader.command(Command::Install(circuit, install), 0);
        }
        Self { now_ms: 1, pools, ends, circuit, exit: exit.unwrap(), handed: 0, waits: false, idled: 0, broken: false }
    }

    fn act(&mut self, action: Action, cells: &[[u8; FRAME_BYTES]]) {
        match action {
            Action::Hand => self.hand(cells),
            Action::Write(end) => self.write(end),
            Action::Read(end) => self.read(end),
            Action::Take => self.take(),
            Action::Idle(node) => self.idle(node),
        }
        // What goes against the cells is credit alone, and that it comes late is up to the reader.
        (1..self.ends.len()).step_by(2).for_each(|end| self.write(end));
    }

    /// The client's edge asks for room and hands over what it has, as far as that goes.
    fn hand(&mut self, cells: &[[u8; FRAME_BYTES]]) {
        let (queue, circuit) = (self.ends[0].lane.clone(), self.circuit);
        if self.waits && queue.queue(|queue| queue.drain_roomy().next().is_none()) {
            return;
        }
        let room = queue.queue(|queue| queue.room(circuit)).unwrap();
        self.waits = room == 0;
        let count = room.min(HEAP_CELLS).min(cells.len() as u64 - self.handed);
        let from = usize::try_from(self.handed).unwrap();
        let cells = cells[from..].iter().take(usize::try_from(count).unwrap());
        let mut batch: Vec<_> = cells.map(|cell| Outgoing { circuit, frame: frame_of(cell) }).collect();
        queue.queue(|queue| queue.hand_over(&mut batch, &mut Vec::new()));
        self.handed += count;
    }

    /// The writer at an end puts all that may go onto the wire.
    fn write(&mut self, end: usize) {
        let (mut frames, mut due) = (Vec::new(), Vec::new());
        self.ends[end].lane.queue(|queue| queue.take(LANE_WRITE_FRAMES, self.now_ms, &mut frames, &mut due));
        due.iter().for_each(|due| due.lane.queue(|queue| queue.push_credit(due.circuit, due.permitted)));
        self.ends[end ^ 1].wire.extend(frames);
    }

    /// The reader at an end takes the frames of one kind that come next.
    fn read(&mut self, end: usize) {
        let End { reader, wire, .. } = &mut self.ends[end];
        let Some(kind) = wire.front().map(kind_of) else { return };
        while wire.front().is_some_and(|frame| kind_of(frame) == kind) {
            let mut frame = wire.pop_front().unwrap();
            self.broken |= reader.frame(frame.bytes_mut(), self.now_ms).is_err();
        }
        reader.end_batch(self.now_ms);
        self.broken |= !reader.take_faults().is_empty();
    }

    /// The exit's application takes all that is there.
    fn take(&mut self) {
        let exit = &mut *self.exit.borrow_mut();
        let cells = std::mem::take(&mut exit.untaken);
        if cells > 0
            && let Some(permitted) = exit.granter.drained(cells, self.now_ms)
        {
            self.ends.last().unwrap().lane.queue(|queue| queue.push_credit(self.circuit, permitted));
        }
    }

    /// A node asks back what it has permitted, as if nothing had moved there for long.
    fn idle(&mut self, node: usize) {
        self.idled += 1;
        self.now_ms += IDLE_MS;
        if node + 1 == self.pools.len() {
            if let Some(to) = self.exit.borrow_mut().granter.reclaim(self.now_ms, IDLE_MS) {
                self.ends.last().unwrap().lane.queue(|queue| queue.push_reclaim(self.circuit, to));
            }
            return;
        }
        let asked = self.ends[2 * node].lane.queue(|queue| queue.idle(self.now_ms, IDLE_MS));
        asked.iter().for_each(|due| due.lane.queue(|queue| queue.push_reclaim(due.circuit, due.permitted)));
    }

    // ---- What is to be seen ----

    /// All that decides what comes next.
    fn fingerprint(&self, budget: (u64, u8)) -> u64 {
        let mut hasher = DefaultHasher::new();
        let exit = self.exit.borrow();
        (budget, self.waits, self.broken, exit.untaken, exit.arrived).hash(&mut hasher);
        timeless(format!("{:?}", exit.granter)).hash(&mut hasher);
        for end in &self.ends {
            timeless(end.lane.queue(|queue| format!("{queue:?}"))).hash(&mut hasher);
            end.wire.iter().for_each(|frame| said(frame).hash(&mut hasher));
        }
        hasher.finish()
    }

    fn facts(&self) -> Facts {
        let exit = self.exit.borrow();
        let moves = self.ends.iter().any(|end| !end.wire.is_empty() || end.lane.queue(|queue| !queue.is_empty()));
        let rests = !moves && exit.untaken == 0;
        let room = self.ends[0].lane.queue(|queue| queue.room(self.circuit)).unwrap();
        let woken = !self.waits || self.ends[0].lane.queue(|queue| queue.drain_roomy().next().is_some());
        Facts {
            broken: self.broken,
            stuck: rests && (exit.arrived < self.handed || room == 0 || !woken),
            overcommitted: self.pools.iter().any(|pool| pool.reserved_cells() * FRAME_BYTES as u64 > pool.bytes()),
            forgotten: rests && self.handed == exit.arrived && self.pools[1..].iter().any(|pool| pool.reserved_cells() < 4),
            arrived: exit.arrived,
            idled: self.idled,
        }
    }
}

/// Without the times of grants: they only matter to windows that grow, and to who is idle, which the model decides.
fn timeless(shown: String) -> String {
    let mut parts = shown.split("_at_ms: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

/// A SETUP comes whole: what permits its cells.
fn set_up(end: &mut End, circuit: CircuitId) -> Granter {
    for part in 0..4 {
        let mut frame = FrameBuf::with_body(Header { part, ..Header::new(circuit, Code::Setup) }, &[]);
        end.reader.frame(frame.bytes_mut(), 0).unwrap();
    }
    let Some(Event::Setup { granter, .. }) = end.reader.drain_events().next() else { panic!("no SETUP") };
    granter
}

fn first_key(hop: usize) -> Secret<32> {
    Secret::new([u8::try_from(hop + 1).unwrap(); 32])
}

fn frame_of(bytes: &[u8; FRAME_BYTES]) -> FrameBuf {
    let mut frame = FrameBuf::new();
    frame.bytes_mut().copy_from_slice(bytes);
    frame
}

fn kind_of(frame: &FrameBuf) -> Code {
    Header::decode(frame.bytes()).unwrap().command
}

/// What a frame says: of cells, that it is one.
fn said(frame: &FrameBuf) -> (u8, Vec<(u32, u64)>) {
    let kind = kind_of(frame);
    let pairs = match kind {
        Code::Credit | Code::Reclaim | Code::Limit => {
            pairs(&frame.bytes()[HEADER_BYTES..]).unwrap().map(|(circuit, cells)| (circuit.0, cells)).collect()
        }
        Code::Padding | Code::Control | Code::Setup | Code::Created | Code::Cell | Code::Destroy => vec![],
    };
    (kind.code(), pairs)
}

// ---- The model ----

struct Credit {
    nodes: usize,
    pool_cells: u64,
    growth_ms: u64,
    /// How often permission is asked back, in all.
    idles: u8,
    /// The client's cells, sealed.
    cells: Vec<[u8; FRAME_BYTES]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Hand,
    Write(usize),
    Read(usize),
    Take,
    Idle(usize),
}

#[derive(Debug, Clone, Copy)]
struct Facts {
    /// Something went beyond what was permitted.
    broken: bool,
    /// Nothing moves, and not everything has arrived or nothing more could come.
    stuck: bool,
    /// More memory is promised than there is.
    overcommitted: bool,
    /// A circuit at rest has less than an idle one keeps.
    forgotten: bool,
    arrived: u64,
    idled: u8,
}

/// The way to a state. Two are the same if everything is.
#[derive(Clone)]
struct State {
    way: Vec<Action>,
    fingerprint: u64,
    facts: Facts,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.facts)
    }
}

impl Credit {
    fn new(nodes: usize, pool_cells: u64, cells: u64, idles: u8) -> Self {
        let depth = |hop| Depth::new(u8::try_from(hop).unwrap()).unwrap();
        let mut layers: Vec<_> = (0..nodes - 1).map(|hop| ForwardLayer::client(first_key(hop), depth(hop))).collect();
        let sealed = |_| {
            let mut frame = FrameBuf::new();
            frame.bytes_mut()[client_area(nodes - 2)].fill(0);
            seal_message_forward(&mut layers, 0, frame.bytes_mut()).unwrap();
            frame.set_header(Header::new(CircuitId(1), Code::Cell));
            *frame.bytes()
        };
        let cells = (0..cells).map(sealed).collect();
        Self { nodes, pool_cells, growth_ms: 0, idles, cells }
    }

    fn world(&self, way: &[Action]) -> World {
        let mut world = World::new(self);
        way.iter().for_each(|action| world.act(*action, &self.cells));
        world
    }

    fn state(&self, way: Vec<Action>) -> State {
        let world = self.world(&way);
        let left = self.cells.len() as u64 - world.handed;
        let (fingerprint, facts) = (world.fingerprint((left, world.idled)), world.facts());
        State { way, fingerprint, facts }
    }
}

impl Model for Credit {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.state(vec![])]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let ends = 2 * (self.nodes - 1);
        actions.extend([Action::Hand, Action::Take]);
        actions.extend((0..ends).map(Action::Read));
        actions.extend((0..ends).step_by(2).map(Action::Write));
        if state.facts.idled < self.idles {
            actions.extend((1..self.nodes).map(Action::Idle));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let state = self.state([&before.way[..], &[action]].concat());
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nobody goes beyond what is permitted", |_, state: &State| !state.facts.broken),
            Property::always("whatever rests has delivered everything and can go on", |_, state: &State| !state.facts.stuck),
            Property::always("memory is promised once", |_, state: &State| !state.facts.overcommitted),
            Property::always("a circuit keeps what an idle one keeps", |_, state: &State| !state.facts.forgotten),
            Property::sometimes("all arrives", |model: &Credit, state: &State| state.facts.arrived == model.cells.len() as u64),
        ]
    }
}

#[test]
fn a_relay_never_overruns_nor_stops_a_circuit() {
    check("credit, 3 nodes", Credit::new(3, 20, 20, 1));
}
