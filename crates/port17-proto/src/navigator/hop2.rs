use std::collections::BTreeSet;

use super::diversity::Rules;
use super::field::Field;
use super::map::{Map, MapNode};
use super::walks::Walks;
use crate::crypto::Entropy;
use crate::ids::NodeId;
use crate::limits::ROUTE_STEPS;

/// For whom nodes are kept that may stand behind a guard.
#[derive(Debug, Clone, Copy)]
pub struct Hop2Request<'a> {
    /// The guard.
    pub guard: NodeId,
    /// How many candidates are wanted.
    pub most: usize,
    /// How many nodes the client's routes have.
    pub hops: usize,
    /// Whether all hops are of different groups and of different address blocks.
    pub diversity: bool,
    /// Nodes that must not be drawn.
    pub exclude: &'a BTreeSet<NodeId>,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// The candidates for hop 2 of a guard, made anew from those that are stored.
///
/// Those that can still be used stay, in their order: trusted nodes with an address, linked to the guard, that fit beside it. The free
/// places are filled with nodes drawn uniformly from the others that fit and from which some exit can be reached. When none of those
/// that stay leads to any exit and another node does, the last one gives way to it: a client must not be stuck for ever. A node
/// that leads to an exit but not to the wanted one is no reason: else who names the targets would change the pinned hops.
pub fn renew_hop2(map: &Map, request: &Hop2Request<'_>, stored: &[NodeId], entropy: &mut Entropy) -> Vec<NodeId> {
    let Some(guard) = map.number(&request.guard) else { return Vec::new() };
    let rules = Rules::of(request.diversity);
    // A route of fewer than three hops has no pinned one.
    let hops = request.hops.max(3);
    let field = Field::new(map, request.exclude, request.now_ms, MapNode::is_exit);
    let walks = Walks::count(&field, rules, vec![guard], hops);
    let mut steps = ROUTE_STEPS;
    let mut leads = |node: usize| {
        let counted = walks.onward(&[guard]).any(|(next, _)| next == node);
        counted && walks.lead_on(&[guard, node], &mut steps)
    };
    let fits = |node: &usize| field.may_be_pinned(rules, guard, *node);
    let mut seen = BTreeSet::new();
    let once = |node: &usize| seen.insert(*node);
    let stored = stored.iter().filter_map(|node| map.number(node)).filter(once);
    let mut kept: Vec<usize> = stored.filter(fits).take(request.most).collect();
    let is_stuck = !kept.iter().any(|node| leads(*node));
    let others = field.node(guard).neighbours.iter().copied().filter(fits).filter(|node| !kept.contains(node));
    let mut fresh: Vec<usize> = others.filter(|node| leads(*node)).collect();
    if is_stuck && kept.len() == request.most && !fresh.is_empty() {
        kept.pop();
    }
    while kept.len() < request.most && !fresh.is_empty() {
        let drawn = usize::try_from(entropy.below(fresh.len() as u64)).unwrap_or(0);
        kept.push(fresh.swap_remove(drawn));
    }
    kept.into_iter().map(|number| map.id(number)).collect()
}
