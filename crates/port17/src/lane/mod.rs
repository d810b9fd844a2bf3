//! Lanes over TLS and TCP: two tasks each, which only move bytes (spec 05).
//!
//! The reader takes what the socket has, decrypts records in place and gives each frame to the core's `Reader`; the writer takes
//! batches from the core's `LaneQueue`, encrypts them and writes. Neither holds the queue's lock while it does either.

mod record;
mod tasks;
pub mod tls;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use port17_proto::ids::CircuitId;
use port17_proto::lane::queue::{LaneEnd, LaneQueue};
use port17_proto::lane::reader::{Command, Port};
use port17_proto::node::io::LaneId;
use tokio::sync::Notify;

pub use tasks::{Carrier, LaneEvent, run};

use crate::edge::EdgeSink;
use crate::objects::{Counted, Objects};

/// Milliseconds of the one monotone clock that the data plane goes by.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at 0.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since the start.
    pub fn now_ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The time since the start.
    pub fn elapsed(self) -> std::time::Duration {
        self.0.elapsed()
    }
}

/// A lock whose holder cannot have left it half changed: a panic ends the process.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Waiting {
    queue: LaneQueue<Lane>,
    /// The writer found nothing and waits to be woken.
    asleep: bool,
}

struct Shared {
    id: LaneId,
    waiting: Mutex<Waiting>,
    writer: Notify,
    /// What the reader is to be told; none once it is gone.
    commands: Mutex<Option<Vec<Command<Lane>>>>,
    reader: Notify,
    /// Who waits for room on a circuit that begins or ends here.
    edges: Mutex<HashMap<CircuitId, Arc<Notify>>>,
    closing: Notify,
    objects: Objects,
    _counted: Counted,
}

/// A handle to a lane, as others see it.
#[derive(Clone)]
pub struct Lane(Arc<Shared>);

impl PartialEq for Lane {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Lane {
    /// A lane whose tasks do not run yet; see [`run`]. `objects` count it, and what begins or ends on it.
    pub fn new(id: LaneId, end: LaneEnd, growth_ms: u64, objects: &Objects) -> Self {
        Self(Arc::new(Shared {
            id,
            waiting: Mutex::new(Waiting { queue: LaneQueue::new(end, growth_ms), asleep: false }),
            writer: Notify::new(),
            commands: Mutex::new(Some(Vec::new())),
            reader: Notify::new(),
            edges: Mutex::new(HashMap::new()),
            closing: Notify::new(),
            objects: objects.clone(),
            _counted: objects.lanes.count(),
        }))
    }

    /// Its number in the engine.
    pub fn id(&self) -> LaneId {
        self.0.id
    }

    /// What its daemon counts.
    pub(crate) fn objects(&self) -> &Objects {
        &self.0.objects
    }

    /// Whom to wake when a circuit that had no room has some.
    pub fn watch_room(&self, circuit: CircuitId, edge: Arc<Notify>) {
        lock(&self.0.edges).insert(circuit, edge);
    }

    /// Ends [`Self::watch_room`].
    pub fn unwatch_room(&self, circuit: CircuitId) {
        lock(&self.0.edges).remove(&circuit);
    }

    /// Ends the lane once what is urgent has been written.
    pub fn close(&self) {
        self.0.closing.notify_one();
    }

    /// Ready when nothing urgent waits, or the peer does not read it.
    async fn flushed(&self) {
        const PATIENCE: std::time::Duration = std::time::Duration::from_millis(500);
        const LOOK: std::time::Duration = std::time::Duration::from_millis(2);
        let empty = async {
            while self.queue(|queue| queue.has_urgent() && !queue.is_closed()) {
                tokio::time::sleep(LOOK).await;
            }
        };
        // A peer that reads nothing loses the farewell.
        let _ = tokio::time::timeout(PATIENCE, empty).await;
    }
}

impl Port for Lane {
    type Sink = EdgeSink;

    fn queue<R>(&self, work: impl FnOnce(&mut LaneQueue<Self>) -> R) -> R {
        let mut waiting = lock(&self.0.waiting);
        let result = work(&mut waiting.queue);
        let wake = waiting.asleep && (!waiting.queue.is_empty() || waiting.queue.is_closed());
        if wake {
            waiting.asleep = false;
        }
        let roomy: Vec<_> = waiting.queue.drain_roomy().collect();
        drop(waiting);
        if wake {
            self.0.writer.notify_one();
        }
        if !roomy.is_empty() {
            let edges = lock(&self.0.edges);
            roomy.iter().filter_map(|circuit| edges.get(circuit)).for_each(|edge| edge.notify_one());
        }
        result
    }

    fn command(&self, command: Command<Self>) {
        let mut commands = lock(&self.0.commands);
        match commands.as_mut() {
            Some(commands) => commands.push(command),
            None => {
                drop(commands);
                return command.abandon();
            }
        }
        drop(commands);
        self.0.reader.notify_one();
    }
}
