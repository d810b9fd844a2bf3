//! The replay cache of a circuit key, and which time slots are accepted (spec 06, 1).
//!
//! A record is good once. Its stamp goes into the bucket of the slot it names; a bucket is dropped once its slot can no longer be
//! accepted, which is safe because a node's time never runs backwards ([`SlotClock`]). Nothing is ever evicted: a cache that is
//! full refuses.

use std::collections::{BTreeMap, BTreeSet};

use crate::crypto::{CIPHERTEXT_BYTES, hash};
use crate::limits::{REPLAY_EARLY_STAMPS, REPLAY_STAMPS};
use crate::planted::planted;
use crate::wire::registry::{SLOT_EARLY_SECONDS, SLOT_SECONDS, STAMP_BYTES};

/// What is remembered of a record: the first half of a hash of its ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp([u8; STAMP_BYTES]);

impl Stamp {
    /// The stamp of a record's ciphertext.
    pub fn of(ct: &[u8; CIPHERTEXT_BYTES]) -> Self {
        // spec 06, 1
        let mut stamp = [0; STAMP_BYTES];
        stamp.copy_from_slice(&hash("p17-replay-v1", &[ct])[..STAMP_BYTES]);
        Self(stamp)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; STAMP_BYTES] {
        &self.0
    }
}

/// The slot of a time, in Unix seconds. What a u32 cannot count (the year 124,000) is its largest slot.
pub fn slot_of(unix_seconds: u64) -> u32 {
    u32::try_from(unix_seconds / SLOT_SECONDS).unwrap_or(u32::MAX)
}

/// Whether a record of `slot` is accepted: the current one, the previous one, and the next one shortly before it begins.
pub fn slot_accepted(slot: u32, unix_seconds: u64) -> bool {
    // spec 06, 1
    let (slot, current) = (u64::from(slot), unix_seconds / SLOT_SECONDS);
    let early = unix_seconds % SLOT_SECONDS >= SLOT_EARLY_SECONDS;
    slot == current || (slot + 1 == current && !planted("previous-slot-refused")) || (early && slot == current + 1)
}

/// A node's time as its replay caches see it: the latest it ever was.
#[derive(Debug, Clone, Copy, Default)]
pub struct SlotClock(u64);

impl SlotClock {
    /// Takes the wall clock's Unix seconds and returns the time that counts: never earlier than before.
    pub fn observe(&mut self, unix_seconds: u64) -> u64 {
        self.0 = self.0.max(unix_seconds);
        self.0
    }

    /// The time that counts, without moving it.
    pub fn at(&self, unix_seconds: u64) -> u64 {
        self.0.max(unix_seconds)
    }
}

/// Why a record is not admitted. The peer gets the same DESTROY for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The stamp was there already.
    #[error("the record was used before")]
    Replayed,
    /// No room for another stamp.
    #[error("the replay cache is full")]
    Full,
    /// The slot is not accepted at this time.
    #[error("the record's time slot is not accepted now")]
    Slot,
}

/// The stamps of one circuit key.
pub struct ReplayCache {
    buckets: BTreeMap<u32, BTreeSet<Stamp>>,
    stamps: usize,
    capacity: usize,
}

impl Default for ReplayCache {
    fn default() -> Self {
        Self::with_capacity(REPLAY_STAMPS)
    }
}

impl ReplayCache {
    /// A cache that refuses beyond `capacity` stamps.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { buckets: BTreeMap::new(), stamps: 0, capacity: capacity.min(REPLAY_STAMPS) }
    }

    /// Stamps held.
    pub fn len(&self) -> usize {
        self.stamps
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.stamps == 0
    }

    /// Inserts the stamp if it is absent, then judges the slot. `unix_seconds` comes from a [`SlotClock`].
    ///
    /// The stamp stays, whatever else the record turns out to be. Only a slot that has passed leaves none: it is never accepted
    /// again, so there is nothing to replay.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn insert(&mut self, stamp: Stamp, slot: u32, unix_seconds: u64) -> Result<(), ReplayError> {
        // spec 06, 1
        self.drop_passed(unix_seconds);
        if self.buckets.values().any(|bucket| bucket.contains(&stamp)) {
            return Err(ReplayError::Replayed);
        }
        let accepted = slot_accepted(slot, unix_seconds);
        if !accepted && (slot < oldest_slot(unix_seconds) || self.early_stamps(unix_seconds) >= self.early_capacity()) {
            return Err(ReplayError::Slot);
        }
        if self.stamps >= self.capacity {
            return Err(ReplayError::Full);
        }
        self.buckets.entry(slot).or_default().insert(stamp);
        self.stamps += 1;
        if accepted { Ok(()) } else { Err(ReplayError::Slot) }
    }

    fn drop_passed(&mut self, unix_seconds: u64) {
        let oldest = if planted("replay-bucket-too-early") { slot_of(unix_seconds) } else { oldest_slot(unix_seconds) };
        while let Some(bucket) = self.buckets.first_entry().filter(|bucket| *bucket.key() < oldest) {
            self.stamps -= bucket.remove().len();
        }
    }

    fn early_capacity(&self) -> usize {
        REPLAY_EARLY_STAMPS.min(self.capacity / 8)
    }

    fn early_stamps(&self, unix_seconds: u64) -> usize {
        let next = slot_of(unix_seconds).saturating_add(1);
        self.buckets.range(next..).map(|(_, bucket)| bucket.len()).sum()
    }
}

/// The oldest slot that is accepted; time only moves it up.
fn oldest_slot(unix_seconds: u64) -> u32 {
    slot_of(unix_seconds).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_100; // the first second of a slot is 1_699_999_200, so 900 s later a new one begins here

    fn stamp(number: u64) -> Stamp {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Stamp(bytes)
    }

    #[test]
    fn slots_accepted_are_the_current_the_previous_and_the_next_shortly_before_it() {
        let begin = NOW - NOW % SLOT_SECONDS;
        let slot = slot_of(begin);
        for second in [0, 1, 779, 780, 899] {
            let now = begin + second;
            assert!(slot_accepted(slot, now) && slot_accepted(slot - 1, now));
            assert!(!slot_accepted(slot - 2, now) && !slot_accepted(slot + 2, now));
            assert_eq!(slot_accepted(slot + 1, now), second >= 780, "second {second}");
        }
        assert!(slot_accepted(0, 0) && !slot_accepted(u32::MAX, 0) && !slot_accepted(0, u64::MAX));
    }

    #[test]
    fn a_stamp_is_admitted_once() {
        let mut cache = ReplayCache::default();
        assert_eq!(cache.insert(stamp(1), slot_of(NOW), NOW), Ok(()));
        assert_eq!(cache.insert(stamp(1), slot_of(NOW), NOW), Err(ReplayError::Replayed));
        // Under another slot it is still the same record.
        assert_eq!(cache.insert(stamp(1), slot_of(NOW) - 1, NOW), Err(ReplayError::Replayed));
        assert_eq!(cache.insert(stamp(1), slot_of(NOW) + 9, NOW), Err(ReplayError::Replayed));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn buckets_are_dropped_once_their_slot_has_passed() {
        let mut cache = ReplayCache::default();
        let slot = slot_of(NOW);
        assert_eq!(cache.insert(stamp(1), slot, NOW), Ok(()));
        let last = u64::from(slot + 2) * SLOT_SECONDS - 1;
        assert_eq!(cache.insert(stamp(1), slot, last), Err(ReplayError::Replayed));
        assert_eq!(cache.insert(stamp(1), slot, last + 1), Err(ReplayError::Slot));
        assert!(cache.is_empty());
    }

    #[test]
    fn a_full_cache_refuses_and_never_evicts() {
        let mut cache = ReplayCache::with_capacity(2);
        let slot = slot_of(NOW);
        assert_eq!(cache.insert(stamp(1), slot, NOW), Ok(()));
        assert_eq!(cache.insert(stamp(2), slot, NOW), Ok(()));
        assert_eq!(cache.insert(stamp(3), slot, NOW), Err(ReplayError::Full));
        assert_eq!(cache.insert(stamp(1), slot, NOW), Err(ReplayError::Replayed));
        // Room comes back with time alone.
        let later = u64::from(slot + 2) * SLOT_SECONDS;
        assert_eq!(cache.insert(stamp(3), slot_of(later), later), Ok(()));
    }

    #[test]
    fn a_record_from_the_future_is_refused_and_remembered_within_its_share() {
        let mut cache = ReplayCache::with_capacity(16);
        let early = slot_of(NOW) + 4;
        assert_eq!(cache.insert(stamp(1), early, NOW), Err(ReplayError::Slot));
        let then = u64::from(early) * SLOT_SECONDS;
        assert_eq!(cache.insert(stamp(1), early, then), Err(ReplayError::Replayed));
        for number in 2..100 {
            assert_eq!(cache.insert(stamp(number), slot_of(then) + 4, then), Err(ReplayError::Slot));
        }
        assert_eq!(cache.len(), 3);
        assert_eq!(cache.insert(stamp(200), slot_of(then), then), Ok(()));
    }

    #[test]
    fn time_never_runs_backwards() {
        let mut clock = SlotClock::default();
        assert_eq!(clock.observe(1_000), 1_000);
        assert_eq!(clock.observe(10), 1_000);
        assert_eq!(clock.at(10), 1_000);
        assert_eq!(clock.at(2_000), 2_000);
        assert_eq!(clock.observe(1_500), 1_500);
    }
}
