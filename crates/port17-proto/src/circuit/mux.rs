//! The streams of one circuit at one of its edges, client or exit (spec 06, 3).
//!
//! Bytes from sockets wait in a queue per stream, under the stream's window, until [`Mux::fill`] packs them into cells: messages
//! first, then data in turns. Bytes from cells wait per stream until the application takes them; what it has consumed is given back
//! as WINDOW. One slow stream stops nobody but itself, until all streams together hold [`CIRCUIT_WINDOW_BYTES`]: then the circuit
//! gives no credit.

use std::collections::{BTreeMap, VecDeque};

pub use super::batch::Batch;
use super::batch::{CHUNK_BYTES, Item};
use super::message::{Area, Junk, Message, Target, encode, header};
use crate::ids::StreamId;
use crate::lane::credit::{CreditError, Granter};
use crate::limits::{
    CIRCUIT_DIALS, CIRCUIT_QUEUE_BYTES, CIRCUIT_STREAMS, CIRCUIT_WINDOW_BYTES, STREAM_FIRST_WINDOW_BYTES, STREAM_GROWTH_MS,
    STREAM_MAX_WINDOW_BYTES, STREAM_QUANTUM_BYTES, STREAM_QUEUE_BYTES,
};
use crate::params::Params;
use crate::planted::planted;
use crate::wire::registry::{CellType, MESSAGE_BYTES, MESSAGE_HEADER_BYTES, ResetCode, StreamProtocol};

/// Which edge this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Opens streams, with odd ids.
    Client,
    /// Answers them.
    Exit,
}

/// What the network says about the streams of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamRules {
    /// OPENs in a second.
    pub opens_per_second: u64,
    /// OPENs at once.
    pub opens_burst: u64,
    /// So long it is known how a closed stream ended.
    pub closed_ms: u64,
}

impl From<&Params> for StreamRules {
    fn from(params: &Params) -> Self {
        Self {
            opens_per_second: params.opens.per_second.into(),
            opens_burst: params.opens.burst.into(),
            closed_ms: u64::try_from(params.closed_stream_grace.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Something the shell must act on; drained after each call.
#[derive(Debug, PartialEq, Eq)]
pub enum MuxEvent {
    /// A stream is to be opened (exit only).
    Open(StreamId, Target),
    /// The stream's state changed: look at it again.
    Changed(StreamId),
    /// There is something to pack.
    Outgoing,
    /// Credit to be sent for the circuit: cells permitted so far.
    Credit(u64),
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    /// OPEN is under way.
    Opening,
    /// OPENED was sent or came.
    Open,
    /// Reset by either side.
    Over(ResetCode),
    /// Ended by both sides in order, or never known.
    Ended,
}

/// No stream can be opened on this circuit: use another one of the same isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the circuit has no stream left")]
pub struct Exhausted;

/// Bytes taken for the application.
pub struct Received {
    /// The bytes, in order.
    pub chunks: Vec<Vec<u8>>,
    /// The peer will send no more.
    pub fin: bool,
}

struct Stream {
    state: StreamState,
    outgoing: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that are packed already.
    packed: usize,
    queued: u64,
    sent: u64,
    permitted: u64,
    fin_wanted: bool,
    fin_sent: bool,
    in_round: bool,
    incoming: VecDeque<Vec<u8>>,
    received: u64,
    consumed: u64,
    window: u64,
    granted: u64,
    granted_at_ms: u64,
    fin_received: bool,
    fin_taken: bool,
}

impl Stream {
    fn new(now_ms: u64) -> Self {
        Self {
            state: StreamState::Opening,
            outgoing: VecDeque::new(),
            packed: 0,
            queued: 0,
            sent: 0,
            permitted: STREAM_FIRST_WINDOW_BYTES,
            fin_wanted: false,
            fin_sent: false,
            in_round: false,
            incoming: VecDeque::new(),
            received: 0,
            consumed: 0,
            window: STREAM_FIRST_WINDOW_BYTES,
            granted: STREAM_FIRST_WINDOW_BYTES,
            granted_at_ms: now_ms,
            fin_received: false,
            fin_taken: false,
        }
    }

    fn has_outgoing(&self) -> bool {
        (self.queued > 0 && self.sent < self.permitted)
            || (self.fin_wanted && !self.fin_sent && (self.queued == 0 || planted("fin-overtakes-data")))
    }

    fn is_done(&self) -> bool {
        (self.fin_sent || planted("fin-ends-both-ways")) && self.fin_taken && self.consumed == self.received
    }
}

struct Closed {
    at_ms: u64,
    code: Option<ResetCode>,
}

/// See the module's text. Times are milliseconds of one monotone clock.
pub struct Mux {
    side: Side,
    streams: BTreeMap<StreamId, Stream>,
    closed: BTreeMap<StreamId, Closed>,
    last_id: u16,
    dialling: usize,
    opens: u64,
    opens_at_ms: u64,
    round: VecDeque<StreamId>,
    messages: VecDeque<Vec<u8>>,
    /// A message that the end of the last cell cut, and what of it is packed.
    cut: Option<(Vec<u8>, usize)>,
    /// DATA whose header is packed: bytes still missing.
    promised: Option<(StreamId, usize)>,
    /// Bytes that all streams have queued.
    queued: u64,
    undelivered: u64,
    windows: u64,
    granter: Granter,
    withheld_cells: u64,
    rules: StreamRules,
    events: Vec<MuxEvent>,
    /// The circuit is over: nothing is opened or taken any more.
    over: bool,
}

impl Mux {
    /// A circuit without streams. `granter` permits the cells that arrive here.
    pub fn new(side: Side, granter: Granter, rules: StreamRules) -> Self {
        Self {
            side,
            streams: BTreeMap::new(),
            closed: BTreeMap::new(),
            last_id: 0,
            dialling: 0,
            opens: rules.opens_burst,
            opens_at_ms: 0,
            round: VecDeque::new(),
            messages: VecDeque::new(),
            cut: None,
            promised: None,
            queued: 0,
            undelivered: 0,
            windows: 0,
            granter,
            withheld_cells: 0,
            rules,
            events: Vec::new(),
            over: false,
        }
    }

    /// What the shell must act on, in order.
    pub fn drain_events(&mut self) -> std::vec::Drain<'_, MuxEvent> {
        self.events.drain(..)
    }

    /// Streams that are not over.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    // ---- The application's side ----

    /// Opens a stream (client); `first_data` travels behind the OPEN.
    ///
    /// # Errors
    /// When all ids or all 256 places are used, or the circuit is over.
    pub fn open(&mut self, target: &Target, first_data: Vec<u8>, now_ms: u64) -> Result<StreamId, Exhausted> {
        let next = if self.last_id == 0 { Some(1) } else { self.last_id.checked_add(2) };
        let id = next.filter(|_| self.streams.len() < CIRCUIT_STREAMS && !self.over).ok_or(Exhausted)?;
        self.last_id = id;
        let id = StreamId(id);
        self.add(id, now_ms);
        self.push_message(id, &Message::Open { protocol: StreamProtocol::Tcp, target: target.clone() });
        self.push_data(id, first_data);
        Ok(id)
    }

    /// Answers OPEN (exit).
    pub fn opened(&mut self, id: StreamId, ip: std::net::IpAddr, ttl_s: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.state == StreamState::Opening {
            stream.state = StreamState::Open;
            if !planted("dials-never-end") {
                self.dialling -= 1;
            }
            self.push_message(id, &Message::Opened { ip, ttl_s });
        }
    }

    /// Ends a stream both ways at once; what waits is dropped.
    pub fn reset(&mut self, id: StreamId, code: ResetCode, now_ms: u64) {
        if self.streams.contains_key(&id) {
            self.push_message(id, &Message::Reset(code));
            self.finish(id, code, now_ms);
        }
    }

    /// What became of a stream.
    pub fn state(&self, id: StreamId) -> StreamState {
        let closed = || self.closed.get(&id).and_then(|closed| closed.code).map_or(StreamState::Ended, StreamState::Over);
        self.streams.get(&id).map_or_else(closed, |stream| stream.state)
    }

    /// Bytes that may be queued now; none when the stream is over.
    pub fn room(&self, id: StreamId) -> Option<usize> {
        let stream = self.streams.get(&id)?;
        let most = if self.queued < CIRCUIT_QUEUE_BYTES { STREAM_QUEUE_BYTES } else { STREAM_QUANTUM_BYTES as u64 };
        usize::try_from(most.saturating_sub(stream.queued)).ok()
    }

    /// Queues bytes of the application. An empty chunk changes nothing.
    pub fn push_data(&mut self, id: StreamId, chunk: Vec<u8>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !chunk.is_empty() && !stream.fin_wanted {
            stream.queued += chunk.len() as u64;
            self.queued += chunk.len() as u64;
            stream.outgoing.push_back(chunk);
            self.enter_round(id);
        }
    }

    /// The application sends no more.
    pub fn push_fin(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.fin_wanted = true;
            self.enter_round(id);
        }
    }

    /// Whether all bytes and the end after [`Self::push_fin`] are packed; none when the stream is over.
    pub fn fin_is_sent(&self, id: StreamId) -> Option<bool> {
        self.streams.get(&id).map(|stream| stream.fin_sent)
    }

    /// Takes the bytes that have come; none when the stream is over without them.
    pub fn take(&mut self, id: StreamId) -> Option<Received> {
        let stream = self.streams.get_mut(&id)?;
        let chunks = stream.incoming.drain(..).collect();
        stream.fin_taken = stream.fin_received;
        Some(Received { chunks, fin: stream.fin_received })
    }

    /// The application has consumed this many bytes: gives WINDOW to the peer, and the circuit its withheld credit.
    pub fn consumed(&mut self, id: StreamId, bytes: u64, now_ms: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.consumed += bytes;
        self.undelivered = self.undelivered.saturating_sub(bytes);
        if !stream.fin_received && stream.granted - stream.consumed <= stream.window / 2 {
            let brisk = now_ms.saturating_sub(stream.granted_at_ms) <= STREAM_GROWTH_MS;
            let wider = (stream.window * 2).min(STREAM_MAX_WINDOW_BYTES);
            if brisk && self.windows + (wider - stream.window) <= CIRCUIT_WINDOW_BYTES {
                self.windows += wider - stream.window;
                stream.window = wider;
            }
            stream.granted = stream.granted.max(stream.consumed + stream.window);
            stream.granted_at_ms = now_ms;
            let permitted = stream.granted;
            self.push_message(id, &Message::Window(permitted));
        }
        self.release_withheld(now_ms);
        self.retire(id, now_ms);
    }

    /// Forgets a stream that both sides ended in order.
    fn retire(&mut self, id: StreamId, now_ms: u64) {
        if self.streams.get(&id).is_some_and(Stream::is_done) {
            self.remove(id, None, now_ms);
        }
    }

    // ---- The circuit's side: what goes out ----

    /// Whether [`Self::fill`] would pack something.
    pub fn has_outgoing(&self) -> bool {
        self.cut.is_some() || self.promised.is_some() || !self.messages.is_empty() || !self.round.is_empty()
    }

    /// Packs one cell; false when there was nothing. What is not used is zero.
    pub fn fill(&mut self, area: &mut Area, now_ms: u64) -> bool {
        let mut at = 0;
        while at < MESSAGE_BYTES {
            let done = if self.promised.is_some() {
                self.fill_data(area, &mut at, now_ms)
            } else if self.cut.is_some() {
                self.fill_message(area, &mut at);
                true
            } else if MESSAGE_BYTES - at < MESSAGE_HEADER_BYTES {
                false
            } else if let Some(message) = self.messages.pop_front() {
                self.cut = Some((message, 0));
                true
            } else {
                self.begin_data(area, &mut at, now_ms)
            };
            if !done {
                break;
            }
        }
        area[at..].fill(0);
        at > 0
    }

    fn fill_message(&mut self, area: &mut Area, at: &mut usize) {
        let Some((message, packed)) = &mut self.cut else { return };
        let length = (message.len() - *packed).min(MESSAGE_BYTES - *at);
        area[*at..*at + length].copy_from_slice(&message[*packed..*packed + length]);
        *at += length;
        *packed += length;
        if *packed == message.len() {
            self.cut = None;
        }
    }

    /// Packs the header of the next stream's DATA, or its FIN.
    fn begin_data(&mut self, area: &mut Area, at: &mut usize, now_ms: u64) -> bool {
        let alone = self.round.len() == 1;
        let Some(id) = self.round.pop_front() else { return false };
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        stream.in_round = false;
        let most = if alone { usize::from(u16::MAX) } else { STREAM_QUANTUM_BYTES };
        let length = stream.queued.min(stream.permitted.saturating_sub(stream.sent)).min(most as u64);
        let (kind, length) = match u16::try_from(length) {
            Ok(0) | Err(_) if stream.fin_wanted && !stream.fin_sent && (stream.queued == 0 || planted("fin-overtakes-data")) => {
                (CellType::Fin, 0)
            }
            Ok(0) | Err(_) => return true,
            Ok(length) => (CellType::Data, length),
        };
        area[*at..*at + MESSAGE_HEADER_BYTES].copy_from_slice(&header(kind, id, length));
        *at += MESSAGE_HEADER_BYTES;
        if kind == CellType::Fin {
            stream.fin_sent = true;
            self.events.push(MuxEvent::Changed(id));
            self.retire(id, now_ms);
        } else {
            stream.sent += u64::from(length);
            self.promised = Some((id, usize::from(length)));
        }
        true
    }

    fn fill_data(&mut self, area: &mut Area, at: &mut usize, now_ms: u64) -> bool {
        let Some((id, missing)) = self.promised else { return false };
        let length = missing.min(MESSAGE_BYTES - *at);
        let room = &mut area[*at..*at + length];
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.pack(room);
            self.queued = self.queued.saturating_sub(length as u64);
        }
        *at += length;
        self.promised = (missing > length).then_some((id, missing - length));
        if self.promised.is_none() {
            self.enter_round(id);
            self.events.push(MuxEvent::Changed(id));
            self.retire(id, now_ms);
        }
        true
    }

    fn enter_round(&mut self, id: StreamId) {
        let promised = self.promised.is_some_and(|(promised, _)| promised == id);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.in_round && !promised && stream.has_outgoing() {
            stream.in_round = true;
            self.round.push_back(id);
            self.events.push(MuxEvent::Outgoing);
        }
    }

    fn push_message(&mut self, id: StreamId, message: &Message) {
        self.messages.push_back(encode(id, message));
        self.events.push(MuxEvent::Outgoing);
    }

    // ---- The circuit's side: what comes in ----

    /// Takes what a batch of cells held, and counts the cells as drained.
    ///
    /// # Errors
    /// On junk: the circuit is to be destroyed.
    pub fn receive(&mut self, batch: &mut Batch, now_ms: u64) -> Result<(), Junk> {
        if self.over {
            // The lane's reader learns of the end between its batches: until then it may deliver, to nobody.
            batch.items.clear();
            batch.cells = 0;
            return Ok(());
        }
        for item in batch.items.drain(..) {
            match item {
                Item::Data(id, chunk) => self.receive_data(id, chunk)?,
                Item::Message(id, message) => self.receive_message(id, message, now_ms)?,
            }
        }
        self.withheld_cells += std::mem::take(&mut batch.cells);
        self.release_withheld(now_ms);
        Ok(())
    }

    fn release_withheld(&mut self, now_ms: u64) {
        if self.undelivered > CIRCUIT_WINDOW_BYTES || self.withheld_cells == 0 {
            return;
        }
        let cells = std::mem::take(&mut self.withheld_cells);
        if let Some(permitted) = self.granter.drained(cells, now_ms) {
            self.events.push(MuxEvent::Credit(permitted));
        }
    }

    fn receive_data(&mut self, id: StreamId, chunk: Vec<u8>) -> Result<(), Junk> {
        let Some(stream) = self.streams.get_mut(&id) else { return self.late(id) };
        stream.received += chunk.len() as u64;
        if stream.received > stream.granted || stream.fin_received {
            return Err(Junk::Window);
        }
        self.undelivered += chunk.len() as u64;
        match stream.incoming.back_mut() {
            // A peer that sends single bytes must not make each of them a piece of memory of its own.
            Some(last) if chunk.len() < MESSAGE_BYTES && last.len() + chunk.len() <= CHUNK_BYTES => {
                last.extend_from_slice(&chunk)
            }
            Some(_) | None => stream.incoming.push_back(chunk),
        }
        self.events.push(MuxEvent::Changed(id));
        Ok(())
    }

    fn late(&self, id: StreamId) -> Result<(), Junk> {
        if planted("late-data-after-reset-is-junk") && self.closed.get(&id).is_some_and(|closed| closed.code.is_some()) {
            return Err(Junk::Stream);
        }
        // spec 06, 3.2: of a used id; how long a lane of the circuit stands still, nobody knows.
        let was_used = !id.0.is_multiple_of(2) && id.0 <= self.last_id;
        if was_used { Ok(()) } else { Err(Junk::Stream) }
    }

    fn receive_message(&mut self, id: StreamId, message: Message, now_ms: u64) -> Result<(), Junk> {
        if let Message::Open { protocol, target } = message {
            return self.receive_open(id, protocol, target, now_ms);
        }
        let side = self.side;
        let Some(stream) = self.streams.get_mut(&id) else { return self.late(id) };
        match message {
            Message::Open { .. } => return Err(Junk::Type),
            Message::Opened { .. } => {
                if side == Side::Exit || stream.state != StreamState::Opening {
                    return Err(Junk::Type);
                }
                stream.state = StreamState::Open;
            }
            Message::Fin if stream.fin_received => return Err(Junk::Stream),
            Message::Fin => stream.fin_received = true,
            Message::Reset(code) => self.finish(id, code, now_ms),
            Message::Window(permitted) => {
                stream.permitted = stream.permitted.max(permitted);
                if !planted("window-wakes-nobody") {
                    self.enter_round(id);
                }
            }
        }
        self.events.push(MuxEvent::Changed(id));
        Ok(())
    }

    fn receive_open(&mut self, id: StreamId, protocol: StreamProtocol, target: Target, now_ms: u64) -> Result<(), Junk> {
        // spec 06, 3: ids of the client are odd and rise, so none is used twice.
        if self.side == Side::Client || id.0.is_multiple_of(2) || id.0 <= self.last_id {
            return Err(Junk::Stream);
        }
        self.last_id = id.0;
        self.refill_opens(now_ms);
        let room = self.streams.len() < CIRCUIT_STREAMS && self.dialling < CIRCUIT_DIALS && self.opens > 0;
        self.add(id, now_ms);
        self.dialling += 1;
        if !room || protocol != StreamProtocol::Tcp {
            let code = if room { ResetCode::Policy } else { ResetCode::Resource };
            self.reset(id, code, now_ms);
            return Ok(());
        }
        self.opens -= 1;
        self.events.push(MuxEvent::Open(id, target));
        Ok(())
    }

    fn refill_opens(&mut self, now_ms: u64) {
        let earned = now_ms.saturating_sub(self.opens_at_ms).saturating_mul(self.rules.opens_per_second) / 1000;
        if earned > 0 {
            self.opens = self.opens.saturating_add(earned).min(self.rules.opens_burst);
            self.opens_at_ms = now_ms;
        }
    }

    /// The lane's answer to RECLAIM for this circuit.
    ///
    /// # Errors
    /// When the peer lies.
    pub fn limited(&mut self, limit: u64, now_ms: u64) -> Result<Option<u64>, CreditError> {
        self.granter.limited(limit, now_ms)
    }

    /// Permission to ask back because the circuit is idle: the number for RECLAIM.
    pub fn reclaim(&mut self, now_ms: u64, idle_ms: u64) -> Option<u64> {
        self.granter.reclaim(now_ms, idle_ms)
    }

    /// Forgets streams that closed long enough ago.
    pub fn sweep(&mut self, now_ms: u64) {
        let closed_ms = self.rules.closed_ms;
        self.closed.retain(|_, closed| now_ms.saturating_sub(closed.at_ms) < closed_ms);
    }

    /// The circuit is over: so are all its streams.
    pub fn close(&mut self, code: ResetCode, now_ms: u64) {
        self.over = true;
        let ids: Vec<_> = self.streams.keys().copied().collect();
        for id in ids {
            self.finish(id, code, now_ms);
        }
        self.messages.clear();
        self.round.clear();
        (self.cut, self.promised) = (None, None);
    }

    // ---- The streams' life ----

    fn add(&mut self, id: StreamId, now_ms: u64) {
        self.streams.insert(id, Stream::new(now_ms));
        self.windows += STREAM_FIRST_WINDOW_BYTES;
    }

    /// The stream is over both ways; its owner is told.
    fn finish(&mut self, id: StreamId, code: ResetCode, now_ms: u64) {
        self.remove(id, Some(code), now_ms);
        self.events.push(MuxEvent::Changed(id));
    }

    fn remove(&mut self, id: StreamId, code: Option<ResetCode>, now_ms: u64) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        self.queued = self.queued.saturating_sub(stream.queued);
        if let Some((_, missing)) = self.promised.take_if(|(promised, _)| *promised == id) {
            // DATA whose header is packed must be finished, with the bytes that it began with: whoever reads them gets no others.
            let mut rest = vec![0; missing];
            stream.pack(&mut rest);
            if !planted("reset-cuts-promised-data") {
                self.cut = Some((rest, 0));
            }
        }
        if self.side == Side::Exit && stream.state == StreamState::Opening {
            self.dialling -= 1;
        }
        self.windows -= stream.window;
        self.undelivered = self.undelivered.saturating_sub(stream.received - stream.consumed);
        self.closed.insert(id, Closed { at_ms: now_ms, code });
        self.release_withheld(now_ms);
    }
}

impl Stream {
    /// Moves queued bytes into `room`; as many were promised, so as many are there.
    fn pack(&mut self, room: &mut [u8]) {
        let mut at = 0;
        while at < room.len() {
            let Some(chunk) = self.outgoing.front() else { break };
            let length = (chunk.len() - self.packed).min(room.len() - at);
            room[at..at + length].copy_from_slice(&chunk[self.packed..self.packed + length]);
            at += length;
            self.packed += length;
            if self.packed == chunk.len() {
                self.outgoing.pop_front();
                self.packed = 0;
            }
        }
        self.queued -= at as u64;
        room[at..].fill(0);
    }
}

#[cfg(test)]
mod tests;
