//! The edges of circuits in memory: a client's or an exit's mux, its cells' crypto, and an application that sends and checks.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use port17_proto::circuit::message::{Area, Host, Junk, Target};
use port17_proto::circuit::mux::{Batch, Mux, MuxEvent, StreamState};
use port17_proto::circuit::onion::{ANSWER_AREA, BackwardLayer, client_area};
use port17_proto::circuit::origin::{Answer, Origin, OriginForward};
use port17_proto::ids::{CircuitId, StreamId};
use port17_proto::lane::credit::CreditError;
use port17_proto::lane::frame::{FrameBuf, Header};
use port17_proto::lane::queue::Outgoing;
use port17_proto::lane::reader::{Command, Install, Port, Sink};
use port17_proto::limits::FIRST_WINDOW_CELLS;
use port17_proto::wire::registry::{Command as Code, ResetCode, SetupStatus};

use crate::mesh::Lane;

/// Seals what an edge sends.
pub enum Sealing {
    Nothing,
    Exit(BackwardLayer),
    Building { origin: Box<Origin>, hops: usize, sent: u64 },
    Client(OriginForward),
}

/// How far a client's circuit has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Building,
    Open,
    Refused { hop: usize, status: SetupStatus },
    Broken,
}

/// One edge of one circuit, and the application behind it.
pub struct Edge {
    pub lane: Lane,
    pub circuit: CircuitId,
    pub mux: Mux,
    pub sealing: Sealing,
    pub progress: Progress,
    pub over: bool,
    /// Streams that are there.
    pub streams: Vec<StreamId>,
    /// Bytes still to be sent, by stream.
    pub to_send: BTreeMap<StreamId, u64>,
    /// Bytes sent so far.
    pub sent: BTreeMap<StreamId, u64>,
    /// Bytes that came, all checked.
    pub got: BTreeMap<StreamId, u64>,
    /// Streams whose peer ended its direction.
    pub ended: BTreeSet<StreamId>,
    /// Streams that the application does not read.
    pub stalled: BTreeSet<StreamId>,
    /// An exit's answer: what each new stream sends back.
    pub answer_bytes: u64,
    created: Option<Vec<u8>>,
    batch: Batch,
}

/// Where a stream's bytes are looked up: byte n of every stream is `PATTERN[n % its length]`.
fn pattern() -> &'static [u8] {
    static PATTERN: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    PATTERN.get_or_init(|| (0..200_003u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect())
}

/// Bytes from `at` on, at most `most`.
fn bytes_from(at: u64, most: usize) -> &'static [u8] {
    let from = (at % pattern().len() as u64) as usize;
    &pattern()[from..pattern().len().min(from + most)]
}

pub fn target() -> Target {
    Target { host: Host::Name("origin.demo".into()), port: 80 }
}

impl Edge {
    pub fn new(lane: Lane, circuit: CircuitId, mux: Mux, sealing: Sealing) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            lane,
            circuit,
            mux,
            sealing,
            progress: Progress::Building,
            over: false,
            streams: Vec::new(),
            to_send: BTreeMap::new(),
            sent: BTreeMap::new(),
            got: BTreeMap::new(),
            ended: BTreeSet::new(),
            stalled: BTreeSet::new(),
            answer_bytes: 0,
            created: None,
            batch: Batch::default(),
        }))
    }

    /// Opens a stream that sends this many bytes, then ends its direction.
    pub fn open(&mut self, bytes: u64, now_ms: u64) -> StreamId {
        let id = self.mux.open(&target(), Vec::new(), now_ms).unwrap();
        self.streams.push(id);
        self.to_send.insert(id, bytes);
        id
    }

    /// Ends the circuit from here.
    pub fn end(&mut self, orderly: bool) {
        if !self.over {
            self.over = true;
            self.lane.command(Command::Over(self.circuit));
            self.lane.queue(|queue| queue.destroy(self.circuit, orderly));
        }
    }

    pub fn sweep(&mut self, now_ms: u64, idle_ms: u64) {
        // CREDIT must not overtake the RECLAIM that comes after it.
        self.events();
        self.mux.sweep(now_ms);
        if let Some(to) = self.mux.reclaim(now_ms, idle_ms).filter(|_| !self.over) {
            self.lane.queue(|queue| queue.push_reclaim(self.circuit, to));
        }
    }

    pub fn received(&self) -> u64 {
        self.got.values().sum()
    }

    /// The application's and the circuit's turn; true when something moved.
    pub fn work(&mut self, now_ms: u64) -> bool {
        if self.over {
            return false;
        }
        let mut moved = self.take_created();
        moved |= self.events();
        moved |= self.application(now_ms);
        moved |= self.send(now_ms);
        moved | self.events()
    }

    fn events(&mut self) -> bool {
        let events: Vec<_> = self.mux.drain_events().collect();
        for event in &events {
            match event {
                MuxEvent::Outgoing | MuxEvent::Changed(_) => {}
                MuxEvent::Credit(permitted) => self.lane.queue(|queue| queue.push_credit(self.circuit, *permitted)),
                MuxEvent::Open(id, _) => {
                    self.mux.opened(*id, [192, 0, 2, 1].into(), 60);
                    self.streams.push(*id);
                    self.to_send.insert(*id, self.answer_bytes);
                }
            }
        }
        !events.is_empty()
    }

    fn take_created(&mut self) -> bool {
        let Some(body) = self.created.take() else { return false };
        let Sealing::Building { origin, .. } = std::mem::replace(&mut self.sealing, Sealing::Nothing) else {
            panic!("CREATED for who has asked nothing")
        };
        let mut origin = *origin;
        self.progress = match origin.handle_created(&body) {
            Ok(Answer::Complete) => Progress::Open,
            Ok(Answer::Failed { hop, status }) => Progress::Refused { hop, status },
            Err(_) => Progress::Broken,
        };
        let Some((forward, backward)) = origin.split() else {
            self.end(false);
            return true;
        };
        self.sealing = Sealing::Client(forward);
        self.lane.command(Command::Install(self.circuit, Install::Opened(backward)));
        true
    }

    fn application(&mut self, now_ms: u64) -> bool {
        let mut moved = false;
        for id in self.streams.clone() {
            moved |= self.write_stream(id);
            if !self.stalled.contains(&id) {
                moved |= self.read_stream(id, now_ms);
            }
        }
        moved
    }

    fn write_stream(&mut self, id: StreamId) -> bool {
        let (Some(left), Some(room)) = (self.to_send.get(&id).copied(), self.mux.room(id)) else { return false };
        let at = *self.sent.entry(id).or_default();
        if left == 0 {
            self.to_send.remove(&id);
            self.mux.push_fin(id);
            return true;
        }
        let chunk = bytes_from(at, room.min(usize::try_from(left).unwrap()));
        self.mux.push_data(id, chunk.to_vec());
        self.to_send.insert(id, left - chunk.len() as u64);
        self.sent.insert(id, at + chunk.len() as u64);
        !chunk.is_empty()
    }

    fn read_stream(&mut self, id: StreamId, now_ms: u64) -> bool {
        let Some(received) = self.mux.take(id) else { return false };
        let got = self.got.entry(id).or_default();
        let before = *got;
        for chunk in &received.chunks {
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let expected = bytes_from(*got, rest.len());
                assert!(rest.starts_with(expected), "bytes of stream {} change on the way, at {got}", id.0);
                *got += expected.len() as u64;
                rest = &rest[expected.len()..];
            }
        }
        let bytes = *got - before;
        self.mux.consumed(id, bytes, now_ms);
        let fin = received.fin && self.ended.insert(id);
        bytes > 0 || fin
    }

    fn send(&mut self, now_ms: u64) -> bool {
        let Some(room) = self.lane.queue(|queue| queue.room(self.circuit)) else {
            self.over = true;
            return true;
        };
        let (area, room) = match &self.sealing {
            Sealing::Nothing => return false,
            Sealing::Exit(_) => (ANSWER_AREA, room),
            Sealing::Building { hops, sent, .. } => (client_area(hops - 1), room.min(FIRST_WINDOW_CELLS.saturating_sub(*sent))),
            Sealing::Client(forward) => (client_area(forward.hops() - 1), room),
        };
        let mut batch = Vec::new();
        while (batch.len() as u64) < room.min(64) && self.mux.has_outgoing() {
            let mut frame = FrameBuf::new();
            if !self.mux.fill(frame.bytes_mut()[area.clone()].as_mut_array().unwrap(), now_ms) {
                break;
            }
            let flags = match &mut self.sealing {
                Sealing::Nothing => unreachable!(),
                Sealing::Exit(layer) => {
                    layer.seal_message_backward(frame.bytes_mut());
                    0
                }
                Sealing::Building { origin, hops, sent } => {
                    *sent += 1;
                    origin.seal(*hops - 1, frame.bytes_mut()).unwrap()
                }
                Sealing::Client(forward) => forward.seal(forward.hops() - 1, frame.bytes_mut()).unwrap(),
            };
            frame.set_header(Header { flags, ..Header::new(self.circuit, Code::Cell) });
            batch.push(Outgoing { circuit: self.circuit, frame });
        }
        let moved = !batch.is_empty();
        self.lane.queue(|queue| queue.hand_over(&mut batch, &mut Vec::new()));
        moved
    }

    pub fn state(&self, id: StreamId) -> StreamState {
        self.mux.state(id)
    }
}

/// The reader's end of an [`Edge`].
pub struct EdgeSink(pub Rc<RefCell<Edge>>);

impl Sink for EdgeSink {
    fn cell(&mut self, area: &Area) -> Result<(), Junk> {
        self.0.borrow_mut().batch.add(area)
    }

    fn flush(&mut self, now_ms: u64) -> Result<(), Junk> {
        let edge = &mut *self.0.borrow_mut();
        edge.mux.receive(&mut edge.batch, now_ms)
    }

    fn created(&mut self, body: &[u8]) {
        self.0.borrow_mut().created = Some(body.to_vec());
    }

    fn limited(&mut self, limit: u64, now_ms: u64) -> Result<Option<u64>, CreditError> {
        self.0.borrow_mut().mux.limited(limit, now_ms)
    }

    fn closed(&mut self) {
        let edge = &mut *self.0.borrow_mut();
        // A refusal that came together with the end is still to be told.
        edge.take_created();
        edge.over = true;
        edge.mux.close(ResetCode::Protocol, 0);
    }
}
