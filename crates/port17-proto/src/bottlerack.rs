//! The store of verified Bottles (spec 04, 5; spec 11, 3).
//!
//! One Bottle a node, the newest; of two with one seq the one with the smaller short id, so that the order in which Bottles arrive
//! never matters. Two truths under one seq are an equivocation: the pair is kept as evidence, and the node distrusted for a while. A
//! tombstone ends a node: nothing revives it while it is kept. A Bottle that expires becomes a hint where its node may be found.
//!
//! Identities cost nothing, so the places are bounded, and nodes without trust get a share of them; when that is full, an unknown
//! newcomer is the newest of them and is refused. Trusted nodes are never evicted.
//!
//! A Bottlerack has a scope. A node keeps one scope for its life, and a local Bottle never enters public gossip or routes; two racks
//! see to both.

mod names;
mod stored;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::bottle::{Seq, ShortId, Tombstone, VerifiedBottle};
use crate::ids::NodeId;
use crate::limits::{BOTTLERACK_BOTTLES, EQUIVOCATIONS, HINTS, TOMBSTONES, TOMBSTONES_UNKNOWN};
use crate::node::record::RecordKey;
use crate::params::Params;
use crate::planted::planted;
use crate::wire::message::Held;
use crate::wire::registry::Scope;

pub use stored::DamagedRecord;

/// How far a node is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// It signed two truths: no route, no link, no guard.
    Distrusted,
    /// Nobody vouches for it: a hop in the middle, never guard or exit.
    Unknown,
    /// The signed list names it, or the operator where there is none.
    Trusted,
}

/// What a Bottlerack holds, and for how long. Network parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RackRules {
    /// Places for Bottles.
    pub most_bottles: usize,
    /// Those of them that nodes without trust may take.
    pub most_unknown: usize,
    /// Newer Bottles of one node are taken this often on average, milliseconds.
    pub interval_ms: u64,
    /// Newer Bottles of one node that may follow each other at once.
    pub burst: u32,
    /// An expired Bottle is kept this long as a hint, milliseconds.
    pub hint_ms: u64,
    /// A tombstone is kept this long, milliseconds.
    pub tombstone_ms: u64,
    /// Evidence is kept this long, milliseconds.
    pub distrust_ms: u64,
}

/// A Bottle with what we know about it ourselves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoredBottle {
    /// The Bottle.
    pub bottle: VerifiedBottle,
    /// When this version came, Unix milliseconds.
    pub received_ms: u64,
    /// When the node's bucket is full again: a time that runs ahead by one interval a Bottle.
    bucket_ms: u64,
}

/// Two Bottles that one node signed under one seq.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Equivocation {
    /// The two, smaller short id first.
    pub pair: [VerifiedBottle; 2],
    /// When it was found, Unix milliseconds.
    pub found_ms: u64,
}

/// A node's farewell, and when it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Burial {
    tombstone: Tombstone,
    received_ms: u64,
}

/// What became of a Bottle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// The first of its node: stored.
    New,
    /// Newer than the stored one, or of the same seq and preferred: it takes its place.
    Newer,
    /// The stored one, or one of a pair that is kept: nothing new.
    Same,
    /// Older than the stored one: dropped.
    Older,
    /// Another payload under the stored seq: the pair is kept as evidence, and one of the two as the node's Bottle.
    Equivocation,
    /// Of the other scope: dropped.
    WrongScope,
    /// The first of its node, and there is no place: dropped.
    Full,
    /// Its node has left: dropped.
    Buried,
    /// Its node publishes too often: dropped, and taken later if it is still the newest.
    TooOften,
}

/// What became of a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bury {
    /// The node has left: its Bottle is gone.
    New,
    /// That is known.
    Same,
    /// No place.
    Full,
}

/// The Bottles of one scope. Equal to another one if it will do the same whatever comes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bottlerack {
    scope: Scope,
    rules: RackRules,
    bottles: BTreeMap<NodeId, StoredBottle>,
    hints: BTreeMap<NodeId, StoredBottle>,
    equivocations: BTreeMap<NodeId, Equivocation>,
    tombstones: BTreeMap<NodeId, Burial>,
    /// Whose Bottle or evidence a short id names.
    short_ids: BTreeMap<ShortId, NodeId>,
    trusted: BTreeSet<NodeId>,
    /// Bottles held of nodes that are not trusted.
    unknown: usize,
    /// The last Bottle that was too old: with a second one of its seq it is evidence, whatever its node said since.
    last_older: Option<VerifiedBottle>,
    /// Records that differ from what was stored.
    changed: BTreeSet<RecordKey>,
    /// Bits of a NodeID that its name shows.
    suffix_bits: usize,
}

impl Bottlerack {
    /// An empty rack for Bottles of `scope`, with the default rules.
    pub fn new(scope: Scope) -> Self {
        Self::with_rules(scope, Params::DEFAULT.rack_rules())
    }

    /// An empty rack for Bottles of `scope`.
    pub fn with_rules(scope: Scope, rules: RackRules) -> Self {
        let mut rack = Self {
            scope,
            rules,
            bottles: BTreeMap::new(),
            hints: BTreeMap::new(),
            equivocations: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            short_ids: BTreeMap::new(),
            trusted: BTreeSet::new(),
            unknown: 0,
            last_older: None,
            changed: BTreeSet::new(),
            suffix_bits: names::SUFFIX_BITS,
        };
        rack.set_rules(rules);
        rack
    }

    /// Other rules hold from now on. What is held stays.
    pub fn set_rules(&mut self, rules: RackRules) {
        self.rules = RackRules { most_bottles: rules.most_bottles.min(BOTTLERACK_BOTTLES), ..rules };
    }

    // ---- Trust ----

    /// These nodes and no others are trusted: those of the signed list in force.
    pub fn trust_only(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        let before = planted("trust-only-grows").then(|| self.trusted.clone());
        self.trusted = nodes.into_iter().collect();
        self.trusted.extend(before.into_iter().flatten());
        self.unknown = self.bottles.keys().filter(|node| !self.trusted.contains(node)).count();
    }

    /// Bottles held of nodes that are not trusted, whether or not they are accused.
    pub fn unknown(&self) -> usize {
        self.unknown
    }

    /// This node is trusted too: the operator named it. False if it was before.
    pub fn trust_also(&mut self, node: NodeId) -> bool {
        let is_new = self.trusted.insert(node);
        if is_new && self.bottles.contains_key(&node) {
            self.unknown -= 1;
        }
        is_new
    }

    /// How far a node is believed at `now_ms`, Unix milliseconds.
    pub fn trust(&self, node: &NodeId, now_ms: u64) -> Trust {
        let accused = self.equivocation(node).is_some_and(|it| it.found_ms.saturating_add(self.rules.distrust_ms) > now_ms);
        if accused {
            Trust::Distrusted
        } else if self.trusted.contains(node) {
            Trust::Trusted
        } else {
            Trust::Unknown
        }
    }

    // ---- What comes in ----

    /// Takes a Bottle that came at `now_ms`, Unix milliseconds, however often its node publishes.
    pub fn insert(&mut self, bottle: VerifiedBottle, now_ms: u64) -> Insert {
        self.take(bottle, now_ms, false)
    }

    /// Takes a Bottle that came at `now_ms`, Unix milliseconds, if its node does not publish too often.
    pub fn insert_limited(&mut self, bottle: VerifiedBottle, now_ms: u64) -> Insert {
        self.take(bottle, now_ms, true)
    }

    fn take(&mut self, bottle: VerifiedBottle, now_ms: u64, limited: bool) -> Insert {
        if bottle.content().scope != self.scope {
            return Insert::WrongScope;
        }
        let node = bottle.node_id();
        if self.is_buried(&node) {
            return Insert::Buried;
        }
        let Some(stored) = self.bottles.get(&node) else { return self.insert_first(bottle, now_ms) };
        // spec 04, 5: the newest valid seq wins.
        match bottle.seq().cmp(&stored.bottle.seq()) {
            Ordering::Less if planted("rack-takes-older") => self.replace(bottle, now_ms, limited, Insert::Newer),
            Ordering::Less => self.insert_older(bottle, now_ms),
            Ordering::Equal => self.insert_equal(bottle, now_ms, limited),
            Ordering::Greater if planted("evidence-ends-with-newer-bottle") && self.equivocations.contains_key(&node) => {
                self.drop_evidence(&node);
                self.replace(bottle, now_ms, limited, Insert::Newer)
            }
            Ordering::Greater => self.replace(bottle, now_ms, limited, Insert::Newer),
        }
    }

    fn insert_first(&mut self, bottle: VerifiedBottle, now_ms: u64) -> Insert {
        let node = bottle.node_id();
        if !self.has_room(&node) && !self.evict_for(&node) {
            return Insert::Full;
        }
        self.hints.remove(&node);
        self.put(bottle, now_ms, now_ms.saturating_add(self.rules.interval_ms));
        Insert::New
    }

    fn insert_older(&mut self, bottle: VerifiedBottle, now_ms: u64) -> Insert {
        let node = bottle.node_id();
        if self.equivocations.contains_key(&node) {
            return Insert::Older;
        }
        let other = self.last_older.take_if(|last| last.node_id() == node && last.seq() == bottle.seq());
        match other {
            Some(other) if other.payload() != bottle.payload() => self.keep_evidence([other, bottle], now_ms),
            Some(_) | None => {
                self.last_older = Some(bottle);
                Insert::Older
            }
        }
    }

    fn insert_equal(&mut self, bottle: VerifiedBottle, now_ms: u64, limited: bool) -> Insert {
        let node = bottle.node_id();
        let Some(stored) = self.bottles.get(&node) else { return Insert::Full };
        let known = self.equivocations.get(&node).map(|evidence| &evidence.pair);
        let is_in_pair = known.is_some_and(|pair| pair.iter().any(|known| known.payload() == bottle.payload()));
        if is_in_pair || stored.bottle.payload() == bottle.payload() {
            return Insert::Same;
        }
        let (is_preferred, other) = (bottle.short_id() < stored.bottle.short_id(), stored.bottle.clone());
        if self.equivocations.contains_key(&node) {
            // The first pair is proof enough; a third truth changes no more than which one is kept.
            return if is_preferred { self.replace(bottle, now_ms, limited, Insert::Newer) } else { Insert::Same };
        }
        let caught = self.keep_evidence([other, bottle.clone()], now_ms);
        if !is_preferred {
            return caught;
        }
        // Without a place for evidence nothing but the bucket bounds how many truths are taken.
        self.replace(bottle, now_ms, limited && caught != Insert::Equivocation, caught)
    }

    /// Puts the Bottle in the place of its node's older one, if that does not come too often.
    fn replace(&mut self, bottle: VerifiedBottle, now_ms: u64, limited: bool, done: Insert) -> Insert {
        let bucket_ms = self.bottles.get(&bottle.node_id()).map_or(0, |stored| stored.bucket_ms);
        let ahead_ms = self.rules.interval_ms.saturating_mul(u64::from(self.rules.burst.saturating_sub(1)));
        if limited && bucket_ms > now_ms.saturating_add(ahead_ms) {
            return Insert::TooOften;
        }
        self.put(bottle, now_ms, bucket_ms.max(now_ms).saturating_add(self.rules.interval_ms));
        done
    }

    fn put(&mut self, bottle: VerifiedBottle, received_ms: u64, bucket_ms: u64) {
        let node = bottle.node_id();
        self.unindex(&node);
        if self.bottles.insert(node, StoredBottle { bottle, received_ms, bucket_ms }).is_none() && !self.trusted.contains(&node) {
            self.unknown += 1;
        }
        self.index(node);
        self.changed.insert(RecordKey::Bottle(node));
    }

    /// When there is no place for more evidence, what is there stays: but nodes without trust never take the place of a trusted one's,
    /// else whoever fills it with made-up nodes could sign two truths unpunished.
    fn keep_evidence(&mut self, mut pair: [VerifiedBottle; 2], now_ms: u64) -> Insert {
        let node = pair[0].node_id();
        if self.equivocations.len() >= EQUIVOCATIONS && !self.evict_evidence_for(&node) {
            return Insert::Older;
        }
        pair.sort_by_key(VerifiedBottle::short_id);
        self.equivocations.insert(node, Equivocation { pair, found_ms: now_ms });
        self.index(node);
        self.changed.insert(RecordKey::Evidence(node));
        Insert::Equivocation
    }

    /// Keeps an expired Bottle that came at `received_ms` as a hint where its node may be found. False if there is better.
    pub fn insert_hint(&mut self, bottle: VerifiedBottle, received_ms: u64) -> bool {
        let node = bottle.node_id();
        let better = [self.bottles.get(&node), self.hints.get(&node)].into_iter().flatten();
        if self.is_buried(&node) || better.into_iter().any(|known| known.bottle.seq() >= bottle.seq()) {
            return false;
        }
        if self.hints.len() >= HINTS && !self.hints.contains_key(&node) && !self.drop_oldest_hint() {
            return false;
        }
        self.hints.insert(node, StoredBottle { bottle, received_ms, bucket_ms: 0 });
        self.changed.insert(RecordKey::Bottle(node));
        true
    }

    /// A node has said farewell, at `now_ms`, Unix milliseconds. Whatever Bottle is held: a node that goes on after its farewell would
    /// else be buried for some and alive for others, for as long as it goes on.
    pub fn bury(&mut self, tombstone: Tombstone, now_ms: u64) -> Bury {
        let node = tombstone.node_id();
        if self.is_buried(&node) {
            return Bury::Same;
        }
        if !self.has_grave(&node) {
            return Bury::Full;
        }
        self.remove(&node);
        self.hints.remove(&node);
        self.tombstones.insert(node, Burial { tombstone, received_ms: now_ms });
        self.changed.extend([RecordKey::Tombstone(node), RecordKey::Bottle(node)]);
        Bury::New
    }

    /// Whether a tombstone of this node would be kept: strangers must not fill the place of those whose Bottle is held, nor these
    /// that of trusted nodes.
    pub fn has_grave(&self, node: &NodeId) -> bool {
        let most = if self.trusted.contains(node) {
            TOMBSTONES
        } else if self.bottles.contains_key(node) {
            TOMBSTONES - TOMBSTONES_UNKNOWN
        } else {
            TOMBSTONES_UNKNOWN
        };
        self.tombstones.len() < most
    }

    // ---- What is held ----

    /// The Bottle of a node.
    pub fn get(&self, node: &NodeId) -> Option<&StoredBottle> {
        self.bottles.get(node)
    }

    /// The expired Bottle of a node: where it may be found, never a hop.
    pub fn hint(&self, node: &NodeId) -> Option<&StoredBottle> {
        self.hints.get(node)
    }

    /// The seq of a node's Bottle.
    pub fn seq(&self, node: &NodeId) -> Option<Seq> {
        self.get(node).map(|stored| stored.bottle.seq())
    }

    /// Whether the Bottle of this name in gossip is held, be it one of a pair.
    pub fn has_short_id(&self, short_id: &ShortId) -> bool {
        debug_assert_eq!(self.short_ids.contains_key(short_id), self.by_short_id(short_id).is_some());
        self.short_ids.contains_key(short_id)
    }

    /// The Bottle of this name in gossip, be it one of a pair.
    pub fn by_short_id(&self, short_id: &ShortId) -> Option<&VerifiedBottle> {
        let node = self.short_ids.get(short_id)?;
        self.versions(node).find(|bottle| bottle.short_id() == *short_id)
    }

    /// All, in the order of their NodeIDs.
    pub fn iter(&self) -> impl Iterator<Item = &StoredBottle> {
        self.bottles.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.bottles.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bottles.is_empty()
    }

    /// Nodes of which there is a contact hint alone.
    pub fn hinted(&self) -> impl Iterator<Item = NodeId> {
        self.hints.keys().copied()
    }

    /// How many hints.
    pub fn hints(&self) -> usize {
        self.hints.len()
    }

    /// The evidence against a node, if it ever signed two truths.
    pub fn equivocation(&self, node: &NodeId) -> Option<&Equivocation> {
        self.equivocations.get(node)
    }

    /// A node's farewell.
    pub fn tombstone(&self, node: &NodeId) -> Option<&Tombstone> {
        self.tombstones.get(node).map(|burial| &burial.tombstone)
    }

    /// All farewells.
    pub fn tombstones(&self) -> impl Iterator<Item = &Tombstone> {
        self.tombstones.values().map(|burial| &burial.tombstone)
    }

    /// Whether a node has left.
    pub fn is_buried(&self, node: &NodeId) -> bool {
        self.tombstones.contains_key(node)
    }

    /// Whether a Bottle of this node would find a place without another one's end.
    pub fn has_room(&self, node: &NodeId) -> bool {
        let known = self.bottles.contains_key(node);
        let fits = self.trusted.contains(node) || self.unknown < self.rules.most_unknown;
        known || (fits && self.bottles.len() < self.rules.most_bottles)
    }

    /// Whether a newer Bottle of this node would be taken at `now_ms`, Unix milliseconds.
    pub fn would_take(&self, node: &NodeId, now_ms: u64) -> bool {
        let ahead_ms = self.rules.interval_ms.saturating_mul(u64::from(self.rules.burst.saturating_sub(1)));
        match self.bottles.get(node) {
            Some(stored) => stored.bucket_ms <= now_ms.saturating_add(ahead_ms),
            None => !self.is_buried(node) && (self.has_room(node) || self.trusted.contains(node)),
        }
    }

    /// Whether the Bottle at `at` of what a neighbour holds, as its RECONCILE says it, is worth asking for: newer than ours, another
    /// truth under the same seq, one of two truths that prove what is not known here yet, or one of several that is preferred.
    pub fn lacks(&self, held: &[Held], at: usize, now_ms: u64) -> bool {
        let Some(entry) = held.get(at) else { return false };
        let is_twin = |other: Option<&Held>| other.is_some_and(|it| it.node == entry.node && it.seq == entry.seq);
        let twin = is_twin(held.get(at + 1)) || at.checked_sub(1).is_some_and(|before| is_twin(held.get(before)));
        let unproven = self.equivocation(&entry.node).is_none();
        let would_take = || self.would_take(&entry.node, now_ms);
        let Some(ours) = self.get(&entry.node).map(|stored| &stored.bottle) else { return would_take() };
        match entry.seq.cmp(&ours.seq()) {
            Ordering::Less => twin && unproven,
            Ordering::Equal if entry.short_id == ours.short_id() => false,
            // Who has signed three truths must not have some nodes see one and some another (04-M11).
            Ordering::Equal => unproven || (entry.short_id < ours.short_id() && would_take()),
            Ordering::Greater => would_take(),
        }
    }

    /// What a RECONCILE says next: the nodes behind `after`, at least one and at most `most` entries, unexpired at `now_ms`. Both
    /// Bottles of a pair stand together.
    pub fn held_after(&self, after: Option<NodeId>, most: usize, now_ms: u64) -> Vec<Held> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut held = Vec::with_capacity(most.min(self.bottles.len()));
        for (node, stored) in self.bottles.range((after.map_or(Unbounded, Excluded), Unbounded)) {
            if stored.bottle.expires_ms() <= now_ms {
                continue;
            }
            let named = |bottle: &VerifiedBottle| Held { node: *node, seq: bottle.seq(), short_id: bottle.short_id() };
            let before = held.len();
            held.push(named(&stored.bottle));
            if let Some(evidence) = self.equivocations.get(node) {
                held.extend(evidence.pair.iter().map(named));
                held[before..].sort_unstable();
                held.dedup();
            }
            if before > 0 && held.len() > most {
                held.truncate(before);
                break;
            }
        }
        held
    }

    // ---- What ends ----

    /// How many of the trusted nodes are in `nodes` and were not caught, at `now_ms`, Unix milliseconds.
    pub fn trusted_among(&self, nodes: impl Fn(&NodeId) -> bool, now_ms: u64) -> usize {
        self.trusted.iter().filter(|node| nodes(node) && self.trust(node, now_ms) == Trust::Trusted).count()
    }

    /// Drops what has expired at `now_ms` and says whose Bottle it was.
    pub fn expire(&mut self, now_ms: u64) -> Vec<NodeId> {
        let over = |stored: &StoredBottle| stored.bottle.expires_ms() <= now_ms;
        let dropped: Vec<NodeId> = self.bottles.iter().filter(|(_, stored)| over(stored)).map(|(node, _)| *node).collect();
        for node in &dropped {
            if let Some(stored) = self.remove(node) {
                self.insert_hint(stored.bottle, stored.received_ms);
            }
        }
        self.expire_hints(now_ms);
        self.expire_tombstones(now_ms);
        self.forget_equivocations(now_ms.saturating_sub(self.rules.distrust_ms).saturating_add(1));
        dropped
    }

    /// Drops evidence found before `found_before_ms`.
    pub fn forget_equivocations(&mut self, found_before_ms: u64) {
        let old = self.equivocations.iter().filter(|(_, evidence)| evidence.found_ms < found_before_ms);
        for node in old.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.drop_evidence(&node);
        }
    }

    fn expire_hints(&mut self, now_ms: u64) {
        let hint_ms = self.rules.hint_ms;
        let over = |stored: &StoredBottle| stored.bottle.expires_ms().saturating_add(hint_ms) <= now_ms;
        let old: Vec<NodeId> = self.hints.iter().filter(|(_, hint)| over(hint)).map(|(node, _)| *node).collect();
        for node in old {
            self.hints.remove(&node);
            self.changed.insert(RecordKey::Bottle(node));
        }
    }

    fn expire_tombstones(&mut self, now_ms: u64) {
        let tombstone_ms = if planted("grave-as-short-as-distrust") { self.rules.distrust_ms } else { self.rules.tombstone_ms };
        let over = |burial: &Burial| burial.received_ms.saturating_add(tombstone_ms) <= now_ms;
        let old: Vec<NodeId> = self.tombstones.iter().filter(|(_, burial)| over(burial)).map(|(node, _)| *node).collect();
        for node in old {
            self.tombstones.remove(&node);
            self.changed.insert(RecordKey::Tombstone(node));
        }
    }

    /// Makes place for a trusted node: the newest of the others goes.
    fn evict_for(&mut self, node: &NodeId) -> bool {
        if !self.trusted.contains(node) {
            return false;
        }
        let others = self.bottles.iter().filter(|(other, _)| !self.trusted.contains(other));
        let newest = others.max_by_key(|(other, stored)| (stored.received_ms, **other)).map(|(other, _)| *other);
        let Some(newest) = newest else { return false };
        self.remove(&newest);
        true
    }

    /// Makes place for evidence against a trusted node: the newest against another one goes.
    fn evict_evidence_for(&mut self, node: &NodeId) -> bool {
        if !self.trusted.contains(node) {
            return false;
        }
        let others = self.equivocations.iter().filter(|(other, _)| !self.trusted.contains(other));
        let newest = others.max_by_key(|(other, evidence)| (evidence.found_ms, **other)).map(|(other, _)| *other);
        let Some(newest) = newest else { return false };
        self.drop_evidence(&newest);
        true
    }

    fn drop_evidence(&mut self, node: &NodeId) {
        self.unindex(node);
        self.equivocations.remove(node);
        self.index(*node);
        self.changed.insert(RecordKey::Evidence(*node));
    }

    fn remove(&mut self, node: &NodeId) -> Option<StoredBottle> {
        self.unindex(node);
        let stored = self.bottles.remove(node);
        self.index(*node);
        if stored.is_some() && !self.trusted.contains(node) {
            self.unknown -= 1;
        }
        self.changed.insert(RecordKey::Bottle(*node));
        stored
    }

    fn drop_oldest_hint(&mut self) -> bool {
        let others = self.hints.iter().filter(|(node, _)| !self.trusted.contains(node));
        let oldest = others.min_by_key(|(_, hint)| hint.bottle.expires_ms()).map(|(node, _)| *node);
        let Some(oldest) = oldest else { return false };
        self.hints.remove(&oldest);
        self.changed.insert(RecordKey::Bottle(oldest));
        true
    }

    // ---- Names in gossip ----

    fn versions(&self, node: &NodeId) -> impl Iterator<Item = &VerifiedBottle> {
        let pair = self.equivocations.get(node).into_iter().flat_map(|evidence| &evidence.pair);
        self.bottles.get(node).map(|stored| &stored.bottle).into_iter().chain(pair)
    }

    fn index(&mut self, node: NodeId) {
        let ids: Vec<ShortId> = self.versions(&node).map(VerifiedBottle::short_id).collect();
        self.short_ids.extend(ids.into_iter().map(|id| (id, node)));
    }

    fn unindex(&mut self, node: &NodeId) {
        let ids: Vec<ShortId> = self.versions(node).map(VerifiedBottle::short_id).collect();
        for id in ids {
            self.short_ids.remove(&id);
        }
    }
}
