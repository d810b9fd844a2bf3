//! The file below redb, which takes nothing more once it is frozen.
//!
//! redb closes in order when it is dropped. Frozen before that, the file stays as the last transaction left it: ending and being
//! killed come to the same, and every start checks all sums and finds damage at once.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use super::layout;

/// Pages that redb keeps in memory: the engine holds all records anyway, and reads them here at the start alone. What is larger fills up
/// over the first quarter of an hour, as a leak would.
const CACHE_BYTES: usize = 1024 * 1024;

/// A database whose file is frozen when it is dropped.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) database: Database,
    frozen: Arc<AtomicBool>,
}

impl Opened {
    /// Opens the database in `file`, or makes one if it is empty.
    ///
    /// # Errors
    /// What redb says.
    pub(super) fn new(file: File) -> Result<Self, redb::Error> {
        let frozen = Arc::new(AtomicBool::new(false));
        let disk = Disk { file: FileBackend::new(file)?, frozen: Arc::clone(&frozen) };
        let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(disk)?;
        Ok(Self { database, frozen })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // The database is dropped after this.
        self.frozen.store(true, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Disk {
    file: FileBackend,
    frozen: Arc<AtomicBool>,
}

impl Disk {
    fn thawed(&self) -> io::Result<&FileBackend> {
        if self.frozen.load(Ordering::SeqCst) { Err(io::Error::other("the store is closed")) } else { Ok(&self.file) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)?;
        if offset == 0 {
            layout::have_all_checked(out);
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.thawed()?.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.thawed()?.sync_data()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.thawed()?.write(offset, bytes)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
