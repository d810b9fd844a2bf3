use crate::crypto::Entropy;

/// Low bits that are random, so that a Bottle does not show its node's clock to the millisecond.
const RANDOM_BITS: u32 = 10;

/// A Bottle's place in the order of its node's Bottles: Unix milliseconds with the low 10 bits replaced by random ones. The newest
/// valid one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The next one at `unix_ms`, greater than `previous` (spec 04, 3). To be stored before the Bottle is published; a node that
    /// meets a newer one of its own passes that as `previous`.
    pub fn next(previous: Option<Self>, unix_ms: u64, entropy: &mut Entropy) -> Self {
        let random = entropy.below(1 << RANDOM_BITS);
        let block = unix_ms >> RANDOM_BITS;
        let drawn = Self((block << RANDOM_BITS) | random);
        match previous {
            Some(previous) if drawn <= previous => {
                let after = (previous.0 >> RANDOM_BITS) + 1;
                // A seq in the last block (the year 584 million) has no successor in a block of its own.
                if after > u64::MAX >> RANDOM_BITS { Self(u64::MAX) } else { Self((after << RANDOM_BITS) | random) }
            }
            Some(_) | None => drawn,
        }
    }

    /// The time that it says, Unix milliseconds, right to a second.
    pub fn unix_ms(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seq_is_the_time_with_random_low_bits() {
        let mut entropy = Entropy::from_number(4);
        let now = 1_800_000_000_123;
        let drawn: Vec<Seq> = (0..20).map(|_| Seq::next(None, now, &mut entropy)).collect();
        assert!(drawn.iter().all(|seq| seq.0 >> 10 == now >> 10));
        assert!(drawn.iter().any(|seq| *seq != drawn[0]));
    }

    #[test]
    fn seq_only_grows_also_when_the_clock_stands_or_jumps_back() {
        let mut entropy = Entropy::from_number(5);
        let mut last = Seq::next(None, 1_800_000_000_000, &mut entropy);
        for now in [1_800_000_000_000, 1_800_000_000_001, 1_000, 0, 1_800_000_000_900, 1_800_000_100_000] {
            let next = Seq::next(Some(last), now, &mut entropy);
            assert!(next > last, "at {now}");
            last = next;
        }
        assert_eq!(Seq::next(Some(Seq(u64::MAX)), 0, &mut entropy), Seq(u64::MAX));
    }
}
