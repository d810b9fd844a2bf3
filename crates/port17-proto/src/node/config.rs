//! What an engine is started with.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::bottle::{Address, Flags, Seq};
use crate::crypto::{Entropy, KemBackend, VerifyingKey};
use crate::identity::Identity;
use crate::ids::NodeId;
use crate::limits::{BOTTLE_ADDRESSES, BOTTLE_EGRESS, GROUP_CHARS, NEIGHBOURS, SOFTWARE_BYTES};
use crate::network::Definition;
use crate::node::record::Record;
use crate::params::{Params, ParamsError};
use crate::policy::ExitPolicy;
use crate::portname::Label;

/// All that an engine needs to know.
pub struct Config {
    /// What it is.
    pub role: Role,
    /// The parameters that hold until a signed list says otherwise.
    pub params: Params,
    /// The network; none: Bottles come from a directory, and all of them are trusted.
    pub network: Option<Definition>,
    /// What an earlier run stored.
    pub stored: Vec<Record>,
    /// Its randomness.
    pub entropy: Entropy,
}

/// A node or a client.
pub enum Role {
    /// Keeps links, forwards, publishes a Bottle.
    Node(Box<NodeSetup>),
    /// Keeps a link to its guard, publishes nothing.
    Client(ClientSetup),
}

/// What a node says of itself, and whom it links to.
pub struct NodeSetup {
    /// Signs its Bottles.
    pub identity: Identity,
    /// The chosen part of its name.
    pub label: Label,
    /// Operator or family, empty for none.
    pub group: String,
    /// The key that its lanes show.
    pub link_key: VerifyingKey,
    /// When that ends, Unix seconds. A Bottle never names a later time than the parameters allow, so `u64::MAX` means: as long as
    /// Bottles are published.
    pub link_key_expiry_s: u64,
    /// The key that its lanes may show too.
    pub next_link_key: Option<VerifyingKey>,
    /// Where it can be dialled; none for a hidden node.
    pub addresses: Vec<Address>,
    /// Where its exit's connections come from.
    pub egress: Vec<IpAddr>,
    /// What it opens as an exit.
    pub exit_policy: Option<ExitPolicy>,
    /// Yes-or-no statements.
    pub flags: Flags,
    /// Name and version of the software.
    pub software: String,
    /// The nodes it keeps links to, these and no others; none: it decides itself (spec 05, 5).
    pub neighbours: Option<Vec<NodeId>>,
    /// Whether clients may use it as their guard.
    pub accept_clients: bool,
    /// Which library makes its circuit keys.
    pub kem: KemBackend,
    /// The last sequence number that was stored.
    pub stored_seq: Option<Seq>,
}

/// What a client is told.
pub struct ClientSetup {
    /// Its guard; none: one is drawn once Bottles are there, and kept for the process's life.
    pub guard: Option<NodeId>,
    /// How many nodes its routes have; none: as many as the parameters say. What is pinned with a guard must lead to an exit in these.
    pub hops: Option<u32>,
}

/// The configuration does not hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A parameter is out of range.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// More neighbours than a Bottle can list.
    #[error("more than 64 neighbours")]
    Neighbours,
    /// The node is its own neighbour, or one stands twice.
    #[error("a neighbour is this node itself or is named twice")]
    NeighbourTwice,
    /// The group's name.
    #[error("the group must be at most 32 printable ASCII characters")]
    Group,
    /// The software's name.
    #[error("the software's name must be at most 32 printable ASCII characters")]
    Software,
    /// The addresses.
    #[error("at most 8 addresses and 4 egress addresses")]
    Addresses,
    /// An address of the loopback network where the parameters do not allow it.
    #[error("a loopback address cannot be published: only the demo parameters allow it")]
    Loopback,
}

impl Config {
    /// Checks what the types do not hold already.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.params.validate()?;
        match &self.role {
            Role::Node(setup) => setup.validate(&self.params),
            Role::Client(_) => Ok(()),
        }
    }
}

impl NodeSetup {
    fn validate(&self, params: &Params) -> Result<(), ConfigError> {
        let neighbours = self.neighbours.as_deref().unwrap_or_default();
        if neighbours.len() > NEIGHBOURS {
            return Err(ConfigError::Neighbours);
        }
        let different: BTreeSet<_> = neighbours.iter().chain([&self.identity.node_id()]).copied().collect();
        if different.len() != neighbours.len() + 1 {
            return Err(ConfigError::NeighbourTwice);
        }
        if !is_printable(&self.group, GROUP_CHARS) {
            return Err(ConfigError::Group);
        }
        if !is_printable(&self.software, SOFTWARE_BYTES) {
            return Err(ConfigError::Software);
        }
        if self.addresses.len() > BOTTLE_ADDRESSES || self.egress.len() > BOTTLE_EGRESS {
            return Err(ConfigError::Addresses);
        }
        let loopback = self.addresses.iter().any(|address| address.ip.is_loopback());
        if loopback && !params.loopback_allowed { Err(ConfigError::Loopback) } else { Ok(()) }
    }
}

fn is_printable(text: &str, most: usize) -> bool {
    text.len() <= most && text.bytes().all(|letter| (b' '..=b'~').contains(&letter))
}
