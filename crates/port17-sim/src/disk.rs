//! A host's disk: what survives the end of its process, and how much of it.

use std::collections::BTreeMap;

use port17_proto::bottle::Seq;
use port17_proto::crypto::Entropy;
use port17_proto::node::record::{Record, RecordKey};

/// What a process has asked to be kept.
#[derive(Default)]
pub struct Disk {
    records: BTreeMap<RecordKey, Vec<u8>>,
    /// Not written yet, in order: none drops a record.
    waiting: Vec<(RecordKey, Option<Vec<u8>>)>,
    seq: Option<Seq>,
    /// Nothing can be written.
    pub is_full: bool,
    /// It keeps nothing: for runs without restarts.
    pub is_idle: bool,
    /// Records that a crash has left damaged.
    pub torn: u64,
}

impl Disk {
    /// Asks for a record to be kept, or dropped.
    pub fn ask(&mut self, key: RecordKey, bytes: Option<Vec<u8>>) -> bool {
        if self.is_idle {
            return false;
        }
        self.waiting.push((key, bytes));
        self.waiting.len() == 1
    }

    /// The disk has caught up; false while it is full.
    pub fn write(&mut self) -> bool {
        if self.is_full {
            return false;
        }
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().for_each(|(key, bytes)| self.put(key, bytes));
        true
    }

    fn put(&mut self, key: RecordKey, bytes: Option<Vec<u8>>) {
        match bytes {
            Some(bytes) => self.records.insert(key, bytes),
            None => self.records.remove(&key),
        };
    }

    /// Stores a sequence number; false when it cannot.
    pub fn store_seq(&mut self, seq: Seq) -> bool {
        if !self.is_full {
            self.seq = Some(seq);
        }
        !self.is_full
    }

    /// The last sequence number that was stored.
    pub fn seq(&self) -> Option<Seq> {
        self.seq
    }

    /// Whether this record is there, and no newer one waits.
    pub fn has_newest(&self, key: RecordKey) -> bool {
        self.records.contains_key(&key) && !self.waiting.iter().any(|(waiting, _)| *waiting == key)
    }

    /// The process has gone without a word: a part of what waited is there, and the last of it may be torn.
    pub fn crash(&mut self, may_tear: bool, entropy: &mut Entropy) {
        let waiting = std::mem::take(&mut self.waiting);
        let kept = usize::try_from(entropy.below(waiting.len() as u64 + 1)).unwrap_or(0);
        let tears = may_tear && kept > 0 && entropy.below(4) == 0;
        for (at, (key, bytes)) in waiting.into_iter().take(kept).enumerate() {
            let mut bytes = bytes;
            if tears
                && at + 1 == kept
                && let Some(bytes) = &mut bytes
            {
                bytes.truncate(usize::try_from(entropy.below(bytes.len() as u64)).unwrap_or(0));
                self.torn += 1;
            }
            self.put(key, bytes);
        }
    }

    /// What the next process finds.
    pub fn records(&self) -> Vec<Record> {
        self.records.iter().map(|(key, bytes)| (*key, bytes.clone())).collect()
    }
}
