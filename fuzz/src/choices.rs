//! An input read as choices: the first bytes say what happens first. What is not there is zero, so every input means something.

/// What is left of an input.
#[derive(Debug, Clone)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Nothing chosen yet.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether something is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.number(1).to_be_bytes()[7]
    }

    /// The next two bytes.
    pub fn short(&mut self) -> u16 {
        u16::try_from(self.number(2)).unwrap_or_default()
    }

    /// The next eight bytes.
    pub fn long(&mut self) -> u64 {
        self.number(8)
    }

    /// One of `count`, which is at most 256 and not zero.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count.max(1)
    }

    /// The next `count` bytes, fewer at the end.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes after their length in one byte.
    pub fn bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte());
        self.take(count)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    fn number(&mut self, count: usize) -> u64 {
        let taken = self.take(count);
        let value = taken.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte));
        // As if zeros followed.
        (taken.len()..count).fold(value, |value, _| value << 8)
    }
}

/// Changes some of `bytes` as `choices` say: bits flipped, bytes set, cut, repeated, put in. Gives whether anything changed.
pub fn tamper(bytes: &mut Vec<u8>, choices: &mut Choices<'_>) -> bool {
    let before = bytes.clone();
    for _ in 0..1 + choices.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = usize::from(choices.short()) % bytes.len();
        match choices.below(5) {
            0 => bytes[at] ^= 1 << choices.below(8),
            1 => bytes[at] = choices.byte(),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, choices.byte()),
            _ => bytes.extend_from_within(at..),
        }
    }
    *bytes != before
}
