//! The store of verified Bottles (spec 04, 5).
//!
//! One Bottle a node, the newest; of two with one seq the one with the smaller short id, so that the order in which Bottles arrive
//! never matters. Two truths under one seq are an equivocation: the pair is kept as evidence.
//!
//! A Bottlerack has a scope. A node keeps one scope for its life, and a local Bottle never enters public gossip or routes; two racks
//! see to both.

use std::collections::BTreeMap;

use crate::bottle::{Seq, VerifiedBottle};
use crate::ids::NodeId;
use crate::limits::{BOTTLERACK_BOTTLES, EQUIVOCATIONS};
use crate::wire::registry::Scope;

/// A Bottle with what we know about it ourselves.
#[derive(Debug, Clone)]
pub struct StoredBottle {
    /// The Bottle.
    pub bottle: VerifiedBottle,
    /// When this version came, Unix milliseconds.
    pub received_ms: u64,
}

/// Two Bottles that one node signed under one seq.
#[derive(Debug, Clone)]
pub struct Equivocation {
    /// The two, smaller short id first.
    pub pair: [VerifiedBottle; 2],
    /// When it was found, Unix milliseconds.
    pub found_ms: u64,
}

/// How far a node is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trust {
    /// In the signed list in force, or put there by the operator.
    Trusted,
    /// Anybody: a middle hop and nothing else.
    Unknown,
    /// Caught at signing two truths: no route, no link, no guard.
    Distrusted,
}

/// What became of a Bottle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// The first of its node: stored.
    New,
    /// Newer than the stored one: it takes its place.
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
}

/// The Bottles of one scope.
#[derive(Debug, Clone)]
pub struct Bottlerack {
    scope: Scope,
    bottles: BTreeMap<NodeId, StoredBottle>,
    equivocations: BTreeMap<NodeId, Equivocation>,
    most_bottles: usize,
}

impl Bottlerack {
    /// An empty rack for Bottles of `scope`.
    pub fn new(scope: Scope) -> Self {
        Self::with_capacity(scope, BOTTLERACK_BOTTLES)
    }

    /// An empty rack for fewer Bottles than the limit allows.
    pub fn with_capacity(scope: Scope, most_bottles: usize) -> Self {
        let most_bottles = most_bottles.min(BOTTLERACK_BOTTLES);
        Self { scope, bottles: BTreeMap::new(), equivocations: BTreeMap::new(), most_bottles }
    }

    /// Takes a Bottle that came at `now_ms`, Unix milliseconds.
    pub fn insert(&mut self, bottle: VerifiedBottle, now_ms: u64) -> Insert {
        if bottle.content().scope != self.scope {
            return Insert::WrongScope;
        }
        let node = bottle.node_id();
        let Some(stored) = self.bottles.get_mut(&node) else {
            return self.insert_first(bottle, now_ms);
        };
        // spec 04, 5: the newest valid seq wins.
        if bottle.seq() < stored.bottle.seq() {
            return Insert::Older;
        }
        if bottle.seq() > stored.bottle.seq() {
            *stored = StoredBottle { bottle, received_ms: now_ms };
            return Insert::Newer;
        }
        let known = self.equivocations.get(&node).map(|evidence| &evidence.pair);
        let is_in_pair = known.is_some_and(|pair| pair.iter().any(|known| known.payload() == bottle.payload()));
        if is_in_pair || stored.bottle.payload() == bottle.payload() {
            return Insert::Same;
        }
        let mut pair = [stored.bottle.clone(), bottle];
        pair.sort_by_key(VerifiedBottle::short_id);
        stored.bottle = pair[0].clone();
        self.keep_evidence(Equivocation { pair, found_ms: now_ms });
        Insert::Equivocation
    }

    /// The Bottle of a node.
    pub fn get(&self, node: &NodeId) -> Option<&StoredBottle> {
        self.bottles.get(node)
    }

    /// The seq of a node's Bottle.
    pub fn seq(&self, node: &NodeId) -> Option<Seq> {
        self.get(node).map(|stored| stored.bottle.seq())
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

    /// The evidence against a node, if it ever signed two truths.
    pub fn equivocation(&self, node: &NodeId) -> Option<&Equivocation> {
        self.equivocations.get(node)
    }

    /// Drops what has expired at `now_ms` and says whose it was.
    pub fn expire(&mut self, now_ms: u64) -> Vec<NodeId> {
        let mut dropped = Vec::new();
        self.bottles.retain(|node, stored| {
            let lives = stored.bottle.expires_ms() > now_ms;
            if !lives {
                dropped.push(*node);
            }
            lives
        });
        dropped
    }

    /// When the next one expires, Unix milliseconds.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.iter().map(|stored| stored.bottle.expires_ms()).min()
    }

    /// Drops evidence found before `found_before_ms`.
    pub fn forget_equivocations(&mut self, found_before_ms: u64) {
        self.equivocations.retain(|_, evidence| evidence.found_ms >= found_before_ms);
    }

    fn insert_first(&mut self, bottle: VerifiedBottle, now_ms: u64) -> Insert {
        if self.bottles.len() >= self.most_bottles {
            return Insert::Full;
        }
        self.bottles.insert(bottle.node_id(), StoredBottle { bottle, received_ms: now_ms });
        Insert::New
    }

    /// The first pair of a node is proof enough; when there is no place for more, what is there stays.
    fn keep_evidence(&mut self, evidence: Equivocation) {
        if self.equivocations.len() < EQUIVOCATIONS {
            self.equivocations.entry(evidence.pair[0].node_id()).or_insert(evidence);
        }
    }
}
