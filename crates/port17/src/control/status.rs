//! `GET /v1/status`: what a daemon says of itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::route::CircuitStatus;

/// What a daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Node or client.
    pub role: Role,
    /// The software's version.
    pub version: String,
    /// Whether it does its work: a node has a link (or wants none), a client has its guard.
    pub ready: bool,
    /// What is missing, in words; none when all is well. Something may be missing although it is ready, such as one link of three.
    pub waiting_for: Option<String>,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// The chosen label of the configuration, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label: Option<String>,
    /// A node's NodeID; a client has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node_id: Option<String>,
    /// A node's PortName.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub portname: Option<String>,
    /// Where a client accepts SOCKS and HTTP.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub socks: Option<SocketAddr>,
    /// The first hop of a client's routes, once it is chosen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub guard: Option<NodeName>,
    /// The network; none where Bottles come from a directory alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<NetworkStatus>,
    /// The name of the parameters in force.
    pub parameters: String,
    /// Nodes in the map: those whose Bottle is here, a node's own among them.
    pub map_nodes: u64,
    /// Other nodes of which it knows a Bottle or a place in the signed list.
    pub known: u64,
    /// Those of them that are trusted.
    pub trusted: u64,
    /// Its links, by NodeID.
    pub links: Vec<LinkStatus>,
    /// How many links a node wants; none where the configuration names its neighbours, and for a client.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wanted_links: Option<u64>,
    /// Links to clients.
    pub clients: u64,
    /// Circuits on all lanes.
    pub circuits: u64,
    /// A client's own circuits.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub standing: Vec<CircuitStatus>,
    /// A node's own Bottle, once one is out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bottle: Option<BottleStatus>,
    /// The store; none where nothing is stored.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub store: Option<StoreStatus>,
    /// What it has made and not ended; for who looks for what is left over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub objects: Option<ObjectsStatus>,
    /// What was refused or went wrong, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub counts: BTreeMap<String, u64>,
}

impl Status {
    /// One that knows nothing but its role yet; what there is to say is filled in.
    pub fn of(role: Role) -> Self {
        Self {
            role,
            version: super::VERSION.to_owned(),
            ready: false,
            waiting_for: Some("its start".to_owned()),
            uptime_s: 0,
            label: None,
            node_id: None,
            portname: None,
            socks: None,
            guard: None,
            network: None,
            parameters: String::new(),
            map_nodes: 0,
            known: 0,
            trusted: 0,
            links: Vec::new(),
            wanted_links: None,
            clients: 0,
            circuits: 0,
            standing: Vec::new(),
            bottle: None,
            store: None,
            objects: None,
            counts: BTreeMap::new(),
        }
    }
}

/// A daemon's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Forwards cells.
    Node,
    /// Has a proxy port.
    Client,
}

/// A node as people and programs know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeName {
    /// Its NodeID.
    pub node_id: String,
    /// Its PortName, where its Bottle is known.
    #[serde(default)]
    pub portname: Option<String>,
}

impl NodeName {
    /// The PortName, else the NodeID.
    pub fn text(&self) -> &str {
        self.portname.as_deref().unwrap_or(&self.node_id)
    }
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The neighbour.
    #[serde(flatten)]
    pub node: NodeName,
    /// Whether circuits can use it.
    pub up: bool,
    /// Seconds since it went up or down.
    pub since_s: u64,
    /// Lanes that are up.
    pub lanes: u8,
    /// The round trip of its quickest lane in microseconds, once measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rtt_us: Option<u64>,
    /// Whether this side dialled it.
    pub dialled: bool,
    /// Who has said that it may be published; it stands in both Bottles when both have. None between a client and its guard.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub published: Option<Published>,
    /// Why it is not up, in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waiting_for: Option<String>,
    /// Seconds until it is dialled again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub redial_in_s: Option<u64>,
}

/// Who has said that a link may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// This node.
    pub here: bool,
    /// The neighbour.
    pub there: bool,
}

/// The network that the daemon is part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Its name.
    pub name: String,
    /// Its identity, base32.
    pub network_id: String,
    /// The signed list in force; none until one has come.
    pub list: Option<ListStatus>,
    /// Where lists are fetched from.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub sources: Vec<SourceStatus>,
}

/// The signed list in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListStatus {
    /// Its sequence number.
    pub seq: u64,
    /// When it was signed, Unix seconds.
    pub issued_s: u64,
    /// Until when it holds, Unix seconds.
    pub expires_s: u64,
    /// Nodes in it.
    pub nodes: u64,
    /// Whether this node is one of them: if not, clients use it in the middle of their routes alone. None for a client.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub names_this: Option<bool>,
}

/// A place that lists are fetched from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its address.
    pub source: String,
    /// Whether the last attempt gave a list.
    pub ok: bool,
    /// What came of the last attempt, in words, such as "answers 404"; none before the first.
    pub result: Option<String>,
    /// Seconds since the last attempt.
    pub tried_s_ago: Option<u64>,
    /// Seconds until the next one.
    pub again_in_s: Option<u64>,
}

/// The own Bottle that is out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BottleStatus {
    /// Its sequence number.
    pub seq: u64,
    /// Seconds since it was published.
    pub age_s: u64,
    /// Links that it no longer lists because they were down for long.
    pub withdrawn: u64,
}

/// The store of what survives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Its file.
    pub path: String,
    /// Records that wait to be written.
    pub waiting: u64,
    /// Why it cannot be written, in words; none when it can.
    pub problem: Option<String>,
}

/// What a daemon holds. Totals alone: nothing here tells one circuit or one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectsStatus {
    /// Lanes, until nothing can reach them any more.
    pub lanes: ObjectCount,
    /// Directions of circuits in which cells arrive here: two for each circuit that passes, one for each that begins or ends.
    pub half_hops: ObjectCount,
    /// Circuits that begin or end here.
    pub edges: ObjectCount,
    /// Streams of those circuits that an application, a server or a dial waits for.
    pub streams: ObjectCount,
    /// Cells that memory is reserved for.
    pub reserved_cells: u64,
    /// SETUPs that wait for a worker.
    pub setups_waiting: u64,
    /// Inputs that wait for the engine.
    pub inputs_waiting: u64,
}

/// Objects of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectCount {
    /// Made since the start.
    pub created: u64,
    /// Those of them that are not gone.
    pub live: u64,
}
