//! Lanes: from the TLS handshake over HELLO to the last PING (spec 05, 4).
//!
//! A lane is in one of four stages. *Awaiting HELLO*: the peer dialled and speaks first. *Awaiting its Bottle*: the HELLO of a node
//! whose key is not known has come; its Bottle, which follows at once, says who it is. *Awaiting the answer*: this side dialled and has
//! sent its HELLO, and a node its Bottle behind it. *Admitted*: both have spoken, the lane belongs to a link and carries circuits. Whatever does not fit its
//! stage closes the lane; nothing ever goes back a stage.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::io::{Counted, DialId, DownReason, LaneId, LaneLoss, Output, Peer};
use super::{Node, TimerKey};
use crate::crypto::VerifyingKey;
use crate::ids::NodeId;
use crate::limits::UNADMITTED_LANES;
use crate::planted::planted;
use crate::wire::message::{Hello, LaneSlot, LinkId, Message, RawMessage};
use crate::wire::registry::{GoAwayReason, Role, VERSION};

/// The weight of what was measured before, in a smoothed round trip: 7 of 8.
const RTT_OLD_WEIGHT: u32 = 7;

/// The stage of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Accepted; the peer's HELLO is due.
    AwaitingHello,
    /// Accepted, and the HELLO of a node with a key that is not known has come; its Bottle is due.
    AwaitingBottle { link: LinkId, circuits: u32 },
    /// Dialled; the answer to this side's HELLO is due.
    AwaitingAnswer { node: NodeId, slot: LaneSlot, link: LinkId },
    /// Part of a link.
    Admitted { peer: Peer, slot: LaneSlot },
}

/// A PING that is not answered yet.
#[derive(Debug, Clone, Copy)]
struct Ping {
    token: u64,
    sent: Duration,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) stage: Stage,
    pub(super) peer_key: VerifyingKey,
    pub(super) remote: IpAddr,
    ping: Option<Ping>,
    pub(super) rtt: Option<Duration>,
}

/// All lanes that TLS has made and nobody has closed.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    all: BTreeMap<LaneId, Lane>,
}

impl Lanes {
    pub(super) fn by_id(&self, lane: LaneId) -> Option<&Lane> {
        self.all.get(&lane)
    }

    pub(super) fn ids(&self) -> Vec<LaneId> {
        self.all.keys().copied().collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&LaneId, &Lane)> {
        self.all.iter()
    }

    fn awaiting_hello(&self) -> usize {
        let awaits = |stage| matches!(stage, Stage::AwaitingHello | Stage::AwaitingBottle { .. });
        self.all.values().filter(|lane| awaits(lane.stage)).count()
    }
}

/// Why this side closes a lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    /// What the peer is told, if anything.
    pub(super) goaway: Option<GoAwayReason>,
    /// What is counted.
    pub(super) counted: Option<Counted>,
    /// What the status says.
    pub(super) why: DownReason,
}

impl Closing {
    /// The peer broke the protocol.
    pub(super) fn broke(counted: Counted, what: &'static str) -> Self {
        Self { goaway: Some(GoAwayReason::Protocol), counted: Some(counted), why: DownReason::Broke(what) }
    }

    /// The peer is sent away, and told why.
    pub(super) fn refused(reason: GoAwayReason, counted: Counted) -> Self {
        Self { goaway: Some(reason), counted: Some(counted), why: DownReason::SentAway(reason) }
    }

    /// The peer is silent.
    pub(super) fn silent(counted: Counted) -> Self {
        Self { goaway: None, counted: Some(counted), why: DownReason::Silent }
    }

    /// Another lane takes this one's place.
    pub(super) fn replaced() -> Self {
        let goaway = GoAwayReason::Duplicate;
        Self { goaway: Some(goaway), counted: Some(Counted::Duplicate), why: DownReason::SentAway(goaway) }
    }
}

impl Node {
    pub(super) fn handle_lane_up(&mut self, lane: LaneId, dialled: Option<DialId>, peer_key: VerifyingKey, remote: IpAddr) {
        if self.lanes.all.contains_key(&lane) {
            return;
        }
        let stage = match dialled {
            Some(dial) => self.take_dialled(dial, &peer_key),
            None => self.take_accepted(),
        };
        let Some(stage) = stage else {
            self.push(Output::Close { lane });
            return;
        };
        self.lanes.all.insert(lane, Lane { stage, peer_key, remote: remote.to_canonical(), ping: None, rtt: None });
        // spec 05, 4: HELLO within the handshake's time
        self.timers.set(TimerKey::Handshake(lane), self.now.mono + self.params.handshake_timeout);
        if let Stage::AwaitingAnswer { node, slot, link } = stage {
            self.links.opening(lane, node, slot);
            // A client forwards nothing: nobody opens a circuit to it.
            let circuits = if self.is_client() { 0 } else { self.params.node_lane_circuits };
            self.send_hello(lane, slot, link, circuits);
            if slot == LaneSlot::One {
                // spec 11, 2: behind HELLO at once, for who does not know the key yet
                self.send_own_bottle(lane);
            }
        }
    }

    fn circuits_for(&self, peer: &Peer) -> u32 {
        match peer {
            Peer::Node(_) => self.params.node_lane_circuits,
            Peer::Client(_) => self.params.client_link_circuits,
        }
    }

    /// The stage of a lane that answers a dial, none if the dial is not wanted any more or another key answered.
    fn take_dialled(&mut self, dial: DialId, peer_key: &VerifyingKey) -> Option<Stage> {
        let (node, slot, link) = self.links.take_dial(dial)?;
        self.timers.cancel(TimerKey::Dial(dial));
        // The driver has checked the key against the dial's; the engine's view of it may be newer.
        if self.link_keys(node).contains(peer_key) {
            return Some(Stage::AwaitingAnswer { node, slot, link });
        }
        self.count(Counted::DialFailed);
        self.attempt_failed(node, slot, DownReason::DialFailed(super::io::DialFailure::WrongKey));
        None
    }

    fn take_accepted(&mut self) -> Option<Stage> {
        // A client accepts nobody: it has no address and dials its guard alone.
        if self.is_client() || self.stopping {
            self.count(Counted::Stranger);
            return None;
        }
        if self.lanes.awaiting_hello() >= UNADMITTED_LANES {
            self.count(Counted::UnadmittedFull);
            return None;
        }
        Some(Stage::AwaitingHello)
    }

    pub(super) fn handle_control(&mut self, lane: LaneId, urgent: bool, raw: &RawMessage) {
        let Some(stage) = self.lanes.by_id(lane).map(|lane| lane.stage) else { return };
        let message = match Message::decode(raw, urgent) {
            Ok(message) => message,
            Err(_) => return self.close_lane(lane, Closing::broke(Counted::Malformed, "a malformed control message")),
        };
        match (message, stage) {
            (Message::Hello(hello), Stage::AwaitingHello) => self.handle_first_hello(lane, &hello),
            (Message::Hello(hello), Stage::AwaitingAnswer { node, slot, link }) => {
                self.handle_answer(lane, &hello, node, slot, link);
            }
            (Message::Bottles { more: false, envelopes }, Stage::AwaitingBottle { link, circuits }) => {
                self.handle_first_bottle(lane, link, circuits, &envelopes);
            }
            (Message::GoAway(reason), _) => self.handle_goaway(lane, reason),
            (Message::Ping(token), Stage::Admitted { .. }) => self.send(lane, &Message::Pong(token)),
            (Message::Pong(token), Stage::Admitted { .. }) => self.handle_pong(lane, token),
            (Message::Hello(_), Stage::Admitted { .. }) => {
                self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "a second HELLO"));
            }
            (_, Stage::AwaitingBottle { .. }) => {
                self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "another first word than its Bottle"));
            }
            (_, Stage::AwaitingHello | Stage::AwaitingAnswer { .. }) => {
                self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "a message before HELLO"));
            }
            (Message::Later(_), Stage::Admitted { slot: LaneSlot::One, .. }) => self.count(Counted::Skipped),
            (message, Stage::Admitted { slot: LaneSlot::One, peer }) => self.handle_stream(lane, peer, message),
            (_, Stage::Admitted { slot: LaneSlot::Two, .. }) => {
                // spec 05, 4: the message stream is lane 1's
                self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "the message stream on lane 2"));
            }
        }
    }

    fn handle_first_hello(&mut self, lane: LaneId, hello: &Hello) {
        if !speaks_our_version(hello) {
            return self.close_lane(lane, Closing::refused(GoAwayReason::Version, Counted::Version));
        }
        if hello.network != self.network_id() {
            return self.close_lane(lane, Closing::refused(GoAwayReason::Network, Counted::Network));
        }
        match hello.role {
            Role::Node => self.handle_node_hello(lane, hello),
            Role::Client => {
                let placed = self.place_client(lane, hello);
                self.answer(lane, placed, hello.slot, hello.link, hello.circuits, false);
            }
        }
    }

    fn handle_node_hello(&mut self, lane: LaneId, hello: &Hello) {
        let Some(held) = self.lanes.all.get(&lane) else { return };
        let known = self.neighbour_with_key(&held.peer_key, hello.link);
        match (known, hello.slot) {
            (Some(node), slot) => {
                let placed = self.place_node(node, slot, hello.link);
                self.answer(lane, placed, slot, hello.link, hello.circuits, false);
            }
            (None, LaneSlot::One) => {
                // spec 11, 2: who it is, its Bottle says; the handshake's time runs on
                if let Some(held) = self.lanes.all.get_mut(&lane) {
                    held.stage = Stage::AwaitingBottle { link: hello.link, circuits: hello.circuits };
                }
                self.push(Output::HearLane { lane });
            }
            (None, LaneSlot::Two) => self.close_lane(lane, Closing::refused(GoAwayReason::Stranger, Counted::Stranger)),
        }
    }

    /// The first word of a node whose key was not known.
    fn handle_first_bottle(&mut self, lane: LaneId, link: LinkId, circuits: u32, envelopes: &[Vec<u8>]) {
        let [envelope] = envelopes else {
            return self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "another first word than its Bottle"));
        };
        let node = match self.meet_stranger(lane, envelope) {
            Ok(node) => node,
            Err(closing) => return self.close_lane(lane, closing),
        };
        let placed = self.place_node(node, LaneSlot::One, link);
        self.answer(lane, placed, LaneSlot::One, link, circuits, true);
        // If that led to no link, its Bottle may.
        self.dial_missing(node);
    }

    /// Answers a HELLO, and admits its lane if there is a place.
    fn answer(
        &mut self,
        lane: LaneId,
        placed: Result<Peer, Closing>,
        slot: LaneSlot,
        link: LinkId,
        circuits: u32,
        heard_own: bool,
    ) {
        match placed {
            Ok(peer) => {
                let ours = self.circuits_for(&peer);
                self.send_hello(lane, slot, link, ours);
                if slot == LaneSlot::One {
                    self.open_talk(lane, false, heard_own);
                }
                self.admit(lane, peer, slot, link, circuits, false);
            }
            Err(closing) => self.close_lane(lane, closing),
        }
    }

    fn handle_answer(&mut self, lane: LaneId, hello: &Hello, node: NodeId, slot: LaneSlot, link: LinkId) {
        if !speaks_our_version(hello) {
            return self.close_lane(lane, Closing::refused(GoAwayReason::Version, Counted::Version));
        }
        if hello.network != self.network_id() {
            return self.close_lane(lane, Closing::refused(GoAwayReason::Network, Counted::Network));
        }
        // spec 05, 4: the acceptor repeats slot and link id
        if hello.role != Role::Node || hello.slot != slot || hello.link != link {
            return self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "an answer that does not fit its HELLO"));
        }
        if !self.links.expects(node, link) {
            return self.close_lane(lane, Closing::replaced());
        }
        if slot == LaneSlot::One {
            self.open_talk(lane, true, false);
        }
        self.admit(lane, Peer::Node(node), slot, link, hello.circuits, true);
    }

    fn admit(&mut self, lane: LaneId, peer: Peer, slot: LaneSlot, link: LinkId, circuits: u32, dialled: bool) {
        let Some(held) = self.lanes.all.get_mut(&lane) else { return };
        held.stage = Stage::Admitted { peer, slot };
        self.timers.cancel(TimerKey::Handshake(lane));
        self.push(Output::AdmitLane { lane, peer, slot, dialled, circuits });
        self.lane_joined(lane, peer, slot, link, dialled);
        self.send_ping(lane);
    }

    fn handle_goaway(&mut self, lane: LaneId, reason: GoAwayReason) {
        self.close_lane(lane, Closing { goaway: None, counted: None, why: DownReason::SentAway(reason) });
    }

    fn handle_pong(&mut self, lane: LaneId, token: u64) {
        let now = self.now.mono;
        let Some(held) = self.lanes.all.get_mut(&lane) else { return };
        let Some(ping) = held.ping.take_if(|ping| ping.token == token) else {
            return self.close_lane(lane, Closing::broke(Counted::OutOfPlace, "a PONG that nobody asked for"));
        };
        let measured = now.saturating_sub(ping.sent);
        let rtt = held.rtt.map_or(measured, |old| (old * RTT_OLD_WEIGHT + measured) / (RTT_OLD_WEIGHT + 1));
        held.rtt = Some(rtt);
        self.push(Output::LaneRtt { lane, rtt });
        self.timers.cancel(TimerKey::PongDue(lane));
        let next = self.spread(self.params.ping_interval);
        self.timers.set(TimerKey::Ping(lane), now + next);
    }

    pub(super) fn send_ping(&mut self, lane: LaneId) {
        let token = u64::from_be_bytes(self.entropy.bytes());
        let Some(held) = self.lanes.all.get_mut(&lane) else { return };
        held.ping = Some(Ping { token, sent: self.now.mono });
        if !(planted("silent-peer-not-noticed") && held.rtt.is_some()) {
            self.timers.set(TimerKey::PongDue(lane), self.now.mono + self.params.ping_timeout);
        }
        self.send(lane, &Message::Ping(token));
    }

    pub(super) fn handle_handshake_timeout(&mut self, lane: LaneId) {
        self.close_lane(lane, Closing::silent(Counted::HandshakeTimeout));
    }

    pub(super) fn handle_pong_timeout(&mut self, lane: LaneId) {
        self.close_lane(lane, Closing::silent(Counted::PingTimeout));
    }

    pub(super) fn handle_violation(&mut self, lane: LaneId, what: &'static str) {
        self.close_lane(lane, Closing::broke(Counted::Violation, what));
    }

    pub(super) fn handle_lane_down(&mut self, lane: LaneId, why: LaneLoss) {
        self.forget_lane(lane, DownReason::LaneLost(why));
    }

    /// Says why, closes, and forgets the lane: what comes on it later is ignored.
    pub(super) fn close_lane(&mut self, lane: LaneId, closing: Closing) {
        if self.lanes.by_id(lane).is_none() {
            return;
        }
        if let Some(counted) = closing.counted {
            self.count(counted);
        }
        if let Some(reason) = closing.goaway {
            self.send(lane, &Message::GoAway(reason));
        }
        self.push(Output::Close { lane });
        self.forget_lane(lane, closing.why);
    }

    fn forget_lane(&mut self, lane: LaneId, why: DownReason) {
        let Some(held) = self.lanes.all.remove(&lane) else { return };
        for key in [TimerKey::Handshake(lane), TimerKey::Ping(lane), TimerKey::PongDue(lane)] {
            self.timers.cancel(key);
        }
        self.end_talk(lane);
        match held.stage {
            Stage::AwaitingHello | Stage::AwaitingBottle { .. } => {}
            Stage::AwaitingAnswer { node, slot, .. } => self.attempt_failed(node, slot, why),
            Stage::Admitted { peer, slot } => self.lane_left(lane, peer, slot, why),
        }
        self.forget_list_of(lane);
    }

    fn send_hello(&mut self, lane: LaneId, slot: LaneSlot, link: LinkId, circuits: u32) {
        let role = if self.is_client() { Role::Client } else { Role::Node };
        self.send(
            lane,
            &Message::Hello(Hello { versions: (VERSION, VERSION), role, slot, link, circuits, network: self.network_id() }),
        );
    }

    pub(super) fn send(&mut self, lane: LaneId, message: &Message) {
        self.push(Output::Send { lane, urgent: message.is_urgent(), message: message.encode() });
    }
}

fn speaks_our_version(hello: &Hello) -> bool {
    (hello.versions.0..=hello.versions.1).contains(&VERSION)
}
