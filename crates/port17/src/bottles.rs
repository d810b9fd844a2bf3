//! Bottles as files: `<NodeID>.bottle` in one directory, written by rename, so that a reader finds the old or the new one.
//!
//! Nothing is verified here: what comes out are bytes of unknown worth.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use port17_proto::ids::NodeId;
use port17_proto::limits;

const ENDING: &str = "bottle";

/// A directory where nodes and clients of one machine, or a person with a copy, exchange Bottles.
#[derive(Debug, Clone)]
pub struct BottleDirectory {
    path: PathBuf,
}

/// A file of the directory.
#[derive(Debug)]
pub struct BottleFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds, or why that is not known.
    pub bytes: io::Result<Vec<u8>>,
}

impl BottleDirectory {
    /// The directory at `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a node's Bottle is.
    pub fn path_of(&self, node: &NodeId) -> PathBuf {
        self.path.join(format!("{node}.{ENDING}"))
    }

    /// Makes the directory if it is missing.
    ///
    /// # Errors
    /// What the system says.
    pub fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.path)
    }

    /// A node's Bottle, none where there is none.
    ///
    /// # Errors
    /// What the system says; also for a file larger than any Bottle.
    pub fn read(&self, node: &NodeId) -> io::Result<Option<Vec<u8>>> {
        match read_bottle(&self.path_of(node)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All files of the directory, in the order of their names; none where there is no directory.
    ///
    /// # Errors
    /// When the directory itself cannot be read.
    pub fn read_all(&self) -> io::Result<Vec<BottleFile>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let paths =
            entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == ENDING));
        let mut paths: Vec<PathBuf> = paths.take(limits::BOTTLERACK_BOTTLES).collect();
        paths.sort();
        Ok(paths.into_iter().map(|path| BottleFile { bytes: read_bottle(&path), path }).collect())
    }

    /// Writes a node's Bottle by rename.
    ///
    /// # Errors
    /// What the system says; the old file stays.
    pub fn write(&self, node: &NodeId, bytes: &[u8]) -> io::Result<()> {
        // Beside its place, under a name that no reader looks at and no other process uses.
        let beside = self.path.join(format!(".{node}.{}.new", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&beside)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&beside, self.path_of(node)));
        if written.is_err() {
            // On a full disk each name left behind takes room; that it could not be removed is the smaller problem.
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

/// Reads a file that should hold a Bottle.
///
/// # Errors
/// What the system says; also for a file larger than any Bottle.
pub fn read_bottle(path: &Path) -> io::Result<Vec<u8>> {
    read_bounded(File::open(path)?)
}

/// Reads what should be a Bottle to its end.
///
/// # Errors
/// What the system says; also when there is more than any Bottle has.
pub fn read_bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(limits::BOTTLE_BYTES + 1);
    from.take(limits::BOTTLE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limits::BOTTLE_BYTES {
        let problem = format!("no Bottle: larger than {} bytes", limits::BOTTLE_BYTES);
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bottles_are_written_by_rename_and_found() {
        let root = tempfile::tempdir().unwrap();
        let directory = BottleDirectory::new(&root.path().join("bottles"));
        let node = NodeId([7; 32]);
        assert!(directory.read_all().unwrap().is_empty(), "no directory, no Bottles");
        directory.make().unwrap();
        assert_eq!(directory.read(&node).unwrap(), None);
        for bytes in [b"old", b"new"] {
            directory.write(&node, bytes).unwrap();
            assert_eq!(directory.read(&node).unwrap().unwrap(), bytes);
        }
        let taken = NodeId([8; 32]);
        fs::create_dir(directory.path_of(&taken)).unwrap();
        assert!(directory.write(&taken, b"new").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left beside what could not be written");
        fs::remove_dir(directory.path_of(&taken)).unwrap();
        fs::write(directory.path().join("readme.txt"), "no Bottle").unwrap();
        fs::write(directory.path().join(".x.1.new"), "half").unwrap();
        let files = directory.read_all().unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].path, directory.path_of(&node));
        assert_eq!(files[0].bytes.as_ref().unwrap(), b"new");
    }

    #[test]
    fn what_is_larger_than_a_bottle_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        let directory = BottleDirectory::new(root.path());
        let node = NodeId([7; 32]);
        directory.write(&node, &vec![0; limits::BOTTLE_BYTES]).unwrap();
        assert!(directory.read(&node).is_ok());
        directory.write(&node, &vec![0; limits::BOTTLE_BYTES + 1]).unwrap();
        assert!(directory.read(&node).is_err());
        assert!(directory.read_all().unwrap()[0].bytes.is_err());
    }
}
