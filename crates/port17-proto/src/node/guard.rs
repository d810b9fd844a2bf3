//! A client's guards: who they are, which of them is used, and which second hops are pinned with them (spec 10, 4).
//!
//! In a network a client has a primary guard and two backups, drawn uniformly among trusted nodes that can be dialled, of different
//! groups. They are stored and kept: every new guard is a new party that may be the wrong one. The primary is always dialled. Has it
//! no lane for `guard_patience`, a backup is dialled and used; is the primary back for `guard_return`, it is used again, and the
//! backup's link is closed after the same time once more, so that what still flows over it can end. Never are there two backups at
//! once. Nothing that happens to a circuit changes a guard.
//!
//! A guard is replaced when it is not trusted any more, or could not be reached for `guard_replace_after` while another could; at most
//! once in `guard_change_interval`. One that is not trusted any more is not used meanwhile either.
//!
//! With each guard up to three second hops are drawn among the trusted nodes that it is linked to. The first that is linked is the
//! pinned one. One whose link is gone keeps its place for as long as losses may take to be published, then another is drawn behind the
//! others; when all are gone, others are drawn at once, for a client must not wait.
//!
//! Without a network there is one guard, drawn for the process's life or configured, and nothing is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use super::io::{DownReason, Output};
use super::lanes::Closing;
use super::links::Keep;
use super::record::RecordKey;
use super::{Node, Part, TimerKey};
use crate::bottlerack::Trust;
use crate::ids::NodeId;
use crate::navigator::{Hop2Request, hop2_choices};
use crate::planted::planted;
use crate::wire::registry::{GoAwayReason, MAX_HOPS};

/// A primary and two backups.
const GUARDS: usize = 3;
/// Second hops that are pinned with a guard.
const CANDIDATES: usize = 3;
/// The form of the stored record.
const RECORD_VERSION: u8 = 1;
/// In the stored record: the configuration named the guard.
const CONFIGURED: u8 = 1;

/// A guard and what is pinned with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardChoice {
    /// The guard.
    pub node: NodeId,
    /// When it was drawn, Unix seconds.
    pub drawn_s: u64,
    /// Second hops, at most three, in the order of their use: the first that can be used and is linked to the guard is the one.
    pub hop2: Vec<NodeId>,
}

/// A client's guards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardSet {
    /// The guards, the active one first. Never empty.
    pub guards: Vec<GuardChoice>,
    /// The one that new circuits begin at.
    pub active: NodeId,
    /// The one that is wanted: the first that can be used.
    pub primary: Option<NodeId>,
}

/// A guard as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    choice: GuardChoice,
    configured: bool,
    /// Since when it cannot be reached, Unix seconds; 0: it can, or was not tried.
    lost_s: u64,
    /// Second hops that are not linked to it, and since when.
    gone: BTreeMap<NodeId, Duration>,
}

impl Held {
    fn new(node: NodeId, configured: bool, drawn_s: u64) -> Self {
        let choice = GuardChoice { node, drawn_s, hop2: Vec::new() };
        Self { choice, configured, lost_s: 0, gone: BTreeMap::new() }
    }
}

/// All that a client keeps about its guards.
#[derive(Debug, Default)]
pub(super) struct Guards {
    configured: Option<NodeId>,
    /// Nodes of the client's routes; none: as the parameters say.
    hops: Option<u32>,
    /// In the order of their use.
    held: Vec<Held>,
    /// New circuits begin there.
    active: Option<NodeId>,
    /// The backup that has a link or is being dialled.
    backup: Option<NodeId>,
    /// When one was replaced last, Unix seconds; 0: never.
    replaced_s: u64,
    saved: Vec<u8>,
    told: Option<GuardSet>,
}

impl Guards {
    pub(super) fn new(configured: Option<NodeId>, hops: Option<u32>) -> Self {
        Self { configured, hops, ..Self::default() }
    }

    pub(super) fn active(&self) -> Option<NodeId> {
        self.active
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn of(&self, node: &NodeId) -> Option<&Held> {
        self.held.iter().find(|held| held.choice.node == *node)
    }

    fn of_mut(&mut self, node: &NodeId) -> Option<&mut Held> {
        self.held.iter_mut().find(|held| held.choice.node == *node)
    }

    fn set(&self, primary: Option<NodeId>) -> Option<GuardSet> {
        let active = self.active?;
        let first = self.held.iter().filter(|held| held.choice.node == active);
        let others = self.held.iter().filter(|held| held.choice.node != active);
        let guards: Vec<GuardChoice> = first.chain(others).map(|held| held.choice.clone()).collect();
        (!guards.is_empty()).then_some(GuardSet { guards, active, primary })
    }

    /// Whether anything that is drawn for it depends on a node's Bottle.
    fn concerns(&self, node: &NodeId) -> bool {
        let concerned =
            |held: &Held| held.choice.node == *node || held.choice.hop2.len() < CANDIDATES || held.choice.hop2.contains(node);
        self.held.iter().any(concerned)
    }

    /// Takes back what an earlier run stored; what is damaged or of another version is as if it were not there.
    pub(super) fn restore(&mut self, bytes: &[u8]) {
        let Some((replaced_s, held)) = decode(bytes) else { return };
        self.replaced_s = replaced_s;
        // One that the configuration named and names no more was never drawn.
        self.held = held.into_iter().filter(|held| !held.configured || self.configured == Some(held.choice.node)).collect();
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![RECORD_VERSION];
        out.extend(self.replaced_s.to_be_bytes());
        out.push(u8::try_from(self.held.len()).unwrap_or(u8::MAX));
        for held in &self.held {
            out.extend(held.choice.node.0);
            out.push(if held.configured { CONFIGURED } else { 0 });
            out.extend(held.choice.drawn_s.to_be_bytes());
            out.extend(held.lost_s.to_be_bytes());
            out.push(u8::try_from(held.choice.hop2.len()).unwrap_or(u8::MAX));
            out.extend(held.choice.hop2.iter().flat_map(|node| node.0));
        }
        out
    }
}

/// `version u8 ‖ replaced u64 ‖ count u8 ‖ (NodeID 32 ‖ flags u8 ‖ drawn u64 ‖ lost u64 ‖ count u8 ‖ NodeIDs)…`
fn decode(bytes: &[u8]) -> Option<(u64, Vec<Held>)> {
    let mut reader = Reader(bytes);
    if reader.byte()? != RECORD_VERSION {
        return None;
    }
    let replaced_s = reader.number()?;
    let count = usize::from(reader.byte()?);
    if count > GUARDS {
        return None;
    }
    let held = (0..count).map(|_| reader.held()).collect::<Option<Vec<_>>>()?;
    reader.0.is_empty().then_some((replaced_s, held))
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn held(&mut self) -> Option<Held> {
        let node = NodeId(self.array()?);
        let flags = self.byte()?;
        let (drawn_s, lost_s) = (self.number()?, self.number()?);
        let count = usize::from(self.byte()?);
        if flags > CONFIGURED || count > CANDIDATES {
            return None;
        }
        let hop2 = (0..count).map(|_| self.array().map(NodeId)).collect::<Option<Vec<_>>>()?;
        let hop2 = if planted("pins-not-stored") { Vec::new() } else { hop2 };
        let choice = GuardChoice { node, drawn_s, hop2 };
        Some(Held { choice, configured: flags == CONFIGURED, lost_s, gone: BTreeMap::new() })
    }
}

impl Node {
    fn guards(&self) -> Option<&Guards> {
        match &self.part {
            Part::Client(guards) => Some(guards),
            Part::Node(_) => None,
        }
    }

    fn guards_mut(&mut self) -> Option<&mut Guards> {
        match &mut self.part {
            Part::Client(guards) => Some(guards),
            Part::Node(_) => None,
        }
    }

    /// How many guards a client has: without a network the one that it was told or drew first.
    fn guards_wanted(&self) -> usize {
        if self.network.is_some() { GUARDS } else { 1 }
    }

    fn now_s(&self) -> u64 {
        self.now.unix_ms / 1000
    }

    // ---- Drawing ----

    /// The configured guard and the stored ones are dialled at once.
    pub(super) fn begin_guards(&mut self) {
        let (wanted, drawn_s) = (self.guards_wanted(), self.now_s());
        let Some(guards) = self.guards_mut() else { return };
        if let Some(configured) = guards.configured {
            let stored = guards.held.iter().position(|held| held.choice.node == configured).map(|at| guards.held.remove(at));
            let mut first = stored.unwrap_or_else(|| Held::new(configured, true, drawn_s));
            first.configured = true;
            guards.held.insert(0, first);
        }
        guards.held.truncate(wanted);
        self.guard_news_all();
        self.follow_primary();
        self.review_guards();
    }

    /// More is known of a node: guards may be drawn, or what is pinned with one may be another.
    pub(super) fn guard_news(&mut self, node: NodeId) {
        let Some(guards) = self.guards() else { return };
        let concerned = guards.concerns(&node);
        if guards.of(&node).is_some_and(|held| !self.is_usable_guard(held)) {
            self.review_guards();
        }
        self.guard_news_all();
        if concerned {
            self.timers.set_earlier(TimerKey::Pins, self.now.mono + self.params.link_settle);
        }
    }

    /// More nodes may be known, or trusted.
    pub(super) fn guard_news_all(&mut self) {
        let wanted = self.guards_wanted();
        let lacks = self.guards().is_some_and(|guards| guards.held.len() < wanted);
        // Not the first one that is read, but one of many.
        if lacks && self.timers.at(TimerKey::Guard).is_none() {
            self.timers.set(TimerKey::Guard, self.now.mono + self.params.guard_draw_wait);
        }
    }

    /// Draws the guards that are missing, as many as can be had.
    pub(super) fn draw_guards(&mut self) {
        let wanted = self.guards_wanted();
        while self.guards().is_some_and(|guards| guards.held.len() < wanted) {
            let Some(drawn) = self.draw_guard() else { break };
            let drawn_s = self.now_s();
            if let Some(guards) = self.guards_mut() {
                guards.held.push(Held::new(drawn, false, drawn_s));
            }
            self.timers.set_earlier(TimerKey::Pins, self.now.mono + self.params.link_settle);
        }
        self.follow_primary();
    }

    /// A guard of another group than those that are held.
    fn draw_guard(&mut self) -> Option<NodeId> {
        let held: Vec<NodeId> = self.guards()?.held.iter().map(|held| held.choice.node).collect();
        let groups: Vec<String> = held.iter().map(|node| self.group_of(node)).filter(|group| !group.is_empty()).collect();
        let other = |node: &NodeId| !held.contains(node) && !groups.contains(&self.group_of(node));
        let candidates: Vec<NodeId> = self.guard_candidates().into_iter().filter(other).collect();
        self.entropy.pick(&candidates).copied()
    }

    /// Trusted nodes that can be dialled. Where Bottles are all there is, those that list a link before those that list none.
    fn guard_candidates(&self) -> Vec<NodeId> {
        if !self.may_choose_guard() {
            return Vec::new();
        }
        let fits = |node: &NodeId| self.trust(node) == Trust::Trusted && self.can_dial(node);
        let all: Vec<NodeId> = self.known_nodes().into_iter().filter(fits).collect();
        let all = self.without_only_exit(all);
        if self.network.is_some() {
            return all;
        }
        let is_linked = |node: &&NodeId| self.bottlerack.get(node).is_some_and(|it| !it.bottle.content().links.is_empty());
        let linked: Vec<NodeId> = all.iter().filter(is_linked).copied().collect();
        if linked.is_empty() { all } else { linked }
    }

    /// The only exit would be guard and exit of each route, which no route is: it is no guard, where there is another.
    fn without_only_exit(&self, candidates: Vec<NodeId>) -> Vec<NodeId> {
        let is_exit = |node: &&NodeId| self.known_bottle(node).is_some_and(|bottle| bottle.content().exit_policy.is_some());
        let exits: Vec<NodeId> = candidates.iter().filter(is_exit).copied().collect();
        let &[only] = &exits[..] else { return candidates };
        if candidates.len() == 1 || self.own_hops() == 1 {
            return candidates;
        }
        candidates.into_iter().filter(|node| *node != only).collect()
    }

    /// Hops of the client's own routes.
    fn own_hops(&self) -> u32 {
        self.guards().and_then(|guards| guards.hops).unwrap_or(self.params.hops)
    }

    fn group_of(&self, node: &NodeId) -> String {
        self.known_bottle(node).map(|bottle| bottle.content().group.clone()).unwrap_or_default()
    }

    // ---- Using ----

    /// Whether a guard may be used: one that was caught, has left, or that the list in force does not name any more, may not.
    fn is_usable_guard(&self, held: &Held) -> bool {
        if self.bottlerack.is_buried(&held.choice.node) {
            return false;
        }
        match self.trust(&held.choice.node) {
            Trust::Trusted => true,
            Trust::Distrusted => false,
            // What was drawn under an earlier list stands while there is none.
            Trust::Unknown => held.configured || self.network.is_none() || self.list().is_none(),
        }
    }

    fn usable_guards(&self) -> Vec<NodeId> {
        let held = self.guards().into_iter().flat_map(|guards| &guards.held);
        held.filter(|held| self.is_usable_guard(held)).map(|held| held.choice.node).collect()
    }

    fn primary(&self) -> Option<NodeId> {
        self.usable_guards().first().copied()
    }

    /// Sees to it that the primary guard is dialled, and nobody who is no guard any more.
    fn follow_primary(&mut self) {
        let primary = self.primary();
        let backup = self.guards().and_then(|guards| guards.backup);
        if backup.is_some() && backup == primary {
            self.promote_backup();
        }
        let keeps = |node: &NodeId| Some(*node) == primary || Some(*node) == backup;
        let others: Vec<NodeId> = self.links.nodes().map(|(node, _)| *node).filter(|node| !keeps(node)).collect();
        for other in others {
            self.drop_guard_link(other);
        }
        let usable = self.usable_guards();
        let Some(guards) = self.guards_mut() else { return };
        guards.active = guards.active.filter(|active| usable.contains(active)).or(primary);
        if let Some(primary) = primary {
            self.links.keep(primary, Keep::Chosen, self.now.mono);
            if !self.links.is_up(&primary) {
                self.timers.set_earlier(TimerKey::Patience, self.now.mono + self.params.guard_patience);
            }
            self.dial_missing(primary);
        }
        self.guards_changed();
    }

    /// The backup in use is the primary now: its link is nobody's to close.
    fn promote_backup(&mut self) {
        if let Some(guards) = self.guards_mut() {
            guards.backup = None;
        }
        self.timers.cancel(TimerKey::GuardReturn);
        self.timers.cancel(TimerKey::GuardClose);
    }

    /// Stores and tells what has changed.
    fn guards_changed(&mut self) {
        let (stores, primary) = (self.network.is_some(), self.primary());
        let Some(guards) = self.guards_mut() else { return };
        let (bytes, set) = (guards.encode(), guards.set(primary));
        let save = stores && !guards.held.is_empty() && bytes != guards.saved;
        let tell = set.is_some() && set != guards.told;
        if save {
            guards.saved.clone_from(&bytes);
        }
        guards.told.clone_from(&set);
        if save {
            self.push(Output::Save(RecordKey::Guards, bytes));
        }
        if let Some(set) = set.filter(|_| tell) {
            self.push(Output::Guards(set));
        }
    }

    fn use_guard(&mut self, node: NodeId) {
        if let Some(guards) = self.guards_mut() {
            guards.active = Some(node);
        }
        self.guards_changed();
    }

    pub(super) fn guard_came_up(&mut self, node: NodeId) {
        let primary = self.primary();
        let Some(guards) = self.guards_mut() else { return };
        if let Some(held) = guards.of_mut(&node) {
            held.lost_s = 0;
        }
        let (active, backup) = (guards.active, guards.backup);
        self.guards_changed();
        if Some(node) != primary {
            return self.backup_came_up(node, primary);
        }
        self.timers.cancel(TimerKey::Patience);
        if active == Some(node) {
            // The backup was dialled in vain.
            self.close_backup();
        } else if backup.is_some_and(|backup| self.links.is_up(&backup)) {
            self.timers.set(TimerKey::GuardReturn, self.now.mono + self.params.guard_return);
        } else {
            self.use_guard(node);
            self.close_backup();
        }
    }

    fn backup_came_up(&mut self, node: NodeId, primary: Option<NodeId>) {
        let waits = primary.is_none_or(|primary| !self.links.is_up(&primary));
        if waits && self.guards().is_some_and(|guards| guards.backup == Some(node)) {
            self.timers.cancel(TimerKey::Patience);
            self.use_guard(node);
        }
    }

    pub(super) fn guard_went_down(&mut self, node: NodeId) {
        // The client's own end is not its guard's failure.
        if self.stopping {
            return;
        }
        let now_s = self.now_s();
        let primary = self.primary();
        let Some(guards) = self.guards_mut() else { return };
        let is_backup = guards.backup == Some(node);
        if let Some(held) = guards.of_mut(&node) {
            held.lost_s = now_s;
        }
        if Some(node) == primary {
            self.timers.cancel(TimerKey::GuardReturn);
            self.timers.cancel(TimerKey::GuardClose);
        }
        let primary_up = primary.is_some_and(|primary| self.links.is_up(&primary));
        if Some(node) == primary || (is_backup && !primary_up) {
            self.timers.set_earlier(TimerKey::Patience, self.now.mono + self.params.guard_patience);
        } else if is_backup {
            // It served until the primary was back.
            if let Some(primary) = primary {
                self.use_guard(primary);
            }
            self.timers.cancel(TimerKey::GuardReturn);
            self.close_backup();
        }
        self.guards_changed();
    }

    /// The guard in use has had no lane for long enough.
    pub(super) fn lose_patience(&mut self) {
        let now_s = self.now_s();
        let Some(primary) = self.primary().filter(|primary| !self.links.is_up(primary)) else { return };
        let backups: Vec<NodeId> = self.usable_guards().into_iter().filter(|node| *node != primary).collect();
        let Some(guards) = self.guards_mut() else { return };
        if let Some(held) = guards.of_mut(&primary).filter(|held| held.lost_s == 0) {
            held.lost_s = now_s;
        }
        let current = guards.backup;
        if let Some(current) = current.filter(|current| self.links.is_up(current)) {
            return self.use_guard(current);
        }
        let at = current.and_then(|current| backups.iter().position(|node| *node == current));
        let next = at.map_or(backups.first(), |at| backups.get((at + 1) % backups.len()));
        let Some(next) = next.copied() else { return self.guards_changed() };
        if current != Some(next) {
            if !planted("backup-left-dialling") {
                self.close_backup();
            }
            if let Some(guards) = self.guards_mut() {
                guards.backup = Some(next);
            }
            self.links.keep(next, Keep::Chosen, self.now.mono);
            self.dial_missing(next);
        }
        self.timers.set(TimerKey::Patience, self.now.mono + self.params.guard_patience);
        self.guards_changed();
    }

    /// The primary guard has been back for a while.
    pub(super) fn return_to_primary(&mut self) {
        let Some(primary) = self.primary().filter(|primary| self.links.is_up(primary)) else { return };
        self.use_guard(primary);
        // What still flows over the backup may end.
        self.timers.set(TimerKey::GuardClose, self.now.mono + self.params.guard_return);
    }

    /// The backup is used no more: its link ends when the streams over it have, however long they take (spec 10, 4).
    pub(super) fn leave_backup(&mut self) {
        let Some(backup) = self.guards().and_then(|guards| guards.backup) else { return };
        self.timers.set(TimerKey::GuardClose, self.now.mono + self.params.guard_return);
        self.push(Output::LeaveGuard(backup));
    }

    pub(super) fn handle_guard_idle(&mut self, node: NodeId) {
        // It may be in use again by now.
        let is_left = self.timers.at(TimerKey::GuardClose).is_some();
        if is_left && self.guards().is_some_and(|guards| guards.backup == Some(node) && guards.active != Some(node)) {
            self.timers.cancel(TimerKey::GuardClose);
            self.close_backup();
        }
    }

    pub(super) fn close_backup(&mut self) {
        let backup = self.guards_mut().and_then(|guards| guards.backup.take());
        if let Some(backup) = backup {
            self.drop_guard_link(backup);
        }
    }

    fn drop_guard_link(&mut self, node: NodeId) {
        let before = self.guards().and_then(|guards| guards.of(&node)).map(|held| held.lost_s);
        self.cancel_attempts(node);
        let goaway = GoAwayReason::Shutdown;
        for lane in self.lanes_of(node) {
            self.close_lane(lane, Closing { goaway: Some(goaway), counted: None, why: DownReason::SentAway(goaway) });
        }
        self.cancel_attempts(node);
        self.links.forget(&node);
        // It was this side's wish, not the guard's failure.
        let held = self.guards_mut().and_then(|guards| guards.of_mut(&node));
        if let (Some(held), Some(before)) = (held, before) {
            held.lost_s = before;
        }
    }

    // ---- Replacing ----

    /// The regular look at what time and trust have done.
    pub(super) fn review_guards(&mut self) {
        if self.guards().is_none() {
            return;
        }
        let next = self.spread(self.params.link_evaluate);
        self.timers.set(TimerKey::GuardReview, self.now.mono + next);
        self.replace_guard();
        self.follow_primary();
        self.review_pins();
    }

    fn replace_guard(&mut self) {
        let (now_s, interval) = (self.now_s(), self.params.guard_change_interval.as_secs());
        let Some(guards) = self.guards() else { return };
        // Without a network the one that was drawn stays.
        let recently = guards.replaced_s != 0 && now_s.saturating_sub(guards.replaced_s) < interval;
        if self.network.is_none() || recently {
            return;
        }
        let spent = guards.held.iter().find(|held| !held.configured && self.is_spent(held, now_s)).map(|held| held.choice.node);
        let Some(spent) = spent else { return };
        let Some(drawn) = self.draw_guard() else { return };
        let Some(guards) = self.guards_mut() else { return };
        guards.held.retain(|held| held.choice.node != spent);
        guards.held.push(Held::new(drawn, false, now_s));
        guards.replaced_s = now_s;
        if guards.backup == Some(spent) {
            self.close_backup();
        }
    }

    /// Not to be trusted, or out of reach for long while another one is not: who is offline learns nothing about its guards.
    fn is_spent(&self, held: &Held, now_s: u64) -> bool {
        let node = held.choice.node;
        if !self.is_usable_guard(held) {
            return true;
        }
        let lost = held.lost_s != 0 && now_s.saturating_sub(held.lost_s) >= self.params.guard_replace_after.as_secs();
        lost && !self.links.is_up(&node) && self.links.nodes().any(|(_, link)| link.is_up())
    }

    // ---- The second hop ----

    /// Keeps three second hops with each guard, as far as the map has them.
    pub(super) fn review_pins(&mut self) {
        let Some(guards) = self.guards() else { return };
        let known = |node: &NodeId| self.bottlerack.get(node).is_some();
        let nodes: Vec<NodeId> = guards.held.iter().map(|held| held.choice.node).filter(known).collect();
        if nodes.is_empty() {
            return;
        }
        let map = self.map();
        for node in nodes {
            let choices = hop2_choices(&map, &self.hop2_request(node));
            self.pin(node, &choices);
        }
        self.guards_changed();
    }

    fn hop2_request(&self, guard: NodeId) -> Hop2Request {
        let hops = self.own_hops();
        Hop2Request {
            guard,
            hops: usize::try_from(hops).unwrap_or(usize::MAX).min(MAX_HOPS),
            diversity: self.params.diversity,
            now_ms: self.now.unix_ms,
        }
    }

    /// `linked`: the nodes that may be a guard's second hop now.
    fn pin(&mut self, guard: NodeId, linked: &[NodeId]) {
        let (now, patience) = (self.now.mono, self.params.link_loss_interval);
        let mut entropy = self.entropy.fork();
        let Some(held) = self.guards_mut().and_then(|guards| guards.of_mut(&guard)) else { return };
        let hop2 = &mut held.choice.hop2;
        held.gone.retain(|node, _| hop2.contains(node) && !linked.contains(node));
        for node in hop2.iter().filter(|node| !linked.contains(node)) {
            held.gone.entry(*node).or_insert(now);
        }
        let all_gone = hop2.len() == held.gone.len();
        let mut fresh: Vec<NodeId> = linked.iter().copied().filter(|node| !hop2.contains(node)).collect();
        // One goes only when there is another.
        while !fresh.is_empty() {
            let spent = |node: &NodeId| held.gone.get(node).is_some_and(|since| all_gone || *since + patience <= now);
            if let Some(at) = hop2.iter().position(spent) {
                held.gone.remove(&hop2.remove(at));
            } else if hop2.len() >= CANDIDATES {
                break;
            }
            let Some(drawn) = entropy.pick(&fresh).copied() else { break };
            fresh.retain(|node| *node != drawn);
            hop2.push(drawn);
        }
        let next = held.gone.values().filter(|_| !fresh.is_empty()).map(|since| *since + patience).min();
        if let Some(next) = next.filter(|next| *next > now) {
            self.timers.set_earlier(TimerKey::Pins, next);
        }
    }

    // ---- Status ----

    /// What a client lacks to have a guard with a lane, in words.
    pub(super) fn guard_waits_for(&self) -> Option<String> {
        let guards = self.guards()?;
        if guards.is_empty() {
            return Some(self.why_no_guard());
        }
        let Some(primary) = self.primary() else {
            return Some("a guard: none of those it has may be used any more, and they are replaced rarely".to_owned());
        };
        let active = guards.active.unwrap_or(primary);
        let link = self.links.get(&active).or_else(|| self.links.get(&primary))?;
        if !link.is_up() {
            return Some(format!("its guard {active}: {}", link.why));
        }
        let held = guards.held.iter().find(|held| held.choice.node == active)?;
        let lacks_pin = self.params.pin_hop2 && self.own_hops() > 2 && held.choice.hop2.is_empty();
        lacks_pin.then(|| "a second hop: no trusted node that its guard is linked to leads on to an exit".to_owned())
    }

    fn why_no_guard(&self) -> String {
        if self.known_count() == 0 {
            return "Bottles: none is known yet".to_owned();
        }
        if !self.may_choose_guard() {
            return "a newer signed list: from an old one no guard is drawn".to_owned();
        }
        "a guard: no trusted node names an address that the parameters allow to dial".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Guards {
        let mut guards = Guards::new(Some(NodeId([9; 32])), None);
        guards.replaced_s = 7;
        guards.held = vec![Held::new(NodeId([9; 32]), true, 1), Held::new(NodeId([2; 32]), false, 3)];
        guards.held[1].choice.hop2 = vec![NodeId([4; 32]), NodeId([5; 32])];
        guards.held[1].lost_s = 8;
        guards
    }

    #[test]
    fn what_is_stored_comes_back() {
        let before = stored();
        let mut after = Guards::new(Some(NodeId([9; 32])), None);
        after.restore(&before.encode());
        assert_eq!((after.replaced_s, &after.held), (7, &before.held));
    }

    #[test]
    fn a_guard_that_the_configuration_names_no_more_is_not_kept() {
        let mut after = Guards::new(None, None);
        after.restore(&stored().encode());
        assert_eq!(after.held.iter().map(|held| held.choice.node).collect::<Vec<_>>(), [NodeId([2; 32])]);
    }

    #[test]
    fn a_damaged_record_is_no_record() {
        let good = stored().encode();
        for length in 0..good.len() {
            assert!(decode(&good[..length]).is_none(), "cut at {length}");
        }
        assert!(decode(&[&good[..], &[0]].concat()).is_none());
        for at in [0, 9] {
            let mut bad = good.clone();
            bad[at] = 200;
            assert!(decode(&bad).is_none(), "byte {at}");
        }
    }
}
