//! A mesh of engines: every output is carried out by memory and a virtual clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use port17_proto::bottle::{Address, Flags, Seq, UnverifiedBottle, VerifiedBottle};
use port17_proto::circuit::keyring::KeyId;
use port17_proto::crypto::{Entropy, KemBackend, SigningKey, VerifyingKey};
use port17_proto::identity::Identity;
use port17_proto::ids::NodeId;
use port17_proto::network::{Definition, ListContent, Roots, SignedList};
use port17_proto::node::Node;

use port17_proto::node::config::{ClientSetup, Config, NodeSetup, Role};
use port17_proto::node::guard::GuardSet;
use port17_proto::node::io::{DialFailure, Input, LaneId, LaneLoss, Output, Peer, ShownKey};
use port17_proto::node::record::RecordKey;
use port17_proto::params::Params;
use port17_proto::portname::Label;
use port17_proto::timers::Time;
use port17_proto::wire::message::{MessageStream, RawMessage, split_into_pieces};
use port17_proto::wire::registry::LaneType;

pub const LATENCY: Duration = Duration::from_millis(3);
pub const START_UNIX_MS: u64 = 1_800_000_000_000;

/// What a machine does with `StoreSeq`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    Works,
    Hangs,
    Fails,
}

/// One machine: the engine and what its outputs have led to.
pub struct Host {
    pub node: Option<Node>,
    pub id: NodeId,
    pub link_key: VerifyingKey,
    pub addresses: Vec<SocketAddr>,
    pub disk: Disk,
    /// Streams flow over its links.
    pub has_streams: bool,
    pub stored: Option<Seq>,
    /// The last that it was told to store.
    pub last_drawn: Option<Seq>,
    pub published: Vec<(Duration, VerifiedBottle)>,
    pub bottle_bytes: Vec<u8>,
    pub links: BTreeMap<Peer, Vec<LaneId>>,
    pub keys: BTreeSet<KeyId>,
    pub dials: Vec<(Duration, NodeId, ShownKey)>,
    pub guard: Option<NodeId>,
    pub guards: Option<GuardSet>,
    pub log: Vec<(Duration, String)>,
    /// What its store keeps over restarts.
    pub records: BTreeMap<RecordKey, Vec<u8>>,
    /// Messages and bytes of the stream that it has sent.
    pub streamed: (usize, usize),
    deadline: Option<Duration>,
}

impl Host {
    pub fn is_linked_to(&self, other: NodeId) -> bool {
        self.links.contains_key(&Peer::Node(other))
    }

    pub fn lanes_to(&self, other: NodeId) -> Vec<LaneId> {
        self.links.get(&Peer::Node(other)).cloned().unwrap_or_default()
    }

    pub fn count(&self, name: &str) -> u64 {
        let status = self.node.as_ref().unwrap().status();
        status.counts.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count)
    }

    pub fn newest(&self) -> &VerifiedBottle {
        &self.published.last().expect("a Bottle was published").1
    }

    pub fn lists(&self, other: NodeId) -> bool {
        self.newest().content().link_to(&other).is_some()
    }
}

/// How a host is set up, beside what all have in common.
#[derive(Clone)]
pub struct Plan {
    pub seed: u64,
    pub params: Params,
    pub neighbours: Vec<NodeId>,
    /// The node chooses its links itself; `neighbours` says nothing.
    pub decides: bool,
    pub hidden: bool,
    pub exit: bool,
    pub accept_clients: bool,
    pub stored_seq: Option<Seq>,
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let params = Params::demo();
        Self {
            seed,
            params,
            neighbours: vec![],
            decides: false,
            hidden: false,
            exit: true,
            accept_clients: true,
            stored_seq: None,
        }
    }
}

fn root() -> SigningKey {
    SigningKey::generate(&mut Entropy::from_number(4242))
}

/// A network with one root key.
pub fn network() -> Definition {
    Definition::new("test-net", Roots::new(1, vec![root().public()]).unwrap()).unwrap()
}

pub fn identity(seed: u64) -> (Identity, VerifyingKey) {
    let mut entropy = Entropy::from_number(seed);
    (Identity::generate(&mut entropy), SigningKey::generate(&mut entropy).public())
}

pub fn id_of(seed: u64) -> NodeId {
    identity(seed).0.node_id()
}

pub fn link_key_of(seed: u64) -> VerifyingKey {
    identity(seed).1
}

pub fn address_of(seed: u64) -> SocketAddr {
    SocketAddr::new(
        IpAddr::V4(Ipv4Addr::new(127, 0, 1 + u8::try_from(seed / 250).unwrap(), u8::try_from(seed % 250).unwrap())),
        1717,
    )
}

/// Seeds in the order of their NodeIDs, so that a test can say who is the smaller.
pub fn ordered_seeds<const N: usize>() -> [u64; N] {
    let mut seeds: Vec<u64> = (1..=N as u64).collect();
    seeds.sort_by_key(|seed| id_of(*seed));
    seeds.try_into().unwrap()
}

pub fn node_config(plan: &Plan) -> Config {
    let (identity, link_key) = identity(plan.seed);
    let addresses = if plan.hidden { vec![] } else { vec![Address::new(address_of(plan.seed), LaneType::TlsTcp)] };
    let setup = NodeSetup {
        identity,
        label: "node-test".parse::<Label>().unwrap(),
        group: String::new(),
        link_key,
        link_key_expiry_s: u64::MAX,
        next_link_key: None,
        addresses,
        egress: vec![],
        exit_policy: plan.exit.then(|| port17_proto::policy::ExitPolicy::parse(&["accept tcp *:80"]).unwrap()),
        flags: Flags::default(),
        software: "port17 test".to_owned(),
        neighbours: (!plan.decides).then(|| plan.neighbours.clone()),
        accept_clients: plan.accept_clients,
        kem: KemBackend::Seeded,
        stored_seq: plan.stored_seq,
    };
    Config {
        role: Role::Node(Box::new(setup)),
        params: plan.params.clone(),
        network: None,
        stored: vec![],
        entropy: Entropy::from_number(plan.seed + 1000),
    }
}

#[derive(Debug)]
enum Event {
    Input(Input),
    /// Bytes on a lane, as the driver's reader gets them.
    Bytes {
        lane: LaneId,
        urgent: bool,
        bytes: Vec<u8>,
    },
}

/// The machines and the network between them.
pub struct Mesh {
    pub hosts: Vec<Host>,
    pub now: Duration,
    /// What the system's clock says more or less than it should, by host.
    pub clock_error_ms: BTreeMap<usize, i64>,
    /// Hosts whose packets are dropped without a word.
    pub silent: BTreeSet<usize>,
    /// Hosts that no packet of the others reaches, nor theirs the others.
    pub split: BTreeSet<usize>,
    /// Hosts that do not get others' Bottles.
    pub without_bottles: BTreeSet<usize>,
    /// Those who join from now on belong to `network()`.
    pub in_network: bool,
    /// Nodes that come back get what their store kept.
    pub keeps_records: bool,
    /// Bottles travel over lanes only; records outlive a restart.
    pub lanes_only: bool,
    events: BTreeMap<(Duration, u64), (usize, Event)>,
    events_made: u64,
    lanes: BTreeMap<(usize, LaneId), (usize, LaneId)>,
    streams: BTreeMap<(usize, LaneId), MessageStream>,
    lanes_made: u64,
}

impl Mesh {
    pub fn new() -> Self {
        Self {
            hosts: vec![],
            now: Duration::from_secs(1000),
            clock_error_ms: BTreeMap::new(),
            silent: BTreeSet::new(),
            split: BTreeSet::new(),
            without_bottles: BTreeSet::new(),
            in_network: false,
            keeps_records: false,
            lanes_only: false,
            events: BTreeMap::new(),
            events_made: 0,
            lanes: BTreeMap::new(),
            streams: BTreeMap::new(),
            lanes_made: 0,
        }
    }

    /// Nodes of these seeds, each linked to all others.
    pub fn full(seeds: &[u64]) -> Self {
        let mut mesh = Self::new();
        for seed in seeds {
            let neighbours = seeds.iter().filter(|other| *other != seed).map(|other| id_of(*other)).collect();
            mesh.add(Plan { neighbours, ..Plan::new(*seed) });
        }
        mesh
    }

    pub fn add(&mut self, plan: Plan) -> usize {
        let addresses = if plan.hidden { vec![] } else { vec![address_of(plan.seed)] };
        self.add_host(self.config(&plan), id_of(plan.seed), link_key_of(plan.seed), addresses)
    }

    pub fn add_client(&mut self, seed: u64, params: Params, guard: Option<NodeId>) -> usize {
        let config = Config {
            role: Role::Client(ClientSetup { guard, hops: None }),
            params,
            network: self.in_network.then(network),
            stored: vec![],
            entropy: Entropy::from_number(seed + 5000),
        };
        self.add_host(config, NodeId([0; 32]), link_key_of(seed), vec![])
    }

    fn config(&self, plan: &Plan) -> Config {
        Config { network: self.in_network.then(network), ..node_config(plan) }
    }

    /// The client's process ends and begins again, with what its store kept.
    pub fn restart_client(&mut self, host: usize, seed: u64, params: Params, guard: Option<NodeId>) {
        self.kill(host);
        let config = Config {
            role: Role::Client(ClientSetup { guard, hops: None }),
            params,
            network: self.in_network.then(network),
            stored: self.hosts[host].records.clone().into_iter().collect(),
            entropy: Entropy::from_number(seed + 5000),
        };
        self.hosts[host].guards = None;
        self.hosts[host].node = Some(Node::new(config, self.time(host)).unwrap());
        self.drain(host);
    }

    /// A list of the newest Bottles of these hosts, with the demo parameters changed by `change`.
    pub fn list(&self, seq: u64, hosts: &[usize], change: impl Fn(&mut Params)) -> Vec<u8> {
        let now_s = self.time(0).unix_ms / 1000;
        let mut params = Params::demo();
        change(&mut params);
        let content = ListContent {
            network: network().id(),
            seq,
            issued_s: now_s,
            expires_s: now_s + 30 * 24 * 3600,
            random: [7; 32],
            nodes: hosts.iter().map(|host| self.hosts[*host].bottle_bytes.clone()).collect(),
            params,
            roots: None,
            releases: vec![],
            unknown: BTreeMap::new(),
        };
        let mut list = SignedList::new(content.encode().unwrap());
        list.sign(&root());
        list.encode()
    }

    pub fn give_list(&mut self, list: &[u8]) {
        for host in 0..self.hosts.len() {
            self.input(host, Input::List(list.to_vec()));
        }
    }

    pub fn host_of(&self, node: NodeId) -> usize {
        self.hosts.iter().position(|host| host.id == node).unwrap()
    }

    /// A machine whose engine is started as a test wants it.
    pub fn add_host(&mut self, config: Config, id: NodeId, link_key: VerifyingKey, addresses: Vec<SocketAddr>) -> usize {
        let host = self.hosts.len();
        let node = Node::new(config, self.time(host)).unwrap();
        self.hosts.push(Host {
            node: Some(node),
            id,
            link_key,
            addresses,
            disk: Disk::Works,
            has_streams: false,
            stored: None,
            last_drawn: None,
            published: vec![],
            bottle_bytes: vec![],
            links: BTreeMap::new(),
            keys: BTreeSet::new(),
            dials: vec![],
            guard: None,
            guards: None,
            log: vec![],
            records: BTreeMap::new(),
            streamed: (0, 0),
            deadline: None,
        });
        let known = if self.lanes_only { 0 } else { host };
        for other in 0..known {
            let bytes = self.hosts[other].bottle_bytes.clone();
            if !bytes.is_empty() {
                self.later(host, Event::Input(Input::Bottle(bytes)));
            }
        }
        self.drain(host);
        host
    }

    /// The process is gone without a word; the others' kernels find out.
    pub fn kill(&mut self, host: usize) {
        self.hosts[host].node = None;
        self.hosts[host].deadline = None;
        self.hosts[host].links.clear();
        self.hosts[host].keys.clear();
        let lanes: Vec<_> = self.lanes.keys().filter(|(of, _)| *of == host).copied().collect();
        for end in lanes {
            self.cut(end, LaneLoss::Broken);
        }
    }

    pub fn restart(&mut self, host: usize, plan: Plan) {
        let plan = Plan { stored_seq: self.hosts[host].stored, ..plan };
        let stored =
            if self.keeps_records || self.lanes_only { self.hosts[host].records.clone().into_iter().collect() } else { vec![] };
        let config = Config { stored, ..self.config(&plan) };
        self.hosts[host].node = Some(Node::new(config, self.time(host)).unwrap());
        let known = if self.lanes_only { 0 } else { self.hosts.len() };
        for other in 0..known {
            let bytes = self.hosts[other].bottle_bytes.clone();
            if !bytes.is_empty() {
                self.later(host, Event::Input(Input::Bottle(bytes)));
            }
        }
        self.drain(host);
    }

    /// One lane breaks, as both ends' kernels see it.
    pub fn break_lane(&mut self, host: usize, lane: LaneId) {
        self.cut((host, lane), LaneLoss::Broken);
        self.later(host, Event::Input(Input::LaneDown { lane, why: LaneLoss::Broken }));
    }

    pub fn input(&mut self, host: usize, input: Input) {
        let time = self.time(host);
        if let Some(node) = &mut self.hosts[host].node {
            node.handle(input, time);
            self.drain(host);
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let event = self.events.keys().next().copied();
            let deadline = (0..self.hosts.len()).filter_map(|host| Some((self.hosts[host].deadline?, host))).min();
            let event_at = event.map_or(Duration::MAX, |(at, _)| at);
            let deadline_at = deadline.map_or(Duration::MAX, |(at, _)| at);
            if event_at.min(deadline_at) > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(event_at.min(deadline_at));
            if event_at <= deadline_at {
                let (host, event) = self.events.remove(&event.unwrap()).unwrap();
                self.deliver(host, event);
            } else {
                self.input(deadline.unwrap().1, Input::Tick);
            }
        }
    }

    /// Runs until `done`; fails the test if it does not come within `limit`.
    pub fn run_until(&mut self, limit: Duration, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(
                self.now < end,
                "{what} did not happen in {limit:?}; {:#?}",
                self.hosts.iter().map(|it| &it.log).collect::<Vec<_>>()
            );
            self.run_for(Duration::from_millis(1));
        }
    }

    fn deliver(&mut self, host: usize, event: Event) {
        match event {
            Event::Input(input) => self.input(host, input),
            Event::Bytes { lane, urgent, bytes } => {
                if !self.lanes.contains_key(&(host, lane)) {
                    return;
                }
                let messages = if urgent {
                    RawMessage::from_urgent(&bytes).map(|message| vec![message])
                } else {
                    self.streams.entry((host, lane)).or_default().feed(&bytes)
                };
                for message in messages.unwrap() {
                    self.input(host, Input::Control { lane, urgent, message });
                }
            }
        }
    }

    fn drain(&mut self, host: usize) {
        while let Some(node) = &mut self.hosts[host].node {
            let output = node.poll();
            if let Output::Wait { until, .. } = output {
                self.hosts[host].deadline = until;
                return;
            }
            self.hosts[host].log.push((self.now, format!("{output:?}")));
            self.carry_out(host, output);
        }
        self.hosts[host].deadline = None;
    }

    fn carry_out(&mut self, host: usize, output: Output) {
        let now = self.now;
        match output {
            Output::Dial { dial, node, addresses, expected, show } => {
                self.hosts[host].dials.push((now, node, show));
                let answer = self.connect(host, &addresses, &expected);
                match answer {
                    Err(why) => self.later(host, Event::Input(Input::DialFailed { dial, why })),
                    Ok(other) => self.make_lane(host, other, dial, show),
                }
            }
            Output::Send { lane, urgent, message } => {
                let Some((other, there)) = self.lanes.get(&(host, lane)).copied() else { return };
                if self.is_cut(host, other) {
                    return;
                }
                if !urgent {
                    let (messages, bytes) = &mut self.hosts[host].streamed;
                    *messages += 1;
                    *bytes += message.len();
                }
                let pieces: Vec<Vec<u8>> =
                    if urgent { vec![message] } else { split_into_pieces(&message).map(<[u8]>::to_vec).collect() };
                for bytes in pieces {
                    self.later(other, Event::Bytes { lane: there, urgent, bytes });
                }
            }
            Output::Close { lane } => self.cut((host, lane), LaneLoss::Closed),
            Output::LinkUp { peer, lanes } => {
                self.hosts[host].links.insert(peer, lanes);
            }
            Output::LinkDown { peer } => {
                self.hosts[host].links.remove(&peer).expect("only a link that was up goes down");
            }
            Output::StoreSeq(seq) => {
                self.hosts[host].last_drawn = Some(seq);
                match self.hosts[host].disk {
                    Disk::Works => {
                        self.hosts[host].stored = Some(seq);
                        self.later(host, Event::Input(Input::SeqStored(seq)));
                    }
                    Disk::Fails => self.later(host, Event::Input(Input::SeqNotStored(seq))),
                    Disk::Hangs => {}
                }
            }
            Output::PublishBottle { seq, bytes } => self.publish(host, seq, bytes),
            Output::NewCircuitKey(key) => assert!(self.hosts[host].keys.insert(key.id())),
            Output::EraseCircuitKey(key) => assert!(self.hosts[host].keys.remove(&key)),
            Output::Guards(set) => {
                self.hosts[host].guard = Some(set.active);
                self.hosts[host].guards = Some(set);
            }
            Output::LeaveGuard(node) => {
                if !self.hosts[host].has_streams {
                    self.later(host, Event::Input(Input::GuardIdle(node)));
                }
            }
            Output::Save(key, bytes) => {
                self.hosts[host].records.insert(key, bytes);
            }
            Output::Forget(key) => {
                self.hosts[host].records.remove(&key);
            }
            Output::CancelDial(_)
            | Output::HearLane { .. }
            | Output::AdmitLane { .. }
            | Output::LaneRtt { .. }
            | Output::BottlerackChanged(_)
            | Output::Counted(_)
            | Output::ListAccepted { .. }
            | Output::ListRefused(_)
            | Output::Stopped
            | Output::Wait { .. } => {}
        }
    }

    fn publish(&mut self, host: usize, seq: Seq, bytes: Vec<u8>) {
        assert_eq!(self.hosts[host].stored, Some(seq), "stored before it is published");
        let rules = Params::demo().bottle_rules();
        // As it was when it was signed: a test may have set the host's clock wrong.
        let verified = UnverifiedBottle::parse(&bytes).unwrap().verify(seq.unix_ms(), &rules).unwrap();
        self.hosts[host].published.push((self.now, verified));
        self.hosts[host].bottle_bytes = bytes.clone();
        let told = if self.lanes_only { 0 } else { self.hosts.len() };
        for other in 0..told {
            if !self.without_bottles.contains(&other) {
                self.later(other, Event::Input(Input::Bottle(bytes.clone())));
            }
        }
    }

    fn connect(&self, from: usize, addresses: &[SocketAddr], expected: &[VerifyingKey]) -> Result<usize, DialFailure> {
        let Some(other) = self.hosts.iter().position(|host| host.addresses.iter().any(|at| addresses.contains(at))) else {
            return Err(DialFailure::Unreachable);
        };
        if self.is_cut(from, other) {
            return Err(DialFailure::Timeout);
        }
        if self.hosts[other].node.is_none() {
            return Err(DialFailure::Refused);
        }
        if expected.contains(&self.hosts[other].link_key) { Ok(other) } else { Err(DialFailure::WrongKey) }
    }

    fn is_cut(&self, one: usize, other: usize) -> bool {
        let silent = self.silent.contains(&one) || self.silent.contains(&other);
        silent || self.split.contains(&one) != self.split.contains(&other)
    }

    fn make_lane(&mut self, from: usize, to: usize, dial: port17_proto::node::io::DialId, show: ShownKey) {
        self.lanes_made += 2;
        let (near, far) = (LaneId(self.lanes_made), LaneId(self.lanes_made + 1));
        self.lanes.insert((from, near), (to, far));
        self.lanes.insert((to, far), (from, near));
        let shown = match show {
            ShownKey::Link => self.hosts[from].link_key,
            ShownKey::ThrowAway => SigningKey::generate(&mut Entropy::from_number(self.lanes_made + 90_000)).public(),
        };
        let remote = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let peer_key = self.hosts[to].link_key;
        self.later(to, Event::Input(Input::LaneUp { lane: far, dialled: None, peer_key: shown, remote }));
        self.later(from, Event::Input(Input::LaneUp { lane: near, dialled: Some(dial), peer_key, remote }));
    }

    fn cut(&mut self, end: (usize, LaneId), why: LaneLoss) {
        if let Some((other, there)) = self.lanes.get(&end).copied() {
            if self.is_cut(end.0, other) {
                self.lanes.remove(&end);
                return;
            }
            self.later(other, Event::Input(Input::LaneDown { lane: there, why }));
            // What was sent before still arrives; nothing goes back.
            self.lanes.remove(&end);
        }
    }

    fn later(&mut self, host: usize, event: Event) {
        self.events_made += 1;
        self.events.insert((self.now + LATENCY, self.events_made), (host, event));
    }

    pub fn time(&self, host: usize) -> Time {
        let true_ms = START_UNIX_MS + u64::try_from(self.now.as_millis()).unwrap();
        let error = self.clock_error_ms.get(&host).copied().unwrap_or(0);
        Time { mono: self.now, unix_ms: true_ms.saturating_add_signed(error) }
    }
}
