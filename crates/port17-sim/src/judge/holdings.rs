//! What one host holds: only what its nodes have signed, of the right time, and never older than before.

use std::collections::BTreeMap;

use port17_proto::bottle::{Seq, ShortId};
use port17_proto::bottlerack::{Bottlerack, Trust};
use port17_proto::ids::NodeId;
use port17_proto::node::Node;
use port17_proto::params::Params;

use super::Signatures;

/// What a host held last, by node.
#[derive(Default)]
pub(crate) struct Holdings {
    newest: BTreeMap<NodeId, (Seq, ShortId)>,
    /// Who has left, and until when that is to be known, Unix milliseconds of the host.
    buried: BTreeMap<NodeId, u64>,
    /// Who was caught, and until when.
    caught: BTreeMap<NodeId, u64>,
}

impl Holdings {
    /// The process has ended: what it did not store it may forget.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Looks at what the host holds of one node. Gives the rule that is broken, and how.
    pub(crate) fn look(
        &mut self,
        node: &NodeId,
        engine: &Node,
        unix_ms: u64,
        params: &Params,
        signatures: &mut Signatures,
    ) -> Option<(&'static str, String)> {
        let rack = engine.bottlerack();
        self.look_at_ends(node, rack, engine, unix_ms, params)
            .or_else(|| self.look_at_bottle(node, rack, unix_ms, params, signatures))
    }

    fn look_at_ends(
        &mut self,
        node: &NodeId,
        rack: &Bottlerack,
        engine: &Node,
        unix_ms: u64,
        params: &Params,
    ) -> Option<(&'static str, String)> {
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if rack.is_buried(node) {
            self.newest.remove(node);
            self.buried.entry(*node).or_insert(unix_ms + ms(params.tombstone_lifetime));
            if rack.get(node).is_some() {
                return Some(("farewell", format!("{node} has left, and its Bottle is held")));
            }
        } else if self.buried.get(node).is_some_and(|until| *until > unix_ms) && rack.get(node).is_some() {
            return Some(("resurrection", format!("{node} had left, and is held again")));
        }
        if let Some(evidence) = rack.equivocation(node) {
            let [one, other] = &evidence.pair;
            if one.payload() == other.payload() || one.seq() != other.seq() || one.node_id() != *node {
                return Some(("evidence", format!("what {node} is accused of is none of two truths under one seq")));
            }
            self.caught.entry(*node).or_insert(unix_ms + ms(params.distrust_equivocation) - 60_000);
        }
        let must = self.caught.get(node).is_some_and(|until| *until > unix_ms);
        if must && engine.trust(node) != Trust::Distrusted {
            return Some(("distrust", format!("{node} has signed two truths, and is believed again")));
        }
        None
    }

    fn look_at_bottle(
        &mut self,
        node: &NodeId,
        rack: &Bottlerack,
        unix_ms: u64,
        params: &Params,
        signatures: &mut Signatures,
    ) -> Option<(&'static str, String)> {
        let Some(stored) = rack.get(node) else {
            self.newest.remove(node);
            return None;
        };
        let (bottle, rules) = (&stored.bottle, params.bottle_rules());
        if bottle.node_id() != *node || bottle.content().node_id() != *node {
            return Some(("verified", format!("a Bottle of {} is held as one of {node}", bottle.node_id())));
        }
        if !signatures.is_genuine(bottle) {
            return Some(("verified", format!("a Bottle is held that {node} has not signed")));
        }
        let seq_ms = bottle.seq().unix_ms();
        if seq_ms > unix_ms + rules.ahead_ms {
            return Some(("age", format!("a Bottle of {node} is held that is {} s ahead", (seq_ms - unix_ms) / 1000)));
        }
        let content = bottle.content();
        let key_ends_ms = content.circuit_key.not_after_s * 1000;
        if key_ends_ms > seq_ms + rules.circuit_key_life_ms + rules.ahead_ms {
            return Some(("age", format!("the circuit key of {node} would live too long")));
        }
        let now = (bottle.seq(), bottle.short_id());
        let before = self.newest.insert(*node, now);
        match before {
            Some((seq, _)) if seq > now.0 => {
                Some(("older", format!("an older Bottle of {node} takes a newer one's place: {} after {}", now.0.0, seq.0)))
            }
            Some((seq, id)) if seq == now.0 && id < now.1 => {
                Some(("older", format!("of two Bottles of {node} with one seq the one with the larger short id is held")))
            }
            Some(_) | None => None,
        }
    }

    /// Looks at what must hold for all of it at any time.
    pub(crate) fn look_at_all(
        rack: &Bottlerack,
        trusted: impl Fn(&NodeId) -> bool,
        params: &Params,
    ) -> Option<(&'static str, String)> {
        let rules = params.rack_rules();
        if rack.len() > rules.most_bottles {
            return Some(("bound", format!("{} Bottles are held", rack.len())));
        }
        let unknown = rack.iter().filter(|stored| !trusted(&stored.bottle.node_id())).count();
        (unknown > rules.most_unknown).then(|| ("bound", format!("{unknown} Bottles of unknown nodes are held")))
    }
}
