//! What two hops of one route must not share, where the network asks for diversity (spec 08).

use std::net::IpAddr;

use crate::bottle::BottleContent;

use super::map::MapNode;

/// Addresses that one operator or one provider most likely holds together: a /16 of IPv4, a /32 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressBlock {
    /// The first 16 bits.
    V4([u8; 2]),
    /// The first 32 bits.
    V6([u8; 4]),
}

impl AddressBlock {
    /// The blocks of all addresses that a Bottle names, those that its exit's connections come from included; sorted, each once.
    pub fn of_bottle(content: &BottleContent) -> Vec<Self> {
        let lanes = content.addresses.iter().map(|address| address.ip);
        let mut blocks: Vec<Self> = lanes.chain(content.egress.iter().copied()).map(Self::from).collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }
}

impl From<IpAddr> for AddressBlock {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, ..] = v4.octets();
                Self::V4([a, b])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.octets();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// The rules that are in force. No node stands twice in a route, whatever they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// Different groups; none conflicts with nothing.
    pub(super) groups: bool,
    /// Different address blocks; a node without addresses conflicts with nothing.
    pub(super) blocks: bool,
}

impl Rules {
    pub(super) const NONE: Self = Self { groups: false, blocks: false };
    pub(super) const ALL: Self = Self { groups: true, blocks: true };

    pub(super) fn of(diversity: bool) -> Self {
        if diversity { Self::ALL } else { Self::NONE }
    }

    /// Whether two different nodes cannot stand in one route.
    pub(super) fn forbid(self, one: &MapNode, other: &MapNode) -> bool {
        let same_group = || one.group.is_some() && one.group == other.group;
        (self.groups && same_group()) || (self.blocks && share(&one.blocks, &other.blocks))
    }
}

/// Whether two short sorted lists have an element in common: at most 12 each.
fn share(one: &[AddressBlock], other: &[AddressBlock]) -> bool {
    one.iter().any(|block| other.binary_search(block).is_ok())
}
