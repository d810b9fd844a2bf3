//! The edges of circuits, where streams begin and end: one task per circuit owns its crypto, and its streams' tasks own the sockets.
//!
//! What comes out of cells goes from the lane's reader into the [`Mux`] in batches; what goes into cells waits in the mux until the
//! circuit's task takes it, seals it in lane order, as far as credit allows, and hands the lane its share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use port17_proto::circuit::message::{Area, Junk, Target};
use port17_proto::circuit::mux::{Batch, Exhausted, Mux, MuxEvent, Received, Side, StreamRules, StreamState};
use port17_proto::circuit::onion::{ANSWER_AREA, BackwardLayer, client_area};
use port17_proto::circuit::origin::{Answer, Origin, OriginForward};
use port17_proto::crypto::CryptoError;
use port17_proto::ids::{CircuitId, StreamId};
use port17_proto::lane::credit::{CreditError, Granter};
use port17_proto::lane::frame::{FrameBuf, Header};
use port17_proto::lane::queue::Outgoing;
use port17_proto::lane::reader::{Command, Install, Port, Sink};
use port17_proto::limits::{FIRST_WINDOW_CELLS, LANE_WRITE_FRAMES};
use port17_proto::wire::registry::{Command as Code, ResetCode, SetupStatus};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use crate::lane::{Clock, Lane, lock};

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
        EdgeStream { edge: Arc::clone(self), id, bell, ended: false }
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

// ---- The circuit's task ----

/// Seals what an edge sends.
enum Sealing {
    Exit(BackwardLayer),
    /// SETUP is under way: only the first window may be sent, under the first keys.
    Building {
        origin: Box<Origin>,
        hops: usize,
        sent: u64,
    },
    Client(OriginForward),
}

impl Sealing {
    fn area(&self) -> std::ops::Range<usize> {
        match self {
            Self::Exit(_) => ANSWER_AREA,
            Self::Building { hops, .. } => client_area(hops - 1),
            Self::Client(forward) => client_area(forward.hops() - 1),
        }
    }

    fn room(&self, room: u64) -> u64 {
        match self {
            Self::Exit(_) | Self::Client(_) => room,
            Self::Building { sent, .. } => room.min(FIRST_WINDOW_CELLS.saturating_sub(*sent)),
        }
    }

    /// Seals one cell in place; gives the header's flags.
    fn seal(&mut self, frame: &mut FrameBuf) -> Result<u8, CryptoError> {
        match self {
            Self::Exit(layer) => {
                layer.seal_message_backward(frame.bytes_mut());
                Ok(0)
            }
            Self::Building { origin, hops, sent } => {
                *sent += 1;
                origin.seal(*hops - 1, frame.bytes_mut()).map_err(|_| CryptoError)
            }
            Self::Client(forward) => forward.seal(forward.hops() - 1, frame.bytes_mut()),
        }
    }
}

/// Runs the task of an exit's edge until its circuit is over.
pub async fn run_exit(edge: Arc<Edge>, layer: BackwardLayer) {
    CircuitTask::new(edge, Sealing::Exit(layer), None).run().await;
}

/// Runs the task of a client's circuit until it is over.
pub async fn run_client(edge: Arc<Edge>, origin: Origin, hops: usize, progress: watch::Sender<Progress>) {
    let sealing = Sealing::Building { origin: Box::new(origin), hops, sent: 0 };
    CircuitTask::new(edge, sealing, Some(progress)).run().await;
}

struct CircuitTask {
    edge: Arc<Edge>,
    sealing: Sealing,
    progress: Option<watch::Sender<Progress>>,
    spare: Vec<FrameBuf>,
    batch: Vec<Outgoing>,
}

impl CircuitTask {
    fn new(edge: Arc<Edge>, sealing: Sealing, progress: Option<watch::Sender<Progress>>) -> Self {
        Self { edge, sealing, progress, spare: Vec::new(), batch: Vec::new() }
    }

    async fn run(mut self) {
        while !self.edge.is_over() {
            if !self.take_created() {
                self.edge.end(false);
                break;
            }
            match self.send() {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => self.edge.work.notified().await,
                Err(CryptoError) => self.edge.end(false),
            }
        }
        // A refusal that came together with the end is still to be told.
        self.take_created();
        if let Some(progress) = &self.progress {
            progress.send_if_modified(|state| {
                let over = matches!(state, Progress::Building | Progress::Open);
                if over {
                    *state = Progress::Over;
                }
                over
            });
        }
    }

    /// Takes the answer to SETUP, if it has come; false when the circuit is to be destroyed.
    fn take_created(&mut self) -> bool {
        let Some(body) = lock(&self.edge.created).take() else { return true };
        let Sealing::Building { origin, .. } = &mut self.sealing else { return false };
        let progress = match origin.handle_created(&body) {
            Ok(Answer::Complete) => Progress::Open,
            Ok(Answer::Failed { hop, status }) => Progress::Refused { hop, status },
            Err(_) => Progress::Over,
        };
        let open = progress == Progress::Open && self.split();
        if let Some(sender) = &self.progress {
            sender.send_replace(progress);
        }
        open
    }

    /// The fresh keys are in force: parts the two directions, so that the reader can open cells.
    fn split(&mut self) -> bool {
        let placeholder = Sealing::Client(OriginForward::new(Vec::new()));
        let Sealing::Building { origin, .. } = std::mem::replace(&mut self.sealing, placeholder) else { return false };
        let Some((forward, backward)) = origin.split() else { return false };
        self.sealing = Sealing::Client(forward);
        self.edge.lane.command(Command::Install(self.edge.circuit, Install::Opened(backward)));
        true
    }

    /// Sends one batch; false when there was nothing to send or no room.
    fn send(&mut self) -> Result<bool, CryptoError> {
        let (lane, circuit) = (self.edge.lane.clone(), self.edge.circuit);
        let Some(room) = lane.queue(|queue| queue.room(circuit)) else { return Err(CryptoError) };
        let most = usize::try_from(self.sealing.room(room)).unwrap_or(usize::MAX).min(LANE_WRITE_FRAMES);
        self.fill(most);
        for outgoing in &mut self.batch {
            let flags = self.sealing.seal(&mut outgoing.frame)?;
            outgoing.frame.set_header(Header { flags, ..Header::new(circuit, Code::Cell) });
        }
        let sent = !self.batch.is_empty();
        if sent {
            let (batch, spare) = (&mut self.batch, &mut self.spare);
            lane.queue(|queue| queue.hand_over(batch, spare));
        }
        Ok(sent)
    }

    /// Packs up to `most` cells.
    fn fill(&mut self, most: usize) {
        let area = self.sealing.area();
        let circuit = self.edge.circuit;
        let (spare, batch) = (&mut self.spare, &mut self.batch);
        self.edge.with_mux(|mux, now_ms| {
            while batch.len() < most && mux.has_outgoing() {
                let mut frame = spare.pop().unwrap_or_default();
                let filled = frame.bytes_mut()[area.clone()].as_mut_array().is_some_and(|area| mux.fill(area, now_ms));
                if !filled {
                    spare.push(frame);
                    break;
                }
                batch.push(Outgoing { circuit, frame });
            }
        });
    }
}

// ---- A stream's task ----

/// The application ended badly, or the stream was reset: the other side is to be told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamBroken;

/// An open stream that copies bytes.
pub trait PumpStream: Send + 'static {
    /// Copies both ways until both directions have ended. Dropping the future ends the stream.
    ///
    /// # Errors
    /// When it did not end in order: the application must see a reset, not an end.
    fn pump<R, W>(self, from_app: R, to_app: W) -> impl Future<Output = Result<(), StreamBroken>> + Send
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send;
}

/// One stream, as its task holds it. Dropping it resets it, unless both directions have ended in order: then what is still queued
/// goes out as credit allows.
pub struct EdgeStream {
    edge: Arc<Edge>,
    id: StreamId,
    bell: Arc<Bell>,
    ended: bool,
}

/// The first and the largest read from a socket: small streams stay small, busy ones read much at once.
const FIRST_READ_BYTES: usize = 4 * 1024;
const LARGEST_READ_BYTES: usize = 128 * 1024;

impl EdgeStream {
    /// Waits for the answer to OPEN (client).
    ///
    /// # Errors
    /// How the exit refused, or `Protocol` when the circuit ended.
    pub async fn opened(&self) -> Result<(), ResetCode> {
        loop {
            match self.edge.with_mux(|mux, _| mux.state(self.id)) {
                StreamState::Open => return Ok(()),
                StreamState::Over(code) => return Err(code),
                StreamState::Ended => return Err(ResetCode::Protocol),
                StreamState::Opening => self.bell.incoming.notified().await,
            }
        }
    }

    /// Queues bytes in front of all that [`Self::pump`] reads.
    pub fn push(&self, bytes: Vec<u8>) {
        self.edge.with_mux(|mux, _| mux.push_data(self.id, bytes));
    }

    /// Answers OPEN (exit).
    pub fn answer(&self, ip: IpAddr, ttl_s: u32) {
        self.edge.with_mux(|mux, _| mux.opened(self.id, ip, ttl_s));
    }

    /// Ends the stream both ways at once.
    pub fn reset(&self, code: ResetCode) {
        self.edge.with_mux(|mux, now_ms| mux.reset(self.id, code, now_ms));
    }

    /// Waits until the stream is over, whoever ends it.
    pub async fn over(&self) {
        while !matches!(self.edge.with_mux(|mux, _| mux.state(self.id)), StreamState::Over(_) | StreamState::Ended) {
            self.bell.incoming.notified().await;
        }
    }

    async fn send<R: AsyncRead + Unpin>(&self, mut from_app: R) -> Result<(), StreamBroken> {
        let mut size = FIRST_READ_BYTES;
        loop {
            let room = self.room().await.ok_or(StreamBroken)?;
            let size_now = size.min(room);
            let mut chunk = Vec::with_capacity(size_now);
            let mut bounded = (&mut from_app).take(size_now as u64);
            let read = tokio::select! {
                biased;
                read = bounded.read_buf(&mut chunk) => read.map_err(|_| StreamBroken)?,
                () = self.broken(&self.bell.outgoing) => return Err(StreamBroken),
            };
            if read == 0 {
                self.edge.with_mux(|mux, _| mux.push_fin(self.id));
                return self.fin_sent().await;
            }
            if read == size {
                size = (size * 2).min(LARGEST_READ_BYTES);
            } else if read < size / 4 {
                size = (size / 2).max(FIRST_READ_BYTES);
            }
            self.edge.with_mux(|mux, _| mux.push_data(self.id, chunk));
        }
    }

    /// Waits for room in the stream's queue; none when the stream is over.
    async fn room(&self) -> Option<usize> {
        loop {
            match lock(&self.edge.mux).room(self.id)? {
                0 => {}
                room => return Some(room),
            }
            self.bell.outgoing.notified().await;
        }
    }

    /// Waits until all bytes and the end have been packed: who drops the stream before that cuts off what still waits.
    async fn fin_sent(&self) -> Result<(), StreamBroken> {
        loop {
            let (sent, state) = self.edge.with_mux(|mux, _| (mux.fin_is_sent(self.id), mux.state(self.id)));
            match sent {
                Some(true) => return Ok(()),
                Some(false) => self.bell.outgoing.notified().await,
                None => return if state == StreamState::Ended { Ok(()) } else { Err(StreamBroken) },
            }
        }
    }

    /// Waits until the stream was reset. `bell` is that of the half that waits.
    async fn broken(&self, bell: &Notify) {
        while lock(&self.edge.mux).room(self.id).is_some() {
            bell.notified().await;
        }
    }

    async fn receive<W: AsyncWrite + Unpin>(&self, mut to_app: W) -> Result<(), StreamBroken> {
        loop {
            let received = self.edge.with_mux(|mux, _| mux.take(self.id));
            let Received { chunks, fin } = received.ok_or(StreamBroken)?;
            let mut bytes = 0;
            for chunk in &chunks {
                tokio::select! {
                    biased;
                    written = to_app.write_all(chunk) => written.map_err(|_| StreamBroken)?,
                    // An application that reads no more must not hold a stream that is over.
                    () = self.broken(&self.bell.incoming) => return Err(StreamBroken),
                }
                bytes += chunk.len() as u64;
            }
            let nothing = chunks.is_empty();
            drop(chunks);
            if fin {
                // Nobody is left to tell when the application does not want even the end.
                let _ = to_app.shutdown().await;
            }
            if !nothing || fin {
                self.edge.with_mux(|mux, now_ms| mux.consumed(self.id, bytes, now_ms));
            }
            if fin {
                return Ok(());
            }
            if nothing {
                self.bell.incoming.notified().await;
            }
        }
    }
}

impl PumpStream for EdgeStream {
    /// A half-close travels as one.
    async fn pump<R, W>(mut self, from_app: R, to_app: W) -> Result<(), StreamBroken>
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        tokio::try_join!(self.send(from_app), self.receive(to_app))?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for EdgeStream {
    fn drop(&mut self) {
        lock(&self.edge.bells).remove(&self.id);
        if !self.ended {
            self.reset(ResetCode::Unreachable);
        }
    }
}

/// Copies a stream's bytes to and from a socket. The socket ends in order if the stream does; whatever else ends it, also the death
/// of this process, is a reset: what was cut must not be taken for whole.
pub(crate) async fn pump_socket<S: PumpStream>(stream: S, mut socket: TcpStream, early: Vec<u8>) {
    let set_linger = |socket: &TcpStream, time| {
        // A socket that is gone already needs neither.
        let _ = socket2::SockRef::from(socket).set_linger(time);
    };
    set_linger(&socket, Some(std::time::Duration::ZERO));
    // Not `into_split`: its halves end the connection in order when they are dropped.
    let (mut from, mut to) = socket.split();
    if stream.pump(std::io::Cursor::new(early).chain(&mut from), &mut to).await.is_ok() {
        set_linger(&socket, None);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::time::Duration;

    use port17_proto::circuit::message::Host;
    use port17_proto::lane::credit::{Pace, Pool};
    use port17_proto::lane::queue::LaneEnd;
    use port17_proto::node::io::LaneId;
    use port17_proto::params::Params;
    use port17_proto::wire::registry::MESSAGE_BYTES;
    use tokio::time::timeout;

    use super::*;

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
            let lane = Lane::new(LaneId(1), LaneEnd::Dialler, 10);
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
