use std::collections::BTreeSet;

use super::diversity::Rules;
use super::map::{Map, MapNode};
use crate::ids::NodeId;

/// The part of the map that one request can use.
pub(super) struct Field<'a> {
    pub(super) map: &'a Map,
    /// By number: can stand in a route.
    usable: Vec<bool>,
    /// By number: can stand at its end.
    ends: Vec<bool>,
}

impl<'a> Field<'a> {
    /// The nodes that can be used at `now_ms` and are not excluded; those for which `ends` is true may be the last.
    pub(super) fn new(map: &'a Map, exclude: &BTreeSet<NodeId>, now_ms: u64, ends: impl Fn(&MapNode) -> bool) -> Self {
        let usable: Vec<bool> = map.all().map(|(id, node)| node.is_usable(now_ms) && !exclude.contains(id)).collect();
        let ends = map.all().zip(&usable).map(|((_, node), usable)| *usable && ends(node)).collect();
        Self { map, usable, ends }
    }

    pub(super) fn node(&self, number: usize) -> &'a MapNode {
        self.map.node(number)
    }

    pub(super) fn is_usable(&self, number: usize) -> bool {
        self.usable[number]
    }

    pub(super) fn is_end(&self, number: usize) -> bool {
        self.ends[number]
    }

    /// How many nodes can be used.
    pub(super) fn usable(&self) -> usize {
        self.usable.iter().filter(|usable| **usable).count()
    }

    pub(super) fn has_end(&self) -> bool {
        self.ends.contains(&true)
    }

    /// Whether two nodes cannot stand in one route.
    pub(super) fn forbids(&self, rules: Rules, one: usize, other: usize) -> bool {
        one == other || rules.forbid(self.node(one), self.node(other))
    }

    /// Whether a node can be pinned behind a guard.
    pub(super) fn may_be_pinned(&self, rules: Rules, guard: usize, node: usize) -> bool {
        let fits = self.is_usable(node) && self.node(node).may_face() && self.map.are_linked(guard, node);
        fits && !self.forbids(rules, guard, node)
    }

    /// Whether a node can stand at a place of a route of `hops` nodes, as far as its kind goes; places count from 0.
    pub(super) fn may_stand(&self, node: usize, place: usize, hops: usize) -> bool {
        // A hidden node is a middle only, and the second of three or more is too near the client.
        let is_second = place == 1 && hops >= 3;
        !(is_second && self.node(node).is_hidden)
    }
}
