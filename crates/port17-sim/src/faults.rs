//! What goes wrong: each kind so many times an hour, at times that the seed draws.

use port17_proto::bottle::{Seq, Tombstone};
use port17_proto::node::io::Input;

use crate::host::{Host, Kind};
use crate::lane::EndId;
use crate::world::World;

const SECOND_US: u64 = 1_000_000;
const MINUTE_US: u64 = 60 * SECOND_US;

type Fault = fn(&mut World);

impl World {
    /// Draws when what goes wrong, between two times.
    pub(crate) fn plan_faults(&mut self, from_us: u64, to_us: u64) {
        let faults = self.scenario.faults.clone();
        let kinds: [(u64, Fault); 12] = [
            (faults.lists, Self::fault_list),
            (faults.kills, Self::fault_kill),
            (faults.client_kills, Self::fault_client_kill),
            (faults.leaves, Self::fault_leave),
            (faults.joins, Self::fault_join),
            (faults.lane_cuts, Self::fault_lane),
            (faults.partitions, Self::fault_partition),
            (faults.one_sided, Self::fault_one_sided),
            (faults.freezes, Self::fault_freeze),
            (faults.clock_jumps, Self::fault_clock),
            (faults.full_disks, Self::fault_disk),
            (faults.clogs, Self::fault_clog),
        ];
        let span_us = to_us.saturating_sub(from_us);
        for (an_hour, fault) in kinds {
            // So many an hour, the rest of the division by chance.
            let times = (an_hour * span_us + self.entropy.below(60 * MINUTE_US)) / (60 * MINUTE_US);
            for _ in 0..times {
                let at_us = from_us + self.entropy.below(span_us);
                self.script(at_us, fault);
            }
        }
    }

    fn pick(&mut self, fits: impl Fn(&Host) -> bool) -> Option<usize> {
        let hosts: Vec<usize> = (0..self.hosts.len()).filter(|host| fits(&self.hosts[*host])).collect();
        self.entropy.pick(&hosts).copied()
    }

    /// Until when: some of the time that is left before all must be well.
    fn back_us(&mut self, most_us: u64) -> u64 {
        let end_us = self.scenario.minutes * MINUTE_US;
        (self.now_us + SECOND_US + self.entropy.below(most_us)).min(end_us.max(self.now_us + 1))
    }

    fn fault_kill(&mut self) {
        self.kill_for_a_while(Kind::Node);
    }

    fn fault_client_kill(&mut self) {
        self.kill_for_a_while(Kind::Client);
    }

    fn kill_for_a_while(&mut self, kind: Kind) {
        let Some(host) = self.pick(|host| host.kind == kind && host.node.is_some() && host.is_honest) else { return };
        self.kill(host);
        let back_us = self.back_us(90 * SECOND_US);
        self.script(back_us, move |world| world.start(host));
    }

    /// A new list leaves out one of the nodes of the last.
    fn fault_list(&mut self) {
        const KEPT: usize = 4;
        if self.founders.len() > KEPT {
            let last = self.entropy.below((self.founders.len() - KEPT) as u64);
            self.founders.remove(KEPT + usize::try_from(last).unwrap_or(0));
        }
        let founders = self.founders.clone();
        self.publish_list(&founders);
        // While it spreads over links, some of them break.
        for _ in 0..6 {
            let at_us = self.now_us + self.entropy.below(SECOND_US);
            self.script(at_us, Self::fault_lane);
        }
    }

    fn fault_leave(&mut self) {
        let farewell = self.entropy.below(2) == 0;
        self.leave(farewell);
    }

    /// A node that the list does not name leaves for good, with a farewell or without a word.
    pub(crate) fn leave(&mut self, farewell: bool) {
        // Who is listed and leaves would be missing from the list that is in force for good.
        let listed = self.listed();
        let Some(host) =
            self.pick(|host| host.kind == Kind::Node && host.node.is_some() && host.is_honest && !listed.contains(&host.id))
        else {
            return;
        };
        if farewell {
            let unix_ms = self.time(host).unix_ms;
            let it = &self.hosts[host];
            let seq = Seq(it.newest_seq.map_or(unix_ms, |seq| seq.0.max(unix_ms)) + 1024);
            let farewell = Tombstone::sign(it.signing_key().key(), seq);
            // The operator tells another node of his, too.
            if let Some(other) =
                self.pick(|other| other.kind == Kind::Node && other.is_up() && other.is_honest && other.clock_is_right())
            {
                self.hosts[host].said_farewell = other != host;
                let life = self.hosts[other].life;
                self.after(1, crate::world::Event::Input { host: other, life, input: Box::new(Input::Tombstone(farewell)) });
            }
        }
        self.kill(host);
        self.hosts[host].has_left = true;
        self.record.left(&self.hosts[host].id);
        let ghost_us = self.scenario.faults.ghost_minutes * MINUTE_US;
        if self.hosts[host].said_farewell && ghost_us > 0 {
            let back_us = self.now_us + ghost_us;
            self.script(back_us, move |world| {
                world.hosts[host].has_left = false;
                world.hosts[host].is_honest = false;
                world.start(host);
            });
        }
    }

    fn fault_join(&mut self) {
        let exit = self.entropy.below(2) == 0;
        self.add(Kind::Node, |host| {
            host.listens = Some((host.ip, 1717).into());
            host.is_exit = exit;
        });
    }

    fn fault_lane(&mut self) {
        let ends: Vec<EndId> = (0..self.ends.len()).filter(|end| self.ends[*end].is_open).collect();
        if let Some(end) = self.entropy.pick(&ends).copied() {
            self.break_lane(end);
        }
    }

    fn fault_partition(&mut self) {
        let side: Vec<bool> = self.hosts.iter().map(|_| false).collect();
        let side: Vec<bool> = side.into_iter().map(|_| self.entropy.below(2) == 0).collect();
        let pairs: Vec<(usize, usize)> = (0..side.len())
            .flat_map(|one| (0..side.len()).map(move |other| (one, other)))
            .filter(|(one, other)| side[*one] != side[*other])
            .collect();
        self.cut_for_a_while(pairs);
    }

    fn fault_one_sided(&mut self) {
        let Some(host) = self.pick(|host| host.node.is_some()) else { return };
        let others = self.hosts.len();
        self.cut_for_a_while((0..others).filter(|other| *other != host).map(|other| (host, other)).collect());
    }

    fn cut_for_a_while(&mut self, pairs: Vec<(usize, usize)>) {
        let new: Vec<(usize, usize)> = pairs.into_iter().filter(|pair| self.cuts.insert(*pair)).collect();
        let back_us = self.back_us(2 * MINUTE_US);
        let from_us = self.now_us;
        self.script(back_us, move |world| {
            world.judge_silence(&new, from_us);
            new.iter().for_each(|pair| {
                world.cuts.remove(pair);
            });
            world.release();
        });
    }

    /// Who has not answered for long is no neighbour any more.
    fn judge_silence(&self, pairs: &[(usize, usize)], from_us: u64) {
        let patience = self.params.ping_interval * 6 / 5 + self.params.ping_timeout + std::time::Duration::from_secs(8);
        if u128::from(self.now_us - from_us) < patience.as_micros() {
            return;
        }
        for (one, other) in pairs.iter().flat_map(|(one, other)| [(one, other), (other, one)]) {
            let (here, there) = (&self.hosts[*one], &self.hosts[*other]);
            let were_there = [here, there].iter().all(|host| host.is_up() && host.started_us.max(host.thawed_us) < from_us);
            let is_cut = self.is_cut(*one, *other) || self.is_cut(*other, *one);
            let links = &here.plane.borrow().links;
            if were_there && is_cut && here.is_honest && links.contains_key(&port17_proto::node::io::Peer::Node(there.id)) {
                let silent_s = (self.now_us - from_us) / SECOND_US;
                self.findings
                    .report("silence", format!("host {one} takes host {other}, silent for {silent_s} s, for a neighbour"));
            }
        }
    }

    fn fault_freeze(&mut self) {
        let Some(host) = self.pick(Host::is_up) else { return };
        self.hosts[host].is_frozen = true;
        let life = self.hosts[host].life;
        let back_us = self.back_us(MINUTE_US);
        self.script(back_us, move |world| world.thaw(host, life));
    }

    /// A stopped process goes on: what came meanwhile is there at once.
    fn thaw(&mut self, host: usize, life: u64) {
        if self.hosts[host].life != life {
            return;
        }
        self.hosts[host].is_frozen = false;
        self.hosts[host].thawed_us = self.now_us;
        for input in std::mem::take(&mut self.hosts[host].backlog) {
            self.after(0, crate::world::Event::Input { host, life, input: Box::new(input) });
        }
        self.after(0, crate::world::Event::Input { host, life, input: Box::new(Input::Tick) });
        let lanes: Vec<EndId> = self.hosts[host].lanes.values().copied().collect();
        lanes.into_iter().for_each(|end| self.ends[end].lane.note());
        let edges = self.hosts[host].plane.borrow().edges.clone();
        edges.iter().for_each(crate::edge::Edge::note);
        self.after(0, crate::world::Event::Look { host });
    }

    /// Back by up to four hours, or ahead by less than what the slots of SETUPs forgive: a node that was hours ahead is refused until
    /// time has caught up, and nothing heals that.
    fn fault_clock(&mut self) {
        let Some(host) = self.pick(|host| host.node.is_some() && host.clock_error_ms == 0) else { return };
        let error_ms = if self.entropy.below(2) == 0 {
            i64::try_from(self.entropy.below(100_000)).unwrap_or(0)
        } else {
            let most_ms = if self.entropy.below(2) == 0 { 600_000 } else { 4 * 3_600_000 };
            -i64::try_from(self.entropy.below(most_ms)).unwrap_or(0)
        };
        self.hosts[host].clock_error_ms = error_ms;
        let back_us = self.back_us(3 * MINUTE_US);
        self.script(back_us, move |world| world.hosts[host].clock_error_ms = 0);
        // A machine that starts anew may well be the reason.
        if self.entropy.below(2) == 0 && self.hosts[host].is_honest {
            self.kill(host);
            let start_us = self.now_us + SECOND_US;
            self.script(start_us, move |world| world.start(host));
        }
    }

    fn fault_disk(&mut self) {
        let Some(host) = self.pick(|host| host.node.is_some()) else { return };
        self.hosts[host].disk.is_full = true;
        let back_us = self.back_us(2 * MINUTE_US);
        self.script(back_us, move |world| world.hosts[host].disk.is_full = false);
    }

    /// Some lanes send nothing for a while, and go on in another order.
    fn fault_clog(&mut self) {
        for end in 0..self.ends.len() {
            if !self.ends[end].is_open || self.entropy.below(10) > 0 {
                continue;
            }
            self.clogged.insert(end);
            let back_us = self.back_us(15 * SECOND_US);
            self.script(back_us, move |world| {
                world.clogged.remove(&end);
                world.ends[end].lane.note();
            });
        }
    }

    /// All is well from now on.
    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.release();
        for end in std::mem::take(&mut self.clogged) {
            self.ends[end].lane.note();
        }
        for host in 0..self.hosts.len() {
            if !self.liars.is_empty() {
                // What a liar has withheld from a circuit, it will never get: no client can know.
                self.end_circuits(host);
            }
            self.hosts[host].clock_error_ms = 0;
            self.hosts[host].disk.is_full = false;
            if self.hosts[host].is_frozen {
                let life = self.hosts[host].life;
                self.thaw(host, life);
            }
            self.start(host);
        }
    }
}
