use zeroize::Zeroize;

use super::{AeadKey, Secret, hash};

const KEY_BYTES: usize = 32;
const BLOCK_BYTES: usize = 512;

/// The randomness that is passed in: a stream that its seed determines. The daemon seeds it from the system, tests and the
/// simulator from a number that they print.
///
/// The stream erases its past (spec 02, 7): each key makes 512 bytes, the first 32 of which are the next key, and bytes are
/// zeroised when they are given out. So who reads this memory later learns no key that was drawn earlier: a long-lived stream
/// would otherwise undo the forward secrecy of every circuit.
pub struct Entropy {
    block: Secret<BLOCK_BYTES>,
    used: usize,
}

impl Entropy {
    /// Starts the stream that belongs to `seed`.
    pub fn from_seed(mut seed: [u8; 32]) -> Self {
        let block = keystream(&seed);
        seed.zeroize();
        Self { block, used: KEY_BYTES }
    }

    /// Starts the stream of a test or a simulation.
    pub fn from_number(seed: u64) -> Self {
        Self::from_seed(hash("p17-test-seed-v1", &[&seed.to_be_bytes()]))
    }

    /// An independent stream, so that two owners need not share one.
    pub fn fork(&mut self) -> Self {
        Self::from_seed(self.bytes())
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        let mut rest = out;
        while !rest.is_empty() {
            if self.used == BLOCK_BYTES {
                self.refill();
            }
            let take = rest.len().min(BLOCK_BYTES - self.used);
            let (now, later) = rest.split_at_mut(take);
            let fresh = &mut self.block.expose_mut()[self.used..self.used + take];
            now.copy_from_slice(fresh);
            fresh.zeroize();
            self.used += take;
            rest = later;
        }
    }

    /// `N` random bytes that may be shown.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// `N` random bytes that may not.
    pub fn secret<const N: usize>(&mut self) -> Secret<N> {
        Secret::filled(|out| self.fill(out))
    }

    /// Uniform in `0..bound`; 0 for a bound of 0 or 1. Unbiased (rejection).
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound <= 1 {
            return 0;
        }
        let zone = u64::MAX - (u64::MAX % bound);
        loop {
            let draw = u64::from_be_bytes(self.bytes());
            if draw < zone {
                return draw % bound;
            }
        }
    }

    /// A uniformly drawn element, none for an empty slice.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len() as u64)).ok()?)
    }

    fn refill(&mut self) {
        // A block begins with the key of the next one; replacing it erases that key too.
        let (key, _) = self.block.expose().split_first_chunk().expect("512 bytes hold a key of 32");
        self.block = keystream(key);
        self.used = KEY_BYTES;
    }
}

/// 512 bytes that only the key determines: AES-256-GCM of zeros, which is AES in counter mode. A key is used once, so nonce 0.
fn keystream(key: &[u8; KEY_BYTES]) -> Secret<BLOCK_BYTES> {
    Secret::filled(|block| {
        AeadKey::from_bytes(key).seal([0; 12], &[], block);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_determines_the_stream() {
        let (mut one, mut same, mut other) = (Entropy::from_number(1), Entropy::from_number(1), Entropy::from_number(2));
        let drawn: [u8; 1000] = one.bytes();
        assert_eq!(drawn, same.bytes());
        assert_ne!(drawn, other.bytes());
        assert_ne!(one.bytes::<32>(), drawn[..32]);
    }

    #[test]
    fn the_size_of_the_draws_does_not_change_the_stream() {
        let (mut whole, mut pieces) = (Entropy::from_number(3), Entropy::from_number(3));
        let expected: [u8; 2000] = whole.bytes();
        let mut drawn = Vec::new();
        for size in (1..).take_while(|size| size * (size + 1) / 2 <= 2000) {
            let mut piece = vec![0; size];
            pieces.fill(&mut piece);
            drawn.extend_from_slice(&piece);
        }
        assert_eq!(drawn, expected[..drawn.len()]);
    }

    #[test]
    fn what_was_drawn_is_erased() {
        let mut entropy = Entropy::from_number(4);
        let drawn: [u8; 100] = entropy.bytes();
        let held = entropy.block.expose();
        assert!(held[KEY_BYTES..KEY_BYTES + 100].iter().all(|byte| *byte == 0));
        assert!(!held.windows(8).any(|window| window == &drawn[..8]));

        // Nor does the next key tell the block that it came from.
        let first = *held;
        let _: [u8; BLOCK_BYTES] = entropy.bytes();
        assert!(!entropy.block.expose().windows(KEY_BYTES).any(|window| window == &first[..KEY_BYTES]));
    }

    #[test]
    fn draws_stay_below_their_bound() {
        let mut entropy = Entropy::from_number(5);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[usize::try_from(entropy.below(7)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert_eq!((entropy.below(0), entropy.below(1)), (0, 0));
        assert!(entropy.below(u64::MAX) < u64::MAX);
        assert_eq!(entropy.pick::<u8>(&[]), None);
    }
}
