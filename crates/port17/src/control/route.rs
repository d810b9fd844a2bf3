//! `GET /v1/circuits` and `POST /v1/route`: where a client's traffic goes, and where it could go.

use serde::{Deserialize, Serialize};

use super::status::NodeName;

/// A client's own circuits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circuits {
    /// Those that stand or are being built.
    pub circuits: Vec<CircuitStatus>,
}

/// One circuit of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitStatus {
    /// The PortNames of its hops, guard first.
    pub route: Vec<String>,
    /// Streams on it.
    pub streams: usize,
    /// Seconds since it was built.
    pub age_s: u64,
    /// Whether every hop has answered.
    pub open: bool,
}

/// What a route that is drawn is to be like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteWish {
    /// How many nodes; none: as many as the client's own routes have.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hops: Option<u8>,
    /// Where to, as `host:port`, `address:port`, or a host alone for port 443; none: some name at port 443.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// Nodes that it must not touch, by NodeID or PortName.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub exclude: Vec<String>,
}

/// A route drawn as the client would draw it. No circuit is built over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSample {
    /// Its hops, guard first.
    pub hops: Vec<HopSample>,
}

/// One hop of a drawn route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopSample {
    /// Who it is.
    #[serde(flatten)]
    pub node: NodeName,
    /// What it does there.
    pub role: HopRole,
    /// How many nodes could stand there behind the hops before it, itself among them; 1: there was no choice.
    pub candidates: u64,
}

/// What a hop does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HopRole {
    /// The first, kept for long.
    Guard,
    /// The second, kept as long as its link to the guard is there.
    Pinned,
    /// Drawn anew for each route.
    Middle,
    /// The last.
    Exit,
}

impl HopRole {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Pinned => "pinned",
            Self::Middle => "middle",
            Self::Exit => "exit",
        }
    }
}
