//! A run in one number: two runs of one seed that do the same have the same.

use port17_proto::crypto::hash;

/// Everything that has happened, hashed: events, sizes and decisions, no ciphertext.
pub struct Trace {
    state: [u8; 32],
    waiting: Vec<u8>,
    events: u64,
}

const BLOCK_BYTES: usize = 4096;

impl Trace {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: hash("p17-trace-v1", &[&seed.to_be_bytes()]), waiting: Vec::with_capacity(BLOCK_BYTES + 64), events: 0 }
    }

    /// Something has happened.
    pub(crate) fn note(&mut self, what: u8, at_us: u64, who: usize, size: u64) {
        self.events += 1;
        self.waiting.push(what);
        self.waiting.extend_from_slice(&at_us.to_be_bytes());
        self.waiting.extend_from_slice(&(who as u64).to_be_bytes());
        self.waiting.extend_from_slice(&size.to_be_bytes());
        if self.waiting.len() >= BLOCK_BYTES {
            self.state = hash("p17-trace-v1", &[&self.state, &self.waiting]);
            self.waiting.clear();
        }
    }

    /// How much has happened.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The number so far, as 16 hexadecimal digits.
    pub fn hash(&self) -> String {
        let whole = hash("p17-trace-v1", &[&self.state, &self.waiting]);
        whole[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
