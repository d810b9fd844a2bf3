//! The edges of circuits, where streams begin and end: one task per circuit owns its crypto, and its streams' tasks own the sockets.
//!
//! What comes out of cells goes from the lane's reader into the [`Mux`] in batches; what goes into cells waits in the mux until the
//! circuit's task takes it, seals it in lane order, as far as credit allows, and hands the lane its share.

mod stream;
mod task;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use port17_proto::circuit::message::{Area, Junk, Target};
use port17_proto::circuit::mux::{Batch, Exhausted, Mux, MuxEvent, Side, StreamRules};
use port17_proto::ids::{CircuitId, StreamId};
use port17_proto::lane::credit::{CreditError, Granter};
use port17_proto::lane::reader::{Command, Port, Sink};
use port17_proto::node::io::LaneId;
use port17_proto::wire::registry::{ResetCode, SetupStatus};
use tokio::sync::Notify;

pub(crate) use self::stream::pump_socket;
pub use self::stream::{EdgeStream, PumpStream, StreamBroken};
pub use self::task::{run_client, run_exit};
use crate::lane::{Clock, Lane, lock};
use crate::objects::Counted;

/// Asks for streams to be opened; only an exit's edge has one.
pub trait Opener: Send + Sync {
    /// Opens `target` for a stream; must not block.
    fn open(&self, stream: EdgeStream, target: Target);
}

/// How far a circuit of this client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// SETUP is under way.
    Building,
    /// All hops have answered.
    Open,
    /// A hop (0 is the guard) refused.
    Refused {
        /// Who.
        hop: usize,
        /// Why.
        status: SetupStatus,
    },
    /// It is over.
    Over,
}

/// Wakes the two halves of a stream's task.
#[derive(Default)]
struct Bell {
    incoming: Notify,
    outgoing: Notify,
}

/// One edge of one circuit.
pub struct Edge {
    lane: Lane,
    circuit: CircuitId,
    clock: Clock,
    mux: Mutex<Mux>,
    bells: Mutex<HashMap<StreamId, Arc<Bell>>>,
    /// Wakes the circuit's task.
    work: Arc<Notify>,
    created: Mutex<Option<Box<[u8]>>>,
    over: AtomicBool,
    opener: Option<Arc<dyn Opener>>,
    _counted: Counted,
}

impl Edge {
    /// The edge of a circuit that `granter` permits cells of.
    pub fn new(
        lane: Lane,
        circuit: CircuitId,
        clock: Clock,
        granter: Granter,
        rules: StreamRules,
        opener: Option<Arc<dyn Opener>>,
    ) -> Arc<Self> {
        let side = if opener.is_some() { Side::Exit } else { Side::Client };
        let work = Arc::new(Notify::new());
        lane.watch_room(circuit, Arc::clone(&work));
        let counted = lane.objects().edges.count();
        Arc::new(Self {
            lane,
            circuit,
            clock,
            mux: Mutex::new(Mux::new(side, granter, rules)),
            bells: Mutex::new(HashMap::new()),
            work,
            created: Mutex::new(None),
            over: AtomicBool::new(false),
            opener,
            _counted: counted,
        })
    }

    /// Where the lane's reader delivers.
    pub fn sink(self: &Arc<Self>) -> EdgeSink {
        EdgeSink { edge: Arc::clone(self), batch: Batch::default() }
    }

    /// Whether the circuit is over.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Streams that are not over.
    pub fn streams(&self) -> usize {
        lock(&self.mux).streams()
    }

    /// The lane that its cells go over.
    pub fn lane_id(&self) -> LaneId {
        self.lane.id()
    }

    /// Opens a stream; see [`EdgeStream::opened`].
    ///
    /// # Errors
    /// When the circuit takes no more.
    pub fn open(self: &Arc<Self>, target: &Target, first_data: Vec<u8>) -> Result<EdgeStream, Exhausted> {
        if self.is_over() {
            return Err(Exhausted);
        }
        let mut mux = lock(&self.mux);
        let id = mux.open(target, first_data, self.clock.now_ms())?;
        let stream = self.stream(id);
        self.after(mux);
        Ok(stream)
    }

    /// Ends the circuit from here.
    pub fn end(&self, orderly: bool) {
        if !self.over.swap(true, Ordering::AcqRel) {
            self.lane.queue(|queue| queue.destroy(self.circuit, orderly));
            self.lane.command(Command::Over(self.circuit));
            self.finish();
        }
    }

    /// Asks idle memory back, forgets old streams. Called about once a second.
    pub fn sweep(&self, idle_ms: u64) {
        let now_ms = self.clock.now_ms();
        let mut mux = lock(&self.mux);
        mux.sweep(now_ms);
        let asked = mux.reclaim(now_ms, idle_ms);
        drop(mux);
        if let Some(to) = asked {
            self.lane.queue(|queue| queue.push_reclaim(self.circuit, to));
        }
    }

    fn stream(self: &Arc<Self>, id: StreamId) -> EdgeStream {
        let bell = Arc::clone(lock(&self.bells).entry(id).or_default());
        let counted = self.lane.objects().streams.count();
        EdgeStream { edge: Arc::clone(self), id, bell, ended: false, _counted: counted }
    }

    fn with_mux<R>(self: &Arc<Self>, work: impl FnOnce(&mut Mux, u64) -> R) -> R {
        let mut mux = lock(&self.mux);
        let result = work(&mut mux, self.clock.now_ms());
        self.after(mux);
        result
    }

    /// Does what the mux asks for, after its lock is released.
    fn after(self: &Arc<Self>, mut mux: std::sync::MutexGuard<'_, Mux>) {
        let events: Vec<_> = mux.drain_events().collect();
        drop(mux);
        let mut work = false;
        for event in events {
            match event {
                MuxEvent::Outgoing => work = true,
                MuxEvent::Changed(id) => self.ring(id),
                MuxEvent::Credit(permitted) => self.lane.queue(|queue| queue.push_credit(self.circuit, permitted)),
                MuxEvent::Open(id, target) => {
                    if let Some(opener) = &self.opener {
                        opener.open(self.stream(id), target);
                    }
                }
            }
        }
        if work {
            self.work.notify_one();
        }
    }

    fn ring(&self, id: StreamId) {
        if let Some(bell) = lock(&self.bells).get(&id) {
            bell.incoming.notify_one();
            bell.outgoing.notify_one();
        }
    }

    fn finish(&self) {
        self.over.store(true, Ordering::Release);
        self.lane.unwatch_room(self.circuit);
        lock(&self.mux).close(ResetCode::Protocol, self.clock.now_ms());
        for bell in lock(&self.bells).values() {
            bell.incoming.notify_one();
            bell.outgoing.notify_one();
        }
        self.work.notify_one();
    }
}

/// The reader's end of an [`Edge`].
pub struct EdgeSink {
    edge: Arc<Edge>,
    batch: Batch,
}

impl Sink for EdgeSink {
    fn cell(&mut self, area: &Area) -> Result<(), Junk> {
        self.batch.add(area)
    }

    fn flush(&mut self, _now_ms: u64) -> Result<(), Junk> {
        let batch = &mut self.batch;
        if batch.is_empty() { Ok(()) } else { self.edge.with_mux(|mux, now_ms| mux.receive(batch, now_ms)) }
    }

    fn created(&mut self, body: &[u8]) {
        *lock(&self.edge.created) = Some(body.into());
        self.edge.work.notify_one();
    }

    fn limited(&mut self, limit: u64, now_ms: u64) -> Result<Option<u64>, CreditError> {
        lock(&self.edge.mux).limited(limit, now_ms)
    }

    fn closed(&mut self) {
        self.edge.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::time::Duration;

    use port17_proto::circuit::message::Host;
    use port17_proto::lane::credit::{Pace, Pool};
    use port17_proto::lane::queue::LaneEnd;
    use port17_proto::limits::FIRST_WINDOW_CELLS;
    use port17_proto::params::Params;
    use port17_proto::wire::registry::MESSAGE_BYTES;
    use tokio::time::timeout;

    use super::*;
    use crate::objects::Objects;

    /// Nothing here waits for anything but the other half.
    const HANG: Duration = Duration::from_secs(10);

    /// A client's edge, and the mux of the exit that it talks to; cells are carried by hand.
    struct World {
        edge: Arc<Edge>,
        exit: Mux,
        forward: Batch,
        backward: Batch,
    }

    fn granter() -> Granter {
        Granter::new(Pool::new(64 << 20).reserve(FIRST_WINDOW_CELLS).unwrap(), Pace::new(10), 0)
    }

    impl World {
        fn new() -> Self {
            let lane = Lane::new(LaneId(1), LaneEnd::Dialler, 10, &Objects::default());
            let circuit = lane.queue(|queue| queue.open(None)).unwrap();
            let rules = StreamRules::from(&Params::DEFAULT);
            let edge = Edge::new(lane, circuit, Clock::start(), granter(), rules, None);
            Self { edge, exit: Mux::new(Side::Exit, granter(), rules), forward: Batch::default(), backward: Batch::default() }
        }

        fn carry(&mut self) {
            let mut area = [0; MESSAGE_BYTES];
            while self.edge.with_mux(|mux, now_ms| mux.fill(&mut area, now_ms)) {
                self.forward.add(&area).unwrap();
            }
            self.exit.receive(&mut self.forward, 0).unwrap();
            while self.exit.fill(&mut area, 0) {
                self.backward.add(&area).unwrap();
            }
            self.edge.with_mux(|mux, now_ms| mux.receive(&mut self.backward, now_ms)).unwrap();
        }

        async fn open(&mut self) -> EdgeStream {
            let target = Target { host: Host::Name("example.org".into()), port: 80 };
            let stream = self.edge.open(&target, Vec::new()).unwrap();
            self.carry();
            self.exit.opened(stream.id, "192.0.2.1".parse().unwrap(), 60);
            self.carry();
            stream.opened().await.unwrap();
            stream
        }
    }

    #[tokio::test]
    async fn what_waits_is_still_sent_when_both_sides_have_ended() {
        let mut world = World::new();
        let stream = world.open().await;
        let id = stream.id;
        world.exit.push_fin(id);
        world.carry();
        let pump = tokio::spawn(stream.pump(Cursor::new(vec![7; 10_000]), tokio::io::sink()));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!pump.is_finished(), "no cell has left yet");
        world.carry();
        timeout(HANG, pump).await.unwrap().unwrap().unwrap();
        world.carry();
        let received = world.exit.take(id).unwrap();
        assert_eq!((received.chunks.concat(), received.fin), (vec![7; 10_000], true));
    }

    #[tokio::test]
    async fn an_application_that_does_not_read_lets_go_when_the_circuit_ends() {
        let mut world = World::new();
        let stream = world.open().await;
        let id = stream.id;
        world.exit.push_data(id, vec![7; 10_000]);
        world.carry();
        // It has ended its own side: only the other half could notice.
        let (_unread, to_app) = tokio::io::duplex(1);
        let pump = tokio::spawn(stream.pump(tokio::io::empty(), to_app));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        world.carry();
        world.edge.end(false);
        assert_eq!(timeout(HANG, pump).await.unwrap().unwrap(), Err(StreamBroken));
    }

    #[tokio::test]
    async fn a_circuit_that_is_over_opens_no_stream() {
        let world = World::new();
        world.edge.end(false);
        let target = Target { host: Host::Name("example.org".into()), port: 80 };
        assert!(world.edge.open(&target, Vec::new()).is_err());
    }
}
