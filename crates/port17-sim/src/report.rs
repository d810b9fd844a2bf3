//! What a run measured.
//!
//! - `record.rs`: what is noted while it goes on.
//! - `sketch.rs`: the map at its end: where nodes stand, who is linked, how far it is.
//! - `entropy.rs`: what somebody can know of a client's exit and guard.
//! - `interval.rs`: figures of many runs.
//! - `svg.rs`, `map_plot.rs`, `interval_plot.rs`: pictures.

mod entropy;
mod interval;
mod interval_plot;
mod map_plot;
mod record;
mod sketch;
mod svg;

use serde::Serialize;

pub use self::interval::{Interval, intervals};
pub use self::interval_plot::{number, plot_intervals};
pub use self::map_plot::plot_map;
pub(crate) use self::record::{ControlCounts, Formed, Record};
pub use self::sketch::{ClientSpot, Sketch, Spot};
use crate::host::Kind;
use crate::world::World;

/// Figures of one run. What the name says is the unit; where there is nothing to measure a figure is none.
///
/// Honest hosts are measured, liars are not.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Nodes whose processes run at the end.
    pub nodes_running: usize,
    /// Clients whose processes run at the end.
    pub clients_running: usize,

    /// Bytes of streams that ended with all their bytes, both ways.
    pub delivered_bytes: u64,
    /// Streams that ended with all their bytes.
    pub streams_done: u64,
    /// Streams that did not.
    pub streams_failed: u64,
    /// From asking for a stream to the exit's answer, a new circuit included where one was needed: the median.
    pub stream_open_p50_ms: Option<f64>,
    /// Of a hundred the slowest.
    pub stream_open_p99_ms: Option<f64>,
    /// Circuits begun.
    pub circuits: u64,
    /// Circuits that did not open.
    pub circuits_failed: u64,
    /// Of these, circuits that nobody answered in time.
    pub circuits_late: u64,

    /// Bottles that have come to everybody.
    pub bottles: usize,
    /// Bottles that were still on their way at the end.
    pub bottles_spreading: usize,
    /// From a Bottle's publication until every host holds it, or a newer one, that ran from then on: the median. No time counts from
    /// before the first signed list; hosts that end meanwhile are not waited for, those that are cut off or stopped are.
    pub convergence_p50_s: Option<f64>,
    /// Of a hundred the slowest.
    pub convergence_p99_s: Option<f64>,
    /// The slowest.
    pub convergence_max_s: Option<f64>,
    /// From the start of a node's process until its first Bottle is with all of them, in the same way: the median.
    pub start_convergence_p50_s: Option<f64>,
    /// Of a hundred the slowest.
    pub start_convergence_p99_s: Option<f64>,
    /// The slowest.
    pub start_convergence_max_s: Option<f64>,

    /// Control that a node sent until the mesh had formed: frames of 2048 bytes.
    pub forming_wire_bytes_per_node: Option<f64>,
    /// From then on, control that a node sends a day, to nodes and clients: frames of 2048 bytes, without TLS and TCP.
    pub sent_wire_bytes_per_node_day: Option<f64>,
    /// The messages in those frames.
    pub sent_message_bytes_per_node_day: Option<f64>,
    /// What a client sends.
    pub sent_wire_bytes_per_client_day: Option<f64>,
    /// The messages in those frames.
    pub sent_message_bytes_per_client_day: Option<f64>,
    /// What nodes send to a client.
    pub received_wire_bytes_per_client_day: Option<f64>,
    /// The messages in those frames.
    pub received_message_bytes_per_client_day: Option<f64>,

    /// Links to other nodes that came up or went down at a node a day, as its engine says it, once the mesh had formed.
    pub link_changes_per_node_day: Option<f64>,
    /// Links in the map: both ends' newest Bottles list them, and both run.
    pub links: usize,
    /// Of a node, the median.
    pub degree_p50: Option<f64>,
    /// The longest of all shortest ways over links.
    pub diameter: usize,
    /// The mean of all shortest ways, in links.
    pub mean_distance: Option<f64>,
    /// Pairs of nodes with no way between them.
    pub pairs_apart: usize,

    /// Clients for whom the following were counted, each by its own map; they are means over them.
    pub clients_asked: usize,
    /// Exits that may serve the target: trusted, with an address and a policy that allows it.
    pub exits_eligible: Option<f64>,
    /// Those at which a route of the network's length can end, from the client's guard and the hop pinned behind it.
    pub exits_reachable: Option<f64>,
    /// The exit of a client's next circuit, for who knows the map, guard, pinned hop and length: Shannon.
    pub exit_entropy_bits: Option<f64>,
    /// The same as min-entropy: by the likeliest exit.
    pub exit_min_entropy_bits: Option<f64>,
    /// What it could be at most: log2 of the eligible exits.
    pub exit_most_bits: Option<f64>,
    /// A client's guard, for who knows the map and, by many linked circuits, the pinned hop: Shannon.
    pub guard_entropy_bits: Option<f64>,
    /// The same as min-entropy.
    pub guard_min_entropy_bits: Option<f64>,
    /// What it could be at most: log2 of the nodes that may be guards.
    pub guard_most_bits: Option<f64>,
}

const DAY_US: f64 = 86_400e6;

/// Measures a world.
pub fn figures(world: &mut World) -> Figures {
    let mut figures = Figures { delivered_bytes: world.delivered, ..Figures::default() };
    streams(world, &mut figures);
    convergence(&world.record, &mut figures);
    costs(world, &mut figures);
    Sketch::of(world).measure(&mut figures);
    entropy::measure(world, &mut figures);
    figures
}

fn streams(world: &World, figures: &mut Figures) {
    let mut opened_us = Vec::new();
    for host in &world.hosts {
        figures.nodes_running += usize::from(host.kind == Kind::Node && host.node.is_some());
        figures.clients_running += usize::from(host.kind == Kind::Client && host.node.is_some());
        let results = &host.client.results;
        figures.streams_done += results.done;
        figures.streams_failed += results.failed;
        figures.circuits += results.circuits;
        figures.circuits_failed += results.circuits_failed;
        figures.circuits_late += results.circuits_late;
        opened_us.extend(&results.opened_us);
    }
    let opened = Sorted::new(opened_us, 1e3);
    (figures.stream_open_p50_ms, figures.stream_open_p99_ms) = (opened.quantile(50), opened.quantile(99));
}

fn convergence(record: &Record, figures: &mut Figures) {
    let (bottles, starts) = (Sorted::new(record.bottles_us.clone(), 1e6), Sorted::new(record.starts_us.clone(), 1e6));
    (figures.bottles, figures.bottles_spreading) = (record.bottles_us.len(), record.still_spreading());
    figures.convergence_p50_s = bottles.quantile(50);
    figures.convergence_p99_s = bottles.quantile(99);
    figures.convergence_max_s = bottles.quantile(100);
    figures.start_convergence_p50_s = starts.quantile(50);
    figures.start_convergence_p99_s = starts.quantile(99);
    figures.start_convergence_max_s = starts.quantile(100);
}

fn costs(world: &World, figures: &mut Figures) {
    let (formed, end) = (world.record.formed, world.counted_so_far());
    let wire = |frames: u64| (frames * port17_proto::wire::registry::FRAME_BYTES as u64) as f64;
    let days = |us: u64| Some(us as f64 / DAY_US).filter(|days| *days > 0.0);
    let (node_days, client_days) = (days(end.node_us - formed.node_us), days(end.client_us - formed.client_us));
    let a_node = |bytes: f64| node_days.map(|days| bytes / days);
    let a_client = |bytes: f64| client_days.map(|days| bytes / days);
    let (before, after) = (&formed.control, &end.control);
    let nodes = world.honest(Kind::Node).count();
    figures.forming_wire_bytes_per_node = (nodes > 0).then(|| wire(before.node_frames) / nodes as f64);
    figures.sent_wire_bytes_per_node_day = a_node(wire(after.node_frames - before.node_frames));
    figures.sent_message_bytes_per_node_day = a_node((after.node_message_bytes - before.node_message_bytes) as f64);
    figures.sent_wire_bytes_per_client_day = a_client(wire(after.client_frames - before.client_frames));
    figures.sent_message_bytes_per_client_day = a_client((after.client_message_bytes - before.client_message_bytes) as f64);
    figures.received_wire_bytes_per_client_day = a_client(wire(after.to_client_frames - before.to_client_frames));
    figures.received_message_bytes_per_client_day =
        a_client((after.to_client_message_bytes - before.to_client_message_bytes) as f64);
    figures.link_changes_per_node_day = a_node((end.link_changes - formed.link_changes) as f64);
}

/// Measured values in order, in the unit that is shown.
struct Sorted(Vec<f64>);

impl Sorted {
    fn new(mut values: Vec<u64>, unit: f64) -> Self {
        values.sort_unstable();
        Self(values.into_iter().map(|value| value as f64 / unit).collect())
    }

    /// The smallest value that so many percent do not exceed.
    fn quantile(&self, percent: usize) -> Option<f64> {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let sorted = Sorted::new((1..=200).rev().collect(), 2.0);
        assert_eq!([50, 99, 100].map(|percent| sorted.quantile(percent)), [Some(50.0), Some(99.0), Some(100.0)]);
        assert_eq!(Sorted::new(vec![7], 1.0).quantile(50), Some(7.0));
        assert_eq!(Sorted::new(Vec::new(), 1.0).quantile(50), None);
    }
}
