//! What the daemon says over the control API.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use port17_proto::bottle::{Address, VerifiedBottle, rtt_us};
use port17_proto::bottlerack;
use port17_proto::circuit::message::{Host, Target};
use port17_proto::ids::NodeId;
use port17_proto::navigator::{self, Map};
use port17_proto::node::status::NodeStatus;
use tokio::sync::{mpsc, oneshot, watch};

use super::membership::MembershipView;
use crate::bootstrap::{Attempt, SourceState};
use crate::client::name;
use crate::client::tunnel::{CircuitView, Tunnel};
use crate::control::{
    BottleStatus, CircuitStatus, Circuits, Daemon, HopRole, HopSample, LinkStatus, ListStatus, MapLink, MapNode, MeshMap,
    NetworkStatus, NodeName, ObjectCount, ObjectsStatus, Published, Refusal, RefusalCode, Reloaded, Role, RouteSample, RouteWish,
    SourceStatus, Status, StoreStatus, Trust,
};
use crate::mesh_view::MeshView;
use crate::objects::Tally;
use crate::plane::{Plane, unix_ms};

/// What only the driver can answer: it holds the engine.
pub(super) enum Question {
    /// The engine as it is.
    Status(oneshot::Sender<NodeStatus>),
    /// The mesh as the Bottlerack has it.
    Map(oneshot::Sender<MeshMap>),
    /// Look again at what the daemon was configured with.
    Reload(oneshot::Sender<Result<Reloaded, Refusal>>),
}

/// Questions that wait for the driver: as many askers as the control socket has.
pub(super) const QUESTIONS: usize = 32;

/// The parts of a daemon that answer.
pub(super) struct Answers {
    pub(super) plane: Arc<Plane>,
    pub(super) view: watch::Receiver<Arc<MeshView>>,
    pub(super) questions: mpsc::Sender<Question>,
    /// The configured label.
    pub(super) label: Option<String>,
    /// None without a network.
    pub(super) member: Option<MembershipView>,
    /// None for a node.
    pub(super) client: Option<ClientAnswers>,
}

/// What a client has beyond a node.
pub(super) struct ClientAnswers {
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) socks: SocketAddr,
}

/// Nodes by their PortNames, where their Bottles are known.
struct Names(Arc<MeshView>);

impl Names {
    fn of(&self, node: &NodeId) -> NodeName {
        let known = self.0.nodes.get(node);
        NodeName { node_id: node.to_string(), portname: known.map(|node| node.portname.to_string()) }
    }

    fn node_of(&self, portname: &str) -> Option<NodeId> {
        self.0.nodes.iter().find(|(_, node)| node.portname.to_string() == portname).map(|(id, _)| *id)
    }
}

impl Daemon for Answers {
    async fn status(&self) -> Result<Status, Refusal> {
        let engine = self.ask(Question::Status).await?;
        let names = self.names();
        let role = if self.client.is_some() { Role::Client } else { Role::Node };
        let mut status = Status {
            uptime_s: self.plane.clock.elapsed().as_secs(),
            label: self.label.clone(),
            parameters: self.plane.params.name.to_string(),
            circuits: self.plane.circuits() as u64,
            objects: Some(objects_status(&self.plane)),
            counts: self.plane.counts().into_iter().map(|(what, times)| (what.to_owned(), times)).collect(),
            ..Status::of(role)
        };
        add_engine(&mut status, &engine, &names);
        if let Some(member) = &self.member {
            status.network = Some(network_status(member, &engine));
            status.store = Some(store_status(member));
        }
        if let Some(client) = &self.client {
            status.socks = Some(client.socks);
            status.standing = circuits_of(&client.tunnel, &names);
            status.waiting_for = status.waiting_for.take().or_else(|| missing_circuit(&client.tunnel, &status.standing));
        }
        Ok(status)
    }

    async fn map(&self) -> Result<MeshMap, Refusal> {
        self.ask(Question::Map).await
    }

    fn circuits(&self) -> Result<Circuits, Refusal> {
        let client = self.client.as_ref().ok_or_else(no_client)?;
        Ok(Circuits { circuits: circuits_of(&client.tunnel, &self.names()) })
    }

    fn draw_route(&self, wish: &RouteWish) -> Result<RouteSample, Refusal> {
        let client = self.client.as_ref().ok_or_else(no_client)?;
        let target = wish.target.as_deref().map_or_else(|| Ok(any_target()), target)?;
        let names = self.names();
        let exclude = wish.exclude.iter().map(|text| named(text, &names)).collect::<Result<BTreeSet<_>, _>>()?;
        let drawn = client.tunnel.sample(wish.hops.map(usize::from), &target, &exclude);
        let drawn = drawn.map_err(|why| Refusal::new(RefusalCode::NoRoute, why))?;
        let hop = |hop: navigator::HopSample| HopSample {
            node: names.of(&hop.node),
            role: role(hop.role),
            candidates: hop.alternatives as u64,
        };
        Ok(RouteSample { hops: drawn.hops.into_iter().map(hop).collect() })
    }

    async fn reload(&self) -> Result<Reloaded, Refusal> {
        self.ask(Question::Reload).await?
    }
}

impl Answers {
    fn names(&self) -> Names {
        Names(Arc::clone(&self.view.borrow()))
    }

    async fn ask<A>(&self, question: impl FnOnce(oneshot::Sender<A>) -> Question) -> Result<A, Refusal> {
        let unavailable = || Refusal::new(RefusalCode::Unavailable, "the daemon is ending");
        let (sender, answer) = oneshot::channel();
        self.questions.send(question(sender)).await.map_err(|_| unavailable())?;
        answer.await.map_err(|_| unavailable())
    }
}

fn role(role: navigator::HopRole) -> HopRole {
    match role {
        navigator::HopRole::Guard => HopRole::Guard,
        navigator::HopRole::Pinned => HopRole::Pinned,
        navigator::HopRole::Middle => HopRole::Middle,
        navigator::HopRole::Exit => HopRole::Exit,
    }
}

fn no_client() -> Refusal {
    let why = "a node answers there: it forwards what others send and has no routes of its own; ask a client by --control SOCKET";
    Refusal::new(RefusalCode::NotAClient, why)
}

fn trust(trust: bottlerack::Trust) -> Trust {
    match trust {
        bottlerack::Trust::Trusted => Trust::Trusted,
        bottlerack::Trust::Unknown => Trust::Unknown,
        bottlerack::Trust::Distrusted => Trust::Distrusted,
    }
}

fn add_engine(status: &mut Status, engine: &NodeStatus, names: &Names) {
    status.node_id = engine.id.map(|id| id.to_string());
    status.portname = engine.portname.as_ref().map(ToString::to_string);
    status.guard = engine.guard.map(|guard| names.of(&guard));
    status.waiting_for.clone_from(&engine.waits_for);
    // The Bottlerack has the Bottles of others.
    status.map_nodes = engine.bottles as u64 + u64::from(engine.bottle.is_some());
    (status.known, status.trusted) = (engine.known as u64, engine.trusted as u64);
    status.wanted_links = engine.degree.map(|degree| degree as u64);
    status.links = engine.links.iter().map(|link| link_status(link, status.role, names)).collect();
    status.ready = status.waiting_for.is_none() || (status.role == Role::Node && status.links.iter().any(|link| link.up));
    status.clients = engine.clients as u64;
    status.bottle = engine.bottle.map(|bottle| BottleStatus {
        seq: bottle.seq.0,
        age_s: bottle.age.as_secs(),
        withdrawn: bottle.withdrawn as u64,
    });
    status.counts.extend(engine.counts.iter().map(|(what, times)| ((*what).to_owned(), *times)));
}

fn network_status(member: &MembershipView, engine: &NodeStatus) -> NetworkStatus {
    let list = engine.list.map(|list| ListStatus {
        seq: list.seq,
        issued_s: list.issued_s,
        expires_s: list.expires_s,
        nodes: list.nodes as u64,
        names_this: engine.id.map(|_| list.names_this),
    });
    NetworkStatus {
        name: member.definition.name().to_owned(),
        network_id: member.definition.id().to_string(),
        list,
        sources: member.bootstrap.sources().into_iter().map(source_status).collect(),
    }
}

fn source_status(source: SourceState) -> SourceStatus {
    let (result, ok, ago) = match source.last {
        None => (None, false, None),
        Some(Attempt { ago_s, seq: Some(seq), .. }) => (Some(format!("has list {seq}")), true, Some(ago_s)),
        Some(Attempt { ago_s, problem, .. }) => (problem, false, Some(ago_s)),
    };
    SourceStatus { source: source.source, ok, result, tried_s_ago: ago, again_in_s: source.next_in_s }
}

fn objects_status(plane: &Plane) -> ObjectsStatus {
    let count = |tally: &Tally| ObjectCount { created: tally.created(), live: tally.live() };
    let (created, live) = plane.pool.reservations();
    ObjectsStatus {
        lanes: count(&plane.objects.lanes),
        half_hops: ObjectCount { created, live },
        edges: count(&plane.objects.edges),
        streams: count(&plane.objects.streams),
        reserved_cells: plane.pool.reserved_cells(),
        setups_waiting: plane.setups_waiting() as u64,
        inputs_waiting: plane.inputs_waiting() as u64,
    }
}

fn store_status(member: &MembershipView) -> StoreStatus {
    let report = member.store.report();
    StoreStatus { path: member.store_path.display().to_string(), waiting: report.waiting as u64, problem: report.problem }
}

fn link_status(link: &port17_proto::node::status::LinkStatus, role: Role, names: &Names) -> LinkStatus {
    let rtt = link.lanes.iter().filter_map(|lane| lane.rtt).min();
    LinkStatus {
        node: names.of(&link.node),
        up: link.is_up,
        since_s: link.since.as_secs(),
        lanes: u8::try_from(link.lanes.len()).unwrap_or(u8::MAX),
        rtt_us: rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        dialled: link.dialled,
        published: (role == Role::Node).then_some(Published { here: link.published_here, there: link.published_there }),
        waiting_for: link.why.clone(),
        redial_in_s: link.redial_in.filter(|_| !link.is_up).map(whole_seconds),
    }
}

/// Rounded up: something that is still to come is not 0 s away.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn circuits_of(tunnel: &Tunnel, names: &Names) -> Vec<CircuitStatus> {
    let circuit = |circuit: CircuitView| CircuitStatus {
        route: circuit.route.iter().map(|node| names.of(node).text().to_owned()).collect(),
        streams: circuit.streams,
        age_s: circuit.age.as_secs(),
        open: circuit.open,
    };
    tunnel.circuits().into_iter().map(circuit).collect()
}

/// Why a client that has its guard has no circuit.
fn missing_circuit(tunnel: &Tunnel, standing: &[CircuitStatus]) -> Option<String> {
    if standing.iter().any(|circuit| circuit.open) {
        return None;
    }
    match tunnel.sample(None, &any_target(), &BTreeSet::new()) {
        Err(why) => Some(format!("a route: {why}")),
        Ok(_) => tunnel.trouble().map(|trouble| format!("a circuit: {trouble}")),
    }
}

/// What most streams want: HTTPS by name.
fn any_target() -> Target {
    Target { host: Host::Name(String::new()), port: 443 }
}

/// `host:port`, `address:port`, `[address]:port`; without a port 443 is meant.
fn target(text: &str) -> Result<Target, Refusal> {
    const PORT: u16 = 443;
    let bad = |why: &dyn std::fmt::Display| Refusal::new(RefusalCode::BadRequest, format_args!("target {text}: {why}"));
    let target = |host: Host, port: u16| Ok(Target { host, port });
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.port() == 0 {
            return Err(bad(&name::NameError::Port));
        }
        return target(Host::Ip(address.ip()), address.port());
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return target(Host::Ip(ip), PORT);
    }
    let (host, port) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let port = port.map_or(Ok(PORT), |port| port.parse().ok().filter(|port| *port > 0).ok_or(name::NameError::Port));
    let port = port.map_err(|error| bad(&error))?;
    target(Host::Name(name::parse(host).map_err(|error| bad(&error))?), port)
}

/// The node that a NodeID or a PortName names.
fn named(text: &str, names: &Names) -> Result<NodeId, Refusal> {
    let unknown = || {
        let what = "no node of this name is known: a NodeID or a whole PortName is expected, as `port17 map` shows them";
        Refusal::new(RefusalCode::UnknownNode, format_args!("{text}: {what}"))
    };
    // A NodeID that is not known excludes nothing, and may become known.
    text.parse().ok().or_else(|| names.node_of(text)).ok_or_else(unknown)
}

/// The answer to [`Question::Map`], of the Bottles of others and the own one.
pub(super) fn mesh_map(others: Vec<(&VerifiedBottle, bottlerack::Trust)>, own: Option<&VerifiedBottle>) -> MeshMap {
    let own = own.map(|bottle| (bottle, bottlerack::Trust::Trusted));
    let bottles: BTreeMap<NodeId, _> = others.into_iter().chain(own).map(|it| (it.0.node_id(), it)).collect();
    // Which circuit keys can still be used plays no part here.
    let map = Map::build(bottles.values().copied(), 0);
    let says = |from: &NodeId, to: &NodeId| bottles.get(from).and_then(|(bottle, _)| rtt_us(bottle.content().link_to(to)?.rtt));
    let links_of = |one: &NodeId| {
        let one = *one;
        let onward = map.neighbours(&one).into_iter().filter(move |other| *other > one);
        onward.map(move |other| (one, other))
    };
    let link = |(one, other): (NodeId, NodeId)| MapLink {
        nodes: [one.to_string(), other.to_string()],
        rtt_us: [says(&one, &other), says(&other, &one)],
    };
    let now_ms = unix_ms();
    MeshMap {
        own: own.map(|(bottle, _)| bottle.node_id().to_string()),
        nodes: bottles.values().map(|(bottle, trust)| map_node(bottle, *trust, now_ms)).collect(),
        links: bottles.keys().flat_map(links_of).map(link).collect(),
    }
}

fn map_node(bottle: &VerifiedBottle, how_far: bottlerack::Trust, now_ms: u64) -> MapNode {
    let content = bottle.content();
    MapNode {
        node: NodeName { node_id: bottle.node_id().to_string(), portname: Some(bottle.portname().to_string()) },
        trust: trust(how_far),
        addresses: content.addresses.iter().map(Address::socket).collect(),
        exit_policy: content.exit_policy.as_ref().map(ToString::to_string),
        group: content.group.clone(),
        draining: content.flags.is_draining(),
        bottle_age_s: now_ms.saturating_sub(bottle.seq().unix_ms()) / 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_people_write_them() {
        let host = |name: &str| Host::Name(name.to_owned());
        for (text, wanted, port) in [
            ("example.com", host("example.com"), 443),
            ("Example.com.:80", host("example.com"), 80),
            ("192.0.2.1", Host::Ip("192.0.2.1".parse().unwrap()), 443),
            ("192.0.2.1:22", Host::Ip("192.0.2.1".parse().unwrap()), 22),
            ("[2001:db8::1]:22", Host::Ip("2001:db8::1".parse().unwrap()), 22),
            ("2001:db8::1", Host::Ip("2001:db8::1".parse().unwrap()), 443),
            ("[2001:db8::1]", Host::Ip("2001:db8::1".parse().unwrap()), 443),
        ] {
            let read = target(text).unwrap();
            assert_eq!((read.host, read.port), (wanted, port), "{text}");
        }
        for bad in
            ["", ":80", "example.com:", "example.com:0", "example.com:65536", "a b:80", "192.0.2.1:0", "http://example.com/"]
        {
            assert_eq!(target(bad).unwrap_err().code, RefusalCode::BadRequest, "{bad}");
        }
    }
}
