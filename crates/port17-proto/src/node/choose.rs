//! Which nodes a node links to when its configuration names none (spec 05, 5.1).
//!
//! The wanted degree is d = ⌈2·√N⌉ within the network's bounds, N the nodes that it knows, itself included. It dials half of it,
//! ⌈d/2⌉; others dial it. Whom is drawn by rendezvous: the highest `H("p17-link-v1", seed ‖ smaller NodeID ‖ larger NodeID)`. Both ends
//! compute the same number, and nobody knew it before the list whose seed it takes was signed. The first half of those dialled is
//! drawn among trusted nodes alone, since identities cost nothing: made-up ones cannot take all of a node's links.
//!
//! A link lives as long as it works; news change nothing that stands. What fails three times, and stands in the Bottle no more, rests, and the
//! next best takes its place, so dead nodes do not eat the degree; when nobody else is left, those that rest are tried again at the longest wait.
//!
//! Inbound links are taken while there is a place: 64 in all, those that the node still wants to dial are kept free, and an unknown node
//! gets none when unknown nodes have half. Nothing that a client says is looked at here (law 1).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::io::{Counted, DownReason};
use super::lanes::Closing;
use super::links::{Keep, NodeLink};
use super::{Node, Part, TimerKey};
use crate::bottle::Seq;
use crate::bottlerack::Trust;
use crate::crypto::{self, Hash};
use crate::ids::NodeId;
use crate::limits::LINKS;
use crate::params::Params;
use crate::wire::message::LaneSlot;
use crate::wire::registry::GoAwayReason;

/// Failures in a row after which the next best node takes the place.
const FAILURES: u32 = 3;

/// A node rests for so many of the longest waits.
const REST_WAITS: u32 = 30;

/// A node that was chosen and could not be reached, or has no place.
#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Duration,
    /// Its Bottle then, none if the node answered: a newer one says that it lives.
    seq: Option<Option<Seq>>,
    /// What went wrong, for the status.
    why: DownReason,
}

/// What was found out about nodes to choose from.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// Not chosen for now. Only nodes whose address is known get here: the Bottlerack bounds it.
    resting: BTreeMap<NodeId, Rest>,
    /// Since when the links that are published lead to less than half of the known nodes.
    cut_off: Option<Duration>,
}

/// A node that could be dialled.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    node: NodeId,
    score: Hash,
    trusted: bool,
}

/// Links wanted in a network of `nodes`, this one included.
pub(super) fn degree(nodes: usize, params: &Params) -> usize {
    let nodes = u64::try_from(nodes).unwrap_or(u64::MAX);
    // ⌈2·√N⌉ = ⌈√(4·N)⌉
    let square = nodes.saturating_mul(4);
    let root = square.isqrt();
    let wanted = if root.saturating_mul(root) < square { root + 1 } else { root };
    let wanted = wanted.clamp(params.degree_min.into(), params.degree_max.max(params.degree_min).into());
    usize::try_from(wanted).unwrap_or(LINKS).min(LINKS)
}

/// How high the rendezvous of two nodes is.
pub(super) fn rendezvous(seed: &[u8; 32], one: &NodeId, other: &NodeId) -> Hash {
    crypto::hash("p17-link-v1", &[seed, &one.min(other).0, &one.max(other).0])
}

/// Places of a node's links and who has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Places {
    /// Links up, and those that this side has chosen.
    taken: usize,
    /// Of them the unknown nodes'.
    unknown: usize,
    /// Kept free for links that this side still wants to dial.
    reserved: usize,
}

impl Places {
    fn has_room(self, trust: Trust) -> bool {
        let free = self.taken + self.reserved < LINKS;
        match trust {
            Trust::Trusted => free,
            // Half of the places are not for those whom nobody vouches for.
            Trust::Unknown => free && self.unknown < LINKS / 2,
            Trust::Distrusted => false,
        }
    }
}

impl Node {
    /// Whether this is a node that decides about its links itself.
    pub(super) fn decides(&self) -> bool {
        matches!(&self.part, Part::Node(part) if part.own.decides())
    }

    /// Links that it wants in all; none for a client, and where the configuration says which.
    pub(super) fn degree(&self) -> Option<usize> {
        self.decides().then(|| degree(self.known_count() + 1, &self.params))
    }

    /// How many of them it dials itself.
    pub(super) fn dialled_degree(&self) -> usize {
        self.degree().map_or(0, |degree| degree.div_ceil(2))
    }

    // ---- Inbound ----

    /// Whether a node that dials this one may have a link.
    ///
    /// # Errors
    /// How its lane is closed if not.
    pub(super) fn accepts_link(&self, node: NodeId) -> Result<(), Closing> {
        let stranger = Closing::refused(GoAwayReason::Stranger, Counted::Stranger);
        let kept = self.links.get(&node);
        if !self.decides() {
            return kept.map(|_| ()).ok_or(stranger);
        }
        let trust = self.trust(&node);
        if node == self.id || trust == Trust::Distrusted {
            return Err(stranger);
        }
        let has_place = kept.is_some_and(|link| link.is_up() || link.keep != Keep::Theirs);
        if has_place || self.places().has_room(trust) {
            return Ok(());
        }
        Err(Closing::refused(GoAwayReason::Full, Counted::LinksFull))
    }

    fn places(&self) -> Places {
        let taken = self.links.nodes().filter(|(_, link)| link.is_up() || link.keep != Keep::Theirs).map(|(node, _)| node);
        let (trusted, unknown): (Vec<&NodeId>, Vec<&NodeId>) = taken.partition(|node| self.trust(node) == Trust::Trusted);
        Places {
            taken: trusted.len() + unknown.len(),
            unknown: unknown.len(),
            reserved: self.dialled_degree().saturating_sub(self.chosen()),
        }
    }

    // ---- Outbound ----

    /// Something changed that may let this node want other links: looked at soon, with what else changes.
    pub(super) fn links_changed(&mut self) {
        if self.decides() && self.chosen() < self.dialled_degree() {
            self.timers.set_earlier(TimerKey::ChooseSoon, self.now.mono + self.params.link_settle);
        }
    }

    /// The regular look: also at what nobody told.
    pub(super) fn review_links(&mut self) {
        if !self.decides() {
            return;
        }
        let next = self.spread(self.params.link_evaluate);
        self.timers.set(TimerKey::Choose, self.now.mono + next);
        self.forget_rests();
        self.release_anchors();
        self.drop_refused();
        self.choose_links();
        self.bridge();
    }

    /// Chooses nodes to dial until there are as many as wanted.
    pub(super) fn choose_links(&mut self) {
        let wanted = self.dialled_degree();
        if !self.decides() || self.chosen() >= wanted {
            return;
        }
        self.forget_rests();
        let (fresh, resting) = self.candidates();
        let half = wanted.div_ceil(2);
        let trusted_held = self.chosen_where(|node| self.trust(node) == Trust::Trusted);
        let trusted = fresh.iter().filter(|it| it.trusted).take(half.saturating_sub(trusted_held)).map(|it| it.node);
        let first: BTreeSet<NodeId> = trusted.collect();
        let rest = fresh.iter().map(|it| it.node).filter(|node| !first.contains(node));
        let order: Vec<NodeId> = first.iter().copied().chain(rest).collect();
        for node in order {
            if self.chosen() >= wanted {
                return;
            }
            self.choose_node(node);
        }
        // Nobody else is left.
        for node in resting {
            if self.chosen() >= wanted {
                return;
            }
            self.choose_again(node);
        }
    }

    /// Links that this node dials, or would dial if they were lost.
    pub(super) fn chosen(&self) -> usize {
        self.chosen_where(|_| true)
    }

    fn chosen_where(&self, fits: impl Fn(&NodeId) -> bool) -> usize {
        self.links.nodes().filter(|(node, link)| link.keep == Keep::Chosen && fits(node)).count()
    }

    /// Those that could be chosen, best first, and those that rest, the longest first.
    fn candidates(&self) -> (Vec<Candidate>, Vec<NodeId>) {
        let seed = self.seed();
        let (mut fresh, mut resting) = (Vec::new(), Vec::new());
        for node in self.known_nodes() {
            let chosen = self.links.get(&node).is_some_and(|link| link.keep == Keep::Chosen);
            if chosen || !self.may_choose(&node) {
                continue;
            }
            match self.part_choice().and_then(|choice| choice.resting.get(&node)) {
                Some(rest) if !self.links.is_up(&node) => resting.push((rest.until, node)),
                _ => {
                    let trusted = self.trust(&node) == Trust::Trusted;
                    fresh.push(Candidate { node, score: rendezvous(&seed, &self.id, &node), trusted });
                }
            }
        }
        fresh.sort_by_key(|candidate| std::cmp::Reverse(candidate.score));
        resting.sort();
        // Whose Bottle has expired is most likely gone: tried when there are not enough others.
        let hinted: Vec<NodeId> = self.bottlerack.hinted().filter(|node| !self.is_listed(node)).collect();
        for node in hinted.into_iter().filter(|node| !self.links.keeps(*node) && self.may_choose(node)) {
            if !self.rests(&node) {
                fresh.push(Candidate { node, score: Hash::default(), trusted: false });
            }
        }
        (fresh, resting.into_iter().map(|(_, node)| node).collect())
    }

    /// Reachable, or linked already; and nobody who was caught.
    fn may_choose(&self, node: &NodeId) -> bool {
        *node != self.id && self.trust(node) != Trust::Distrusted && (self.links.is_up(node) || self.can_dial(node))
    }

    pub(super) fn can_dial(&self, node: &NodeId) -> bool {
        self.contact(*node).is_some_and(|contact| !contact.addresses.is_empty() && !contact.keys.is_empty())
    }

    fn choose_node(&mut self, node: NodeId) {
        if !self.links.is_up(&node) && self.places().taken >= LINKS {
            return;
        }
        self.links.keep(node, Keep::Chosen, self.now.mono);
        self.dial_missing(node);
    }

    /// One that failed before is dialled after the longest wait only.
    fn choose_again(&mut self, node: NodeId) {
        if self.places().taken >= LINKS {
            return;
        }
        self.links.keep(node, Keep::Chosen, self.now.mono);
        let rest = self.part_choice_mut().and_then(|choice| choice.resting.remove(&node));
        if let Some(link) = self.links.get_mut(&node) {
            link.set_failures(FAILURES);
            link.why = rest.map_or(link.why, |rest| rest.why);
        }
        self.redial_later(node, LaneSlot::One, u32::MAX);
    }

    /// The first lane of a link was not made.
    pub(super) fn link_not_made(&mut self, node: NodeId, why: DownReason) {
        let Some(link) = self.links.get(&node) else { return };
        if !self.decides() || link.is_up() || !matches!(link.keep, Keep::Chosen | Keep::Anchor) {
            return;
        }
        let refused = matches!(
            why,
            DownReason::SentAway(GoAwayReason::Full | GoAwayReason::Stranger | GoAwayReason::Version | GoAwayReason::Network)
        );
        // A link that stands in the Bottle has its grace: who restarts finds it again.
        let in_grace = matches!(&self.part, Part::Node(part) if part.own.listed.contains(&node));
        if !refused && (in_grace || link.failures() < FAILURES) {
            return;
        }
        let until = self.now.mono + self.params.backoff_max * REST_WAITS;
        let seq = (!refused).then(|| self.bottlerack.seq(&node));
        if let Some(choice) = self.part_choice_mut() {
            choice.resting.insert(node, Rest { until, seq, why });
        }
        self.unchoose(node);
    }

    /// This node does not want the link any more; one that stands goes on.
    fn unchoose(&mut self, node: NodeId) {
        if let Some(link) = self.links.get_mut(&node) {
            link.keep = Keep::Theirs;
        }
        self.tidy_link(node);
        self.links_changed();
    }

    fn forget_rests(&mut self) {
        let now = self.now.mono;
        let Part::Node(part) = &mut self.part else { return };
        let rack = &self.bottlerack;
        let lives = |node: &NodeId, rest: &Rest| rest.seq.is_some_and(|seq| rack.seq(node) > seq);
        part.choice.resting.retain(|node, rest| rest.until > now && !lives(node, rest));
    }

    /// Anchors that did not come back in their time are as others.
    fn release_anchors(&mut self) {
        let (now, grace) = (self.now.mono, self.params.link_loss_grace);
        let due = |link: &NodeLink| link.keep == Keep::Anchor && (link.is_up() || link.since + grace <= now);
        let due: Vec<NodeId> = self.links.nodes().filter(|(_, link)| due(link)).map(|(node, _)| *node).collect();
        for node in due {
            self.unchoose(node);
        }
    }

    /// Ends links to nodes that were caught, and those to nodes of which nothing is known any more.
    pub(super) fn drop_refused(&mut self) {
        if !self.decides() {
            return;
        }
        let unknown = |node: &NodeId, link: &NodeLink| link.keep != Keep::Anchor && self.contact(*node).is_none();
        let refused = |(node, link): &(&NodeId, &NodeLink)| self.trust(node) == Trust::Distrusted || unknown(node, link);
        let refused: Vec<NodeId> = self.links.nodes().filter(refused).map(|(node, _)| *node).collect();
        for node in refused {
            self.drop_link(node);
        }
    }

    /// Ends a link on purpose.
    pub(super) fn drop_link(&mut self, node: NodeId) {
        self.say_unpublish(node);
        if let Some(link) = self.links.get_mut(&node) {
            link.keep = Keep::Theirs;
        }
        self.cancel_attempts(node);
        let goaway = GoAwayReason::Stranger;
        for lane in self.lanes_of(node) {
            self.close_lane(lane, Closing { goaway: Some(goaway), counted: None, why: DownReason::SentAway(goaway) });
        }
        self.unlist(node);
        self.tidy_link(node);
    }

    /// Forgets a link that nobody wants and that stands in no Bottle.
    pub(super) fn tidy_link(&mut self, node: NodeId) {
        let Part::Node(part) = &self.part else { return };
        let Some(link) = self.links.get(&node) else { return };
        if link.keep != Keep::Theirs || link.is_up() || part.own.listed.contains(&node) {
            return;
        }
        self.cancel_attempts(node);
        self.timers.cancel(TimerKey::PublishLink(node));
        self.links.forget(&node);
    }

    /// Less than half of the known nodes can be reached over published links, and not for a moment only: one trusted node of the other part is
    /// dialled, too.
    fn bridge(&mut self) {
        let (now, grace) = (self.now.mono, self.params.link_loss_grace);
        let far = self.far_nodes();
        let Some(choice) = self.part_choice_mut() else { return };
        if far.is_empty() {
            choice.cut_off = None;
            return;
        }
        let since = *choice.cut_off.get_or_insert(now);
        // The other part may be back at any moment: until then one after the other is tried, and not as rarely as others are looked at.
        let next = if since + grace > now { since + grace } else { now + grace.max(self.params.backoff_max) };
        self.timers.set_earlier(TimerKey::Choose, next);
        if since + grace > now {
            return;
        }
        let seed = self.seed();
        let trusted = far.into_iter().filter(|node| self.trust(node) == Trust::Trusted && self.may_choose(node));
        let (resting, fresh): (Vec<NodeId>, Vec<NodeId>) = trusted.partition(|node| self.rests(node));
        if let Some(best) = fresh.into_iter().max_by_key(|node| rendezvous(&seed, &self.id, node)) {
            return self.choose_node(best);
        }
        let until = |node: &NodeId| self.part_choice().and_then(|choice| choice.resting.get(node)).map(|rest| rest.until);
        if let Some(longest) = resting.into_iter().min_by_key(until) {
            self.choose_again(longest);
        }
    }

    /// The known nodes that published links do not lead to and that are not being dialled; none if those are less than half.
    fn far_nodes(&self) -> Vec<NodeId> {
        let Part::Node(part) = &self.part else { return Vec::new() };
        let mut reached: BTreeSet<NodeId> = part.own.listed.iter().copied().filter(|node| self.links.is_up(node)).collect();
        if reached.len() * 2 >= self.known_count() {
            return Vec::new();
        }
        let map = self.map();
        let mut next: Vec<NodeId> = reached.iter().copied().collect();
        while let Some(node) = next.pop() {
            let new: Vec<NodeId> = map.neighbours(&node).iter().copied().filter(|other| reached.insert(*other)).collect();
            next.extend(new);
        }
        reached.remove(&self.id);
        // Also nodes that only the list names: what no link leads to sends no Bottle either.
        let known = self.known_nodes();
        if reached.len() * 2 >= known.len() {
            return Vec::new();
        }
        known.into_iter().filter(|node| !reached.contains(node) && !self.links.keeps(*node)).collect()
    }

    fn rests(&self, node: &NodeId) -> bool {
        self.part_choice().is_some_and(|choice| choice.resting.contains_key(node))
    }

    fn part_choice(&self) -> Option<&Choice> {
        match &self.part {
            Part::Node(part) => Some(&part.choice),
            Part::Client(_) => None,
        }
    }

    fn part_choice_mut(&mut self) -> Option<&mut Choice> {
        match &mut self.part {
            Part::Node(part) => Some(&mut part.choice),
            Part::Client(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_degree_is_twice_the_root_within_its_bounds() {
        let params = Params::DEFAULT;
        let degrees = [1, 3, 16, 17, 40, 100, 1000, 100_000].map(|nodes| degree(nodes, &params));
        assert_eq!(degrees, [8, 8, 8, 9, 13, 20, 64, 64]);
        let tight = Params { degree_min: 2, degree_max: 5, ..Params::DEFAULT };
        assert_eq!([1, 4, 7, 50].map(|nodes| degree(nodes, &tight)), [2, 4, 5, 5]);
    }

    #[test]
    fn both_ends_compute_the_same_rendezvous_and_each_seed_another() {
        let (one, other) = (NodeId([1; 32]), NodeId([2; 32]));
        assert_eq!(rendezvous(&[7; 32], &one, &other), rendezvous(&[7; 32], &other, &one));
        assert_ne!(rendezvous(&[7; 32], &one, &other), rendezvous(&[8; 32], &one, &other));
    }

    #[test]
    fn unknown_nodes_get_half_of_the_places_at_most() {
        let places = |taken, unknown, reserved| Places { taken, unknown, reserved };
        assert!(places(31, 31, 4).has_room(Trust::Unknown));
        assert!(!places(32, 32, 4).has_room(Trust::Unknown));
        assert!(places(32, 32, 4).has_room(Trust::Trusted));
        assert!(!places(60, 0, 4).has_room(Trust::Trusted), "what it wants to dial itself is kept free");
        assert!(!places(64, 0, 0).has_room(Trust::Trusted));
        assert!(!places(0, 0, 0).has_room(Trust::Distrusted));
    }
}
