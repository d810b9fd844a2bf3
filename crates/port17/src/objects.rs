//! How many lanes, edges and streams a daemon has made, and how many of them are alive.
//!
//! Each such object holds a [`Counted`] and lives as long as it: what is alive although nobody uses the daemon has been left over by
//! somebody. Only making and ending is counted, never a cell. Totals of a whole daemon, which tell nothing of one user's (law 8).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Objects of one kind.
#[derive(Debug, Default, Clone)]
pub struct Tally(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    created: AtomicU64,
    destroyed: AtomicU64,
}

/// One object that is alive; to be held by it.
#[derive(Debug)]
pub struct Counted(Arc<Counts>);

impl Tally {
    /// Another object.
    pub fn count(&self) -> Counted {
        self.0.created.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(&self.0))
    }

    /// Objects made since the start.
    pub fn created(&self) -> u64 {
        self.0.created.load(Ordering::Relaxed)
    }

    /// Those of them that are not gone.
    pub fn live(&self) -> u64 {
        // In this order what is made in between counts as alive, never as less than none.
        let destroyed = self.0.destroyed.load(Ordering::Acquire);
        self.created().saturating_sub(destroyed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.destroyed.fetch_add(1, Ordering::Release);
    }
}

/// The tallies of one daemon.
#[derive(Debug, Default, Clone)]
pub struct Objects {
    /// Lanes, as long as anything can reach them.
    pub lanes: Tally,
    /// Edges of circuits, at a client or an exit.
    pub edges: Tally,
    /// Streams of those edges that something waits for: an application, a server, a dial.
    pub streams: Tally,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_alive_until_it_is_dropped() {
        let tally = Tally::default();
        let (one, other) = (tally.count(), tally.clone().count());
        assert_eq!((tally.created(), tally.live()), (2, 2));
        drop(one);
        assert_eq!((tally.created(), tally.live()), (2, 1));
        drop(other);
        assert_eq!((tally.created(), tally.live()), (2, 0));
    }
}
