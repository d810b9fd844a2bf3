//! How many Bottles one core verifies in a second: `cargo bench -p port17-proto --bench bottles`.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark has a clock, and may end at any fault"
)]

#[path = "../tests/sample_bottle/mod.rs"]
mod sample_bottle;

use std::time::{Duration, Instant};

use port17_proto::bottle::{BottleRules, LinkClaim, NodePrefix, UnverifiedBottle};

use sample_bottle::{NOW_MS, full, key, minimal};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);

fn main() {
    let small = minimal(1).sign(&key(1)).unwrap();
    let mut large = full();
    large.links = (0..64).map(|peer| LinkClaim { peer: NodePrefix([peer; 8]), rtt: peer, capacity: 10 }).collect();
    let large = large.sign(&key(1)).unwrap();
    for (name, bytes) in [("no links", small), ("64 links", large)] {
        let mut rates: Vec<f64> = (0..ROUNDS).map(|_| rate(&bytes)).collect();
        rates.sort_by(f64::total_cmp);
        let [least, median, most] = [rates[0], rates[ROUNDS / 2], rates[ROUNDS - 1]];
        println!("Bottles of {} bytes, {name}: {median:.0} verified a second on one core ({least:.0}..{most:.0})", bytes.len());
    }
}

fn rate(bytes: &[u8]) -> f64 {
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < ROUND {
        for _ in 0..100 {
            let bottle = UnverifiedBottle::parse(bytes).unwrap().verify(NOW_MS, &BottleRules::DEFAULT).unwrap();
            std::hint::black_box(bottle);
        }
        count += 100;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}
