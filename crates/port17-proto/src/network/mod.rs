//! A network: who may say which nodes are trusted and which parameters hold (spec 12).
//!
//! [`Definition`] is what a network file says and never changes; the signed list ([`list`]) under it changes every few weeks.

mod content;
pub mod list;

pub use list::{ListContent, ListError, Release, SignedList, VerifiedList};

use crate::crypto::{self, VerifyingKey};
use crate::ids::NetworkId;

/// Most root keys of a network.
pub const ROOTS: usize = 16;

/// What a network is: its name and the keys whose word counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    name: String,
    roots: Roots,
}

/// The keys that sign a network's list, and how many of them it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    threshold: u8,
    keys: Vec<VerifyingKey>,
}

/// A network's definition does not hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// Its name.
    #[error("a network's name has 3 to 32 characters a-z, 0-9 and -, the first a-z")]
    Name,
    /// The number of keys.
    #[error("a network has 1 to {ROOTS} root keys")]
    Roots,
    /// A key stands twice.
    #[error("a root key stands twice")]
    Twice,
    /// The number of signatures wanted.
    #[error("the threshold is 1 to the number of root keys")]
    Threshold,
}

impl Roots {
    /// `threshold` of `keys` must sign.
    ///
    /// # Errors
    /// When there are too many or no keys, one stands twice, or the threshold cannot be met.
    pub fn new(threshold: u8, mut keys: Vec<VerifyingKey>) -> Result<Self, DefinitionError> {
        if !(1..=ROOTS).contains(&keys.len()) {
            return Err(DefinitionError::Roots);
        }
        keys.sort_unstable_by_key(|key| key.0);
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(DefinitionError::Twice);
        }
        if threshold == 0 || usize::from(threshold) > keys.len() {
            return Err(DefinitionError::Threshold);
        }
        Ok(Self { threshold, keys })
    }

    /// How many must sign.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// The keys, in ascending order.
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }
}

impl Definition {
    /// A network of this name under these keys.
    ///
    /// # Errors
    /// When the name is not well formed.
    pub fn new(name: &str, roots: Roots) -> Result<Self, DefinitionError> {
        let mut letters = name.bytes();
        let first = letters.next().is_some_and(|letter| letter.is_ascii_lowercase());
        let rest = letters.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-');
        if !first || !rest || !(3..=32).contains(&name.len()) {
            return Err(DefinitionError::Name);
        }
        Ok(Self { name: name.to_owned(), roots })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first roots.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// What tells this network from all others (spec 12, 1): it stands in HELLO and in every list.
    pub fn id(&self) -> NetworkId {
        let name_bytes = u8::try_from(self.name.len()).unwrap_or(u8::MAX);
        let keys: Vec<u8> = self.roots.keys.iter().flat_map(|key| key.0).collect();
        NetworkId(crypto::hash("p17-network-v1", &[&[name_bytes], self.name.as_bytes(), &[self.roots.threshold], &keys]))
    }
}
