use std::collections::BTreeSet;
use std::fmt;

use super::diversity::Rules;
use super::field::Field;
use super::map::Map;
use super::walks::{Nothing, Walks};
use crate::circuit::message::Target;
use crate::crypto::Entropy;
use crate::ids::NodeId;
use crate::limits::ROUTE_STEPS;
use crate::wire::registry::{MAX_HOPS, StreamProtocol};

/// What a route is to be like.
#[derive(Debug, Clone, Copy)]
pub struct RouteRequest<'a> {
    /// The first hop: the node that the client has its link to.
    pub guard: Option<NodeId>,
    /// The nodes of which the first that can be used stands behind the guard, in routes of three hops and more; empty: any.
    pub hop2: &'a [NodeId],
    /// How many nodes, 1 to 6.
    pub hops: usize,
    /// Whether all hops are of different groups and of different address blocks.
    pub diversity: bool,
    /// TCP or UDP.
    pub protocol: StreamProtocol,
    /// Where to.
    pub target: &'a Target,
    /// Nodes that it must not touch.
    pub exclude: &'a BTreeSet<NodeId>,
    /// Unix milliseconds: circuit keys must be usable.
    pub now_ms: u64,
}

impl RouteRequest<'_> {
    fn is_pinned(&self) -> bool {
        self.hops >= 3 && !self.hop2.is_empty()
    }
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
    /// The guard may not be one.
    #[error("the guard {0} is not trusted or names no address: it cannot be a guard")]
    GuardNotTrusted(NodeId),
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
    /// No node that is kept for the place behind the guard.
    #[error("{}", hop2_problem(*hops, *candidates, *usable))]
    Hop2 {
        /// Hops wanted.
        hops: usize,
        /// Nodes that are kept for this place.
        candidates: usize,
        /// Those of them that can be used and are linked to the guard.
        usable: usize,
    },
    /// The links do not lead there.
    #[error("the links that both ends list give no path of {hops} hops from the guard to an exit that allows it")]
    NoPath {
        /// Hops wanted.
        hops: usize,
    },
    /// They do, but not over nodes that are different enough.
    #[error("no {hops} hops of different groups and networks: every path to an exit that allows it has two nodes of {shared}")]
    Constraints {
        /// Hops wanted.
        hops: usize,
        /// What stands in the way.
        shared: Shared,
    },
    /// The search was given up.
    #[error("no path of {hops} hops was found in the time allowed for the search")]
    GaveUp {
        /// Hops wanted.
        hops: usize,
    },
}

/// What two nodes of every path have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// The group: without this rule there would be a route.
    Group,
    /// The address block: without this rule there would be a route.
    AddressBlock,
    /// The one or the other.
    Either,
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "one group",
            Self::AddressBlock => "one network (/16, IPv6: /32)",
            Self::Either => "one group or one network (/16, IPv6: /32)",
        })
    }
}

fn hop2_problem(hops: usize, candidates: usize, usable: usize) -> String {
    if candidates == 0 {
        return format!("the guard is linked to no trusted node from which {hops} hops lead to an exit");
    }
    format!(
        "of {candidates} nodes that may stand behind the guard {usable} can be used, and none of these leads to an exit that allows \
         it in {hops} hops"
    )
}

fn protocol_name(protocol: StreamProtocol) -> &'static str {
    match protocol {
        StreamProtocol::Tcp => "TCP",
        StreamProtocol::Udp => "UDP",
        StreamProtocol::Mesh => "mesh",
    }
}

/// Why a node stands where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopRole {
    /// The client's first hop, for months.
    Guard,
    /// The hop behind it, kept with it.
    Pinned,
    /// Drawn anew for each circuit.
    Middle,
    /// The last.
    Exit,
}

/// One hop of a route, and how free its choice was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopSample {
    /// The node.
    pub node: NodeId,
    /// Its place.
    pub role: HopRole,
    /// Nodes that could stand here behind the hops before, itself included.
    pub alternatives: usize,
}

/// A route with what could have stood in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSample {
    /// The hops, guard first.
    pub hops: Vec<HopSample>,
}

/// Draws a route: `hops` different nodes, guard first, an exit that may serve the target last, each linked to the next, all rules kept.
///
/// # Errors
/// Why there is none.
pub fn route(map: &Map, request: &RouteRequest<'_>, entropy: &mut Entropy) -> Result<Vec<NodeId>, NoRoute> {
    let walk = Drawing::new(map, request)?.draw(entropy)?;
    Ok(walk.into_iter().map(|number| map.id(number)).collect())
}

/// Draws a route and counts, for each of its hops, the nodes that could stand there behind the hops before.
///
/// # Errors
/// Why there is none.
pub fn sample(map: &Map, request: &RouteRequest<'_>, entropy: &mut Entropy) -> Result<RouteSample, NoRoute> {
    let drawing = Drawing::new(map, request)?;
    let walk = drawing.draw(entropy)?;
    Ok(drawing.explain(&walk))
}

/// A request whose simple conditions are met.
pub(super) struct Drawing<'a> {
    request: &'a RouteRequest<'a>,
    pub(super) field: Field<'a>,
    guard: usize,
}

impl<'a> Drawing<'a> {
    pub(super) fn new(map: &'a Map, request: &'a RouteRequest<'a>) -> Result<Self, NoRoute> {
        let hops = request.hops;
        if !(1..=MAX_HOPS).contains(&hops) {
            return Err(NoRoute::Hops(hops));
        }
        let id = request.guard.ok_or(NoRoute::NoGuard)?;
        let guard = map.number(&id).ok_or(NoRoute::GuardUnknown(id))?;
        let field = Field::new(map, request.exclude, request.now_ms, |node| node.may_serve(request.protocol, request.target));
        if !field.is_usable(guard) {
            return Err(NoRoute::GuardUnusable(id));
        }
        if !field.node(guard).may_face() {
            return Err(NoRoute::GuardNotTrusted(id));
        }
        if !field.has_end() {
            return Err(NoRoute::NoExit { protocol: request.protocol, port: request.target.port });
        }
        let usable = field.usable();
        if usable < hops {
            return Err(NoRoute::TooFewNodes { hops, usable });
        }
        Ok(Self { request, field, guard })
    }

    fn rules(&self) -> Rules {
        Rules::of(self.request.diversity)
    }

    fn draw(&self, entropy: &mut Entropy) -> Result<Vec<usize>, NoRoute> {
        self.draw_under(self.rules(), entropy).map_err(|why| self.blame(why, entropy))
    }

    fn draw_under(&self, rules: Rules, entropy: &mut Entropy) -> Result<Vec<usize>, NoRoute> {
        let hops = self.request.hops;
        if self.request.is_pinned() {
            return self.draw_pinned(rules, entropy);
        }
        self.walks(rules, vec![self.guard]).draw(entropy).map_err(|nothing| match nothing {
            Nothing::NoPath => NoRoute::NoPath { hops },
            Nothing::GaveUp => NoRoute::GaveUp { hops },
        })
    }

    /// Over the first candidate that leads to an exit: one that never could, as the only exit there is, is passed over (spec 08).
    fn draw_pinned(&self, rules: Rules, entropy: &mut Entropy) -> Result<Vec<usize>, NoRoute> {
        let RouteRequest { hops, hop2, .. } = *self.request;
        let mut usable = 0;
        let mut gave_up = false;
        for candidate in hop2.iter().filter_map(|node| self.field.map.number(node)) {
            if !self.field.may_be_pinned(rules, self.guard, candidate) {
                continue;
            }
            usable += 1;
            match self.walks(rules, vec![self.guard, candidate]).draw(entropy) {
                Ok(walk) => return Ok(walk),
                Err(Nothing::NoPath) => {}
                Err(Nothing::GaveUp) => gave_up = true,
            }
        }
        Err(if gave_up { NoRoute::GaveUp { hops } } else { NoRoute::Hop2 { hops, candidates: hop2.len(), usable } })
    }

    fn walks(&self, rules: Rules, fixed: Vec<usize>) -> Walks<'_> {
        Walks::count(&self.field, rules, fixed, self.request.hops)
    }

    /// Whether it is the rules of diversity that leave no route, and which.
    fn blame(&self, why: NoRoute, entropy: &mut Entropy) -> NoRoute {
        let mut works = |rules| self.draw_under(rules, entropy).is_ok();
        if self.rules() == Rules::NONE || matches!(why, NoRoute::GaveUp { .. }) || !works(Rules::NONE) {
            return why;
        }
        let without_groups = works(Rules { groups: false, ..Rules::ALL });
        let without_blocks = works(Rules { blocks: false, ..Rules::ALL });
        let shared = match (without_groups, without_blocks) {
            (true, false) => Shared::Group,
            (false, true) => Shared::AddressBlock,
            (true, true) | (false, false) => Shared::Either,
        };
        NoRoute::Constraints { hops: self.request.hops, shared }
    }

    /// The walks that a route is drawn from: those over the first candidate that leads to an exit, or all.
    pub(super) fn drawn_from(&self) -> Option<Walks<'_>> {
        let RouteRequest { hop2, .. } = *self.request;
        let rules = self.rules();
        let has_one = |walks: &Walks<'_>, fixed: &[usize]| {
            let mut steps = ROUTE_STEPS;
            walks.lead_on(fixed, &mut steps)
        };
        if !self.request.is_pinned() {
            return Some(self.walks(rules, vec![self.guard]));
        }
        hop2.iter().filter_map(|node| self.field.map.number(node)).find_map(|candidate| {
            let fixed = vec![self.guard, candidate];
            let fits = self.field.may_be_pinned(rules, self.guard, candidate);
            fits.then(|| self.walks(rules, fixed.clone())).filter(|walks| has_one(walks, &fixed))
        })
    }

    fn explain(&self, walk: &[usize]) -> RouteSample {
        let walks = self.walks(self.rules(), vec![self.guard]);
        let mut steps = ROUTE_STEPS;
        let hop = |(place, number): (usize, &usize)| HopSample {
            node: self.field.map.id(*number),
            role: self.role(place),
            alternatives: if place == 0 { self.guards() } else { self.alternatives(&walks, &walk[..place], &mut steps) },
        };
        RouteSample { hops: walk.iter().enumerate().map(hop).collect() }
    }

    fn role(&self, place: usize) -> HopRole {
        match place {
            _ if place + 1 == self.request.hops => HopRole::Exit,
            0 => HopRole::Guard,
            1 if self.request.is_pinned() => HopRole::Pinned,
            _ => HopRole::Middle,
        }
    }

    /// Nodes that could be the guard; of a route of one hop, that are exits as well.
    fn guards(&self) -> usize {
        let fits = |node: &usize| {
            let ends = self.request.hops > 1 || self.field.is_end(*node);
            self.field.is_usable(*node) && self.field.node(*node).may_face() && ends
        };
        (0..self.field.map.len()).filter(fits).count()
    }

    fn alternatives(&self, walks: &Walks<'_>, before: &[usize], steps: &mut usize) -> usize {
        let is_pinned = self.role(before.len()) == HopRole::Pinned;
        let stands = |node: usize| !is_pinned || self.field.may_be_pinned(self.rules(), self.guard, node);
        let mut leads = |node: usize| walks.fits(before, node) && walks.lead_on(&[before, &[node]].concat(), steps);
        walks.onward(before).filter(|(node, _)| stands(*node) && leads(*node)).count()
    }
}
