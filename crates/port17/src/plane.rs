//! What all lanes of one daemon share: memory, links, circuit keys, the workers that process SETUPs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, RwLock};

use port17_proto::circuit::keyring::{CircuitKey, CircuitKeyring, KeyId};
use port17_proto::circuit::setup::{AdmittedSetup, HopKeys, SetupError, SetupPacket};
use port17_proto::crypto::Entropy;
use port17_proto::ids::{CircuitId, NodeId};
use port17_proto::lane::credit::{Granter, Pool};
use port17_proto::lane::frame::{FrameBuf, Header};
use port17_proto::lane::queue::{Outgoing, Upstream};
use port17_proto::lane::reader::{CircuitFault, Command, Install, Port};
use port17_proto::limits::{FIRST_WINDOW_CELLS, SETUP_QUEUE};
use port17_proto::node::io::{Input, LaneId, Peer};
use port17_proto::params::Params;
use port17_proto::wire::registry::{Command as Code, SetupStatus};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::edge::{Edge, Opener, run_exit};
use crate::lane::{Carrier, Clock, Lane, LaneEvent, lock};

/// A lane that carries circuits, and whose it is.
#[derive(Clone)]
pub struct Carrying {
    /// The lane.
    pub lane: Lane,
    /// Its other end.
    pub peer: Peer,
    /// Circuits that the peer lets this side open on it.
    pub circuits: usize,
}

/// What a daemon's lanes share.
pub struct Plane {
    /// The data plane's clock.
    pub clock: Clock,
    /// Memory for cells.
    pub pool: Arc<Pool>,
    /// The network's parameters.
    pub params: Params,
    own: Option<NodeId>,
    keyring: Mutex<CircuitKeyring>,
    lanes: RwLock<HashMap<LaneId, Carrying>>,
    links: RwLock<BTreeMap<Peer, Vec<LaneId>>>,
    setups: Arc<SetupQueue>,
    exit: Option<Arc<dyn Opener>>,
    edges: Mutex<Vec<std::sync::Weak<Edge>>>,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    engine: mpsc::Sender<Input>,
}

impl Plane {
    /// The data plane of a node (`own`) or a client (none).
    pub fn new(
        own: Option<NodeId>,
        params: Params,
        pool: Arc<Pool>,
        keyring: CircuitKeyring,
        exit: Option<Arc<dyn Opener>>,
        engine: mpsc::Sender<Input>,
    ) -> Arc<Self> {
        Arc::new(Self {
            clock: Clock::start(),
            pool,
            params,
            own,
            keyring: Mutex::new(keyring),
            lanes: RwLock::default(),
            links: RwLock::default(),
            setups: Arc::new(SetupQueue::default()),
            exit,
            edges: Mutex::default(),
            faults: Mutex::default(),
            engine,
        })
    }

    /// How quickly half a window must drain to grow: the floor of every lane.
    pub fn growth_ms(&self) -> u64 {
        u64::try_from(self.params.window_growth_floor.as_millis()).unwrap_or(u64::MAX)
    }

    /// The wall clock in Unix seconds.
    pub fn unix_seconds() -> u64 {
        unix_ms() / 1000
    }

    /// The lane carries circuits from now on.
    pub fn admit(&self, id: LaneId, carrying: Carrying) {
        write(&self.lanes).insert(id, carrying);
    }

    /// A link has these lanes now.
    pub fn set_link(&self, peer: Peer, lanes: Vec<LaneId>) {
        let mut links = write(&self.links);
        if lanes.is_empty() {
            links.remove(&peer);
        } else {
            links.insert(peer, lanes);
        }
    }

    /// The lane is gone.
    pub fn remove_lane(&self, id: LaneId) {
        write(&self.lanes).remove(&id);
    }

    /// The lane of a link with the fewest circuits, none when the link is down.
    pub fn lane_to(&self, node: NodeId) -> Option<Carrying> {
        let links = read(&self.links);
        let lanes = read(&self.lanes);
        let usable = links.get(&Peer::Node(node))?.iter().filter_map(|id| lanes.get(id));
        // A lane that has just gone has the fewest circuits of all.
        let usable = usable.filter(|carrying| carrying.lane.queue(|queue| !queue.is_closed()));
        let load = |carrying: &&Carrying| carrying.lane.queue(|queue| queue.circuits());
        usable.min_by_key(load).cloned()
    }

    /// Circuits on all lanes.
    pub fn circuits(&self) -> usize {
        read(&self.lanes).values().map(|carrying| carrying.lane.queue(|queue| queue.circuits())).sum()
    }

    /// Takes a new circuit key into use.
    pub fn hold_key(&self, key: Arc<CircuitKey>) {
        lock(&self.keyring).hold(key);
    }

    /// Erases a circuit key and its replay cache.
    pub fn erase_key(&self, key: KeyId) {
        lock(&self.keyring).erase(key);
    }

    /// What was refused or destroyed, by reason.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.faults).clone()
    }

    /// Counts a reason.
    pub fn count(&self, what: &'static str, times: u64) {
        *lock(&self.faults).entry(what).or_default() += times;
    }

    /// Remembers an edge for [`Self::sweep`].
    pub fn watch(&self, edge: &Arc<Edge>) {
        lock(&self.edges).push(Arc::downgrade(edge));
    }

    /// What is done about once a second: idle memory is asked back, circuits that end without credit are ended.
    pub fn sweep(&self) {
        let idle_ms = u64::try_from(self.params.idle_reclaim.as_millis()).unwrap_or(u64::MAX);
        let now_ms = self.clock.now_ms();
        let lanes: Vec<_> = read(&self.lanes).values().map(|carrying| carrying.lane.clone()).collect();
        for lane in lanes {
            let asked = lane.queue(|queue| {
                queue.sweep(now_ms, idle_ms);
                queue.idle(now_ms, idle_ms)
            });
            for due in asked {
                due.lane.queue(|queue| queue.push_reclaim(due.circuit, due.permitted));
            }
        }
        let edges = {
            let mut edges = lock(&self.edges);
            edges.retain(|edge| edge.upgrade().is_some_and(|edge| !edge.is_over()));
            edges.clone()
        };
        edges.iter().filter_map(std::sync::Weak::upgrade).for_each(|edge| edge.sweep(idle_ms));
    }

    /// Starts the threads that do public-key work; they end with [`Self::stop`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start_workers(self: &Arc<Self>, runtime: &Handle, entropy: &mut Entropy) -> std::io::Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            let (plane, runtime, entropy) = (Arc::clone(self), runtime.clone(), entropy.fork());
            let work = move || Worker { plane, runtime, entropy }.run();
            std::thread::Builder::new().name("port17-setup".into()).spawn(work)?;
        }
        Ok(())
    }

    /// Ends the workers.
    pub fn stop(&self) {
        self.setups.stop();
    }
}

/// The wall clock in Unix milliseconds.
pub fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Carrier for Plane {
    async fn event(&self, lane: &Lane, event: LaneEvent) {
        let lane = lane.id();
        let input = match event {
            LaneEvent::Control { urgent, message } => Input::Control { lane, urgent, message },
            LaneEvent::Violation(what) => {
                self.count(what, 1);
                Input::Violation { lane, what }
            }
            LaneEvent::Down(why) => {
                self.remove_lane(lane);
                Input::LaneDown { lane, why }
            }
        };
        // The engine ends only with the daemon; then nobody needs to know.
        let _ = self.engine.send(input).await;
    }

    fn setup(&self, lane: &Lane, circuit: CircuitId, packet: SetupPacket, granter: Granter) {
        let job = Job { lane: lane.clone(), circuit, packet, granter };
        if let Err(job) = self.setups.push(job) {
            self.count("setup-queue-full", 1);
            refuse(&job.lane, job.circuit);
        }
    }

    fn faults(&self, faults: BTreeMap<CircuitFault, u64>) {
        for (fault, times) in faults {
            self.count(fault.name(), times);
        }
    }
}

/// Ends a circuit whose SETUP cannot be processed: DESTROY and nothing else (spec 06, 1).
fn refuse(lane: &Lane, circuit: CircuitId) {
    lane.queue(|queue| queue.destroy(circuit, false));
    lane.command(Command::Over(circuit));
}

// ---- The workers ----

struct Job {
    lane: Lane,
    circuit: CircuitId,
    packet: SetupPacket,
    granter: Granter,
}

/// SETUPs that wait, in turns by the lane they came on, so that one peer cannot take all the workers.
#[derive(Default)]
struct SetupQueue {
    waiting: Mutex<SetupsWaiting>,
    more: Condvar,
}

#[derive(Default)]
struct SetupsWaiting {
    by_lane: BTreeMap<LaneId, VecDeque<Job>>,
    round: VecDeque<LaneId>,
    jobs: usize,
    stopped: bool,
}

impl SetupQueue {
    fn push(&self, job: Job) -> Result<(), Box<Job>> {
        let mut waiting = lock(&self.waiting);
        let lane = job.lane.id();
        let own = waiting.by_lane.get(&lane).map_or(0, VecDeque::len);
        // spec 06, 1: no incoming link gets more than a quarter.
        if waiting.jobs >= SETUP_QUEUE || own >= SETUP_QUEUE / 4 || waiting.stopped {
            return Err(Box::new(job));
        }
        waiting.jobs += 1;
        if own == 0 {
            waiting.round.push_back(lane);
        }
        waiting.by_lane.entry(lane).or_default().push_back(job);
        drop(waiting);
        self.more.notify_one();
        Ok(())
    }

    fn pop(&self) -> Option<Job> {
        let mut waiting = lock(&self.waiting);
        loop {
            if waiting.stopped {
                return None;
            }
            if let Some(lane) = waiting.round.pop_front() {
                let jobs = waiting.by_lane.get_mut(&lane)?;
                let job = jobs.pop_front()?;
                if jobs.is_empty() {
                    waiting.by_lane.remove(&lane);
                } else {
                    waiting.round.push_back(lane);
                }
                waiting.jobs -= 1;
                return Some(job);
            }
            waiting = self.more.wait(waiting).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        let mut waiting = lock(&self.waiting);
        *waiting = SetupsWaiting { stopped: true, ..SetupsWaiting::default() };
        drop(waiting);
        self.more.notify_all();
    }
}

struct Worker {
    plane: Arc<Plane>,
    runtime: Handle,
    entropy: Entropy,
}

impl Worker {
    fn run(mut self) {
        while let Some(job) = self.plane.setups.pop() {
            self.process(job);
        }
    }

    fn process(&mut self, job: Job) {
        let Job { lane, circuit, packet, granter } = job;
        if !lane.queue(|queue| queue.is_open(circuit)) {
            // It has ended while it waited, perhaps with its lane: no work for nobody.
            return;
        }
        let made = self.open(packet).and_then(|mut admitted| {
            let packet = admitted.forward_packet.take();
            let next = admitted.info.next;
            admitted.answer(&mut self.entropy).map(|keys| (keys, packet.map(|packet| (next, packet))))
        });
        match made {
            Ok((keys, Some((next, packet)))) => self.relay(&lane, circuit, granter, keys, next, &packet),
            Ok((keys, None)) => self.exit(&lane, circuit, granter, keys),
            Err(error) => {
                self.plane.count(setup_error(error), 1);
                refuse(&lane, circuit);
            }
        }
    }

    fn open(&self, packet: SetupPacket) -> Result<AdmittedSetup, SetupError> {
        let own = self.plane.own.ok_or(SetupError::UnknownKey)?;
        let now = Plane::unix_seconds();
        let key = lock(&self.plane.keyring).find(packet.key_id(), now).cloned().ok_or(SetupError::UnknownKey)?;
        let opened = packet.open(own, &key)?;
        opened.admit(&mut lock(&self.plane.keyring), now)
    }

    /// Answers with a status that is not OK, then ends the circuit (spec 06, 1).
    fn decline(&self, lane: &Lane, circuit: CircuitId, keys: HopKeys, status: SetupStatus) {
        let body = keys.created.answer(status);
        send_created(lane, circuit, &body[..]);
        lane.queue(|queue| queue.destroy(circuit, true));
        lane.command(Command::Over(circuit));
        self.plane.count(declined(status), 1);
    }

    fn relay(&self, lane: &Lane, circuit: CircuitId, granter: Granter, keys: HopKeys, next: NodeId, packet: &SetupPacket) {
        let came_from = read(&self.plane.lanes).get(&lane.id()).map(|carrying| carrying.peer);
        // law 1: only over a link that exists; never back.
        let onward = self.plane.lane_to(next).filter(|_| came_from != Some(Peer::Node(next)));
        let Some(onward) = onward else { return self.decline(lane, circuit, keys, SetupStatus::NotConnected) };
        let busy = onward.lane.queue(|queue| queue.circuits()) >= onward.circuits;
        let reservation = (!busy).then(|| self.plane.pool.reserve(FIRST_WINDOW_CELLS)).flatten();
        let Some(reservation) = reservation else { return self.decline(lane, circuit, keys, SetupStatus::Overload) };
        let backward = Granter::new(reservation, self.plane.clock.now_ms());
        let permitted = backward.permitted();
        let upstream = Upstream { lane: lane.clone(), circuit, granter };
        let opened = onward.lane.queue(|queue| queue.open(Some(upstream)));
        let Ok(there) = opened else { return self.decline(lane, circuit, keys, SetupStatus::Overload) };
        lane.queue(|queue| {
            queue.set_upstream(circuit, Upstream { lane: onward.lane.clone(), circuit: there, granter: backward })
        });
        let HopKeys { forward, backward, created } = keys;
        let back = Install::Backward { layer: backward, created, to: lane.clone(), circuit, permitted };
        onward.lane.command(Command::Install(there, back));
        send_setup(&onward.lane, there, packet);
        lane.command(Command::Install(circuit, Install::Forward { layer: forward, to: onward.lane, circuit: there }));
    }

    fn exit(&self, lane: &Lane, circuit: CircuitId, granter: Granter, keys: HopKeys) {
        let Some(opener) = &self.plane.exit else { return self.decline(lane, circuit, keys, SetupStatus::Policy) };
        let growth_ms = self.plane.growth_ms();
        let edge = Edge::new(lane.clone(), circuit, self.plane.clock, granter, growth_ms, Some(Arc::clone(opener)));
        let HopKeys { forward, backward, created } = keys;
        let body = created.answer(SetupStatus::Ok);
        send_created(lane, circuit, &body[..]);
        lane.command(Command::Install(circuit, Install::Exit { layer: forward, sink: edge.sink() }));
        self.plane.watch(&edge);
        self.runtime.spawn(run_exit(edge, backward));
    }
}

fn send_created(lane: &Lane, circuit: CircuitId, body: &[u8]) {
    let frame = FrameBuf::with_body(Header::new(circuit, Code::Created), body);
    lane.queue(|queue| queue.hand_over(&mut vec![Outgoing { circuit, frame }], &mut Vec::new()));
}

/// Queues the four parts of a SETUP, together.
pub fn send_setup(lane: &Lane, circuit: CircuitId, packet: &SetupPacket) {
    let depth = packet.depth().code();
    let part = |(part, body): (u8, &[u8])| {
        let header = Header { depth, part, ..Header::new(circuit, Code::Setup) };
        Outgoing { circuit, frame: FrameBuf::with_body(header, body) }
    };
    let mut parts: Vec<_> = (0..).zip(packet.parts()).map(part).collect();
    lane.queue(|queue| queue.hand_over(&mut parts, &mut Vec::new()));
}

fn declined(status: SetupStatus) -> &'static str {
    match status {
        SetupStatus::Ok => "setup-ok",
        SetupStatus::NextRefused => "setup-next-refused",
        SetupStatus::NotConnected => "setup-not-connected",
        SetupStatus::Overload => "setup-overload",
        SetupStatus::Policy => "setup-policy",
    }
}

fn setup_error(error: SetupError) -> &'static str {
    match error {
        SetupError::Parts => "setup-parts",
        SetupError::Depth => "setup-depth",
        SetupError::UnknownKey => "setup-unknown-key",
        SetupError::Crypto(_) => "setup-not-authentic",
        SetupError::Replay(_) => "setup-replay-or-slot",
        SetupError::Unsupported => "setup-unsupported",
        SetupError::Padding => "setup-padding",
    }
}
