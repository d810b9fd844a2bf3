//! A node's long-lived keys (spec 03): the identity key that signs its Bottles, and the link key that its lanes show.
//!
//! The circuit key is not here: it lives in memory alone.

use crate::crypto::{Entropy, Secret, SigningKey, VerifyingKey};
use crate::ids::NodeId;

/// The identity key of a node. It may live offline; all it does is sign Bottles.
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// A new identity.
    pub fn generate(entropy: &mut Entropy) -> Self {
        Self { key: SigningKey::generate(entropy) }
    }

    /// The identity of a stored seed (RFC 8032).
    pub fn from_seed(seed: Secret<32>) -> Self {
        Self { key: SigningKey::from_seed(seed) }
    }

    /// The key that signs.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The public half, as it stands in the Bottle.
    pub fn public(&self) -> VerifyingKey {
        self.key.public()
    }

    /// Who this is.
    pub fn node_id(&self) -> NodeId {
        NodeId::of(&self.public())
    }
}

/// The key that a node's lanes show as their TLS raw public key, named in its Bottle.
pub struct LinkKey {
    key: SigningKey,
    expiry_s: u64,
}

impl LinkKey {
    /// A new key that ends at `expiry_s` (Unix seconds).
    pub fn generate(expiry_s: u64, entropy: &mut Entropy) -> Self {
        Self { key: SigningKey::generate(entropy), expiry_s }
    }

    /// The key of a stored seed (RFC 8032).
    pub fn from_seed(seed: Secret<32>, expiry_s: u64) -> Self {
        Self { key: SigningKey::from_seed(seed), expiry_s }
    }

    /// The key that signs.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The public half, as it stands in the Bottle.
    pub fn public(&self) -> VerifyingKey {
        self.key.public()
    }

    /// When it ends, Unix seconds.
    pub fn expiry_s(&self) -> u64 {
        self.expiry_s
    }

    /// Whether it has ended.
    pub fn has_expired(&self, now_ms: u64) -> bool {
        now_ms / 1000 >= self.expiry_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_its_seed() {
        let first = Identity::from_seed(Secret::new([7; 32]));
        let second = Identity::from_seed(Secret::new([7; 32]));
        assert_eq!(first.node_id(), second.node_id());
        assert_ne!(first.node_id(), Identity::generate(&mut Entropy::from_number(1)).node_id());
    }

    #[test]
    fn a_link_key_ends_at_its_expiry() {
        let key = LinkKey::generate(100, &mut Entropy::from_number(2));
        assert!(!key.has_expired(99_999));
        assert!(key.has_expired(100_000));
    }
}
