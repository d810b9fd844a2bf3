//! Every deadline of the engine in one table, in one order: by time, then by key. No thread, no clock: who owns the table says what
//! time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A moment, as the owner of the engine sees it. Both values are passed in; the engine never asks a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Since an arbitrary start, never running backwards: deadlines and round trips.
    pub mono: Duration,
    /// Milliseconds since 1970 as the system's clock says, which may jump: sequence numbers and expiry.
    pub unix_ms: u64,
}

/// Deadlines by key; a key has at most one.
#[derive(Debug)]
pub struct Timers<K> {
    by_key: BTreeMap<K, Duration>,
    by_time: BTreeSet<(Duration, K)>,
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets or moves a deadline.
    pub fn set(&mut self, key: K, at: Duration) {
        if let Some(before) = self.by_key.insert(key, at) {
            self.by_time.remove(&(before, key));
        }
        self.by_time.insert((at, key));
    }

    /// Sets a deadline unless the key has an earlier one.
    pub fn set_earlier(&mut self, key: K, at: Duration) {
        if self.at(key).is_none_or(|before| at < before) {
            self.set(key, at);
        }
    }

    /// Removes a deadline, if there is one.
    pub fn cancel(&mut self, key: K) {
        if let Some(before) = self.by_key.remove(&key) {
            self.by_time.remove(&(before, key));
        }
    }

    /// When the key is due, none if it has no deadline.
    pub fn at(&self, key: K) -> Option<Duration> {
        self.by_key.get(&key).copied()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<(Duration, K)> {
        self.by_time.first().copied()
    }

    /// Takes out the earliest deadline that is due at `now`, if one is.
    pub fn pop_due(&mut self, now: Duration) -> Option<K> {
        let (at, key) = self.next()?;
        if at > now {
            return None;
        }
        self.cancel(key);
        Some(key)
    }

    /// Removes all deadlines.
    pub fn clear(&mut self) {
        self.by_key.clear();
        self.by_time.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn due_keys_come_by_time_then_by_key() {
        let mut timers = Timers::new();
        timers.set("b", ms(5));
        timers.set("a", ms(5));
        timers.set("c", ms(1));
        timers.set("late", ms(9));
        let due: Vec<_> = std::iter::from_fn(|| timers.pop_due(ms(5))).collect();
        assert_eq!(due, ["c", "a", "b"]);
        assert_eq!(timers.next(), Some((ms(9), "late")));
    }

    #[test]
    fn a_key_has_one_deadline() {
        let mut timers = Timers::new();
        timers.set(1, ms(5));
        timers.set(1, ms(7));
        assert_eq!(timers.pop_due(ms(6)), None);
        timers.set_earlier(1, ms(8));
        assert_eq!(timers.at(1), Some(ms(7)));
        timers.set_earlier(1, ms(3));
        assert_eq!(timers.pop_due(ms(3)), Some(1));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_cancelled_key_is_gone() {
        let mut timers = Timers::new();
        timers.set(1, ms(5));
        timers.cancel(1);
        timers.cancel(2);
        assert_eq!(timers.pop_due(ms(100)), None);
    }
}
