//! Credit: how many cells the previous hop may send on a circuit, backed by reserved memory (spec 06, 4).
//!
//! The receiver of cells owns a [`Granter`]: it says how far the sender may go, and never says more than its [`Reservation`] holds.
//! Permission is absolute ("cells permitted so far"), so a repeated CREDIT changes nothing. It is taken back only by asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{FIRST_WINDOW_CELLS, IDLE_WINDOW_CELLS, MAX_WINDOW_CELLS};
use crate::planted::planted;
use crate::wire::registry::FRAME_BYTES;

/// Memory for cells, in all: whoever permits a cell reserves its frame here first (law 3).
#[derive(Debug)]
pub struct Pool {
    capacity_cells: u64,
    reserved_cells: AtomicU64,
    /// Reservations made, and those of them that were given back.
    made: AtomicU64,
    returned: AtomicU64,
    parent: Option<Arc<Pool>>,
}

/// How full a pool may be for what is asked.
#[derive(Clone, Copy)]
enum Room {
    All,
    /// Windows beyond the first.
    Half,
}

impl Pool {
    /// A pool of this many bytes.
    pub fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self::empty(bytes, None))
    }

    /// A share of another pool: what is reserved here is reserved there too, and never more than this many bytes.
    pub fn within(parent: &Arc<Self>, bytes: u64) -> Arc<Self> {
        Arc::new(Self::empty(bytes, Some(Arc::clone(parent))))
    }

    fn empty(bytes: u64, parent: Option<Arc<Self>>) -> Self {
        Self {
            capacity_cells: bytes / FRAME_BYTES as u64,
            reserved_cells: AtomicU64::new(0),
            made: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            parent,
        }
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.capacity_cells * FRAME_BYTES as u64
    }

    fn take(&self, cells: u64, room: Room) -> bool {
        let ceiling = match room {
            Room::All => self.capacity_cells,
            Room::Half => self.capacity_cells / 2,
        };
        let fits = |held: u64| held.checked_add(cells).filter(|sum| *sum <= ceiling);
        if self.reserved_cells.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        let taken = self.parent.as_ref().is_none_or(|parent| parent.take(cells, room));
        if !taken && !planted("refused-memory-stays-taken") {
            self.reserved_cells.fetch_sub(cells, Ordering::Relaxed);
        }
        taken
    }

    fn give(&self, cells: u64) {
        self.reserved_cells.fetch_sub(cells, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.give(cells);
        }
    }

    /// Cells reserved at this moment.
    pub fn reserved_cells(&self) -> u64 {
        self.reserved_cells.load(Ordering::Relaxed)
    }

    /// Reserves memory for `cells`, none when it is not there.
    pub fn reserve(self: &Arc<Self>, cells: u64) -> Option<Reservation> {
        let taken = self.take(cells, Room::All);
        taken.then(|| {
            self.made();
            Reservation { pool: Arc::clone(self), cells }
        })
    }

    fn made(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
        self.parent.iter().for_each(|parent| parent.made());
    }

    fn returned(&self) {
        self.returned.fetch_add(1, Ordering::Release);
        self.parent.iter().for_each(|parent| parent.returned());
    }

    /// Reservations made in this pool and its shares, and those of them that are alive: one for each direction of a circuit in which
    /// cells arrive here.
    pub fn reservations(&self) -> (u64, u64) {
        // In this order what is made in between counts as alive.
        let returned = self.returned.load(Ordering::Acquire);
        let made = self.made.load(Ordering::Relaxed);
        (made, made.saturating_sub(returned))
    }
}

/// Memory for some cells; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    pool: Arc<Pool>,
    cells: u64,
}

impl Reservation {
    fn grow_to(&mut self, cells: u64, room: Room) -> bool {
        let Some(more) = cells.checked_sub(self.cells) else { return true };
        let taken = self.pool.take(more, room);
        if taken {
            self.cells = cells;
        }
        taken
    }

    fn shrink_to(&mut self, cells: u64) {
        let Some(less) = self.cells.checked_sub(cells) else { return };
        self.pool.give(less);
        self.cells = cells;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
        self.pool.returned();
    }
}

/// How far the sender may go, shared with the reader that checks it.
#[derive(Debug, Clone)]
pub struct Permitted(Arc<AtomicU64>);

impl Permitted {
    /// Nothing at all: for a circuit that is refused.
    pub fn none() -> Self {
        Self(Arc::new(AtomicU64::new(0)))
    }

    /// Cells permitted so far.
    pub fn cells(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// How quickly half a window must drain to make it double, in milliseconds: the round trip of the lane that the cells come on, with a
/// floor. All circuits of a lane share its one.
#[derive(Debug, Clone)]
pub struct Pace(Arc<AtomicU64>);

impl Pace {
    /// A lane's pace, until its round trip is known.
    pub fn new(ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(ms)))
    }

    /// The round trip has been measured.
    pub fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::Relaxed);
    }

    fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The receiving side of one circuit on one lane: says how far the sender may go.
///
/// It is owned by who drains the cells: the next lane's queue at a relay, the lane's reader at an edge.
#[derive(Debug)]
pub struct Granter {
    permitted: Permitted,
    reservation: Reservation,
    pace: Pace,
    window: u64,
    drained: u64,
    granted_at_ms: u64,
    drained_at_ms: u64,
    reclaiming: bool,
}

impl Granter {
    /// The first window, reserved already. `pace` is that of the lane that the cells come on.
    pub fn new(reservation: Reservation, pace: Pace, now_ms: u64) -> Self {
        Self {
            permitted: Permitted(Arc::new(AtomicU64::new(FIRST_WINDOW_CELLS))),
            reservation,
            pace,
            window: FIRST_WINDOW_CELLS,
            drained: 0,
            granted_at_ms: now_ms,
            drained_at_ms: now_ms,
            reclaiming: false,
        }
    }

    /// What the reader checks each arriving cell against.
    pub fn permitted(&self) -> Permitted {
        self.permitted.clone()
    }

    /// Tells that `cells` have left this node's memory. Gives the new permission to send as CREDIT, at half a window.
    ///
    /// The window doubles when half of it drained within the lane's [`Pace`]: then the window, not
    /// the sender, was what limited the rate. It grows beyond the first window only while the pool is at most half full.
    pub fn drained(&mut self, cells: u64, now_ms: u64) -> Option<u64> {
        self.drained += cells;
        self.drained_at_ms = now_ms;
        if self.reclaiming || self.permitted.cells().saturating_sub(self.drained) > self.window / 2 {
            return None;
        }
        let brisk = now_ms.saturating_sub(self.granted_at_ms) <= self.pace.ms();
        if brisk || self.window < FIRST_WINDOW_CELLS {
            self.widen((self.window * 2).clamp(FIRST_WINDOW_CELLS, MAX_WINDOW_CELLS));
        }
        self.granted_at_ms = now_ms;
        Some(self.grant())
    }

    fn widen(&mut self, window: u64) {
        let room = if window <= FIRST_WINDOW_CELLS { Room::All } else { Room::Half };
        if self.reservation.grow_to(window, room) || planted("window-without-memory") {
            self.window = window;
        }
    }

    fn grant(&mut self) -> u64 {
        let granted = self.drained + self.window;
        // Never decreases (spec 06, 4), whatever the window did.
        self.permitted.0.fetch_max(granted, Ordering::AcqRel).max(granted)
    }

    /// Asks for permission back when the circuit has been idle for `idle_ms`: gives the absolute number to ask for by RECLAIM.
    pub fn reclaim(&mut self, now_ms: u64, idle_ms: u64) -> Option<u64> {
        let idle = now_ms.saturating_sub(self.drained_at_ms) >= idle_ms;
        if self.reclaiming || !idle || self.window <= IDLE_WINDOW_CELLS {
            return None;
        }
        self.reclaiming = true;
        Some(self.drained + IDLE_WINDOW_CELLS)
    }

    /// The sender's answer to RECLAIM: it will go no further than `limit`. Frees the memory beyond.
    ///
    /// Gives a new CREDIT where the sender has been moving meanwhile.
    ///
    /// # Errors
    /// When nothing was asked, or the answer is outside of what was permitted: the sender broke the protocol.
    pub fn limited(&mut self, limit: u64, now_ms: u64) -> Result<Option<u64>, CreditError> {
        if !self.reclaiming || limit > self.permitted.cells() || limit < self.drained {
            return Err(CreditError);
        }
        self.reclaiming = planted("no-credit-after-reclaim");
        self.permitted.0.store(limit, Ordering::Release);
        self.window = (limit - self.drained).max(IDLE_WINDOW_CELLS);
        self.reservation.shrink_to(self.window);
        self.granted_at_ms = now_ms;
        let starved = limit - self.drained <= self.window / 2;
        Ok(starved.then(|| self.grant()))
    }
}

/// The sender went beyond its credit, or lied about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("credit was overrun")]
pub struct CreditError;

#[cfg(test)]
mod tests {
    use super::*;

    const CELLS: u64 = 1000;

    fn granter(pool: &Arc<Pool>) -> Granter {
        Granter::new(pool.reserve(FIRST_WINDOW_CELLS).unwrap(), Pace::new(10), 0)
    }

    fn pool() -> Arc<Pool> {
        Pool::new(CELLS * FRAME_BYTES as u64)
    }

    #[test]
    fn memory_is_reserved_before_it_is_granted() {
        let pool = Pool::new(20 * FRAME_BYTES as u64);
        let first = pool.reserve(16);
        assert!(first.is_some() && pool.reserve(16).is_none());
        drop(first);
        assert_eq!(pool.reserved_cells(), 0);
    }

    #[test]
    fn a_share_of_a_pool_is_bounded_by_both() {
        let all = Pool::new(100 * FRAME_BYTES as u64);
        let (a, b) = (Pool::within(&all, 60 * FRAME_BYTES as u64), Pool::within(&all, 60 * FRAME_BYTES as u64));
        let first = a.reserve(60);
        assert!(first.is_some() && a.reserve(1).is_none(), "its own size");
        assert!(b.reserve(41).is_none() && b.reserved_cells() == 0, "the other share left only 40");
        let second = b.reserve(40);
        assert_eq!((a.reserved_cells(), b.reserved_cells(), all.reserved_cells()), (60, 40, 100));
        drop((first, second));
        assert_eq!((a.reserved_cells(), b.reserved_cells(), all.reserved_cells()), (0, 0, 0));
    }

    #[test]
    fn credit_comes_at_half_a_window_and_doubles_when_brisk() {
        let pool = pool();
        let mut granter = granter(&pool);
        assert_eq!(granter.drained(7, 1), None);
        assert_eq!(granter.drained(1, 2), Some(8 + 32));
        assert_eq!(pool.reserved_cells(), 32);
        assert_eq!(granter.drained(16, 100), Some(24 + 32), "slow: the window stays");
    }

    #[test]
    fn windows_stop_at_their_maximum_and_at_half_the_pool() {
        let pool = pool();
        let (mut a, mut now) = (granter(&pool), 0);
        while let Some(to) = a.drained(a.window / 2 + 1, now) {
            now += 1;
            if now > 20 {
                break;
            }
            assert!(to - a.drained <= MAX_WINDOW_CELLS);
            assert!(to - a.drained <= pool.reserved_cells(), "what is permitted is reserved");
        }
        assert!(pool.reserved_cells() <= CELLS / 2);
    }

    #[test]
    fn reclaim_frees_memory_only_after_limit() {
        let pool = pool();
        let mut granter = granter(&pool);
        granter.drained(8, 1);
        assert_eq!(granter.reclaim(100, 5000), None, "not idle yet");
        assert_eq!(granter.reclaim(6000, 5000), Some(12));
        assert_eq!(pool.reserved_cells(), 32, "still promised");
        assert_eq!(granter.drained(1, 6001), None, "no CREDIT while asking");
        assert_eq!(granter.limited(13, 6002), Ok(None));
        assert_eq!(pool.reserved_cells(), 4);
        assert_eq!(granter.permitted().cells(), 13);
        assert_eq!(granter.limited(13, 6003), Err(CreditError), "not asked");
        // 13 permitted, 9 drained: two more, and credit comes again, with the first window.
        assert_eq!(granter.drained(2, 7000), Some(11 + 16));
    }

    #[test]
    fn a_limit_at_what_was_sent_gives_new_credit_at_once() {
        let pool = pool();
        let mut granter = granter(&pool);
        granter.drained(8, 1);
        granter.reclaim(6000, 5000);
        assert_eq!(granter.limited(8, 6001), Ok(Some(12)), "else the circuit would stand still");
        assert_eq!(granter.limited(41, 6001), Err(CreditError));
    }

    #[test]
    fn a_limit_beyond_what_was_permitted_is_a_breach() {
        let pool = pool();
        let mut granter = granter(&pool);
        granter.reclaim(6000, 5000);
        assert_eq!(granter.limited(17, 6001), Err(CreditError));
    }
}
