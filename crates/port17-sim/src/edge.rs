//! Edges of circuits and the applications behind them: a client's streams, and the servers that an exit reaches.
//!
//! A stream's name says what it is about: the server learns from it how many bytes are to come and how many to send back. Byte `n` of
//! a stream is known to both, and every byte that arrives is compared.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use port17_proto::circuit::message::{Area, Host, Junk, Target};
use port17_proto::circuit::mux::{Batch, Mux, MuxEvent, StreamState};
use port17_proto::circuit::onion::{ANSWER_AREA, BackwardLayer, client_area};
use port17_proto::circuit::origin::{Answer, Origin, OriginForward};
use port17_proto::ids::{CircuitId, NodeId, StreamId};
use port17_proto::lane::credit::CreditError;
use port17_proto::lane::frame::{FrameBuf, Header};
use port17_proto::lane::queue::Outgoing;
use port17_proto::lane::reader::{Command, Install, Port, Sink};
use port17_proto::limits::{FIRST_WINDOW_CELLS, LANE_WRITE_FRAMES};
use port17_proto::wire::registry::{CELL_FLAG_FRESH, Command as Code, ResetCode, SetupStatus};

use crate::judge::Findings;
use crate::lane::{Agenda, Lane};

/// An edge that its lane's reader and the world both know.
pub type EdgeRef = Rc<RefCell<Edge>>;

/// A stream as both its ends know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPlan {
    /// Tells it from all others.
    pub tag: u64,
    /// Bytes from the application to the server.
    pub up: u64,
    /// Bytes back.
    pub down: u64,
}

impl StreamPlan {
    /// The name that it is opened by.
    pub fn target(&self) -> Target {
        Target { host: Host::Name(format!("s{}-u{}-d{}.sim", self.tag, self.up, self.down)), port: 80 }
    }

    fn of(target: &Target) -> Option<Self> {
        let Host::Name(name) = &target.host else { return None };
        let mut numbers = name.to_string().strip_suffix(".sim")?.split('-').map(str::to_owned).collect::<Vec<_>>().into_iter();
        let mut next = |letter: char| numbers.next()?.strip_prefix(letter)?.parse().ok();
        Some(Self { tag: next('s')?, up: next('u')?, down: next('d')? })
    }
}

const PATTERN_BYTES: usize = 200_003;

/// Bytes of a stream's one direction from `at` on, at most `most`.
fn bytes_from(tag: u64, at: u64, most: usize) -> &'static [u8] {
    static PATTERN: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let pattern = PATTERN
        .get_or_init(|| (0..PATTERN_BYTES as u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]).collect());
    let from = usize::try_from((at + tag.wrapping_mul(7919) % PATTERN_BYTES as u64) % PATTERN_BYTES as u64).unwrap_or(0);
    &pattern[from..PATTERN_BYTES.min(from + most)]
}

/// Seals what an edge sends.
pub enum Sealing {
    /// The circuit is over, or its answer is being looked at.
    Nothing,
    /// An exit's.
    Exit(BackwardLayer),
    /// A client's before the answer.
    Building {
        /// The circuit's keys.
        origin: Box<Origin>,
        /// Length of the route.
        hops: usize,
        /// Cells sent so far: no more than the first window.
        sent: u64,
    },
    /// A client's after it.
    Client(OriginForward),
}

/// How far a client's circuit has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No answer yet.
    Building,
    /// Every hop is part of it.
    Open,
    /// A hop (0 is the guard) refused.
    Refused(usize, SetupStatus),
    /// The answer was not authentic.
    Broken,
}

/// What a client does with the keys that the answer's fresh ones take the place of.
pub(crate) enum FirstKeys {
    /// They are erased, as they must be.
    Erased,
    /// A liar keeps the circuit as it was before its answer.
    Kept {
        /// With the first keys.
        origin: Box<Origin>,
        /// Cells that went under the fresh ones since.
        fresh_cells: u64,
    },
    /// A liar has sealed a cell with them behind cells under the fresh ones.
    Used,
}

/// One stream at one edge.
pub struct Flow {
    /// What it is about.
    pub plan: StreamPlan,
    to_send: u64,
    sent: u64,
    /// Bytes that came, all compared.
    pub got: u64,
    fin_pushed: bool,
    /// The peer has ended its direction.
    pub ended: bool,
    /// The exit has answered.
    pub opened: bool,
}

/// One edge of one circuit.
pub struct Edge {
    /// The lane that it is on.
    pub lane: Lane,
    /// The circuit there.
    pub circuit: CircuitId,
    /// Its streams, as shipped.
    pub mux: Mux,
    pub(crate) sealing: Sealing,
    /// How far it has come; a client's.
    pub progress: Progress,
    /// It has ended.
    pub is_over: bool,
    /// It was ended from here.
    pub(crate) ended_here: bool,
    /// A client's route, guard first.
    pub route: Vec<NodeId>,
    /// The slot of its SETUP; a client's.
    pub(crate) slot: u32,
    /// Its streams.
    pub flows: BTreeMap<StreamId, Flow>,
    /// It stands on the agenda.
    pub(crate) is_due: bool,
    created: Option<Vec<u8>>,
    pub(crate) first_keys: FirstKeys,
    batch: Batch,
    agenda: Rc<Agenda>,
    findings: Rc<Findings>,
}

impl Edge {
    pub(crate) fn new(
        lane: Lane,
        circuit: CircuitId,
        mux: Mux,
        sealing: Sealing,
        agenda: Rc<Agenda>,
        findings: Rc<Findings>,
    ) -> EdgeRef {
        Rc::new(RefCell::new(Self {
            lane,
            circuit,
            mux,
            sealing,
            progress: Progress::Building,
            is_over: false,
            ended_here: false,
            route: Vec::new(),
            slot: 0,
            flows: BTreeMap::new(),
            is_due: false,
            created: None,
            first_keys: FirstKeys::Erased,
            batch: Batch::default(),
            agenda,
            findings,
        }))
    }

    /// Opens a stream; none when the circuit takes no more.
    pub fn open(&mut self, plan: StreamPlan, now_ms: u64) -> Option<StreamId> {
        let id = self.mux.open(&plan.target(), Vec::new(), now_ms).ok()?;
        self.flows.insert(id, Flow { plan, to_send: plan.up, sent: 0, got: 0, fin_pushed: false, ended: false, opened: false });
        Some(id)
    }

    /// Ends the circuit from here.
    pub fn end(&mut self, orderly: bool) {
        if !self.is_over {
            self.is_over = true;
            self.ended_here = true;
            self.lane.command(Command::Over(self.circuit));
            self.lane.queue(|queue| queue.destroy(self.circuit, orderly));
        }
    }

    pub(crate) fn sweep(&mut self, now_ms: u64, idle_ms: u64) {
        // CREDIT must not overtake the RECLAIM that comes after it.
        self.events();
        self.mux.sweep(now_ms);
        if let Some(to) = self.mux.reclaim(now_ms, idle_ms).filter(|_| !self.is_over) {
            self.lane.queue(|queue| queue.push_reclaim(self.circuit, to));
        }
    }

    /// Streams that both sides have ended, or that were reset.
    pub fn state(&self, id: StreamId) -> StreamState {
        self.mux.state(id)
    }

    /// The application's and the circuit's turn, until nothing moves.
    pub(crate) fn work(&mut self, now_ms: u64) {
        while !self.is_over {
            let mut moved = self.take_created();
            moved |= self.events();
            moved |= self.application(now_ms);
            moved |= self.send(now_ms);
            moved |= self.events();
            if !moved {
                return;
            }
        }
    }

    fn events(&mut self) -> bool {
        let events: Vec<_> = self.mux.drain_events().collect();
        for event in &events {
            match event {
                MuxEvent::Outgoing => {}
                MuxEvent::Changed(id) => {
                    if self.mux.state(*id) == StreamState::Open
                        && let Some(flow) = self.flows.get_mut(id)
                    {
                        flow.opened = true;
                    }
                }
                MuxEvent::Credit(permitted) => self.lane.queue(|queue| queue.push_credit(self.circuit, *permitted)),
                MuxEvent::Open(id, target) => self.serve(*id, target),
            }
        }
        !events.is_empty()
    }

    /// An exit dials: its server answers at once.
    fn serve(&mut self, id: StreamId, target: &Target) {
        let Some(plan) = StreamPlan::of(target) else {
            return self.findings.report("target", format!("an exit was asked for {target:?}, which nobody has opened"));
        };
        self.mux.opened(id, [192, 0, 2, 1].into(), 60);
        let flow = Flow { plan, to_send: plan.down, sent: 0, got: 0, fin_pushed: false, ended: false, opened: true };
        self.flows.insert(id, flow);
    }

    fn take_created(&mut self) -> bool {
        let Some(body) = self.created.take() else { return false };
        let Sealing::Building { origin, .. } = std::mem::replace(&mut self.sealing, Sealing::Nothing) else { return false };
        let mut origin = *origin;
        self.progress = match origin.handle_created(&body) {
            Ok(Answer::Complete) => Progress::Open,
            Ok(Answer::Failed { hop, status }) => Progress::Refused(hop, status),
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
        let ids: Vec<StreamId> = self.flows.keys().copied().collect();
        ids.into_iter().fold(false, |moved, id| self.write(id) | self.read(id, now_ms) | moved)
    }

    fn write(&mut self, id: StreamId) -> bool {
        let (Some(flow), Some(room)) = (self.flows.get_mut(&id), self.mux.room(id)) else { return false };
        if flow.to_send == flow.sent {
            if !flow.fin_pushed {
                flow.fin_pushed = true;
                self.mux.push_fin(id);
                return true;
            }
            return false;
        }
        let most = room.min(usize::try_from(flow.to_send - flow.sent).unwrap_or(usize::MAX));
        let chunk = bytes_from(flow.plan.tag, flow.sent, most);
        flow.sent += chunk.len() as u64;
        self.mux.push_data(id, chunk.to_vec());
        !chunk.is_empty()
    }

    fn read(&mut self, id: StreamId, now_ms: u64) -> bool {
        let Some(flow) = self.flows.get_mut(&id) else { return false };
        let Some(received) = self.mux.take(id) else { return false };
        let before = flow.got;
        for chunk in &received.chunks {
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let expected = bytes_from(flow.plan.tag, flow.got, rest.len());
                if !rest.starts_with(expected) {
                    let what = format!("stream {}: other bytes than were sent, from byte {} on", flow.plan.tag, flow.got);
                    self.findings.report("prefix", what);
                    break;
                }
                flow.got += expected.len() as u64;
                rest = &rest[expected.len()..];
            }
        }
        let came = flow.got - before;
        let ended = received.fin && !flow.ended;
        flow.ended |= received.fin;
        self.mux.consumed(id, came, now_ms);
        came > 0 || ended
    }

    fn send(&mut self, now_ms: u64) -> bool {
        let Some(room) = self.lane.queue(|queue| queue.room(self.circuit)) else {
            self.is_over = true;
            return true;
        };
        let (area, room) = match &self.sealing {
            Sealing::Nothing => return false,
            Sealing::Exit(_) => (ANSWER_AREA, room),
            Sealing::Building { hops, sent, .. } => (client_area(hops - 1), room.min(FIRST_WINDOW_CELLS.saturating_sub(*sent))),
            Sealing::Client(forward) => (client_area(forward.hops() - 1), room),
        };
        let mut batch = Vec::new();
        while (batch.len() as u64) < room.min(LANE_WRITE_FRAMES as u64) && self.mux.has_outgoing() {
            let mut frame = FrameBuf::new();
            let Some(cell) = frame.bytes_mut()[area.clone()].as_mut_array() else { break };
            if !self.mux.fill(cell, now_ms) {
                break;
            }
            let kept = self.seal_with_kept(&frame, area.clone());
            let sealed = match &mut self.sealing {
                Sealing::Nothing => break,
                Sealing::Exit(layer) => {
                    layer.seal_message_backward(frame.bytes_mut());
                    Ok(0)
                }
                Sealing::Building { origin, hops, sent } => {
                    *sent += 1;
                    origin.seal(*hops - 1, frame.bytes_mut()).map_err(|_| ())
                }
                Sealing::Client(forward) => forward.seal(forward.hops() - 1, frame.bytes_mut()).map_err(|_| ()),
            };
            let Ok(flags) = sealed else { break };
            if matches!(self.sealing, Sealing::Client(_)) && flags != CELL_FLAG_FRESH {
                self.findings.report("keys", "a client goes on under the first keys".into());
            }
            frame.set_header(Header { flags, ..Header::new(self.circuit, Code::Cell) });
            batch.push(Outgoing { circuit: self.circuit, frame: kept.unwrap_or(frame) });
        }
        let moved = !batch.is_empty();
        if moved {
            self.lane.queue(|queue| queue.hand_over(&mut batch, &mut Vec::new()));
        }
        moved
    }

    /// A liar's kept keys count along, and seal the cell behind the first ones under fresh keys.
    fn seal_with_kept(&mut self, plain: &FrameBuf, area: Range<usize>) -> Option<FrameBuf> {
        const FRESH_CELLS: u64 = 20;
        let FirstKeys::Kept { origin, fresh_cells } = &mut self.first_keys else { return None };
        let mut frame = FrameBuf::new();
        frame.bytes_mut()[area.clone()].copy_from_slice(&plain.bytes()[area]);
        let flags = origin.seal(self.route.len() - 1, frame.bytes_mut()).ok()?;
        *fresh_cells += u64::from(matches!(self.sealing, Sealing::Client(_)));
        if *fresh_cells <= FRESH_CELLS {
            return None;
        }
        frame.set_header(Header { flags, ..Header::new(self.circuit, Code::Cell) });
        self.first_keys = FirstKeys::Used;
        Some(frame)
    }

    /// Whether a cell was sealed with the first keys behind the fresh ones; said once.
    pub(crate) fn went_back(&mut self) -> bool {
        let went_back = matches!(self.first_keys, FirstKeys::Used);
        if went_back {
            self.first_keys = FirstKeys::Erased;
        }
        went_back
    }

    /// Puts the edge on the agenda, unless it stands there.
    pub(crate) fn note(edge: &EdgeRef) {
        let agenda = {
            let mut it = edge.borrow_mut();
            if std::mem::replace(&mut it.is_due, true) {
                return;
            }
            Rc::clone(&it.agenda)
        };
        agenda.push_edge(Rc::clone(edge));
    }
}

/// The reader's end of an [`Edge`].
pub struct EdgeSink(pub EdgeRef);

impl Sink for EdgeSink {
    fn cell(&mut self, area: &Area) -> Result<(), Junk> {
        self.0.borrow_mut().batch.add(area)
    }

    fn flush(&mut self, now_ms: u64) -> Result<(), Junk> {
        let done = {
            let edge = &mut *self.0.borrow_mut();
            edge.mux.receive(&mut edge.batch, now_ms)
        };
        Edge::note(&self.0);
        done
    }

    fn created(&mut self, body: &[u8]) {
        self.0.borrow_mut().created = Some(body.to_vec());
        Edge::note(&self.0);
    }

    fn limited(&mut self, limit: u64, now_ms: u64) -> Result<Option<u64>, CreditError> {
        self.0.borrow_mut().mux.limited(limit, now_ms)
    }

    fn closed(&mut self) {
        let edge = &mut *self.0.borrow_mut();
        // A refusal that came together with the end is still to be told.
        edge.take_created();
        edge.is_over = true;
        edge.mux.close(ResetCode::Protocol, 0);
    }
}
