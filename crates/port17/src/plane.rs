//! What all lanes of one daemon share: memory, links, circuit keys, the workers that process SETUPs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, RwLock, Weak};

use ipnet::IpNet;

use port17_proto::circuit::hop::{self, Decision, Exit, Hop, Now, Onward, Setup};
use port17_proto::circuit::keyring::{CircuitKey, CircuitKeyring, KeyId};
use port17_proto::circuit::mux::StreamRules;
use port17_proto::circuit::setup::{SetupError, SetupPacket};
use port17_proto::crypto::Entropy;
use port17_proto::ids::{CircuitId, NodeId};
use port17_proto::lane::credit::{Granter, Pool};
use port17_proto::lane::reader::{CircuitFault, Port};
use port17_proto::limits::SETUP_QUEUE;
use port17_proto::node::io::{Input, LaneId, Peer};
use port17_proto::params::Params;
use port17_proto::planted::planted;
use port17_proto::wire::registry::SetupStatus;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::edge::{Edge, Opener, run_exit};
use crate::lane::{Carrier, Clock, Lane, LaneEvent, lock};
use crate::objects::Objects;
use crate::planted;

/// A lane that carries circuits, and whose it is.
#[derive(Clone)]
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

/// What a daemon's lanes share.
pub struct Plane {
    /// The data plane's clock.
    pub clock: Clock,
    /// Memory for cells.
    pub pool: Arc<Pool>,
    /// The share of it that all clients together have.
    clients: Arc<Pool>,
    /// The shares of the networks that clients come from (/24, v6 /48).
    prefixes: Mutex<BTreeMap<IpNet, Weak<Pool>>>,
    /// The network's parameters.
    pub params: Params,
    /// Counts lanes and what begins or ends on them.
    pub objects: Objects,
    own: Option<NodeId>,
    keyring: Mutex<CircuitKeyring>,
    lanes: RwLock<HashMap<LaneId, Carrying>>,
    links: RwLock<BTreeMap<Peer, Vec<LaneId>>>,
    setups: Arc<SetupQueue>,
    exit: Option<Arc<dyn Opener>>,
    edges: Mutex<Vec<Weak<Edge>>>,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    engine: mpsc::Sender<Input>,
}

impl Plane {
    /// The data plane of a node (`own`) or a client (none).
    pub fn new(
        clock: Clock,
        own: Option<NodeId>,
        params: Params,
        pool: Arc<Pool>,
        keyring: CircuitKeyring,
        exit: Option<Arc<dyn Opener>>,
        engine: mpsc::Sender<Input>,
    ) -> Arc<Self> {
        Arc::new(Self {
            clock,
            clients: Pool::within(&pool, percent(pool.bytes(), params.pool_clients_percent)),
            prefixes: Mutex::default(),
            pool,
            params,
            objects: Objects::default(),
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

    /// What the network says about streams.
    pub fn stream_rules(&self) -> StreamRules {
        StreamRules::from(&self.params)
    }

    /// The share of memory of a peer at this address: a node's is all, clients have one together and one a network.
    pub fn share(&self, peer: Peer, address: IpAddr) -> Arc<Pool> {
        if matches!(peer, Peer::Node(_)) {
            return Arc::clone(&self.pool);
        }
        let address = address.to_canonical();
        let Ok(prefix) = IpNet::new(address, if address.is_ipv4() { 24 } else { 48 }) else { return Arc::clone(&self.clients) };
        let mut prefixes = lock(&self.prefixes);
        prefixes.retain(|_, share| share.strong_count() > 0);
        let share = prefixes.entry(prefix.trunc()).or_default();
        share.upgrade().unwrap_or_else(|| {
            let made = Pool::within(&self.clients, percent(self.pool.bytes(), self.params.pool_prefix_percent));
            *share = Arc::downgrade(&made);
            made
        })
    }

    /// The wall clock in Unix seconds.
    pub fn unix_seconds() -> u64 {
        unix_ms() / 1000
    }

    /// The lane carries circuits from now on.
    pub fn admit(&self, id: LaneId, carrying: Carrying) {
        write(&self.lanes).insert(id, carrying);
    }

    /// A link has these lanes now; gives whether it had any before.
    pub fn set_link(&self, peer: Peer, lanes: Vec<LaneId>) -> bool {
        let mut links = write(&self.links);
        let before = if lanes.is_empty() { links.remove(&peer) } else { links.insert(peer, lanes) };
        before.is_some()
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

    /// Streams of circuits that begin or end here, over the link to this node.
    pub fn streams_over(&self, node: NodeId) -> usize {
        let lanes = read(&self.links).get(&Peer::Node(node)).cloned().unwrap_or_default();
        let edges = lock(&self.edges).clone();
        let over = edges.iter().filter_map(Weak::upgrade).filter(|edge| lanes.contains(&edge.lane_id()));
        over.map(|edge| edge.streams()).sum()
    }

    /// SETUPs that wait for a worker.
    pub fn setups_waiting(&self) -> usize {
        lock(&self.setups.waiting).jobs
    }

    /// Inputs that wait for the engine.
    pub fn inputs_waiting(&self) -> usize {
        self.engine.max_capacity() - self.engine.capacity()
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
        edges.iter().filter_map(Weak::upgrade).for_each(|edge| edge.sweep(idle_ms));
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

fn percent(of: u64, percent: u32) -> u64 {
    of / 100 * u64::from(percent)
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
            hop::refuse(&job.lane, job.circuit);
        }
    }

    fn faults(&self, faults: BTreeMap<CircuitFault, u64>) {
        for (fault, times) in faults {
            self.count(fault.name(), times);
        }
    }
}

impl Hop<Lane> for Plane {
    fn own(&self) -> Option<NodeId> {
        self.own
    }

    fn keyring<R>(&self, work: impl FnOnce(&mut CircuitKeyring) -> R) -> R {
        work(&mut lock(&self.keyring))
    }

    fn came_from(&self, lane: &Lane) -> Option<NodeId> {
        read(&self.lanes).get(&lane.id())?.peer.node()
    }

    fn onward(&self, next: NodeId) -> Option<Onward<Lane>> {
        if planted("leak-lane-for-setup") {
            planted::knock_at(&next);
        }
        self.lane_to(next).map(|Carrying { lane, circuits, .. }| Onward { lane, circuits })
    }

    fn pool(&self, lane: &Lane) -> Arc<Pool> {
        let share = read(&self.lanes).get(&lane.id()).map(|carrying| Arc::clone(&carrying.pool));
        share.unwrap_or_else(|| Arc::clone(&self.pool))
    }

    fn is_exit(&self) -> bool {
        self.exit.is_some()
    }
}

// ---- The workers ----

type Job = Setup<Lane>;

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
        if !job.lane.queue(|queue| queue.is_open(job.circuit)) {
            // It has ended while it waited, perhaps with its lane: no work for nobody.
            return;
        }
        let now = Now { unix_seconds: Plane::unix_seconds(), ms: self.plane.clock.now_ms() };
        match hop::process(&*self.plane, job, now, &mut self.entropy) {
            Decision::Relayed => {}
            Decision::Exit(exit) => self.exit(*exit),
            Decision::Declined(status) => self.plane.count(declined(status), 1),
            Decision::Refused(error) => self.plane.count(setup_error(error), 1),
        }
    }

    fn exit(&self, exit: Exit<Lane>) {
        let Exit { lane, circuit, granter, keys } = exit;
        let edge =
            Edge::new(lane.clone(), circuit, self.plane.clock, granter, self.plane.stream_rules(), self.plane.exit.clone());
        let backward = hop::serve(&lane, circuit, keys, edge.sink());
        self.plane.watch(&edge);
        self.runtime.spawn(run_exit(edge, backward));
    }
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

#[cfg(test)]
mod tests {
    use port17_proto::crypto::KemBackend;
    use port17_proto::wire::message::LinkId;

    use super::*;

    #[test]
    fn clients_share_memory_by_network_and_never_have_all_of_it() {
        let (engine, _inputs) = mpsc::channel(1);
        let keyring = CircuitKeyring::new(KemBackend::AwsLc, 1, 1);
        let plane = Plane::new(Clock::start(), None, Params::DEFAULT, Pool::new(1 << 30), keyring, None, engine);
        let client = |number: u8, ip: &str| plane.share(Peer::Client(LinkId([number; 16])), ip.parse().unwrap());
        let node = plane.share(Peer::Node(NodeId([0; 32])), "192.0.2.1".parse().unwrap());
        assert!(Arc::ptr_eq(&node, &plane.pool));

        let (a, b, far) = (client(1, "192.0.2.1"), client(2, "192.0.2.200"), client(3, "198.51.100.1"));
        assert!(Arc::ptr_eq(&a, &b) && !Arc::ptr_eq(&a, &far), "one share for each /24");
        assert!(
            Arc::ptr_eq(&a, &client(4, "::ffff:192.0.2.9"))
                && Arc::ptr_eq(&client(5, "2001:db8::1"), &client(6, "2001:db8:0:9::"))
        );
        let five_percent = plane.pool.bytes() / 100 * 5;
        assert!(a.bytes() <= five_percent && a.bytes() > five_percent - 4096);
        let held = a.reserve(FIRST_WINDOW);
        assert_eq!((plane.clients.reserved_cells(), plane.pool.reserved_cells()), (FIRST_WINDOW, FIRST_WINDOW));
        drop((a, b, held));
        assert_eq!(plane.pool.reserved_cells(), 0);
    }

    const FIRST_WINDOW: u64 = port17_proto::limits::FIRST_WINDOW_CELLS;
}
