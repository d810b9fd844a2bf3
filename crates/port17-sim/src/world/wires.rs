//! Lanes: how they are made, what travels on them, how they end.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use port17_proto::crypto::{Entropy, SigningKey};
use port17_proto::lane::frame::FrameBuf;
use port17_proto::lane::queue::{LaneEnd, LaneQueue};
use port17_proto::lane::reader::{Event as LaneEvent, LinkFault, Port, Reader};
use port17_proto::limits::LANE_WRITE_FRAMES;
use port17_proto::node::io::{DialFailure, DialId, Input, LaneId, LaneLoss, ShownKey};
use port17_proto::wire::message::{MessageStream, RawMessage};
use port17_proto::wire::registry::{Command, FRAME_BYTES};

use super::{Event, World};
use crate::edge::Edge;
use crate::judge::CreditView;
use crate::lane::{End, EndId, Lane, Parcel, WIRE_FRAMES};
use port17_proto::circuit::hop::Setup;

/// Frames kept to be used again.
const READ_FRAMES: usize = 1024;

impl World {
    // ---- Making ----

    pub(crate) fn dial(&mut self, host: usize, dial: DialId, to: Result<usize, DialFailure>, show: ShownKey) {
        let patience_us = u64::try_from(self.params.dial_timeout.as_micros()).unwrap_or(u64::MAX);
        let (to, after_us) = match to {
            Ok(other) if self.is_cut(host, other) || self.is_cut(other, host) => (Err(DialFailure::Timeout), patience_us),
            // TCP, then TLS.
            Ok(other) => (Ok(other), 4 * self.latency(host, other)),
            Err(why) => (Err(why), 50_000),
        };
        let life = self.hosts[host].life;
        self.hosts[host].dials.insert(dial);
        self.after(after_us, Event::Connect { host, life, dial, to, show });
    }

    pub(super) fn connect(&mut self, host: usize, dial: DialId, to: Result<usize, DialFailure>, show: ShownKey) {
        if !self.hosts[host].dials.remove(&dial) {
            return;
        }
        let failed = match to {
            Err(why) => Some(why),
            Ok(other) if self.hosts[other].node.is_none() => Some(DialFailure::Refused),
            Ok(other) if self.is_cut(host, other) || self.is_cut(other, host) || self.hosts[other].is_frozen => {
                Some(DialFailure::Timeout)
            }
            Ok(_) => None,
        };
        if let Some(why) = failed {
            return self.inputs.push_back((host, Input::DialFailed { dial, why }));
        }
        if let Ok(other) = to {
            self.make_lane(host, other, Some(dial), show);
        }
    }

    /// A lane from `host` to `other`, whose handshake is done.
    pub(crate) fn make_lane(&mut self, host: usize, other: usize, dial: Option<DialId>, show: ShownKey) -> EndId {
        let (near, far) = (self.ends.len(), self.ends.len() + 1);
        self.lanes_made += 2;
        let shown = match show {
            ShownKey::Link => self.hosts[host].link_key,
            ShownKey::ThrowAway => SigningKey::generate(&mut Entropy::from_number(self.lanes_made)).public(),
        };
        let peer_key = self.hosts[other].link_key;
        self.add_end(near, host, far, LaneEnd::Dialler, LaneId(self.lanes_made));
        self.add_end(far, other, near, LaneEnd::Acceptor, LaneId(self.lanes_made + 1));
        self.ends[near].peer_key = peer_key;
        self.ends[far].peer_key = shown;
        let half_us = self.latency(host, other);
        // Nothing overtakes the end of the handshake.
        self.ends[far].wire_free_us = self.now_us + half_us;
        self.after(half_us, Event::Accepted { end: far });
        let (lane, remote) = (self.ends[near].id, self.hosts[other].ip);
        self.hosts[host].lanes.insert(lane, near);
        if dial.is_some() {
            self.inputs.push_back((host, Input::LaneUp { lane, dialled: dial, peer_key, remote }));
        }
        near
    }

    fn add_end(&mut self, at: EndId, owner: usize, peer: EndId, end: LaneEnd, id: LaneId) {
        let growth_ms = u64::try_from(self.params.window_growth_floor.as_millis()).unwrap_or(u64::MAX);
        let lane = Lane::new(at, LaneQueue::new(end, growth_ms), Rc::clone(&self.agenda));
        let pool = Arc::clone(&self.hosts[owner].plane.borrow().pool);
        self.credit.push(CreditView::default());
        self.ends.push(End {
            reader: Some(Reader::new(lane.clone(), pool)),
            lane,
            id,
            owner,
            life: self.hosts[owner].life,
            peer,
            dialled: end == LaneEnd::Dialler,
            admitted: None,
            slot: None,
            peer_key: self.hosts[owner].link_key,
            messages: MessageStream::new(),
            inbox: VecDeque::new(),
            in_flight: 0,
            wire_free_us: 0,
            wire_busy_us: 0,
            held: VecDeque::new(),
            is_open: true,
            is_broken: false,
            breaches: Vec::new(),
            edges: BTreeMap::new(),
            control_bytes: 0,
            control_frames: 0,
        });
    }

    pub(super) fn accepted(&mut self, end: EndId) {
        let it = &self.ends[end];
        let (owner, lane, peer_key) = (it.owner, it.id, it.peer_key);
        if !it.is_open || self.hosts[owner].life != it.life {
            return;
        }
        let remote = self.hosts[self.ends[it.peer].owner].ip;
        self.hosts[owner].lanes.insert(lane, end);
        self.inputs.push_back((owner, Input::LaneUp { lane, dialled: None, peer_key, remote }));
    }

    // ---- Sending ----

    /// An end's turn: what its reader was told, what has come, what can go.
    pub(super) fn turn(&mut self, end: EndId) {
        self.ends[end].lane.begin_turn();
        if !self.ends[end].is_open || !self.hosts[self.ends[end].owner].is_up() {
            return;
        }
        self.read(end);
        self.write(end);
    }

    fn write(&mut self, end: EndId) {
        let now_ms = self.now_ms(self.ends[end].owner);
        let roomy: Vec<_> = self.ends[end].lane.look(|queue| queue.drain_roomy().collect());
        for circuit in roomy {
            if let Some(edge) = self.ends[end].edges.get(&circuit) {
                Edge::note(edge);
            }
        }
        if self.clogged.contains(&end) {
            return;
        }
        loop {
            let peer = self.ends[end].peer;
            let room = WIRE_FRAMES.saturating_sub(self.ends[peer].in_flight).min(LANE_WRITE_FRAMES);
            let (mut frames, mut due) = (Vec::new(), Vec::new());
            if room > 0 && self.ends[end].is_open {
                self.ends[end].lane.look(|queue| queue.take(room, now_ms, &mut frames, &mut due));
            }
            due.iter().for_each(|due| due.lane.queue(|queue| queue.push_credit(due.circuit, due.permitted)));
            if frames.is_empty() {
                return;
            }
            self.send_frames(end, frames);
        }
    }

    /// Puts frames on the wire, past the queue.
    pub(crate) fn send_frames(&mut self, end: EndId, frames: Vec<FrameBuf>) {
        let (owner, peer) = (self.ends[end].owner, self.ends[end].peer);
        for frame in &frames {
            if frame.bytes()[4] == Command::Control.code() {
                self.ends[end].control_frames += 1;
            } else {
                if let Some(wrong) = self.credit[end].sent(frame).filter(|_| self.hosts[owner].is_honest) {
                    self.findings.report("credit", wrong);
                }
            }
        }
        let frames = self.tamper(end, frames);
        self.ends[peer].in_flight += frames.len();
        self.post(end, Parcel::Frames(frames));
    }

    /// Puts a parcel on the wire from this end.
    pub(crate) fn post(&mut self, end: EndId, parcel: Parcel) {
        let (owner, peer) = (self.ends[end].owner, self.ends[end].peer);
        let to = self.ends[peer].owner;
        if self.is_cut(owner, to) || !self.ends[peer].held.is_empty() {
            return self.ends[peer].held.push_back(parcel);
        }
        let wire = &self.scenario.wire;
        let bytes = if let Parcel::Frames(frames) = &parcel { frames.len() * FRAME_BYTES } else { 0 } as u64;
        let mut late_us = self.latency(owner, to);
        if wire.jitter_ms > 0 {
            late_us += self.entropy.below(wire.jitter_ms * 1000);
        }
        if wire.loss_permille > 0 && self.entropy.below(1000) < wire.loss_permille {
            // A packet was lost: its retransmission takes another round trip, and a little.
            late_us += 2 * late_us + 10_000;
        }
        let target = &mut self.ends[peer];
        let busy_us = (bytes * 1000).checked_div(wire.kilobytes_per_second).unwrap_or(0);
        let leaves_us = target.wire_busy_us.max(self.now_us) + busy_us;
        target.wire_busy_us = leaves_us;
        let at_us = (leaves_us + late_us).max(target.wire_free_us);
        target.wire_free_us = at_us;
        self.at(at_us, Event::Arrive { end: peer, parcel });
    }

    /// A way is there again: what was held comes, as TCP repeats it.
    pub(crate) fn release(&mut self) {
        for end in 0..self.ends.len() {
            let it = &self.ends[end];
            if it.held.is_empty() || self.is_cut(self.ends[it.peer].owner, it.owner) {
                continue;
            }
            let delay_us = 200_000 + self.entropy.below(1_800_000);
            let it = &mut self.ends[end];
            let at_us = (self.now_us + delay_us).max(it.wire_free_us);
            it.wire_free_us = at_us;
            for parcel in std::mem::take(&mut it.held) {
                self.at(at_us, Event::Arrive { end, parcel });
            }
        }
    }

    // ---- Receiving ----

    pub(super) fn arrive(&mut self, end: EndId, parcel: Parcel) {
        let it = &mut self.ends[end];
        if !it.is_open || self.hosts[it.owner].life != it.life {
            return;
        }
        match parcel {
            Parcel::Frames(frames) => {
                self.trace.note(4, self.now_us, end, frames.len() as u64);
                for frame in &frames {
                    if frame.bytes()[4] != Command::Control.code()
                        && let Some(wrong) = self.credit[end].came(frame)
                        && self.hosts[self.ends[self.ends[end].peer].owner].is_honest
                    {
                        self.findings.report("credit", wrong);
                    }
                }
                self.ends[end].inbox.extend(frames);
                self.ends[end].lane.note();
            }
            Parcel::Gone(why) => {
                // What came before is still read.
                self.read(end);
                let (owner, lane) = (self.ends[end].owner, self.ends[end].id);
                self.close_end(end);
                self.hosts[owner].lanes.remove(&lane);
                self.hosts[owner].plane.borrow_mut().carrying.remove(&lane);
                self.inputs.push_back((owner, Input::LaneDown { lane, why }));
            }
        }
    }

    fn read(&mut self, end: EndId) {
        let owner = self.ends[end].owner;
        let now_ms = self.now_ms(owner);
        let honest = self.hosts[owner].is_honest && self.hosts[self.ends[self.ends[end].peer].owner].is_honest;
        let it = &mut self.ends[end];
        let Some(reader) = it.reader.as_mut().filter(|_| it.is_open && !it.is_broken) else { return };
        for command in it.lane.take_commands() {
            reader.command(command, now_ms);
        }
        let (mut fault, mut read) = (None, 0);
        while reader.hears() && (reader.is_admitted() || !reader.has_events()) {
            let Some(mut frame) = it.inbox.pop_front() else { break };
            read += 1;
            let result = reader.frame(frame.bytes_mut(), now_ms);
            if self.read_frames.len() < READ_FRAMES {
                self.read_frames.push(frame);
            }
            if let Err(broken) = result {
                fault = Some(broken);
                break;
            }
        }
        reader.end_batch(now_ms);
        // Only then the other end may have more that had no room.
        let was_full = it.in_flight >= WIRE_FRAMES;
        it.in_flight = it.in_flight.saturating_sub(read);
        let events: Vec<_> = reader.drain_events().collect();
        let faults = reader.take_faults();
        for (what, times) in faults {
            // A hop's cells come from further away than its neighbour: only where all are honest is a broken circuit nobody's.
            let excused = matches!(what, port17_proto::lane::reader::CircuitFault::SetupRefused);
            if self.liars.is_empty() && !excused {
                self.findings.report("circuit", format!("{} {times} times at host {owner}", what.name()));
            }
            self.trace.note(5, self.now_us, end, times);
            if matches!(what, port17_proto::lane::reader::CircuitFault::Credit) {
                let window_ms = u64::try_from(self.params.breach_window.as_millis()).unwrap_or(u64::MAX);
                let breaches = &mut self.ends[end].breaches;
                breaches.retain(|at| now_ms.saturating_sub(*at) < window_ms);
                breaches.extend((0..times).map(|_| now_ms));
                if breaches.len() > port17_proto::limits::CREDIT_BREACHES && fault.is_none() {
                    self.findings.report("breach", format!("host {owner} keeps a lane whose credit was overrun again and again"));
                }
            }
        }
        if read > 0 && was_full {
            self.ends[self.ends[end].peer].lane.note();
        }
        for event in events {
            match event {
                LaneEvent::Setup { circuit, packet, granter } => self.take_setup(end, circuit, packet, granter),
                LaneEvent::Control { urgent, bytes } => self.control(end, urgent, &bytes),
            }
        }
        if let Some(fault) = fault {
            self.broke(end, fault, honest);
        }
    }

    fn broke(&mut self, end: EndId, fault: LinkFault, honest: bool) {
        let (owner, lane) = (self.ends[end].owner, self.ends[end].id);
        if honest {
            self.findings.report("frame", format!("host {owner} closes a lane to an honest host: {fault}"));
        }
        self.ends[end].is_broken = true;
        self.inputs.push_back((owner, Input::Violation { lane, what: "a frame" }));
    }

    fn control(&mut self, end: EndId, urgent: bool, bytes: &[u8]) {
        let it = &mut self.ends[end];
        let messages = if urgent { RawMessage::from_urgent(bytes).map(|message| vec![message]) } else { it.messages.feed(bytes) };
        let (owner, lane, peer) = (it.owner, it.id, it.peer);
        let Ok(messages) = messages else {
            it.is_broken = true;
            if self.hosts[owner].is_honest && self.hosts[self.ends[peer].owner].is_honest {
                self.findings.report("frame", format!("host {owner} gets a malformed message from an honest host"));
            }
            return self.inputs.push_back((owner, Input::Violation { lane, what: "malformed control message" }));
        };
        for message in messages {
            if let Some(reader) = &mut self.ends[end].reader {
                reader.passed_on();
            }
            if self.liar_hears(end, urgent, &message) {
                continue;
            }
            self.inputs.push_back((owner, Input::Control { lane, urgent, message }));
        }
    }

    fn take_setup(
        &mut self,
        end: EndId,
        circuit: port17_proto::ids::CircuitId,
        packet: port17_proto::circuit::setup::SetupPacket,
        granter: port17_proto::lane::credit::Granter,
    ) {
        const WORK_US: u64 = 200;
        let (host, lane) = (self.ends[end].owner, self.ends[end].lane.clone());
        let life = self.hosts[host].life;
        let waits_us = WORK_US + self.entropy.below(5 * WORK_US);
        let setup = Box::new(Setup { lane, circuit, packet, granter });
        self.after(waits_us, Event::SetUp { host, life, setup });
        self.plan_sweep(host, 1_000_000);
    }

    // ---- Ending ----

    /// The engine closes a lane: what is urgent goes first.
    pub(crate) fn close_lane(&mut self, host: usize, lane: LaneId) {
        let Some(end) = self.hosts[host].lanes.remove(&lane) else { return };
        self.hosts[host].plane.borrow_mut().carrying.remove(&lane);
        if self.ends[end].lane.look(|queue| queue.has_urgent()) {
            let now_ms = self.now_ms(host);
            let (mut frames, mut due) = (Vec::new(), Vec::new());
            self.ends[end].lane.look(|queue| queue.take(LANE_WRITE_FRAMES, now_ms, &mut frames, &mut due));
            due.iter().for_each(|due| due.lane.queue(|queue| queue.push_credit(due.circuit, due.permitted)));
            self.send_frames(end, frames);
        }
        self.post(end, Parcel::Gone(LaneLoss::Closed));
        self.close_end(end);
        self.inputs.push_back((host, Input::LaneDown { lane, why: LaneLoss::Closed }));
    }

    /// The process is gone, or the connection has broken on this side.
    pub(crate) fn drop_end(&mut self, end: EndId, why: LaneLoss) {
        if self.ends[end].is_open {
            self.post(end, Parcel::Gone(why));
            self.close_end(end);
        }
    }

    /// One lane breaks, as both ends' kernels see it.
    pub(crate) fn break_lane(&mut self, end: EndId) {
        for end in [end, self.ends[end].peer] {
            let (owner, lane) = (self.ends[end].owner, self.ends[end].id);
            if self.ends[end].is_open && self.hosts[owner].lanes.remove(&lane).is_some() {
                self.hosts[owner].plane.borrow_mut().carrying.remove(&lane);
                self.close_end(end);
                self.inputs.push_back((owner, Input::LaneDown { lane, why: LaneLoss::Broken }));
            }
        }
    }

    fn close_end(&mut self, end: EndId) {
        let now_ms = self.now_ms(self.ends[end].owner);
        let it = &mut self.ends[end];
        it.is_open = false;
        it.inbox.clear();
        it.held.clear();
        it.edges.clear();
        self.clogged.remove(&end);
        let lane = it.lane.clone();
        if let Some(mut reader) = it.reader.take() {
            reader.close(|| lane.last_commands(), now_ms);
        }
        lane.queue(LaneQueue::close);
    }
}
