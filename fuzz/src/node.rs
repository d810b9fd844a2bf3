//! The engine under any sequence of events (spec 05, 10, 11, 12). Stateful: the input says what it is, and what happens one after the
//! other.
//!
//! Whatever happens, its outputs are such as a driver can carry out, and bounded; and nothing that a client says makes it dial, or
//! changes what it knows (law 1).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;
use std::time::Duration;

use port17_proto::bottle::{Seq, ShortId, Tombstone, UnverifiedBottle};
use port17_proto::circuit::keyring::KeyId;
use port17_proto::crypto::{Entropy, VerifyingKey};
use port17_proto::ids::{NetworkId, NodeId};
use port17_proto::limits::{CIRCUIT_KEYS, CONTROL_MESSAGE_BYTES, LINKS, LIST_PIECE_BYTES};
use port17_proto::node::Node;
use port17_proto::node::config::{ClientSetup, Config, Role};
use port17_proto::node::io::{DialFailure, DialId, Input, LaneId, LaneLoss, Output, Peer};
use port17_proto::params::Params;
use port17_proto::timers::Time;
use port17_proto::wire::message::{Held, Hello, LaneSlot, LinkId, Message, RawMessage};
use port17_proto::wire::registry::{GoAwayReason, Role as HelloRole};

use crate::choices::{Choices, tamper};
use crate::engine::mesh::{Plan, START_UNIX_MS, id_of, link_key_of, network, node_config};
use crate::engine::solo::{bottle_of, some_key};
use crate::paper::{self, paper_bottle, paper_id, paper_key};

/// Events of one run.
const STEPS: usize = 150;
/// The engine's seed, and those of nodes that it may be a neighbour of.
const OWN: u64 = 1;
const OTHERS: [u64; 3] = [2, 3, 4];
/// Outputs of one event: far more than any takes.
const OUTPUTS: usize = 4000;
const BEGIN: Duration = Duration::from_secs(1010);
/// The seq of what is on paper: younger than the engine's start.
const SEQ_MS: u64 = START_UNIX_MS + 1_000_000;

/// Lets everything happen.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut world = World::new(choices.byte());
    for _ in 0..STEPS {
        if choices.is_empty() || world.stopped {
            break;
        }
        world.step(&mut choices);
    }
    world.shut_down();
}

// ---- What peers may say ----

/// Signed things, made once.
struct Pool {
    bottles: Vec<Vec<u8>>,
    own_words: Vec<Vec<u8>>,
    tombstones: Vec<Vec<u8>>,
    lists: Vec<Vec<u8>>,
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let versions = [(0, 0), (0, 1), (60_000, 0)];
        let of = |seed: u64| versions.map(|(later, load)| paper_bottle(seed, SEQ_MS + later, load));
        Pool {
            bottles: (1..9).flat_map(of).collect(),
            own_words: OTHERS.map(bottle_of).to_vec(),
            tombstones: (1..4).map(|seed| Tombstone::sign(&paper_key(seed), Seq(SEQ_MS + 30_000))).collect(),
            lists: vec![paper::list(5), paper::list(9)],
        }
    })
}

fn short_id(bottle: &[u8]) -> ShortId {
    UnverifiedBottle::parse(bottle).map_or(ShortId([0; 16]), |bottle| bottle.short_id())
}

impl Pool {
    fn all(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.bottles.iter().chain(&self.own_words)
    }

    fn bottle(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let count = self.bottles.len() + self.own_words.len();
        let mut bottle = self.all().nth(choices.below(count)).cloned().unwrap_or_default();
        if choices.byte() > 0xf0 {
            tamper(&mut bottle, choices);
        }
        bottle
    }

    fn with_id(&self, id: &ShortId) -> Option<&Vec<u8>> {
        self.all().find(|bottle| short_id(bottle) == *id)
    }
}

// ---- What a driver knows ----

#[derive(Default)]
struct Lane {
    dialled: bool,
    /// What its peer called itself in HELLO, the first one.
    hello: Option<HelloRole>,
    admitted: bool,
    /// The engine has closed it.
    closed: bool,
    /// The network has.
    down: bool,
    heard: bool,
    pings: Vec<u64>,
    wants: Vec<Vec<ShortId>>,
    wanted_list: Option<(u64, u32)>,
    /// How the engine has named the link in its HELLO.
    named: Option<LinkId>,
}

struct World {
    node: Node,
    now: Duration,
    /// What the wall clock is wrong by, milliseconds.
    clock_ms: i64,
    network: NetworkId,
    is_client: bool,
    disk: Disk,
    lanes: BTreeMap<LaneId, Lane>,
    dials: BTreeMap<DialId, (NodeId, Vec<VerifyingKey>)>,
    dials_seen: BTreeSet<DialId>,
    links: BTreeMap<Peer, Vec<LaneId>>,
    keys: BTreeSet<KeyId>,
    drawn: Option<Seq>,
    stored: Option<Seq>,
    stopped: bool,
    /// What came out at the last event that counts for law 1.
    moved: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    Works,
    Waits,
}

impl World {
    /// What it is, by the bits of `kind`: a client or a node; with neighbours that it was told, or none; in a network or not.
    fn new(kind: u8) -> Self {
        let is_client = kind & 1 == 1;
        let network = (kind & 4 == 0).then(network);
        let id = network.as_ref().map(|it| it.id()).unwrap_or_default();
        let config = if is_client {
            let guard = (kind & 2 == 2).then(|| id_of(OTHERS[0]));
            let role = Role::Client(ClientSetup { guard, hops: None });
            Config { role, params: Params::demo(), network, stored: vec![], entropy: Entropy::from_number(5001) }
        } else {
            let neighbours = OTHERS.map(id_of).to_vec();
            let plan = Plan { neighbours, decides: kind & 2 == 2, hidden: kind & 8 == 8, ..Plan::new(OWN) };
            Config { network, ..node_config(&plan) }
        };
        let node = Node::new(config, Time { mono: BEGIN, unix_ms: START_UNIX_MS + 1_010_000 }).expect("the configuration is a good one");
        let mut world = Self {
            node,
            now: BEGIN,
            clock_ms: 0,
            network: id,
            is_client,
            disk: Disk::Works,
            lanes: BTreeMap::new(),
            dials: BTreeMap::new(),
            dials_seen: BTreeSet::new(),
            links: BTreeMap::new(),
            keys: BTreeSet::new(),
            drawn: None,
            stored: None,
            stopped: false,
            moved: false,
        };
        world.drain();
        world.handle(Input::Tick);
        if kind & 16 == 16 {
            pool().own_words.iter().for_each(|bottle| world.handle(Input::Bottle(bottle.clone())));
        }
        world
    }

    fn time(&self) -> Time {
        let true_ms = START_UNIX_MS + u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX / 2);
        Time { mono: self.now, unix_ms: true_ms.saturating_add_signed(self.clock_ms) }
    }

    fn handle(&mut self, input: Input) {
        self.node.handle(input, self.time());
        self.drain();
    }

    // ---- What happens ----

    fn step(&mut self, choices: &mut Choices<'_>) {
        // What was due is done first: so that what follows is due to the event alone.
        self.handle(Input::Tick);
        match choices.byte() % 24 {
            0 => self.accept(choices),
            1 => self.answer_dial(choices),
            2 => self.fail_dial(choices),
            3 => self.say_hello(choices),
            4 | 5 => self.say(choices),
            6 => self.say_raw(choices),
            7 | 8 => self.answer(choices),
            9 => self.lane_down(choices),
            10 => self.violate(choices),
            11 => self.pass(Duration::from_millis(u64::from(choices.short()))),
            12 => self.pass(Duration::from_secs(u64::from(choices.short()))),
            13 => self.pass(Duration::from_secs(3600 * u64::from(choices.byte()))),
            14 => self.clock_ms = i64::from(choices.short().cast_signed()) * 1000 * (1 + i64::from(choices.byte())),
            15 => self.handle(Input::Bottle(pool().bottle(choices))),
            16 => self.hand_over(choices),
            17 => self.disk(choices),
            18 => self.admit(choices),
            19 => self.until_due(),
            20 if choices.byte() == 0xff => self.shut_down(),
            _ => self.answer(choices),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.handle(Input::Tick);
    }

    /// To the next deadline.
    fn until_due(&mut self) {
        if let Output::Wait { until: Some(until), .. } = self.node.poll() {
            self.now = self.now.max(until);
        }
        self.handle(Input::Tick);
    }

    fn key(&self, choices: &mut Choices<'_>) -> VerifyingKey {
        match choices.below(8) {
            at @ 0..3 => link_key_of(OTHERS[at]),
            3 => link_key_of(OWN),
            4 => paper_key(u64::from(choices.byte() % 9)).public(),
            _ => some_key(u64::from(choices.byte() % 4)),
        }
    }

    fn new_lane(&mut self, dialled: Option<DialId>, peer_key: VerifyingKey) -> LaneId {
        let lane = LaneId(self.lanes.len() as u64 + 1);
        self.lanes.insert(lane, Lane { dialled: dialled.is_some(), ..Lane::default() });
        let remote = IpAddr::V4(Ipv4Addr::new(192, 0, 2, (lane.0 % 3) as u8));
        self.handle(Input::LaneUp { lane, dialled, peer_key, remote });
        lane
    }

    fn accept(&mut self, choices: &mut Choices<'_>) {
        let key = self.key(choices);
        self.unmoved("a lane that is accepted", |world| {
            world.new_lane(None, key);
        });
    }

    fn answer_dial(&mut self, choices: &mut Choices<'_>) {
        let Some((dial, (_, keys))) = self.pick_dial(choices) else { return };
        let key = if choices.byte() < 0xf0 { keys[0] } else { self.key(choices) };
        let lane = self.new_lane(Some(dial), key);
        if choices.byte() & 1 == 0 {
            // Its HELLO, with the link that the engine has named.
            self.hello(lane, HelloRole::Node, LaneSlot::One, 0);
        }
    }

    fn pick_dial(&mut self, choices: &mut Choices<'_>) -> Option<(DialId, (NodeId, Vec<VerifyingKey>))> {
        let at = choices.below(self.dials.len().max(1));
        let dial = *self.dials.keys().nth(at)?;
        self.dials.remove_entry(&dial)
    }

    fn fail_dial(&mut self, choices: &mut Choices<'_>) {
        const WHY: [DialFailure; 4] = [DialFailure::Refused, DialFailure::Timeout, DialFailure::WrongKey, DialFailure::Local];
        if let Some((dial, _)) = self.pick_dial(choices) {
            self.handle(Input::DialFailed { dial, why: WHY[choices.below(4)] });
        }
    }

    /// A lane that is or was, or one that never was.
    fn lane(&self, choices: &mut Choices<'_>) -> LaneId {
        LaneId(1 + choices.below(self.lanes.len() + 1) as u64)
    }

    /// One that is up, the youngest first.
    fn live_lane(&self, choices: &mut Choices<'_>) -> Option<LaneId> {
        let live: Vec<LaneId> = self.lanes.iter().rev().filter(|(_, lane)| !lane.down && !lane.closed).map(|(id, _)| *id).collect();
        live.get(choices.below(live.len().max(1))).copied()
    }

    fn say_hello(&mut self, choices: &mut Choices<'_>) {
        let Some(lane) = self.live_lane(choices) else { return };
        let bits = choices.byte();
        let role = if bits & 1 == 0 { HelloRole::Node } else { HelloRole::Client };
        let slot = if bits & 2 == 0 { LaneSlot::One } else { LaneSlot::Two };
        self.hello(lane, role, slot, bits >> 5);
    }

    fn hello(&mut self, lane: LaneId, role: HelloRole, slot: LaneSlot, link: u8) {
        // Where the engine has dialled it has named the link.
        let named = self.lanes.get(&lane).filter(|lane| lane.dialled).and_then(|lane| lane.named);
        let link = named.unwrap_or(LinkId([link; 16]));
        let hello = Hello { versions: (1, 1), role, slot, link, circuits: 100, network: self.network };
        self.tell(lane, &Message::Hello(hello));
    }

    /// A lane through HELLO and the first word, as a neighbour or a client goes.
    fn admit(&mut self, choices: &mut Choices<'_>) {
        let at = choices.below(4);
        let link = choices.byte() % 8;
        if at == 3 {
            let lane = self.new_lane(None, some_key(u64::from(link)));
            return self.hello(lane, HelloRole::Client, LaneSlot::One, link);
        }
        let lane = self.new_lane(None, link_key_of(OTHERS[at]));
        self.hello(lane, HelloRole::Node, LaneSlot::One, link);
        self.tell(lane, &Message::Bottles { more: false, envelopes: vec![pool().own_words[at].clone()] });
    }

    fn tell(&mut self, lane: LaneId, message: &Message) {
        let raw = RawMessage::from_urgent(&message.encode()).expect("a message is one");
        if let (Message::Hello(hello), Some(lane)) = (message, self.lanes.get_mut(&lane)) {
            lane.hello.get_or_insert(hello.role);
        }
        self.control(lane, message.is_urgent(), raw);
    }

    fn control(&mut self, lane: LaneId, urgent: bool, message: RawMessage) {
        let input = Input::Control { lane, urgent, message };
        let of_client = self.lanes.get(&lane).is_some_and(|it| it.hello == Some(HelloRole::Client) && !it.dialled);
        if of_client && !self.is_client {
            self.unmoved("what a client says", |world| world.handle(input));
        } else {
            self.handle(input);
        }
    }

    /// Law 1: `event` makes the engine neither dial nor know more.
    fn unmoved(&mut self, what: &str, event: impl FnOnce(&mut Self)) {
        let knows = |world: &Self| {
            let held: Vec<(NodeId, Seq)> = world.node.bottlerack().iter().map(|it| (it.bottle.node_id(), it.bottle.seq())).collect();
            (held, world.node.bottlerack().hints(), world.node.list().map(|list| list.seq()))
        };
        let before = knows(self);
        self.moved = false;
        event(self);
        assert!(!self.moved, "{what} makes the engine dial or keep");
        assert!(before == knows(self), "{what} changes what the engine knows");
    }

    fn say(&mut self, choices: &mut Choices<'_>) {
        let Some(lane) = self.live_lane(choices) else { return };
        let message = self.message(choices);
        self.tell(lane, &message);
    }

    fn message(&mut self, choices: &mut Choices<'_>) -> Message {
        let pool = pool();
        let ids = |choices: &mut Choices<'_>| -> Vec<ShortId> {
            (0..=choices.byte() % 8).map(|_| short_id(&pool.bottle(choices))).collect()
        };
        match choices.byte() % 16 {
            0 => Message::Ping(choices.long()),
            1 => Message::Pong(choices.long()),
            2 => Message::GoAway(GoAwayReason::ALL[choices.below(GoAwayReason::ALL.len())]),
            3 => Message::Announce(ids(choices)),
            4 => Message::Announce((0..=choices.byte()).map(|at| ShortId([at; 16])).collect()),
            5 => Message::Want(ids(choices)),
            6 => {
                let envelopes = (0..choices.byte() % 4).map(|_| pool.bottle(choices)).collect();
                Message::Bottles { more: choices.byte() & 1 == 1, envelopes }
            }
            7 => Message::Tombstones(vec![pool.tombstones[choices.below(pool.tombstones.len())].clone()]),
            8 => Message::ListSeq([0, 5, 9, u64::MAX][choices.below(4)]),
            9 => Message::WantList { seq: [5, 9, 0][choices.below(3)], offset: u32::from(choices.short()) },
            10 => piece(choices),
            11 | 12 => {
                let held = (0..choices.byte() % 12).map(|_| held(choices)).collect();
                Message::Reconcile { more: choices.byte() & 1 == 1, held }
            }
            13 => Message::Publish,
            14 => Message::Unpublish,
            _ => Message::Later(200),
        }
    }

    fn say_raw(&mut self, choices: &mut Choices<'_>) {
        let lane = self.lane(choices);
        let message = RawMessage { code: choices.byte() % 32, body: choices.bytes().to_vec() };
        self.control(lane, choices.byte() & 1 == 1, message);
    }

    /// What an honest neighbour answers to what the engine has asked last.
    fn answer(&mut self, choices: &mut Choices<'_>) {
        let Some(id) = self.live_lane(choices) else { return };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let message = match choices.byte() % 3 {
            0 => lane.pings.pop().map(Message::Pong),
            1 => lane.wants.pop().map(|ids| {
                let envelopes = ids.iter().filter_map(|id| pool().with_id(id).cloned()).take(12).collect();
                Message::Bottles { more: false, envelopes }
            }),
            _ => lane.wanted_list.take().map(|(seq, offset)| list_piece(seq, offset as usize)),
        };
        if let Some(message) = message {
            self.tell(id, &message);
        }
    }

    fn lane_down(&mut self, choices: &mut Choices<'_>) {
        const WHY: [LaneLoss; 3] = [LaneLoss::Closed, LaneLoss::Broken, LaneLoss::Overrun];
        let id = self.lane(choices);
        let why = WHY[choices.below(3)];
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.down = true;
        }
        self.handle(Input::LaneDown { lane: id, why });
    }

    fn violate(&mut self, choices: &mut Choices<'_>) {
        let lane = self.lane(choices);
        self.handle(Input::Violation { lane, what: "test" });
    }

    /// What the operator and his files bring.
    fn hand_over(&mut self, choices: &mut Choices<'_>) {
        let pool = pool();
        let input = match choices.byte() % 3 {
            0 => Input::Tombstone(pool.tombstones[choices.below(pool.tombstones.len())].clone()),
            1 => Input::List(pool.lists[choices.below(pool.lists.len())].clone()),
            _ => {
                let mut list = pool.lists[0].clone();
                tamper(&mut list, choices);
                Input::List(list)
            }
        };
        self.handle(input);
    }

    fn disk(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 4 {
            0 => self.disk = Disk::Works,
            1 => self.disk = Disk::Waits,
            2 => {
                let Some(seq) = self.drawn else { return };
                self.stored = self.stored.max(Some(seq));
                self.handle(Input::SeqStored(seq));
            }
            _ => {
                let seq = self.drawn.filter(|_| choices.byte() & 1 == 0).unwrap_or(Seq(choices.long()));
                self.handle(Input::SeqNotStored(seq));
            }
        }
    }

    fn shut_down(&mut self) {
        self.handle(Input::Shutdown);
        assert!(self.stopped && self.links.is_empty() && self.keys.is_empty(), "the engine leaves nothing behind");
        assert!(self.lanes.values().all(|lane| lane.down || lane.closed), "the engine leaves no lane open");
    }

    // ---- What comes out ----

    fn drain(&mut self) {
        for _ in 0..OUTPUTS {
            match self.node.poll() {
                Output::Wait { until, .. } => {
                    let awake = until.is_some_and(|until| until <= self.now);
                    return assert!(!awake, "what is due is done");
                }
                output => {
                    assert!(!self.stopped, "after the last word: {output:?}");
                    self.carry_out(output);
                }
            }
        }
        panic!("one event leads to more than {OUTPUTS} outputs");
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Dial { dial, node, addresses, expected, .. } => {
                self.moved = true;
                assert!(self.dials_seen.insert(dial) && !addresses.is_empty() && !expected.is_empty());
                assert!(node != self.node.id() && !self.is_buried(&node));
                self.dials.insert(dial, (node, expected));
                // Two lanes to each of those that are wanted.
                assert!(self.dials.len() <= 4 * LINKS, "dials are bounded");
            }
            Output::CancelDial(dial) => {
                assert!(self.dials_seen.contains(&dial));
                self.dials.remove(&dial);
            }
            Output::Send { lane, urgent, message } => self.sent(lane, urgent, &message),
            Output::Close { lane } => {
                let lane = self.lanes.get_mut(&lane).expect("a lane that is there is closed");
                assert!(!lane.closed, "a lane is closed once");
                lane.closed = true;
            }
            Output::HearLane { lane } => {
                let lane = self.open(lane);
                assert!(!lane.admitted && !std::mem::replace(&mut lane.heard, true), "one more message is heard, once");
            }
            Output::AdmitLane { lane, peer, dialled, .. } => {
                let lane = self.open(lane);
                assert!(!std::mem::replace(&mut lane.admitted, true), "a lane is admitted once");
                assert!(lane.dialled == dialled && lane.hello.is_some());
                let is_client = lane.hello == Some(HelloRole::Client);
                assert!(dialled || is_client == matches!(peer, Peer::Client(_)), "who calls itself a client is one");
            }
            Output::LinkUp { peer, lanes } => {
                assert!((1..=2).contains(&lanes.len()));
                assert!(lanes.iter().all(|lane| self.open(*lane).admitted), "a link has admitted lanes");
                self.links.insert(peer, lanes);
            }
            Output::LinkDown { peer } => {
                self.links.remove(&peer).expect("only a link that is up goes down");
            }
            Output::LaneRtt { lane, .. } => assert!(self.lanes.contains_key(&lane)),
            Output::StoreSeq(seq) => self.store(seq),
            Output::PublishBottle { seq, bytes } => {
                assert!(self.stored == Some(seq), "stored before it is published");
                UnverifiedBottle::parse(&bytes).expect("a node's own Bottle is well formed");
            }
            Output::NewCircuitKey(key) => {
                assert!(self.keys.insert(key.id()) && self.keys.len() <= CIRCUIT_KEYS);
            }
            Output::EraseCircuitKey(key) => assert!(self.keys.remove(&key), "a key that is there is erased"),
            Output::Save(..) | Output::BottlerackChanged(_) | Output::ListAccepted { .. } => self.moved = true,
            Output::Stopped => self.stopped = true,
            Output::Forget(_) | Output::Guards(_) | Output::LeaveGuard(_) | Output::ListRefused(_) | Output::Counted(_) | Output::Wait { .. } => {}
        }
    }

    fn is_buried(&self, node: &NodeId) -> bool {
        self.node.bottlerack().is_buried(node)
    }

    fn open(&mut self, lane: LaneId) -> &mut Lane {
        let lane = self.lanes.get_mut(&lane).expect("a lane that is there");
        assert!(!lane.closed && !lane.down, "nothing is done with a lane that is gone");
        lane
    }

    fn store(&mut self, seq: Seq) {
        assert!(self.drawn.is_none_or(|drawn| drawn <= seq), "seqs rise");
        self.drawn = Some(seq);
        if self.disk == Disk::Works {
            self.stored = Some(seq);
            self.node.handle(Input::SeqStored(seq), self.time());
        }
    }

    fn sent(&mut self, id: LaneId, urgent: bool, message: &[u8]) {
        assert!(message.len() <= CONTROL_MESSAGE_BYTES + 4);
        let raw = RawMessage::from_urgent(message).expect("what is sent is a message");
        let message = Message::decode(&raw, urgent).expect("what is sent is well formed");
        let lane = self.open(id);
        match message {
            Message::Hello(hello) => lane.named = Some(hello.link),
            Message::Ping(token) => lane.pings.push(token),
            Message::Want(ids) => lane.wants.push(ids),
            Message::WantList { seq, offset } => lane.wanted_list = Some((seq, offset)),
            _ => {}
        }
    }
}

fn held(choices: &mut Choices<'_>) -> Held {
    let bottle = pool().bottle(choices);
    match UnverifiedBottle::parse(&bottle) {
        Ok(bottle) => Held { node: bottle.claimed_node_id(), seq: bottle.claimed_seq(), short_id: bottle.short_id() },
        Err(_) => Held { node: paper_id(u64::from(choices.byte() % 9)), seq: Seq(choices.long()), short_id: ShortId([1; 16]) },
    }
}

fn piece(choices: &mut Choices<'_>) -> Message {
    if choices.byte() & 1 == 0 {
        return list_piece([5, 9][choices.below(2)], 64 * usize::from(choices.short()));
    }
    let (offset, total) = (u32::from(choices.short()), u32::from(choices.short()));
    Message::List { seq: [5, 9][choices.below(2)], offset, total, bytes: choices.bytes().to_vec() }
}

fn list_piece(seq: u64, offset: usize) -> Message {
    let list = &pool().lists[usize::from(seq == 9)];
    let from = offset.min(list.len());
    let bytes = list[from..list.len().min(from + LIST_PIECE_BYTES)].to_vec();
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    Message::List { seq, offset: number(from), total: number(list.len()), bytes }
}

/// Nodes and clients that neighbours and clients come to, that learn Bottles and lists, and that time passes for.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for kind in 0..32 {
        // Neighbours and a client come; lists; time.
        let come = vec![18, 0, 1, 18, 1, 2, 18, 3, 3, 19, 7, 0, 0, 19];
        let dial = vec![15, 24, 0, 15, 25, 0, 19, 1, 0, 0, 0, 19, 1, 0, 0, 0, 7, 0, 0];
        let list = vec![16, 1, 0, 19, 4, 0, 8, 2, 7, 0, 2, 19];
        let gossip = vec![4, 0, 3, 2, 1, 0, 2, 0, 3, 0, 7, 0, 1, 4, 1, 11, 3, 1, 0, 4, 0, 5, 0, 7, 0, 1];
        let late = vec![12, 1, 0, 19, 13, 30, 19, 9, 0, 0, 11, 0, 9];
        seeds.push([vec![kind], come.clone(), gossip, late.clone()].concat());
        seeds.push([vec![kind], dial, list, late, come].concat());
    }
    seeds
}
