//! What a run measured.

use serde::Serialize;

use crate::host::Kind;
use crate::world::World;

/// Figures of one run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// Nodes that run at the end.
    pub nodes: usize,
    /// Streams that ended with all their bytes.
    pub streams_done: u64,
    /// Streams that did not.
    pub streams_failed: u64,
    /// Circuits begun.
    pub circuits: u64,
    /// Circuits that did not open.
    pub circuits_failed: u64,
    /// Circuits that nobody answered in time.
    pub circuits_late: u64,
    /// Bytes that streams carried.
    pub delivered_bytes: u64,
}

/// Measures a world.
pub fn figures(world: &mut World) -> Figures {
    let mut figures = Figures { delivered_bytes: world.delivered, ..Figures::default() };
    for host in &world.hosts {
        figures.nodes += usize::from(host.kind == Kind::Node && host.node.is_some());
        let results = &host.client.results;
        figures.streams_done += results.done;
        figures.streams_failed += results.failed;
        figures.circuits += results.circuits;
        figures.circuits_failed += results.circuits_failed;
        figures.circuits_late += results.circuits_late;
    }
    figures
}
