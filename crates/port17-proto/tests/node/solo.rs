//! One engine, and a test that plays its peers byte by byte.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use port17_proto::bottle::{ShortId, UnverifiedBottle, VerifiedBottle};
use port17_proto::crypto::{Entropy, SigningKey, VerifyingKey};
use port17_proto::node::Node;
use port17_proto::node::config::Config;
use port17_proto::node::io::{DialId, Input, LaneId, Output, Peer};
use port17_proto::params::Params;
use port17_proto::timers::Time;
use port17_proto::wire::message::{Hello, LaneSlot, LinkId, Message, RawMessage};
use port17_proto::wire::registry::{GoAwayReason, Role};

use super::mesh::{Mesh, Plan, START_UNIX_MS, id_of, link_key_of, node_config};

pub struct Solo {
    pub node: Node,
    pub now: Duration,
    /// All that came out since it was last looked at.
    pub outputs: Vec<Output>,
    lanes: u64,
}

impl Solo {
    /// The node of `seed`, with the node of `other` as its neighbour, whose Bottle it knows.
    pub fn new(seed: u64, other: u64) -> Self {
        Self::with(Plan { neighbours: vec![id_of(other)], ..Plan::new(seed) }, other)
    }

    /// The node of `plan`, which knows the Bottle of `other`'s node.
    pub fn with(plan: Plan, other: u64) -> Self {
        let mut solo = Self::alone(plan);
        solo.handle(Input::Bottle(bottle_of(other)));
        solo
    }

    /// The node of `plan`, which knows no Bottle.
    pub fn alone(plan: Plan) -> Self {
        let now = Duration::from_secs(1010);
        let mut solo = Self::of(node_config(&plan), now);
        solo.handle(Input::Tick);
        solo
    }

    /// An engine that is started as a test wants it.
    pub fn of(config: Config, now: Duration) -> Self {
        let node = Node::new(config, time(now)).unwrap();
        let mut solo = Self { node, now, outputs: vec![], lanes: 0 };
        solo.drain();
        solo
    }

    pub fn handle(&mut self, input: Input) {
        self.node.handle(input, time(self.now));
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.node.poll() {
                Output::Wait { .. } => return,
                // The disk is quick.
                Output::StoreSeq(seq) => self.node.handle(Input::SeqStored(seq), time(self.now)),
                output => self.outputs.push(output),
            }
        }
    }

    pub fn wait(&mut self, time: Duration) {
        self.now += time;
        self.handle(Input::Tick);
    }

    pub fn accept(&mut self, peer_key: VerifyingKey) -> LaneId {
        self.lane_up(None, peer_key)
    }

    pub fn lane_up(&mut self, dialled: Option<DialId>, peer_key: VerifyingKey) -> LaneId {
        self.lanes += 1;
        let lane = LaneId(self.lanes);
        self.handle(Input::LaneUp { lane, dialled, peer_key, remote: IpAddr::V4(Ipv4Addr::LOCALHOST) });
        lane
    }

    pub fn say(&mut self, lane: LaneId, message: &Message) {
        let message_raw = RawMessage::from_urgent(&message.encode()).unwrap();
        self.handle(Input::Control { lane, urgent: message.is_urgent(), message: message_raw });
    }

    /// The dial that came out, taken.
    pub fn dial(&mut self) -> Option<DialId> {
        let at = self.outputs.iter().position(|output| matches!(output, Output::Dial { .. }))?;
        match self.outputs.remove(at) {
            Output::Dial { dial, .. } => Some(dial),
            _ => None,
        }
    }

    /// The urgent messages on a lane.
    pub fn sent(&self, lane: LaneId) -> Vec<Message> {
        self.messages(lane, true)
    }

    /// The messages of a lane's stream.
    pub fn streamed(&self, lane: LaneId) -> Vec<Message> {
        self.messages(lane, false)
    }

    fn messages(&self, lane: LaneId, wanted: bool) -> Vec<Message> {
        let on_lane = self.outputs.iter().filter_map(|output| match output {
            Output::Send { lane: on, urgent, message } if *on == lane && *urgent == wanted => {
                Some(Message::decode(&RawMessage::from_urgent(message).unwrap(), *urgent).unwrap())
            }
            _ => None,
        });
        on_lane.collect()
    }

    /// What was wanted on a lane, over all.
    pub fn wanted(&self, lane: LaneId) -> Vec<Vec<ShortId>> {
        let wants = self.streamed(lane).into_iter().filter_map(|message| match message {
            Message::Want(ids) => Some(ids),
            _ => None,
        });
        wants.collect()
    }

    pub fn is_closed(&self, lane: LaneId) -> bool {
        self.outputs.iter().any(|output| matches!(output, Output::Close { lane: closed } if *closed == lane))
    }

    pub fn is_admitted(&self, lane: LaneId) -> bool {
        self.outputs.iter().any(|output| matches!(output, Output::AdmitLane { lane: admitted, .. } if *admitted == lane))
    }

    /// Closed, with this GOAWAY as the last word.
    pub fn sent_away(&self, lane: LaneId) -> Option<GoAwayReason> {
        match self.sent(lane).pop() {
            Some(Message::GoAway(reason)) if self.is_closed(lane) => Some(reason),
            _ => None,
        }
    }

    pub fn lanes_of(&self, peer: Peer) -> Vec<LaneId> {
        let last = self.outputs.iter().rev().find_map(|output| match output {
            Output::LinkUp { peer: of, lanes } if *of == peer => Some(lanes.clone()),
            Output::LinkDown { peer: of } if *of == peer => Some(vec![]),
            _ => None,
        });
        last.unwrap_or_default()
    }

    /// Bottles that it has published since the outputs were looked at; its seqs are stored at once.
    pub fn published(&self) -> Vec<VerifiedBottle> {
        let rules = Params::demo().bottle_rules();
        let made = self.outputs.iter().filter_map(|output| match output {
            Output::PublishBottle { seq, bytes } => {
                Some(UnverifiedBottle::parse(bytes).unwrap().verify(seq.unix_ms(), &rules).unwrap())
            }
            _ => None,
        });
        made.collect()
    }

    pub fn count(&self, name: &str) -> u64 {
        self.node.status().counts.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count)
    }
}

pub fn time(now: Duration) -> Time {
    Time { mono: now, unix_ms: START_UNIX_MS + u64::try_from(now.as_millis()).unwrap() }
}

/// The Bottle of a seed's node.
pub fn bottle_of(seed: u64) -> Vec<u8> {
    let mut mesh = Mesh::new();
    mesh.add(Plan::new(seed));
    mesh.run_for(Duration::from_secs(1));
    mesh.hosts[0].bottle_bytes.clone()
}

/// A node's first word.
pub fn own_bottle(seed: u64) -> Message {
    Message::Bottles { more: false, envelopes: vec![bottle_of(seed)] }
}

pub fn some_key(seed: u64) -> VerifyingKey {
    SigningKey::generate(&mut Entropy::from_number(seed + 70_000)).public()
}

pub fn neighbour_key(seed: u64) -> VerifyingKey {
    link_key_of(seed)
}

pub fn hello(role: Role, slot: LaneSlot, link: u8) -> Message {
    Message::Hello(Hello {
        versions: (1, 1),
        role,
        slot,
        link: LinkId([link; 16]),
        circuits: 100,
        network: port17_proto::ids::NetworkId::default(),
    })
}
