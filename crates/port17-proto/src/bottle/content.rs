use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::{BottleError, Seq};
use crate::crypto::{KemPublicKey, VerifyingKey};
use crate::ids::NodeId;
use crate::limits::{BOTTLE_ADDRESSES, BOTTLE_EGRESS, BOTTLE_LINKS, GROUP_CHARS, SOFTWARE_BYTES, UNKNOWN_FIELDS};
use crate::policy::ExitPolicy;
use crate::portname::{Label, PortName};
use crate::wire::registry::{BOTTLE_FLAG_DRAINING, BOTTLE_FLAG_METERED, BOTTLE_LOAD_MAX, BottleKey, LaneType, Scope, VERSION};

/// The first 8 bytes of a NodeID, by which a Bottle names the other end of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodePrefix(pub [u8; 8]);

impl From<&NodeId> for NodePrefix {
    fn from(node: &NodeId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = node.0;
        Self([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for NodePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodePrefix({:016x})", u64::from_be_bytes(self.0))
    }
}

/// The key that SETUPs to this node are sealed with, and until when. It exists longer than the Bottle that carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct CircuitKey {
    /// The X-Wing public key. Whether it is a valid one shows when it is used.
    pub public: KemPublicKey,
    /// Unix seconds; from then on the node has erased it.
    pub not_after_s: u64,
}

impl fmt::Debug for CircuitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitKey").field("not_after_s", &self.not_after_s).finish_non_exhaustive()
    }
}

/// Where a node listens for lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// IPv4 or IPv6, never an IPv4-mapped, unspecified or multicast one.
    pub ip: IpAddr,
    /// Not 0.
    pub port: u16,
    /// The number of the lane type, see [`Self::lane_type`].
    pub lane_code: u8,
}

impl Address {
    /// A lane of a known type at `socket`.
    pub fn new(socket: SocketAddr, lane_type: LaneType) -> Self {
        Self { ip: socket.ip().to_canonical(), port: socket.port(), lane_code: lane_type.code() }
    }

    /// The address to connect to.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    /// How lanes to it are carried; none for a type from the future, which is not dialled.
    pub fn lane_type(&self) -> Option<LaneType> {
        LaneType::from_code(self.lane_code)
    }
}

/// One end's word on a link. The link counts once the other end's Bottle lists it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkClaim {
    /// The other end.
    pub peer: NodePrefix,
    /// Round trip, see [`super::rtt_us`]; 255 for unknown.
    pub rtt: u8,
    /// Capacity, see [`super::capacity_mbit_s`]; 255 for unknown.
    pub capacity: u8,
}

/// Yes-or-no statements of a node; bits that are not known are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// The node takes no new circuits.
    pub fn is_draining(self) -> bool {
        self.0 & BOTTLE_FLAG_DRAINING != 0
    }

    /// The node's traffic costs its operator money.
    pub fn is_metered(self) -> bool {
        self.0 & BOTTLE_FLAG_METERED != 0
    }
}

/// The protocol versions that a node speaks: 1 <= lowest <= highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolRange {
    /// The lowest.
    pub lowest: u8,
    /// The highest.
    pub highest: u8,
}

impl ProtocolRange {
    /// What this code speaks.
    pub const OURS: Self = Self { lowest: VERSION, highest: VERSION };
}

/// What a Bottle says, of suite 1. Bounds are checked when it is signed, and when it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BottleContent {
    /// The node's identity key.
    pub identity: VerifyingKey,
    /// Its place in the order of the node's Bottles.
    pub seq: Seq,
    /// Who it is for. A node keeps one scope for its life.
    pub scope: Scope,
    /// The chosen part of its name.
    pub label: Label,
    /// Operator or family, at most 32 printable ASCII characters; empty for none.
    pub group: String,
    /// The key that its lanes show.
    pub link_key: VerifyingKey,
    /// When that ends, Unix seconds.
    pub link_key_expiry_s: u64,
    /// The key that its lanes may show too, from now on.
    pub next_link_key: Option<VerifyingKey>,
    /// The key for SETUPs.
    pub circuit_key: CircuitKey,
    /// Where it listens, best first, at most 8; none for a hidden node.
    pub addresses: Vec<Address>,
    /// Where its exit's connections come from, at most 4.
    pub egress: Vec<IpAddr>,
    /// Its links, at most 64, in the order of their prefixes.
    pub links: Vec<LinkClaim>,
    /// What it opens as an exit; none for no exit.
    pub exit_policy: Option<ExitPolicy>,
    /// How busy it is, 0 to 3.
    pub load: u8,
    /// Yes or no.
    pub flags: Flags,
    /// What it speaks.
    pub protocol: ProtocolRange,
    /// Name and version of its software, at most 32 printable ASCII characters.
    pub software: String,
    /// Fields that this code does not know, by key, as encoded values.
    pub unknown: BTreeMap<u64, Vec<u8>>,
}

impl BottleContent {
    /// Whose Bottle it is.
    pub fn node_id(&self) -> NodeId {
        NodeId::of(&self.identity)
    }

    /// The node's name.
    pub fn portname(&self) -> PortName {
        PortName::of(self.label.clone(), &self.node_id())
    }

    /// The claim about the link to `node`, if there is one.
    pub fn link_to(&self, node: &NodeId) -> Option<&LinkClaim> {
        let peer = NodePrefix::from(node);
        self.links.iter().find(|link| link.peer == peer)
    }

    /// Checks every bound that the types do not hold already (spec 04, 2).
    pub(super) fn check(&self) -> Result<(), BottleError> {
        let fields = [
            (is_printable(&self.group, GROUP_CHARS), BottleKey::Group),
            (self.link_key.check().is_ok(), BottleKey::LinkKey),
            (self.next_link_key.is_none_or(|key| key.check().is_ok()), BottleKey::NextLinkKey),
            (self.has_valid_addresses(), BottleKey::Addresses),
            (self.has_valid_egress(), BottleKey::Egress),
            (self.has_valid_links(), BottleKey::Links),
            (self.load <= BOTTLE_LOAD_MAX, BottleKey::Load),
            (1 <= self.protocol.lowest && self.protocol.lowest <= self.protocol.highest, BottleKey::Protocol),
            (is_printable(&self.software, SOFTWARE_BYTES), BottleKey::Software),
        ];
        if let Some((_, key)) = fields.iter().find(|(valid, _)| !valid) {
            return Err(BottleError::Field(*key));
        }
        if self.unknown.len() > UNKNOWN_FIELDS { Err(BottleError::UnknownFields) } else { Ok(()) }
    }

    fn has_valid_addresses(&self) -> bool {
        let valid = self.addresses.iter().all(|address| is_host(address.ip) && address.port != 0);
        valid && self.addresses.len() <= BOTTLE_ADDRESSES && all_differ(&self.addresses)
    }

    fn has_valid_egress(&self) -> bool {
        let valid = self.egress.iter().all(|ip| is_host(*ip));
        valid && self.egress.len() <= BOTTLE_EGRESS && all_differ(&self.egress)
    }

    fn has_valid_links(&self) -> bool {
        self.links.len() <= BOTTLE_LINKS && self.links.is_sorted_by(|before, after| before.peer < after.peer)
    }
}

fn is_printable(text: &str, most: usize) -> bool {
    text.len() <= most && text.bytes().all(|letter| (b' '..=b'~').contains(&letter))
}

/// Whether it can be one host's address, in its one form.
fn is_host(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    ip == ip.to_canonical() && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// For a handful of items.
fn all_differ<T: PartialEq>(items: &[T]) -> bool {
    items.iter().enumerate().all(|(index, item)| !items[..index].contains(item))
}
