//! What says that this machine's clock is wrong (spec 10, 6). Nobody's word ever sets it; but a node whose clock is a day off is a
//! stranger to all others, and its operator should read why.
//!
//! Three signs: the system's clock was set back while the engine ran; most listed nodes have Bottles that are from the future or
//! expired by it; or neighbours go on holding an older Bottle of this node than the one that is out.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Node;
use super::io::LaneId;
use crate::bottle::Seq;
use crate::ids::NodeId;

/// A clock that is set back by less is nobody's worry.
const SET_BACK_MS: u64 = 60_000;

/// Signs that the clock is wrong.
#[derive(Debug, Default)]
pub(super) struct ClockSigns {
    /// How far the system's clock is behind the engine's time, milliseconds.
    behind_ms: u64,
    /// Nodes whose newest Bottle is of another time. Listed ones alone: the list bounds them, and others are made up easily.
    off: BTreeSet<NodeId>,
}

impl ClockSigns {
    /// The engine's time, and the system's at the same moment.
    pub(super) fn compare(&mut self, engine_ms: u64, system_ms: u64) {
        self.behind_ms = engine_ms.saturating_sub(system_ms);
    }
}

impl Node {
    /// A Bottle of `node` is about, and it is of this time or not.
    pub(super) fn note_age(&mut self, node: NodeId, fits: bool) {
        if fits {
            self.clock.off.remove(&node);
        } else if self.is_listed(&node) {
            self.clock.off.insert(node);
        }
    }

    /// Whether a seq is neither expired nor too far ahead by this machine's clock.
    pub(super) fn is_of_this_time(&self, seq: Seq) -> bool {
        let (now_ms, rules) = (self.now.unix_ms, self.params.bottle_rules());
        let is_ahead = seq.unix_ms() > now_ms.saturating_add(rules.ahead_ms);
        !is_ahead && seq.unix_ms().saturating_add(rules.life_ms) > now_ms
    }

    /// What the operator should know about the clock, as what is waited for.
    pub(super) fn clock_waits_for(&self) -> Option<String> {
        if self.clock.behind_ms > SET_BACK_MS {
            let by = in_words(self.clock.behind_ms);
            return Some(format!("a restart, or {by} to pass: the system's clock was set back by that much"));
        }
        let (off, listed) = (self.clock.off.iter().filter(|node| self.is_listed(node)).count(), self.listed().len());
        if off * 2 > listed {
            return Some(format!(
                "this machine's clock to be right: by it, {off} of {listed} listed nodes have Bottles of another time"
            ));
        }
        let (seq, _) = self.own_bottle_out()?;
        let ahead_ms = seq.unix_ms().saturating_sub(self.now.unix_ms);
        let (held, refused) = self.own_bottle_taken();
        if refused <= held {
            return None;
        }
        let text = "its neighbours to take its newest Bottle";
        if ahead_ms > self.params.bottle_rules().ahead_ms {
            let wait = in_words(ahead_ms);
            return Some(format!("{text}: an earlier run had a clock that was ahead, and they will in {wait}"));
        }
        Some(format!("{text}: {refused} of {} hold an older one; is this machine's clock right?", held + refused))
    }

    /// A neighbour says which Bottle of this node it holds.
    pub(super) fn note_held_of_us(&mut self, lane: LaneId, held: Seq) {
        let patience = self.params.repair_interval / 2;
        let Some((seq, out)) = self.own_bottle_out() else { return };
        let has_come = held >= seq;
        // It may be on its way.
        if has_come || self.now.mono.saturating_sub(out) >= patience {
            self.set_taken(lane, has_come);
        }
    }
}

fn in_words(ms: u64) -> String {
    let minutes = Duration::from_millis(ms).as_secs().div_ceil(60);
    format!("{} h {} min", minutes / 60, minutes % 60)
}
