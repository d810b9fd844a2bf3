//! The store: what the engine wants to find again after a restart, as keys and bytes.
//!
//! The engine says what to keep ([`RecordKey`] and bytes) and checks what it reads; here the bytes are only held. [`FileStore`] is
//! a file, [`MemoryStore`] is forgotten with the process, and [`StoreWriter`] is the thread that writes, so that nobody who
//! forwards ever waits for a disk.
//!
//! Invariants: what [`Store::commit`] has taken survives the death of the process at any moment; a batch is there as a whole or not
//! at all; a file that is not as it was written is set aside under a name that is said, and never used or removed.

mod disk;
mod file;
mod layout;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use port17_proto::node::record::{Record, RecordKey};

pub use self::file::{FileStore, SetAside};
pub use self::writer::{Pauses, StoreReport, StoreWatch, StoreWriter};

/// One change of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Keep this, in place of what the key had.
    Save(RecordKey, Vec<u8>),
    /// Drop what the key has, if anything.
    Forget(RecordKey),
}

/// Where records are kept.
pub trait Store: Send {
    /// All records, in the order of their keys. Those of a later version are left out and left alone.
    ///
    /// # Errors
    /// When they cannot be read.
    fn load(&mut self) -> Result<Vec<Record>, StoreError>;

    /// Makes all of `changes` or none. When this returns, they survive a crash of the process and of the machine.
    ///
    /// # Errors
    /// When they cannot be written; what was there before stays, and the same changes can be tried again.
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError>;
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused an operation.
    #[error("{}: the store cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the file.
    #[error("{}: another process uses this store; stop it, or name another directory by `state = …`", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not as it was written.
    #[error("{}: the store is damaged ({problem}); the next start sets it aside and begins a new one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A store that is forgotten with the process.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore {
    records: BTreeMap<RecordKey, Vec<u8>>,
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        Ok(self.records.clone().into_iter().collect())
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        for change in changes {
            match change {
                Change::Save(key, bytes) => drop(self.records.insert(*key, bytes.clone())),
                Change::Forget(key) => drop(self.records.remove(key)),
            }
        }
        Ok(())
    }
}
