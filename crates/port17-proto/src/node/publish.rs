//! Which links stand in the own Bottle: PUBLISH, UNPUBLISH, and the anchors that a restart begins with (spec 05, 5.2).
//!
//! A link that has stood for `publish_after` is one that this side wants in the map: it says PUBLISH. When both ends have said it, the
//! link stands in the next Bottle of each. What is said holds for the link's life: it is said again on a new lane 1, and gone when the
//! link is down. A link counts only if both Bottles list it, so a lie costs nothing.
//!
//! A link is taken out of the Bottle at once when the peer says UNPUBLISH, and when it was down, or stood without both words, for
//! `link_loss_grace`. What stands in the Bottle is stored: the first Bottle after a restart lists it again, and a link that comes back
//! in time costs nobody a Bottle.
//!
//! Invariant: each listed node has its entry among the links, so that somebody sees when it is lost.

use std::time::Duration;

use super::io::Output;
use super::links::Keep;
use super::record::RecordKey;
use super::{Node, Part, TimerKey};
use crate::ids::NodeId;
use crate::limits::{BOTTLE_LINKS, LINKS};
use crate::planted::planted;
use crate::wire::message::{LaneSlot, Message};

/// What is stored changes at most this often: a link that comes and goes must not wear a disk.
const ANCHORS_INTERVAL: Duration = Duration::from_secs(10);

/// What the two ends of a link have said since it is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Publishing {
    /// This side said PUBLISH.
    pub(super) here: bool,
    /// The peer did.
    pub(super) there: bool,
    /// The peer took it back: nothing more is published while this link stands.
    barred: bool,
}

impl Publishing {
    /// Both want it in the map.
    pub(super) fn is_mutual(self) -> bool {
        self.here && (self.there || planted("link-listed-on-one-word"))
    }
}

impl Node {
    /// A link came up: PUBLISH is due when it has stood for a while.
    pub(super) fn plan_publish(&mut self, node: NodeId) {
        if matches!(self.part, Part::Node(_)) {
            self.timers.set(TimerKey::PublishLink(node), self.now.mono + self.params.publish_after);
        }
    }

    pub(super) fn publish_link(&mut self, node: NodeId) {
        let Some(link) = self.links.get_mut(&node).filter(|link| link.is_up()) else { return };
        link.publishing.here = true;
        self.say_publish_again(node);
        self.list_if_mutual(node);
    }

    /// What was said holds on a new lane 1, too.
    pub(super) fn say_publish_again(&mut self, node: NodeId) {
        let said = self.links.get(&node).is_some_and(|link| link.publishing.here);
        if let Some(lane) = self.lane_at(node, LaneSlot::One).filter(|_| said) {
            self.send(lane, &Message::Publish);
        }
    }

    /// The peer wants the link in the map (`wanted`), or out of it. A client has no say: its lane was closed for it (law 1).
    pub(super) fn handle_publish(&mut self, node: NodeId, wanted: bool) {
        let Some(link) = self.links.get_mut(&node) else { return };
        if wanted {
            link.publishing.there = !link.publishing.barred;
            return self.list_if_mutual(node);
        }
        link.publishing.there = false;
        link.publishing.barred = true;
        self.unlist(node);
    }

    fn list_if_mutual(&mut self, node: NodeId) {
        let Part::Node(part) = &mut self.part else { return };
        let up = |node: &NodeId| self.links.get(node).is_some_and(|link| link.is_up() && link.publishing.is_mutual());
        if !up(&node) || part.own.listed.contains(&node) || part.own.rests(&node, self.now.mono) {
            return;
        }
        if part.own.listed.len() >= BOTTLE_LINKS {
            // At most 64 links are up, so one of those listed is not: it makes room.
            let Some(lost) = part.own.listed.iter().find(|listed| !up(listed)).copied() else { return };
            part.own.listed.remove(&lost);
        }
        part.own.listed.insert(node);
        if planted("listed-link-not-published") {
            return;
        }
        self.listing_changed();
    }

    /// Takes a link out of the Bottle now, whatever the interval of losses.
    pub(super) fn unlist(&mut self, node: NodeId) {
        let (now, rest) = (self.now.mono, self.params.link_loss_interval);
        let Part::Node(part) = &mut self.part else { return };
        if part.own.listed.remove(&node) {
            part.own.rest(node, now, rest);
            self.listing_changed();
        }
    }

    /// Another set of links is to stand in the Bottle.
    pub(super) fn listing_changed(&mut self) {
        self.want_bottle();
        self.plan_losses();
        self.plan_anchors();
    }

    /// This side ends a link on purpose: the peer need not wait for the grace.
    pub(super) fn say_unpublish(&mut self, node: NodeId) {
        let said = self.links.get(&node).is_some_and(|link| link.publishing.here);
        if let Some(lane) = self.lane_at(node, LaneSlot::One).filter(|_| said) {
            self.send(lane, &Message::Unpublish);
        }
    }

    // ---- Anchors ----

    fn plan_anchors(&mut self) {
        if self.decides() && self.timers.at(TimerKey::Anchors).is_none() {
            let Part::Node(part) = &self.part else { return };
            let next = part.own.anchors_saved.map_or(self.now.mono, |saved| saved + ANCHORS_INTERVAL);
            self.timers.set(TimerKey::Anchors, next.max(self.now.mono));
        }
    }

    pub(super) fn save_anchors(&mut self) {
        let Part::Node(part) = &mut self.part else { return };
        part.own.anchors_saved = Some(self.now.mono);
        let bytes = part.own.listed.iter().flat_map(|node| node.0).collect();
        self.push(Output::Save(RecordKey::Anchors, bytes));
    }

    /// Links of the last run: listed in the first Bottle and dialled first.
    pub(super) fn take_anchors(&mut self, anchors: Vec<NodeId>) {
        let now = self.now.mono;
        let own = self.id;
        let Part::Node(part) = &mut self.part else { return };
        for anchor in anchors.into_iter().filter(|anchor| *anchor != own).take(LINKS) {
            self.links.keep(anchor, Keep::Anchor, now);
            part.own.listed.insert(anchor);
        }
    }
}

/// The nodes of a stored record, none if it is damaged.
pub(super) fn read_anchors(bytes: &[u8]) -> Vec<NodeId> {
    let (nodes, rest) = bytes.as_chunks::<32>();
    if rest.is_empty() { nodes.iter().map(|node| NodeId(*node)).collect() } else { Vec::new() }
}
