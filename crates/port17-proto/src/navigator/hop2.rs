use std::collections::BTreeSet;

use super::diversity::Rules;
use super::field::Field;
use super::map::{Map, MapNode};
use super::walks::Walks;
use crate::ids::NodeId;
use crate::limits::ROUTE_STEPS;

/// For whom nodes are wanted that may be pinned behind a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop2Request {
    /// The guard.
    pub guard: NodeId,
    /// How many nodes the client's routes have.
    pub hops: usize,
    /// Whether all hops are of different groups and of different address blocks.
    pub diversity: bool,
    /// Unix milliseconds: circuit keys must be usable.
    pub now_ms: u64,
}

/// The nodes that may be pinned behind a guard, in order: trusted ones with an address, linked to it, that fit beside it, and from which
/// a route of the wanted length leads to some exit.
///
/// Which exit, and what it allows, does not matter here: else who names the targets would change the pinned hops. But one that leads
/// to none at all would leave its client without routes for as long as it is kept.
pub fn hop2_choices(map: &Map, request: &Hop2Request) -> Vec<NodeId> {
    let Some(guard) = map.number(&request.guard) else { return Vec::new() };
    let rules = Rules::of(request.diversity);
    // A route of fewer than three hops has no pinned one.
    let hops = request.hops.max(3);
    let field = Field::new(map, &BTreeSet::new(), request.now_ms, MapNode::is_exit);
    let walks = Walks::count(&field, rules, vec![guard], hops);
    let mut steps = ROUTE_STEPS;
    let before = [guard];
    let onward = walks.onward(&before).map(|(node, _)| node);
    let fits = onward.filter(|node| field.may_be_pinned(rules, guard, *node));
    fits.filter(|node| walks.lead_on(&[guard, *node], &mut steps)).map(|node| map.id(node)).collect()
}
