//! Engines: what they are told, what they want done, and what is judged about it at once.

use std::rc::Rc;
use std::time::Duration;

use port17_proto::bottle::{Seq, UnverifiedBottle};
use port17_proto::circuit::hop::{self, Decision, Exit, Now, Setup};
use port17_proto::circuit::keyring::{CircuitKey, KeyId};
use port17_proto::circuit::mux::{Mux, Side, StreamRules};
use port17_proto::circuit::replay::ReplayError;
use port17_proto::circuit::setup::{SetupError, SetupPacket};
use port17_proto::ids::{CircuitId, NodeId};
use port17_proto::lane::frame::{FrameBuf, Header};
use port17_proto::lane::reader::{Admission, Command, Port};
use port17_proto::navigator::Map;
use port17_proto::node::io::{Counted, DialFailure, Input, LaneId, LaneLoss, Output, Peer};
use port17_proto::params::Rate;
use port17_proto::wire::message::{split_into_pieces, write_control_body};
use port17_proto::wire::registry::{BODY_BYTES, CONTROL_FLAG_URGENT, Command as Code, HEADER_BYTES};

use super::{Event, World};
use crate::edge::{Edge, EdgeSink, Sealing};
use crate::host::Kind;
use crate::judge::{Holdings, never_by_the_honest};
use crate::lane::{EndId, Lane};
use crate::plane::Carrying;

/// Outputs that one input may cause: a whole map to all neighbours, twice.
const OUTPUTS: usize = 200_000;

/// Who has caused what an engine does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A client's words.
    Client,
    /// The words of an honest node.
    Honest,
}

impl World {
    pub(super) fn input(&mut self, host: usize, input: Input) {
        if self.hosts[host].is_frozen {
            return self.hosts[host].backlog.push_back(input);
        }
        let time = self.time(host);
        if self.hosts[host].node.is_none() {
            return;
        }
        let (kind, size) = kind(&input);
        self.last_message =
            if let Input::Control { message, .. } = &input { Some((message.code, message.body.len())) } else { None };
        self.trace.note(kind, self.now_us, host, size);
        let cause = self.cause(host, &input);
        if cause == Some(Cause::Client) {
            // What is due at this moment is not the client's doing.
            if let Some(node) = &mut self.hosts[host].node {
                node.handle(Input::Tick, time);
            }
            self.drain(host, None);
        }
        if let Some(node) = &mut self.hosts[host].node {
            node.handle(input, time);
        }
        self.drain(host, cause);
    }

    fn cause(&self, host: usize, input: &Input) -> Option<Cause> {
        let (Input::Control { lane, .. } | Input::Violation { lane, .. }) = input else { return None };
        let end = *self.hosts[host].lanes.get(lane)?;
        let other = &self.hosts[self.ends[self.ends[end].peer].owner];
        match other.kind {
            Kind::Client => Some(Cause::Client),
            Kind::Node => other.is_honest.then_some(Cause::Honest),
        }
    }

    /// Carries out all that an engine wants.
    pub(crate) fn drain(&mut self, host: usize, cause: Option<Cause>) {
        for outputs in 0.. {
            let Some(node) = &mut self.hosts[host].node else { return };
            let output = node.poll();
            if let Output::Wait { until, .. } = output {
                let it = &mut self.hosts[host];
                it.deadline_us = until.map(|at| it.started_us + micros_up(at));
                return self.plan_wake(host);
            }
            if outputs == OUTPUTS {
                return self.findings.report("spin", format!("host {host} does not come to an end"));
            }
            if cause == Some(Cause::Client) && matches!(output, Output::Dial { .. }) {
                self.findings.report("law 1", format!("what a client said makes host {host} dial"));
            }
            self.carry_out(host, cause, output);
        }
    }

    fn carry_out(&mut self, host: usize, cause: Option<Cause>, output: Output) {
        match output {
            Output::Dial { dial, node, addresses, expected, show } => {
                let to = match self.host_at(&addresses) {
                    None => Err(DialFailure::Unreachable),
                    Some(other) if !expected.contains(&self.hosts[other].link_key) => Err(DialFailure::WrongKey),
                    Some(other) => Ok(other),
                };
                self.trace.note(6, self.now_us, host, u64::from(node.0[0]));
                self.dial(host, dial, to, show);
            }
            Output::CancelDial(dial) => drop(self.hosts[host].dials.remove(&dial)),
            Output::Send { lane, urgent, message } => self.send(host, lane, urgent, &message),
            Output::Close { lane } => self.close_lane(host, lane),
            Output::HearLane { lane } => {
                if let Some(end) = self.hosts[host].lanes.get(&lane) {
                    self.ends[*end].lane.command(Command::Hear);
                }
            }
            Output::AdmitLane { lane, peer, slot, circuits, dialled: _ } => {
                if let Some(end) = self.hosts[host].lanes.get(&lane) {
                    self.ends[*end].slot = Some(slot);
                }
                self.admit(host, lane, peer, circuits);
            }
            Output::LinkUp { peer, lanes } => {
                if lanes.is_empty() || lanes.len() > 2 {
                    self.findings.report("bound", format!("a link of host {host} has {} lanes", lanes.len()));
                }
                let mut plane = self.hosts[host].plane.borrow_mut();
                let is_new = plane.links.insert(peer, lanes).is_none();
                let nodes = plane.links.keys().filter(|peer| peer.node().is_some()).count();
                if nodes > port17_proto::limits::LINKS {
                    self.findings.report("bound", format!("host {host} has {nodes} links"));
                }
                drop(plane);
                self.judge_backups(host);
                self.record.link_changes += u64::from(is_new && self.counts_links(host, peer));
                self.looks.insert(host);
            }
            Output::LinkDown { peer } => {
                let is_gone = self.hosts[host].plane.borrow_mut().links.remove(&peer).is_some();
                if let Some(node) = peer.node() {
                    self.hosts[host].lost_us.insert(node, self.now_us);
                }
                self.record.link_changes += u64::from(is_gone && self.counts_links(host, peer));
            }
            Output::LaneRtt { lane, rtt } => self.set_growth(host, lane, rtt),
            Output::StoreSeq(seq) => self.store_seq(host, seq),
            Output::PublishBottle { seq, bytes } => self.publish(host, seq, &bytes),
            Output::Save(key, bytes) => self.save(host, key, Some(bytes)),
            Output::Forget(key) => self.save(host, key, None),
            Output::NewCircuitKey(key) => self.hold_key(host, &key),
            Output::EraseCircuitKey(key) => self.erase_key(host, key),
            Output::BottlerackChanged(node) => self.rack_changed(host, &node),
            Output::Guards(set) => {
                self.judge_guards(host, &set);
                self.hosts[host].guards = Some(set);
                self.looks.insert(host);
            }
            Output::LeaveGuard(node) => {
                let flows = |edge: &Edge| !edge.is_over && edge.route.first() == Some(&node) && !edge.flows.is_empty();
                if !self.hosts[host].client.circuits.iter().any(|standing| flows(&standing.edge.borrow())) {
                    self.inputs.push_back((host, Input::GuardIdle(node)));
                }
            }
            Output::ListAccepted { seq } => {
                if seq > self.list_seq {
                    self.findings.report("list", format!("host {host} takes list {seq}, which the roots have not signed"));
                }
                self.hosts[host].map = None;
                self.looks.insert(host);
            }
            Output::ListRefused(why) => {
                // What a process finds on its disk when it starts, a crash may have torn.
                let is_torn = self.scenario.faults.torn_records && self.hosts[host].started_us == self.now_us;
                if self.hosts[host].clock_error_ms == 0 && self.liars.is_empty() && !is_torn {
                    self.findings.report("list", format!("host {host} refuses the network's list: {why}"));
                }
            }
            Output::Counted(what) => self.counted(host, cause, what),
            Output::Stopped | Output::Wait { .. } => {}
        }
    }

    fn counted(&mut self, host: usize, cause: Option<Cause>, what: Counted) {
        self.trace.note(7, self.now_us, host, what as u64);
        let nobody_lies = self.liars.is_empty();
        let honest = self.hosts[host].is_honest && (cause == Some(Cause::Honest) || nobody_lies);
        if honest && never_by_the_honest(what) {
            let (name, message) = (what.name(), self.last_message);
            self.findings.report("honest", format!("host {host} counts {name} by an honest peer: code and length {message:?}"));
        }
        // An engine's clock never runs back: only who started with a wrong one is behind.
        let clock_is_right = self.hosts[host].started_late_ms == 0;
        if nobody_lies && what == Counted::BottleEquivocation {
            self.findings.report("honest", format!("host {host} sees two truths where nobody lies"));
        }
        if nobody_lies && clock_is_right && what == Counted::BottleRefused {
            self.findings.report("honest", format!("host {host} refuses a Bottle where nobody lies"));
        }
        if nobody_lies && !self.scenario.faults.torn_records && what == Counted::RecordDamaged {
            self.findings.report("store", format!("host {host} finds a record damaged that it has stored"));
        }
    }

    fn send(&mut self, host: usize, lane: LaneId, urgent: bool, message: &[u8]) {
        let Some(end) = self.hosts[host].lanes.get(&lane).copied() else { return };
        self.ends[end].control_bytes += message.len() as u64;
        let lane_handle = self.ends[end].lane.clone();
        let sent = if urgent {
            let frame = self.control_frame(message, CONTROL_FLAG_URGENT);
            lane_handle.queue(|queue| frame.map_or(Ok(()), |frame| queue.push_urgent(frame)))
        } else {
            let frames: Vec<_> = split_into_pieces(message).filter_map(|piece| self.control_frame(piece, 0)).collect();
            lane_handle.queue(|queue| frames.into_iter().try_for_each(|frame| queue.push_control(frame)))
        };
        if sent.is_err() {
            self.close_lane(host, lane);
            self.inputs.push_back((host, Input::LaneDown { lane, why: LaneLoss::Overrun }));
        }
    }

    /// One frame of control, in one that was read before if there is one.
    pub(crate) fn control_frame(&mut self, bytes: &[u8], flags: u8) -> Option<FrameBuf> {
        let mut frame = self.read_frames.pop().unwrap_or_default();
        let body = frame.bytes_mut()[HEADER_BYTES..].first_chunk_mut::<BODY_BYTES>()?;
        body.fill(0);
        write_control_body(bytes, body).ok()?;
        frame.set_header(Header { flags, ..Header::new(CircuitId(0), Code::Control) });
        Some(frame)
    }

    fn admit(&mut self, host: usize, lane: LaneId, peer: Peer, circuits: u32) {
        let Some(end) = self.hosts[host].lanes.get(&lane).copied() else { return };
        self.judge_admission(host, end, peer);
        let (mine, Rate { per_second, burst }) = match peer {
            Peer::Node(_) => (self.params.node_lane_circuits, self.params.node_setups),
            Peer::Client(_) => (self.params.client_link_circuits, self.params.client_setups),
        };
        let mine = if self.hosts[host].kind == Kind::Node { mine } else { 0 };
        let admission = Admission {
            circuits: usize::try_from(mine).unwrap_or(usize::MAX),
            setups_per_second: per_second.into(),
            setups_burst: burst.into(),
            breach_window_ms: u64::try_from(self.params.breach_window.as_millis()).unwrap_or(u64::MAX),
        };
        let it = &mut self.ends[end];
        it.admitted = Some(peer);
        let handle = it.lane.clone();
        let mut plane = self.hosts[host].plane.borrow_mut();
        let pool = plane.share(peer);
        let circuits = usize::try_from(circuits).unwrap_or(usize::MAX);
        let carrying = Carrying { lane: handle.clone(), peer, circuits, pool: std::sync::Arc::clone(&pool) };
        plane.carrying.insert(lane, carrying);
        drop(plane);
        handle.command(Command::Memory(pool));
        handle.command(Command::Admit(admission));
    }

    /// Who is admitted as somebody must be he: the key that TLS has proven is in his Bottle.
    fn judge_admission(&self, host: usize, end: EndId, peer: Peer) {
        let other = &self.hosts[self.ends[self.ends[end].peer].owner];
        let is_right = match peer {
            Peer::Node(node) => other.kind == Kind::Node && (node == other.id || self.is_made_up(&node)),
            Peer::Client(_) => other.kind == Kind::Client || !other.is_honest,
        };
        if !is_right {
            self.findings.report("admission", format!("host {host} takes {} for {peer:?}", other.id));
        }
    }

    /// A client shows itself to its primary guard and to one backup, never to two at once (spec 10, 4).
    fn judge_backups(&self, host: usize) {
        let it = &self.hosts[host];
        if it.kind != Kind::Client || !it.is_honest {
            return;
        }
        let primary = it.guards.as_ref().and_then(|set| set.primary);
        let backups = it.plane.borrow().links.keys().filter(|peer| peer.node() != primary).count();
        if primary.is_some() && backups > 1 {
            self.findings.report("guards", format!("client {host} has links to {backups} guards beside its primary"));
        }
    }

    /// A client that starts anew goes on with the guards that it has stored, and what is pinned with them.
    fn judge_guards(&mut self, host: usize, set: &port17_proto::node::guard::GuardSet) {
        let Some(before) = self.hosts[host].guards_before.take() else { return };
        let common = before.guards.iter().find_map(|was| Some((was, set.guards.iter().find(|is| is.node == was.node)?)));
        let Some((was, is)) = common else {
            let text = format!("client {host} has other guards after a restart");
            return self.findings.report("guards", text);
        };
        if is.hop2.is_empty() {
            // They are looked for.
            self.hosts[host].guards_before = Some(before);
            return;
        }
        let first_stays = was.hop2.first().is_some_and(|node| self.hosts.iter().any(|other| other.id == *node && other.counts()));
        if first_stays && was.hop2.first() != is.hop2.first() {
            self.findings.report("guards", format!("client {host} has other second hops after a restart"));
        }
    }

    fn set_growth(&self, host: usize, lane: LaneId, rtt: Duration) {
        let Some(end) = self.hosts[host].lanes.get(&lane) else { return };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let growth_ms = ms(rtt).saturating_mul(2).max(ms(self.params.window_growth_floor));
        self.ends[*end].lane.look(|queue| queue.set_growth_ms(growth_ms));
    }

    // ---- Disk ----

    fn store_seq(&mut self, host: usize, seq: Seq) {
        const SYNC_US: u64 = 4000;
        let life = self.hosts[host].life;
        let stored = self.hosts[host].disk.store_seq(seq);
        let input = if stored { Input::SeqStored(seq) } else { Input::SeqNotStored(seq) };
        let after_us = SYNC_US + self.entropy.below(SYNC_US);
        self.after(after_us, Event::Input { host, life, input: Box::new(input) });
    }

    fn save(&mut self, host: usize, key: port17_proto::node::record::RecordKey, bytes: Option<Vec<u8>>) {
        const WRITE_US: u64 = 100_000;
        if self.hosts[host].disk.ask(key, bytes) {
            let after_us = self.entropy.below(WRITE_US);
            self.after(after_us, Event::Written { host });
        }
    }

    // ---- Bottles and keys ----

    fn publish(&mut self, host: usize, seq: Seq, bytes: &[u8]) {
        let it = &mut self.hosts[host];
        self.trace.note(8, self.now_us, host, seq.0);
        if it.disk.seq() != Some(seq) {
            self.findings.report("seq", format!("host {host} publishes a Bottle whose seq it has not stored"));
        }
        if it.newest_seq.is_some_and(|last| last >= seq) {
            self.findings.report("seq", format!("host {host} publishes seq {} behind {:?}", seq.0, it.newest_seq));
        }
        it.newest_seq = Some(seq);
        let rules = self.params.bottle_rules();
        let parsed = UnverifiedBottle::parse(bytes).and_then(|bottle| bottle.verify(seq.unix_ms(), &rules));
        match parsed {
            Ok(bottle) => {
                // A link that was listed stays so for a while when it is lost, also when the Bottle comes only then.
                let grace_us = u64::try_from(self.params.link_loss_grace.as_micros()).unwrap_or(u64::MAX);
                let since_us = self.now_us.saturating_sub(grace_us);
                if let Some(wrong) = listed_alone(it, &bottle, since_us) {
                    self.findings.report("publish", format!("host {host} lists a link to {wrong}, which has not said PUBLISH"));
                }
                let key = KeyId::of(&bottle.content().circuit_key.public);
                if !it.keys.contains_key(&key) {
                    self.findings.report("key", format!("host {host} publishes a circuit key that it does not hold"));
                }
                it.published.push(bottle);
                let most = if it.is_honest { 4 } else { 64 };
                if it.published.len() > most {
                    it.published.remove(0);
                }
            }
            Err(error) => self.findings.report("bottle", format!("host {host} publishes a Bottle that is none: {error}")),
        }
        self.note_published(host, seq);
    }

    fn hold_key(&mut self, host: usize, key: &std::sync::Arc<CircuitKey>) {
        let now_s = self.time(host).unix_ms / 1000;
        let it = &mut self.hosts[host];
        if it.keys.insert(key.id(), now_s).is_some() {
            self.findings.report("key", format!("host {host} makes one circuit key twice"));
        }
        if it.keys.len() > port17_proto::limits::CIRCUIT_KEYS {
            self.findings.report("key", format!("host {host} holds {} circuit keys", it.keys.len()));
        }
        it.plane.borrow().keys(|keyring| keyring.hold(std::sync::Arc::clone(key)));
    }

    fn erase_key(&mut self, host: usize, key: KeyId) {
        let it = &mut self.hosts[host];
        if it.keys.remove(&key).is_none() {
            self.findings.report("key", format!("host {host} erases a circuit key that it does not hold"));
        }
        it.plane.borrow().keys(|keyring| keyring.erase(key));
    }

    fn rack_changed(&mut self, host: usize, node: &NodeId) {
        self.hosts[host].map = None;
        let holds = self.hosts[host].node.as_ref().is_some_and(|engine| engine.bottlerack().get(node).is_some());
        if holds && self.forbidden.contains(node) && self.hosts[host].is_honest {
            self.findings.report("law 1", format!("host {host} holds what a client has brought"));
        }
        if self.hosts[host].kind == Kind::Client {
            self.looks.insert(host);
        }
        if !self.hosts[host].is_honest {
            return;
        }
        // The engine's wall clock never goes backwards; neither does the judge's.
        let unix_ms = self.time(host).unix_ms.max(self.hosts[host].last_unix_ms);
        let it = &mut self.hosts[host];
        it.last_unix_ms = unix_ms;
        self.note_held(host, node);
        let it = &mut self.hosts[host];
        let Some(engine) = &it.node else { return };
        if let Some((rule, what)) = it.holdings.look(node, engine, unix_ms, &self.params, &mut self.signatures) {
            self.findings.report(rule, format!("host {host}: {what}"));
        }
    }

    /// Looks at all that an honest host holds.
    pub(crate) fn audit(&mut self, host: usize) {
        let unix_ms = self.time(host).unix_ms.max(self.hosts[host].last_unix_ms);
        if !self.hosts[host].counts() {
            return;
        }
        let it = &mut self.hosts[host];
        let Some(engine) = &it.node else { return };
        let nodes: Vec<NodeId> = engine.bottlerack().iter().map(|stored| stored.bottle.node_id()).collect();
        for node in &nodes {
            if let Some((rule, what)) = it.holdings.look(node, engine, unix_ms, &self.params, &mut self.signatures) {
                self.findings.report(rule, format!("host {host}: {what}"));
            }
        }
        let listed = |node: &NodeId| engine.is_listed(node);
        if let Some((rule, what)) = Holdings::look_at_all(engine.bottlerack(), listed, &self.params) {
            self.findings.report(rule, format!("host {host}: {what}"));
        }
        self.audit_keys(host);
    }

    /// A circuit key is erased when its life is over, whatever was published (spec 10).
    fn audit_keys(&self, host: usize) {
        let it = &self.hosts[host];
        let now_s = self.time(host).unix_ms / 1000;
        let life_s = self.params.circuit_key_lifetime.as_secs();
        let late = it.keys.values().filter(|made_s| now_s > **made_s + life_s + 120).count();
        if late > 0 && self.scenario.faults.clock_jumps == 0 && !it.is_frozen {
            self.findings.report("key", format!("host {host} keeps {late} circuit keys beyond their life"));
        }
        let held = it.plane.borrow().keys(|keyring| keyring.len());
        if held != it.keys.len() {
            self.findings.report("key", format!("host {host} has {held} keys in its ring and {} by its engine", it.keys.len()));
        }
    }

    /// A host's map, made when it is asked for.
    pub(crate) fn map(&mut self, host: usize) -> Option<Rc<Map>> {
        let margin_ms = u64::try_from(self.params.circuit_key_margin.as_millis()).unwrap_or(u64::MAX);
        let it = &mut self.hosts[host];
        let engine = it.node.as_ref()?;
        if it.map.is_none() {
            let bottles = engine.bottlerack().iter().map(|stored| &stored.bottle);
            let map = Map::build(bottles.map(|bottle| (bottle, engine.trust(&bottle.node_id()))), margin_ms);
            it.map = Some(Rc::new(map));
        }
        it.map.clone()
    }

    // ---- SETUPs ----

    pub(super) fn set_up(&mut self, host: usize, setup: Setup<Lane>) {
        if !setup.lane.look(|queue| queue.is_open(setup.circuit)) {
            return;
        }
        let (came_on, circuit) = (setup.lane.end(), setup.circuit);
        let honest_peer = self.hosts[self.ends[self.ends[came_on].peer].owner].is_honest;
        let stamp = stamp_of(&setup.packet);
        let unix_seconds = self.time(host).unix_ms / 1000;
        let now = Now { unix_seconds, ms: self.now_ms(host) };
        let shared = Rc::clone(&self.hosts[host].plane);
        let mut entropy = self.hosts[host].entropy.fork();
        let decision = hop::process(&*shared.borrow(), setup, now, &mut entropy);
        let took = matches!(decision, Decision::Relayed | Decision::Exit(_));
        self.trace.note(9, self.now_us, host, u64::from(took));
        if took && !self.stamp_is_new(host, stamp) {
            self.findings.report("replay", format!("host {host} takes a SETUP that it has taken before"));
        }
        if matches!(decision, Decision::Relayed) {
            self.relayed.insert((came_on, circuit));
        }
        match decision {
            Decision::Relayed | Decision::Declined(_) => {}
            Decision::Exit(exit) => self.serve(host, *exit),
            Decision::Refused(error) => {
                self.judge_slot(host, came_on, circuit, error);
                let calm = self.liars.is_empty() && self.is_quiet && self.scenario.faults.clock_jumps == 0;
                if calm && honest_peer {
                    let circuit = circuit.0;
                    self.findings.report("setup", format!("host {host} refuses circuit {circuit} of an honest client: {error}"));
                }
            }
        }
    }

    /// A client's own guard knows by its clock which slots it takes: the current, the last, and at a slot's end the next.
    fn judge_slot(&self, host: usize, came_on: EndId, circuit: CircuitId, error: SetupError) {
        const SLOT_S: u64 = 900;
        const EARLY_S: u64 = 780;
        let client = self.ends[self.ends[came_on].peer].owner;
        let slot_is_wrong = matches!(error, SetupError::Replay(ReplayError::Slot));
        if !slot_is_wrong || self.hosts[client].kind != Kind::Client || !self.hosts[client].is_honest {
            return;
        }
        let Some(sent) = self.ends[self.ends[came_on].peer].edges.get(&circuit).map(|edge| u64::from(edge.borrow().slot)) else {
            return;
        };
        let ours = self.time(host).unix_ms.max(self.hosts[host].last_unix_ms) / 1000;
        let now = ours / SLOT_S;
        let fits = sent == now || sent + 1 == now || (ours % SLOT_S >= EARLY_S && sent == now + 1);
        if fits && self.hosts[host].clock_error_ms == 0 {
            self.findings.report("slot", format!("host {host} refuses slot {sent} at {ours} s"));
        }
    }

    fn serve(&mut self, host: usize, exit: Exit<Lane>) {
        let Exit { lane, circuit, granter, keys } = exit;
        let mux = Mux::new(Side::Exit, granter, StreamRules::from(&self.params));
        let (agenda, findings) = (Rc::clone(&self.agenda), Rc::clone(&self.findings));
        let edge = Edge::new(lane.clone(), circuit, mux, Sealing::Nothing, agenda, findings);
        let layer = hop::serve(&lane, circuit, keys, EdgeSink(Rc::clone(&edge)));
        edge.borrow_mut().sealing = Sealing::Exit(layer);
        self.ends[lane.end()].edges.insert(circuit, Rc::clone(&edge));
        self.hosts[host].plane.borrow_mut().edges.push(edge);
        self.plan_sweep(host, 1_000_000);
    }
}

/// A link that a new Bottle lists and the last one did not, though only one end wants it in the map (spec 10); none that was lost since a
/// time.
fn listed_alone(host: &crate::host::Host, bottle: &port17_proto::bottle::VerifiedBottle, since_us: u64) -> Option<NodeId> {
    let last = host.published.last()?;
    let status = host.node.as_ref()?.status();
    let new = status.links.into_iter().filter(|link| {
        bottle.content().link_to(&link.node).is_some() && last.content().link_to(&link.node).is_none() && link.is_up
    });
    let was_lost = |node: &NodeId| host.lost_us.get(node).is_some_and(|at_us| *at_us >= since_us);
    new.into_iter().find(|link| (!link.published_here || !link.published_there) && !was_lost(&link.node)).map(|link| link.node)
}

/// What the replay cache goes by: the ciphertext behind the key id (spec 06, 1).
fn stamp_of(packet: &SetupPacket) -> port17_proto::circuit::replay::Stamp {
    const AT: usize = 8;
    let ct = packet.as_bytes()[AT..].first_chunk().copied().unwrap_or([0; port17_proto::crypto::CIPHERTEXT_BYTES]);
    port17_proto::circuit::replay::Stamp::of(&ct)
}

/// Never before the engine's own deadline.
fn micros_up(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}

fn kind(input: &Input) -> (u8, u64) {
    match input {
        Input::LaneUp { lane, .. } => (20, lane.0),
        Input::Control { lane, message, .. } => {
            (21, lane.0 ^ (u64::from(message.code) << 56) ^ ((message.body.len() as u64) << 32))
        }
        Input::LaneDown { lane, .. } => (22, lane.0),
        Input::DialFailed { dial, .. } => (23, dial.0),
        Input::Violation { lane, .. } => (24, lane.0),
        Input::Bottle(bytes) => (25, bytes.len() as u64),
        Input::Tombstone(bytes) => (26, bytes.len() as u64),
        Input::List(bytes) => (27, bytes.len() as u64),
        Input::SeqStored(seq) => (28, seq.0),
        Input::SeqNotStored(seq) => (29, seq.0),
        Input::GuardIdle(node) => (32, u64::from(node.0[0])),
        Input::Tick => (30, 0),
        Input::Shutdown => (31, 0),
    }
}
