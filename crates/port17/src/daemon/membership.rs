//! A daemon's place in a network: the network file, the store, and who asks for signed lists.

use std::path::{Path, PathBuf};

use port17_proto::crypto::Entropy;
use port17_proto::network::Definition;
use port17_proto::node::Node;
use port17_proto::node::record::{Record, RecordKey};
use port17_proto::params::Params;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::DaemonError;
use crate::bootstrap::{Bootstrap, BootstrapHandle, Fetched, Known};
use crate::config::Config;
use crate::network_file::NetworkFile;
use crate::plane::Plane;
use crate::store::{FileStore, Pauses, Store, StoreReport, StoreWatch, StoreWriter};

/// Lists that wait for the engine: it takes them faster than they can be fetched.
const LISTS: usize = 4;

/// What is read before the engine starts.
pub(super) struct Joining {
    path: PathBuf,
    file: NetworkFile,
    store: FileStore,
    stored: Vec<Record>,
    keys: Vec<RecordKey>,
}

/// What a daemon has of its network while it runs.
pub(super) struct Membership {
    path: PathBuf,
    file: NetworkFile,
    store: StoreWriter,
    store_path: PathBuf,
    bootstrap: BootstrapHandle,
    lists: mpsc::Receiver<Fetched>,
}

/// The part of it that others look at.
#[derive(Clone)]
pub(super) struct MembershipView {
    pub(super) definition: Definition,
    pub(super) store: StoreWatch,
    pub(super) store_path: PathBuf,
    pub(super) bootstrap: BootstrapHandle,
}

impl Joining {
    /// Reads the network file and the store that `config` names; none without a network.
    pub(super) fn read(config: &Config) -> Result<Option<Self>, DaemonError> {
        let Some(path) = config.network.clone() else { return Ok(None) };
        let file = NetworkFile::load(&path)?;
        let mut store = FileStore::open(&config.state, file.definition.id(), Plane::unix_seconds())?;
        let stored = store.load()?;
        let keys = stored.iter().map(|(key, _)| *key).collect();
        Ok(Some(Self { path, file, store, stored, keys }))
    }

    /// The parameters that hold until there is a list.
    pub(super) fn params(&self) -> &Params {
        &self.file.params
    }

    /// For the engine.
    pub(super) fn definition(&self) -> Definition {
        self.file.definition.clone()
    }

    /// For the engine.
    pub(super) fn take_stored(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.stored)
    }

    /// Starts to write the store and to ask for lists.
    pub(super) fn join(self, node: &Node, entropy: Entropy, tasks: &mut JoinSet<()>) -> Result<Membership, DaemonError> {
        let nodes = !node.listed().is_empty() || node.bottlerack().iter().next().is_some();
        let bootstrap = Bootstrap::new(&self.file, Known { list: list_in_force(node), nodes }, entropy)
            .map_err(|error| DaemonError::Configuration(format!("{}: {error}", self.path.display())))?;
        let handle = bootstrap.handle();
        let (fetched, lists) = mpsc::channel(LISTS);
        let store_path = self.store.path().to_owned();
        let store = StoreWriter::start(Box::new(self.store), self.keys, Pauses::default())?;
        tasks.spawn(bootstrap.run(fetched));
        Ok(Membership { path: self.path, file: self.file, store, store_path, bootstrap: handle, lists })
    }
}

impl Membership {
    pub(super) fn view(&self) -> MembershipView {
        MembershipView {
            definition: self.file.definition.clone(),
            store: self.store.watch(),
            store_path: self.store_path.clone(),
            bootstrap: self.bootstrap.clone(),
        }
    }

    /// The next list that a source has.
    pub(super) async fn next_list(&mut self) -> Fetched {
        match self.lists.recv().await {
            Some(fetched) => fetched,
            // Who asks ends with the daemon.
            None => std::future::pending().await,
        }
    }

    /// The store.
    pub(super) fn store(&self) -> &StoreWriter {
        &self.store
    }

    /// Tells who asks for lists how urgent it is.
    pub(super) fn note_list(&self, node: &Node) {
        self.bootstrap.list_in_force(list_in_force(node));
    }

    /// Reads the network file again and asks all sources at once; gives what has changed in the file, in words.
    ///
    /// # Errors
    /// What is wrong with the file, in words; what was read before stays.
    pub(super) fn reload(&mut self) -> Result<Vec<String>, String> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", self.path.display());
        let file = NetworkFile::load(&self.path).map_err(|error| error.to_string())?;
        self.bootstrap.replace(&file).map_err(|error| named(&error))?;
        let changed = differences(&self.path, &self.file, &file);
        self.file = file;
        Ok(changed)
    }

    /// Writes all that waits. Blocks for the length of a write.
    pub(super) fn close(self) -> StoreReport {
        self.store.close()
    }
}

/// The sequence number of the list, if there is one that has not expired.
fn list_in_force(node: &Node) -> Option<u64> {
    let holds = |list: &&port17_proto::network::VerifiedList| !list.has_expired(Plane::unix_seconds());
    node.list().filter(holds).map(|list| list.seq())
}

fn differences(path: &Path, old: &NetworkFile, new: &NetworkFile) -> Vec<String> {
    let name = path.display();
    let mut changed = Vec::new();
    for source in new.sources.iter().filter(|source| !old.sources.contains(source)) {
        changed.push(format!("{name}: new source {source}"));
    }
    for source in old.sources.iter().filter(|source| !new.sources.contains(source)) {
        changed.push(format!("{name}: source {source} is gone"));
    }
    if old.ca_pem != new.ca_pem {
        changed.push(format!("{name}: ca_pem"));
    }
    if old.params != new.params {
        changed.push(format!("{name}: parameters, which hold from the next start, and until there is a signed list"));
    }
    changed
}
