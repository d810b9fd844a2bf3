//! A token bucket over the engine's time.

use std::time::Duration;

use crate::params::Rate;

/// Thousandths of a token: a millisecond gives as many as a second gives tokens.
const MILLI: u64 = 1000;

/// What may be taken at a [`Rate`], which is asked each time: it may change.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    /// Thousandths of tokens that were taken and are not back.
    owed: u64,
    at: Duration,
}

impl Bucket {
    /// Tokens that are there.
    pub(super) fn available(&mut self, rate: Rate, now: Duration) -> u64 {
        let elapsed_ms = u64::try_from(now.saturating_sub(self.at).as_millis()).unwrap_or(u64::MAX);
        self.owed = self.owed.saturating_sub(elapsed_ms.saturating_mul(u64::from(rate.per_second)));
        self.at = self.at.max(now);
        (u64::from(rate.burst) * MILLI).saturating_sub(self.owed) / MILLI
    }

    /// Takes so many tokens, or none and says no.
    pub(super) fn take(&mut self, rate: Rate, count: usize, now: Duration) -> bool {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        if self.available(rate, now) < count {
            return false;
        }
        self.owed += count * MILLI;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate { per_second: 10, burst: 3 };
        let mut bucket = Bucket::default();
        let at = Duration::from_millis;
        assert!(bucket.take(rate, 3, at(5000)));
        assert!(!bucket.take(rate, 1, at(5099)));
        assert!(bucket.take(rate, 1, at(5100)));
        assert!(!bucket.take(rate, 1, at(5100)));
        assert_eq!(bucket.available(rate, at(60_000)), 3, "never more than the burst");
        assert!(!bucket.take(rate, 4, at(60_000)));
    }
}
