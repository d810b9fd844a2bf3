//! Links: who dials whom, when again, and which lanes a link has (spec 05, 5; spec 10, 2).
//!
//! Between neighbours that the configuration names the smaller NodeID dials, unless only the other can be dialled; where nodes choose
//! (`choose`) who wants the link dials. The dialler opens lane 1, then lane 2 with the same link id; what fails or is lost is dialled
//! again after a wait that doubles, with jitter. A link is up while it has a lane. A client has links to its guards alone and always
//! dials.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::io::{Counted, DialFailure, DialId, DownReason, LaneId, Output, Peer, ShownKey};
use super::lanes::Closing;
use super::publish::Publishing;
use super::{Node, TimerKey};
use crate::crypto::VerifyingKey;
use crate::ids::NodeId;
use crate::limits::CLIENT_LINKS;
use crate::planted::planted;
use crate::wire::message::{Hello, LaneSlot, LinkId};
use crate::wire::registry::GoAwayReason;

/// What a link is to this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// The configuration names it: both ends keep it, and the smaller NodeID dials.
    Fixed,
    /// This node chose it, or this client its guard: it dials.
    Chosen,
    /// It stood in the Bottle when the last run ended: dialled until it has had its time to come back.
    Anchor,
    /// It is the other side's wish, or nobody's any more.
    Theirs,
}

/// How a lane of a link is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// It is not.
    Idle,
    /// The driver dials.
    Dialling(DialId),
    /// HELLO is sent.
    Opening(LaneId),
}

/// One of a link's two places for a lane.
#[derive(Debug, Clone, Copy)]
struct Place {
    lane: Option<LaneId>,
    attempt: Attempt,
    failures: u32,
    since: Duration,
}

impl Place {
    const EMPTY: Self = Self { lane: None, attempt: Attempt::Idle, failures: 0, since: Duration::ZERO };
}

/// The link to one node.
#[derive(Debug)]
pub(super) struct NodeLink {
    pub(super) keep: Keep,
    pub(super) publishing: Publishing,
    places: [Place; 2],
    /// The name of the link that stands, or of the one that is being dialled.
    id: LinkId,
    /// This side dialled the link that stands.
    pub(super) dialled: bool,
    /// When it came up or went down.
    pub(super) since: Duration,
    pub(super) why: DownReason,
    /// What was known of the peer when it was dialled last: a change is worth a try at once.
    contact: Option<Contact>,
}

impl NodeLink {
    fn new(keep: Keep, now: Duration) -> Self {
        Self {
            keep,
            publishing: Publishing::default(),
            places: [Place::EMPTY; 2],
            id: LinkId([0; 16]),
            dialled: false,
            since: now,
            why: DownReason::NoBottle,
            contact: None,
        }
    }

    pub(super) fn lanes(&self) -> Vec<LaneId> {
        self.places.iter().filter_map(|place| place.lane).collect()
    }

    pub(super) fn is_up(&self) -> bool {
        self.places.iter().any(|place| place.lane.is_some())
    }

    /// Failures in a row of what makes the link.
    pub(super) fn failures(&self) -> u32 {
        self.places[LaneSlot::One.index()].failures
    }

    /// A lane is being made.
    pub(super) fn is_tried(&self) -> bool {
        self.places.iter().any(|place| place.attempt != Attempt::Idle)
    }

    /// Takes it for one that failed so often.
    pub(super) fn set_failures(&mut self, failures: u32) {
        self.place(LaneSlot::One).failures = failures;
    }

    fn place(&mut self, slot: LaneSlot) -> &mut Place {
        &mut self.places[slot.index()]
    }

    /// Whether this side should make the lane now, if it is the one that dials.
    fn lacks(&self, slot: LaneSlot) -> bool {
        let place = &self.places[slot.index()];
        let turn = match slot {
            // A link that the peer dialled is the peer's to complete.
            LaneSlot::One => !self.is_up() || self.dialled,
            LaneSlot::Two => self.is_up() && self.dialled,
        };
        turn && place.lane.is_none() && place.attempt == Attempt::Idle
    }
}

/// The link to one client.
#[derive(Debug)]
struct ClientLink {
    lanes: [Option<LaneId>; 2],
    remote: IpAddr,
}

/// What a Bottle says about reaching its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contact {
    /// Keys that its lanes may show.
    pub(super) keys: Vec<VerifyingKey>,
    /// Addresses that the parameters allow to dial.
    pub(super) addresses: Vec<SocketAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Dial {
    node: NodeId,
    slot: LaneSlot,
    link: LinkId,
}

/// All links, and the dials that shall make them.
#[derive(Debug, Default)]
pub(super) struct Links {
    nodes: BTreeMap<NodeId, NodeLink>,
    clients: BTreeMap<LinkId, ClientLink>,
    dials: BTreeMap<DialId, Dial>,
    dials_made: u64,
}

impl Links {
    /// Keeps a link to `node` from now on; one that is there changes only what it is to this side.
    pub(super) fn keep(&mut self, node: NodeId, keep: Keep, now: Duration) {
        self.nodes.entry(node).or_insert_with(|| NodeLink::new(keep, now)).keep = keep;
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&NodeLink> {
        self.nodes.get(node)
    }

    pub(super) fn get_mut(&mut self, node: &NodeId) -> Option<&mut NodeLink> {
        self.nodes.get_mut(node)
    }

    /// Whether the configuration names it.
    pub(super) fn is_fixed(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|link| link.keep == Keep::Fixed)
    }

    pub(super) fn is_up(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(NodeLink::is_up)
    }

    /// Forgets a link that has no lane and no attempt.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }

    pub(super) fn keeps(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (&NodeId, &NodeLink)> {
        self.nodes.iter()
    }

    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Takes out a dial that is answered.
    pub(super) fn take_dial(&mut self, dial: DialId) -> Option<(NodeId, LaneSlot, LinkId)> {
        let dial = self.dials.remove(&dial)?;
        if let Some(link) = self.nodes.get_mut(&dial.node) {
            link.place(dial.slot).attempt = Attempt::Idle;
        }
        Some((dial.node, dial.slot, dial.link))
    }

    pub(super) fn opening(&mut self, lane: LaneId, node: NodeId, slot: LaneSlot) {
        if let Some(link) = self.nodes.get_mut(&node) {
            link.place(slot).attempt = Attempt::Opening(lane);
        }
    }

    /// Whether a lane that this side dialled may still join.
    pub(super) fn expects(&self, node: NodeId, id: LinkId) -> bool {
        self.nodes.get(&node).is_some_and(|link| link.id == id && (link.dialled || !link.is_up()))
    }

    fn clients_from(&self, remote: IpAddr, same: fn(IpAddr, IpAddr) -> bool) -> usize {
        self.clients.values().filter(|client| same(client.remote, remote)).count()
    }
}

impl Node {
    /// Dials what a link lacks, if it is this side's turn and no wait is on.
    pub(super) fn dial_missing(&mut self, node: NodeId) {
        // spec 11, 2: a node's first word on a lane is its Bottle
        if self.stopping || !self.links.keeps(node) || !self.has_first_word() {
            return;
        }
        let contact = self.contact(node);
        let turn = contact.as_ref().and_then(|contact| Some(self.turn(node, self.links.get(&node)?, contact)));
        let Some(link) = self.links.nodes.get_mut(&node) else { return };
        let contact = match (contact, turn) {
            // spec 05, 1: whatever key was shown, the dial would fail
            (Some(contact), Some(Turn::Ours)) if contact.keys.is_empty() => return link.say_at_first(DownReason::NoKey),
            (Some(contact), Some(Turn::Ours)) => contact,
            (_, Some(Turn::Theirs)) => return link.say_at_first(DownReason::TheyDial),
            (_, Some(Turn::Nobodys)) => return link.say_at_first(DownReason::NoAddress),
            (_, None) | (None, _) => return link.say_at_first(DownReason::NoBottle),
        };
        if link.contact.as_ref() != Some(&contact) {
            // Another key or address: what failed before says nothing.
            link.contact = Some(contact.clone());
            for slot in LaneSlot::ALL {
                link.place(slot).failures = 0;
                self.timers.cancel(TimerKey::Redial(node, slot));
            }
        }
        for slot in LaneSlot::ALL {
            let lacks = self.links.nodes.get(&node).is_some_and(|link| link.lacks(slot));
            if lacks && self.timers.at(TimerKey::Redial(node, slot)).is_none() {
                self.dial(node, slot, &contact);
            }
        }
    }

    /// Dials what any link lacks.
    pub(super) fn dial_all_missing(&mut self) {
        let nodes: Vec<_> = self.links.nodes.keys().copied().collect();
        for node in nodes {
            self.dial_missing(node);
        }
    }

    fn dial(&mut self, node: NodeId, slot: LaneSlot, contact: &Contact) {
        let fresh = LinkId(self.entropy.bytes());
        let show = if self.is_client() { ShownKey::ThrowAway } else { ShownKey::Link };
        let Some(link) = self.links.nodes.get_mut(&node) else { return };
        if !link.is_up() {
            // spec 05, 4: the dialler of lane 1 draws the link's id; lane 1 of a link that still stands keeps it
            link.id = fresh;
            link.dialled = true;
            link.say(DownReason::Dialling);
        }
        self.links.dials_made += 1;
        let dial = DialId(self.links.dials_made);
        link.place(slot).attempt = Attempt::Dialling(dial);
        self.links.dials.insert(dial, Dial { node, slot, link: link.id });
        // The driver keeps the time of each address; this is for a driver that never answers.
        let addresses = u32::try_from(contact.addresses.len()).unwrap_or(u32::MAX);
        let longest = self.params.dial_timeout.saturating_mul(addresses) + self.params.handshake_timeout;
        self.timers.set(TimerKey::Dial(dial), self.now.mono + longest);
        let (addresses, expected) = (contact.addresses.clone(), contact.keys.clone());
        self.push(Output::Dial { dial, node, addresses, expected, show });
    }

    pub(super) fn handle_dial_failed(&mut self, dial: DialId, why: DialFailure) {
        let Some((node, slot, _)) = self.links.take_dial(dial) else { return };
        self.timers.cancel(TimerKey::Dial(dial));
        self.count(Counted::DialFailed);
        self.attempt_failed(node, slot, DownReason::DialFailed(why));
    }

    pub(super) fn handle_dial_timeout(&mut self, dial: DialId) {
        self.push(Output::CancelDial(dial));
        self.handle_dial_failed(dial, DialFailure::Timeout);
    }

    /// A lane was not made: again later.
    pub(super) fn attempt_failed(&mut self, node: NodeId, slot: LaneSlot, why: DownReason) {
        let Some(link) = self.links.nodes.get_mut(&node) else { return };
        link.say(why);
        let place = link.place(slot);
        place.attempt = Attempt::Idle;
        place.failures = place.failures.saturating_add(1);
        let failures = place.failures;
        if !planted("no-redial-after-failure") {
            self.redial_later(node, slot, failures);
        }
        if slot == LaneSlot::One {
            self.link_not_made(node, why);
        }
    }

    pub(super) fn redial_later(&mut self, node: NodeId, slot: LaneSlot, failures: u32) {
        let doubled = self.params.backoff_min.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let wait = doubled.min(self.params.backoff_max);
        // Between half and whole, so that nodes that failed together do not come back together.
        let permille = u32::try_from(500 + self.entropy.below(501)).unwrap_or(1000);
        self.timers.set(TimerKey::Redial(node, slot), self.now.mono + wait * permille / 1000);
    }

    /// Where a neighbour's accepted lane belongs.
    pub(super) fn place_node(&mut self, node: NodeId, slot: LaneSlot, id: LinkId) -> Result<Peer, Closing> {
        // law 1: only with neighbours
        self.accepts_link(node)?;
        let link = self.links.nodes.get(&node);
        let same = link.is_some_and(|link| link.is_up() && !link.dialled && link.id == id);
        match slot {
            LaneSlot::One => {
                let mine = link.is_some_and(|link| link.dialled && (link.is_up() || link.is_tried()));
                // spec 05, 5: of two simultaneous dials the smaller NodeID's stays
                if mine && self.id < node {
                    return Err(Closing::replaced());
                }
                let replaced = if same { self.lane_at(node, LaneSlot::One).into_iter().collect() } else { self.lanes_of(node) };
                for old in replaced {
                    self.close_lane(old, Closing::replaced());
                }
                self.cancel_attempts(node);
                if !self.links.keeps(node) {
                    self.links.keep(node, Keep::Theirs, self.now.mono);
                }
            }
            LaneSlot::Two => {
                if !same {
                    return Err(Closing::refused(GoAwayReason::Stranger, Counted::NoSuchLink));
                }
                if let Some(old) = self.lane_at(node, LaneSlot::Two) {
                    self.close_lane(old, Closing::replaced());
                }
            }
        }
        Ok(Peer::Node(node))
    }

    /// Where an accepted client lane belongs.
    pub(super) fn place_client(&mut self, lane: LaneId, hello: &Hello) -> Result<Peer, Closing> {
        if !self.accepts_clients() {
            return Err(Closing::refused(GoAwayReason::Stranger, Counted::ClientRefused));
        }
        let peer = Peer::Client(hello.link);
        if let Some(client) = self.links.clients.get(&hello.link) {
            // Who knows the link's id is who drew it: the newer lane replaces the older.
            if let Some(old) = client.lanes[hello.slot.index()] {
                self.close_lane(old, Closing::replaced());
            }
            return Ok(peer);
        }
        if hello.slot == LaneSlot::Two {
            return Err(Closing::refused(GoAwayReason::Stranger, Counted::NoSuchLink));
        }
        let full = Closing::refused(GoAwayReason::Full, Counted::ClientsFull);
        let remote = self.lanes.by_id(lane).map(|lane| lane.remote).ok_or(full)?;
        let here = self.links.clients_from(remote, |a, b| a == b);
        let near = self.links.clients_from(remote, same_prefix);
        let room = self.links.clients.len() < CLIENT_LINKS
            && here < usize::try_from(self.params.clients_per_address).unwrap_or(usize::MAX)
            && near < usize::try_from(self.params.clients_per_prefix).unwrap_or(usize::MAX);
        if room { Ok(peer) } else { Err(full) }
    }

    /// An admitted lane takes its place.
    pub(super) fn lane_joined(&mut self, lane: LaneId, peer: Peer, slot: LaneSlot, id: LinkId, dialled: bool) {
        match peer {
            Peer::Node(node) => self.node_lane_joined(lane, node, slot, id, dialled),
            Peer::Client(id) => {
                let Some(remote) = self.lanes.by_id(lane).map(|lane| lane.remote) else { return };
                let client = self.links.clients.entry(id).or_insert(ClientLink { lanes: [None; 2], remote });
                client.lanes[slot.index()] = Some(lane);
                let lanes = client.lanes.iter().flatten().copied().collect();
                self.push(Output::LinkUp { peer, lanes });
            }
        }
    }

    fn node_lane_joined(&mut self, lane: LaneId, node: NodeId, slot: LaneSlot, id: LinkId, dialled: bool) {
        let now = self.now.mono;
        let Some(link) = self.links.nodes.get_mut(&node) else { return };
        let was_up = link.is_up();
        if !was_up {
            link.since = now;
        }
        link.id = id;
        link.dialled = dialled;
        let place = link.place(slot);
        place.lane = Some(lane);
        place.attempt = Attempt::Idle;
        place.since = now;
        let lanes = link.lanes();
        self.timers.cancel(TimerKey::Redial(node, slot));
        self.push(Output::LinkUp { peer: Peer::Node(node), lanes });
        if !was_up {
            self.link_came_up(node);
        } else if slot == LaneSlot::One {
            self.say_publish_again(node);
        }
        self.dial_missing(node);
    }

    /// An admitted lane is gone.
    pub(super) fn lane_left(&mut self, lane: LaneId, peer: Peer, slot: LaneSlot, why: DownReason) {
        match peer {
            Peer::Node(node) => self.node_lane_left(lane, node, slot, why),
            Peer::Client(id) => {
                let Some(client) = self.links.clients.get_mut(&id) else { return };
                if client.lanes[slot.index()] == Some(lane) {
                    client.lanes[slot.index()] = None;
                }
                let lanes: Vec<_> = client.lanes.iter().flatten().copied().collect();
                if lanes.is_empty() {
                    self.links.clients.remove(&id);
                }
                self.push_lanes(peer, lanes);
            }
        }
    }

    fn node_lane_left(&mut self, lane: LaneId, node: NodeId, slot: LaneSlot, why: DownReason) {
        let (now, reset) = (self.now.mono, self.params.backoff_reset);
        let Some(link) = self.links.nodes.get_mut(&node) else { return };
        let place = link.place(slot);
        if place.lane != Some(lane) {
            return;
        }
        place.lane = None;
        // A lane that lasted begins anew; one that is lost at once counts like a failed dial.
        let lasted = now.saturating_sub(place.since) >= reset;
        place.failures = if lasted { 1 } else { place.failures.saturating_add(1) };
        let (failures, dialled, lanes) = (place.failures, link.dialled, link.lanes());
        if lanes.is_empty() {
            link.since = now;
            link.publishing = Publishing::default();
            link.say(why);
        }
        let down = lanes.is_empty();
        self.push_lanes(Peer::Node(node), lanes);
        if dialled {
            self.redial_later(node, slot, failures);
        }
        if down {
            self.link_went_down(node);
            if !dialled {
                // It is theirs to dial again, unless their Bottle says otherwise.
                self.dial_missing(node);
            }
        }
    }

    fn push_lanes(&mut self, peer: Peer, lanes: Vec<LaneId>) {
        self.push(if lanes.is_empty() { Output::LinkDown { peer } } else { Output::LinkUp { peer, lanes } });
    }

    pub(super) fn cancel_attempts(&mut self, node: NodeId) {
        for slot in LaneSlot::ALL {
            let Some(link) = self.links.nodes.get_mut(&node) else { return };
            let place = link.place(slot);
            match std::mem::replace(&mut place.attempt, Attempt::Idle) {
                Attempt::Idle => {}
                Attempt::Dialling(dial) => {
                    self.links.dials.remove(&dial);
                    self.timers.cancel(TimerKey::Dial(dial));
                    self.push(Output::CancelDial(dial));
                }
                Attempt::Opening(lane) => self.close_lane(lane, Closing::replaced()),
            }
            self.timers.cancel(TimerKey::Redial(node, slot));
        }
    }

    /// All dials and waits end: the engine stops.
    pub(super) fn cancel_all_attempts(&mut self) {
        let nodes: Vec<_> = self.links.nodes.keys().copied().collect();
        for node in nodes {
            self.cancel_attempts(node);
        }
    }

    pub(super) fn lanes_of(&self, node: NodeId) -> Vec<LaneId> {
        self.links.nodes.get(&node).map(NodeLink::lanes).unwrap_or_default()
    }

    pub(super) fn lane_at(&self, node: NodeId, slot: LaneSlot) -> Option<LaneId> {
        self.links.nodes.get(&node)?.places[slot.index()].lane
    }

    /// The neighbour that a key shown on a lane of link `id` belongs to. A Bottle can name anyone's key: where several do, only the
    /// link's id tells.
    pub(super) fn neighbour_with_key(&self, key: &VerifyingKey, id: LinkId) -> Option<NodeId> {
        let all: Vec<NodeId> = self.links.nodes.keys().copied().filter(|node| self.link_keys(*node).contains(key)).collect();
        let has_id = |node: &&NodeId| self.links.nodes.get(node).is_some_and(|link| link.is_up() && link.id == id);
        match &all[..] {
            [only] => Some(*only),
            several => several.iter().find(has_id).copied(),
        }
    }

    pub(super) fn link_keys(&self, node: NodeId) -> Vec<VerifyingKey> {
        self.contact(node).map(|contact| contact.keys).unwrap_or_default()
    }

    fn turn(&self, node: NodeId, link: &NodeLink, contact: &Contact) -> Turn {
        match link.keep {
            Keep::Fixed => self.fixed_turn(node, contact),
            // The lanes of a link that stands are completed by who dialled it.
            Keep::Theirs if !(link.is_up() && link.dialled) => Turn::Theirs,
            Keep::Chosen | Keep::Anchor | Keep::Theirs if contact.addresses.is_empty() => Turn::Nobodys,
            Keep::Chosen | Keep::Anchor | Keep::Theirs => Turn::Ours,
        }
    }

    fn fixed_turn(&self, node: NodeId, contact: &Contact) -> Turn {
        if contact.addresses.is_empty() {
            return if self.has_address() { Turn::Theirs } else { Turn::Nobodys };
        }
        // spec 05, 5: the smaller NodeID dials, unless only the other one can be dialled
        if !self.has_address() || self.id < node { Turn::Ours } else { Turn::Theirs }
    }
}

/// Whose turn it is to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Ours,
    Theirs,
    Nobodys,
}

impl NodeLink {
    /// Says why there is no link yet; what is known of a link that was tried or lost says more.
    fn say_at_first(&mut self, why: DownReason) {
        if matches!(self.why, DownReason::NoBottle | DownReason::NoAddress | DownReason::NoKey | DownReason::TheyDial) {
            self.say(why);
        }
    }

    fn say(&mut self, why: DownReason) {
        if !self.is_up() {
            self.why = why;
        }
    }
}

/// Addresses that are likely one host's or one operator's: the same /24, or /48 of IPv6.
fn same_prefix(a: IpAddr, b: IpAddr) -> bool {
    match (a.to_canonical(), b.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.octets()[..3] == b.octets()[..3],
        (IpAddr::V6(a), IpAddr::V6(b)) => a.octets()[..6] == b.octets()[..6],
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}
