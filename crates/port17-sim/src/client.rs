//! What a client does with its tunnel: streams over circuits, as an application would, and what became of them.

use std::collections::BTreeSet;

use port17_proto::ids::{NodeId, StreamId};

use crate::edge::{EdgeRef, StreamPlan};

/// A stream that an application wants.
pub struct Job {
    /// What it is about.
    pub plan: StreamPlan,
    /// When it was asked for.
    pub asked_us: u64,
    /// Circuits that were tried for it.
    pub tries: u32,
    /// It is not put anywhere before this time.
    pub waits_us: u64,
    /// Where it is.
    pub on: Option<(EdgeRef, StreamId)>,
    /// It must succeed: nothing is wrong any more when it is asked for.
    pub must: bool,
    /// The application leaves in the middle.
    pub aborts: bool,
    /// Its bytes did not move since.
    pub moved_us: u64,
    /// Bytes that it had then.
    pub moved: u64,
    /// The exit has answered.
    pub is_opened: bool,
}

/// A circuit of a client.
pub struct Standing {
    /// Its edge.
    pub edge: EdgeRef,
    /// When it was begun.
    pub begun_us: u64,
}

/// The client part of a host.
#[derive(Default)]
pub struct Client {
    /// Streams that are not over.
    pub jobs: Vec<Job>,
    /// Circuits that are not over.
    pub circuits: Vec<Standing>,
    /// Nodes that failed lately, and until when they are left out.
    pub skipped: Vec<(NodeId, u64)>,
    /// When it looks again.
    pub(crate) look_us: Option<u64>,
    /// What became of its streams.
    pub results: Results,
}

/// What became of streams.
#[derive(Debug, Clone, Default)]
pub struct Results {
    /// Ended with all their bytes.
    pub done: u64,
    /// Broken on the way, or never opened.
    pub failed: u64,
    /// From asking to the exit's answer, in microseconds.
    pub opened_us: Vec<u64>,
    /// Circuits that were begun.
    pub circuits: u64,
    /// Circuits that did not open.
    pub circuits_failed: u64,
    /// Circuits given up since nobody answered in time.
    pub circuits_late: u64,
    /// Bytes that arrived, both ways.
    pub bytes: u64,
}

impl Client {
    /// Nodes that are left out at `now_us`.
    pub(crate) fn skips(&mut self, now_us: u64) -> BTreeSet<NodeId> {
        self.skipped.retain(|(_, until_us)| *until_us > now_us);
        self.skipped.iter().map(|(node, _)| *node).collect()
    }
}
