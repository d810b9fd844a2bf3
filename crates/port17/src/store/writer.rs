//! The thread that writes the store.
//!
//! Whoever saves puts the newest bytes of a key into a map and goes on; the thread takes the whole map as one batch. So nobody waits
//! for the disk, what changes often is written once a batch, and what waits while the disk is full has a bound: a key waits only
//! if its record is still wanted, or is in the store and no longer wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use port17_proto::node::record::RecordKey;

use super::{Change, Store};
use crate::lane::lock;

/// How long the thread waits.
#[derive(Debug, Clone, Copy)]
pub struct Pauses {
    /// For more changes, before it writes the first.
    pub gather: Duration,
    /// Before it tries again what could not be written.
    pub retry: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        // Ten syncs a second at most, and a crash takes a tenth of a second of what would come again anyway.
        Self { gather: Duration::from_millis(100), retry: Duration::from_secs(5) }
    }
}

/// How the store fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreReport {
    /// Records in it.
    pub records: usize,
    /// Changes that are not written yet.
    pub waiting: usize,
    /// Why it cannot be written, none while it can.
    pub problem: Option<String>,
}

/// Writes a store from a thread of its own, which ends with it: dropping it writes what waits.
#[derive(Debug)]
pub struct StoreWriter {
    desk: Arc<Desk>,
    /// None once it has ended.
    thread: Option<JoinHandle<()>>,
}

/// Looks at a [`StoreWriter`] from elsewhere.
#[derive(Debug, Clone)]
pub struct StoreWatch {
    desk: Arc<Desk>,
}

impl StoreWatch {
    /// How the store fares.
    pub fn report(&self) -> StoreReport {
        lock(&self.desk.papers).report()
    }
}

#[derive(Debug)]
struct Desk {
    papers: Mutex<Papers>,
    /// Something was put down, or it closes.
    news: Condvar,
}

#[derive(Debug, Default)]
struct Papers {
    /// The newest state of each changed key: its bytes, or none where it is to be dropped.
    pending: BTreeMap<RecordKey, Option<Vec<u8>>>,
    /// Being written.
    writing: BTreeSet<RecordKey>,
    /// In the store.
    held: BTreeSet<RecordKey>,
    problem: Option<String>,
    closing: bool,
}

impl StoreWriter {
    /// Starts the thread; `held` are the keys that the store has.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(store: Box<dyn Store>, held: impl IntoIterator<Item = RecordKey>, pauses: Pauses) -> io::Result<Self> {
        let papers = Papers { held: held.into_iter().collect(), ..Papers::default() };
        let desk = Arc::new(Desk { papers: Mutex::new(papers), news: Condvar::new() });
        let thread = {
            let desk = Arc::clone(&desk);
            std::thread::Builder::new().name("store".to_owned()).spawn(move || desk.write_until_closed(store, pauses))?
        };
        Ok(Self { desk, thread: Some(thread) })
    }

    /// Keeps a record, in place of an older one. Never waits for the disk.
    pub fn save(&self, key: RecordKey, bytes: Vec<u8>) {
        lock(&self.desk.papers).pending.insert(key, Some(bytes));
        self.desk.news.notify_one();
    }

    /// Drops a record. Never waits for the disk.
    pub fn forget(&self, key: RecordKey) {
        lock(&self.desk.papers).forget(key);
        self.desk.news.notify_one();
    }

    /// How it fares.
    pub fn report(&self) -> StoreReport {
        lock(&self.desk.papers).report()
    }

    /// For who reports how it fares.
    pub fn watch(&self) -> StoreWatch {
        StoreWatch { desk: Arc::clone(&self.desk) }
    }

    /// Writes all that waits and ends the thread; what could not be written is in the report. Blocks for the length of a write.
    pub fn close(mut self) -> StoreReport {
        let in_order = self.end();
        let report = self.report();
        if in_order { report } else { StoreReport { problem: Some("its thread failed".to_owned()), ..report } }
    }

    fn end(&mut self) -> bool {
        lock(&self.desk.papers).closing = true;
        self.desk.news.notify_one();
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        self.end();
    }
}

impl Papers {
    fn report(&self) -> StoreReport {
        let waiting = self.pending.len() + self.writing.len();
        StoreReport { records: self.held.len(), waiting, problem: self.problem.clone() }
    }

    fn forget(&mut self, key: RecordKey) {
        // What is not in the store needs no dropping: else the keys that wait had no bound.
        if self.held.contains(&key) || self.writing.contains(&key) {
            self.pending.insert(key, None);
        } else {
            self.pending.remove(&key);
        }
    }

    fn take(&mut self) -> Vec<Change> {
        let batch = std::mem::take(&mut self.pending);
        self.writing = batch.keys().copied().collect();
        let change = |(key, bytes)| match bytes {
            Some(bytes) => Change::Save(key, bytes),
            None => Change::Forget(key),
        };
        batch.into_iter().map(change).collect()
    }

    fn written(&mut self, batch: Vec<Change>) {
        self.writing.clear();
        for change in batch {
            match change {
                Change::Save(key, _) => drop(self.held.insert(key)),
                Change::Forget(key) => drop(self.held.remove(&key)),
            }
        }
    }

    /// Puts a batch back; what was said since then is newer.
    fn not_written(&mut self, batch: Vec<Change>) {
        self.writing.clear();
        for change in batch {
            match change {
                Change::Save(key, bytes) => drop(self.pending.entry(key).or_insert(Some(bytes))),
                Change::Forget(key) => drop(self.pending.entry(key).or_insert(None)),
            }
        }
        let held = &self.held;
        self.pending.retain(|key, bytes| bytes.is_some() || held.contains(key));
    }
}

impl Desk {
    fn write_until_closed(&self, mut store: Box<dyn Store>, pauses: Pauses) {
        while let Some(batch) = self.next_batch(pauses.gather) {
            let result = store.commit(&batch);
            let mut papers = lock(&self.papers);
            let Err(error) = result else {
                papers.written(batch);
                if papers.problem.take().is_some() {
                    tracing::info!("the store is written again");
                }
                continue;
            };
            papers.not_written(batch);
            let waiting = papers.pending.len();
            // Once for each change of state.
            if papers.problem.is_none() {
                tracing::error!(%error, waiting, retry_s = pauses.retry.as_secs(), "the store cannot be written: tried again");
            }
            papers.problem = Some(error.to_string());
            if papers.closing {
                tracing::error!(waiting, "changes are lost with this process");
                return;
            }
            // Ends early when it closes, for one last try.
            let closing = |papers: &mut Papers| !papers.closing;
            drop(self.news.wait_timeout_while(papers, pauses.retry, closing));
        }
    }

    /// Waits for something to write; none when all is written and it closes.
    fn next_batch(&self, gather: Duration) -> Option<Vec<Change>> {
        let mut papers = lock(&self.papers);
        loop {
            let idle = |papers: &mut Papers| papers.pending.is_empty() && !papers.closing;
            papers = self.news.wait_while(papers, idle).unwrap_or_else(PoisonError::into_inner);
            let more = self.news.wait_timeout_while(papers, gather, |papers| !papers.closing);
            papers = more.unwrap_or_else(PoisonError::into_inner).0;
            // What was there may have been forgotten meanwhile.
            if !papers.pending.is_empty() {
                return Some(papers.take());
            }
            if papers.closing {
                return None;
            }
        }
    }
}
