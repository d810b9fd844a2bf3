//! When what costs much to make is made anew: at once after news, but never again before it has rested, so that many news that come
//! close together make it once.

use std::time::Duration;

use tokio::time::Instant;

/// When the next one is made.
#[derive(Debug)]
pub(super) struct Renewal {
    rest: Duration,
    rests_until: Option<Instant>,
    due: Option<Instant>,
}

impl Renewal {
    /// One that rests so long each time it was made; at first it does not.
    pub(super) fn new(rest: Duration) -> Self {
        Self { rest, rests_until: None, due: None }
    }

    /// There is news: it is old.
    pub(super) fn note(&mut self, now: Instant) {
        let soonest = self.rests_until.map_or(now, |rests_until| rests_until.max(now));
        self.due.get_or_insert(soonest);
    }

    /// Whether there was news since it was made.
    pub(super) fn is_old(&self) -> bool {
        self.due.is_some()
    }

    /// Whether it is to be made now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// It was made.
    pub(super) fn made(&mut self, now: Instant) {
        (self.due, self.rests_until) = (None, Some(now + self.rest));
    }

    /// Ready when it is to be made; without news that is never.
    pub(super) async fn due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_millis(50);

    #[test]
    fn a_single_news_is_acted_on_at_once() {
        let (mut renewal, begin) = (Renewal::new(REST), Instant::now());
        assert!(!renewal.is_old() && !renewal.is_due(begin + REST * 1000), "nothing without news");
        renewal.note(begin);
        assert!(renewal.is_due(begin));
        renewal.made(begin);
        assert!(!renewal.is_old());
        renewal.note(begin + REST);
        assert!(renewal.is_due(begin + REST), "it has rested");
    }

    #[test]
    fn many_news_at_once_are_gathered_and_the_last_is_not_forgotten() {
        let (mut renewal, begin, mut made) = (Renewal::new(REST), Instant::now(), 0);
        for millisecond in 0..300 {
            let now = begin + Duration::from_millis(millisecond);
            renewal.note(now);
            if renewal.is_due(now) {
                renewal.made(now);
                made += 1;
            }
        }
        assert_eq!(made, 6, "once in 50 ms");
        assert!(renewal.is_old() && renewal.is_due(begin + REST * 6), "it waits no longer than the rest");
    }
}
