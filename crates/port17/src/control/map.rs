//! `GET /v1/map`: the mesh as the daemon knows it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::status::NodeName;

/// The nodes and the links that both of their ends list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshMap {
    /// The node that answers; a client is not in the map.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub own: Option<String>,
    /// The nodes, by NodeID.
    pub nodes: Vec<MapNode>,
    /// The links that both ends list, each once.
    pub links: Vec<MapLink>,
}

/// One node as its Bottle describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapNode {
    /// Who it is.
    #[serde(flatten)]
    pub node: NodeName,
    /// How far it is trusted.
    pub trust: Trust,
    /// Where it can be dialled; a node without is hidden.
    pub addresses: Vec<SocketAddr>,
    /// What it lets out of the mesh; none for a node that is no exit.
    pub exit_policy: Option<String>,
    /// The operator that it says it belongs to; empty where it says none.
    #[serde(default)]
    pub group: String,
    /// Whether it takes no new circuits.
    #[serde(default)]
    pub draining: bool,
    /// Seconds since its Bottle was made.
    pub bottle_age_s: u64,
}

/// How far a node is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// May be any hop.
    Trusted,
    /// May be a middle only.
    Unknown,
    /// Is used for nothing.
    Distrusted,
}

impl Trust {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Unknown => "unknown",
            Self::Distrusted => "distrusted",
        }
    }
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapLink {
    /// The NodeIDs of its ends, in the order of the nodes.
    pub nodes: [String; 2],
    /// The round trip in microseconds, as each end's Bottle says it; null where it says none.
    pub rtt_us: [Option<u64>; 2],
}
