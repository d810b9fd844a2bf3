//! What a status display needs: the engine in words.

use std::time::Duration;

use super::io::Peer;
use super::lanes::Stage;
use super::{Node, Part, TimerKey};
use crate::bottle::Seq;
use crate::ids::NodeId;
use crate::portname::PortName;
use crate::wire::message::LaneSlot;

/// The engine at one moment.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// The node's identity, none for a client.
    pub id: Option<NodeId>,
    /// The node's name, none for a client.
    pub portname: Option<PortName>,
    /// The name of the parameters in force.
    pub params: &'static str,
    /// The signed list in force.
    pub list: Option<ListStatus>,
    /// The own Bottle that is out.
    pub bottle: Option<BottleStatus>,
    /// Circuit keys that are not erased yet.
    pub circuit_keys: usize,
    /// A client's guard, once chosen.
    pub guard: Option<NodeId>,
    /// Links to nodes, up or down.
    pub links: Vec<LinkStatus>,
    /// Client links that are up.
    pub clients: usize,
    /// Bottles in the Bottlerack.
    pub bottles: usize,
    /// Other nodes of which it knows a Bottle or a place in the list.
    pub known: usize,
    /// Those of them that are trusted.
    pub trusted: usize,
    /// Links that it wants in all; none for a client, and where the configuration says which.
    pub degree: Option<usize>,
    /// What is missing, in words; none when all is well.
    pub waits_for: Option<String>,
    /// What was refused or went wrong, by name, in the order of the names' list.
    pub counts: Vec<(&'static str, u64)>,
}

/// The signed list in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListStatus {
    /// Its sequence number.
    pub seq: u64,
    /// When it was made, Unix seconds.
    pub issued_s: u64,
    /// Until when it holds, Unix seconds.
    pub expires_s: u64,
    /// How many root keys have signed it, and how many have to.
    pub signers: (u8, u8),
    /// Nodes in it.
    pub nodes: usize,
    /// Whether this node is one of them; false for a client.
    pub names_this: bool,
    /// Whether it should be replaced.
    pub age: ListAge,
}

/// Whether a list should be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListAge {
    /// It holds.
    Good,
    /// It holds, and there should be a newer one: no new guard is chosen by it.
    Old,
    /// It has expired: it still says who is trusted, and no new guard is chosen by it.
    Expired,
}

/// The own Bottle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BottleStatus {
    /// Its sequence number.
    pub seq: Seq,
    /// How long it is out.
    pub age: Duration,
    /// Links that it does not list because they were down for long.
    pub withdrawn: usize,
}

/// A link to a node.
#[derive(Debug, Clone)]
pub struct LinkStatus {
    /// The neighbour.
    pub node: NodeId,
    /// Up or down.
    pub is_up: bool,
    /// For how long.
    pub since: Duration,
    /// Its lanes.
    pub lanes: Vec<LaneStatus>,
    /// Why it is down, in words; none while it is up.
    pub why: Option<String>,
    /// When it is dialled again, from now.
    pub redial_in: Option<Duration>,
    /// This side dialled it.
    pub dialled: bool,
    /// This side wants it in the map.
    pub published_here: bool,
    /// The peer wants it in the map.
    pub published_there: bool,
}

/// A lane of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneStatus {
    /// 1 or 2.
    pub slot: LaneSlot,
    /// The smoothed round trip, none before the first PONG.
    pub rtt: Option<Duration>,
}

impl Node {
    /// The engine at this moment.
    pub fn status(&self) -> NodeStatus {
        let (bottle, circuit_keys, portname) = match &self.part {
            Part::Node(part) => {
                let bottle = part.own.published.map(|it| BottleStatus {
                    seq: it.seq,
                    age: self.now.mono.saturating_sub(it.at),
                    withdrawn: self.links.nodes().filter(|(node, _)| !part.own.listed.contains(node)).count(),
                });
                (bottle, part.keys.len(), Some(PortName::of(part.own.setup.label.clone(), &self.id)))
            }
            Part::Client(_) => (None, 0, None),
        };
        let links: Vec<LinkStatus> = self.links.nodes().map(|(node, _)| self.link_status(*node)).collect();
        NodeStatus {
            id: (!self.is_client()).then_some(self.id),
            portname,
            params: self.params.name.as_str(),
            list: self.list_status(),
            bottle,
            circuit_keys,
            guard: self.guard(),
            waits_for: self.waits_for(&links),
            links,
            clients: self.links.clients(),
            bottles: self.bottlerack.len(),
            known: self.known_count(),
            trusted: self
                .bottlerack
                .trusted_among(|node| *node != self.id && self.known_bottle(node).is_some(), self.now.unix_ms),
            degree: self.degree(),
            counts: self.counts.iter().map(|(what, count)| (what.name(), *count)).collect(),
        }
    }

    fn list_status(&self) -> Option<ListStatus> {
        let (list, definition) = (self.list()?, self.network.as_ref()?);
        let now_s = self.now.unix_ms / 1000;
        let age = match (list.has_expired(now_s), list.is_old(now_s)) {
            (true, _) => ListAge::Expired,
            (false, true) => ListAge::Old,
            (false, false) => ListAge::Good,
        };
        Some(ListStatus {
            seq: list.seq(),
            issued_s: list.issued_s(),
            expires_s: list.expires_s(),
            signers: (list.signers(), definition.roots().threshold()),
            nodes: list.nodes().len(),
            names_this: !self.is_client() && self.is_listed(&self.id),
            age,
        })
    }

    fn link_status(&self, node: NodeId) -> LinkStatus {
        let link = self.links.nodes().find(|(known, _)| **known == node).map(|(_, link)| link);
        let is_up = link.is_some_and(super::links::NodeLink::is_up);
        let redial = LaneSlot::ALL.iter().filter_map(|slot| self.timers.at(TimerKey::Redial(node, *slot))).min();
        LinkStatus {
            node,
            is_up,
            since: link.map_or(Duration::ZERO, |link| self.now.mono.saturating_sub(link.since)),
            lanes: self.lane_statuses(node),
            why: link.filter(|_| !is_up).map(|link| link.why.to_string()),
            redial_in: redial.map(|at| at.saturating_sub(self.now.mono)),
            dialled: link.is_some_and(|link| is_up && link.dialled),
            published_here: link.is_some_and(|link| link.publishing.here),
            published_there: link.is_some_and(|link| link.publishing.there),
        }
    }

    fn lane_statuses(&self, node: NodeId) -> Vec<LaneStatus> {
        let admitted = self.lanes.iter().filter_map(|(_, lane)| match lane.stage {
            Stage::Admitted { peer, slot } if peer == Peer::Node(node) => Some(LaneStatus { slot, rtt: lane.rtt }),
            Stage::Admitted { .. } | Stage::AwaitingHello | Stage::AwaitingBottle { .. } | Stage::AwaitingAnswer { .. } => None,
        });
        let mut lanes: Vec<_> = admitted.collect();
        lanes.sort_by_key(|lane| lane.slot);
        lanes
    }

    fn waits_for(&self, links: &[LinkStatus]) -> Option<String> {
        if self.stopping {
            return Some("nothing: it has stopped".to_owned());
        }
        if self.network.is_some() && self.list().is_none() {
            return Some("the network's signed list: none is here yet".to_owned());
        }
        if let Some(clock) = self.clock_waits_for() {
            return Some(clock);
        }
        match &self.part {
            Part::Client(_) => self.guard_waits_for(),
            Part::Node(part) if part.own.published.is_none() => {
                Some("the sequence number of its first Bottle to be stored".to_owned())
            }
            Part::Node(part) if part.own.decides() => self.links_wait_for(links),
            Part::Node(_) => {
                let down: Vec<&LinkStatus> = links.iter().filter(|link| !link.is_up).collect();
                let first = down.first()?;
                let why = first.why.as_deref().unwrap_or("down");
                Some(format!("{} of {} links; {}: {why}", down.len(), links.len(), first.node))
            }
        }
    }

    /// What a node lacks that decides about its links itself.
    fn links_wait_for(&self, links: &[LinkStatus]) -> Option<String> {
        let up = links.iter().filter(|link| link.is_up).count();
        let known = self.known_count();
        if known == 0 {
            // In a network of this node alone nothing is missing.
            return (!self.is_listed(&self.id)).then(|| "other nodes: none is known yet".to_owned());
        }
        let wanted = self.dialled_degree().min(known);
        if up >= wanted {
            return None;
        }
        let why = links.iter().find_map(|link| Some((link.node, link.why.as_deref()?)));
        let why = why.map_or_else(String::new, |(node, why)| format!("; {node}: {why}"));
        Some(format!("{} of {wanted} links{why}", wanted - up))
    }
}
