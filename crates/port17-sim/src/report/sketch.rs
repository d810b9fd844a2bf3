//! The map at the end of a run: where nodes stand, who is linked with whom, how far it is.

use std::collections::{BTreeMap, VecDeque};

use port17_proto::bottlerack::Trust;
use port17_proto::ids::NodeId;
use port17_proto::navigator::Map;

use super::{Figures, Sorted};
use crate::host::Kind;
use crate::world::World;

/// Shortest ways are counted from at most so many nodes, spread over all.
const SOURCES: usize = 1000;

/// One node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Its city, in [`crate::geography::CITIES`].
    pub city: usize,
    /// It is an exit.
    pub is_exit: bool,
    /// It names no address.
    pub is_hidden: bool,
    /// The signed list names it.
    pub is_listed: bool,
    /// It does what the code says.
    pub is_honest: bool,
}

/// One client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSpot {
    /// Its city.
    pub city: usize,
    /// Its guard, among the nodes, where it has one.
    pub guard: Option<usize>,
}

/// The map, for drawing and counting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sketch {
    /// Nodes that run.
    pub nodes: Vec<Spot>,
    /// Links that both ends' newest Bottles list, by places in `nodes`, the smaller first.
    pub links: Vec<[usize; 2]>,
    /// Clients that run.
    pub clients: Vec<ClientSpot>,
}

impl Sketch {
    /// The map of a world, as the newest Bottles of those nodes have it that run.
    pub fn of(world: &World) -> Self {
        let listed = world.listed();
        let running = |kind| world.hosts.iter().filter(move |host| host.kind == kind && host.node.is_some());
        let mut bottles = Vec::new();
        let mut nodes: BTreeMap<NodeId, Spot> = BTreeMap::new();
        for host in running(Kind::Node) {
            let Some(bottle) = host.published.last() else { continue };
            bottles.push((bottle, Trust::Trusted));
            let spot = Spot {
                city: host.city,
                is_exit: host.is_exit,
                is_hidden: bottle.content().addresses.is_empty(),
                is_listed: listed.contains(&host.id),
                is_honest: host.is_honest,
            };
            nodes.insert(host.id, spot);
        }
        let map = Map::build(bottles, 0);
        let places: BTreeMap<NodeId, usize> = nodes.keys().enumerate().map(|(place, id)| (*id, place)).collect();
        let links = places.iter().flat_map(|(id, place)| {
            let places = &places;
            let others = map.neighbours(id).into_iter().filter_map(move |other| places.get(&other));
            others.filter(move |other| *other > place).map(move |other| [*place, *other])
        });
        let links = links.collect();
        let guard = |active: &NodeId| places.get(active).copied();
        let client = |host: &crate::host::Host| ClientSpot {
            city: host.city,
            guard: host.guards.as_ref().and_then(|set| guard(&set.active)),
        };
        Self { nodes: nodes.into_values().collect(), links, clients: running(Kind::Client).map(client).collect() }
    }

    /// Each node's neighbours.
    fn neighbours(&self) -> Vec<Vec<usize>> {
        let mut neighbours = vec![Vec::new(); self.nodes.len()];
        for [one, other] in &self.links {
            neighbours[*one].push(*other);
            neighbours[*other].push(*one);
        }
        neighbours
    }

    pub(super) fn measure(&self, figures: &mut Figures) {
        let neighbours = self.neighbours();
        figures.links = self.links.len();
        figures.degree_p50 = Sorted::new(neighbours.iter().map(|linked| linked.len() as u64).collect(), 1.0).quantile(50);
        let (mut ways, mut steps) = (0usize, 0usize);
        for source in (0..neighbours.len()).step_by(neighbours.len().div_ceil(SOURCES).max(1)) {
            let distances = distances(&neighbours, source);
            for distance in distances.iter().enumerate().filter(|(place, _)| *place != source).map(|(_, distance)| distance) {
                match distance {
                    None => figures.pairs_apart += 1,
                    Some(distance) => {
                        figures.diameter = figures.diameter.max(*distance);
                        (ways, steps) = (ways + 1, steps + distance);
                    }
                }
            }
        }
        // Each pair was seen from both ends, or is one of the few that were looked at.
        figures.pairs_apart /= 2;
        figures.mean_distance = (ways > 0).then(|| steps as f64 / ways as f64);
    }
}

/// How many links it is from one node to each.
fn distances(neighbours: &[Vec<usize>], source: usize) -> Vec<Option<usize>> {
    let mut distances = vec![None; neighbours.len()];
    distances[source] = Some(0);
    let mut to_visit = VecDeque::from([(source, 0)]);
    while let Some((node, distance)) = to_visit.pop_front() {
        for next in &neighbours[node] {
            if distances[*next].is_none() {
                distances[*next] = Some(distance + 1);
                to_visit.push_back((*next, distance + 1));
            }
        }
    }
    distances
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(nodes: usize, links: &[[usize; 2]]) -> Sketch {
        let spot = Spot { city: 0, is_exit: false, is_hidden: false, is_listed: true, is_honest: true };
        Sketch { nodes: vec![spot; nodes], links: links.to_vec(), clients: Vec::new() }
    }

    #[test]
    fn a_chain_of_four() {
        let mut figures = Figures::default();
        sketch(4, &[[0, 1], [1, 2], [2, 3]]).measure(&mut figures);
        assert_eq!((figures.links, figures.diameter, figures.pairs_apart), (3, 3, 0));
        // 3 pairs at 1, 2 at 2, 1 at 3.
        assert_eq!((figures.degree_p50, figures.mean_distance), (Some(1.0), Some(10.0 / 6.0)));
    }

    #[test]
    fn two_pairs_apart() {
        let mut figures = Figures::default();
        sketch(4, &[[0, 1], [2, 3]]).measure(&mut figures);
        assert_eq!((figures.diameter, figures.pairs_apart, figures.mean_distance), (1, 4, Some(1.0)));
        let mut nobody = Figures::default();
        sketch(0, &[]).measure(&mut nobody);
        assert_eq!(nobody, Figures::default());
    }
}
