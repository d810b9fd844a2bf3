//! The two tasks of a lane.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use port17_proto::circuit::setup::SetupPacket;
use port17_proto::ids::CircuitId;
use port17_proto::lane::credit::{Granter, Pool};
use port17_proto::lane::frame::FrameBuf;
use port17_proto::lane::queue::{CreditDue, LaneQueue};
use port17_proto::lane::reader::{CircuitFault, Event, LinkFault, Port, Reader};
use port17_proto::limits::{LANE_READ_BYTES, LANE_WRITE_FRAMES, RECORD_FRAMES};
use port17_proto::node::io::LaneLoss;
use port17_proto::planted::planted;
use port17_proto::wire::message::{MessageStream, RawMessage};
use port17_proto::wire::registry::FRAME_BYTES;
use tokio::net::TcpStream;

use super::record::{MAX_RECORD, Opened, Opener, Sealer};
use super::tls::Established;
use super::{Clock, Lane, lock};
use crate::planted;

/// What a lane says to the rest of the daemon.
pub enum LaneEvent {
    /// A whole control message.
    Control {
        /// It came as an urgent frame.
        urgent: bool,
        /// The message.
        message: RawMessage,
    },
    /// The peer broke the protocol: the lane is to be closed.
    Violation(&'static str),
    /// The lane is gone.
    Down(LaneLoss),
}

/// What a lane needs of the rest of the daemon.
pub trait Carrier: Send + Sync + 'static {
    /// Takes an event; waits where the engine is behind.
    fn event(&self, lane: &Lane, event: LaneEvent) -> impl Future<Output = ()> + Send;

    /// Public-key work for a new circuit; must not block.
    fn setup(&self, lane: &Lane, circuit: CircuitId, packet: SetupPacket, granter: Granter);

    /// Circuits that were destroyed for a fault, by reason.
    fn faults(&self, faults: BTreeMap<CircuitFault, u64>);
}

/// What a writer may take to end once its lane is over.
const FAREWELL: Duration = Duration::from_millis(500);
/// Reads taken in one go before other tasks get their turn.
const READS_PER_TURN: u32 = 4;

/// Runs a lane until it is gone.
pub async fn run<C: Carrier>(lane: Lane, connection: Established, pool: Arc<Pool>, clock: Clock, carrier: Arc<C>) {
    let Established { stream, sealer, opener, early, incoming, .. } = connection;
    let stream = Arc::new(stream);
    let mut writer = tokio::spawn(write(lane.clone(), Arc::clone(&stream), sealer, clock));
    let mut reading = Reading::new(lane.clone(), pool, clock, opener, incoming, carrier);
    let why = tokio::select! {
        why = reading.run(&stream, early) => why,
        () = lane.0.closing.notified() => {
            lane.flushed().await;
            LaneLoss::Closed
        }
    };
    reading.reader.close(|| lock(&lane.0.commands).take().unwrap_or_default(), clock.now_ms());
    // The writer sees the closed queue, says good-bye to the peer and ends. One that waits for a peer who does not read would wait
    // for ever, and the connection with it.
    if tokio::time::timeout(FAREWELL, &mut writer).await.is_err() {
        writer.abort();
        let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
    }
    reading.carrier.event(&lane, LaneEvent::Down(why)).await;
}

struct Reading<C> {
    lane: Lane,
    reader: Reader<Lane>,
    opener: Opener,
    clock: Clock,
    buffer: Vec<u8>,
    filled: usize,
    /// The peer has said good-bye.
    ended: bool,
    messages: MessageStream,
    /// Frames behind a HELLO, until the engine has answered it.
    held: Vec<u8>,
    carrier: Arc<C>,
}

impl<C: Carrier> Reading<C> {
    fn new(lane: Lane, pool: Arc<Pool>, clock: Clock, opener: Opener, incoming: Vec<u8>, carrier: Arc<C>) -> Self {
        let filled = incoming.len();
        let mut buffer = incoming;
        // Room for a record behind one that has come in part; a lane that is busy gets more.
        buffer.resize(filled + 2 * MAX_RECORD, 0);
        let reader = Reader::new(lane.clone(), pool);
        Self {
            lane,
            reader,
            opener,
            clock,
            buffer,
            filled,
            ended: false,
            messages: MessageStream::new(),
            held: Vec::new(),
            carrier,
        }
    }

    async fn run(&mut self, stream: &TcpStream, early: Vec<u8>) -> LaneLoss {
        self.held = early;
        let mut turns = 0;
        loop {
            if let Err(what) = self.take_all().await {
                self.carrier.event(&self.lane, LaneEvent::Violation(what)).await;
                // The engine closes the lane.
                std::future::pending::<()>().await;
            }
            if self.ended {
                return LaneLoss::Closed;
            }
            turns += 1;
            if turns % READS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
            match stream.try_read(&mut self.buffer[self.filled..]) {
                Ok(0) => return LaneLoss::Closed,
                Ok(read) => {
                    self.filled += read;
                    self.widen();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::select! {
                        ready = stream.readable() => if ready.is_err() { return LaneLoss::Broken },
                        () = self.lane.0.reader.notified() => {}
                    }
                }
                Err(_) => return LaneLoss::Broken,
            }
        }
    }

    /// A read that filled the buffer makes it twice as large: most lanes are idle, and there are thousands.
    fn widen(&mut self) {
        if self.filled == self.buffer.len() {
            let wider = (2 * self.filled).min(LANE_READ_BYTES + MAX_RECORD);
            self.buffer.resize(wider.max(self.filled), 0);
        }
    }

    /// Takes what is there: commands, held frames, whole records, until nothing is left.
    async fn take_all(&mut self) -> Result<(), &'static str> {
        loop {
            self.take_commands();
            let mut held = std::mem::take(&mut self.held);
            let taken = self.frames(&mut held);
            self.held.extend_from_slice(&held[taken?..]);
            if self.held.is_empty() {
                self.records()?;
            }
            self.after_batch().await?;
            if self.held.is_empty() {
                return Ok(());
            }
            // What follows a HELLO may be a circuit's: the engine has to answer it first (spec 10).
            while !self.reader.hears() {
                self.lane.0.reader.notified().await;
                self.take_commands();
            }
        }
    }

    fn take_commands(&mut self) {
        let commands = lock(&self.lane.0.commands).as_mut().map(std::mem::take).unwrap_or_default();
        if commands.is_empty() {
            return;
        }
        let now_ms = self.clock.now_ms();
        for command in commands {
            self.reader.command(command, now_ms);
        }
        self.reader.end_batch(now_ms);
    }

    /// Opens all whole records in the buffer and takes their frames, up to a HELLO.
    fn records(&mut self) -> Result<(), &'static str> {
        let mut at = 0;
        let now_ms = self.clock.now_ms();
        while self.held.is_empty() && !self.ended {
            let Some(length) = Opener::record_len(&self.buffer[at..self.filled]) else { break };
            let length = length.map_err(|_| "not a TLS record")?;
            if self.filled - at < length {
                break;
            }
            match self.opener.open(&mut self.buffer[at..at + length]).map_err(|_| "a TLS record that is not authentic")? {
                // spec 05, 1: at least one frame; who sends none keeps us busy for nothing.
                Opened::Data(0) => return Err(NOT_WHOLE_FRAMES),
                Opened::Data(data) => {
                    let from = at + Opener::DATA_AT;
                    let bytes = &mut self.buffer[from..from + data];
                    let taken = frames(&mut self.reader, now_ms, bytes)?;
                    self.held.extend_from_slice(&bytes[taken..]);
                }
                Opened::Nothing => {}
                Opened::Closed => self.ended = true,
            }
            at += length;
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }

    fn frames(&mut self, bytes: &mut [u8]) -> Result<usize, &'static str> {
        frames(&mut self.reader, self.clock.now_ms(), bytes)
    }

    /// Hands the batch over, then does what others must be told.
    async fn after_batch(&mut self) -> Result<(), &'static str> {
        self.reader.end_batch(self.clock.now_ms());
        let events: Vec<_> = self.reader.drain_events().collect();
        for event in events {
            match event {
                Event::Setup { circuit, packet, granter } => self.carrier.setup(&self.lane, circuit, packet, granter),
                Event::Control { urgent, bytes } => self.control(urgent, &bytes).await?,
            }
        }
        let faults = self.reader.take_faults();
        if !faults.is_empty() {
            self.carrier.faults(faults);
        }
        Ok(())
    }

    async fn control(&mut self, urgent: bool, bytes: &[u8]) -> Result<(), &'static str> {
        let messages =
            if urgent { RawMessage::from_urgent(bytes).map(|message| vec![message]) } else { self.messages.feed(bytes) };
        for message in messages.map_err(|_| "malformed control message")? {
            self.reader.passed_on();
            self.carrier.event(&self.lane, LaneEvent::Control { urgent, message }).await;
        }
        Ok(())
    }
}

const NOT_WHOLE_FRAMES: &str = "a record that does not hold whole frames";

/// Takes the frames of one record; every record holds whole frames (spec 05, 1). Gives the bytes taken: fewer than all when a
/// control message must be answered first.
fn frames(reader: &mut Reader<Lane>, now_ms: u64, bytes: &mut [u8]) -> Result<usize, &'static str> {
    let (whole, rest) = bytes.as_chunks_mut::<FRAME_BYTES>();
    if !rest.is_empty() {
        return Err(NOT_WHOLE_FRAMES);
    }
    for (taken, frame) in whole.iter_mut().enumerate() {
        if !reader.hears() || (!reader.is_admitted() && reader.has_events()) {
            return Ok(taken * FRAME_BYTES);
        }
        reader.frame(frame, now_ms).map_err(name)?;
    }
    Ok(bytes.len())
}

fn name(fault: LinkFault) -> &'static str {
    match fault {
        LinkFault::Header(_) => "bad frame header",
        LinkFault::Padding => "padding is not zero",
        LinkFault::Control => "bad control frame",
        LinkFault::NotAdmitted => "a circuit before HELLO",
        LinkFault::CircuitId => "a circuit id out of place",
        LinkFault::TooManyCircuits => "too many circuits",
        LinkFault::Credit => "credit overrun repeatedly",
    }
}

/// What a writer takes from its queue under one lock.
struct Take {
    frames: Vec<FrameBuf>,
    due: Vec<CreditDue<Lane>>,
    closed: bool,
}

impl Take {
    /// Takes the next batch; when there is none, the lane is recorded as asleep.
    fn next(&mut self, lane: &Lane, now_ms: u64) {
        let mut waiting = lock(&lane.0.waiting);
        waiting.queue.recycle(&mut self.frames);
        self.frames.clear();
        waiting.queue.take(LANE_WRITE_FRAMES, now_ms, &mut self.frames, &mut self.due);
        waiting.asleep = self.frames.is_empty();
        self.closed = waiting.queue.is_closed();
    }
}

async fn write(lane: Lane, stream: Arc<TcpStream>, mut sealer: Sealer, clock: Clock) {
    let mut take = Take { frames: Vec::new(), due: Vec::new(), closed: false };
    let mut records = Vec::new();
    loop {
        take.next(&lane, clock.now_ms());
        for CreditDue { lane, circuit, permitted } in take.due.drain(..) {
            lane.queue(|queue| queue.push_credit(circuit, permitted));
        }
        if take.closed {
            break;
        }
        if take.frames.is_empty() {
            lane.0.writer.notified().await;
            continue;
        }
        records.clear();
        if planted("leak-record") {
            records.extend(planted::unsaid());
        }
        for batch in take.frames.chunks(RECORD_FRAMES) {
            let mut parts = [&[][..]; RECORD_FRAMES];
            parts.iter_mut().zip(batch).for_each(|(part, frame)| *part = frame.bytes());
            if sealer.seal(&parts[..batch.len()], &mut records).is_err() {
                return fail(&lane);
            }
        }
        if write_all(&stream, &records).await.is_err() {
            return fail(&lane);
        }
    }
    if let Ok(alert) = sealer.close_notify() {
        let _ = stream.try_write(&alert);
    }
    let _ = socket2::SockRef::from(&*stream).shutdown(std::net::Shutdown::Both);
}

/// The connection broke: the reader sees it as well; nothing may wait here for ever.
fn fail(lane: &Lane) {
    lane.queue(LaneQueue::close);
    lane.close();
}

async fn write_all(stream: &TcpStream, records: &[Vec<u8>]) -> io::Result<()> {
    let mut slices: Vec<_> = records.iter().map(|record| IoSlice::new(record)).collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        match stream.try_write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use port17_proto::crypto::{Entropy, SigningKey};
    use port17_proto::ids::CircuitId;
    use port17_proto::lane::frame::Header;
    use port17_proto::lane::queue::LaneEnd;
    use port17_proto::node::io::LaneId;
    use port17_proto::wire::registry::Command as Code;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::super::tls;
    use super::*;
    use crate::objects::Objects;

    #[derive(Default)]
    struct Told(Mutex<Vec<LaneLoss>>);

    impl Carrier for Told {
        async fn event(&self, _: &Lane, event: LaneEvent) {
            if let LaneEvent::Down(why) = event {
                lock(&self.0).push(why);
            }
        }

        fn setup(&self, _: &Lane, _: CircuitId, _: SetupPacket, _: Granter) {}

        fn faults(&self, _: BTreeMap<CircuitFault, u64>) {}
    }

    /// Both ends of a connection: the dialler's, then the acceptor's.
    async fn connection() -> (Established, Established) {
        let mut entropy = Entropy::from_number(1);
        let (server, client) = (SigningKey::generate(&mut entropy), SigningKey::generate(&mut entropy));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = tls::server_config(&server).unwrap();
        let dialling = async {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            tls::dial(stream, &client, vec![server.public()]).await.unwrap()
        };
        let accepting = async { tls::accept(listener.accept().await.unwrap().0, config).await.unwrap() };
        tokio::join!(dialling, accepting)
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_does_not_hold_a_lane_that_is_closed() {
        let (dialled, _unread) = connection().await;
        let lane = Lane::new(LaneId(1), LaneEnd::Dialler, 10, &Objects::default());
        let told = Arc::new(Told::default());
        let running = tokio::spawn(run(lane.clone(), dialled, Pool::new(1 << 20), Clock::start(), Arc::clone(&told)));
        // More than the kernel's buffers hold: then the writer waits for the peer.
        let circuit = lane.queue(|queue| queue.open(None)).unwrap();
        for _ in 0..200 {
            let frame = || FrameBuf::with_body(Header::new(circuit, Code::Created), &[]);
            let mut batch: Vec<_> = (0..100).map(|_| port17_proto::lane::queue::Outgoing { circuit, frame: frame() }).collect();
            lane.queue(|queue| queue.hand_over(&mut batch, &mut Vec::new()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        lane.close();
        timeout(Duration::from_secs(10), running).await.expect("the lane waits for its peer for ever").unwrap();
        assert_eq!(*lock(&told.0), [LaneLoss::Closed]);
    }
}
