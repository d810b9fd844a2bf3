//! The engine: everything that a node or a client decides, without touching the world (laws 2 and 6).
//!
//! [`Node::handle`] takes what happened and the time; then [`Node::poll`] is called until it says [`Output::Wait`]. All deadlines
//! are in one timer table. A node and a client run the same engine with another [`Role`](config::Role).
//!
//! What it decides in this version (spec 10): the node's own Bottle (`own`) and circuit keys (`keys`), what becomes of Bottles that
//! come in, which links are made and by whom (`links`), and what is said on their lanes beside circuits (`lanes`). Circuits
//! themselves never pass through here.
//!
//! Invariants: the wall clock as the engine sees it never runs backwards; a Bottle is published only after its sequence number is
//! stored; a lane carries circuits only between [`Output::AdmitLane`] and its end; whatever a peer sends costs at most its lane.

mod bottles;
mod bucket;
pub mod config;
mod gossip;
pub mod io;
mod keys;
mod lanes;
mod links;
mod list;
mod own;
pub mod record;
pub mod status;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use config::{Config, ConfigError, Role};
use gossip::Gossip;
use io::{Counted, DialId, Input, LaneId, Output, Reason};
use keys::CircuitKeys;
use lanes::{Closing, Lanes};
use links::{Contact, Links};
use list::Lists;
use own::Own;

use crate::bottle::Address;
use crate::bottlerack::{Bottlerack, Trust};
use crate::crypto::Entropy;
use crate::ids::{NetworkId, NodeId};
use crate::network::Definition;
use crate::params::Params;
use crate::timers::{Time, Timers};
use crate::wire::message::LaneSlot;
use crate::wire::registry::{GoAwayReason, LaneType, Scope};

/// A deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TimerKey {
    Publish,
    Losses,
    CircuitKeys,
    Guard,
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
            Self::Guard => Reason::Guard,
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
    Client { guard: Option<NodeId> },
}

struct NodePart {
    own: Own,
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
    bottlerack: Bottlerack,
    lists: Lists,
    lanes: Lanes,
    links: Links,
    gossip: Gossip,
    timers: Timers<TimerKey>,
    outputs: VecDeque<Output>,
    counts: BTreeMap<Counted, u64>,
    stopping: bool,
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
        let (id, part, neighbours) = match role {
            Role::Node(setup) => {
                let (id, neighbours, accept_clients) = (setup.identity.node_id(), setup.neighbours.clone(), setup.accept_clients);
                let keys = CircuitKeys::new(setup.kem);
                (id, Part::Node(Box::new(NodePart { own: Own::new(setup, now), keys, accept_clients })), neighbours)
            }
            Role::Client(setup) => {
                let neighbours = setup.guard.into_iter().collect();
                (NodeId(entropy.bytes()), Part::Client { guard: setup.guard }, neighbours)
            }
        };
        let mut node = Self {
            id,
            params,
            network,
            part,
            entropy,
            now,
            bottlerack: Bottlerack::with_rules(Scope::Public, rack_rules),
            lists,
            lanes: Lanes::default(),
            links: Links::default(),
            gossip: Gossip::default(),
            timers: Timers::new(),
            outputs: VecDeque::new(),
            counts: BTreeMap::new(),
            stopping: false,
        };
        for neighbour in neighbours {
            node.links.keep(neighbour, now.mono);
        }
        node.timers.set(TimerKey::Bottlerack, now.mono + BOTTLERACK_SWEEP);
        node.trust_listed();
        if let Some(why) = bad_list {
            node.list_refused(&why);
        }
        node.restore_bottlerack(stored);
        node.begin();
        Ok(node)
    }

    fn begin(&mut self) {
        match &self.part {
            Part::Node(_) => {
                self.turn_circuit_keys();
                self.plan_losses();
            }
            Part::Client { guard: Some(guard) } => self.push(Output::Guard(*guard)),
            Part::Client { guard: None } => {}
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

    /// A client's guard, once there is one.
    pub fn guard(&self) -> Option<NodeId> {
        match &self.part {
            Part::Node(_) => None,
            Part::Client { guard } => *guard,
        }
    }

    /// Both clocks only go forward: a system clock that is set back stands still until it has caught up.
    fn observe(&mut self, now: Time) {
        self.now.mono = self.now.mono.max(now.mono);
        self.now.unix_ms = self.now.unix_ms.max(now.unix_ms);
    }

    fn fire_timers(&mut self) {
        while let Some(key) = self.timers.pop_due(self.now.mono) {
            match key {
                TimerKey::Publish => self.publish(),
                TimerKey::Losses => self.publish_losses(),
                TimerKey::CircuitKeys => self.turn_circuit_keys(),
                TimerKey::Guard => self.draw_guard(),
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
        self.cancel_all_attempts();
        self.stop_lists();
        for lane in self.lanes.ids() {
            let goaway = Some(GoAwayReason::Shutdown);
            self.close_lane(lane, Closing { goaway, counted: None, why: io::DownReason::SentAway(GoAwayReason::Shutdown) });
        }
        self.erase_all_circuit_keys();
        self.timers.clear();
        self.stopping = true;
        self.push(Output::Stopped);
    }

    // ---- Bottles of others (spec 04; spec 10, 1) ----

    /// A newer list is in force: who was not known before may be dialled now.
    fn list_changed(&mut self) {
        let kept: Vec<NodeId> = self.links.nodes().map(|(node, _)| *node).collect();
        for node in kept {
            self.dial_missing(node);
        }
        if matches!(self.part, Part::Client { guard: None }) && self.timers.at(TimerKey::Guard).is_none() {
            self.timers.set(TimerKey::Guard, self.now.mono + self.params.guard_draw_wait);
        }
    }

    /// How a node can be reached: by the newest Bottle of what came, be it expired, and of what the list names. None without one, and
    /// none for who is distrusted.
    fn contact(&self, node: NodeId) -> Option<Contact> {
        if self.trust(&node) == Trust::Distrusted {
            return None;
        }
        let stored = self.bottlerack.get(&node).or_else(|| self.bottlerack.hint(&node)).map(|stored| &stored.bottle);
        let listed = self.list().and_then(|list| list.node(&node));
        let bottle = stored.into_iter().chain(listed).max_by_key(|bottle| bottle.seq())?;
        let addresses = bottle.content().addresses.iter().filter(|address| self.may_dial(address)).map(Address::socket).collect();
        Some(Contact { keys: bottle.link_keys(self.now.unix_ms), addresses })
    }

    fn may_dial(&self, address: &Address) -> bool {
        let ip = address.ip.to_canonical();
        address.lane_type() == Some(LaneType::TlsTcp) && (self.params.loopback_allowed || !ip.is_loopback())
    }

    // ---- A client's guard (spec 10, 4) ----

    fn draw_guard(&mut self) {
        let candidates: Vec<NodeId> = self.guard_candidates();
        let Some(drawn) = self.entropy.pick(&candidates).copied() else { return };
        self.part = Part::Client { guard: Some(drawn) };
        self.links.keep(drawn, self.now.mono);
        self.push(Output::Guard(drawn));
        self.dial_missing(drawn);
    }

    /// Nodes that can be dialled and whose Bottle has not expired; those that list a link before those that list none.
    fn guard_candidates(&self) -> Vec<NodeId> {
        let reachable = |node: &NodeId| self.contact(*node).is_some_and(|it| !it.addresses.is_empty() && !it.keys.is_empty());
        let all: Vec<(NodeId, bool)> = (self.bottlerack.iter().map(|stored| &stored.bottle))
            .filter(|bottle| bottle.expires_ms() > self.now.unix_ms && reachable(&bottle.node_id()))
            .map(|bottle| (bottle.node_id(), !bottle.content().links.is_empty()))
            .collect();
        let linked: Vec<NodeId> = all.iter().filter(|(_, linked)| *linked).map(|(node, _)| *node).collect();
        if linked.is_empty() { all.into_iter().map(|(node, _)| node).collect() } else { linked }
    }

    // ---- Small things ----

    fn is_client(&self) -> bool {
        matches!(self.part, Part::Client { .. })
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
        if let Part::Node(part) = &mut self.part
            && part.own.relist(node)
        {
            self.want_bottle();
        }
    }

    fn link_went_down(&mut self, _: NodeId) {
        if matches!(self.part, Part::Node(_)) {
            self.plan_losses();
        }
    }
}
