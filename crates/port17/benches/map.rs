//! How long the map of 1,000 nodes takes over one link: `cargo bench -p port17 --bench map`.
//!
//! Two nodes on loopback, in processes' usual ways: one holds 1,000 made-up Bottles, the other only the first one's. Counted from the start
//! of the other, its keys, dial and handshake included, until it holds all.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may end at any fault")]

#[path = "../../port17-proto/tests/sample_bottle/mod.rs"]
mod sample_bottle;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use port17::config::{Config, Places};
use port17::control;
use port17::daemon::run_node_under;
use port17::keystore::{Keystore, system_entropy};
use port17_proto::bottle::Seq;
use port17_proto::crypto::{Secret, SigningKey};
use port17_proto::ids::NodeId;
use port17_proto::params::Params;
use tempfile::TempDir;

const NODES: u32 = 1000;
const ROUNDS: usize = 5;

fn main() {
    let mut times: Vec<f64> = (0..ROUNDS).map(|_| round().as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    println!("a map of {NODES} nodes over one link: {:.2} s ({:.2}..{:.2})", times[ROUNDS / 2], times[0], times[ROUNDS - 1]);
}

fn round() -> Duration {
    let root = TempDir::new().unwrap();
    let (first, other) = (identity(root.path(), "first"), identity(root.path(), "other"));
    fs::create_dir_all(root.path().join("full")).unwrap();
    for number in 0..NODES {
        fs::write(root.path().join(format!("full/{number}.bottle")), bottle(number)).unwrap();
    }
    let holder = config(root.path(), "first", "full", "127.19.0.1:21719", &format!("neighbours = [\"{other}\"]"));
    // Without neighbours it chooses, and dials the only one that it knows.
    let asker = config(root.path(), "other", "empty", "127.19.0.2:21719", "");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let holding = tokio::spawn(run_node_under(Params::demo(), holder.clone(), std::future::pending()));
        wait(&holder, u64::from(NODES)).await;
        // All that the other knows at first: whom to dial.
        let own = format!("{first}.bottle");
        fs::create_dir_all(root.path().join("empty")).unwrap();
        while fs::copy(root.path().join("full").join(&own), root.path().join("empty").join(&own)).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let began = Instant::now();
        let asking = tokio::spawn(run_node_under(Params::demo(), asker.clone(), std::future::pending()));
        wait(&asker, u64::from(NODES) + 1).await;
        let took = began.elapsed();
        holding.abort();
        asking.abort();
        took
    })
}

/// Until a daemon knows so many others.
async fn wait(config: &Config, known: u64) {
    while control::status(&config.control).await.map_or(0, |status| status.known) < known {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn identity(root: &Path, name: &str) -> NodeId {
    let keys = Keystore::create(&root.join(name).join("keys")).unwrap();
    keys.identity_or_new(&mut system_entropy().unwrap()).unwrap().node_id()
}

fn config(root: &Path, name: &str, bottles: &str, address: &str, neighbours: &str) -> Config {
    let text = format!(
        "state = \"{name}\"\nbottles = \"{bottles}\"\n{neighbours}\n[node]\nlisten = [\"{address}\"]\naddresses = [\"{address}\"]\n"
    );
    Config::parse(&text, &root.join("port17.toml"), &Places::of_the_system()).unwrap()
}

/// A Bottle of a node that nobody runs, with 40 links.
fn bottle(number: u32) -> Vec<u8> {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let key = SigningKey::from_seed(Secret::new(seed));
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut content = sample_bottle::minimal(1);
    content.identity = key.public();
    content.seq = Seq(now_s * 1000);
    (content.link_key_expiry_s, content.circuit_key.not_after_s) = (now_s + 3600, now_s + 3600);
    content.links = (0..40)
        .map(|peer| port17_proto::bottle::LinkClaim { peer: port17_proto::bottle::NodePrefix([peer; 8]), rtt: 9, capacity: 9 })
        .collect();
    content.sign(&key).unwrap()
}
