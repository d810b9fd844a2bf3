//! What arrives on one lane: frames in, and the crypto state of every half-hop that arrives here (spec 05, 2; spec 06).
//!
//! A hop's forward state belongs to the previous lane's reader, its backward state to the next lane's reader, so opening or sealing
//! a layer needs no lock. A batch goes: [`Reader::frame`] for each frame, which opens or seals it into a frame of the target lane
//! and stages that; then [`Reader::end_batch`], which hands every lane its share. Others change a reader's circuits by
//! [`Command`]s, which it takes between batches.
//!
//! Whatever a peer sends costs it at most its circuit (counted, [`CircuitFault`]) or its link ([`LinkFault`]).

use std::collections::BTreeMap;

use super::credit::{CreditError, Granter, Permitted, Pool};
use super::frame::{Frame, FrameBuf, Header, HeaderError, pairs};
use super::queue::{LaneQueue, Outgoing};
use crate::circuit::created::CreatedSealer;
use crate::circuit::message::{Area, Junk};
use crate::circuit::onion::{BackwardLayer, CellKind, ForwardLayer, OPENED_AREA};
use crate::circuit::origin::OriginBackward;
use crate::circuit::setup::{SetupPacket, SetupParts};
use crate::ids::CircuitId;
use crate::limits::{CREDIT_BREACHES, FIRST_WINDOW_CELLS, LANE_CIRCUITS, LANE_WRITE_FRAMES};
use crate::planted::planted;
use crate::wire::message::read_control_body;
use crate::wire::registry::{BODY_BYTES, CONTROL_FLAG_URGENT, Command as Code, HEADER_BYTES, MESSAGE_BYTES, SetupStatus};

use std::sync::Arc;

/// A lane as others see it: its queue, and a way to its reader.
pub trait Port: Clone + PartialEq + Sized {
    /// Where the edges of circuits deliver.
    type Sink: Sink;

    /// Works on the lane's queue under its lock, and wakes its writer if there is something to send.
    fn queue<R>(&self, work: impl FnOnce(&mut LaneQueue<Self>) -> R) -> R;

    /// Tells the lane's reader something, before its next batch. Dropped when the reader is gone: a command may hold what holds the
    /// lane, and would keep both and their memory for ever.
    fn command(&self, command: Command<Self>);
}

/// The edge of a circuit: what its cells say ends here.
pub trait Sink {
    /// The message area of one cell.
    ///
    /// # Errors
    /// On junk: the circuit is destroyed.
    fn cell(&mut self, area: &Area) -> Result<(), Junk>;

    /// The batch is over: deliver.
    ///
    /// # Errors
    /// On junk: the circuit is destroyed.
    fn flush(&mut self, now_ms: u64) -> Result<(), Junk>;

    /// The answer to the SETUP of a circuit that begins here.
    fn created(&mut self, body: &[u8]);

    /// The peer's LIMIT. Gives the credit that is due.
    ///
    /// # Errors
    /// When the peer lies.
    fn limited(&mut self, limit: u64, now_ms: u64) -> Result<Option<u64>, CreditError>;

    /// The circuit is over.
    fn closed(&mut self);
}

/// A change of a reader's circuits by others.
pub enum Command<P: Port> {
    /// The memory for what arrives from now on: the peer's share.
    Memory(Arc<Pool>),
    /// One more message may be passed on before the lane is admitted.
    Hear,
    /// The lane may carry circuits now.
    Admit(Admission),
    /// A circuit got its state: a SETUP was processed, or a circuit was opened from here.
    Install(CircuitId, Install<P>),
    /// The circuit was ended by someone else, who has queued the DESTROY.
    Over(CircuitId),
}

impl<P: Port> Command<P> {
    /// The lane is gone and takes no commands: ends what this one would have joined to it. Else the other half of a circuit would
    /// live on for as long as its own lane does.
    pub fn abandon(self) {
        match self {
            Self::Install(_, Install::Forward { to, circuit, .. }) => end_half(&to, circuit, Vec::new(), false),
            Self::Install(_, Install::Backward { created, to, circuit, .. }) => {
                let report = created_frame(circuit, &created.answer(SetupStatus::NextRefused)[..]);
                end_half(&to, circuit, vec![report], true);
            }
            Self::Install(_, Install::Exit { mut sink, .. } | Install::Origin { mut sink, .. }) => sink.closed(),
            Self::Install(_, Install::Opened(_)) | Self::Memory(_) | Self::Hear | Self::Admit(_) | Self::Over(_) => {}
        }
    }
}

fn end_half<P: Port>(lane: &P, circuit: CircuitId, mut last: Vec<Outgoing>, orderly: bool) {
    lane.queue(|queue| {
        queue.hand_over(&mut last, &mut Vec::new());
        queue.destroy(circuit, orderly);
    });
    lane.command(Command::Over(circuit));
}

/// What a lane's peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Circuits it may have open.
    pub circuits: usize,
    /// SETUPs in a second.
    pub setups_per_second: u64,
    /// SETUPs at once.
    pub setups_burst: u64,
    /// Breaches of credit are remembered this long, in milliseconds.
    pub breach_window_ms: u64,
}

/// The state of a half-hop.
pub enum Install<P: Port> {
    /// Cells from the client's side go on to the next lane.
    Forward {
        /// The hop's forward layer.
        layer: ForwardLayer,
        /// The next lane.
        to: P,
        /// The circuit there.
        circuit: CircuitId,
    },
    /// Cells from the exit's side go back to the previous lane.
    Backward {
        /// The hop's backward layer.
        layer: BackwardLayer,
        /// The hop's own answer, waiting for the next hop's.
        created: CreatedSealer,
        /// The previous lane.
        to: P,
        /// The circuit there.
        circuit: CircuitId,
        /// Cells that may arrive.
        permitted: Permitted,
    },
    /// This node is the exit.
    Exit {
        /// The exit's forward layer.
        layer: ForwardLayer,
        /// Where streams end.
        sink: P::Sink,
    },
    /// A circuit of this client, waiting for its answer.
    Origin {
        /// Where streams end.
        sink: P::Sink,
        /// Cells that may arrive.
        permitted: Permitted,
    },
    /// The answer was right: cells can be opened.
    Opened(OriginBackward),
}

/// Something for others to do; drained after a batch.
pub enum Event {
    /// A whole urgent message, or the next piece of the message stream.
    Control {
        /// Whether it is a whole message.
        urgent: bool,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A SETUP is complete: public-key work. Its circuit waits.
    Setup {
        /// The circuit on this lane.
        circuit: CircuitId,
        /// The packet.
        packet: SetupPacket,
        /// Permits the cells of the circuit, reserved already.
        granter: Granter,
    },
}

/// Why a circuit was destroyed from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CircuitFault {
    /// Its SETUP's parts do not fit together.
    SetupParts,
    /// No memory for its first window, or too many SETUPs.
    SetupRefused,
    /// A cell was not authentic, out of order or replayed.
    Authentication,
    /// A message for a relay.
    RelayMessage,
    /// A cell beyond credit, or a false LIMIT.
    Credit,
    /// A frame that its state does not allow: CREATED twice, CELL before CREATED, SETUP again.
    State,
    /// Junk in its messages.
    Junk,
}

impl CircuitFault {
    /// The word for status and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SetupParts => "circuit-setup-parts",
            Self::SetupRefused => "circuit-setup-refused",
            Self::Authentication => "circuit-not-authentic",
            Self::RelayMessage => "circuit-relay-message",
            Self::Credit => "circuit-credit",
            Self::State => "circuit-state",
            Self::Junk => "circuit-junk",
        }
    }
}

/// Why the link must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkFault {
    /// A header that no honest peer writes.
    #[error("bad frame header: {0}")]
    Header(#[from] HeaderError),
    /// Bytes that must be zero are not.
    #[error("padding is not zero")]
    Padding,
    /// A CONTROL frame whose length is 0 or more than it holds, or whose rest is not zero.
    #[error("bad control frame")]
    Control,
    /// Circuits before the lane was opened.
    #[error("a circuit on a lane that was not opened")]
    NotAdmitted,
    /// A circuit id that the peer may not use, or a frame of a circuit that does not exist.
    #[error("a circuit id out of place")]
    CircuitId,
    /// More circuits than the lane carries.
    #[error("too many circuits")]
    TooManyCircuits,
    /// Credit was overrun again and again.
    #[error("credit was overrun repeatedly")]
    Credit,
}

struct Entry<P: Port> {
    received: u64,
    permitted: Permitted,
    state: State<P>,
}

enum State<P: Port> {
    Assembling(SetupParts, Granter),
    /// SETUP is being processed; its first cells wait in the reserved window.
    Opening(Vec<(u8, FrameBuf)>),
    Forward {
        layer: ForwardLayer,
        to: P,
        circuit: CircuitId,
    },
    Backward {
        layer: BackwardLayer,
        created: Option<CreatedSealer>,
        to: P,
        circuit: CircuitId,
    },
    Exit {
        layer: ForwardLayer,
        sink: P::Sink,
    },
    /// Waits for CREATED.
    Origin(P::Sink),
    /// CREATED is being processed; cells behind it wait.
    OriginOpening(P::Sink, Vec<(u8, FrameBuf)>),
    OriginOpen {
        layers: OriginBackward,
        sink: P::Sink,
    },
    /// DESTROY was sent, the peer's is missing.
    Dying,
}

/// See the module's text.
pub struct Reader<P: Port> {
    own: P,
    pool: Arc<Pool>,
    admission: Option<Admission>,
    /// Before admission: a message may be passed on.
    hears: bool,
    setups: u64,
    setups_at_ms: u64,
    circuits: BTreeMap<CircuitId, Entry<P>>,
    /// The lanes that this batch has frames for.
    staged: Vec<(P, Vec<Outgoing>)>,
    /// Empty lists for `staged`, to be used again.
    batches: Vec<Vec<Outgoing>>,
    touched: Vec<CircuitId>,
    spare: Vec<FrameBuf>,
    events: Vec<Event>,
    faults: BTreeMap<CircuitFault, u64>,
    breaches: Vec<u64>,
}

impl<P: Port> Reader<P> {
    /// A reader without circuits. `own` is the lane itself, `pool` the memory for what arrives.
    pub fn new(own: P, pool: Arc<Pool>) -> Self {
        Self {
            own,
            pool,
            admission: None,
            hears: true,
            setups: 0,
            setups_at_ms: 0,
            circuits: BTreeMap::new(),
            staged: Vec::new(),
            batches: Vec::new(),
            touched: Vec::new(),
            spare: Vec::new(),
            events: Vec::new(),
            faults: BTreeMap::new(),
            breaches: Vec::new(),
        }
    }

    /// What others must do.
    pub fn drain_events(&mut self) -> std::vec::Drain<'_, Event> {
        self.events.drain(..)
    }

    /// Circuits destroyed from here since the last call, by reason.
    pub fn take_faults(&mut self) -> BTreeMap<CircuitFault, u64> {
        std::mem::take(&mut self.faults)
    }

    /// Whether there is something to drain.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether the lane may carry circuits.
    pub fn is_admitted(&self) -> bool {
        self.admission.is_some()
    }

    /// Whether frames may be taken: always on an admitted lane, before that until one whole control message was passed on. What
    /// follows it may already be a circuit's, if the answer to it admits the lane; so the next waits for that answer.
    pub fn hears(&self) -> bool {
        self.is_admitted() || self.hears
    }

    /// A whole control message was passed on.
    pub fn passed_on(&mut self) {
        self.hears = false;
    }

    /// Circuits in any state.
    pub fn circuits(&self) -> usize {
        self.circuits.len()
    }

    /// Takes one frame. Its bytes are used up. Times are milliseconds of one monotone clock.
    ///
    /// # Errors
    /// When the link must be closed.
    pub fn frame(&mut self, frame: &mut Frame, now_ms: u64) -> Result<(), LinkFault> {
        let header = Header::decode(frame)?;
        // spec 05, 7: ids that wait for the peer's DESTROY count as well; one that never answers must not fill memory.
        if self.circuits.len() > LANE_CIRCUITS {
            return Err(LinkFault::TooManyCircuits);
        }
        match header.command {
            Code::Cell => return self.cell(header, frame, now_ms),
            Code::Padding => return zero(&frame[HEADER_BYTES..]),
            Code::Control => return self.control(header, &frame[HEADER_BYTES..]),
            Code::Setup | Code::Created | Code::Credit | Code::Reclaim | Code::Limit | Code::Destroy => {}
        }
        if self.admission.is_none() {
            return Err(LinkFault::NotAdmitted);
        }
        let body = &frame[HEADER_BYTES..];
        match header.command {
            Code::Setup => self.setup(header, body, now_ms),
            Code::Created => self.created(header.circuit, body),
            Code::Credit => {
                let pairs: Vec<_> = pairs(body)?.collect();
                self.own.queue(|queue| pairs.iter().for_each(|(circuit, cells)| queue.credited(*circuit, *cells)));
                Ok(())
            }
            Code::Reclaim => {
                let pairs: Vec<_> = pairs(body)?.collect();
                self.own.queue(|queue| pairs.iter().for_each(|(circuit, to)| queue.reclaimed(*circuit, *to)));
                Ok(())
            }
            Code::Limit => self.limit(body, now_ms),
            Code::Destroy => self.destroyed(header.circuit, body),
            Code::Cell | Code::Padding | Code::Control => Ok(()),
        }
    }

    /// Hands over what the batch made: frames to their lanes, bytes to their streams.
    pub fn end_batch(&mut self, now_ms: u64) {
        for (lane, mut batch) in self.staged.drain(..) {
            lane.queue(|queue| queue.hand_over(&mut batch, &mut self.spare));
            self.batches.push(batch);
        }
        for circuit in std::mem::take(&mut self.touched) {
            let flushed = match self.circuits.get_mut(&circuit).map(|entry| &mut entry.state) {
                Some(State::Exit { sink, .. } | State::OriginOpen { sink, .. }) => sink.flush(now_ms),
                Some(_) | None => Ok(()),
            };
            if flushed.is_err() {
                self.fail(circuit, CircuitFault::Junk);
            }
        }
    }

    /// Takes a command, between batches.
    pub fn command(&mut self, command: Command<P>, now_ms: u64) {
        match command {
            Command::Memory(pool) => self.pool = pool,
            Command::Hear => self.hears = true,
            Command::Admit(admission) => {
                self.setups = admission.setups_burst;
                self.setups_at_ms = now_ms;
                self.admission = Some(admission);
            }
            Command::Install(circuit, install) => self.install(circuit, install, now_ms),
            Command::Over(circuit) => {
                if let Some(entry) = self.circuits.get_mut(&circuit) {
                    entry.state = State::Dying;
                    // A peer that was quick may use the id for its next circuit already: that one must not be left half alive.
                    self.own.queue(|queue| queue.destroy(circuit, true));
                }
            }
        }
    }

    /// The lane is gone: so are its circuits, on the other lanes too (spec 05, 5).
    ///
    /// `pending` takes the commands that wait and lets no more in. It is called once the queue is closed: who gave one before can
    /// rely on it, who gives one later sees that the lane is gone.
    pub fn close(&mut self, pending: impl FnOnce() -> Vec<Command<P>>, now_ms: u64) {
        self.own.queue(LaneQueue::close);
        pending().into_iter().for_each(|command| self.command(command, now_ms));
        for entry in std::mem::take(&mut self.circuits).into_values() {
            if planted("lost-lane-leaves-its-circuits") && matches!(entry.state, State::Forward { .. }) {
                continue;
            }
            self.part(entry.state, true);
        }
        self.end_batch(now_ms);
    }

    // ---- Control ----

    fn control(&mut self, header: Header, body: &[u8]) -> Result<(), LinkFault> {
        let bytes = body.first_chunk::<BODY_BYTES>().and_then(|body| read_control_body(body).ok()).ok_or(LinkFault::Control)?;
        self.events.push(Event::Control { urgent: header.flags == CONTROL_FLAG_URGENT, bytes: bytes.to_vec() });
        Ok(())
    }

    fn limit(&mut self, body: &[u8], now_ms: u64) -> Result<(), LinkFault> {
        let pairs: Vec<_> = pairs(body)?.collect();
        for (circuit, limit) in pairs {
            let answer = self.limited(circuit, limit, now_ms);
            match answer {
                Ok(Some(permitted)) => self.own.queue(|queue| queue.push_credit(circuit, permitted)),
                Ok(None) => {}
                Err(_) => self.breach(circuit, now_ms)?,
            }
        }
        Ok(())
    }

    /// Gives a LIMIT to who asked for it, and the credit that is due.
    fn limited(&mut self, circuit: CircuitId, limit: u64, now_ms: u64) -> Result<Option<u64>, CreditError> {
        let Some(entry) = self.circuits.get_mut(&circuit) else { return Ok(None) };
        // spec 06, M34: cells that came and wait here still need their memory.
        let below = limit < entry.received;
        match &mut entry.state {
            // spec 06, M35
            State::Dying => Ok(None),
            _ if below => Err(CreditError),
            State::Forward { to, circuit: there, .. } | State::Backward { to, circuit: there, .. } => {
                let there = *there;
                to.queue(|queue| queue.limited(there, limit, now_ms))
            }
            // A client asks as soon as its SETUP is sent, so the answer may come before CREATED.
            State::Exit { sink, .. } | State::OriginOpen { sink, .. } => sink.limited(limit, now_ms),
            State::Origin(sink) | State::OriginOpening(sink, _) => sink.limited(limit, now_ms),
            State::Assembling(..) | State::Opening(_) => Err(CreditError),
        }
    }

    // ---- SETUP and CREATED ----

    fn setup(&mut self, header: Header, body: &[u8], now_ms: u64) -> Result<(), LinkFault> {
        let circuit = header.circuit;
        // spec 05, 3: whatever has become of the id.
        if !self.own.queue(|queue| queue.end().peer_may_open(circuit)) && !planted("setup-with-our-id") {
            return Err(LinkFault::CircuitId);
        }
        let Some(entry) = self.circuits.get_mut(&circuit) else { return self.setup_begins(header, body, now_ms) };
        let State::Assembling(parts, _) = &mut entry.state else {
            // spec 05, 2: frames for a dying id are dropped.
            if !matches!(entry.state, State::Dying) {
                self.fail(circuit, CircuitFault::State);
            }
            return Ok(());
        };
        match parts.push(header.part, header.depth, body) {
            Ok(false) => {}
            Ok(true) => {
                let State::Assembling(parts, granter) = std::mem::replace(&mut entry.state, State::Opening(Vec::new())) else {
                    return Ok(());
                };
                match parts.finish() {
                    Ok(packet) => self.events.push(Event::Setup { circuit, packet, granter }),
                    Err(_) => self.fail(circuit, CircuitFault::SetupParts),
                }
            }
            Err(_) => self.fail(circuit, CircuitFault::SetupParts),
        }
        Ok(())
    }

    fn setup_begins(&mut self, header: Header, body: &[u8], now_ms: u64) -> Result<(), LinkFault> {
        let circuit = header.circuit;
        // spec 05, 3: nothing of a SETUP comes before its part 0.
        if header.part != 0 {
            return Err(LinkFault::CircuitId);
        }
        if self.circuits.len() >= LANE_CIRCUITS || !self.own.queue(|queue| queue.accept(circuit)) {
            return Err(LinkFault::TooManyCircuits);
        }
        // spec 06, 4: the first window is reserved before anything is done for the circuit.
        let reservation = self.may_set_up(now_ms).then(|| self.pool.reserve(FIRST_WINDOW_CELLS)).flatten();
        let (Some(reservation), Ok(parts)) = (reservation, SetupParts::begin(header.part, header.depth, body)) else {
            self.circuits.insert(circuit, Entry { received: 0, permitted: Permitted::none(), state: State::Dying });
            self.own.queue(|queue| queue.destroy(circuit, false));
            *self.faults.entry(CircuitFault::SetupRefused).or_default() += 1;
            return Ok(());
        };
        let granter = Granter::new(reservation, self.own.queue(|queue| queue.pace()), now_ms);
        let permitted = granter.permitted();
        self.circuits.insert(circuit, Entry { received: 0, permitted, state: State::Assembling(parts, granter) });
        Ok(())
    }

    fn may_set_up(&mut self, now_ms: u64) -> bool {
        let Some(admission) = self.admission else { return false };
        let earned = now_ms.saturating_sub(self.setups_at_ms).saturating_mul(admission.setups_per_second) / 1000;
        if earned > 0 {
            self.setups = self.setups.saturating_add(earned).min(admission.setups_burst);
            self.setups_at_ms = now_ms;
        }
        if self.setups == 0 || self.circuits.len() >= admission.circuits {
            return false;
        }
        self.setups -= 1;
        true
    }

    fn created(&mut self, circuit: CircuitId, body: &[u8]) -> Result<(), LinkFault> {
        let entry = self.circuits.get_mut(&circuit).ok_or(LinkFault::CircuitId)?;
        match &mut entry.state {
            State::Backward { created, to, circuit: there, .. } => {
                let answer = created.take().ok_or(CircuitFault::State);
                let answer = answer.and_then(|sealer| sealer.relay(body).map_err(|_| CircuitFault::Authentication));
                let (to, there) = (to.clone(), *there);
                match answer {
                    Ok(body) => self.stage(&to, created_frame(there, &body[..])),
                    Err(fault) => self.fail(circuit, fault),
                }
            }
            State::Origin(sink) => {
                sink.created(body);
                let State::Origin(sink) = std::mem::replace(&mut entry.state, State::Dying) else { return Ok(()) };
                entry.state = State::OriginOpening(sink, Vec::new());
            }
            State::Dying => {}
            State::Assembling(..)
            | State::Opening(_)
            | State::Forward { .. }
            | State::Exit { .. }
            | State::OriginOpening(..)
            | State::OriginOpen { .. } => self.fail(circuit, CircuitFault::State),
        }
        Ok(())
    }

    fn install(&mut self, circuit: CircuitId, install: Install<P>, now_ms: u64) {
        match install {
            Install::Backward { layer, created, to, circuit: there, permitted } => {
                let state = State::Backward { layer, created: Some(created), to, circuit: there };
                self.circuits.insert(circuit, Entry { received: 0, permitted, state });
            }
            Install::Origin { sink, permitted } => {
                self.circuits.insert(circuit, Entry { received: 0, permitted, state: State::Origin(sink) });
            }
            Install::Forward { layer, to, circuit: there } => {
                self.open(circuit, State::Forward { layer, to, circuit: there }, now_ms);
            }
            Install::Exit { layer, sink } => self.open(circuit, State::Exit { layer, sink }, now_ms),
            Install::Opened(layers) => self.origin_opens(circuit, layers, now_ms),
        }
    }

    /// SETUP was processed: the cells that waited are taken now. If the circuit has ended meanwhile, so does its other half.
    fn open(&mut self, circuit: CircuitId, state: State<P>, now_ms: u64) {
        match self.circuits.get_mut(&circuit) {
            Some(entry) if matches!(entry.state, State::Opening(_)) => {
                let gone = matches!(&state, State::Forward { to, .. } if to.queue(|queue| queue.is_closed()));
                let State::Opening(waiting) = std::mem::replace(&mut entry.state, state) else { return };
                if gone {
                    return self.next_lost(circuit);
                }
                self.replay(circuit, waiting, now_ms);
            }
            Some(_) | None => self.part(state, false),
        }
    }

    /// The next lane was lost, perhaps before its reader knew of this circuit: then nobody else would end it. Else the answer to its
    /// SETUP waits already, and the end behind it.
    fn next_lost(&mut self, circuit: CircuitId) {
        if let Some(entry) = self.circuits.get_mut(&circuit) {
            entry.state = State::Dying;
        }
        self.own.queue(|queue| queue.destroy(circuit, true));
    }

    fn origin_opens(&mut self, circuit: CircuitId, layers: OriginBackward, now_ms: u64) {
        let Some(entry) = self.circuits.get_mut(&circuit) else { return };
        if let State::OriginOpening(sink, waiting) = std::mem::replace(&mut entry.state, State::Dying) {
            entry.state = State::OriginOpen { layers, sink };
            self.replay(circuit, waiting, now_ms);
        }
    }

    fn replay(&mut self, circuit: CircuitId, waiting: Vec<(u8, FrameBuf)>, now_ms: u64) {
        for (flags, mut frame) in waiting {
            self.open_cell(circuit, flags, frame.bytes_mut());
            self.spare.push(frame);
        }
        // What many waiting circuits held at once must not stay for ever.
        self.spare.truncate(LANE_WRITE_FRAMES);
        self.end_batch(now_ms);
    }

    // ---- Cells ----

    fn cell(&mut self, header: Header, frame: &mut Frame, now_ms: u64) -> Result<(), LinkFault> {
        let circuit = header.circuit;
        let entry = self.circuits.get_mut(&circuit).ok_or(LinkFault::CircuitId)?;
        if matches!(entry.state, State::Dying) {
            return Ok(());
        }
        entry.received += 1;
        if entry.received > entry.permitted.cells() {
            return self.breach(circuit, now_ms);
        }
        if let State::Opening(waiting) | State::OriginOpening(_, waiting) = &mut entry.state {
            let mut held = self.spare.pop().unwrap_or_default();
            held.bytes_mut().copy_from_slice(frame);
            waiting.push((header.flags, held));
            return Ok(());
        }
        self.open_cell(circuit, header.flags, frame);
        Ok(())
    }

    fn open_cell(&mut self, circuit: CircuitId, flags: u8, frame: &mut Frame) {
        let Some(entry) = self.circuits.get_mut(&circuit) else { return };
        let done = match &mut entry.state {
            State::Forward { layer, to, circuit: there } => {
                let mut out = self.spare.pop().unwrap_or_default();
                let header = Header { flags, ..Header::new(*there, Code::Cell) };
                match layer.open_forward(flags, &frame[HEADER_BYTES..], out.bytes_mut()) {
                    Ok(CellKind::Next) => {
                        out.set_header(header);
                        stage(&mut self.staged, &mut self.batches, to, Outgoing { circuit: *there, frame: out });
                        Ok(())
                    }
                    // spec 06, 3: this version has no messages for a relay.
                    Ok(CellKind::Message) => Err(CircuitFault::RelayMessage),
                    Err(_) => Err(CircuitFault::Authentication),
                }
            }
            State::Backward { layer, created, to, circuit: there } => {
                let mut out = self.spare.pop().unwrap_or_default();
                if created.is_some() || flags != 0 {
                    Err(CircuitFault::State)
                } else if layer.seal_backward(frame, out.bytes_mut()).is_err() {
                    Err(CircuitFault::Authentication)
                } else {
                    out.set_header(Header::new(*there, Code::Cell));
                    stage(&mut self.staged, &mut self.batches, to, Outgoing { circuit: *there, frame: out });
                    Ok(())
                }
            }
            State::Exit { layer, sink } => {
                let mut out = self.spare.pop().unwrap_or_default();
                let opened = layer.open_forward(flags, &frame[HEADER_BYTES..], out.bytes_mut());
                let done = match opened {
                    Ok(_) => area(&out.bytes()[OPENED_AREA]).and_then(|area| sink.cell(area).map_err(|_| CircuitFault::Junk)),
                    Err(_) => Err(CircuitFault::Authentication),
                };
                self.spare.push(out);
                touch(&mut self.touched, circuit);
                done
            }
            State::OriginOpen { layers, sink } => {
                let body = &mut frame[HEADER_BYTES..];
                touch(&mut self.touched, circuit);
                if flags != 0 { Err(CircuitFault::State) } else { open_at_origin(layers, sink, body) }
            }
            State::Assembling(..) | State::Opening(_) | State::Origin(_) | State::OriginOpening(..) => Err(CircuitFault::State),
            State::Dying => Ok(()),
        };
        if let Err(fault) = done {
            self.fail(circuit, fault);
        }
    }

    fn stage(&mut self, to: &P, outgoing: Outgoing) {
        stage(&mut self.staged, &mut self.batches, to, outgoing);
    }

    // ---- The end of circuits ----

    /// The peer's DESTROY: answered by ours, and passed on.
    fn destroyed(&mut self, circuit: CircuitId, body: &[u8]) -> Result<(), LinkFault> {
        zero(body)?;
        // spec 05, 7: a peer that makes us answer and reads no answer.
        if self.own.queue(|queue| queue.is_flooded()) {
            return Err(LinkFault::TooManyCircuits);
        }
        let Some(entry) = self.circuits.remove(&circuit) else {
            // Its SETUP was dropped before it left the peer: nothing to end, but the id is free only after both (spec 05, 3).
            if !self.own.queue(|queue| queue.end().peer_may_open(circuit)) {
                return Err(LinkFault::CircuitId);
            }
            self.own.queue(|queue| queue.answer_destroy(circuit));
            return Ok(());
        };
        self.own.queue(|queue| queue.destroyed(circuit));
        self.part(entry.state, true);
        Ok(())
    }

    /// Ends the other half of a circuit: `orderly`, behind what waits there, when this half ended in order.
    fn part(&mut self, state: State<P>, orderly: bool) {
        match state {
            State::Forward { to, circuit, .. } => self.end_there(&to, circuit, orderly),
            State::Backward { to, circuit, created, .. } => {
                if let Some(sealer) = created.filter(|_| !planted("refusal-not-reported")) {
                    // spec 06, 1: the next hop's DESTROY before its CREATED is reported by this one.
                    let body = sealer.answer(SetupStatus::NextRefused);
                    self.stage(&to, created_frame(circuit, &body[..]));
                    // An abortive end would drop it.
                    return self.end_there(&to, circuit, true);
                }
                if !planted("destroy-stops-at-relay") {
                    self.end_there(&to, circuit, orderly);
                }
            }
            State::Exit { mut sink, .. } | State::OriginOpen { mut sink, .. } => sink.closed(),
            State::Origin(mut sink) | State::OriginOpening(mut sink, _) => sink.closed(),
            State::Assembling(..) | State::Opening(_) | State::Dying => {}
        }
    }

    fn end_there(&mut self, to: &P, circuit: CircuitId, orderly: bool) {
        let batch = self.staged.iter_mut().find(|(lane, _)| lane == to).map(|(_, batch)| batch);
        let spare = &mut self.spare;
        to.queue(|queue| {
            // What this batch staged for the circuit comes first.
            if let Some(batch) = batch {
                queue.hand_over(batch, spare);
            }
            queue.destroy(circuit, orderly);
        });
        to.command(Command::Over(circuit));
    }

    /// The peer broke a circuit: it is destroyed on both sides, and counted.
    fn fail(&mut self, circuit: CircuitId, fault: CircuitFault) {
        *self.faults.entry(fault).or_default() += 1;
        let Some(entry) = self.circuits.get_mut(&circuit) else { return };
        let state = std::mem::replace(&mut entry.state, State::Dying);
        if !matches!(state, State::Dying) {
            self.own.queue(|queue| queue.destroy(circuit, false));
        }
        self.part(state, false);
    }

    /// Credit was overrun: the circuit goes; the third time in the network's breach window, the link (spec 06, 4).
    fn breach(&mut self, circuit: CircuitId, now_ms: u64) -> Result<(), LinkFault> {
        self.fail(circuit, CircuitFault::Credit);
        let window_ms = self.admission.map_or(0, |admission| admission.breach_window_ms);
        self.breaches.retain(|at| now_ms.saturating_sub(*at) < window_ms);
        if !planted("breaches-not-counted") {
            self.breaches.push(now_ms);
        }
        if self.breaches.len() >= CREDIT_BREACHES { Err(LinkFault::Credit) } else { Ok(()) }
    }
}

fn open_at_origin<S: Sink>(layers: &mut OriginBackward, sink: &mut S, body: &mut [u8]) -> Result<(), CircuitFault> {
    let (hop, range) = layers.open(body).map_err(|_| CircuitFault::Authentication)?;
    // Only the exit speaks in this version (spec 06, 3).
    if hop + 1 != layers.hops() {
        return Err(CircuitFault::Junk);
    }
    area(&body[range]).and_then(|area| sink.cell(area).map_err(|_| CircuitFault::Junk))
}

fn area(bytes: &[u8]) -> Result<&Area, CircuitFault> {
    bytes.first_chunk::<MESSAGE_BYTES>().ok_or(CircuitFault::State)
}

fn created_frame(circuit: CircuitId, body: &[u8]) -> Outgoing {
    Outgoing { circuit, frame: FrameBuf::with_body(Header::new(circuit, Code::Created), body) }
}

fn stage<P: Port>(staged: &mut Vec<(P, Vec<Outgoing>)>, batches: &mut Vec<Vec<Outgoing>>, to: &P, outgoing: Outgoing) {
    match staged.iter_mut().find(|(lane, _)| lane == to) {
        Some((_, batch)) => batch.push(outgoing),
        None => {
            let mut batch = batches.pop().unwrap_or_default();
            batch.push(outgoing);
            staged.push((to.clone(), batch));
        }
    }
}

fn touch(touched: &mut Vec<CircuitId>, circuit: CircuitId) {
    if touched.last() != Some(&circuit) && !touched.contains(&circuit) {
        touched.push(circuit);
    }
}

fn zero(bytes: &[u8]) -> Result<(), LinkFault> {
    if bytes.iter().fold(0, |any, byte| any | byte) == 0 { Ok(()) } else { Err(LinkFault::Padding) }
}
