//! The store: what it keeps, what it does with files that are not as they were written, and with a disk that takes nothing.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use port17::store::{Change, FileStore, MemoryStore, Pauses, Store, StoreError, StoreWriter};
use port17_proto::crypto::Entropy;
use port17_proto::ids::{NetworkId, NodeId};
use port17_proto::node::record::{Record, RecordKey};
use tempfile::TempDir;

const NETWORK: NetworkId = NetworkId([7; 32]);

fn open(state: &Path) -> FileStore {
    FileStore::open(state, NETWORK, 1000).unwrap()
}

fn file(state: &TempDir) -> PathBuf {
    state.path().join("store.redb")
}

fn key(number: u8) -> RecordKey {
    RecordKey::Bottle(NodeId([number; 32]))
}

fn save(number: u8) -> Change {
    Change::Save(key(number), vec![number; 1000])
}

fn record(number: u8) -> Record {
    (key(number), vec![number; 1000])
}

/// A store of fifty records in five batches, as the bytes of its file.
fn written() -> Vec<u8> {
    let state = tempfile::tempdir().unwrap();
    let mut store = open(state.path());
    for batch in 0..5 {
        let changes: Vec<_> = (0..10).map(|number| save(batch * 10 + number)).collect();
        store.commit(&changes).unwrap();
    }
    let killed = fs::read(file(&state)).unwrap();
    drop(store);
    assert_eq!(fs::read(file(&state)).unwrap(), killed, "ending in order and being killed leave the same file");
    killed
}

fn all() -> Vec<Record> {
    (0..50).map(record).collect()
}

#[test]
fn records_come_back_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let mut store = open(state.path());
    assert_eq!(store.load().unwrap(), []);
    store.commit(&[save(1), save(2), Change::Save(RecordKey::List, b"list".to_vec())]).unwrap();
    store.commit(&[Change::Save(key(1), vec![9]), Change::Forget(key(2)), Change::Forget(key(3))]).unwrap();
    let expected = vec![(key(1), vec![9]), (RecordKey::List, b"list".to_vec())];
    assert_eq!(store.load().unwrap(), expected);

    drop(store);
    let mut store = open(state.path());
    assert_eq!(store.load().unwrap(), expected);
    assert_eq!(store.set_aside(), None);
}

#[test]
fn a_file_and_memory_keep_the_same() {
    let state = tempfile::tempdir().unwrap();
    let (mut file, mut memory) = (open(state.path()), MemoryStore::default());
    let mut entropy = Entropy::from_number(1);
    for _ in 0..30 {
        let change = |number: u8| if entropy.below(3) == 0 { Change::Forget(key(number % 7)) } else { save(number % 7) };
        let changes: Vec<_> = (0..5).map(change).collect();
        file.commit(&changes).unwrap();
        memory.commit(&changes).unwrap();
        assert_eq!(file.load().unwrap(), memory.load().unwrap());
    }
}

#[test]
fn the_file_is_0600() {
    let state = tempfile::tempdir().unwrap();
    drop(open(state.path()));
    let mode = || fs::metadata(file(&state)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(file(&state), fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(state.path()));
    assert_eq!(mode(), 0o600);
}

#[test]
fn two_processes_cannot_use_one_store() {
    let state = tempfile::tempdir().unwrap();
    let _first = open(state.path());
    let error = FileStore::open(state.path(), NETWORK, 1000).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("another process"), "{error}");
}

/// Opens a store whose file holds `bytes`; gives what it has and whether something was set aside.
fn opened_with(bytes: &[u8]) -> (Vec<Record>, bool) {
    let state = tempfile::tempdir().unwrap();
    fs::write(file(&state), bytes).unwrap();
    let mut store = open(state.path());
    let records = store.load().unwrap();
    let Some(kept) = store.set_aside().cloned() else { return (records, false) };
    // redb may have written to it before it knew; it is kept, not used.
    assert!(kept.path.exists() && !kept.problem.is_empty());
    assert_eq!(records, [], "a new one begins empty");
    store.commit(&[save(1)]).unwrap();
    drop(store);
    assert_eq!(open(state.path()).load().unwrap(), [record(1)], "and works");
    (records, true)
}

#[test]
fn a_store_cut_anywhere_is_set_aside() {
    let bytes = written();
    let mut entropy = Entropy::from_number(2);
    let random = (0..20).map(|_| entropy.below(bytes.len() as u64) as usize);
    for length in [0, 1, 8, 9, 319, 320, 4095, 4096, 4097, bytes.len() - 4096, bytes.len() - 1].into_iter().chain(random) {
        assert!(opened_with(&bytes[..length]).1, "cut at {length} of {}", bytes.len());
    }
}

#[test]
fn a_flipped_bit_is_set_aside_or_touches_nothing() {
    /// Of the byte at 9: which of two commits holds. The other one is the commit before: whole, and one batch older.
    const SLOT: (usize, u32) = (9, 0);
    let bytes = written();
    let mut entropy = Entropy::from_number(3);
    let mut flips: Vec<(usize, u32)> = (0..30).map(|at| (at, entropy.below(8) as u32)).collect();
    flips.extend((0..50).map(|_| (entropy.below(320) as usize, entropy.below(8) as u32)));
    flips.extend((0..100).map(|_| (entropy.below(bytes.len() as u64) as usize, entropy.below(8) as u32)));
    let mut set_aside = 0;
    for (at, bit) in flips.into_iter().filter(|flip| *flip != SLOT) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        let (records, aside) = opened_with(&damaged);
        assert!(aside || records == all(), "bit {bit} of byte {at}: {} records", records.len());
        set_aside += u32::from(aside);
    }
    assert!(set_aside > 20, "{set_aside}");
}

#[test]
fn a_page_of_other_bytes_is_set_aside_or_touches_nothing() {
    const PAGE: usize = 4096;
    let bytes = written();
    let used = (1..bytes.len() / PAGE).filter(|page| bytes[page * PAGE..(page + 1) * PAGE].iter().any(|byte| *byte != 0));
    let mut set_aside = 0;
    for page in used {
        for (at, length, with) in [(0, 4, 0xff), (4, 12, 0), (8, 64, 0x80), (16, PAGE - 16, 0xff)] {
            let mut damaged = bytes.clone();
            damaged[page * PAGE + at..][..length].fill(with);
            let (records, aside) = opened_with(&damaged);
            assert!(aside || records == all(), "{length} bytes at {at} of page {page}: {} records", records.len());
            set_aside += u32::from(aside);
        }
    }
    assert!(set_aside > 20, "{set_aside}");
}

#[test]
fn bytes_that_are_no_store_are_set_aside() {
    let mut entropy = Entropy::from_number(4);
    let mut noise = vec![0; 100_000];
    noise.iter_mut().for_each(|byte| *byte = entropy.below(256) as u8);
    assert!(opened_with(&noise).1);
    assert!(opened_with(b"a text").1);
    assert!(opened_with(&[written(), vec![0; 100]].concat()).1, "something was added");
    let mut later = written();
    later[64] = 4;
    assert!(opened_with(&later).1, "a later format");
    let mut earlier = written();
    (earlier[64], earlier[192]) = (2, 2);
    assert!(opened_with(&earlier).1, "an earlier format");
}

#[test]
fn what_is_set_aside_is_named_and_never_overwritten() {
    let state = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for content in ["one", "two", "three"] {
        fs::write(file(&state), content).unwrap();
        let store = open(state.path());
        let kept = store.set_aside().unwrap();
        names.push(kept.path.file_name().unwrap().to_str().unwrap().to_owned());
        assert_eq!(fs::read_to_string(&kept.path).unwrap(), content);
    }
    assert_eq!(names, ["store.redb.damaged-1000", "store.redb.damaged-1000-1", "store.redb.damaged-1000-2"]);
}

#[test]
fn a_store_of_another_network_is_set_aside_whole() {
    let state = tempfile::tempdir().unwrap();
    open(state.path()).commit(&[save(1)]).unwrap();
    let mut other = FileStore::open(state.path(), NetworkId([8; 32]), 2000).unwrap();
    assert_eq!(other.load().unwrap(), []);
    let kept = other.set_aside().unwrap().clone();
    assert_eq!(kept.path, state.path().join("store.redb.other-network-2000"));
    drop(other);
    fs::rename(kept.path, file(&state)).unwrap();
    assert_eq!(open(state.path()).load().unwrap(), [record(1)], "put back, it is as it was");
}

#[test]
fn a_crash_while_the_store_is_made_leaves_none() {
    let state = tempfile::tempdir().unwrap();
    fs::write(state.path().join("store.redb.new"), "half").unwrap();
    let store = open(state.path());
    assert_eq!(store.set_aside(), None);
    drop(store);
    assert!(!state.path().join("store.redb.new").exists());
}

#[test]
fn a_directory_in_its_place_is_refused() {
    let state = tempfile::tempdir().unwrap();
    fs::create_dir(file(&state)).unwrap();
    let error = FileStore::open(state.path(), NETWORK, 1000).unwrap_err().to_string();
    assert!(error.contains("store.redb: the store cannot be opened: ") && error.contains("directory"), "{error}");
}

#[test]
fn a_file_without_permission_is_refused() {
    let state = tempfile::tempdir().unwrap();
    open(state.path()).commit(&[save(1)]).unwrap();
    fs::set_permissions(file(&state), fs::Permissions::from_mode(0o400)).unwrap();
    match FileStore::open(state.path(), NETWORK, 1000) {
        // Root may open any file.
        Ok(mut store) => assert_eq!(store.load().unwrap(), [record(1)]),
        Err(error) => assert!(error.to_string().contains("ermission denied"), "{error}"),
    }
    let error = FileStore::open(&state.path().join("missing"), NETWORK, 1000).unwrap_err().to_string();
    assert!(error.contains("the store cannot be made: No such file"), "{error}");
}

#[test]
fn a_store_that_is_mostly_free_is_compacted_at_start() {
    let state = tempfile::tempdir().unwrap();
    let mut store = open(state.path());
    let number = |number: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        RecordKey::Bottle(NodeId(id))
    };
    let many: Vec<_> = (0..4000).map(|at| Change::Save(number(at), vec![1; 3000])).collect();
    store.commit(&many).unwrap();
    let none: Vec<_> = (0..3990).map(|at| Change::Forget(number(at))).collect();
    store.commit(&none).unwrap();
    // Not closed in order, so that nothing is trimmed.
    let bytes = fs::read(file(&state)).unwrap();
    drop(store);
    fs::write(file(&state), &bytes).unwrap();
    assert!(bytes.len() > 12_000_000, "{}", bytes.len());

    assert_eq!(open(state.path()).load().unwrap().len(), 10);
    assert!(fs::metadata(file(&state)).unwrap().len() < 2_000_000, "{}", fs::metadata(file(&state)).unwrap().len());
}

// ---- The writer ----

const QUICK: Pauses = Pauses { gather: Duration::ZERO, retry: Duration::from_millis(5) };

/// A disk: what it holds, what it was given, and whether it takes anything.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    store: MemoryStore,
    batches: Vec<Vec<Change>>,
    full: bool,
    tries: usize,
}

impl Disk {
    fn set_full(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }

    fn tries(&self) -> usize {
        self.0.lock().unwrap().tries
    }

    fn records(&self) -> BTreeMap<RecordKey, Vec<u8>> {
        self.0.lock().unwrap().store.load().unwrap().into_iter().collect()
    }

    fn writer(&self) -> StoreWriter {
        let held: Vec<_> = self.records().into_keys().collect();
        StoreWriter::start(Box::new(self.clone()), held, QUICK).unwrap()
    }
}

impl Store for Disk {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        self.0.lock().unwrap().store.load()
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut inner = self.0.lock().unwrap();
        inner.tries += 1;
        if inner.full {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(StoreError::Io { path: "store".into(), action: "be written", source });
        }
        inner.batches.push(changes.to_vec());
        inner.store.commit(changes)
    }
}

fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !look() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_writer_writes_all_at_its_end() {
    let disk = Disk::default();
    let pauses = Pauses { gather: Duration::from_secs(60), retry: Duration::from_secs(60) };
    let writer = StoreWriter::start(Box::new(disk.clone()), [], pauses).unwrap();
    for number in 0..100 {
        writer.save(key(number), vec![number]);
    }
    let report = writer.close();
    assert_eq!((report.records, report.waiting, report.problem), (100, 0, None));
    assert_eq!(disk.records().len(), 100);
}

#[test]
fn changes_of_one_key_are_written_once_a_batch_and_the_last_counts() {
    let disk = Disk::default();
    disk.set_full(true);
    let writer = disk.writer();
    for number in 0..=250 {
        writer.save(RecordKey::List, vec![number]);
    }
    eventually("a try", || disk.tries() > 1);
    disk.set_full(false);
    eventually("written", || writer.report().waiting == 0);
    assert_eq!(disk.records()[&RecordKey::List], [250]);
    let batches = &disk.0.lock().unwrap().batches;
    assert!(batches.iter().all(|batch| batch.len() == 1));
}

#[test]
fn a_full_disk_is_reported_and_its_changes_are_written_later() {
    let disk = Disk::default();
    let writer = disk.writer();
    writer.save(key(1), vec![1]);
    eventually("written", || writer.report().waiting == 0);

    disk.set_full(true);
    writer.save(key(2), vec![2]);
    writer.forget(key(1));
    eventually("the problem", || writer.report().problem.is_some());
    let problem = writer.report().problem.unwrap();
    assert!(problem.contains("the store cannot be written: "), "{problem}");
    writer.save(key(3), vec![3]);
    eventually("tried again", || disk.tries() > 4);
    assert_eq!(disk.records(), BTreeMap::from([(key(1), vec![1])]));

    disk.set_full(false);
    eventually("written", || writer.report().waiting == 0);
    assert_eq!(writer.report().problem, None);
    assert_eq!(disk.records(), BTreeMap::from([(key(2), vec![2]), (key(3), vec![3])]));
}

#[test]
fn what_waits_for_a_full_disk_is_bounded() {
    let disk = Disk::default();
    let writer = disk.writer();
    writer.save(key(0), vec![0]);
    eventually("written", || writer.report().waiting == 0);
    disk.set_full(true);
    for round in 0..1000_u32 {
        let mut id = [1; 32];
        id[..4].copy_from_slice(&round.to_be_bytes());
        let key = RecordKey::Bottle(NodeId(id));
        writer.save(key, vec![1]);
        if round % 100 == 0 {
            let tries = disk.tries();
            eventually("a try with it", || disk.tries() > tries + 1);
        }
        writer.forget(key);
    }
    writer.forget(key(0));
    eventually("only what is stored and no longer wanted waits", || writer.report().waiting == 1);
}

#[test]
fn a_disk_that_stays_full_does_not_hold_up_the_end() {
    let disk = Disk::default();
    disk.set_full(true);
    let pauses = Pauses { gather: Duration::ZERO, retry: Duration::from_secs(3600) };
    let writer = StoreWriter::start(Box::new(disk.clone()), [], pauses).unwrap();
    writer.save(key(1), vec![1]);
    eventually("the problem", || writer.report().problem.is_some());
    let report = writer.close();
    assert_eq!(report.waiting, 1);
    assert!(report.problem.unwrap().contains("cannot be written"));
    assert_eq!(disk.tries(), 2, "one last try");
}
