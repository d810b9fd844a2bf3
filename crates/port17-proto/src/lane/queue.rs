//! What waits to be sent on one lane: three classes, fair queueing over circuits, the sender's side of credit (spec 05, 3).
//!
//! Class 1 is credit, urgent control and abortive DESTROY. Class 2 is a deficit round robin over circuits and one flow for the
//! control stream; new and sparse flows go first. Class 3 is padding, which is drawn only when nothing else waits.
//!
//! Readers hand over whole batches, the lane's one writer takes whole batches; frames go round between the two (`spare`), so that
//! nothing is allocated per cell. The queue is plain data: the shell puts it under one lock and never encrypts under it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use super::credit::{CreditError, Granter, Pace};
use super::frame::{FrameBuf, Header, PAIRS_PER_FRAME, pairs_frame};
use crate::ids::CircuitId;
use crate::limits::{
    CONTROL_QUEUE_BYTES, FIRST_WINDOW_CELLS, LANE_CIRCUITS, LANE_WRITE_FRAMES, MAX_WINDOW_CELLS, URGENT_MESSAGES,
};
use crate::planted::planted;
use crate::wire::registry::{Command, FRAME_BYTES};

/// Frames a flow may send before the next flow's turn.
const QUANTUM_FRAMES: u32 = 2;
/// On a busy lane the control stream gets one frame in this many.
const CONTROL_SHARE: u32 = 4;
/// The control stream's place in the round.
const CONTROL: CircuitId = CircuitId(0);
/// Frames kept to be used again: two full takes of the writer.
const SPARE_FRAMES: usize = 2 * LANE_WRITE_FRAMES;

/// Which end of the lane this is; it decides the parity of circuit ids (spec 05, 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneEnd {
    /// Opened the connection: draws odd ids.
    Dialler,
    /// Accepted it: draws even ids.
    Acceptor,
}

impl LaneEnd {
    /// Whether the other end may open this circuit id.
    pub fn peer_may_open(self, circuit: CircuitId) -> bool {
        circuit.0 != 0 && (circuit.0 % 2 == 1) == (self == LaneEnd::Acceptor)
    }
}

/// A relay's flow remembers where its cells came from, to give credit back there once they have left.
pub struct Upstream<H> {
    /// The lane they came on.
    pub lane: H,
    /// Their circuit there.
    pub circuit: CircuitId,
    /// What they were permitted by.
    pub granter: Granter,
}

/// A frame to be sent, under the circuit it belongs to.
pub struct Outgoing {
    /// The circuit on this lane.
    pub circuit: CircuitId,
    /// The whole frame; its header is written already.
    pub frame: FrameBuf,
}

/// Credit to be sent on another lane: cells have left this one.
pub struct CreditDue<H> {
    /// The lane the cells came on.
    pub lane: H,
    /// Their circuit there.
    pub circuit: CircuitId,
    /// The absolute permission.
    pub permitted: u64,
}

struct Flow<H> {
    frames: VecDeque<FrameBuf>,
    sent: u64,
    permitted: u64,
    deficit: u32,
    in_round: bool,
    /// An orderly DESTROY is the last of `frames`.
    ending: bool,
    /// When `ending` was first seen by [`LaneQueue::sweep`].
    ending_seen_ms: Option<u64>,
    upstream: Option<Upstream<H>>,
    /// The edge wants to be told when there is room again.
    wants_room: bool,
}

impl<H> Flow<H> {
    fn new(upstream: Option<Upstream<H>>) -> Self {
        Self {
            frames: VecDeque::new(),
            sent: 0,
            permitted: FIRST_WINDOW_CELLS,
            deficit: 0,
            in_round: false,
            ending: false,
            ending_seen_ms: None,
            upstream,
            wants_room: false,
        }
    }

    fn sendable(&self) -> bool {
        self.frames
            .front()
            .is_some_and(|front| !is_cell(front) || self.sent < self.permitted + u64::from(planted("one-cell-too-many")))
    }
}

/// All that decides what it does next; never what its frames hold (law 8).
impl<H> fmt::Debug for Flow<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, sent, permitted, deficit, in_round, ending, ending_seen_ms, upstream, wants_room } = self;
        f.debug_struct("Flow")
            .field("cells", &frames.iter().filter(|frame| is_cell(frame)).count())
            .field("frames", &frames.len())
            .field("sent", sent)
            .field("permitted", permitted)
            .field("deficit", deficit)
            .field("in_round", in_round)
            .field("ending", ending)
            .field("ending_seen_ms", ending_seen_ms)
            .field("granter", &upstream.as_ref().map(|upstream| &upstream.granter))
            .field("wants_room", wants_room)
            .finish()
    }
}

fn is_cell(frame: &FrameBuf) -> bool {
    frame.bytes()[4] == Command::Cell.code()
}

/// The queue of one lane. `H` names a lane: a handle in the daemon, a number in the simulator.
pub struct LaneQueue<H> {
    end: LaneEnd,
    next_id: u32,
    flows: BTreeMap<CircuitId, Flow<H>>,
    /// Ids of this end whose DESTROY is queued or sent, and the peer's has not come.
    dying: BTreeSet<CircuitId>,
    new: VecDeque<CircuitId>,
    old: VecDeque<CircuitId>,
    control: VecDeque<FrameBuf>,
    control_in_round: bool,
    frames_since_control: u32,
    urgent: VecDeque<FrameBuf>,
    destroys: VecDeque<CircuitId>,
    credit: BTreeMap<CircuitId, u64>,
    reclaims: BTreeMap<CircuitId, u64>,
    limits: BTreeMap<CircuitId, u64>,
    roomy: Vec<CircuitId>,
    spare: Vec<FrameBuf>,
    pace: Pace,
    dead: bool,
}

/// All that decides what it does next, never what its frames hold (law 8).
impl<H> fmt::Debug for LaneQueue<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneQueue")
            .field("end", &self.end)
            .field("next_id", &self.next_id)
            .field("flows", &self.flows)
            .field("dying", &self.dying)
            .field("new", &self.new)
            .field("old", &self.old)
            .field("control", &self.control.len())
            .field("control_in_round", &self.control_in_round)
            .field("frames_since_control", &self.frames_since_control)
            .field("urgent", &self.urgent.len())
            .field("destroys", &self.destroys)
            .field("credit", &self.credit)
            .field("reclaims", &self.reclaims)
            .field("limits", &self.limits)
            .field("roomy", &self.roomy)
            .field("pace", &self.pace)
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}

/// The lane cannot take more of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The peer does not read its control messages.
    #[error("the peer does not read its control messages")]
    ControlFull,
    /// The lane has no free circuit ids, or is closed.
    #[error("the lane takes no more circuits")]
    NoCircuit,
}

impl<H: Clone> LaneQueue<H> {
    /// An empty queue. `growth_ms`: see [`Pace`].
    pub fn new(end: LaneEnd, growth_ms: u64) -> Self {
        let next_id = if end == LaneEnd::Dialler { 1 } else { 2 };
        Self {
            end,
            next_id,
            flows: BTreeMap::new(),
            dying: BTreeSet::new(),
            new: VecDeque::new(),
            old: VecDeque::new(),
            control: VecDeque::new(),
            control_in_round: false,
            frames_since_control: 0,
            urgent: VecDeque::new(),
            destroys: VecDeque::new(),
            credit: BTreeMap::new(),
            reclaims: BTreeMap::new(),
            limits: BTreeMap::new(),
            roomy: Vec::new(),
            spare: Vec::new(),
            pace: Pace::new(growth_ms),
            dead: false,
        }
    }

    /// Which end of the lane this is.
    pub fn end(&self) -> LaneEnd {
        self.end
    }

    /// Circuits open or ending on this lane.
    pub fn circuits(&self) -> usize {
        self.flows.len()
    }

    /// Sets how quickly half a window must drain to make it double: the lane's round trip, with a floor.
    pub fn set_growth_ms(&mut self, growth_ms: u64) {
        self.pace.set(growth_ms);
    }

    /// How quickly the windows of this lane's circuits grow: for a [`Granter`] of cells that come on it.
    pub fn pace(&self) -> Pace {
        self.pace.clone()
    }

    /// Draws a free circuit id of this end and opens its flow.
    ///
    /// # Errors
    /// When all are in use or dying, or the lane is closed.
    pub fn open(&mut self, upstream: Option<Upstream<H>>) -> Result<CircuitId, QueueError> {
        if self.dead || self.flows.len() + self.dying.len() >= LANE_CIRCUITS {
            return Err(QueueError::NoCircuit);
        }
        let mut id = CircuitId(self.next_id);
        // spec 05, M6: free is what both have destroyed.
        while self.flows.contains_key(&id) || self.dying.contains(&id) {
            id = CircuitId(self.following(id.0));
        }
        self.next_id = self.following(id.0);
        self.flows.insert(id, Flow::new(upstream));
        Ok(id)
    }

    fn following(&self, id: u32) -> u32 {
        id.checked_add(2).unwrap_or(if self.end == LaneEnd::Dialler { 1 } else { 2 })
    }

    /// Opens the flow of a circuit that the peer opened; a second call changes nothing. False when the peer opens and ends circuits
    /// without reading that they have ended.
    pub fn accept(&mut self, circuit: CircuitId) -> bool {
        let room = self.flows.len() + self.destroys.len() < LANE_CIRCUITS;
        if room && !self.dead {
            self.flows.entry(circuit).or_insert_with(|| Flow::new(None));
        }
        room
    }

    /// Says where a flow's cells come from, once that is known.
    pub fn set_upstream(&mut self, circuit: CircuitId, upstream: Upstream<H>) {
        if let Some(flow) = self.flows.get_mut(&circuit) {
            flow.upstream = Some(upstream);
        }
    }

    /// Takes a batch of circuit frames in order; gives back empty frames for the next batch. Frames of unknown or ending circuits
    /// are dropped.
    pub fn hand_over(&mut self, batch: &mut Vec<Outgoing>, spare: &mut Vec<FrameBuf>) {
        for Outgoing { circuit, frame } in batch.drain(..) {
            match self.flows.get_mut(&circuit) {
                Some(flow) if !flow.ending => flow.frames.push_back(frame),
                _ => {
                    self.spare.push(frame);
                    continue;
                }
            }
            self.enter_round(circuit);
        }
        if spare.len() < SPARE_FRAMES {
            spare.append(&mut self.spare);
        } else {
            self.spare.truncate(SPARE_FRAMES);
        }
    }

    /// Returns frames that were sent, to be used again.
    pub fn recycle(&mut self, frames: &mut Vec<FrameBuf>) {
        let room = SPARE_FRAMES.saturating_sub(self.spare.len());
        self.spare.extend(frames.drain(..).take(room));
    }

    fn enter_round(&mut self, circuit: CircuitId) {
        let Some(flow) = self.flows.get_mut(&circuit) else { return };
        if !flow.in_round && flow.sendable() {
            flow.in_round = true;
            flow.deficit = QUANTUM_FRAMES;
            self.new.push_back(circuit);
        }
    }

    /// Ends a circuit behind the frames that wait (orderly), or at once, dropping them (abortive). An orderly end that finds no
    /// credit is made an abortive one by [`Self::sweep`].
    pub fn destroy(&mut self, circuit: CircuitId, orderly: bool) {
        let Some(flow) = self.flows.get_mut(&circuit) else { return };
        if orderly && !flow.ending && !flow.frames.is_empty() {
            flow.ending = true;
            let mut frame = FrameBuf::new();
            frame.set_header(Header::new(circuit, Command::Destroy));
            flow.frames.push_back(frame);
            self.enter_round(circuit);
        } else if !orderly || !flow.ending {
            if self.flows.remove(&circuit).is_some_and(|flow| flow.in_round) {
                self.new.retain(|other| *other != circuit);
                self.old.retain(|other| *other != circuit);
            }
            self.destroys.push_back(circuit);
            self.forget(circuit);
        }
    }

    /// The circuit's DESTROY is the last that is said about it; the id stays taken until the peer's has come.
    fn forget(&mut self, circuit: CircuitId) {
        self.credit.remove(&circuit);
        self.reclaims.remove(&circuit);
        self.limits.remove(&circuit);
        if !self.end.peer_may_open(circuit) {
            self.dying.insert(circuit);
        }
    }

    /// The peer's DESTROY has come: what waits is of no use, and if ours has not been queued, it goes now.
    pub fn destroyed(&mut self, circuit: CircuitId) {
        self.destroy(circuit, false);
        self.dying.remove(&circuit);
    }

    /// Answers the DESTROY of a circuit that is not known here.
    pub fn answer_destroy(&mut self, circuit: CircuitId) {
        self.destroys.push_back(circuit);
    }

    /// Whether so many DESTROYs wait that the peer cannot be reading them: it is to lose the lane.
    pub fn is_flooded(&self) -> bool {
        self.destroys.len() >= LANE_CIRCUITS
    }

    /// Ends at once what has been ending for `patience_ms`: its peer gives no credit.
    pub fn sweep(&mut self, now_ms: u64, patience_ms: u64) {
        let mut late = Vec::new();
        for (circuit, flow) in self.flows.iter_mut().filter(|(_, flow)| flow.ending) {
            let seen = *flow.ending_seen_ms.get_or_insert(now_ms);
            if now_ms.saturating_sub(seen) >= patience_ms && !planted("orderly-end-waits-forever") {
                late.push(*circuit);
            }
        }
        late.into_iter().for_each(|circuit| self.destroy(circuit, false));
    }

    /// Whether DESTROY has not left yet: the id must not be used again.
    pub fn is_open(&self, circuit: CircuitId) -> bool {
        self.flows.contains_key(&circuit)
    }

    /// Cells that an edge may still queue on this circuit, none when it is over. When it is 0, the circuit's number comes out of
    /// [`Self::drain_roomy`] later.
    pub fn room(&mut self, circuit: CircuitId) -> Option<u64> {
        let flow = self.flows.get_mut(&circuit).filter(|flow| !flow.ending)?;
        let room = flow.permitted.saturating_sub(flow.sent + flow.frames.len() as u64);
        flow.wants_room = room == 0;
        Some(room)
    }

    /// Circuits that waited for room and have it now.
    pub fn drain_roomy(&mut self) -> std::vec::Drain<'_, CircuitId> {
        self.roomy.drain(..)
    }

    /// The peer permits more cells. Unknown circuits are ignored (they are dying); permission never decreases. No honest peer permits
    /// more than the largest window beyond what was sent: what goes further counts for as much, else an edge would queue without end.
    pub fn credited(&mut self, circuit: CircuitId, permitted: u64) {
        let Some(flow) = self.flows.get_mut(&circuit) else { return };
        flow.permitted = flow.permitted.max(permitted.min(flow.sent + MAX_WINDOW_CELLS));
        if flow.wants_room && flow.permitted > flow.sent {
            flow.wants_room = false;
            self.roomy.push(circuit);
        }
        if !planted("credit-wakes-nobody") {
            self.enter_round(circuit);
        }
    }

    /// The peer asks for permission back: answered by LIMIT, at what was sent or what is asked for, the larger.
    pub fn reclaimed(&mut self, circuit: CircuitId, to: u64) {
        let Some(flow) = self.flows.get_mut(&circuit) else { return };
        let limit = to.max(flow.sent).min(flow.permitted);
        let limit = if planted("limit-below-what-was-sent") { to.min(flow.permitted) } else { limit };
        flow.permitted = limit;
        self.limits.insert(circuit, limit);
    }

    /// The peer's answer to our RECLAIM, for a circuit whose cells are drained here (an upstream of a flow on this lane).
    ///
    /// # Errors
    /// When the peer lies.
    pub fn limited(&mut self, circuit: CircuitId, limit: u64, now_ms: u64) -> Result<Option<u64>, CreditError> {
        let upstream = self.flows.get_mut(&circuit).and_then(|flow| flow.upstream.as_mut());
        upstream.map_or(Ok(None), |upstream| upstream.granter.limited(limit, now_ms))
    }

    /// Queues CREDIT for a circuit of this lane.
    pub fn push_credit(&mut self, circuit: CircuitId, permitted: u64) {
        if self.flows.contains_key(&circuit) {
            // Whoever computed a number first may come here last: the lower one must not take the higher one's place.
            let waiting = self.credit.entry(circuit).or_default();
            *waiting = permitted.max(*waiting);
        }
    }

    /// Queues RECLAIM for a circuit of this lane.
    pub fn push_reclaim(&mut self, circuit: CircuitId, to: u64) {
        if self.flows.contains_key(&circuit) {
            self.reclaims.insert(circuit, to);
        }
    }

    /// Permission to ask back, because these circuits were idle: (lane, circuit, absolute number) for [`Self::push_reclaim`] there.
    pub fn idle(&mut self, now_ms: u64, idle_ms: u64) -> Vec<CreditDue<H>> {
        let upstreams = self.flows.values_mut().filter_map(|flow| flow.upstream.as_mut());
        let ask = upstreams.filter_map(|upstream| {
            let permitted = upstream.granter.reclaim(now_ms, idle_ms)?;
            Some(CreditDue { lane: upstream.lane.clone(), circuit: upstream.circuit, permitted })
        });
        ask.collect()
    }

    /// Queues one piece of the control stream: a whole frame.
    ///
    /// # Errors
    /// When the peer does not read them.
    pub fn push_control(&mut self, frame: FrameBuf) -> Result<(), QueueError> {
        if self.control.len() >= CONTROL_QUEUE_BYTES / FRAME_BYTES {
            return Err(QueueError::ControlFull);
        }
        self.control.push_back(frame);
        if !self.control_in_round {
            self.control_in_round = true;
            self.new.push_back(CONTROL);
        }
        Ok(())
    }

    /// Queues one urgent message: a whole frame.
    ///
    /// # Errors
    /// When the peer does not read them.
    pub fn push_urgent(&mut self, frame: FrameBuf) -> Result<(), QueueError> {
        if self.urgent.len() >= URGENT_MESSAGES {
            return Err(QueueError::ControlFull);
        }
        self.urgent.push_back(frame);
        Ok(())
    }

    /// The lane is gone: drops everything, takes nothing more.
    pub fn close(&mut self) {
        *self = Self { dead: true, ..Self::new(self.end, 0) };
    }

    /// Whether [`Self::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.dead
    }

    /// Whether an urgent message waits.
    pub fn has_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    /// Whether a take would give something.
    pub fn is_empty(&self) -> bool {
        let class_one = self.urgent.is_empty()
            && self.destroys.is_empty()
            && self.credit.is_empty()
            && self.reclaims.is_empty()
            && self.limits.is_empty();
        class_one && self.new.is_empty() && self.old.is_empty()
    }

    /// Takes up to `most` frames in sending order into `out`, and the credit that is due on other lanes for the cells among them.
    pub fn take(&mut self, most: usize, now_ms: u64, out: &mut Vec<FrameBuf>, due: &mut Vec<CreditDue<H>>) {
        self.take_first_class(most, out);
        while out.len() < most {
            if !self.take_turn(most, now_ms, out, due) {
                return;
            }
        }
    }

    fn take_first_class(&mut self, most: usize, out: &mut Vec<FrameBuf>) {
        let numbers =
            [(Command::Credit, &mut self.credit), (Command::Reclaim, &mut self.reclaims), (Command::Limit, &mut self.limits)];
        for (command, waiting) in numbers {
            while !waiting.is_empty() && out.len() < most {
                let pairs: Vec<_> = waiting.iter().take(PAIRS_PER_FRAME).map(|(circuit, cells)| (*circuit, *cells)).collect();
                for (circuit, _) in &pairs {
                    waiting.remove(circuit);
                }
                out.push(pairs_frame(command, &pairs));
            }
        }
        while out.len() < most {
            let Some(frame) = self.urgent.pop_front() else { break };
            out.push(frame);
        }
        while out.len() < most {
            let Some(circuit) = self.destroys.pop_front() else { break };
            out.push(FrameBuf::with_body(Header::new(circuit, Command::Destroy), &[]));
        }
    }

    /// One turn of one flow; false when no flow can send.
    fn take_turn(&mut self, most: usize, now_ms: u64, out: &mut Vec<FrameBuf>, due: &mut Vec<CreditDue<H>>) -> bool {
        let from_new = !self.new.is_empty();
        let Some(circuit) = self.new.pop_front().or_else(|| self.old.pop_front()) else { return false };
        if circuit == CONTROL {
            self.control_turn(out);
            return true;
        }
        let Some(flow) = self.flows.get_mut(&circuit) else { return true };
        let before = out.len();
        let mut cells = 0;
        while flow.deficit > 0 && out.len() < most && flow.sendable() {
            let Some(frame) = flow.frames.pop_front() else { break };
            if is_cell(&frame) {
                flow.sent += 1;
                cells += 1;
            }
            flow.deficit -= 1;
            out.push(frame);
        }
        if let Some(upstream) = flow.upstream.as_mut().filter(|_| cells > 0)
            && let Some(permitted) = upstream.granter.drained(cells, now_ms)
        {
            due.push(CreditDue { lane: upstream.lane.clone(), circuit: upstream.circuit, permitted });
        }
        self.frames_since_control =
            self.frames_since_control.saturating_add(u32::try_from(out.len() - before).unwrap_or(u32::MAX));
        if flow.ending && flow.frames.is_empty() {
            self.flows.remove(&circuit);
            self.forget(circuit);
        } else if flow.sendable() {
            let unfinished = flow.deficit > 0;
            if unfinished {
                // The batch is full: this flow goes on where it stopped.
                if from_new { self.new.push_front(circuit) } else { self.old.push_front(circuit) }
            } else {
                flow.deficit = QUANTUM_FRAMES;
                self.old.push_back(circuit);
            }
        } else {
            flow.in_round = false;
        }
        true
    }

    fn control_turn(&mut self, out: &mut Vec<FrameBuf>) {
        let others_wait = !self.new.is_empty() || !self.old.is_empty();
        let due = !others_wait || self.frames_since_control >= CONTROL_SHARE - 1;
        if due && let Some(frame) = self.control.pop_front() {
            out.push(frame);
            self.frames_since_control = 0;
        }
        if self.control.is_empty() {
            self.control_in_round = false;
        } else {
            self.old.push_back(CONTROL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::credit::Pool;
    use super::*;
    use crate::lane::frame::pairs;

    const MOST: usize = 64;

    fn queue() -> LaneQueue<u8> {
        LaneQueue::new(LaneEnd::Dialler, 10)
    }

    fn cell(circuit: CircuitId) -> Outgoing {
        Outgoing { circuit, frame: FrameBuf::with_body(Header::new(circuit, Command::Cell), &[]) }
    }

    fn give(queue: &mut LaneQueue<u8>, circuit: CircuitId, cells: usize) {
        queue.hand_over(&mut (0..cells).map(|_| cell(circuit)).collect(), &mut Vec::new());
    }

    fn taken(queue: &mut LaneQueue<u8>, most: usize) -> Vec<(u32, Command)> {
        let mut out = Vec::new();
        queue.take(most, 0, &mut out, &mut Vec::new());
        let header = |frame: &FrameBuf| Header::decode(frame.bytes()).unwrap();
        out.iter().map(|frame| (header(frame).circuit.0, header(frame).command)).collect()
    }

    #[test]
    fn ids_are_odd_for_the_dialler_and_free_ones_only() {
        let mut dialler = queue();
        assert_eq!((dialler.open(None), dialler.open(None)), (Ok(CircuitId(1)), Ok(CircuitId(3))));
        let mut acceptor: LaneQueue<u8> = LaneQueue::new(LaneEnd::Acceptor, 10);
        assert_eq!(acceptor.open(None), Ok(CircuitId(2)));
        assert!(LaneEnd::Acceptor.peer_may_open(CircuitId(1)) && !LaneEnd::Acceptor.peer_may_open(CircuitId(2)));
        assert!(!LaneEnd::Dialler.peer_may_open(CircuitId(0)));
    }

    #[test]
    fn never_more_cells_than_permitted() {
        let mut queue = queue();
        let circuit = queue.open(None).unwrap();
        give(&mut queue, circuit, 40);
        assert_eq!(taken(&mut queue, MOST).len(), FIRST_WINDOW_CELLS as usize);
        assert!(queue.is_empty(), "what waits for credit does not wake the writer");
        queue.credited(circuit, 20);
        queue.credited(circuit, 18);
        assert_eq!(taken(&mut queue, MOST).len(), 4, "a smaller number changes nothing");
    }

    #[test]
    fn circuits_take_turns() {
        let mut queue = queue();
        let (a, b) = (queue.open(None).unwrap(), queue.open(None).unwrap());
        give(&mut queue, a, 8);
        give(&mut queue, b, 8);
        let order: Vec<u32> = taken(&mut queue, MOST).iter().map(|(circuit, _)| *circuit).collect();
        assert_eq!(order, [1, 1, 3, 3, 1, 1, 3, 3, 1, 1, 3, 3, 1, 1, 3, 3]);
    }

    #[test]
    fn a_sparse_circuit_overtakes_a_busy_one() {
        let mut queue = queue();
        let (busy, sparse) = (queue.open(None).unwrap(), queue.open(None).unwrap());
        give(&mut queue, busy, 16);
        taken(&mut queue, 4);
        give(&mut queue, sparse, 1);
        assert_eq!(taken(&mut queue, 1), [(3, Command::Cell)]);
    }

    #[test]
    fn control_gets_a_quarter_of_a_busy_lane_and_all_of_an_idle_one() {
        let mut queue = queue();
        let circuit = queue.open(None).unwrap();
        queue.credited(circuit, 1000);
        let control = || FrameBuf::with_body(Header::new(CONTROL, Command::Control), &[]);
        (0..20).for_each(|_| queue.push_control(control()).unwrap());
        give(&mut queue, circuit, 100);
        let busy = taken(&mut queue, 40);
        let share = busy.iter().filter(|(_, command)| *command == Command::Control).count();
        assert!((8..=11).contains(&share), "{share} of 40");
        taken(&mut queue, 200);
        (0..20).for_each(|_| queue.push_control(control()).unwrap());
        assert_eq!(taken(&mut queue, 40).len(), 20);
    }

    #[test]
    fn control_has_a_bound() {
        let mut queue = queue();
        let control = || FrameBuf::with_body(Header::new(CONTROL, Command::Control), &[]);
        let full = (0..100_000).find(|_| queue.push_control(control()).is_err());
        assert_eq!(full, Some(CONTROL_QUEUE_BYTES / FRAME_BYTES));
    }

    #[test]
    fn credit_urgent_and_abortive_destroy_go_before_data() {
        let mut queue = queue();
        let (a, b) = (queue.open(None).unwrap(), queue.open(None).unwrap());
        give(&mut queue, a, 3);
        give(&mut queue, b, 3);
        queue.push_urgent(FrameBuf::with_body(Header::new(CONTROL, Command::Control), &[])).unwrap();
        queue.destroy(b, false);
        queue.push_credit(a, 99);
        let order: Vec<_> = taken(&mut queue, MOST).iter().map(|(_, command)| *command).collect();
        use Command::{Cell, Control, Credit, Destroy};
        assert_eq!(order, [Credit, Control, Destroy, Cell, Cell, Cell]);
    }

    #[test]
    fn an_orderly_destroy_comes_behind_the_cells_and_frees_the_id() {
        let mut queue = queue();
        let circuit = queue.open(None).unwrap();
        give(&mut queue, circuit, 2);
        queue.destroy(circuit, true);
        give(&mut queue, circuit, 1);
        assert!(queue.is_open(circuit));
        let order: Vec<_> = taken(&mut queue, MOST).iter().map(|(_, command)| *command).collect();
        assert_eq!(order, [Command::Cell, Command::Cell, Command::Destroy]);
        assert!(!queue.is_open(circuit));
        queue.destroy(circuit, false);
        assert!(queue.is_empty(), "one DESTROY, not two");
    }

    #[test]
    fn an_id_is_used_again_only_after_both_destroys() {
        let mut queue = queue();
        let first = queue.open(None).unwrap();
        for orderly in [false, true] {
            give(&mut queue, first, usize::from(orderly));
            queue.destroy(first, orderly);
            taken(&mut queue, MOST);
            queue.next_id = first.0;
            let other = queue.open(None).unwrap();
            assert_ne!(other, first, "the peer's DESTROY has not come");
            queue.destroyed(first);
            queue.destroyed(other);
            queue.next_id = first.0;
            assert_eq!(queue.open(None), Ok(first));
        }
    }

    #[test]
    fn ids_whose_destroy_is_never_answered_are_bounded() {
        let mut queue = queue();
        let opened = (0..=LANE_CIRCUITS).take_while(|_| queue.open(None).map(|circuit| queue.destroy(circuit, false)).is_ok());
        assert_eq!(opened.count(), LANE_CIRCUITS);
    }

    #[test]
    fn the_peer_s_destroy_ends_what_still_waits_for_credit() {
        let mut queue = queue();
        let circuit = queue.open(None).unwrap();
        give(&mut queue, circuit, 30);
        queue.destroy(circuit, true);
        queue.destroyed(circuit);
        assert_eq!(taken(&mut queue, MOST), [(1, Command::Destroy)], "once, and no cells");
    }

    #[test]
    fn a_circuit_that_ended_leaves_no_place_in_the_round() {
        let mut queue: LaneQueue<u8> = LaneQueue::new(LaneEnd::Acceptor, 10);
        let circuit = CircuitId(1);
        for _ in 0..100 {
            queue.accept(circuit);
            give(&mut queue, circuit, 1);
            queue.destroyed(circuit);
        }
        assert_eq!((queue.new.len(), queue.old.len()), (0, 0), "a peer that reads nothing could fill it");
        assert_eq!(taken(&mut queue, 1000).len(), 100);
    }

    #[test]
    fn an_orderly_destroy_without_credit_becomes_an_abortive_one() {
        let mut queue = queue();
        let circuit = queue.open(None).unwrap();
        give(&mut queue, circuit, 30);
        taken(&mut queue, MOST);
        queue.destroy(circuit, true);
        queue.sweep(1000, 5000);
        assert!(queue.is_empty());
        queue.sweep(6000, 5000);
        assert_eq!(taken(&mut queue, MOST), [(1, Command::Destroy)]);
    }

    #[test]
    fn an_abortive_destroy_overrides_an_orderly_one() {
        let mut queue = queue();
        let circuit = queue.open(None).unwrap();
        give(&mut queue, circuit, 30);
        queue.destroy(circuit, true);
        queue.destroy(circuit, false);
        assert_eq!(taken(&mut queue, MOST), [(1, Command::Destroy)]);
    }

    #[test]
    fn credit_goes_back_when_cells_leave() {
        let pool = Pool::new(1 << 20);
        let mut queue = queue();
        let granter = Granter::new(pool.reserve(FIRST_WINDOW_CELLS).unwrap(), Pace::new(10), 0);
        let circuit = queue.open(Some(Upstream { lane: 9, circuit: CircuitId(5), granter })).unwrap();
        give(&mut queue, circuit, 10);
        let (mut out, mut due) = (Vec::new(), Vec::new());
        queue.take(MOST, 1, &mut out, &mut due);
        let last = due.last().unwrap();
        assert_eq!((last.lane, last.circuit, last.permitted), (9, CircuitId(5), 8 + 32));
        queue.close();
        assert_eq!(pool.reserved_cells(), 0, "closing a lane gives its memory back");
    }

    #[test]
    fn windows_grow_by_the_round_trip_of_the_lane_that_the_cells_come_on() {
        let pool = Pool::new(1 << 20);
        let (from, mut to) = (queue(), queue());
        let circuit = {
            let granter = Granter::new(pool.reserve(FIRST_WINDOW_CELLS).unwrap(), from.pace(), 0);
            to.open(Some(Upstream { lane: 9, circuit: CircuitId(5), granter })).unwrap()
        };
        let mut far = from;
        far.set_growth_ms(200);
        to.set_growth_ms(2);
        give(&mut to, circuit, 8);
        let mut due = Vec::new();
        to.take(MOST, 150, &mut Vec::new(), &mut due);
        assert_eq!(due[0].permitted, 8 + 32, "the window limits the rate: one round trip has not passed");
    }

    #[test]
    fn credit_that_comes_late_does_not_replace_a_later_one() {
        let mut queue = queue();
        let circuit = queue.open(None).unwrap();
        queue.push_credit(circuit, 160);
        queue.push_credit(circuit, 100);
        let mut out = Vec::new();
        queue.take(MOST, 0, &mut out, &mut Vec::new());
        assert_eq!(pairs(&out[0].bytes()[8..]).unwrap().collect::<Vec<_>>(), [(circuit, 160)]);
    }

    #[test]
    fn circuits_that_are_opened_and_ended_unread_have_a_bound() {
        let mut queue: LaneQueue<u8> = LaneQueue::new(LaneEnd::Acceptor, 10);
        let full = (0..100_000).find(|_| {
            let accepted = queue.accept(CircuitId(1));
            queue.destroy(CircuitId(1), false);
            !accepted
        });
        assert_eq!(full, Some(LANE_CIRCUITS));
    }

    #[test]
    fn reclaim_is_answered_by_limit_at_least_what_was_sent() {
        let mut queue = queue();
        let circuit = queue.open(None).unwrap();
        queue.credited(circuit, 64);
        give(&mut queue, circuit, 10);
        taken(&mut queue, MOST);
        queue.reclaimed(circuit, 4);
        let mut out = Vec::new();
        queue.take(MOST, 0, &mut out, &mut Vec::new());
        assert_eq!(pairs(&out[0].bytes()[8..]).unwrap().collect::<Vec<_>>(), [(circuit, 10)]);
        assert_eq!(queue.room(circuit), Some(0));
        queue.credited(circuit, 11);
        assert_eq!(queue.drain_roomy().collect::<Vec<_>>(), [circuit]);
    }

    #[test]
    fn a_batch_that_fills_up_continues_with_the_same_flow() {
        let mut queue = queue();
        let (a, b) = (queue.open(None).unwrap(), queue.open(None).unwrap());
        give(&mut queue, a, 4);
        give(&mut queue, b, 4);
        let mut order = Vec::new();
        while !queue.is_empty() {
            order.extend(taken(&mut queue, 1).iter().map(|(circuit, _)| *circuit));
        }
        assert_eq!(order, [1, 1, 3, 3, 1, 1, 3, 3]);
    }
}
