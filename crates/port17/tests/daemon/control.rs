//! What running daemons say over the control API.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use port17::control::{self, ControlError, HopRole, ObjectCount, ObjectsStatus, RefusalCode, RouteWish, Trust};
use port17_proto::ids::NodeId;
use serde_json::Value;

use crate::mesh::{Daemon, Mesh, Plan, eventually};
use crate::origin::{Origin, assert_echo, connect};

const DOCUMENT: &str = include_str!("../../../../docs/control-api.md");

/// The names of all fields that the document's JSON examples have.
fn documented() -> BTreeSet<String> {
    let blocks = DOCUMENT.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(|block| names(&serde_json::from_str(block).unwrap())).collect()
}

fn names(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(object) => {
            let inner = object.iter().filter(|(name, _)| *name != "counts").flat_map(|(_, value)| names(value));
            object.keys().cloned().chain(inner).collect()
        }
        Value::Array(items) => items.iter().flat_map(names).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => BTreeSet::new(),
    }
}

/// The JSON of an answer, as a program sees it.
fn raw(daemon: &Daemon, request: &str) -> Value {
    let mut stream = UnixStream::connect(&daemon.config.control).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: port17\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{request}: {answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn ask<T>(answer: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(answer)
}

fn draw(mesh: &Mesh, wish: &RouteWish) -> Result<control::RouteSample, ControlError> {
    ask(control::draw_route(&mesh.client.config.control, wish))
}

fn refused(answer: Result<control::RouteSample, ControlError>) -> RefusalCode {
    match answer {
        Err(ControlError::Refused(refusal)) => refusal.code,
        other => panic!("it is refused, not {other:?}"),
    }
}

/// A mesh whose client knows all its links and has pinned its second hop.
fn mapped() -> Mesh {
    let mesh = Plan::of(3).start();
    eventually("the map with all links", || {
        let map = ask(control::map(&mesh.client.config.control)).unwrap();
        (map.nodes.len() == 3 && map.links.len() == 3).then_some(())
    });
    eventually("the second hop pinned with the guard", || draw(&mesh, &RouteWish::default()).ok());
    mesh
}

#[test]
fn what_daemons_answer_is_documented() {
    let mesh = mapped();
    let documented = documented();
    let node = ["GET /v1/status", "GET /v1/map", "POST /v1/reload"].map(|request| raw(&mesh.nodes[0], request));
    let client = ["GET /v1/status", "GET /v1/map", "GET /v1/circuits", "POST /v1/route", "POST /v1/reload"];
    let client = client.map(|request| raw(&mesh.client, request));
    for answer in node.iter().chain(&client) {
        let unknown: Vec<_> = names(answer).difference(&documented).cloned().collect();
        assert!(unknown.is_empty(), "{unknown:?} in {answer:#}");
    }
    assert_eq!(node[0]["node_id"], mesh.nodes[0].id.to_string());
    assert_eq!((&node[0]["ready"], &client[0]["ready"]), (&true.into(), &true.into()));
    assert_eq!(client[0]["guard"]["node_id"], mesh.nodes[0].id.to_string());
}

fn objects(daemon: &Daemon) -> ObjectsStatus {
    daemon.wait("an answer", |status| status.objects.is_some()).objects.unwrap()
}

#[test]
fn what_was_made_for_a_circuit_is_gone_when_it_is_over() {
    let mut mesh = mapped();
    let origin = Origin::echo(mesh.ip(200));
    let mut streams = [connect(mesh.proxy(), origin.address).unwrap(), connect(mesh.proxy(), origin.address).unwrap()];
    streams.iter_mut().for_each(assert_echo);
    let live = |created, live| ObjectCount { created, live };
    let client = objects(&mesh.client);
    assert_eq!((client.half_hops, client.edges, client.streams), (live(1, 1), live(1, 1), live(2, 2)));
    let [guard, middle, exit] = [0, 1, 2].map(|node| objects(&mesh.nodes[node]));
    assert_eq!((guard.half_hops.live, guard.edges.live, middle.half_hops.live, middle.streams.created), (2, 0, 2, 0));
    assert_eq!((exit.half_hops.live, exit.edges, exit.streams), (1, live(1, 1), live(2, 2)));
    assert!(client.reserved_cells > 0 && guard.reserved_cells > 0 && guard.lanes.live >= 4);

    drop(streams);
    let ended = |status: &control::Status| status.objects.as_ref().is_some_and(|objects| objects.streams == live(2, 0));
    mesh.client.wait("no stream at the client", ended);
    mesh.nodes[2].wait("no stream at the exit", ended);
    mesh.client.stop();
    for node in &mesh.nodes {
        node.wait("nothing left over", |status| {
            let objects = status.objects.as_ref().unwrap();
            let circuits = objects.half_hops.live + objects.edges.live + objects.reserved_cells;
            // Two lanes to each of the two others.
            circuits + objects.setups_waiting + objects.inputs_waiting == 0 && objects.lanes.live == 4
        });
    }
}

#[test]
fn the_map_has_every_node_and_each_mutual_link_once() {
    let mesh = mapped();
    for daemon in mesh.nodes.iter().chain([&mesh.client]) {
        let map = eventually("the whole map", || {
            ask(control::map(&daemon.config.control)).ok().filter(|map| map.nodes.len() == 3 && map.links.len() == 3)
        });
        let exits: Vec<&str> =
            map.nodes.iter().filter(|node| node.exit_policy.is_some()).map(|node| &*node.node.node_id).collect();
        assert_eq!(exits, [mesh.nodes[2].id.to_string()]);
        assert!(map.nodes.iter().all(|node| node.trust == Trust::Trusted && node.addresses.len() == 1));
        let ends = |link: &control::MapLink| link.nodes.iter().map(|node| node.parse::<NodeId>().unwrap()).collect::<Vec<_>>();
        let pairs: BTreeSet<_> = map.links.iter().map(ends).collect();
        assert!(pairs.len() == 3 && pairs.iter().all(|pair| pair[0] < pair[1]), "{pairs:?}");
    }
    let own = ask(control::map(&mesh.nodes[1].config.control)).unwrap().own;
    assert_eq!(own, Some(mesh.nodes[1].id.to_string()));
}

#[test]
fn a_status_says_which_links_are_published() {
    let mesh = mapped();
    let both = Some(control::Published { here: true, there: true });
    let status = mesh.nodes[0].wait("published links", |status| status.links.iter().all(|link| link.published == both));
    assert_eq!((status.links.len(), status.map_nodes, status.known, status.trusted), (2, 3, 2, 2));
    assert!(status.bottle.is_some() && status.wanted_links.is_none(), "{status:#?}");
    let status = mesh.client.status().unwrap();
    assert!(status.links.iter().all(|link| link.published.is_none() && link.dialled), "{status:#?}");
}

#[test]
fn a_client_draws_routes_as_wished() {
    let mesh = mapped();
    let route = draw(&mesh, &RouteWish::default()).unwrap();
    let ids: Vec<&str> = route.hops.iter().map(|hop| &*hop.node.node_id).collect();
    let wanted: Vec<String> = mesh.nodes.iter().map(|node| node.id.to_string()).collect();
    assert_eq!(ids, wanted, "three nodes, the guard first and the one exit last");
    assert_eq!((route.hops[0].role, route.hops[2].role), (HopRole::Guard, HopRole::Exit));
    assert!(route.hops.iter().all(|hop| hop.node.portname.is_some()));
    let candidates: Vec<u64> = route.hops.iter().map(|hop| hop.candidates).collect();
    assert_eq!(candidates, [3, 1, 1], "each could be a guard; behind this one there is no choice");

    let short = RouteWish { hops: Some(2), target: Some("192.0.2.1:25".into()), exclude: Vec::new() };
    assert_eq!(draw(&mesh, &short).unwrap().hops.len(), 2);
}

#[test]
fn a_client_says_why_there_is_no_route() {
    let mesh = mapped();
    let portname = draw(&mesh, &RouteWish::default()).unwrap().hops[1].node.portname.clone().unwrap();
    let excluding = |node: String| RouteWish { exclude: vec![node], ..RouteWish::default() };
    assert_eq!(refused(draw(&mesh, &excluding(portname.clone()))), RefusalCode::NoRoute);
    assert_eq!(refused(draw(&mesh, &excluding(mesh.nodes[2].id.to_string()))), RefusalCode::NoRoute);
    assert_eq!(refused(draw(&mesh, &excluding(portname[1..].to_owned()))), RefusalCode::UnknownNode);
    let of = |hops| RouteWish { hops: Some(hops), ..RouteWish::default() };
    assert_eq!([0, 4, 7, 255].map(|hops| refused(draw(&mesh, &of(hops)))), [RefusalCode::NoRoute; 4]);
    let to = |target: &str| RouteWish { target: Some(target.into()), ..RouteWish::default() };
    assert_eq!(refused(draw(&mesh, &to("no host"))), RefusalCode::BadRequest);

    let node = ask(control::draw_route(&mesh.nodes[0].config.control, &RouteWish::default()));
    assert_eq!(refused(node), RefusalCode::NotAClient);
    let circuits = ask(control::circuits(&mesh.nodes[0].config.control));
    assert!(matches!(circuits, Err(ControlError::Refused(refusal)) if refusal.code == RefusalCode::NotAClient));
}
