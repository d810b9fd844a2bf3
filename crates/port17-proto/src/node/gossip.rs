//! What neighbours tell each other about nodes (spec 11).
//!
//! Gossip is pull: who has something new announces its short ids; who lacks them wants them, from one neighbour at a time; the answer
//! is their envelopes. Each node's first word on lane 1 is its own Bottle. What is missed heals: on link up, and every while, a node
//! says all that it holds, and the other one wants what is newer. Tombstones are pushed.
//!
//! Neighbours lie. All that one can make this side keep is a bounded list of offers; it is asked for one WANT at a time, and what it
//! omits or never sends is asked from the next that offered it. Clients only want: nothing else that they say is heard (law 1).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::bottles::Source;
use super::bucket::Bucket;
use super::io::{Counted, LaneId, Peer};
use super::lanes::Closing;
use super::{Node, TimerKey};
use crate::bottle::{BottleError, Seq, ShortId, UnverifiedBottle, UnverifiedTombstone};
use crate::bottlerack::Bury;
use crate::ids::NodeId;
use crate::limits::{
    ANNOUNCE_IDS, ANNOUNCED_AT_ONCE, BOTTLES_BYTES, OFFERED_IDS, RECONCILE_ENTRIES, RECONCILES, RECONCILES_AT_ONCE, REFUSED_IDS,
    WANT_IDS,
};
use crate::params::Rate;
use crate::planted::planted;
use crate::wire::message::{Held, Message};

/// Pieces of a long RECONCILE follow each other after so many batches: one that came at once would fill the lane's queue.
const REPAIR_PAUSE_BATCHES: u32 = 5;

/// The node's own Bottle as gossip sees it.
#[derive(Debug)]
struct OwnBottle {
    seq: Seq,
    short_id: ShortId,
    envelope: Vec<u8>,
    /// Since when it is out.
    out: Duration,
}

/// What is new, and who knows it already.
#[derive(Debug)]
struct Fresh {
    short_id: ShortId,
    known_by: BTreeSet<LaneId>,
}

/// Short ids that a neighbour has and we lack, in the order of their coming.
#[derive(Debug, Default)]
struct Offers {
    in_order: BTreeMap<u64, ShortId>,
    places: BTreeMap<ShortId, u64>,
    made: u64,
}

impl Offers {
    fn push(&mut self, id: ShortId) {
        if self.places.len() >= OFFERED_IDS || self.places.contains_key(&id) {
            return;
        }
        self.made += 1;
        self.in_order.insert(self.made, id);
        self.places.insert(id, self.made);
    }

    fn remove(&mut self, id: &ShortId) -> bool {
        let place = self.places.remove(id);
        place.is_some_and(|place| self.in_order.remove(&place).is_some())
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// Gossip on one admitted lane 1.
#[derive(Debug)]
struct Talk {
    /// Our own Bottle was sent: our first word.
    spoken: bool,
    /// The peer's own Bottle came.
    heard_own: bool,
    offers: Offers,
    /// The WANT that is not answered yet.
    asked: BTreeSet<ShortId>,
    wants: Bucket,
    gives: Bucket,
    announces: Bucket,
    reconciles: u32,
    reconciles_since: Duration,
    /// Where the RECONCILE under way goes on.
    repair_after: Option<NodeId>,
    /// Whether the peer holds our newest Bottle, as it said last.
    holds_ours: Option<bool>,
}

/// All that is said and asked.
#[derive(Debug, Default)]
pub(super) struct Gossip {
    own: Option<OwnBottle>,
    talks: BTreeMap<LaneId, Talk>,
    /// Who was asked for what.
    asked: BTreeMap<ShortId, LaneId>,
    /// Not asked for again before this time.
    refused: BTreeMap<ShortId, Duration>,
    fresh: Vec<Fresh>,
}

impl Node {
    // ---- Our own Bottle first ----

    /// Whether this side can say who it is: a client needs not.
    pub(super) fn has_first_word(&self) -> bool {
        self.is_client() || self.gossip.own.is_some()
    }

    /// A new Bottle of this node is out.
    pub(super) fn own_bottle_published(&mut self, envelope: Vec<u8>) {
        let Ok(parsed) = self.shelf.parse(&envelope) else { return };
        let (seq, short_id) = (parsed.claimed_seq(), parsed.short_id());
        let is_first = self.gossip.own.is_none();
        self.gossip.own = Some(OwnBottle { seq, short_id, envelope, out: self.now.mono });
        let silent: Vec<LaneId> = self.gossip.talks.iter().filter(|(_, talk)| !talk.spoken).map(|(lane, _)| *lane).collect();
        for lane in &silent {
            self.speak(*lane);
        }
        self.gossip.fresh.push(Fresh { short_id, known_by: silent.into_iter().collect() });
        self.gossip_soon();
        if is_first {
            self.dial_all_missing();
        }
    }

    /// The seq of the own Bottle, and since when it is out.
    pub(super) fn own_bottle_out(&self) -> Option<(Seq, Duration)> {
        self.gossip.own.as_ref().map(|own| (own.seq, own.out))
    }

    /// How many neighbours hold our newest Bottle, and how many an older one.
    pub(super) fn own_bottle_taken(&self) -> (usize, usize) {
        let said = |wanted| self.gossip.talks.values().filter(|talk| talk.holds_ours == Some(wanted)).count();
        (said(true), said(false))
    }

    pub(super) fn set_taken(&mut self, lane: LaneId, holds_ours: bool) {
        if let Some(talk) = self.gossip.talks.get_mut(&lane) {
            talk.holds_ours = Some(holds_ours);
        }
    }

    /// Sends the own Bottle alone; a client has none. False if there is none.
    pub(super) fn send_own_bottle(&mut self, lane: LaneId) -> bool {
        let Some(own) = self.gossip.own.as_ref().filter(|_| !self.is_client()) else { return false };
        let message = Message::Bottles { more: false, envelopes: vec![own.envelope.clone()] };
        self.send(lane, &message);
        true
    }

    /// An admitted lane 1. Who dialled has said its first word with HELLO.
    pub(super) fn open_talk(&mut self, lane: LaneId, dialled: bool, heard_own: bool) {
        let talk = Talk {
            spoken: false,
            heard_own,
            offers: Offers::default(),
            asked: BTreeSet::new(),
            wants: Bucket::default(),
            gives: Bucket::default(),
            announces: Bucket::default(),
            reconciles: 0,
            reconciles_since: self.now.mono,
            repair_after: None,
            holds_ours: None,
        };
        self.gossip.talks.insert(lane, talk);
        if self.is_client() {
            return self.greet_with_list(lane);
        }
        if dialled { self.tell_all(lane) } else { self.speak(lane) }
    }

    fn speak(&mut self, lane: LaneId) {
        if self.send_own_bottle(lane) {
            self.tell_all(lane);
        }
    }

    /// The lanes on which the first word is said, or need not be.
    pub(super) fn talking_lanes(&self) -> Vec<LaneId> {
        let is_client = self.is_client();
        self.gossip.talks.iter().filter(|(_, talk)| talk.spoken || is_client).map(|(lane, _)| *lane).collect()
    }

    /// After the first word: who has left, which list is in force, and what is held.
    fn tell_all(&mut self, lane: LaneId) {
        if let Some(talk) = self.gossip.talks.get_mut(&lane) {
            talk.spoken = true;
        }
        let farewells = self.bottlerack.tombstones().map(|tombstone| tombstone.envelope().to_vec()).collect();
        self.send_tombstones(lane, farewells);
        self.repair(lane);
    }

    /// The lane is gone: what it was asked for is asked from others.
    pub(super) fn end_talk(&mut self, lane: LaneId) {
        for key in [TimerKey::Repair(lane), TimerKey::Bulk(lane)] {
            self.timers.cancel(key);
        }
        let Some(talk) = self.gossip.talks.remove(&lane) else { return };
        for id in &talk.asked {
            if !planted("asked-of-a-dead-lane") {
                self.gossip.asked.remove(id);
            }
        }
        if !talk.asked.is_empty() {
            // Not now: the lane's end is often one of several.
            self.gossip_soon();
        }
    }

    // ---- What is said on a lane ----

    /// A message of the stream on an admitted lane 1.
    pub(super) fn handle_stream(&mut self, lane: LaneId, peer: Peer, message: Message) {
        match (message, peer) {
            (Message::Want(ids), _) => self.handle_want(lane, &ids),
            (message @ (Message::ListSeq(_) | Message::WantList { .. }), _) => self.handle_list_message(lane, peer, message),
            (Message::Announce(ids), Peer::Client(_)) if planted("client-gossip-taken") => self.handle_announce(lane, &ids),
            (Message::Bottles { more, envelopes }, Peer::Client(_)) if planted("client-gossip-taken") => {
                self.handle_bottles(lane, self.id, more, envelopes);
            }
            // law 1: nothing that a client says enters the Bottlerack or opens a lane
            (_, Peer::Client(_)) => self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "gossip from a client")),
            (message @ Message::List { .. }, Peer::Node(_)) => self.handle_list_message(lane, peer, message),
            (Message::Announce(ids), Peer::Node(_)) => self.handle_announce(lane, &ids),
            (Message::Bottles { more, envelopes }, Peer::Node(node)) => self.handle_bottles(lane, node, more, envelopes),
            (Message::Tombstones(envelopes), Peer::Node(_)) => self.handle_tombstones(lane, &envelopes),
            (Message::Reconcile { more: _, held }, Peer::Node(_)) => self.handle_reconcile(lane, &held),
            (Message::Publish, Peer::Node(node)) => self.handle_publish(node, true),
            (Message::Unpublish, Peer::Node(node)) => self.handle_publish(node, false),
            (Message::Hello(_) | Message::Ping(_) | Message::Pong(_) | Message::GoAway(_) | Message::Later(_), Peer::Node(_)) => {
            }
        }
    }

    fn handle_announce(&mut self, lane: LaneId, ids: &[ShortId]) {
        let (rate, now) = (twice(self.params.bottles_per_link), self.now.mono);
        let Some(talk) = self.gossip.talks.get_mut(&lane) else { return };
        if !talk.announces.take(rate, ids.len(), now) {
            // What is true of it comes again with the next repair.
            return self.count(Counted::TooMuchGossip);
        }
        for id in ids {
            self.offer(lane, *id);
        }
        self.ask(lane);
    }

    /// spec 11, 4: WANT is answered from what is held, in its order, the own Bottle included.
    fn handle_want(&mut self, lane: LaneId, ids: &[ShortId]) {
        let (rate, now) = (twice(self.params.bottles_per_link), self.now.mono);
        if self.gossip.own.is_none() || self.is_client() {
            return self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "a WANT where nothing was offered"));
        }
        let Some(talk) = self.gossip.talks.get_mut(&lane) else { return };
        if !talk.gives.take(rate, ids.len(), now) {
            return self.close_lane(lane, Closing::broke(Counted::TooMuchGossip, "it wants more Bottles than the rate allows"));
        }
        let different: BTreeSet<_> = ids.iter().collect();
        if different.len() < ids.len() {
            return self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "one Bottle wanted twice at once"));
        }
        let envelopes: Vec<Vec<u8>> = ids.iter().filter_map(|id| self.envelope_of(id)).collect();
        let mut parts = parts(envelopes);
        let last = parts.pop().unwrap_or_default();
        for envelopes in parts {
            self.send(lane, &Message::Bottles { more: true, envelopes });
        }
        self.send(lane, &Message::Bottles { more: false, envelopes: last });
    }

    fn handle_bottles(&mut self, lane: LaneId, peer: NodeId, more: bool, envelopes: Vec<Vec<u8>>) {
        let Some(talk) = self.gossip.talks.get(&lane) else { return };
        if talk.asked.is_empty() {
            return self.handle_first_word(lane, peer, more, &envelopes);
        }
        if more && envelopes.is_empty() {
            return self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "an empty answer that goes on"));
        }
        for envelope in envelopes {
            if let Err(closing) = self.take_answer(lane, &envelope) {
                return self.close_lane(lane, closing);
            }
        }
        if !more {
            self.end_answer(lane);
        }
    }

    /// spec 11, 2: Bottles that nobody asked for are the peer's own, once.
    fn handle_first_word(&mut self, lane: LaneId, peer: NodeId, more: bool, envelopes: &[Vec<u8>]) {
        let unasked = Closing::broke(Counted::OutOfPlace, "Bottles that nobody asked for");
        let Some(talk) = self.gossip.talks.get_mut(&lane) else { return };
        let ([envelope], false, false) = (envelopes, more, talk.heard_own) else { return self.close_lane(lane, unasked) };
        talk.heard_own = true;
        let Ok(bottle) = self.shelf.parse(envelope) else {
            return self.close_lane(lane, Closing::broke(Counted::Malformed, "a malformed Bottle"));
        };
        if bottle.claimed_node_id() != peer {
            return self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "another node's Bottle as its own"));
        }
        if let Err(closing) = self.take_from(lane, bottle) {
            self.close_lane(lane, closing);
        }
    }

    fn take_answer(&mut self, lane: LaneId, envelope: &[u8]) -> Result<(), Closing> {
        let malformed = Closing::broke(Counted::Malformed, "a malformed Bottle");
        let bottle = self.shelf.parse(envelope).map_err(|_| malformed)?;
        let id = bottle.short_id();
        // Taking the one before may have ended the lane: then nothing was asked on it.
        let was_asked = self.gossip.talks.get_mut(&lane).is_some_and(|talk| talk.asked.remove(&id));
        if !was_asked {
            return Err(Closing::broke(Counted::OutOfPlace, "a Bottle that nobody asked for"));
        }
        self.gossip.asked.remove(&id);
        self.take_from(lane, bottle)
    }

    /// A forged Bottle costs its bringer the lane, for it verifies what it passes on. One of the wrong age is a matter of clocks.
    fn take_from(&mut self, lane: LaneId, bottle: UnverifiedBottle) -> Result<(), Closing> {
        let (id, node, seq) = (bottle.short_id(), bottle.claimed_node_id(), bottle.claimed_seq());
        let taken = self.take_bottle(bottle, Source::Lane(lane));
        if node != self.id {
            self.note_age(node, self.is_of_this_time(seq));
        }
        match taken {
            Ok(()) => Ok(()),
            Err(BottleError::Signature) => Err(Closing::broke(Counted::BottleRefused, "a forged Bottle")),
            Err(_) => {
                self.count(Counted::BottleRefused);
                self.refuse_again(id);
                Ok(())
            }
        }
    }

    /// The answer is complete: what is missing is asked from the next who offered it.
    fn end_answer(&mut self, lane: LaneId) {
        let Some(talk) = self.gossip.talks.get_mut(&lane) else { return };
        self.timers.cancel(TimerKey::Bulk(lane));
        let omitted = std::mem::take(&mut talk.asked);
        for id in &omitted {
            self.gossip.asked.remove(id);
            self.count(Counted::BottleOmitted);
        }
        if omitted.is_empty() { self.ask(lane) } else { self.ask_all() }
    }

    pub(super) fn handle_bulk_timeout(&mut self, lane: LaneId) {
        self.close_lane(lane, Closing::silent(Counted::AnswerTimeout));
    }

    fn handle_tombstones(&mut self, lane: LaneId, envelopes: &[Vec<u8>]) {
        let mut new = Vec::new();
        let mut broke = None;
        for envelope in envelopes {
            let tombstone = UnverifiedTombstone::parse(envelope);
            let taken = tombstone.map_err(|_| Closing::broke(Counted::Malformed, "a malformed tombstone"));
            match taken.and_then(|tombstone| self.take_tombstone(tombstone)) {
                Ok(Some(node)) => new.push((node, envelope.clone())),
                Ok(None) => {}
                Err(closing) => {
                    broke = Some(closing);
                    break;
                }
            }
        }
        self.say_farewells(new, Some(lane));
        if let Some(closing) = broke {
            self.close_lane(lane, closing);
        }
    }

    /// A tombstone from the operator.
    pub(super) fn handle_tombstone(&mut self, bytes: &[u8]) {
        let taken = UnverifiedTombstone::parse(bytes).ok().and_then(|tombstone| self.take_tombstone(tombstone).ok());
        match taken {
            Some(Some(node)) => self.say_farewells(vec![(node, bytes.to_vec())], None),
            Some(None) => {}
            None => self.count(Counted::TombstoneRefused),
        }
    }

    /// Tells all but who brought them that nodes have left.
    fn say_farewells(&mut self, new: Vec<(NodeId, Vec<u8>)>, from: Option<LaneId>) {
        if new.is_empty() {
            return;
        }
        let envelopes: Vec<Vec<u8>> = new.iter().map(|(_, envelope)| envelope.clone()).collect();
        let others = self.gossip.talks.iter().filter(|(lane, talk)| Some(**lane) != from && talk.spoken);
        for lane in others.map(|(lane, _)| *lane).collect::<Vec<_>>() {
            self.send_tombstones(lane, envelopes.clone());
        }
        for (node, _) in new {
            self.bottle_changed(node);
            self.part_with(node);
        }
    }

    /// The node that has left, if that is news.
    fn take_tombstone(&mut self, tombstone: UnverifiedTombstone) -> Result<Option<NodeId>, Closing> {
        let node = tombstone.claimed_node_id();
        if self.bottlerack.is_buried(&node) {
            return Ok(None);
        }
        // Before its signature is looked at: else a flood of them costs more than its sender.
        if node == self.id || !self.bottlerack.has_grave(&node) {
            self.count(Counted::TombstoneRefused);
            return Ok(None);
        }
        let (life_ms, ahead_ms) = (self.params.rack_rules().tombstone_ms, self.params.bottle_rules().ahead_ms);
        let verified = match tombstone.verify(self.now.unix_ms, life_ms, ahead_ms) {
            Ok(verified) => verified,
            Err(crate::bottle::TombstoneError::Signature) => {
                return Err(Closing::broke(Counted::TombstoneRefused, "a forged tombstone"));
            }
            Err(_) => {
                self.count(Counted::TombstoneRefused);
                return Ok(None);
            }
        };
        match self.bottlerack.bury(verified, self.now.unix_ms) {
            Bury::New => Ok(Some(node)),
            Bury::Same => Ok(None),
            Bury::Full => {
                self.count(Counted::TombstoneRefused);
                Ok(None)
            }
        }
    }

    pub(super) fn send_tombstones(&mut self, lane: LaneId, envelopes: Vec<Vec<u8>>) {
        if self.is_client() || envelopes.is_empty() {
            return;
        }
        for part in parts(envelopes) {
            self.send(lane, &Message::Tombstones(part));
        }
    }

    // ---- Repair ----

    /// Says the next piece of all that is held; at first several, and which list is in force.
    pub(super) fn repair(&mut self, lane: LaneId) {
        let Some(mut after) = self.gossip.talks.get(&lane).map(|talk| talk.repair_after) else { return };
        if after.is_none() {
            self.greet_with_list(lane);
        }
        let pieces = if after.is_none() { RECONCILES_AT_ONCE } else { 1 };
        let mut more = true;
        for _ in 0..pieces {
            let held = self.next_held(after);
            let last = held.last().map(|held| held.node).filter(|node| *node != self.id).or(after);
            more = last.is_some() && !self.bottlerack.held_after(last, 1, self.now.unix_ms).is_empty();
            after = last;
            self.send(lane, &Message::Reconcile { more, held });
            if !more {
                break;
            }
        }
        let next = if more { self.params.gossip_batch * REPAIR_PAUSE_BATCHES } else { self.spread(self.params.repair_interval) };
        if let Some(talk) = self.gossip.talks.get_mut(&lane) {
            talk.repair_after = after.filter(|_| more);
        }
        self.timers.set(TimerKey::Repair(lane), self.now.mono + next);
    }

    /// What comes behind `after`; the first piece begins with the own Bottle.
    fn next_held(&self, after: Option<NodeId>) -> Vec<Held> {
        let own = self.gossip.own.as_ref().filter(|_| after.is_none());
        let own = own.map(|own| Held { node: self.id, seq: own.seq, short_id: own.short_id });
        let most = RECONCILE_ENTRIES - usize::from(own.is_some());
        own.into_iter().chain(self.bottlerack.held_after(after, most, self.now.unix_ms)).collect()
    }

    fn handle_reconcile(&mut self, lane: LaneId, held: &[Held]) {
        if !self.may_reconcile(lane) {
            return self.close_lane(lane, Closing::broke(Counted::TooMuchGossip, "RECONCILE without end"));
        }
        let mut farewells = Vec::new();
        for (at, entry) in held.iter().enumerate() {
            if let Some(tombstone) = self.bottlerack.tombstone(&entry.node) {
                farewells.push(tombstone.envelope().to_vec());
                continue;
            }
            self.note_entry(lane, entry);
            if self.lacks(held, at) {
                self.offer(lane, entry.short_id);
            }
        }
        // Each is sent once in a message, and at most one message for one that came.
        farewells.dedup();
        if let Some(first) = parts(farewells).into_iter().next() {
            self.send_tombstones(lane, first);
        }
        self.ask(lane);
    }

    /// What a neighbour holds also says what its clock and ours are like.
    fn note_entry(&mut self, lane: LaneId, entry: &Held) {
        if entry.node == self.id {
            self.note_held_of_us(lane, entry.seq);
        } else {
            self.note_age(entry.node, self.is_of_this_time(entry.seq));
        }
    }

    fn may_reconcile(&mut self, lane: LaneId) -> bool {
        let (now, interval) = (self.now.mono, self.params.repair_interval / 2);
        let Some(talk) = self.gossip.talks.get_mut(&lane) else { return false };
        if now.saturating_sub(talk.reconciles_since) >= interval {
            talk.reconciles = 0;
            talk.reconciles_since = now;
        }
        talk.reconciles += 1;
        talk.reconciles <= RECONCILES
    }

    /// Whether a Bottle that a neighbour holds is worth asking for.
    fn lacks(&self, held: &[Held], at: usize) -> bool {
        let Some(entry) = held.get(at) else { return false };
        if !self.is_of_this_time(entry.seq) {
            return false;
        }
        if entry.node == self.id {
            return self.gossip.own.as_ref().is_some_and(|own| entry.seq > own.seq);
        }
        self.bottlerack.lacks(held, at, self.now.unix_ms)
    }

    // ---- Asking ----

    /// A neighbour has this Bottle.
    fn offer(&mut self, lane: LaneId, id: ShortId) {
        if self.holds(&id) || self.is_refused(&id) {
            return;
        }
        if let Some(talk) = self.gossip.talks.get_mut(&lane) {
            talk.offers.push(id);
        }
    }

    fn ask_all(&mut self) {
        let lanes: Vec<LaneId> = self.gossip.talks.keys().copied().collect();
        for lane in lanes {
            self.ask(lane);
        }
    }

    /// Sends the next WANT, if none is unanswered: what this neighbour offered, we still lack, and nobody else was asked for.
    fn ask(&mut self, lane: LaneId) {
        let (rate, now) = (self.params.bottles_per_link, self.now.mono);
        let Some(talk) = self.gossip.talks.get_mut(&lane) else { return };
        if !talk.asked.is_empty() || talk.offers.is_empty() {
            return;
        }
        let most = usize::try_from(talk.wants.available(rate, now)).unwrap_or(usize::MAX).min(WANT_IDS);
        if most == 0 {
            return self.gossip_soon();
        }
        let ids = self.take_offers(lane, most);
        let Some(talk) = self.gossip.talks.get_mut(&lane) else { return };
        if ids.is_empty() || !talk.wants.take(rate, ids.len(), now) {
            return;
        }
        talk.asked.extend(&ids);
        self.gossip.asked.extend(ids.iter().map(|id| (*id, lane)));
        self.timers.set(TimerKey::Bulk(lane), now + self.params.bulk_timeout);
        self.send(lane, &Message::Want(ids));
    }

    /// Takes up to `most` ids out of a neighbour's offers, and those that nobody needs any more.
    fn take_offers(&mut self, lane: LaneId, most: usize) -> Vec<ShortId> {
        let Some(talk) = self.gossip.talks.get(&lane) else { return Vec::new() };
        let (mut chosen, mut needless) = (Vec::new(), Vec::new());
        for id in talk.offers.in_order.values() {
            if chosen.len() == most {
                break;
            }
            if self.holds(id) || self.is_refused(id) {
                needless.push(*id);
            } else if !self.gossip.asked.contains_key(id) {
                chosen.push(*id);
            }
        }
        if let Some(talk) = self.gossip.talks.get_mut(&lane) {
            for id in needless.iter().chain(&chosen) {
                talk.offers.remove(id);
            }
        }
        chosen
    }

    fn holds(&self, id: &ShortId) -> bool {
        self.gossip.own.as_ref().is_some_and(|own| own.short_id == *id) || self.bottlerack.has_short_id(id)
    }

    fn is_refused(&self, id: &ShortId) -> bool {
        self.gossip.refused.get(id).is_some_and(|until| *until > self.now.mono)
    }

    /// A Bottle was refused: whoever offers it, it is not asked for again before the next repair.
    pub(super) fn refuse_again(&mut self, id: ShortId) {
        let now = self.now.mono;
        if self.gossip.refused.len() >= REFUSED_IDS {
            self.gossip.refused.retain(|_, until| *until > now);
        }
        if self.gossip.refused.len() < REFUSED_IDS {
            self.gossip.refused.insert(id, now + self.params.repair_interval / 2);
        }
    }

    fn envelope_of(&self, id: &ShortId) -> Option<Vec<u8>> {
        if let Some(own) = self.gossip.own.as_ref().filter(|own| own.short_id == *id) {
            return Some(own.envelope.clone());
        }
        let bottle = self.bottlerack.by_short_id(id)?;
        // Nobody would take an expired one.
        (bottle.expires_ms() > self.now.unix_ms).then(|| bottle.envelope().to_vec())
    }

    // ---- Announcing ----

    /// A Bottle is new here: all neighbours and clients hear of it with the next batch, but who brought it or has offered it.
    pub(super) fn forward(&mut self, short_id: ShortId, from: Option<LaneId>) {
        let mut known_by: BTreeSet<LaneId> = from.into_iter().collect();
        for (lane, talk) in &mut self.gossip.talks {
            if talk.offers.remove(&short_id) {
                known_by.insert(*lane);
            }
        }
        if !self.is_client() {
            self.gossip.fresh.push(Fresh { short_id, known_by });
            self.gossip_soon();
        }
    }

    fn gossip_soon(&mut self) {
        self.timers.set_earlier(TimerKey::Gossip, self.now.mono + self.params.gossip_batch);
    }

    /// The batch: announces what is new, and asks where a neighbour is free again.
    pub(super) fn gossip_batch(&mut self) {
        let count = self.gossip.fresh.len().min(ANNOUNCED_AT_ONCE);
        let mut batch: Vec<Fresh> = self.gossip.fresh.drain(..count).collect();
        batch.retain(|fresh| self.holds(&fresh.short_id));
        let lanes: Vec<LaneId> = self.gossip.talks.iter().filter(|(_, talk)| talk.spoken).map(|(lane, _)| *lane).collect();
        for lane in lanes {
            let unknown = batch.iter().filter(|fresh| !fresh.known_by.contains(&lane));
            let ids: Vec<ShortId> = unknown.map(|fresh| fresh.short_id).collect();
            for ids in ids.chunks(ANNOUNCE_IDS) {
                self.send(lane, &Message::Announce(ids.to_vec()));
            }
        }
        if !self.gossip.fresh.is_empty() {
            self.gossip_soon();
        }
        self.ask_all();
    }
}

/// The other side's share of a rate: what it does by the rate itself is never too much, even if it comes in heaps.
fn twice(rate: Rate) -> Rate {
    Rate { per_second: rate.per_second.saturating_mul(2), burst: rate.burst.saturating_mul(2) }
}

/// Envelopes as one message takes them: at least one each.
fn parts(envelopes: Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
    let mut parts: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut filled = 0;
    for envelope in envelopes {
        filled += envelope.len();
        match parts.last_mut() {
            Some(part) if filled <= BOTTLES_BYTES => part.push(envelope),
            Some(_) | None => {
                filled = envelope.len();
                parts.push(vec![envelope]);
            }
        }
    }
    parts
}
