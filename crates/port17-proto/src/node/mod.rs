//! The engine: everything that a node or a client decides, without touching the world (laws 2 and 6).
//!
//! [`Node::handle`] takes what happened and the time; then [`Node::poll`] is called until it says [`Output::Wait`]. All deadlines
//! are in one timer table. A node and a client run the same engine with another [`Role`](config::Role).
//!
//! What it decides in this version (spec 10): the node's own Bottle (`own`) and circuit keys (`keys`), what becomes of Bottles that
//! come in, which links are made and by whom (`links`), which of them a node wants (`choose`) and which stand in its Bottle
//! (`publish`), who a client's guards are (`guard`), and what is said on their lanes beside circuits (`lanes`). Circuits themselves
//! never pass through here.
//!
//! Invariants: the wall clock as the engine sees it never runs backwards; a Bottle is published only after its sequence number is
//! stored; a lane carries circuits only between [`Output::AdmitLane`] and its end; whatever a peer sends costs at most its lane.

mod bottles;
mod bucket;
mod choose;
mod clock;
pub mod config;
mod gossip;
pub mod guard;
pub mod io;
mod keys;
mod lanes;
mod links;
mod list;
mod own;
mod publish;
pub mod record;
mod shelf;
pub mod status;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use choose::Choice;
use clock::ClockSigns;
use config::{Config, ConfigError, Role};
use gossip::Gossip;
use guard::Guards;
use io::{Counted, DialId, Input, LaneId, Output, Reason};
use keys::CircuitKeys;
use lanes::{Closing, Lanes};
use links::{Contact, Keep, Links};
use list::Lists;
use own::Own;
use record::RecordKey;
pub use shelf::Shelf;

use crate::bottle::{Address, BottleRules, VerifiedBottle};
use crate::bottlerack::{Bottlerack, Trust};
use crate::crypto::Entropy;
use crate::ids::{NetworkId, NodeId};
use crate::navigator::Map;
use crate::network::Definition;
use crate::params::Params;
use crate::planted::planted;
use crate::policy;
use crate::timers::{Time, Timers};
use crate::wire::message::LaneSlot;
use crate::wire::registry::{GoAwayReason, LaneType, Scope};

/// A deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TimerKey {
    Publish,
    Losses,
    CircuitKeys,
    Choose,
    ChooseSoon,
    PublishLink(NodeId),
    Anchors,
    Guard,
    Patience,
    GuardReturn,
    GuardClose,
    GuardReview,
    Pins,
    Bottlerack,
    List,
    Handshake(LaneId),
    Ping(LaneId),
    PongDue(LaneId),
    Dial(DialId),
    Redial(NodeId, LaneSlot),
    Gossip,
    Repair(LaneId),
    Bulk(LaneId),
}

impl TimerKey {
    fn reason(self) -> Reason {
        match self {
            Self::Publish => Reason::Bottle,
            Self::Losses => Reason::LinkLoss,
            Self::CircuitKeys => Reason::CircuitKey,
            Self::Choose | Self::ChooseSoon | Self::PublishLink(_) | Self::Anchors => Reason::Link,
            Self::Guard | Self::Patience | Self::GuardReturn | Self::GuardClose | Self::GuardReview | Self::Pins => Reason::Guard,
            Self::Bottlerack => Reason::Bottlerack,
            Self::List => Reason::List,
            Self::Handshake(_) => Reason::Handshake,
            Self::Ping(_) | Self::PongDue(_) => Reason::Ping,
            Self::Dial(_) | Self::Redial(..) => Reason::Dial,
            Self::Gossip => Reason::Gossip,
            Self::Repair(_) => Reason::Repair,
            Self::Bulk(_) => Reason::Answer,
        }
    }
}

/// Old Bottles are looked for this often; they are not used once they have expired, so it only frees memory.
const BOTTLERACK_SWEEP: Duration = Duration::from_secs(3600);

/// What only a node has, or only a client.
enum Part {
    Node(Box<NodePart>),
    Client(Box<Guards>),
}

struct NodePart {
    own: Own,
    choice: Choice,
    keys: CircuitKeys,
    accept_clients: bool,
}

/// The engine of a node or a client.
pub struct Node {
    /// A client's is drawn for the process's life and never shown.
    id: NodeId,
    params: Params,
    /// None: Bottles come from a directory, and all of them are trusted.
    network: Option<Definition>,
    part: Part,
    entropy: Entropy,
    now: Time,
    clock: ClockSigns,
    bottlerack: Bottlerack,
    lists: Lists,
    lanes: Lanes,
    links: Links,
    gossip: Gossip,
    timers: Timers<TimerKey>,
    outputs: VecDeque<Output>,
    counts: BTreeMap<Counted, u64>,
    stopping: bool,
    shelf: Shelf,
}

impl Node {
    /// Starts an engine. Its first outputs are there at once.
    ///
    /// # Errors
    /// When the configuration or the parameters do not hold together.
    pub fn new(mut config: Config, now: Time) -> Result<Self, ConfigError> {
        let (lists, bad_list) = Lists::from_stored(&config.stored, config.network.as_ref());
        if let Some(list) = lists.in_force() {
            config.params = list.params().clone();
        }
        config.validate()?;
        let Config { role, params, network, stored, mut entropy } = config;
        let rack_rules = params.rack_rules();
        let record =
            |wanted| stored.iter().find(|(key, _)| *key == wanted).map(|(_, bytes)| bytes.as_slice()).unwrap_or_default();
        let anchors = publish::read_anchors(record(RecordKey::Anchors));
        let (id, part, neighbours) = match role {
            Role::Node(setup) => {
                let (id, neighbours, accept_clients) =
                    (setup.identity.node_id(), setup.neighbours.clone().unwrap_or_default(), setup.accept_clients);
                let keys = CircuitKeys::new(setup.kem);
                (
                    id,
                    Part::Node(Box::new(NodePart { own: Own::new(setup, now), choice: Choice::default(), keys, accept_clients })),
                    neighbours,
                )
            }
            Role::Client(setup) => {
                let mut guards = Guards::new(setup.guard, setup.hops);
                if network.is_some() {
                    guards.restore(record(RecordKey::Guards));
                }
                (NodeId(entropy.bytes()), Part::Client(Box::new(guards)), Vec::new())
            }
        };
        let mut node = Self {
            id,
            params,
            network,
            part,
            entropy,
            now,
            clock: ClockSigns::default(),
            bottlerack: Bottlerack::with_rules(Scope::Public, rack_rules),
            lists,
            lanes: Lanes::default(),
            links: Links::default(),
            gossip: Gossip::default(),
            timers: Timers::new(),
            outputs: VecDeque::new(),
            counts: BTreeMap::new(),
            stopping: false,
            shelf: Shelf::default(),
        };
        for neighbour in neighbours {
            node.links.keep(neighbour, Keep::Fixed, now.mono);
        }
        if node.decides() {
            node.take_anchors(anchors);
        }
        node.timers.set(TimerKey::Bottlerack, now.mono + BOTTLERACK_SWEEP);
        node.trust_listed();
        node.restore_bottlerack(stored);
        if let Some(why) = bad_list {
            node.list_refused(&why);
        }
        node.begin();
        Ok(node)
    }

    /// Bottles and lists that come from now on are read by way of this shelf, which other engines may share.
    pub fn share(&mut self, shelf: Shelf) {
        self.shelf = shelf;
    }

    fn begin(&mut self) {
        match &self.part {
            Part::Node(_) => {
                self.turn_circuit_keys();
                self.plan_losses();
                self.review_links();
            }
            Part::Client(_) => self.begin_guards(),
        }
        self.fire_timers();
    }

    /// Takes in what happened at `now`. Then [`Self::poll`] until it says `Wait`.
    pub fn handle(&mut self, input: Input, now: Time) {
        self.observe(now);
        if self.stopping {
            return;
        }
        match input {
            Input::LaneUp { lane, dialled, peer_key, remote } => self.handle_lane_up(lane, dialled, peer_key, remote),
            Input::Control { lane, urgent, message } => self.handle_control(lane, urgent, &message),
            Input::LaneDown { lane, why } => self.handle_lane_down(lane, why),
            Input::DialFailed { dial, why } => self.handle_dial_failed(dial, why),
            Input::Violation { lane, what } => self.handle_violation(lane, what),
            Input::Bottle(bytes) => self.handle_bottle(&bytes),
            Input::Tombstone(bytes) => self.handle_tombstone(&bytes),
            Input::List(bytes) => self.handle_list(&bytes),
            Input::SeqStored(seq) => self.handle_seq_stored(seq),
            Input::SeqNotStored(seq) => self.handle_seq_not_stored(seq),
            Input::GuardIdle(node) => self.handle_guard_idle(node),
            Input::Tick => {}
            Input::Shutdown => self.shut_down(),
        }
        self.fire_timers();
    }

    /// What to do next. Ends with `Wait`, which comes again until there is an input.
    pub fn poll(&mut self) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        if self.stopping {
            return Output::Wait { until: None, reason: Reason::Stopped };
        }
        match self.timers.next() {
            Some((at, key)) => Output::Wait { until: Some(at), reason: key.reason() },
            None => Output::Wait { until: None, reason: Reason::Nothing },
        }
    }

    /// The Bottles that the engine holds.
    pub fn bottlerack(&self) -> &Bottlerack {
        &self.bottlerack
    }

    /// The node's identity; for a client a random one that means nothing.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The network, all zeros without a network file.
    pub fn network_id(&self) -> NetworkId {
        self.network.as_ref().map(Definition::id).unwrap_or_default()
    }

    /// The parameters in force.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The guard that a client's new circuits begin at, once there is one.
    pub fn guard(&self) -> Option<NodeId> {
        match &self.part {
            Part::Node(_) => None,
            Part::Client(guards) => guards.active(),
        }
    }

    /// Both clocks only go forward: a system clock that is set back stands still until it has caught up.
    fn observe(&mut self, now: Time) {
        self.now.mono = self.now.mono.max(now.mono);
        self.now.unix_ms = self.now.unix_ms.max(now.unix_ms);
        if planted("wall-clock-runs-back") {
            self.now.unix_ms = now.unix_ms;
        }
        self.clock.compare(self.now.unix_ms, now.unix_ms);
    }

    fn fire_timers(&mut self) {
        while let Some(key) = self.timers.pop_due(self.now.mono) {
            match key {
                TimerKey::Publish => self.publish(),
                TimerKey::Losses => self.publish_losses(),
                TimerKey::CircuitKeys => self.turn_circuit_keys(),
                TimerKey::Choose => self.review_links(),
                TimerKey::ChooseSoon => self.choose_links(),
                TimerKey::PublishLink(node) => self.publish_link(node),
                TimerKey::Anchors => self.save_anchors(),
                TimerKey::Guard => self.draw_guards(),
                TimerKey::Patience => self.lose_patience(),
                TimerKey::GuardReturn => self.return_to_primary(),
                TimerKey::GuardClose => self.leave_backup(),
                TimerKey::GuardReview => self.review_guards(),
                TimerKey::Pins => self.review_pins(),
                TimerKey::Bottlerack => self.sweep_bottlerack(),
                TimerKey::List => self.handle_list_timeout(),
                TimerKey::Handshake(lane) => self.handle_handshake_timeout(lane),
                TimerKey::Ping(lane) => self.send_ping(lane),
                TimerKey::PongDue(lane) => self.handle_pong_timeout(lane),
                TimerKey::Dial(dial) => self.handle_dial_timeout(dial),
                TimerKey::Redial(node, _) => self.dial_missing(node),
                TimerKey::Gossip => self.gossip_batch(),
                TimerKey::Repair(lane) => self.repair(lane),
                TimerKey::Bulk(lane) => self.handle_bulk_timeout(lane),
            }
        }
    }

    fn shut_down(&mut self) {
        // From here on nothing is dialled or fetched any more, whatever ends.
        self.stopping = true;
        if self.timers.at(TimerKey::Anchors).is_some() {
            self.save_anchors();
        }
        self.cancel_all_attempts();
        self.stop_lists();
        for lane in self.lanes.ids() {
            let goaway = Some(GoAwayReason::Shutdown);
            self.close_lane(lane, Closing { goaway, counted: None, why: io::DownReason::SentAway(GoAwayReason::Shutdown) });
        }
        self.erase_all_circuit_keys();
        self.timers.clear();
        self.push(Output::Stopped);
    }

    // ---- Bottles of others (spec 04; spec 10, 1) ----

    /// A newer list is in force: who was not known before may be dialled now.
    fn list_changed(&mut self, rules_before: &BottleRules) {
        if *rules_before != self.params.bottle_rules() && matches!(self.part, Part::Node(_)) {
            // The own Bottle may not be valid by the new ones.
            self.turn_circuit_keys();
            self.want_bottle();
        }
        self.trust_listed();
        self.bottlerack.set_rules(self.params.rack_rules());
        self.dial_all_missing();
        self.links_changed();
        self.hasten();
        // Who is trusted no more is no guard any more.
        self.review_guards();
        self.guard_news_all();
    }

    /// What is planned by older parameters comes no later than the new ones say.
    fn hasten(&mut self) {
        if self.decides() {
            let next = self.spread(self.params.link_evaluate);
            self.timers.set_earlier(TimerKey::Choose, self.now.mono + next);
        }
        self.plan_losses();
        for lane in self.talking_lanes() {
            let next = self.spread(self.params.repair_interval);
            if self.timers.at(TimerKey::Repair(lane)).is_some() {
                self.timers.set_earlier(TimerKey::Repair(lane), self.now.mono + next);
            }
        }
    }

    /// How a node can be reached: the newest of the Bottle that came, be it expired, and what the list names. None without, for who is
    /// distrusted, and for who has left.
    fn contact(&self, node: NodeId) -> Option<Contact> {
        if self.trust(&node) == Trust::Distrusted || self.bottlerack.is_buried(&node) {
            return None;
        }
        let stored = self.bottlerack.get(&node).or_else(|| self.bottlerack.hint(&node)).map(|stored| &stored.bottle);
        let listed = self.list().and_then(|list| list.node(&node));
        let bottle = stored.into_iter().chain(listed).max_by_key(|bottle| bottle.seq())?;
        let addresses =
            bottle.content().addresses.iter().filter(|address| self.may_dial(node, address)).map(Address::socket).collect();
        Some(Contact { keys: bottle.link_keys(self.now.unix_ms), addresses })
    }

    /// An address is a claim: who nobody vouches for must not make a node knock at doors inside of its own network.
    fn may_dial(&self, node: NodeId, address: &Address) -> bool {
        let ip = address.ip.to_canonical();
        let may = if ip.is_loopback() {
            self.params.loopback_allowed
        } else {
            policy::is_public(ip)
                || self.params.private_allowed
                || self.trust(&node) == Trust::Trusted
                || self.links.is_fixed(&node)
        };
        may && address.lane_type() == Some(LaneType::TlsTcp)
    }

    // ---- What is known of nodes (spec 12) ----

    /// Nodes whose Bottle is held or listed, this one left out.
    fn known_nodes(&self) -> Vec<NodeId> {
        let held = self.bottlerack.iter().map(|stored| stored.bottle.node_id());
        held.chain(self.listed_alone()).filter(|node| *node != self.id).collect()
    }

    /// How many those are.
    fn known_count(&self) -> usize {
        let Some(list) = self.list() else { return self.bottlerack.len() };
        // Who is listed is trusted, and nobody else: whom the rack holds beside them is unknown.
        let known = list.nodes().len() + self.bottlerack.unknown() - usize::from(list.node(&self.id).is_some());
        debug_assert!(known == self.known_nodes().len() || planted("trust-only-grows"));
        known
    }

    /// Nodes of the list whose Bottle has not come.
    fn listed_alone(&self) -> impl Iterator<Item = NodeId> {
        self.listed().iter().map(VerifiedBottle::node_id).filter(|node| self.bottlerack.get(node).is_none())
    }

    /// The best that is known of a node, for whom it belongs to: never a hop.
    fn known_bottle(&self, node: &NodeId) -> Option<&VerifiedBottle> {
        let stored = self.bottlerack.get(node).map(|stored| &stored.bottle);
        stored.or_else(|| self.list().and_then(|list| list.node(node)))
    }

    /// The links that both ends list.
    fn map(&self) -> Map {
        let margin_ms = u64::try_from(self.params.circuit_key_margin.as_millis()).unwrap_or(u64::MAX);
        let bottles = self.bottlerack.iter().map(|stored| &stored.bottle);
        Map::build(bottles.map(|bottle| (bottle, self.trust(&bottle.node_id()))), margin_ms)
    }

    // ---- Small things ----

    fn is_client(&self) -> bool {
        matches!(self.part, Part::Client(_))
    }

    fn accepts_clients(&self) -> bool {
        matches!(&self.part, Part::Node(part) if part.accept_clients)
    }

    fn has_address(&self) -> bool {
        matches!(&self.part, Part::Node(part) if part.own.has_address())
    }

    fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn count(&mut self, what: Counted) {
        *self.counts.entry(what).or_default() += 1;
        self.push(Output::Counted(what));
    }

    /// A time, give or take a fifth, so that what began together does not stay together.
    fn spread(&mut self, time: Duration) -> Duration {
        let permille = u32::try_from(800 + self.entropy.below(401)).unwrap_or(1000);
        time * permille / 1000
    }

    fn link_came_up(&mut self, node: NodeId) {
        self.plan_publish(node);
        self.plan_losses();
        self.guard_came_up(node);
    }

    fn link_went_down(&mut self, node: NodeId) {
        self.timers.cancel(TimerKey::PublishLink(node));
        self.plan_losses();
        self.tidy_link(node);
        self.links_changed();
        self.guard_went_down(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SigningKey;
    use crate::network::Roots;

    fn client(params: Params) -> Node {
        let mut entropy = Entropy::from_number(1);
        let roots = Roots::new(1, vec![SigningKey::generate(&mut entropy).public()]).unwrap();
        let config = Config {
            role: Role::Client(config::ClientSetup { guard: None, hops: None }),
            params,
            network: Some(Definition::new("test-net", roots).unwrap()),
            stored: Vec::new(),
            entropy,
        };
        Node::new(config, Time { mono: Duration::ZERO, unix_ms: 1_800_000_000_000 }).unwrap()
    }

    #[test]
    fn who_nobody_vouches_for_is_dialled_at_public_addresses_alone() {
        let may = |params, address: &str| {
            let node = client(params);
            node.may_dial(NodeId([7; 32]), &Address::new(address.parse().unwrap(), LaneType::TlsTcp))
        };
        for address in [
            "10.0.0.1:1717",
            "192.168.1.1:443",
            "169.254.169.254:17",
            "[fe80::1]:1717",
            "[::ffff:10.0.0.1]:1717",
            "[64:ff9b::a00:1]:1717",
            "[2002:a00:1::1]:1717",
        ] {
            assert!(!may(Params::DEFAULT, address), "{address}");
            assert!(may(Params::private(), address), "{address}");
        }
        assert!(may(Params::DEFAULT, "9.9.9.9:1717") && may(Params::DEFAULT, "[2620:fe::fe]:1717"));
        assert!(!may(Params::private(), "127.0.0.1:1717") && may(Params::demo(), "127.0.0.1:1717"));
    }
}
