//! What must hold of the whole mesh: routes, and the state when all is well again.

use std::collections::{BTreeMap, BTreeSet};

use port17_proto::bottle::{NodePrefix, ShortId};
use port17_proto::bottlerack::Trust;
use port17_proto::ids::NodeId;
use port17_proto::node::guard::GuardChoice;
use port17_proto::params::Params;

use crate::host::{Host, Kind};
use crate::world::World;

/// A route by the client's own Bottles: what is wrong with it (spec 08).
pub(crate) fn check_route(route: &[NodeId], host: &Host, guard: &GuardChoice, params: &Params, unix_ms: u64) -> Option<String> {
    let engine = host.node.as_ref()?;
    let different: BTreeSet<&NodeId> = route.iter().collect();
    if different.len() != route.len() {
        return Some("one node stands in a route twice".into());
    }
    if route.len() != params.hops as usize {
        return Some(format!("a route of {} hops", route.len()));
    }
    if route.first() != Some(&guard.node) {
        return Some("a route that does not begin at the guard".into());
    }
    if params.pin_hop2 && route.len() >= 3 && !guard.hop2.contains(&route[1]) {
        return Some("a second hop that is not pinned".into());
    }
    let margin_ms = u64::try_from(params.circuit_key_margin.as_millis()).unwrap_or(u64::MAX);
    for (at, node) in route.iter().enumerate() {
        let Some(stored) = engine.bottlerack().get(node) else { return Some("a hop whose Bottle is not held".into()) };
        let content = stored.bottle.content();
        let faces = at == 0 || at + 1 == route.len();
        match engine.trust(node) {
            Trust::Distrusted => return Some("a hop that was caught at signing two truths".into()),
            Trust::Unknown if faces => return Some("a guard or exit that nobody vouches for".into()),
            Trust::Unknown | Trust::Trusted => {}
        }
        if faces && content.addresses.is_empty() {
            return Some("a guard or exit that hides".into());
        }
        let ends_ms = (content.circuit_key.not_after_s * 1000).saturating_sub(margin_ms);
        let expires_ms = stored.bottle.seq().unix_ms() + params.bottle_rules().life_ms;
        if unix_ms >= ends_ms.min(expires_ms) {
            return Some("a hop whose circuit key must not be used any more".into());
        }
        if at + 1 == route.len() && content.exit_policy.is_none() {
            return Some("an exit that is none".into());
        }
        let names = |one: &NodeId, other: &NodeId| {
            let links = &engine.bottlerack().get(one)?.bottle.content().links;
            Some(links.iter().any(|link| link.peer == NodePrefix::from(other)))
        };
        if let Some(next) = route.get(at + 1)
            && (names(node, next) != Some(true) || names(next, node) != Some(true))
        {
            return Some("a link that not both of its ends list".into());
        }
    }
    None
}

/// Faults have stopped long ago: everybody knows the same, nothing is left over.
pub(crate) fn judge_end(world: &mut World) {
    for host in 0..world.hosts.len() {
        world.audit(host);
    }
    maps(world);
    links(world);
    left_over(world);
    nothing_missing(world);
}

/// The newest Bottles of all honest nodes are held by all honest hosts; who has left, by nobody.
fn maps(world: &World) {
    let rules = world.params.bottle_rules();
    let mut newest: BTreeMap<NodeId, ShortId> = BTreeMap::new();
    for host in world.hosts.iter().filter(|host| host.counts() && host.kind == Kind::Node) {
        if let Some(bottle) = host.published.last() {
            newest.insert(host.id, bottle.short_id());
        }
    }
    for (place, host) in world.hosts.iter().enumerate().filter(|(_, host)| host.counts()) {
        let Some(engine) = &host.node else { continue };
        let rack = engine.bottlerack();
        let unix_ms = world.time(place).unix_ms;
        for (node, short_id) in newest.iter().filter(|(node, _)| **node != host.id) {
            match rack.get(node) {
                Some(stored) if stored.bottle.short_id() == *short_id => {}
                Some(stored) => {
                    let age_s = unix_ms.saturating_sub(stored.bottle.seq().unix_ms()) / 1000;
                    world.findings.report("convergence", format!("host {place} holds a Bottle of {node} that is {age_s} s old"));
                }
                None => world.findings.report("convergence", format!("host {place} knows nothing of {node}")),
            }
            let trust = engine.trust(node);
            let should = if engine.is_listed(node) { Trust::Trusted } else { Trust::Unknown };
            if trust != should {
                world.findings.report("trust", format!("host {place} holds {node} for {trust:?}, not {should:?}"));
            }
            if rack.get(node).is_some() && rack.name_of(node).is_none() {
                world.findings.report("name", format!("host {place} has no name for {node}"));
            }
        }
        for gone in world.hosts.iter().filter(|other| other.said_farewell) {
            if rack.get(&gone.id).is_some() {
                world.findings.report("farewell", format!("host {place} holds {}, who has said farewell", gone.id));
            }
        }
        for caught in world.caught() {
            if engine.trust(&caught) != Trust::Distrusted {
                world.findings.report("distrust", format!("host {place} does not know that {caught} signs two truths"));
            }
        }
        for stored in rack.iter() {
            if stored.bottle.seq().unix_ms() + rules.life_ms + 2 * 3_600_000 < unix_ms {
                world.findings.report("age", format!("host {place} keeps a Bottle that has expired"));
            }
        }
    }
}

/// What two honest nodes list is there, and every honest node has links.
fn links(world: &World) {
    let running = world.hosts.iter().filter(|host| host.counts() && host.kind == Kind::Node).count();
    for (place, host) in world.hosts.iter().enumerate().filter(|(_, host)| host.counts() && host.kind == Kind::Node) {
        let linked = host.plane.borrow().links.keys().filter(|peer| peer.node().is_some()).count();
        if linked == 0 && running > 1 {
            world.findings.report("links", format!("host {place} has no link"));
        }
        let Some(bottle) = host.published.last() else { continue };
        for other in world.hosts.iter().filter(|other| other.counts() && other.kind == Kind::Node && other.id != host.id) {
            let lists = bottle.content().link_to(&other.id).is_some();
            let back = other.published.last().is_some_and(|bottle| bottle.content().link_to(&host.id).is_some());
            let up = host.plane.borrow().links.contains_key(&port17_proto::node::io::Peer::Node(other.id));
            if lists && back && !up {
                world.findings.report("links", format!("host {place} and {} list a link that is not up", other.id));
            }
        }
    }
}

/// Every honest host says that all is well, and goes by the newest list.
fn nothing_missing(world: &World) {
    for (place, host) in world.hosts.iter().enumerate().filter(|(_, host)| host.counts()) {
        let Some(engine) = &host.node else { continue };
        let status = engine.status();
        let there =
            |node: &NodeId| world.hosts.iter().any(|other| other.id == *node && other.counts() && other.listens.is_some());
        if let Some(down) = status.links.iter().find(|link| !link.is_up && there(&link.node)) {
            let why = down.why.as_deref().unwrap_or("it does not say why");
            world.findings.report("waits", format!("host {place} has no link to {}, who is there: {why}", down.node));
        }
        if let Some(missing) = status.waits_for.filter(|_| host.kind == Kind::Client) {
            world.findings.report("waits", format!("client {place} waits for {missing}"));
        }
        for job in host.client.jobs.iter().filter(|job| job.must) {
            world.findings.report("streams", format!("stream {} of client {place} never ended", job.plan.tag));
        }
        let seq = engine.list().map_or(0, |list| list.seq());
        if seq != world.list_seq {
            world.findings.report("list", format!("host {place} goes by list {seq}, not {}", world.list_seq));
        }
        let linked = host.plane.borrow().links.len();
        let primary = host.guards.as_ref().and_then(|set| set.primary);
        let is_up = primary.is_some_and(|node| host.plane.borrow().links.contains_key(&port17_proto::node::io::Peer::Node(node)));
        // No stream is left that a backup could be kept for.
        if host.kind == Kind::Client && linked > 1 && is_up {
            world.findings.report("guards", format!("client {place} has {linked} links, and its primary guard's is up"));
        }
    }
}

/// Circuits have ended: no memory is reserved, no circuit is kept, on any lane.
fn left_over(world: &World) {
    for (place, host) in world.hosts.iter().enumerate().filter(|(_, host)| host.counts()) {
        let reserved = host.plane.borrow().pool.reserved_cells() + host.plane.borrow().clients.reserved_cells();
        let circuits: usize = host.lanes.values().map(|end| world.circuits_at(*end)).sum();
        if reserved > 0 || circuits > 0 {
            world.findings.report("left over", format!("host {place} keeps {circuits} circuits and memory for {reserved} cells"));
        }
    }
}
