//! The store's file, after a disk or somebody has changed it: it is used as it was written, or set aside (spec 11, 5).
//!
//! The input says what is changed: bytes at places, and where the file is cut. Those changes that the sums inside do not cover are
//! found by chance alone, so the first kilobyte is chosen more often.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use port17::store::{Change, FileStore, Store};
use port17_proto::ids::{NetworkId, NodeId};
use port17_proto::node::record::{Record, RecordKey};

use crate::choices::Choices;

const FILE: &str = "store.redb";
const NETWORK: NetworkId = NetworkId([7; 32]);
const NOW_S: u64 = 1_800_000_000;

/// Opens a store that was changed.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut file = written().to_vec();
    for _ in 0..8 {
        if choices.is_empty() || file.is_empty() {
            break;
        }
        change(&mut file, &mut choices);
    }
    let state = directory();
    fs::write(state.path().join(FILE), &file).expect("the directory takes a file");
    let (records, aside) = opened(state.path());
    if aside.is_none() && file == written() {
        assert_eq!(records, all(), "what was written is there");
    }
    if let Some(kept) = aside {
        assert!(records.is_empty(), "a new store begins empty");
        assert_eq!(fs::read(kept).expect("it is kept").len(), file.len());
    }
    let (again, aside) = opened(state.path());
    assert!(aside.is_none() && again == records, "what was opened once is opened again");
}

fn change(file: &mut Vec<u8>, choices: &mut Choices<'_>) {
    let kind = choices.byte() % 8;
    let near = usize::from(choices.short());
    let at = match kind & 3 {
        0 => near % 320,
        1 => (near >> 4) * 4096 + (near & 15) * 8,
        2 => near * 23,
        _ => near,
    } % file.len();
    match kind >> 2 {
        0 => file[at] ^= choices.byte(),
        _ => {
            let patch = choices.bytes();
            let end = (at + patch.len()).min(file.len());
            file[at..end].copy_from_slice(&patch[..end - at]);
            if patch.is_empty() {
                file.truncate(at);
            }
        }
    }
}

/// In memory where there is such a place: a disk would be waited for.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory can be made")
}

fn opened(state: &Path) -> (Vec<Record>, Option<PathBuf>) {
    let mut store = FileStore::open(state, NETWORK, NOW_S).expect("whatever the file is, the daemon starts");
    let aside = store.set_aside().map(|aside| aside.path.clone());
    let records = store.load();
    // Damage that shows only now: the next start sets it aside.
    (records.unwrap_or_default(), aside)
}

fn all() -> Vec<Record> {
    let bottle = |number: u8| (RecordKey::Bottle(NodeId([number; 32])), vec![number; 300]);
    (1..40).map(bottle).chain([(RecordKey::List, vec![9; 9000]), (RecordKey::Guards, vec![1; 60])]).collect()
}

/// The file of a store that holds some records.
fn written() -> &'static [u8] {
    static WRITTEN: OnceLock<Vec<u8>> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let state = directory();
        let mut store = FileStore::open(state.path(), NETWORK, NOW_S).expect("a new store can be made");
        for part in all().chunks(10) {
            let changes: Vec<Change> = part.iter().map(|(key, bytes)| Change::Save(*key, bytes.clone())).collect();
            store.commit(&changes).expect("a store takes records");
        }
        drop(store);
        fs::read(state.path().join(FILE)).expect("the file is there")
    })
}

/// Nothing changed, places in the header, in pages, and cuts.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![]];
    for at in [0u16, 9, 12, 24, 28, 64, 65, 72, 80, 96, 192, 193, 200, 300] {
        seeds.push([&[0][..], &at.to_be_bytes(), &[1]].concat());
    }
    for page in [0u16, 1, 2, 3, 5, 8] {
        seeds.push([&[1][..], &(page << 4).to_be_bytes(), &[0xff]].concat());
        seeds.push([&[5][..], &(page << 4).to_be_bytes(), &[8, 1, 0, 0xff, 0xff, 0, 0, 1, 1]].concat());
        seeds.push([&[5][..], &(page << 4).to_be_bytes(), &[0]].concat());
    }
    seeds
}
