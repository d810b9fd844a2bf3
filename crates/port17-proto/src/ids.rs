//! Names of things, as types: nothing is ever looked up by a bare number or byte string.

use std::fmt;
use std::str::FromStr;

use crate::crypto::{self, VerifyingKey};
use crate::wire::registry::SUITE;

/// A node's identity: the hash of its identity public key. The only key anything is stored, trusted or excluded by (spec 03, 1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

impl NodeId {
    /// Length of the shown form.
    pub const TEXT_LEN: usize = 52;

    /// The NodeID of an identity key.
    pub fn of(identity: &VerifyingKey) -> Self {
        Self(crypto::hash("p17-id-v1", &[&[SUITE], &identity.0]))
    }

    /// Base32 (RFC 4648), lower case, unpadded: 52 characters.
    pub fn to_base32(&self) -> String {
        let (mut text, mut bits, mut held) = (String::with_capacity(Self::TEXT_LEN), 0u32, 0u32);
        for byte in self.0 {
            held = (held << 8) | u32::from(byte);
            bits += 8;
            while bits >= 5 {
                bits -= 5;
                text.push(char::from(BASE32[((held >> bits) & 31) as usize]));
            }
        }
        text.push(char::from(BASE32[((held << (5 - bits)) & 31) as usize]));
        text
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base32())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", &self.to_base32()[..13])
    }
}

/// A network: the hash of its name and first root keys (spec 12, 1). All zeros without a network file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NetworkId(pub [u8; 32]);

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&NodeId(self.0).to_base32())
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkId({})", &NodeId(self.0).to_base32()[..13])
    }
}

/// The text is not a NodeID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a NodeID: 52 characters a-z and 2-7 are expected")]
pub struct NodeIdError;

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        if text.len() != Self::TEXT_LEN {
            return Err(NodeIdError);
        }
        let (mut id, mut at, mut bits, mut held) = ([0; 32], 0, 0u32, 0u32);
        for letter in text.bytes() {
            let value = BASE32.iter().position(|known| *known == letter).ok_or(NodeIdError)?;
            held = (held << 5) | u32::try_from(value).map_err(|_| NodeIdError)?;
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                id[at] = (held >> bits).to_be_bytes()[3];
                held &= (1 << bits) - 1;
                at += 1;
            }
        }
        // 52 characters carry 260 bits; the last four must be zero, else two texts would name one node.
        if held == 0 { Ok(Self(id)) } else { Err(NodeIdError) }
    }
}

/// A circuit on one lane. The lane's dialler draws odd numbers, its acceptor even ones; 0 is the lane itself (spec 05, 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CircuitId(pub u32);

/// A stream of one circuit. The client draws odd numbers, the exit even ones (spec 06, 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_text_round_trip() {
        let id = NodeId(crypto::hash("test", &[b"node"]));
        assert_eq!(id.to_base32().len(), NodeId::TEXT_LEN);
        assert_eq!(id.to_base32().parse(), Ok(id));
        let mut other = id.to_base32();
        other.pop();
        other.push('b');
        assert_eq!(other.parse::<NodeId>(), Err(NodeIdError));
        assert_eq!("".parse::<NodeId>(), Err(NodeIdError));
        assert_eq!("A".repeat(52).parse::<NodeId>(), Err(NodeIdError));
    }
}
