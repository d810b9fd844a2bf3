//! What becomes of a Bottle that comes in, step by step (spec 04, 5; spec 11, 3): parse; signature, bounds, age; tombstone; compare
//! and store; name; forward. New addresses will be verified between comparing and naming (later); until then a Bottle is stored and
//! passed on without.

use super::io::{Counted, LaneId, Output};
use super::lanes::Closing;
use super::record::{Record, RecordKey};
use super::{Node, TimerKey};
use crate::bottle::{BottleError, UnverifiedBottle, VerifiedBottle};
use crate::bottlerack::{Insert, Trust};
use crate::ids::NodeId;
use crate::wire::registry::GoAwayReason;

/// How a Bottle came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// From the operator's directory.
    Directory,
    /// Over a lane.
    Lane(LaneId),
    /// As the first word of a node that has dialled: there is no need to dial it.
    Met(LaneId),
}

impl Source {
    fn lane(self) -> Option<LaneId> {
        match self {
            Self::Directory => None,
            Self::Lane(lane) | Self::Met(lane) => Some(lane),
        }
    }
}

impl Node {
    /// How far a node is believed: nodes of the signed list in force, or without a network those of the operator's directory, are
    /// trusted; who signed two truths is distrusted; all others are unknown.
    pub fn trust(&self, node: &NodeId) -> Trust {
        self.bottlerack.trust(node, self.now.unix_ms)
    }

    /// The bytes of a Bottle in the operator's directory.
    pub(super) fn handle_bottle(&mut self, bytes: &[u8]) {
        let taken = self.shelf.parse(bytes).and_then(|bottle| self.take_bottle(bottle, Source::Directory));
        if taken.is_err() {
            self.count(Counted::BottleRefused);
        }
    }

    /// Takes a Bottle that was parsed.
    ///
    /// # Errors
    /// When it does not verify (law 4: nothing unverified goes further).
    pub(super) fn take_bottle(&mut self, bottle: UnverifiedBottle, from: Source) -> Result<(), BottleError> {
        let bottle = self.verify_bottle(bottle)?;
        self.take_verified(bottle, from);
        Ok(())
    }

    /// Signature, bounds and age.
    fn verify_bottle(&self, bottle: UnverifiedBottle) -> Result<VerifiedBottle, BottleError> {
        bottle.verify(self.now.unix_ms, &self.params.bottle_rules())
    }

    fn take_verified(&mut self, bottle: VerifiedBottle, from: Source) {
        let (node, short_id) = (bottle.node_id(), bottle.short_id());
        if node == self.id {
            return self.meet_own_bottle(bottle.seq());
        }
        if from == Source::Directory && self.network.is_none() && self.bottlerack.trust_also(node) {
            // Its Bottle may be here already, by gossip.
            self.push(Output::BottlerackChanged(node));
        }
        if self.is_farewelled(node, from) {
            return self.refuse_again(short_id);
        }
        match self.compare_and_store(bottle, from) {
            Insert::New | Insert::Newer => {
                self.settle_name(node);
                self.bottle_changed(node);
                if !matches!(from, Source::Met(_)) {
                    self.dial_missing(node);
                }
                self.forward(short_id, from.lane());
            }
            Insert::Equivocation => {
                self.count(Counted::BottleEquivocation);
                self.bottle_changed(node);
                self.accuse(node, from.lane());
            }
            Insert::Same => {}
            refused => {
                if let Some(counted) = counted_as(refused) {
                    self.count(counted);
                }
                self.refuse_again(short_id);
            }
        }
    }

    /// Whether the node has left; who does not know it is told.
    fn is_farewelled(&mut self, node: NodeId, from: Source) -> bool {
        let Some(tombstone) = self.bottlerack.tombstone(&node) else { return false };
        let envelope = tombstone.envelope().to_vec();
        self.count(Counted::BottleBuried);
        if let Some(lane) = from.lane() {
            self.send_tombstones(lane, vec![envelope]);
        }
        true
    }

    /// The newest valid seq wins, within the bounds.
    fn compare_and_store(&mut self, bottle: VerifiedBottle, from: Source) -> Insert {
        match from {
            // The operator may start a node as often as he likes.
            Source::Directory => self.bottlerack.insert(bottle, self.now.unix_ms),
            Source::Lane(_) | Source::Met(_) => self.bottlerack.insert_limited(bottle, self.now.unix_ms),
        }
    }

    /// spec 04, 5: a name that another identity holds is nobody else's; the Bottle stays, nameless.
    fn settle_name(&mut self, node: NodeId) {
        if self.bottlerack.name_of(&node).is_none() {
            self.count(Counted::NameTaken);
        }
    }

    /// The rack has changed: records, maps, guards.
    pub(super) fn bottle_changed(&mut self, node: NodeId) {
        self.save_records();
        self.push(Output::BottlerackChanged(node));
        self.guard_news(node);
        self.links_changed();
    }

    /// Both truths of a node go to all, and it is no neighbour any more.
    fn accuse(&mut self, node: NodeId, from: Option<LaneId>) {
        let pair = self.bottlerack.equivocation(&node).map(|it| it.pair.each_ref().map(VerifiedBottle::short_id));
        for short_id in pair.into_iter().flatten() {
            self.forward(short_id, from);
        }
        self.part_with(node);
    }

    /// A node that is linked to no more: its lanes end.
    pub(super) fn part_with(&mut self, node: NodeId) {
        if self.decides() {
            return self.drop_link(node);
        }
        for lane in self.lanes_of(node) {
            self.close_lane(lane, Closing::refused(GoAwayReason::Stranger, Counted::Stranger));
        }
    }

    /// The first Bottle on a lane whose key is not known: who is it, and may it be a neighbour? It is stored only if it may: else
    /// anyone could fill the map without a link.
    pub(super) fn meet_stranger(&mut self, lane: LaneId, envelope: &[u8]) -> Result<NodeId, Closing> {
        let stranger = Closing::refused(GoAwayReason::Stranger, Counted::Stranger);
        let key = self.lanes.by_id(lane).map(|lane| lane.peer_key).ok_or(stranger)?;
        let forged = Closing::broke(Counted::Malformed, "a first Bottle that is none");
        let parsed = self.shelf.parse(envelope).map_err(|_| forged)?;
        let node = parsed.claimed_node_id();
        if node == self.id || self.bottlerack.is_buried(&node) || self.trust(&node) == Trust::Distrusted {
            return Err(stranger);
        }
        let bottle = self.verify_bottle(parsed).map_err(|error| match error {
            BottleError::Signature => forged,
            _ => Closing::refused(GoAwayReason::Stranger, Counted::BottleRefused),
        })?;
        // spec 05, 4: a node's key is in its Bottle
        if !bottle.link_keys(self.now.unix_ms).contains(&key) {
            return Err(stranger);
        }
        self.accepts_link(node)?;
        self.take_verified(bottle, Source::Met(lane));
        if self.bottlerack.get(&node).is_none() {
            return Err(Closing::refused(GoAwayReason::Full, Counted::BottlerackFull));
        }
        // A newer Bottle that is held may name another key.
        if self.link_keys(node).contains(&key) { Ok(node) } else { Err(stranger) }
    }

    // ---- What ends, what is kept ----

    pub(super) fn sweep_bottlerack(&mut self) {
        for node in self.bottlerack.expire(self.now.unix_ms) {
            self.push(Output::BottlerackChanged(node));
        }
        self.save_records();
        self.timers.set(TimerKey::Bottlerack, self.now.mono + super::BOTTLERACK_SWEEP);
    }

    /// Hands out what the store must keep or drop.
    pub(super) fn save_records(&mut self) {
        for key in self.bottlerack.take_changed() {
            let output = self.bottlerack.record(key).map_or(Output::Forget(key), |bytes| Output::Save(key, bytes));
            self.push(output);
        }
    }

    /// Takes back what an earlier run stored: farewells and evidence before the Bottles that they concern.
    pub(super) fn restore_bottlerack(&mut self, stored: Vec<Record>) {
        let rules = self.params.bottle_rules();
        // Another role of this process may have kept the node's own: it is nobody else's, and gossip brings it again.
        let own = RecordKey::Bottle(self.id);
        let (owns, stored): (Vec<_>, Vec<_>) = stored.into_iter().partition(|(key, _)| *key == own);
        self.outputs.extend(owns.into_iter().map(|(key, _)| Output::Forget(key)));
        let (bottles, others): (Vec<_>, Vec<_>) = stored.into_iter().partition(|(key, _)| matches!(key, RecordKey::Bottle(_)));
        for (key, bytes) in others.into_iter().chain(bottles) {
            if self.bottlerack.restore(key, &bytes, self.now.unix_ms, &rules).is_err() {
                self.count(Counted::RecordDamaged);
            }
        }
        self.save_records();
        let nodes: Vec<NodeId> = self.bottlerack.iter().map(|stored| stored.bottle.node_id()).collect();
        for node in nodes {
            self.bottle_changed(node);
        }
        // A hint is enough to dial.
        self.dial_all_missing();
    }
}

fn counted_as(refused: Insert) -> Option<Counted> {
    match refused {
        Insert::Older => Some(Counted::BottleOlder),
        Insert::Full => Some(Counted::BottlerackFull),
        Insert::WrongScope => Some(Counted::BottleRefused),
        Insert::Buried => Some(Counted::BottleBuried),
        Insert::TooOften => Some(Counted::BottleTooOften),
        Insert::New | Insert::Newer | Insert::Same | Insert::Equivocation => None,
    }
}
