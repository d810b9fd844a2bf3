//! What somebody can know of a client's exit and guard who has the whole map, computed by the navigator that ships.
//!
//! **The exit.** The attacker knows the map, the length of routes, the client's guard and the hop that is pinned behind it (who watches
//! the client's line sees the guard; the pinned hop is given to him on top). He does not see the rest of the circuit. What is unknown to
//! him is which of the walks behind the pinned hop was drawn; all are equally likely (08-M5), so an exit's probability is its share of
//! them. They are counted one by one, not sampled: min-entropy from samples would always come out too small.
//!
//! **The guard.** The attacker runs exits, links as many circuits of one client as he likes, and intersects what they have in common: so
//! he knows the pinned hop. He does not watch the client's line. Each node that may be a guard is as likely as any other before he looks;
//! a guard's pinned hop is uniform among [`hop2_choices`]. So a guard's probability is proportional to one by the number of its choices,
//! where the pinned hop is among them, and 0 elsewhere. Without a pinned hop, or with routes of fewer than three hops, such an attacker
//! gets to the guard itself: 0 bits.
//!
//! Neither takes timing, load, or the depth in a SETUP into account, nor that an attacker's own nodes may stand in the route.

use std::collections::BTreeSet;

use port17_proto::bottlerack::Trust;
use port17_proto::ids::NodeId;
use port17_proto::navigator::{self, ExitOdds, Hop2Request, Map, RouteRequest, exit_odds, hop2_choices};
use port17_proto::wire::registry::StreamProtocol;

use super::Figures;
use crate::edge::StreamPlan;
use crate::host::Kind;
use crate::world::World;

/// More clients say little more.
const CLIENTS: usize = 32;
/// Routes of six hops in a large mesh are too many to count: then there is no figure.
const STEPS: usize = 50_000_000;

/// A distribution's two entropies, in bits.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bits {
    shannon: f64,
    min: f64,
}

/// One client's.
struct Known {
    odds: ExitOdds,
    exit: Bits,
    guard: Bits,
    guards: usize,
}

pub(super) fn measure(world: &mut World, figures: &mut Figures) {
    let clients: Vec<usize> = world.honest(Kind::Client).collect();
    let known: Vec<Known> = clients.into_iter().filter_map(|client| look_at(world, client)).take(CLIENTS).collect();
    let mean = |of: &dyn Fn(&Known) -> f64| (!known.is_empty()).then(|| known.iter().map(of).sum::<f64>() / known.len() as f64);
    figures.clients_asked = known.len();
    figures.exits_eligible = mean(&|it| it.odds.eligible as f64);
    figures.exits_reachable = mean(&|it| it.odds.walks.len() as f64);
    figures.exit_entropy_bits = mean(&|it| it.exit.shannon);
    figures.exit_min_entropy_bits = mean(&|it| it.exit.min);
    figures.exit_most_bits = mean(&|it| (it.odds.eligible.max(1) as f64).log2());
    figures.guard_entropy_bits = mean(&|it| it.guard.shannon);
    figures.guard_min_entropy_bits = mean(&|it| it.guard.min);
    figures.guard_most_bits = mean(&|it| (it.guards.max(1) as f64).log2());
}

fn look_at(world: &mut World, client: usize) -> Option<Known> {
    let map = world.map(client)?;
    let now_ms = world.time(client).unix_ms;
    let (hops, diversity) = (world.params.hops as usize, world.params.diversity);
    let is_pinned = world.params.pin_hop2 && hops >= 3;
    let host = &mut world.hosts[client];
    let set = host.guards.as_ref()?;
    let choice = set.guards.iter().find(|guard| guard.node == set.active)?;
    let (nobody, target) = (BTreeSet::new(), StreamPlan { tag: 0, up: 0, down: 0 }.target());
    let request = RouteRequest {
        guard: Some(choice.node),
        hop2: if is_pinned { &choice.hop2 } else { &[] },
        hops,
        diversity,
        protocol: StreamProtocol::Tcp,
        target: &target,
        exclude: &nobody,
        now_ms,
    };
    let odds = exit_odds(&map, &request, STEPS).ok()??;
    let drawn = navigator::route(&map, &request, &mut host.entropy).ok()?;
    let engine = host.node.as_ref()?;
    let has_address = |node: &NodeId| engine.bottlerack().get(node).is_some_and(|it| !it.bottle.content().addresses.is_empty());
    let guards: BTreeSet<NodeId> =
        map.nodes().filter(|node| map.trust(node) == Some(Trust::Trusted) && has_address(node)).copied().collect();
    let wish = |guard| Hop2Request { guard, hops, diversity, now_ms };
    let guard = match drawn.get(1).filter(|_| is_pinned) {
        Some(pinned) => guard_bits(&map, &guards, pinned, wish),
        None => Bits { shannon: 0.0, min: 0.0 },
    };
    Some(Known { exit: bits(odds.walks.values().map(|walks| *walks as f64)), odds, guard, guards: guards.len() })
}

fn guard_bits(map: &Map, guards: &BTreeSet<NodeId>, pinned: &NodeId, wish: impl Fn(NodeId) -> Hop2Request) -> Bits {
    let linked = map.neighbours(pinned).into_iter().filter(|node| guards.contains(node));
    let weights = linked.filter_map(|guard| {
        let choices = hop2_choices(map, &wish(guard));
        choices.contains(pinned).then(|| 1.0 / choices.len() as f64)
    });
    bits(weights)
}

/// The entropies of what is as likely as these weights say.
fn bits(weights: impl Iterator<Item = f64>) -> Bits {
    let weights: Vec<f64> = weights.filter(|weight| *weight > 0.0).collect();
    let total: f64 = weights.iter().sum();
    let largest = weights.iter().copied().fold(0.0, f64::max);
    if largest <= 0.0 {
        return Bits { shannon: 0.0, min: 0.0 };
    }
    let shannon: f64 = weights.iter().map(|weight| -(weight / total) * (weight / total).log2()).sum();
    // Not -0.0 where there is one choice.
    Bits { shannon: shannon.max(0.0), min: (total / largest).log2().max(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_known_distributions() {
        assert_eq!(bits([1.0; 8].into_iter()), Bits { shannon: 3.0, min: 3.0 });
        assert_eq!(bits([2.0, 1.0, 1.0].into_iter()), Bits { shannon: 1.5, min: 1.0 });
        assert_eq!(bits([5.0].into_iter()), Bits { shannon: 0.0, min: 0.0 });
        assert_eq!(bits([].into_iter()), Bits { shannon: 0.0, min: 0.0 });
    }
}
