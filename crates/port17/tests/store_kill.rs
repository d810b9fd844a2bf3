//! The store under kill -9: a child writes numbered batches and says each that is acknowledged; it is killed at a random moment, and
//! what it left must hold all that it said. `PORT17_KILLS=1000` makes it a thousand rounds; by default it is sixty, or as
//! many as seven seconds allow.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use port17::store::{Change, FileStore, Store};
use port17_proto::crypto::Entropy;
use port17_proto::ids::{NetworkId, NodeId};
use port17_proto::node::record::RecordKey;

const CHILD: &str = "PORT17_STORE_CHILD";
const NETWORK: NetworkId = NetworkId([1; 32]);
/// Records of one batch.
const BATCH: u64 = 7;
/// Batches that are kept; those before are forgotten in the same transaction that adds one.
const KEPT: u64 = 20;

fn key(number: u64) -> RecordKey {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    RecordKey::Bottle(NodeId(id))
}

/// Every record can be told from every other, and from its half.
fn content(number: u64) -> Vec<u8> {
    let length = usize::try_from(200 + number * 977 % 3800).unwrap();
    number.to_be_bytes().into_iter().cycle().take(length).collect()
}

/// The batch of this number: its records, the number under a key of its own, and the end of an old batch.
fn batch(number: u64) -> Vec<Change> {
    let records = |batch: u64| batch * BATCH..(batch + 1) * BATCH;
    let saved = records(number).map(|record| Change::Save(key(record), content(record)));
    let forgotten = number.checked_sub(KEPT).into_iter().flat_map(records).map(|record| Change::Forget(key(record)));
    saved.chain(forgotten).chain([Change::Save(RecordKey::List, number.to_be_bytes().to_vec())]).collect()
}

/// Opens the store and checks that it is exactly the state after some batch; gives that batch's number.
fn last_batch(state: &Path) -> (FileStore, Option<u64>) {
    let mut store = FileStore::open(state, NETWORK, 1).unwrap();
    assert_eq!(store.set_aside(), None, "a kill damages nothing");
    let mut records = store.load().unwrap();
    let Some((RecordKey::List, number)) = records.pop() else {
        assert!(records.is_empty());
        return (store, None);
    };
    let last = u64::from_be_bytes(number.try_into().unwrap());
    let kept = (last + 1).saturating_sub(KEPT) * BATCH..(last + 1) * BATCH;
    assert_eq!(records.len() as u64, kept.end - kept.start, "batch {last} is there as a whole");
    for (number, (found, bytes)) in kept.zip(records) {
        assert!(found == key(number) && bytes == content(number), "record {number} is intact");
    }
    (store, Some(last))
}

/// Runs in the child alone: writes until it is killed.
#[test]
fn child() {
    let Some(state) = std::env::var_os(CHILD) else { return };
    let (mut store, last) = last_batch(Path::new(&state));
    let mut out = std::io::stdout();
    for number in last.map_or(0, |last| last + 1).. {
        store.commit(&batch(number)).unwrap();
        out.write_all(format!("\nacknowledged {number}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

/// Starts a child on `state`, waits for so many acknowledgements, and kills it `patience` later; gives the last batch that it said.
fn killed(state: &Path, batches: usize, patience: Duration) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, state)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = |line: &String| line.strip_prefix("acknowledged ")?.parse().ok();
    // The last line may be cut: only whole ones count.
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut next = move || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        line.ends_with('\n').then(|| line.trim_end().to_owned())
    };
    let mut last: Option<u64> = None;
    let mut left = batches;
    while left > 0 {
        let Some(line) = next() else { break };
        if let Some(number) = said(&line) {
            (last, left) = (Some(number), left - 1);
        }
    }
    std::thread::sleep(patience);
    child.kill().unwrap();
    last = std::iter::from_fn(next).filter_map(|line| said(&line)).last().or(last);
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(!errors.contains("panicked"), "{errors}");
    assert!(!child.wait().unwrap().success());
    last
}

#[test]
fn kill_9_at_any_moment_loses_nothing_acknowledged() {
    let asked: Option<u32> = std::env::var("PORT17_KILLS").ok().map(|rounds| rounds.parse().unwrap());
    // Without a number, a slow disk gets fewer rounds.
    let patience = if asked.is_some() { Duration::MAX } else { Duration::from_secs(7) };
    let state = tempfile::tempdir().unwrap();
    let mut entropy = Entropy::from_number(17);
    let began = Instant::now();
    let (mut last, mut acknowledged, mut silent) = (None, 0, 0);
    let mut rounds = 0;
    while rounds < asked.unwrap_or(60) && began.elapsed() < patience {
        rounds += 1;
        let round = rounds;
        // One in four is killed while it starts, opens the file or writes for the first time.
        let batches = entropy.below(4) as usize;
        let patience = Duration::from_micros(entropy.below(if batches == 0 { 40_000 } else { 15_000 }));
        let said = killed(state.path(), batches, patience);
        let (store, found) = last_batch(state.path());
        drop(store);
        assert!(found >= said.max(last), "round {round}: {found:?} is left, {said:?} was acknowledged, {last:?} before");
        // At most the batch under way is more than was said.
        let most = said.or(last).map_or(0, |said| said + 1);
        assert!(found.unwrap_or(0) <= most, "round {round}: {found:?} is left, only {said:?} was acknowledged");
        silent += u32::from(said.is_none());
        acknowledged += said.map_or(0, |said| said - last.map_or(0, |last| last.min(said)));
        last = found;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{rounds} kills in {seconds:.1} s, {silent} before the first batch: {acknowledged} batches acknowledged, none lost");
    assert!(last.is_some() && silent < rounds, "batches were written");
}
