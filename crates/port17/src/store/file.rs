//! The store as a file: a redb database of one table, bytes to bytes.
//!
//! Keys are those of [`RecordKey::to_bytes`]; `00` holds the version of this layout and the network's id. Every batch is one
//! transaction in two phases: a torn write can be told from a whole one by order alone, not only by sums. The file comes into being
//! beside its place and is renamed, so that no crash leaves half a store.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use port17_proto::ids::NetworkId;
use port17_proto::node::record::{Record, RecordKey};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::disk::Opened;
use super::{Change, Store, StoreError, layout};

const FILE: &str = "store.redb";
const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
/// Holds what the file is: no record's key begins with this byte.
const LABEL_KEY: &[u8] = &[0];
/// The version of keys and values.
const VERSION: u8 = 1;
/// A file below this is not worth compacting.
const COMPACT_BYTES: u64 = 4 * 1024 * 1024;

/// A store in a file.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    /// None after an error of the disk: redb wants to be opened anew.
    database: Option<Opened>,
    set_aside: Option<SetAside>,
}

/// A store that could not be used and was kept under another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is now.
    pub path: PathBuf,
    /// What was wrong with it.
    pub problem: String,
}

impl FileStore {
    /// Opens the store in the directory `state`, or begins one. One that is damaged, of another format or of another network is
    /// renamed, an error is logged that names it, and a new one is begun. `now_s` (Unix seconds) is for that name.
    ///
    /// # Errors
    /// When the system refuses it, or another process uses it.
    pub fn open(state: &Path, network: NetworkId, now_s: u64) -> Result<Self, StoreError> {
        let path = state.join(FILE);
        let kept = match Self::existing(&path, network)? {
            Existing::Usable(database) => return Ok(Self { path, database: Some(database), set_aside: None }),
            Existing::None => None,
            Existing::Unusable { problem, kind } => Some(set_aside(&path, kind, now_s, problem)?),
        };
        if let Some(SetAside { path: kept, problem }) = &kept {
            tracing::error!(
                store = %path.display(), %problem, kept = %kept.display(),
                "the store cannot be used and is set aside; a new one begins: guards are drawn again, Bottles and the list come again"
            );
        }
        let database = create(&path, network)?;
        Ok(Self { path, database: Some(database), set_aside: kept })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was set aside when it was opened.
    pub fn set_aside(&self) -> Option<&SetAside> {
        self.set_aside.as_ref()
    }

    fn existing(path: &Path, network: NetworkId) -> Result<Existing, StoreError> {
        let database = match open_file(path) {
            Ok(None) => return Ok(Existing::None),
            Ok(Some(database)) => database,
            Err(StoreError::Damaged { problem, .. }) => return Ok(Existing::Unusable { problem, kind: "damaged" }),
            Err(error) => return Err(error),
        };
        match label(&database.database).map_err(|error| failed(path, "be read", error)) {
            Ok(Some(found)) if found == label_of(network) => {}
            Ok(Some(found)) if found.first() == Some(&VERSION) => {
                return Ok(Existing::Unusable { problem: "it belongs to another network".to_owned(), kind: "other-network" });
            }
            Ok(Some(found)) => {
                let problem = format!("its layout is {:?}, this is {VERSION}", found.first());
                return Ok(Existing::Unusable { problem, kind: "damaged" });
            }
            Ok(None) => return Ok(Existing::Unusable { problem: "it is no store of port17".to_owned(), kind: "damaged" }),
            Err(StoreError::Damaged { problem, .. }) => return Ok(Existing::Unusable { problem, kind: "damaged" }),
            Err(error) => return Err(error),
        }
        compact(path, database).map(Existing::Usable)
    }

    fn database(&mut self) -> Result<&Database, StoreError> {
        if self.database.is_none() {
            let missing = || failed_io(&self.path, "be opened", io::ErrorKind::NotFound.into());
            self.database = Some(open_file(&self.path)?.ok_or_else(missing)?);
        }
        // It was put there just now.
        Ok(&self.database.as_ref().expect("the database is open").database)
    }
}

enum Existing {
    None,
    Usable(Opened),
    Unusable { problem: String, kind: &'static str },
}

impl Store for FileStore {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        let path = self.path.clone();
        read_all(self.database()?).map_err(|error| failed(&path, "be read", error))
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let path = self.path.clone();
        let written = write(self.database()?, changes).map_err(|error| failed(&path, "be written", error));
        if written.is_err() {
            self.database = None;
        }
        written
    }
}

/// Opens the file at `path` and has every page of it checked; none where there is none.
fn open_file(path: &Path) -> Result<Option<Opened>, StoreError> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed_io(path, "be opened", error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(failed_io(path, "be locked", error)),
    }
    if let Some(problem) = layout::damage(&file).map_err(|error| failed_io(path, "be read", error))? {
        return Err(StoreError::Damaged { path: path.to_owned(), problem });
    }
    file.set_permissions(Permissions::from_mode(0o600)).map_err(|error| failed_io(path, "be closed to others", error))?;
    Opened::new(file).map(Some).map_err(|error| failed(path, "be opened", error))
}

/// Makes a store beside its place, syncs it, and renames it.
fn create(path: &Path, network: NetworkId) -> Result<Opened, StoreError> {
    let beside = path.with_extension("redb.new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed_io(&beside, "be removed", error)),
        _ => {}
    }
    let open = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&beside);
    let file = open.map_err(|error| failed_io(&beside, "be made", error))?;
    let made = Opened::new(file).and_then(|made| write_label(&made.database, network).map(|()| made));
    let made = made.map_err(|error| failed(&beside, "be made", error))?;
    fs::rename(&beside, path).map_err(|error| failed_io(path, "be put in its place", error))?;
    sync_directory(path)?;
    Ok(made)
}

/// Renames the file to a name that nothing has.
fn set_aside(path: &Path, kind: &str, now_s: u64, problem: String) -> Result<SetAside, StoreError> {
    let name = |number: u32| match number {
        0 => path.with_extension(format!("redb.{kind}-{now_s}")),
        more => path.with_extension(format!("redb.{kind}-{now_s}-{more}")),
    };
    // The state directory is locked: nobody else makes files here.
    let free = (0..).map(name).find(|path| fs::symlink_metadata(path).is_err());
    let kept = free.ok_or_else(|| failed_io(path, "be set aside", io::ErrorKind::AlreadyExists.into()))?;
    fs::rename(path, &kept).map_err(|error| failed_io(path, "be set aside", error))?;
    sync_directory(path)?;
    Ok(SetAside { path: kept, problem })
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(|error| failed_io(directory, "be synced", error))
}

/// Gives room back where more than half of the file is free.
fn compact(path: &Path, mut opened: Opened) -> Result<Opened, StoreError> {
    let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
    if length < COMPACT_BYTES || used_bytes(&opened.database).map_err(|error| failed(path, "be read", error))? > length / 2 {
        return Ok(opened);
    }
    match opened.database.compact() {
        Ok(_) => Ok(opened),
        Err(error) => {
            // A full disk, say: it works as it is, once it has been opened anew.
            tracing::warn!(store = %path.display(), %error, "the store cannot be compacted");
            drop(opened);
            open_file(path)?.ok_or_else(|| failed_io(path, "be opened", io::ErrorKind::NotFound.into()))
        }
    }
}

fn used_bytes(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let stats = transaction.stats()?;
    transaction.abort()?;
    Ok(stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes())
}

fn label_of(network: NetworkId) -> Vec<u8> {
    [&[VERSION][..], &network.0].concat()
}

fn label(database: &Database) -> Result<Option<Vec<u8>>, redb::Error> {
    let table = match database.begin_read()?.open_table(TABLE) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(table.get(LABEL_KEY)?.map(|label| label.value().to_owned()))
}

fn write_label(database: &Database, network: NetworkId) -> Result<(), redb::Error> {
    transact(database, |table| table.insert(LABEL_KEY, &label_of(network)[..]).map(drop))
}

fn read_all(database: &Database) -> Result<Vec<Record>, redb::Error> {
    let table = database.begin_read()?.open_table(TABLE)?;
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (key, bytes) = entry?;
        records.extend(RecordKey::from_bytes(key.value()).map(|key| (key, bytes.value().to_owned())));
    }
    Ok(records)
}

fn write(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    transact(database, |table| {
        for change in changes {
            match change {
                Change::Save(key, bytes) => drop(table.insert(&key.to_bytes()[..], &bytes[..])?),
                Change::Forget(key) => drop(table.remove(&key.to_bytes()[..])?),
            }
        }
        Ok(())
    })
}

fn transact(
    database: &Database,
    change: impl FnOnce(&mut redb::Table<'_, &[u8], &[u8]>) -> Result<(), redb::StorageError>,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    change(&mut transaction.open_table(TABLE)?)?;
    transaction.commit()?;
    Ok(())
}

fn failed(path: &Path, action: &'static str, error: redb::Error) -> StoreError {
    let damaged = |problem| StoreError::Damaged { path: path.to_owned(), problem };
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path: path.to_owned() },
        redb::Error::Io(source) if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            damaged(source.to_string())
        }
        redb::Error::Io(source) => failed_io(path, action, source),
        redb::Error::PreviousIo => failed_io(path, action, io::Error::other("an operation before failed")),
        other => damaged(other.to_string()),
    }
}

fn failed_io(path: &Path, action: &'static str, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), action, source }
}
