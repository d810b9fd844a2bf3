//! Computes routes (spec 08).
//!
//! The map is what both ends say: a link counts when both Bottles list it. A route is a uniform simple walk: every way of the wanted
//! length from the guard to an exit that may serve the target is equally likely. It is drawn by counting: how many walks of k more nodes end
//! well, from each node, gives the odds of each step; a walk that meets a node twice is thrown away and drawn anew, which keeps those
//! that remain uniform. On maps where nearly all walks do, a bounded search goes through them one by one instead.

use std::collections::{BTreeMap, BTreeSet};

use crate::bottle::{NodePrefix, VerifiedBottle};
use crate::circuit::message::Target;
use crate::crypto::Entropy;
use crate::ids::NodeId;
use crate::limits::{ROUTE_STEPS, ROUTE_TRIES};
use crate::policy::ExitPolicy;
use crate::wire::registry::{MAX_HOPS, StreamProtocol};

/// What a route is to be like.
#[derive(Debug, Clone, Copy)]
pub struct RouteRequest<'a> {
    /// The first hop: the node that the client has its link to.
    pub guard: Option<NodeId>,
    /// How many nodes, 1 to 6.
    pub hops: usize,
    /// TCP or UDP.
    pub protocol: StreamProtocol,
    /// Where to.
    pub target: &'a Target,
    /// Nodes that it must not touch.
    pub exclude: &'a BTreeSet<NodeId>,
    /// Unix milliseconds: circuit keys must be usable.
    pub now_ms: u64,
}

/// Why there is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// A route has 1 to 6 hops.
    #[error("a route has 1 to {MAX_HOPS} hops, not {0}")]
    Hops(usize),
    /// The client has no guard.
    #[error("there is no guard yet")]
    NoGuard,
    /// The guard is not in the map.
    #[error("the guard {0} is not known: its Bottle is missing or has expired")]
    GuardUnknown(NodeId),
    /// The guard cannot be used now.
    #[error("the guard {0} is excluded, drains, or its circuit key is no longer usable")]
    GuardUnusable(NodeId),
    /// Not enough nodes.
    #[error("a route of {hops} hops needs as many nodes; {usable} can be used")]
    TooFewNodes {
        /// Hops wanted.
        hops: usize,
        /// Nodes there are.
        usable: usize,
    },
    /// No exit's policy.
    #[error("no exit that can be used allows {} port {port}", protocol_name(*protocol))]
    NoExit {
        /// Wanted protocol.
        protocol: StreamProtocol,
        /// Wanted port.
        port: u16,
    },
    /// The links do not lead there.
    #[error("the links that both ends list give no path of {hops} hops from the guard to an exit that allows it")]
    NoPath {
        /// Hops wanted.
        hops: usize,
    },
    /// The search was given up.
    #[error("no path of {hops} hops was found in the time allowed for the search")]
    GaveUp {
        /// Hops wanted.
        hops: usize,
    },
}

fn protocol_name(protocol: StreamProtocol) -> &'static str {
    match protocol {
        StreamProtocol::Tcp => "TCP",
        StreamProtocol::Udp => "UDP",
        StreamProtocol::Mesh => "mesh",
    }
}

/// One node of the map.
#[derive(Debug, Clone)]
struct MapNode {
    /// Nodes that list it, and that it lists.
    neighbours: Vec<NodeId>,
    exit_policy: Option<ExitPolicy>,
    is_hidden: bool,
    is_draining: bool,
    usable_until_ms: u64,
}

/// The nodes and the links that both of their ends list.
#[derive(Debug, Clone, Default)]
pub struct Map {
    nodes: BTreeMap<NodeId, MapNode>,
}

impl Map {
    /// The map of a set of trusted Bottles. A circuit key is used until `key_margin_ms` before its end.
    pub fn build<'a>(bottles: impl IntoIterator<Item = &'a VerifiedBottle>, key_margin_ms: u64) -> Self {
        let bottles: BTreeMap<NodeId, &VerifiedBottle> = bottles.into_iter().map(|bottle| (bottle.node_id(), bottle)).collect();
        let claims = claims(&bottles);
        let nodes = bottles.iter().map(|(node, bottle)| {
            let claimed = claims.get(node).into_iter().flatten();
            let is_mutual = |other: &&NodeId| claims.get(other).is_some_and(|theirs| theirs.contains(node));
            let map_node = MapNode {
                neighbours: claimed.filter(is_mutual).copied().collect(),
                exit_policy: bottle.content().exit_policy.clone(),
                is_hidden: bottle.content().addresses.is_empty(),
                is_draining: bottle.content().flags.is_draining(),
                usable_until_ms: bottle.usable_until_ms(key_margin_ms),
            };
            (*node, map_node)
        });
        Self { nodes: nodes.collect() }
    }

    /// How many nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it knows nobody.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether it knows a node.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.nodes.contains_key(node)
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.nodes.keys()
    }

    /// The nodes that a node is linked to, by its word and theirs.
    pub fn neighbours(&self, node: &NodeId) -> &[NodeId] {
        self.nodes.get(node).map_or(&[], |known| &known.neighbours)
    }

    /// Draws a guard: any node that has an address, can be used at `now_ms` and is not excluded.
    pub fn draw_guard(&self, exclude: &BTreeSet<NodeId>, now_ms: u64, entropy: &mut Entropy) -> Option<NodeId> {
        let fits = |(id, node): &(&NodeId, &MapNode)| !node.is_hidden && node.is_usable(now_ms) && !exclude.contains(id);
        let guards: Vec<NodeId> = self.nodes.iter().filter(fits).map(|(id, _)| *id).collect();
        entropy.pick(&guards).copied()
    }
}

impl MapNode {
    fn is_usable(&self, now_ms: u64) -> bool {
        !self.is_draining && now_ms < self.usable_until_ms
    }

    fn may_serve(&self, protocol: StreamProtocol, target: &Target) -> bool {
        // A hidden node is a middle only (spec 04, 2).
        let policy = self.exit_policy.as_ref().filter(|_| !self.is_hidden);
        policy.is_some_and(|policy| policy.may_allow(protocol, target.host.ip(), target.port))
    }
}

/// Who each node says it is linked to. A prefix that fits two NodeIDs names neither (spec 04, 4).
fn claims(bottles: &BTreeMap<NodeId, &VerifiedBottle>) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
    let mut by_prefix: BTreeMap<NodePrefix, Option<NodeId>> = BTreeMap::new();
    for node in bottles.keys() {
        by_prefix.entry(NodePrefix::from(node)).and_modify(|owner| *owner = None).or_insert(Some(*node));
    }
    let named = |prefix: &NodePrefix| by_prefix.get(prefix).copied().flatten();
    let claims_of = |(node, bottle): (&NodeId, &&VerifiedBottle)| {
        let others = bottle.content().links.iter().filter_map(|link| named(&link.peer)).filter(|other| other != node);
        (*node, others.collect())
    };
    bottles.iter().map(claims_of).collect()
}

/// Draws a route: `hops` different nodes, guard first, an exit that may serve the target last, each linked to the next.
///
/// # Errors
/// Why there is none.
pub fn route(map: &Map, request: &RouteRequest<'_>, entropy: &mut Entropy) -> Result<Vec<NodeId>, NoRoute> {
    let hops = request.hops;
    if !(1..=MAX_HOPS).contains(&hops) {
        return Err(NoRoute::Hops(hops));
    }
    let guard = request.guard.ok_or(NoRoute::NoGuard)?;
    if !map.contains(&guard) {
        return Err(NoRoute::GuardUnknown(guard));
    }
    let field = Field::new(map, request);
    let Some(start) = field.index_of(&guard) else {
        return Err(NoRoute::GuardUnusable(guard));
    };
    if !field.exits.contains(&true) {
        return Err(NoRoute::NoExit { protocol: request.protocol, port: request.target.port });
    }
    if field.ids.len() < hops {
        return Err(NoRoute::TooFewNodes { hops, usable: field.ids.len() });
    }
    let walks = Walks::count(&field, start, hops);
    if walks.from(start, hops) == 0 {
        return Err(NoRoute::NoPath { hops });
    }
    let drawn = (0..ROUTE_TRIES).find_map(|_| walks.draw(&field, start, hops, entropy));
    let walk = match drawn {
        Some(walk) => walk,
        None => Search::new(&field, &walks, hops).run(start, entropy)?,
    };
    Ok(walk.into_iter().map(|index| field.ids[index]).collect())
}

/// The nodes that a request can use, numbered.
struct Field {
    ids: Vec<NodeId>,
    neighbours: Vec<Vec<usize>>,
    exits: Vec<bool>,
}

impl Field {
    fn new(map: &Map, request: &RouteRequest<'_>) -> Self {
        let fits = |(id, node): &(&NodeId, &MapNode)| node.is_usable(request.now_ms) && !request.exclude.contains(id);
        let usable: Vec<(&NodeId, &MapNode)> = map.nodes.iter().filter(fits).collect();
        let mut field = Self { ids: usable.iter().map(|(id, _)| **id).collect(), neighbours: Vec::new(), exits: Vec::new() };
        for (_, node) in usable {
            field.neighbours.push(node.neighbours.iter().filter_map(|id| field.index_of(id)).collect());
            field.exits.push(node.may_serve(request.protocol, request.target));
        }
        field
    }

    fn index_of(&self, id: &NodeId) -> Option<usize> {
        // In the order of the map.
        self.ids.binary_search(id).ok()
    }
}

/// `counts[k][v]`: how many walks of k nodes begin at v and end at an exit without coming back to the guard. At most 64^5.
struct Walks {
    counts: Vec<Vec<u64>>,
}

impl Walks {
    fn count(field: &Field, guard: usize, hops: usize) -> Self {
        let nodes = field.ids.len();
        let mut counts = vec![vec![0; nodes]; hops + 1];
        counts[1] = field.exits.iter().map(|is_exit| u64::from(*is_exit)).collect();
        for length in 2..=hops {
            for node in 0..nodes {
                let onward = field.neighbours[node].iter().filter(|next| **next != guard);
                counts[length][node] = onward.map(|next| counts[length - 1][*next]).sum();
            }
        }
        Self { counts }
    }

    fn from(&self, node: usize, length: usize) -> u64 {
        self.counts[length][node]
    }

    /// A uniform walk of `hops` nodes; none when it met a node twice.
    fn draw(&self, field: &Field, guard: usize, hops: usize, entropy: &mut Entropy) -> Option<Vec<usize>> {
        let mut walk = vec![guard];
        let mut at = guard;
        for left in (1..hops).rev() {
            let mut ticket = entropy.below(self.from(at, left + 1));
            let mut onward = field.neighbours[at].iter().copied().filter(|next| *next != guard);
            at = onward.find(|next| {
                let count = self.from(*next, left);
                let hit = ticket < count;
                ticket = ticket.saturating_sub(count);
                hit
            })?;
            if walk.contains(&at) {
                return None;
            }
            walk.push(at);
        }
        Some(walk)
    }
}

/// Goes through the simple walks one by one and keeps each with the odds that make all equally likely.
struct Search<'a> {
    field: &'a Field,
    walks: &'a Walks,
    hops: usize,
    steps_left: usize,
    found: u64,
    kept: Option<Vec<usize>>,
}

impl<'a> Search<'a> {
    fn new(field: &'a Field, walks: &'a Walks, hops: usize) -> Self {
        Self { field, walks, hops, steps_left: ROUTE_STEPS, found: 0, kept: None }
    }

    fn run(mut self, guard: usize, entropy: &mut Entropy) -> Result<Vec<usize>, NoRoute> {
        self.extend(&mut vec![guard], guard, entropy);
        let gave_up = self.steps_left == 0;
        let hops = self.hops;
        self.kept.ok_or(if gave_up { NoRoute::GaveUp { hops } } else { NoRoute::NoPath { hops } })
    }

    /// At most six deep.
    fn extend(&mut self, walk: &mut Vec<usize>, at: usize, entropy: &mut Entropy) {
        if walk.len() == self.hops {
            self.found += 1;
            if entropy.below(self.found) == 0 {
                self.kept = Some(walk.clone());
            }
            return;
        }
        let left = self.hops - walk.len();
        // From a random place on: a search that is given up has then not seen the same corner each time.
        let neighbours = &self.field.neighbours[at];
        let first = usize::try_from(entropy.below(neighbours.len() as u64)).unwrap_or(0);
        let (before, after) = neighbours.split_at(first);
        for next in after.iter().chain(before) {
            if self.steps_left == 0 {
                return;
            }
            self.steps_left -= 1;
            if self.walks.from(*next, left) > 0 && !walk.contains(next) {
                walk.push(*next);
                self.extend(walk, *next, entropy);
                walk.pop();
            }
        }
    }
}
