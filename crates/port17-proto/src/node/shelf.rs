use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::bottle::{BottleError, UnverifiedBottle};
use crate::crypto::SIGNATURE_BYTES;
use crate::network::{Definition, ListError, SignedList, VerifiedList};

/// Bottles and lists that were read already, for many engines in one process: each is read, held and its signatures looked at once.
/// The age is judged anew each time, and no Bottle on the shelf is any more verified than elsewhere.
///
/// A daemon has one engine and no shelf.
#[derive(Clone, Default)]
pub struct Shelf(Option<Arc<Mutex<Held>>>);

#[derive(Default)]
struct Held {
    /// By the bytes at their end: the signature, of which two that are the same have the same payload, or one of them is forged.
    bottles: BTreeMap<[u8; SIGNATURE_BYTES], UnverifiedBottle>,
    /// The newest last.
    lists: Vec<VerifiedList>,
}

/// Lists that are kept: the one in force, and those that some engines still have.
const LISTS: usize = 4;

impl Shelf {
    /// An empty shelf; its clones are the same one.
    pub fn shared() -> Self {
        Self(Some(Arc::default()))
    }

    /// Reads a Bottle, or gives the one that these bytes were read as before: see [`UnverifiedBottle::parse`].
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub(super) fn parse(&self, bytes: &[u8]) -> Result<UnverifiedBottle, BottleError> {
        let (Some(shelf), Some(end)) = (&self.0, bytes.last_chunk::<SIGNATURE_BYTES>()) else {
            return UnverifiedBottle::parse(bytes);
        };
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shelf.bottles.get(end).filter(|known| known.envelope() == bytes) {
            return Ok(known.clone());
        }
        let parsed = UnverifiedBottle::parse(bytes)?;
        shelf.bottles.insert(*end, parsed.clone());
        Ok(parsed)
    }

    /// Verifies a list at `now_s`, Unix seconds, or gives the one that it was verified as before: see [`SignedList::verify`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn verify(&self, list: SignedList, definition: &Definition, now_s: u64) -> Result<VerifiedList, ListError> {
        let Some(shelf) = &self.0 else { return list.verify(definition, now_s) };
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |known: &&VerifiedList| known.content().network == definition.id() && *known.signed() == list;
        if let Some(known) = shelf.lists.iter().find(is_known) {
            return known.clone().of_right_age(now_s);
        }
        let list = list.verify_whatever_age(definition)?;
        if shelf.lists.len() == LISTS {
            shelf.lists.remove(0);
        }
        shelf.lists.push(list.clone());
        list.of_right_age(now_s)
    }
}
