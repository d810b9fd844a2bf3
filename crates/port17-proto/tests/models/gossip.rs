//! Gossip between three and four nodes (spec 04, 5 and 6; spec 11): real Bottleracks, real signatures, stored records read again.
//!
//! Identities that are none of the nodes say things: Bottles, two truths under one seq, a farewell. What one node takes it passes on.
//! The network delivers each thing in any order, again and again, or never; nodes restart with what they stored; time passes. In each
//! state it is asked what would follow if the links were up from now on and nothing else came: after a few repairs all nodes must
//! agree, whatever was lost before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};

use port17_proto::bottle::{
    BottleContent, BottleRules, CircuitKey, Flags, ProtocolRange, Seq, ShortId, Tombstone, UnverifiedBottle, UnverifiedTombstone,
    VerifiedBottle,
};
use port17_proto::bottlerack::{Bottlerack, Bury, Insert, RackRules, Trust};
use port17_proto::crypto::{KemPublicKey, PUBLIC_KEY_BYTES, Secret, SigningKey};
use port17_proto::ids::NodeId;
use port17_proto::node::record::RecordKey;
use port17_proto::params::Params;
use port17_proto::wire::registry::Scope;
use stateright::{Model, Property};

use super::check;

const START_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 3_600_000;
/// From a farewell's seq until nobody takes it any more.
const LIFE_MS: u64 = 30 * 24 * HOUR_MS;
const ALL: usize = 1024;

// ---- What is said ----

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(Secret::new([seed; 32]))
}

fn id(seed: u8) -> NodeId {
    NodeId::of(&key(seed).public())
}

/// Something that an identity has signed.
struct Said {
    node: NodeId,
    envelope: Vec<u8>,
    /// That of a Bottle; a farewell has none.
    short_id: Option<ShortId>,
}

/// A Bottle of the identity of `seed`; `load` makes another truth of the same seq.
fn bottle(seed: u8, seq: u64, load: u8) -> Said {
    called("model", seed, seq, load)
}

fn called(label: &str, seed: u8, seq: u64, load: u8) -> Said {
    let key = key(seed);
    let seq = Seq(START_MS + seq);
    let content = BottleContent {
        identity: key.public(),
        seq,
        scope: Scope::Public,
        label: label.parse().unwrap(),
        group: String::new(),
        link_key: key.public(),
        link_key_expiry_s: seq.0 / 1000 + 3600,
        next_link_key: None,
        circuit_key: CircuitKey { public: KemPublicKey::from_bytes([5; PUBLIC_KEY_BYTES]), not_after_s: seq.0 / 1000 + 3600 },
        addresses: vec![],
        egress: vec![],
        links: vec![],
        exit_policy: None,
        load,
        flags: Flags::default(),
        protocol: ProtocolRange::OURS,
        software: String::new(),
        unknown: BTreeMap::new(),
    };
    let envelope = content.sign(&key).unwrap();
    let short_id = UnverifiedBottle::parse(&envelope).unwrap().short_id();
    Said { node: id(seed), envelope, short_id: Some(short_id) }
}

fn farewell(seed: u8, seq: u64) -> Said {
    Said { node: id(seed), envelope: Tombstone::sign(&key(seed), Seq(START_MS + seq)), short_id: None }
}

#[derive(Clone)]
enum Verified {
    Bottle(VerifiedBottle),
    Farewell(Tombstone),
}

// ---- The model ----

/// Which of the times it is, and what each node holds.
type Holdings = (usize, Vec<Arc<Bottlerack>>);

/// Who is linked, what is said to whom, and what the network and time may do.
struct Gossip {
    nodes: usize,
    links: Vec<(usize, usize)>,
    /// What is said, and to which nodes at first.
    said: Vec<(Said, Vec<usize>)>,
    rules: RackRules,
    trusted: Vec<NodeId>,
    suffix_bits: usize,
    times_ms: Vec<u64>,
    restarts: bool,
    verified: Mutex<HashMap<(usize, u64), Option<Verified>>>,
    agreed: Mutex<HashMap<Holdings, bool>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    /// Which of the times it is.
    time: usize,
    racks: Vec<Arc<Bottlerack>>,
    /// What may come, now or later, once or often: (what is said, to whom).
    under_way: BTreeSet<(usize, usize)>,
    /// Who has ever taken whose farewell.
    farewells: BTreeSet<(usize, NodeId)>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "time {}", self.time)?;
        for (node, rack) in self.racks.iter().enumerate() {
            write!(f, "; node {node}:")?;
            for stored in rack.iter() {
                let (content, proven) = (stored.bottle.content(), rack.equivocation(&stored.bottle.node_id()).is_some());
                write!(f, " {:?} at {} load {}", stored.bottle.node_id(), content.seq.0 - START_MS, content.load)?;
                write!(f, "{}", if proven { " caught" } else { "" })?;
            }
            for tombstone in rack.tombstones() {
                write!(f, " {:?} left", tombstone.node_id())?;
            }
        }
        write!(f, "; under way {:?}", self.under_way)
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Action {
    /// What is said comes to a node.
    Deliver { said: usize, node: usize },
    /// A node's process ends and begins again.
    Restart(usize),
    /// Time passes, and all sweep.
    Tick,
}

impl Gossip {
    fn new(nodes: usize, links: &[(usize, usize)], said: Vec<(Said, Vec<usize>)>) -> Self {
        Self {
            nodes,
            links: links.to_vec(),
            said,
            rules: Params::DEFAULT.rack_rules(),
            trusted: vec![id(1)],
            suffix_bits: 65,
            times_ms: vec![START_MS + HOUR_MS / 2],
            restarts: false,
            verified: Mutex::default(),
            agreed: Mutex::default(),
        }
    }

    fn empty_rack(&self) -> Bottlerack {
        let mut rack = Bottlerack::with_rules(Scope::Public, self.rules).with_suffix_bits(self.suffix_bits);
        rack.trust_only(self.trusted.iter().copied());
        rack
    }

    fn neighbours(&self, node: usize) -> impl Iterator<Item = usize> {
        let other = move |(one, other): &(usize, usize)| match node {
            node if node == *one => Some(*other),
            node if node == *other => Some(*one),
            _ => None,
        };
        self.links.iter().filter_map(other)
    }

    /// Parsed and verified as a node does, once for each time.
    fn verified(&self, said: usize, now_ms: u64) -> Option<Verified> {
        let Said { envelope, short_id, .. } = &self.said[said].0;
        let rules = BottleRules::DEFAULT;
        let bottle = || UnverifiedBottle::parse(envelope).unwrap().verify(now_ms, &rules).ok().map(Verified::Bottle);
        let farewell = || {
            let parsed = UnverifiedTombstone::parse(envelope).unwrap();
            parsed.verify(now_ms, self.rules.tombstone_ms, rules.ahead_ms).ok().map(Verified::Farewell)
        };
        let verify = || if short_id.is_some() { bottle() } else { farewell() };
        self.verified.lock().unwrap().entry((said, now_ms)).or_insert_with(verify).clone()
    }

    fn by_short_id(&self, id: ShortId) -> usize {
        self.said.iter().position(|(said, _)| said.short_id == Some(id)).unwrap()
    }

    fn farewell_of(&self, id: NodeId) -> usize {
        self.said.iter().position(|(said, _)| said.node == id && said.short_id.is_none()).unwrap()
    }

    /// Something comes to a node; what it passes on.
    fn take(&self, rack: &mut Bottlerack, said: usize, now_ms: u64) -> Vec<usize> {
        let passed_on = match self.verified(said, now_ms) {
            None => vec![],
            Some(Verified::Bottle(bottle)) => {
                let node = bottle.node_id();
                match rack.insert_limited(bottle, now_ms) {
                    Insert::New | Insert::Newer => vec![said],
                    Insert::Equivocation => {
                        let pair = rack.equivocation(&node).map(|it| it.pair.each_ref().map(VerifiedBottle::short_id));
                        pair.unwrap().map(|id| self.by_short_id(id)).to_vec()
                    }
                    Insert::Buried => vec![self.farewell_of(node)],
                    Insert::Same | Insert::Older | Insert::WrongScope | Insert::Full | Insert::TooOften => vec![],
                }
            }
            Some(Verified::Farewell(tombstone)) => match rack.bury(tombstone, now_ms) {
                Bury::New => vec![said],
                Bury::Same | Bury::Full => vec![],
            },
        };
        // Its store is quick.
        rack.take_changed();
        passed_on
    }

    /// As after a restart: what was stored, and nothing else.
    fn restarted(&self, rack: &Bottlerack, now_ms: u64) -> Bottlerack {
        let nodes: BTreeSet<NodeId> = self.said.iter().map(|(said, _)| said.node).collect();
        let mut fresh = self.empty_rack();
        for key in [RecordKey::Tombstone, RecordKey::Evidence, RecordKey::Bottle] {
            for key in nodes.iter().map(|node| key(*node)) {
                if let Some(bytes) = rack.record(key) {
                    fresh.restore(key, &bytes, now_ms, &BottleRules::DEFAULT).unwrap();
                }
            }
        }
        fresh.take_changed();
        fresh
    }

    // ---- What must hold ----

    /// A lane between two is new, and each end repairs: farewells, then what is held, then what is lacked of it.
    fn repair(&self, racks: &mut [Bottlerack], from: usize, to: usize, now_ms: u64) {
        let left: Vec<NodeId> = racks[from].tombstones().map(Tombstone::node_id).collect();
        for node in left {
            self.take(&mut racks[to], self.farewell_of(node), now_ms);
        }
        let held = racks[from].held_after(None, ALL, now_ms);
        let mut offers = vec![];
        for (at, entry) in held.iter().enumerate() {
            if racks[to].is_buried(&entry.node) {
                self.take(&mut racks[from], self.farewell_of(entry.node), now_ms);
            } else if racks[to].lacks(&held, at, now_ms) {
                offers.push(entry.short_id);
            }
        }
        for id in offers {
            if racks[to].by_short_id(&id).is_none() && racks[from].by_short_id(&id).is_some() {
                self.take(&mut racks[to], self.by_short_id(id), now_ms);
            }
        }
    }

    /// What all hold after as many repairs as news need to cross the mesh, one each interval at which Bottles are taken.
    fn healed(&self, state: &State) -> Vec<Bottlerack> {
        let mut racks: Vec<Bottlerack> = state.racks.iter().map(|rack| Bottlerack::clone(rack)).collect();
        for round in 0..=self.nodes as u64 {
            let now_ms = self.times_ms[state.time] + round * self.rules.interval_ms;
            for (one, other) in &self.links {
                self.repair(&mut racks, *one, *other, now_ms);
                self.repair(&mut racks, *other, *one, now_ms);
            }
        }
        racks
    }

    fn agrees_once_healed(&self, state: &State) -> bool {
        let key = (state.time, state.racks.clone());
        if let Some(agreed) = self.agreed.lock().unwrap().get(&key) {
            return *agreed;
        }
        let now_ms = self.times_ms[state.time];
        let caught: Vec<NodeId> = state.racks.iter().flat_map(|rack| distrusted(rack, now_ms)).collect();
        let healed: Vec<Truth> = self.healed(state).iter().map(|rack| Truth::of(rack, now_ms)).collect();
        let same = healed.windows(2).all(|pair| pair[0] == pair[1]);
        let all_know = caught.iter().all(|node| healed.iter().all(|truth| truth.distrusts(node)));
        self.agreed.lock().unwrap().insert(key, same && all_know);
        same && all_know
    }
}

/// What a node lets its user see.
#[derive(PartialEq)]
struct Truth {
    bottles: Vec<ShortId>,
    names: Vec<Option<String>>,
    distrusted: Vec<NodeId>,
    /// By farewells that are taken still: older ones are kept for as long as it is since they came.
    left: Vec<NodeId>,
}

fn distrusted(rack: &Bottlerack, now_ms: u64) -> Vec<NodeId> {
    let held = rack.iter().map(|stored| stored.bottle.node_id());
    held.filter(|node| rack.trust(node, now_ms) == Trust::Distrusted).collect()
}

impl Truth {
    fn of(rack: &Bottlerack, now_ms: u64) -> Self {
        Self {
            bottles: rack.iter().map(|stored| stored.bottle.short_id()).collect(),
            names: rack.iter().map(|stored| rack.name_of(&stored.bottle.node_id()).map(|name| name.to_string())).collect(),
            distrusted: distrusted(rack, now_ms),
            left: rack.tombstones().filter(|it| it.seq().unix_ms() + LIFE_MS > now_ms).map(Tombstone::node_id).collect(),
        }
    }

    /// Or has seen it leave.
    fn distrusts(&self, node: &NodeId) -> bool {
        self.distrusted.contains(node) || self.left.contains(node)
    }
}

impl Model for Gossip {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let given = self.said.iter().enumerate().flat_map(|(said, (_, to))| to.iter().map(move |node| (said, *node)));
        let empty = Arc::new(self.empty_rack());
        let racks = (0..self.nodes).map(|_| Arc::clone(&empty)).collect();
        vec![State { time: 0, racks, under_way: given.collect(), farewells: BTreeSet::new() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(state.under_way.iter().map(|(said, node)| Action::Deliver { said: *said, node: *node }));
        if self.restarts {
            actions.extend((0..self.nodes).map(Action::Restart));
        }
        if state.time + 1 < self.times_ms.len() {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        let now_ms = self.times_ms[state.time];
        match action {
            Action::Deliver { said, node } => {
                let rack = Arc::make_mut(&mut state.racks[node]);
                let passed_on = self.take(rack, said, now_ms);
                state.farewells.extend(rack.tombstones().map(|tombstone| (node, tombstone.node_id())));
                for said in passed_on {
                    state.under_way.extend(self.neighbours(node).map(|other| (said, other)));
                }
            }
            Action::Restart(node) => state.racks[node] = Arc::new(self.restarted(&before.racks[node], now_ms)),
            Action::Tick => {
                state.time += 1;
                for rack in &mut state.racks {
                    let rack = Arc::make_mut(rack);
                    rack.expire(self.times_ms[state.time]);
                    rack.take_changed();
                }
            }
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("whatever was lost, all agree after a few repairs", Gossip::agrees_once_healed),
            Property::always("nobody who has left comes back", |_, state: &State| {
                state.farewells.iter().all(|(node, left)| {
                    let rack = &state.racks[*node];
                    rack.get(left).is_none() && rack.hint(left).is_none() && rack.name_of(left).is_none()
                })
            }),
            Property::always("of those who want a name the smallest NodeID has it", |model: &Gossip, state: &State| {
                state.racks.iter().all(|rack| {
                    let label = |node: &NodeId| rack.get(node).unwrap().bottle.content().label.clone();
                    let held: Vec<NodeId> = rack.iter().map(|stored| stored.bottle.node_id()).collect();
                    let same = |one: &NodeId, other: &NodeId| {
                        label(one) == label(other) && first_bits(one, model.suffix_bits) == first_bits(other, model.suffix_bits)
                    };
                    let smallest = |node: &NodeId| held.iter().filter(|other| same(node, other)).min() == Some(node);
                    held.iter().all(|node| rack.name_of(node).is_some() == smallest(node))
                })
            }),
        ];
        if self.said.iter().any(|(said, _)| said.short_id.is_none()) {
            properties.push(Property::sometimes("all know that one has left", |_, state: &State| {
                state.racks.iter().all(|rack| rack.tombstones().next().is_some())
            }));
        } else {
            properties.push(Property::sometimes("all hold the same", |model: &Gossip, state: &State| {
                let now_ms = model.times_ms[state.time];
                let truths: Vec<Truth> = state.racks.iter().map(|rack| Truth::of(rack, now_ms)).collect();
                truths.iter().all(|truth| !truth.bottles.is_empty() && *truth == truths[0])
            }));
        }
        properties
    }
}

fn first_bits(node: &NodeId, bits: usize) -> u128 {
    u128::from_be_bytes(*node.0.first_chunk().unwrap()) >> (128 - bits)
}

// ---- What is gone through ----

const ROW_OF_3: [(usize, usize); 2] = [(0, 1), (1, 2)];
const RING_OF_3: [(usize, usize); 3] = [(0, 1), (1, 2), (0, 2)];
const ROW_OF_4: [(usize, usize); 3] = [(0, 1), (1, 2), (2, 3)];

#[test]
fn newer_bottles_reach_all_in_any_order() {
    let said = vec![(bottle(1, 1, 0), vec![0]), (bottle(1, 2, 0), vec![3]), (bottle(2, 1, 0), vec![1])];
    check("Bottles, 4 nodes", Gossip::new(4, &ROW_OF_4, said));
}

#[test]
fn nobody_who_has_left_comes_back() {
    let said = vec![(bottle(1, 1, 0), vec![0, 2]), (bottle(1, 2, 0), vec![0]), (farewell(1, 2), vec![1])];
    let times_ms = vec![START_MS + HOUR_MS / 2, START_MS + 31 * HOUR_MS, START_MS + 31 * 24 * HOUR_MS];
    let model = Gossip { times_ms, restarts: true, ..Gossip::new(3, &RING_OF_3, said) };
    check("farewell, 3 nodes", model);
}

#[test]
fn two_truths_are_known_to_all_wherever_they_came() {
    let said = vec![(bottle(1, 2, 0), vec![0]), (bottle(1, 2, 1), vec![3]), (bottle(1, 3, 0), vec![1])];
    check("two truths, 4 nodes", Gossip::new(4, &ROW_OF_4, said));
}

#[test]
fn three_truths_lead_to_one_bottle() {
    let said = vec![(bottle(1, 2, 0), vec![0]), (bottle(1, 2, 1), vec![1]), (bottle(1, 2, 2), vec![2])];
    let model = Gossip { restarts: true, ..Gossip::new(3, &ROW_OF_3, said) };
    check("three truths, 3 nodes", model);
}

#[test]
fn who_publishes_too_often_is_known_to_all_later() {
    let said =
        vec![(bottle(1, 1, 0), vec![0]), (bottle(1, 2, 0), vec![1]), (bottle(1, 3, 0), vec![2]), (bottle(1, 3, 1), vec![0])];
    let rules = RackRules { interval_ms: HOUR_MS, burst: 1, ..Params::DEFAULT.rack_rules() };
    let times_ms = vec![START_MS + HOUR_MS / 2, START_MS + HOUR_MS, START_MS + 2 * HOUR_MS];
    let model = Gossip { rules, times_ms, ..Gossip::new(3, &ROW_OF_3, said) };
    check("too often, 3 nodes", model);
}

#[test]
fn who_has_a_name_does_not_depend_on_the_order() {
    let suffix_bits = 1;
    let like = (2..=u8::MAX).filter(|seed| first_bits(&id(*seed), suffix_bits) == first_bits(&id(1), suffix_bits));
    let [second, third] = like.take(2).collect::<Vec<_>>().try_into().unwrap();
    let said = vec![
        (called("same", 1, 1, 0), vec![0]),
        (called("same", second, 1, 0), vec![1]),
        (called("same", third, 1, 0), vec![2]),
        (called("other", third, 2, 0), vec![0]),
    ];
    let model = Gossip { suffix_bits, ..Gossip::new(3, &ROW_OF_3, said) };
    check("names, 3 nodes", model);
}
