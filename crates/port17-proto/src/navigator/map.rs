use std::collections::{BTreeMap, BTreeSet};

use super::diversity::AddressBlock;
use crate::bottle::{NodePrefix, VerifiedBottle};
use crate::bottlerack::Trust;
use crate::circuit::message::Target;
use crate::ids::NodeId;
use crate::planted::planted;
use crate::policy::ExitPolicy;
use crate::wire::registry::StreamProtocol;

/// The nodes and the links that both of their ends list.
#[derive(Debug, Clone, Default)]
pub struct Map {
    /// Sorted; a node's place is its number.
    ids: Vec<NodeId>,
    nodes: Vec<MapNode>,
}

/// One node of the map.
#[derive(Debug, Clone)]
pub(super) struct MapNode {
    /// The numbers of the nodes that list it, and that it lists.
    pub(super) neighbours: Vec<usize>,
    /// The number of its group, none where it names none.
    pub(super) group: Option<usize>,
    /// Sorted.
    pub(super) blocks: Vec<AddressBlock>,
    pub(super) is_hidden: bool,
    exit_policy: Option<ExitPolicy>,
    trust: Trust,
    is_draining: bool,
    usable_until_ms: u64,
}

impl Map {
    /// The map of a set of Bottles, each with the trust in its node. A circuit key is used until `key_margin_ms` before its end.
    pub fn build<'a>(bottles: impl IntoIterator<Item = (&'a VerifiedBottle, Trust)>, key_margin_ms: u64) -> Self {
        let bottles: BTreeMap<NodeId, (&VerifiedBottle, Trust)> =
            bottles.into_iter().map(|(bottle, trust)| (bottle.node_id(), (bottle, trust))).collect();
        let ids: Vec<NodeId> = bottles.keys().copied().collect();
        let mut neighbours = mutual(&claims(&bottles)).into_iter();
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        let nodes = bottles.values().map(|(bottle, trust)| {
            let content = bottle.content();
            let next_group = groups.len();
            let group = content.group.as_str();
            MapNode {
                neighbours: neighbours.next().unwrap_or_default(),
                group: (!group.is_empty()).then(|| *groups.entry(group).or_insert(next_group)),
                blocks: AddressBlock::of_bottle(content),
                is_hidden: content.addresses.is_empty(),
                exit_policy: content.exit_policy.clone(),
                trust: *trust,
                is_draining: content.flags.is_draining(),
                usable_until_ms: bottle.usable_until_ms(key_margin_ms),
            }
        });
        let nodes = nodes.collect();
        Self { ids, nodes }
    }

    /// How many nodes.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it knows nobody.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether it knows a node.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.number(node).is_some()
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.ids.iter()
    }

    /// The trust in a node; none where it is not known.
    pub fn trust(&self, node: &NodeId) -> Option<Trust> {
        Some(self.node(self.number(node)?).trust)
    }

    /// The nodes that a node is linked to, by its word and theirs, in order.
    pub fn neighbours(&self, node: &NodeId) -> Vec<NodeId> {
        let linked = self.number(node).map_or(&[][..], |number| &self.node(number).neighbours);
        linked.iter().map(|number| self.id(*number)).collect()
    }

    /// Whether a route that was drawn earlier still stands: every hop can be used at `now_ms`, guard and exit are trusted and have
    /// addresses, and every two in a row are linked.
    pub fn carries(&self, route: &[NodeId], now_ms: u64) -> bool {
        let numbers: Option<Vec<usize>> = route.iter().map(|node| self.number(node)).collect();
        let Some(numbers) = numbers else { return false };
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return false };
        numbers.iter().all(|number| self.node(*number).is_usable(now_ms))
            && self.node(*first).may_face()
            && self.node(*last).may_face()
            && numbers.windows(2).all(|pair| self.are_linked(pair[0], pair[1]))
    }

    pub(super) fn number(&self, node: &NodeId) -> Option<usize> {
        self.ids.binary_search(node).ok()
    }

    pub(super) fn id(&self, number: usize) -> NodeId {
        self.ids[number]
    }

    pub(super) fn node(&self, number: usize) -> &MapNode {
        &self.nodes[number]
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&NodeId, &MapNode)> {
        self.ids.iter().zip(&self.nodes)
    }

    pub(super) fn are_linked(&self, one: usize, other: usize) -> bool {
        // In the order of the numbers.
        self.node(one).neighbours.binary_search(&other).is_ok()
    }
}

impl MapNode {
    /// Whether it can stand in a route at all. Its key or its flag may say no, or that it was caught at signing two truths.
    pub(super) fn is_usable(&self, now_ms: u64) -> bool {
        !self.is_draining && self.trust != Trust::Distrusted && now_ms < self.usable_until_ms
    }

    /// Whether it may be guard, pinned hop 2 or exit: a node that nobody vouches for, or that hides, is a middle only (spec 04, 2).
    pub(super) fn may_face(&self) -> bool {
        self.trust == Trust::Trusted && !self.is_hidden
    }

    /// Whether it is an exit that may serve a target.
    pub(super) fn may_serve(&self, protocol: StreamProtocol, target: &Target) -> bool {
        let policy = self.exit_policy.as_ref().filter(|_| self.may_face() || planted("stranger-as-exit"));
        policy.is_some_and(|policy| policy.may_allow(protocol, target.host.ip(), target.port))
    }

    /// Whether it is an exit for anything.
    pub(super) fn is_exit(&self) -> bool {
        self.may_face() && self.exit_policy.is_some()
    }
}

/// Who each node says it is linked to, by number. A prefix that fits two NodeIDs names neither (spec 04, 4).
fn claims(bottles: &BTreeMap<NodeId, (&VerifiedBottle, Trust)>) -> Vec<BTreeSet<usize>> {
    let mut by_prefix: BTreeMap<NodePrefix, Option<usize>> = BTreeMap::new();
    for (number, node) in bottles.keys().enumerate() {
        by_prefix.entry(NodePrefix::from(node)).and_modify(|owner| *owner = None).or_insert(Some(number));
    }
    let named = |prefix: &NodePrefix| by_prefix.get(prefix).copied().flatten();
    let claims_of = |(number, (bottle, _)): (usize, &(&VerifiedBottle, Trust))| {
        bottle.content().links.iter().filter_map(|link| named(&link.peer)).filter(|other| *other != number).collect()
    };
    bottles.values().enumerate().map(claims_of).collect()
}

/// Of what each node claims, what the other end claims too; in order.
fn mutual(claims: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let of = |(number, claimed): (usize, &BTreeSet<usize>)| {
        claimed.iter().copied().filter(|other| claims[*other].contains(&number) || planted("map-takes-one-word")).collect()
    };
    claims.iter().enumerate().map(of).collect()
}
