//! All machines and the network between them, in virtual time.
//!
//! An event is taken from the heap; then everything that follows from it without time passing: inputs of engines, ends of lanes,
//! edges of circuits. One seed gives one run.

mod carry;
mod measure;
mod streams;
mod wires;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use port17_proto::circuit::hop::Setup;
use port17_proto::circuit::replay::Stamp;
use port17_proto::crypto::{Entropy, SigningKey};
use port17_proto::lane::frame::FrameBuf;
use port17_proto::network::{Definition, ListContent, Roots, SignedList};
use port17_proto::node::io::{DialFailure, DialId, Input, LaneLoss, ShownKey};
use port17_proto::node::{Node, Shelf};
use port17_proto::params::Params;
use port17_proto::timers::Time;
use port17_proto::wire::registry::FRAME_BYTES;

use crate::edge::EdgeRef;
use crate::geography::{CITIES, latency_us};
use crate::host::{Host, Kind};
use crate::judge::{CreditView, Findings, Signatures};
use crate::lane::{Agenda, End, EndId, Lane, Parcel};
use crate::liar::Liar;
use crate::plane;
use crate::report::Record;
use crate::scenario::{Scenario, ScenarioError};
use crate::trace::Trace;

/// The wall clock at the start, Unix milliseconds: a slot of SETUPs ends seven minutes later.
pub const START_UNIX_MS: u64 = 1_800_000_480_000;

/// Something that is to happen.
pub(crate) enum Event {
    /// An engine's deadline.
    Wake { host: usize, life: u64 },
    /// An input for an engine, whatever became of it since.
    Input { host: usize, life: u64, input: Box<Input> },
    /// A connection is made, or is not.
    Connect { host: usize, life: u64, dial: DialId, to: Result<usize, DialFailure>, show: ShownKey },
    /// What a wire carries has arrived.
    Arrive { end: EndId, parcel: Parcel },
    /// The lane is up at who accepted it.
    Accepted { end: EndId },
    /// A SETUP's public-key work is done.
    SetUp { host: usize, life: u64, setup: Box<Setup<Lane>> },
    /// Once a second, while a host has circuits.
    Sweep { host: usize, life: u64 },
    /// A disk has caught up.
    Written { host: usize },
    /// A client looks at its streams and circuits.
    Look { host: usize },
    /// A circuit that has not opened is given up.
    CircuitLate { host: usize, edge: EdgeRef },
    /// Part of the run's script: a fault, a stream, a liar's turn.
    Script(Box<dyn FnOnce(&mut World)>),
}

struct Due {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// Everything.
pub struct World {
    /// What the run is about.
    pub scenario: Scenario,
    /// The network's parameters.
    pub params: Params,
    /// Virtual time, in microseconds.
    pub now_us: u64,
    /// The machines.
    pub hosts: Vec<Host>,
    /// The ends of all lanes that there ever were.
    pub ends: Vec<End>,
    /// What was found.
    pub findings: Rc<Findings>,
    /// The run in one number.
    pub trace: Trace,
    /// Liars, by host.
    pub liars: BTreeMap<usize, Liar>,
    /// From whom to whom nothing goes.
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    /// Hosts whose lanes are clogged.
    pub(crate) clogged: BTreeSet<EndId>,
    /// Faults are over: every stream that is asked for now must succeed.
    pub(crate) is_quiet: bool,
    /// The nodes that the list names.
    pub(crate) founders: Vec<usize>,
    pub(crate) last_message: Option<(u8, usize)>,
    /// Nodes whose Bottles come from clients alone: nobody may hold them.
    pub(crate) forbidden: BTreeSet<port17_proto::ids::NodeId>,
    pub(crate) network: Definition,
    pub(crate) list: Option<Vec<u8>>,
    pub(crate) list_seq: u64,
    /// What is drawn for the network between the hosts and for the script.
    pub(crate) entropy: Entropy,
    pub(crate) signatures: Signatures,
    pub(crate) streams_made: u64,
    /// SETUPs that nodes have taken, by host and life: none twice.
    pub(crate) stamps: BTreeSet<(usize, u64, [u8; 16])>,
    /// SETUPs of clients that their guards have passed on, by the guard's end.
    pub(crate) relayed: BTreeSet<(EndId, port17_proto::ids::CircuitId)>,
    pub(crate) delivered: u64,
    /// What figures need and nobody could say at the end.
    pub(crate) record: Record,
    heap: BinaryHeap<Reverse<Due>>,
    made: u64,
    by_address: BTreeMap<SocketAddr, usize>,
    agenda: Rc<Agenda>,
    pub(crate) credit: Vec<CreditView>,
    inputs: VecDeque<(usize, Input)>,
    looks: BTreeSet<usize>,
    root: SigningKey,
    lanes_made: u64,
    shelf: Shelf,
    latencies: Vec<Vec<u64>>,
    /// Frames that were read, to be written again.
    read_frames: Vec<FrameBuf>,
}

impl World {
    /// Nobody yet. Everything drawn follows from `seed`.
    ///
    /// # Errors
    /// When the scenario makes no mesh.
    pub fn new(scenario: Scenario, seed: u64) -> Result<Self, ScenarioError> {
        scenario.check()?;
        let params = scenario.params()?;
        let mut entropy = Entropy::from_number(seed);
        let root = SigningKey::generate(&mut entropy);
        let roots = Roots::new(1, vec![root.public()]).map_err(|_| ScenarioError::Size("roots"))?;
        let network = Definition::new("simulated", roots).map_err(|_| ScenarioError::Size("network"))?;
        let latencies = CITIES.iter().map(|one| CITIES.iter().map(|other| latency_us(one, other)).collect()).collect();
        Ok(Self {
            scenario,
            params,
            now_us: 0,
            hosts: Vec::new(),
            ends: Vec::new(),
            findings: Rc::default(),
            trace: Trace::new(seed),
            liars: BTreeMap::new(),
            cuts: BTreeSet::new(),
            clogged: BTreeSet::new(),
            is_quiet: false,
            founders: Vec::new(),
            last_message: None,
            forbidden: BTreeSet::new(),
            network,
            list: None,
            list_seq: 0,
            entropy,
            signatures: Signatures::default(),
            streams_made: 0,
            stamps: BTreeSet::new(),
            relayed: BTreeSet::new(),
            delivered: 0,
            record: Record::default(),
            heap: BinaryHeap::new(),
            made: 0,
            by_address: BTreeMap::new(),
            agenda: Rc::default(),
            credit: Vec::new(),
            inputs: VecDeque::new(),
            looks: BTreeSet::new(),
            root,
            lanes_made: 0,
            shelf: Shelf::shared(),
            latencies,
            read_frames: Vec::new(),
        })
    }

    // ---- Time ----

    /// A moment as a host sees it.
    pub fn time(&self, host: usize) -> Time {
        let it = &self.hosts[host];
        let unix_ms = (START_UNIX_MS + self.now_us / 1000).saturating_add_signed(it.clock_error_ms);
        Time { mono: Duration::from_micros(self.now_us - it.started_us), unix_ms }
    }

    pub(crate) fn now_ms(&self, host: usize) -> u64 {
        (self.now_us - self.hosts[host].started_us) / 1000
    }

    pub(crate) fn at(&mut self, at_us: u64, event: Event) {
        self.made += 1;
        self.heap.push(Reverse(Due { at_us: at_us.max(self.now_us), number: self.made, event }));
    }

    pub(crate) fn after(&mut self, us: u64, event: Event) {
        self.at(self.now_us + us, event);
    }

    /// Part of the run's script.
    pub fn script(&mut self, at_us: u64, work: impl FnOnce(&mut Self) + 'static) {
        self.at(at_us, Event::Script(Box::new(work)));
    }

    /// Runs until this time.
    pub fn run_until(&mut self, end_us: u64) {
        while let Some(Reverse(due)) = self.heap.peek() {
            if due.at_us > end_us {
                break;
            }
            let Some(Reverse(due)) = self.heap.pop() else { break };
            self.now_us = due.at_us;
            self.findings.set_now(self.now_us);
            self.happen(due.event);
            self.settle();
        }
        self.now_us = end_us;
        self.findings.set_now(self.now_us);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { host, life } => self.wake(host, life),
            Event::Input { host, life, input } if self.hosts[host].life == life => self.inputs.push_back((host, *input)),
            Event::Connect { host, life, dial, to, show } if self.hosts[host].life == life => self.connect(host, dial, to, show),
            Event::Arrive { end, parcel } => self.arrive(end, parcel),
            Event::Accepted { end } => self.accepted(end),
            Event::SetUp { host, life, setup } if self.hosts[host].life == life => self.set_up(host, *setup),
            Event::Sweep { host, life } if self.hosts[host].life == life => self.sweep(host),
            Event::Written { host } => self.written(host),
            Event::Look { host } => drop(self.looks.insert(host)),
            Event::CircuitLate { host, edge } => self.circuit_late(host, &edge),
            Event::Script(work) => {
                self.trace.note(1, self.now_us, 0, 0);
                work(self);
            }
            // Of a process that has ended.
            Event::Input { .. } | Event::Connect { .. } | Event::SetUp { .. } | Event::Sweep { .. } => {}
        }
    }

    /// Everything that follows without time passing.
    fn settle(&mut self) {
        loop {
            if let Some((host, input)) = self.inputs.pop_front() {
                self.input(host, input);
            } else if let Some(end) = self.agenda.next_end() {
                self.turn(end);
            } else if let Some(edge) = self.agenda.next_edge() {
                self.work(&edge);
            } else if let Some(host) = self.looks.pop_first() {
                self.look(host);
            } else {
                return;
            }
        }
    }

    fn wake(&mut self, host: usize, life: u64) {
        let it = &mut self.hosts[host];
        if it.life != life || it.wake_us != Some(self.now_us) {
            return;
        }
        it.wake_us = None;
        match it.deadline_us {
            Some(at) if at > self.now_us => self.plan_wake(host),
            Some(_) => self.inputs.push_back((host, Input::Tick)),
            None => {}
        }
    }

    pub(crate) fn plan_wake(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        let Some(at) = it.deadline_us else { return };
        let at = at.max(self.now_us);
        if it.wake_us.is_none_or(|planned| planned > at) {
            it.wake_us = Some(at);
            let life = it.life;
            self.at(at, Event::Wake { host, life });
        }
    }

    fn sweep(&mut self, host: usize) {
        const SECOND_US: u64 = 1_000_000;
        self.hosts[host].sweep_is_planned = false;
        if self.hosts[host].node.is_none() {
            return;
        }
        let (now_ms, idle_ms) = (self.now_ms(host), u64::try_from(self.params.idle_reclaim.as_millis()).unwrap_or(u64::MAX));
        let shared = Rc::clone(&self.hosts[host].plane);
        if !self.hosts[host].is_frozen {
            plane::sweep(&mut shared.borrow_mut(), now_ms, idle_ms);
        }
        self.judge_memory(host);
        let lanes: Vec<EndId> = self.hosts[host].lanes.values().copied().collect();
        lanes.into_iter().for_each(|end| self.ends[end].edges.retain(|_, edge| !edge.borrow().is_over));
        if plane::is_busy(&shared.borrow()) {
            self.plan_sweep(host, SECOND_US);
        }
    }

    pub(crate) fn plan_sweep(&mut self, host: usize, after_us: u64) {
        let it = &mut self.hosts[host];
        if !std::mem::replace(&mut it.sweep_is_planned, true) {
            let life = it.life;
            self.after(after_us, Event::Sweep { host, life });
        }
    }

    fn written(&mut self, host: usize) {
        const AGAIN_US: u64 = 1_000_000;
        if !self.hosts[host].disk.write() {
            self.after(AGAIN_US, Event::Written { host });
        }
    }

    // ---- Machines ----

    /// Adds a machine, and starts it.
    pub fn add(&mut self, kind: Kind, prepare: impl FnOnce(&mut Host)) -> usize {
        let place = self.hosts.len();
        let seed = u64::from_be_bytes(self.entropy.bytes());
        let mut host = Host::new(kind, place, seed, &self.params);
        let all: u64 = CITIES.iter().map(|city| city.weight).sum();
        let mut draw = self.entropy.below(all);
        host.city = CITIES
            .iter()
            .position(|city| {
                let here = draw < city.weight;
                draw = draw.saturating_sub(city.weight);
                here
            })
            .unwrap_or(0);
        host.disk.is_idle = !self.scenario.restarts();
        prepare(&mut host);
        if let Some(at) = host.listens {
            self.by_address.insert(at, place);
        }
        self.hosts.push(host);
        self.start(place);
        place
    }

    /// A process begins on a machine that has none.
    pub fn start(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        if it.node.is_some() || it.has_left {
            return;
        }
        it.life += 1;
        it.started_us = self.now_us;
        it.started_late_ms = it.clock_error_ms.min(0);
        it.last_unix_ms = 0;
        let own = (it.kind == Kind::Node).then_some(it.id);
        it.plane = plane::Plane::new(own, it.is_exit, &self.params, self.scenario.pool_bytes());
        it.keys.clear();
        it.holdings.restart();
        (it.deadline_us, it.wake_us, it.sweep_is_planned, it.is_frozen) = (None, None, false, false);
        let config = it.config(&self.params, &self.network);
        let time = self.time(host);
        match Node::new(config, time) {
            Ok(mut node) => {
                node.share(self.shelf.clone());
                self.hosts[host].node = Some(node);
                self.trace.note(2, self.now_us, host, 0);
                self.record.started(host, self.now_us);
                self.drain(host, None);
                if let Some(list) = self.list.clone() {
                    self.give_list(host, list);
                }
            }
            Err(error) => self.findings.report("start", format!("host {host} does not start: {error}")),
        }
    }

    /// Its source gives a machine the signed list, a moment later.
    pub(crate) fn give_list(&mut self, host: usize, list: Vec<u8>) {
        let life = self.hosts[host].life;
        let delay = 100_000 + self.entropy.below(400_000);
        self.after(delay, Event::Input { host, life, input: Box::new(Input::List(list)) });
    }

    /// The process is gone without a word; the others' kernels find out.
    pub fn kill(&mut self, host: usize) {
        if self.hosts[host].node.take().is_none() {
            return;
        }
        self.trace.note(3, self.now_us, host, 0);
        self.record.stopped(host, self.now_us);
        let tears = self.scenario.faults.torn_records;
        let it = &mut self.hosts[host];
        it.guards_before = it.guards.take().filter(|_| it.disk.has_newest(port17_proto::node::record::RecordKey::Guards));
        it.disk.crash(tears, &mut self.entropy);
        it.life += 1;
        it.backlog.clear();
        it.dials.clear();
        it.map = None;
        it.guards = None;
        it.is_frozen = false;
        let lanes: Vec<EndId> = std::mem::take(&mut it.lanes).into_values().collect();
        for end in lanes {
            self.drop_end(end, LaneLoss::Broken);
        }
        self.lose_client(host);
        let it = &mut self.hosts[host];
        let own = (it.kind == Kind::Node).then_some(it.id);
        it.plane = plane::Plane::new(own, it.is_exit, &self.params, self.scenario.pool_bytes());
    }

    /// A signed list of these machines' newest Bottles, for everybody.
    pub fn publish_list(&mut self, nodes: &[usize]) {
        let now_s = (START_UNIX_MS + self.now_us / 1000) / 1000;
        self.list_seq += 1;
        self.record.listed(self.now_us);
        let newest = |host: &usize| self.hosts[*host].published.last().map(|bottle| bottle.envelope().to_vec());
        let content = ListContent {
            network: self.network.id(),
            seq: self.list_seq,
            issued_s: now_s,
            expires_s: now_s + 30 * 24 * 3600,
            random: self.entropy.bytes(),
            nodes: nodes.iter().filter_map(newest).collect(),
            params: self.params.clone(),
            roots: None,
            releases: Vec::new(),
            unknown: BTreeMap::new(),
        };
        let Ok(payload) = content.encode() else {
            return self.findings.report("list", "the list cannot be made".to_owned());
        };
        let mut list = SignedList::new(payload);
        list.sign(&self.root);
        let list = list.encode();
        self.list = Some(list.clone());
        for host in 0..self.hosts.len() {
            // Not every source has the newest list at once: some get it over links.
            let has_source = self.list_seq == 1 || nodes.first() == Some(&host) || self.entropy.below(3) == 0;
            if self.hosts[host].node.is_some() && has_source {
                self.give_list(host, list.clone());
            }
        }
    }

    pub(crate) fn stamp_is_new(&mut self, host: usize, stamp: Stamp) -> bool {
        let life = self.hosts[host].life;
        self.stamps.insert((host, life, *stamp.as_bytes()))
    }

    // ---- The network ----

    /// How long a packet takes from one host to another.
    pub(crate) fn latency(&self, one: usize, other: usize) -> u64 {
        if !self.scenario.wire.geography {
            return self.scenario.wire.latency_ms * 1000;
        }
        self.latencies[self.hosts[one].city][self.hosts[other].city]
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    pub(crate) fn host_at(&self, addresses: &[SocketAddr]) -> Option<usize> {
        addresses.iter().find_map(|address| self.by_address.get(address).copied())
    }

    /// Circuits at an end, in its queue and its reader.
    pub(crate) fn circuits_at(&self, end: EndId) -> usize {
        let it = &self.ends[end];
        it.lane.look(|queue| queue.circuits()) + it.reader.as_ref().map_or(0, port17_proto::lane::reader::Reader::circuits)
    }

    /// What a host has permitted its neighbours to send, it has memory for (spec 06, 4).
    fn judge_memory(&self, host: usize) {
        let permitted: u64 = self.hosts[host].lanes.values().map(|end| self.credit[self.ends[*end].peer].permitted()).sum();
        let room = self.hosts[host].plane.borrow().pool.bytes() / FRAME_BYTES as u64;
        if permitted > room && self.hosts[host].is_honest {
            self.findings.report("memory", format!("host {host} permits {permitted} cells and has memory for {room}"));
        }
    }

    /// The hosts whose processes run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.hosts[*host].node.is_some()).collect()
    }
}

impl Drop for World {
    /// Lanes and edges know each other in circles.
    fn drop(&mut self) {
        self.agenda.clear();
        for end in &mut self.ends {
            end.reader = None;
            end.edges.clear();
            end.lane.look(port17_proto::lane::queue::LaneQueue::close);
            drop(end.lane.last_commands());
        }
        self.heap.clear();
    }
}
