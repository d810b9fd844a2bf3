//! The node's own Bottle: what it says, when a new one is due, and that its sequence number is stored first (spec 04, 3; spec 10, 1).
//!
//! A new Bottle is due at the start, with each circuit key, when a link is published that the last one does not list (at once), and
//! when links were lost for a while (at most hourly). Changes are gathered, and a token bucket holds back what would come too often.
//! The first Bottle lists all configured neighbours, or the links of the last run: a link that is listed and down for a moment costs
//! nobody a Bottle. What is listed is `publish`'s to say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::config::NodeSetup;
use super::io::{Counted, Output};
use super::{Node, Part, TimerKey};
use crate::bottle::{BottleContent, CircuitKey, LinkClaim, NodePrefix, ProtocolRange, Seq, rtt_code};
use crate::ids::NodeId;
use crate::limits::RESTING_LINKS;
use crate::params::Params;
use crate::planted::planted;
use crate::timers::Time;
use crate::wire::registry::{MEASURE_UNKNOWN, Scope};

/// The Bottle that is out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    pub(super) seq: Seq,
    pub(super) at: Duration,
}

pub(super) struct Own {
    pub(super) setup: Box<NodeSetup>,
    /// The highest sequence number that was stored or met.
    last_seq: Option<Seq>,
    /// Being stored.
    pub(super) pending: Option<Seq>,
    /// Something changed while it was.
    changed: bool,
    pub(super) published: Option<Published>,
    /// When the last token of the bucket would be back: a time that runs ahead by one interval a Bottle.
    bucket: Duration,
    /// The nodes whose links the next Bottle lists.
    pub(super) listed: BTreeSet<NodeId>,
    /// Nodes that took a link back, and until when theirs is not listed again.
    resting: BTreeMap<NodeId, Duration>,
    last_losses: Option<Duration>,
    /// When the listed links were stored last.
    pub(super) anchors_saved: Option<Duration>,
}

impl Own {
    pub(super) fn new(setup: Box<NodeSetup>, now: Time) -> Self {
        Self {
            last_seq: setup.stored_seq.filter(|_| !planted("stored-seq-forgotten")),
            listed: setup.neighbours.iter().flatten().copied().collect(),
            setup,
            pending: None,
            changed: false,
            published: None,
            bucket: now.mono,
            resting: BTreeMap::new(),
            last_losses: None,
            anchors_saved: None,
        }
    }

    pub(super) fn has_address(&self) -> bool {
        !self.setup.addresses.is_empty()
    }

    /// Whether the node decides about its links itself.
    pub(super) fn decides(&self) -> bool {
        self.setup.neighbours.is_none()
    }

    /// A node that takes back links again and again must not use up the bucket: its link stays out for a while.
    pub(super) fn rest(&mut self, node: NodeId, now: Duration, time: Duration) {
        self.resting.retain(|_, until| *until > now);
        if self.resting.len() < RESTING_LINKS {
            self.resting.insert(node, now + time);
        }
    }

    pub(super) fn rests(&self, node: &NodeId, now: Duration) -> bool {
        self.resting.get(node).is_some_and(|until| *until > now)
    }

    /// When the bucket has a token.
    fn token_at(&self, params: &Params) -> Duration {
        self.bucket.saturating_sub(params.bottle_interval * (params.bottle_burst - 1))
    }

    fn take_token(&mut self, params: &Params, now: Duration) {
        self.bucket = self.bucket.max(now) + params.bottle_interval;
    }

    fn content(
        &self,
        seq: Seq,
        circuit_key: CircuitKey,
        params: &Params,
        round_trips: &BTreeMap<NodeId, Duration>,
    ) -> BottleContent {
        let setup = &self.setup;
        let latest_s = (seq.unix_ms() / 1000).saturating_add(params.link_key_lifetime.as_secs());
        BottleContent {
            identity: setup.identity.public(),
            seq,
            scope: Scope::Public,
            label: setup.label.clone(),
            group: setup.group.clone(),
            link_key: setup.link_key,
            link_key_expiry_s: setup.link_key_expiry_s.min(latest_s),
            next_link_key: setup.next_link_key,
            circuit_key,
            addresses: setup.addresses.clone(),
            egress: setup.egress.clone(),
            links: self.links(round_trips),
            exit_policy: setup.exit_policy.clone(),
            load: 0,
            flags: setup.flags,
            protocol: ProtocolRange::OURS,
            software: setup.software.clone(),
            unknown: BTreeMap::new(),
        }
    }

    fn links(&self, round_trips: &BTreeMap<NodeId, Duration>) -> Vec<LinkClaim> {
        // One claim a prefix, in the order of the prefixes.
        let claims: BTreeMap<NodePrefix, LinkClaim> = (self.listed.iter())
            .map(|node| {
                let rtt_us = round_trips.get(node).map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
                let peer = NodePrefix::from(node);
                (peer, LinkClaim { peer, rtt: rtt_us.map_or(MEASURE_UNKNOWN, rtt_code), capacity: MEASURE_UNKNOWN })
            })
            .collect();
        claims.into_values().collect()
    }
}

impl Node {
    /// A new Bottle is due, as soon as changes are gathered and the bucket allows.
    pub(super) fn want_bottle(&mut self) {
        let Part::Node(part) = &mut self.part else { return };
        if part.own.pending.is_some() {
            part.own.changed = true;
            return;
        }
        // The first one waits for nothing.
        let batch = if part.own.published.is_some() { self.params.bottle_batch } else { Duration::ZERO };
        let at = (self.now.mono + batch).max(part.own.token_at(&self.params));
        self.timers.set_earlier(TimerKey::Publish, at);
    }

    /// The first half of publishing: the sequence number is drawn and goes to be stored.
    pub(super) fn publish(&mut self) {
        let Part::Node(part) = &mut self.part else { return };
        if part.own.pending.is_some() {
            part.own.changed = true;
            return;
        }
        let seq = Seq::next(part.own.last_seq, self.now.unix_ms, &mut self.entropy);
        part.own.pending = Some(seq);
        self.push(Output::StoreSeq(seq));
        if planted("bottle-before-its-seq") {
            self.handle_seq_stored(seq);
        }
    }

    /// The second half: signed and out.
    pub(super) fn handle_seq_stored(&mut self, seq: Seq) {
        let round_trips = self.round_trips();
        let Part::Node(part) = &mut self.part else { return };
        let own = &mut part.own;
        if own.pending.take_if(|pending| *pending == seq).is_none() {
            return;
        }
        if own.last_seq.is_some_and(|met| met >= seq) {
            // spec 04, 3: a newer one of this node was met meanwhile; jump past it
            return self.publish();
        }
        own.last_seq = Some(seq);
        let Some(key) = part.keys.current() else { return };
        let circuit_key = CircuitKey { public: key.public.clone(), not_after_s: key.not_after_s };
        let content = own.content(seq, circuit_key, &self.params, &round_trips);
        let Ok(bytes) = content.sign(own.setup.identity.key()) else {
            return self.count(Counted::BottleNotMade);
        };
        own.published = Some(Published { seq, at: self.now.mono });
        own.take_token(&self.params, self.now.mono);
        let changed = std::mem::take(&mut own.changed);
        self.push(Output::PublishBottle { seq, bytes: bytes.clone() });
        self.own_bottle_published(bytes);
        if changed {
            self.want_bottle();
        }
    }

    pub(super) fn handle_seq_not_stored(&mut self, seq: Seq) {
        let Part::Node(part) = &mut self.part else { return };
        if part.own.pending.take_if(|pending| *pending == seq).is_none() {
            return;
        }
        // spec 04, 3: never published without; what was drawn is not used again either, since nobody knows what the disk holds
        part.own.last_seq = part.own.last_seq.max(Some(seq));
        self.timers.set(TimerKey::Publish, self.now.mono + self.params.seq_retry);
        self.count(Counted::SeqNotStored);
    }

    /// A Bottle of this node itself came: an older run's, or another machine's with the same key.
    pub(super) fn meet_own_bottle(&mut self, seq: Seq) {
        let Part::Node(part) = &mut self.part else { return };
        if part.own.last_seq.is_none_or(|last| seq > last) {
            // spec 04, 3: jump past it
            part.own.last_seq = Some(seq);
            self.want_bottle();
        }
    }

    /// Plans the next look at links that are listed and lost.
    pub(super) fn plan_losses(&mut self) {
        let Part::Node(part) = &self.part else { return };
        let grace = self.params.link_loss_grace;
        let Some(first) = part.own.listed.iter().filter_map(|node| self.lost_since(node)).map(|since| since + grace).min() else {
            return self.timers.cancel(TimerKey::Losses);
        };
        // spec 05, 5.2: losses are published at most once in an interval
        let next = part.own.last_losses.map_or(Duration::ZERO, |last| last + self.params.link_loss_interval);
        self.timers.set(TimerKey::Losses, first.max(next));
    }

    pub(super) fn publish_losses(&mut self) {
        let Part::Node(part) = &self.part else { return };
        let (now, grace) = (self.now.mono, self.params.link_loss_grace);
        let is_lost = |node: &&NodeId| self.lost_since(node).is_some_and(|since| since + grace <= now);
        let lost: Vec<NodeId> = part.own.listed.iter().filter(is_lost).copied().collect();
        if lost.is_empty() {
            return self.plan_losses();
        }
        let Part::Node(part) = &mut self.part else { return };
        part.own.listed.retain(|node| !lost.contains(node));
        part.own.last_losses = Some(now);
        self.listing_changed();
        for node in lost {
            self.tidy_link(node);
        }
    }

    /// Since when a listed link is not what its Bottle says: down, or up without both words.
    fn lost_since(&self, node: &NodeId) -> Option<Duration> {
        let Some(link) = self.links.get(node) else { return Some(Duration::ZERO) };
        (!link.is_up() || !link.publishing.is_mutual()).then_some(link.since)
    }

    /// The shortest round trip of each link that is up.
    fn round_trips(&self) -> BTreeMap<NodeId, Duration> {
        let shortest = |link: &super::links::NodeLink| link.lanes().iter().filter_map(|lane| self.lanes.by_id(*lane)?.rtt).min();
        self.links.nodes().filter_map(|(node, link)| Some((*node, shortest(link)?))).collect()
    }
}
