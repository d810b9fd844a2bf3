use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{BottleError, UnverifiedBottle};
use crate::crypto::SIGNATURE_BYTES;

/// Bottles that were read already, for many engines in one process: each is read, held and its signature looked at once. The age is
/// judged anew each time, and nothing on the shelf is any more verified than elsewhere.
///
/// A daemon has one engine and no shelf.
#[derive(Clone, Default)]
pub struct Shelf(Option<Arc<Mutex<Bottles>>>);

/// By the bytes at their end: the signature, of which two that are the same have the same payload, or one of them is forged.
type Bottles = BTreeMap<[u8; SIGNATURE_BYTES], UnverifiedBottle>;

impl Shelf {
    /// An empty shelf; its clones are the same one.
    pub fn shared() -> Self {
        Self(Some(Arc::default()))
    }

    /// Reads a Bottle, or gives the one that these bytes were read as before: see [`UnverifiedBottle::parse`].
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(&self, bytes: &[u8]) -> Result<UnverifiedBottle, BottleError> {
        let (Some(shelf), Some(end)) = (&self.0, bytes.last_chunk::<SIGNATURE_BYTES>()) else {
            return UnverifiedBottle::parse(bytes);
        };
        let mut bottles = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = bottles.get(end).filter(|known| known.envelope() == bytes) {
            return Ok(known.clone());
        }
        let parsed = UnverifiedBottle::parse(bytes)?;
        bottles.entry(*end).or_insert_with(|| parsed.clone());
        Ok(parsed)
    }
}
