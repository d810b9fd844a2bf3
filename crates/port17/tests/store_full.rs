//! The store on a disk that is really full: a tmpfs of one MiB in a mount namespace of its own. Where the system allows no such
//! namespace, the test says so and passes.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use port17::store::{Change, FileStore, Store, StoreError};
use port17_proto::ids::{NetworkId, NodeId};
use port17_proto::node::record::RecordKey;

const CHILD: &str = "PORT17_FULL_DISK";
const NETWORK: NetworkId = NetworkId([1; 32]);

fn key(number: usize) -> RecordKey {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    RecordKey::Bottle(NodeId(id))
}

fn save(number: usize) -> Change {
    Change::Save(key(number), vec![1; 3000])
}

fn is_full(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { .. }) && error.to_string().contains("No space left")
}

/// Runs in the child alone.
#[test]
fn child() {
    let Some(disk) = std::env::var_os(CHILD) else { return };
    let state = Path::new(&disk);
    let mut store = FileStore::open(state, NETWORK, 1).unwrap();
    // Something else fills the disk, and leaves a little.
    let filler = state.join("filler");
    let free = || {
        let mut bytes = 2 << 20;
        while fs::write(&filler, vec![1; bytes]).is_err() {
            bytes -= 16 * 1024;
        }
        fs::write(&filler, vec![1; bytes - 64 * 1024]).unwrap();
    };
    free();
    let mut written = 0;
    let error = loop {
        match store.commit(&[save(written)]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "the disk is never full");
    };
    assert!(is_full(&error), "{error}");
    let again = store.commit(&[save(written)]).unwrap_err();
    assert!(!matches!(again, StoreError::Damaged { .. }), "{again}");

    // A start on a full disk refuses or works; it takes nothing for damaged.
    drop(store);
    match FileStore::open(state, NETWORK, 2) {
        Ok(mut store) => assert_eq!((store.load().unwrap().len(), store.set_aside()), (written, None)),
        Err(error) => assert!(is_full(&error), "{error}"),
    }
    let mut store = None;
    fs::remove_file(&filler).unwrap();
    let store = store.get_or_insert_with(|| FileStore::open(state, NETWORK, 3).unwrap());
    assert_eq!(store.set_aside(), None);
    assert_eq!(store.load().unwrap().len(), written, "all that was acknowledged is there");

    // The same object goes on once there is room.
    free();
    while store.commit(&[save(written)]).is_ok() {
        written += 1;
    }
    fs::remove_file(&filler).unwrap();
    store.commit(&[save(written)]).unwrap();
    assert_eq!(store.load().unwrap().len(), written + 1);
    println!("\nthe child is done");
}

#[test]
fn a_full_disk_is_an_error_and_no_damage() {
    let disk = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=2m none "$PORT17_FULL_DISK" || exit 99; exec "$0" child --exact --nocapture"#;
    let child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, disk.path())
        .output();
    let Ok(output) = child else { return println!("skipped: no `unshare`") };
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(99) || errors.contains("unshare") {
        return println!("skipped: {errors}");
    }
    assert!(output.status.success() && out.contains("the child is done"), "{out}{errors}");
}
