//! What must outlive the process, as keys and bytes: the store behind the driver knows no more than this.

use crate::ids::NodeId;

/// Names a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// A node's Bottle: `received Unix ms u64 ‖ envelope`.
    Bottle(NodeId),
    /// Two Bottles of a node with one seq: `found Unix ms u64 ‖ length u16 ‖ envelope ‖ envelope`.
    Evidence(NodeId),
    /// A node's tombstone: `received Unix ms u64 ‖ envelope`.
    Tombstone(NodeId),
    /// The newest signed list: its envelope.
    List,
    /// The nodes to dial first after a restart: NodeIDs, joined.
    Anchors,
    /// A client's guards and what is pinned with them.
    Guards,
}

impl RecordKey {
    /// The key's bytes: a kind, and the NodeID where there is one.
    pub fn to_bytes(self) -> Vec<u8> {
        let (kind, node) = match self {
            Self::Bottle(node) => (1, Some(node)),
            Self::Evidence(node) => (2, Some(node)),
            Self::Tombstone(node) => (3, Some(node)),
            Self::List => (16, None),
            Self::Anchors => (17, None),
            Self::Guards => (18, None),
        };
        std::iter::once(kind).chain(node.into_iter().flat_map(|node| node.0)).collect()
    }

    /// The key of these bytes, none for another version's.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let node = || rest.try_into().ok().map(NodeId);
        let alone = |key| rest.is_empty().then_some(key);
        match kind {
            1 => node().map(Self::Bottle),
            2 => node().map(Self::Evidence),
            3 => node().map(Self::Tombstone),
            16 => alone(Self::List),
            17 => alone(Self::Anchors),
            18 => alone(Self::Guards),
            _ => None,
        }
    }
}

/// A record as it was stored; the engine checks what it reads.
pub type Record = (RecordKey, Vec<u8>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_bytes_and_nothing_else_does() {
        let node = NodeId([7; 32]);
        let keys = [
            RecordKey::Bottle(node),
            RecordKey::Evidence(node),
            RecordKey::Tombstone(node),
            RecordKey::List,
            RecordKey::Anchors,
            RecordKey::Guards,
        ];
        for key in keys {
            let bytes = key.to_bytes();
            assert_eq!(RecordKey::from_bytes(&bytes), Some(key));
            assert_eq!(RecordKey::from_bytes(&[&bytes[..], &[0]].concat()), None);
            assert_eq!(RecordKey::from_bytes(&bytes[1..]), None);
        }
    }
}
