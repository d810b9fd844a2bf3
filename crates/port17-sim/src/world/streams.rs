//! Clients' streams and circuits: how they are begun, and what became of them.
//!
//! The tunnel of the daemon decides with tasks and channels; this is a plain application of the same parts of the core (route, SETUP,
//! mux) with the same patience: a circuit that does not open is tried again over another route until the stream's time is over.

use std::collections::BTreeSet;
use std::rc::Rc;

use port17_proto::bottlerack::Trust;
use port17_proto::circuit::hop::send_setup;
use port17_proto::circuit::mux::{Mux, Side, StreamRules, StreamState};
use port17_proto::circuit::origin::Origin;
use port17_proto::circuit::replay::slot_of;
use port17_proto::circuit::setup::{RouteHop, draw_offset};
use port17_proto::crypto::{Entropy, KemBackend};
use port17_proto::ids::NodeId;
use port17_proto::lane::credit::Granter;
use port17_proto::lane::reader::{Command, Install, Port};
use port17_proto::limits::FIRST_WINDOW_CELLS;
use port17_proto::navigator::{self, Map, RouteRequest};
use port17_proto::wire::registry::{ResetCode, StreamProtocol};

use super::{Event, World};
use crate::client::{Job, Standing};
use crate::edge::{Edge, EdgeRef, EdgeSink, FirstKeys, Progress, Sealing, StreamPlan};
use crate::judge::check_route;
use crate::liar::Lie;

/// A stream that does not move for so long with nothing wrong has been forgotten by somebody.
const STUCK_US: u64 = 60_000_000;

impl World {
    /// An application of a client wants a stream.
    pub fn ask(&mut self, host: usize, up: u64, down: u64) {
        self.streams_made += 1;
        let plan = StreamPlan { tag: self.streams_made, up, down };
        self.trace.note(10, self.now_us, host, up ^ (down << 24));
        let (asked_us, must) = (self.now_us, self.is_quiet);
        let aborts = !must && self.entropy.below(20) == 0;
        let client = &mut self.hosts[host].client;
        client.jobs.push(Job {
            plan,
            asked_us,
            tries: 0,
            waits_us: 0,
            on: None,
            must,
            aborts,
            moved_us: asked_us,
            moved: 0,
            is_opened: false,
        });
        self.looks.insert(host);
    }

    /// An edge has work.
    pub(super) fn work(&mut self, edge: &EdgeRef) {
        let end = edge.borrow().lane.end();
        let host = self.ends[end].owner;
        if !self.hosts[host].is_up() || self.ends[end].life != self.hosts[host].life {
            return;
        }
        let now_ms = self.now_ms(host);
        edge.borrow_mut().work(now_ms);
        if edge.borrow_mut().went_back() {
            let circuit = edge.borrow().circuit;
            self.expect_end(end, circuit, "keys", "a cell is sealed with a key that the fresh ones have erased");
        }
        if self.hosts[host].kind == crate::host::Kind::Client {
            self.looks.insert(host);
        } else {
            self.forget_served(edge);
        }
    }

    /// Streams that a server is done with.
    fn forget_served(&mut self, edge: &EdgeRef) {
        let Edge { mux, flows, .. } = &mut *edge.borrow_mut();
        flows.retain(|id, _| matches!(mux.state(*id), StreamState::Opening | StreamState::Open));
    }

    /// A client looks again, at the latest after this time.
    fn plan_look(&mut self, host: usize, after_us: u64) {
        let at_us = self.now_us + after_us;
        let planned = &mut self.hosts[host].client.look_us;
        if planned.is_none_or(|planned| planned > at_us || planned <= self.now_us) {
            *planned = Some(at_us);
            self.at(at_us, Event::Look { host });
        }
    }

    /// A client looks at its streams and circuits.
    pub(super) fn look(&mut self, host: usize) {
        if self.hosts[host].kind != crate::host::Kind::Client || !self.hosts[host].is_up() {
            return;
        }
        let now_us = self.now_us;
        let mut jobs = std::mem::take(&mut self.hosts[host].client.jobs);
        jobs.retain_mut(|job| self.go_on(host, job));
        self.hosts[host].client.jobs.append(&mut jobs);
        if self.hosts[host].client.jobs.iter().any(|job| job.on.is_some()) {
            self.plan_look(host, STUCK_US + 1);
        }
        let circuit_age_us = u64::try_from(self.params.circuit_max_age.as_micros()).unwrap_or(u64::MAX);
        let client = &mut self.hosts[host].client;
        client.circuits.retain(|standing| !standing.edge.borrow().is_over);
        for standing in &client.circuits {
            let mut edge = standing.edge.borrow_mut();
            if standing.begun_us + circuit_age_us < now_us && edge.flows.is_empty() {
                edge.end(true);
            }
        }
    }

    /// False when the stream is over.
    fn go_on(&mut self, host: usize, job: &mut Job) -> bool {
        let patience_us = u64::try_from(self.params.open_timeout.as_micros()).unwrap_or(u64::MAX);
        let Some((edge, id)) = job.on.clone() else {
            if self.now_us > job.asked_us + patience_us {
                return self.end_job(host, job, false, "it never opened");
            }
            if self.now_us >= job.waits_us {
                self.place(host, job);
            }
            return true;
        };
        let (state, is_over, done, opened, got) = {
            let edge = edge.borrow();
            let flow = edge.flows.get(&id);
            let done =
                flow.is_some_and(|flow| flow.ended && flow.got == flow.plan.down) && edge.mux.fin_is_sent(id) != Some(false);
            let (opened, got) = (flow.is_some_and(|flow| flow.opened), flow.map_or(0, |flow| flow.got));
            (edge.state(id), edge.is_over, done, opened, got)
        };
        if got != job.moved || (opened && job.moved_us == job.asked_us) {
            (job.moved, job.moved_us) = (got, self.now_us);
        }
        if opened && !std::mem::replace(&mut job.is_opened, true) {
            self.hosts[host].client.results.opened_us.push(self.now_us - job.asked_us);
        }
        if job.aborts && got > job.plan.down / 2 {
            let now_ms = self.now_ms(host);
            edge.borrow_mut().mux.reset(id, ResetCode::Refused, now_ms);
            edge.borrow_mut().flows.remove(&id);
            Edge::note(&edge);
            return false;
        }
        match state {
            _ if done => {
                edge.borrow_mut().flows.remove(&id);
                self.end_job(host, job, true, "")
            }
            StreamState::Over(code) if opened => {
                edge.borrow_mut().flows.remove(&id);
                self.end_job(host, job, false, &format!("it was reset: {code:?}"))
            }
            _ if is_over || matches!(state, StreamState::Over(_) | StreamState::Ended) => {
                edge.borrow_mut().flows.remove(&id);
                job.on = None;
                if opened {
                    return self.end_job(host, job, false, "its circuit broke");
                }
                self.judge_refusal(host, &edge);
                self.skip(host, &edge);
                const AGAIN_US: u64 = 25_000;
                let after_us = AGAIN_US << job.tries.min(5);
                job.waits_us = self.now_us + after_us;
                self.plan_look(host, after_us);
                true
            }
            StreamState::Opening | StreamState::Open | StreamState::Over(_) | StreamState::Ended => {
                if job.must && self.now_us > job.moved_us + STUCK_US {
                    let text =
                        format!("stream {} of host {host} does not move, at {got} of {} bytes", job.plan.tag, job.plan.down);
                    self.findings.report("stuck", text);
                    edge.borrow_mut().end(false);
                    return self.end_job(host, job, false, "stuck");
                }
                true
            }
        }
    }

    /// A circuit that its guard has passed on does not end without a word (spec 06, 1).
    fn judge_refusal(&self, host: usize, edge: &EdgeRef) {
        let edge = edge.borrow();
        let end = &self.ends[edge.lane.end()];
        let wordless = edge.progress == Progress::Building && !edge.ended_here && end.is_open;
        if wordless && self.relayed.contains(&(end.peer, edge.circuit)) && self.liars.is_empty() {
            self.findings.report("refusal", format!("a circuit of client {host} ends, and nobody says which hop refused it"));
        }
    }

    fn end_job(&mut self, host: usize, job: &Job, done: bool, why: &str) -> bool {
        self.trace.note(11, self.now_us, host, u64::from(done));
        let results = &mut self.hosts[host].client.results;
        if done {
            results.done += 1;
            results.bytes += job.plan.up + job.plan.down;
            self.delivered += job.plan.up + job.plan.down;
        } else {
            results.failed += 1;
            if job.must && (job.tries > 0 || !self.has_no_way(host)) {
                let text = format!("stream {} of client {host} fails where nothing is wrong: {why}", job.plan.tag);
                self.findings.report("streams", text);
            }
        }
        false
    }

    /// Whether a client's map has no way from its guard to any exit that is as long as a route, over whatever second hop: links that came as
    /// they came are nobody's mistake.
    fn has_no_way(&mut self, host: usize) -> bool {
        let exits: BTreeSet<NodeId> = self.hosts.iter().filter(|it| it.is_exit).map(|it| it.id).collect();
        let Some(map) = self.map(host) else { return false };
        let Some(guard) = self.hosts[host].guards.as_ref().map(|set| set.active) else { return false };
        !leads_to_exit(&map, &mut vec![guard], self.params.hops as usize, &exits)
    }

    /// Puts a stream on a circuit: one that stands, or a new one.
    fn place(&mut self, host: usize, job: &mut Job) {
        let age_us = u64::try_from(self.params.circuit_max_age.as_micros()).unwrap_or(u64::MAX);
        let guard = self.hosts[host].guards.as_ref().map(|set| set.active);
        let reuses = self.entropy.below(10) < 7;
        let now_us = self.now_us;
        let standing = self.hosts[host].client.circuits.iter().find(|standing| {
            let edge = standing.edge.borrow();
            reuses
                && !edge.is_over
                && edge.progress == Progress::Open
                && edge.route.first() == guard.as_ref()
                && standing.begun_us + age_us > now_us
        });
        let edge = match standing.map(|standing| Rc::clone(&standing.edge)) {
            Some(edge) => Some(edge),
            None => self.begin_circuit(host, job),
        };
        let Some(edge) = edge else {
            const AGAIN_US: u64 = 500_000;
            job.waits_us = self.now_us + AGAIN_US;
            return self.plan_look(host, AGAIN_US);
        };
        let now_ms = self.now_ms(host);
        let id = edge.borrow_mut().open(job.plan, now_ms);
        match id {
            Some(id) => {
                job.on = Some((Rc::clone(&edge), id));
                job.moved_us = self.now_us;
                self.plan_look(host, STUCK_US + 1);
                Edge::note(&edge);
            }
            None => edge.borrow_mut().end(true),
        }
    }

    /// Draws a route and sends its SETUP.
    fn begin_circuit(&mut self, host: usize, job: &mut Job) -> Option<EdgeRef> {
        let route = self.draw_route(host, job)?;
        job.tries += 1;
        let now_ms = self.now_ms(host);
        let unix_s = self.time(host).unix_ms / 1000;
        let it = &mut self.hosts[host];
        let engine = it.node.as_ref()?;
        let key = |node: &NodeId| {
            let bottle = &engine.bottlerack().get(node)?.bottle;
            Some(RouteHop { node: *node, key: bottle.content().circuit_key.public.clone() })
        };
        let hops: Vec<RouteHop> = route.iter().filter_map(key).collect();
        let (lane, pool) = {
            let plane = it.plane.borrow();
            let carrying = plane.lane_to(*route.first()?)?;
            (carrying.lane.clone(), std::sync::Arc::clone(&plane.pool))
        };
        let reservation = pool.reserve(FIRST_WINDOW_CELLS)?;
        let offset = draw_offset(hops.len(), false, &mut it.entropy);
        let slot = slot_of(unix_s);
        let setup = |entropy: &mut Entropy| Origin::new(&hops, offset, slot, KemBackend::Seeded, entropy).ok();
        let goes_back = self.liars.get(&host).is_some_and(|liar| liar.lie == Lie::GoesBack);
        let ((origin, packet), kept) = if goes_back {
            let seed = it.entropy.bytes();
            (setup(&mut Entropy::from_seed(seed))?, setup(&mut Entropy::from_seed(seed)))
        } else {
            (setup(&mut it.entropy)?, None)
        };
        let granter = Granter::new(reservation, lane.look(|queue| queue.pace()), now_ms);
        let permitted = granter.permitted();
        let circuit = lane.queue(|queue| queue.open(None)).ok()?;
        let mux = Mux::new(Side::Client, granter, StreamRules::from(&self.params));
        let sealing = Sealing::Building { origin: Box::new(origin), hops: hops.len(), sent: 0 };
        let edge = Edge::new(lane.clone(), circuit, mux, sealing, Rc::clone(&self.agenda), Rc::clone(&self.findings));
        edge.borrow_mut().route = route;
        edge.borrow_mut().slot = slot;
        if let Some((origin, _)) = kept {
            edge.borrow_mut().first_keys = FirstKeys::Kept { origin: Box::new(origin), fresh_cells: 0 };
        }
        lane.command(Command::Install(circuit, Install::Origin { sink: EdgeSink(Rc::clone(&edge)), permitted }));
        send_setup(&lane, circuit, &packet);
        self.ends[lane.end()].edges.insert(circuit, Rc::clone(&edge));
        let it = &mut self.hosts[host];
        it.plane.borrow_mut().edges.push(Rc::clone(&edge));
        it.client.circuits.push(Standing { edge: Rc::clone(&edge), begun_us: self.now_us });
        it.client.results.circuits += 1;
        let late_us = u64::try_from(self.params.created_timeout.as_micros()).unwrap_or(u64::MAX);
        self.after(late_us, Event::CircuitLate { host, edge: Rc::clone(&edge) });
        self.plan_sweep(host, 1_000_000);
        Some(edge)
    }

    fn draw_route(&mut self, host: usize, job: &Job) -> Option<Vec<NodeId>> {
        let map = self.map(host)?;
        let now_us = self.now_us;
        let unix_ms = self.time(host).unix_ms;
        let it = &mut self.hosts[host];
        let set = it.guards.clone()?;
        let choice = set.guards.iter().find(|guard| guard.node == set.active)?;
        it.plane.borrow().lane_to(choice.node)?;
        let pins = self.params.pin_hop2 && self.params.hops >= 3;
        if pins && choice.hop2.is_empty() {
            return None;
        }
        let target = job.plan.target();
        let exclude = it.client.skips(now_us);
        let nobody = BTreeSet::new();
        let drawn = [&exclude, &nobody].into_iter().find_map(|exclude| {
            let request = RouteRequest {
                guard: Some(choice.node),
                hop2: if self.params.pin_hop2 { &choice.hop2 } else { &[] },
                hops: self.params.hops as usize,
                diversity: self.params.diversity,
                protocol: StreamProtocol::Tcp,
                target: &target,
                exclude,
                now_ms: unix_ms,
            };
            navigator::route(&map, &request, &mut it.entropy).ok()
        })?;
        if let Some(wrong) = check_route(&drawn, it, choice, &self.params, unix_ms) {
            self.findings.report("route", format!("client {host}: {wrong}"));
        }
        Some(drawn)
    }

    /// Leaves out for a while the hop that failed, as the daemon's tunnel does.
    fn skip(&mut self, host: usize, edge: &EdgeRef) {
        let skip_us = u64::try_from(self.params.hop_skip.as_micros()).unwrap_or(u64::MAX);
        let edge = edge.borrow();
        let culprit = match edge.progress {
            Progress::Refused(hop, port17_proto::wire::registry::SetupStatus::Overload) => hop,
            Progress::Refused(hop, _) => hop + 1,
            Progress::Building | Progress::Broken => 1,
            Progress::Open => return,
        };
        if let Some(node) = edge.route.get(culprit).filter(|_| culprit > 0) {
            let until_us = self.now_us + skip_us;
            self.hosts[host].client.skipped.push((*node, until_us));
        }
    }

    pub(super) fn circuit_late(&mut self, host: usize, edge: &EdgeRef) {
        let late = edge.borrow().progress == Progress::Building && !edge.borrow().is_over;
        if late {
            edge.borrow_mut().end(false);
            self.hosts[host].client.results.circuits_late += 1;
        }
        if edge.borrow().progress != Progress::Open {
            self.hosts[host].client.results.circuits_failed += 1;
        }
        self.looks.insert(host);
    }

    /// The process has ended: so have its streams.
    pub(super) fn lose_client(&mut self, host: usize) {
        let client = &mut self.hosts[host].client;
        client.circuits.clear();
        client.skipped.clear();
        client.look_us = None;
        let jobs = std::mem::take(&mut client.jobs);
        client.results.failed += jobs.len() as u64;
    }

    /// All circuits of a client end, in order.
    pub fn end_circuits(&mut self, host: usize) {
        self.looks.insert(host);
        for standing in std::mem::take(&mut self.hosts[host].client.circuits) {
            standing.edge.borrow_mut().end(true);
        }
    }
}

/// Whether a walk of trusted first and last steps goes on to an exit, with so many nodes in all and none of them twice.
fn leads_to_exit(map: &Map, walk: &mut Vec<NodeId>, hops: usize, exits: &BTreeSet<NodeId>) -> bool {
    let Some(last) = walk.last().copied() else { return false };
    let next = walk.len() + 1;
    map.neighbours(&last).into_iter().any(|node| {
        let needs_trust = next == 2 || next == hops;
        if walk.contains(&node) || (needs_trust && map.trust(&node) != Some(Trust::Trusted)) {
            return false;
        }
        if next == hops {
            return exits.contains(&node);
        }
        walk.push(node);
        let leads = leads_to_exit(map, walk, hops, exits);
        walk.pop();
        leads
    })
}
