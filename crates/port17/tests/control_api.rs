//! docs/control-api.md: its examples are what is served, and they show every field.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use port17::control::{
    self, BottleStatus, CircuitStatus, Circuits, ControlError, ControlSocket, Daemon, HopRole, HopSample, LinkStatus, ListStatus,
    MapLink, MapNode, MeshMap, NetworkStatus, NodeName, ObjectCount, ObjectsStatus, Published, Refusal, RefusalCode, Reloaded,
    Role, RouteSample, RouteWish, SourceStatus, Status, StoreStatus, Trust,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../../docs/control-api.md");

/// The JSON examples under a heading.
fn examples(heading: &str) -> Vec<Value> {
    let section = DOCUMENT.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let blocks = section.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(|block| serde_json::from_str(block).unwrap_or_else(|error| panic!("{heading}: {error}"))).collect()
}

fn read<T: DeserializeOwned>(example: &Value) -> T {
    serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{error}: {example:#}"))
}

/// The names of all fields, with those around them.
fn fields(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(object) => object
            .iter()
            .flat_map(|(name, value)| {
                let inner = if name == "counts" { BTreeSet::new() } else { fields(value) };
                std::iter::once(name.clone()).chain(inner.into_iter().map(move |inner| format!("{name}.{inner}")))
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(fields).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => BTreeSet::new(),
    }
}

fn assert_all_shown(heading: &str, filled: &impl Serialize) {
    let shown: BTreeSet<String> = examples(heading).iter().flat_map(fields).collect();
    let there = fields(&serde_json::to_value(filled).unwrap());
    let missing: Vec<_> = there.difference(&shown).collect();
    assert!(missing.is_empty(), "{heading}: not in any example: {missing:?}");
}

fn name() -> NodeName {
    NodeName { node_id: "a".into(), portname: Some("b".into()) }
}

fn circuit() -> CircuitStatus {
    CircuitStatus { route: Vec::new(), streams: 0, age_s: 0, open: true }
}

/// Everything that a status can say. A field that is added must be added here, and then to the document.
fn filled_status() -> Status {
    let link = LinkStatus {
        node: name(),
        up: true,
        since_s: 0,
        lanes: 2,
        rtt_us: Some(1),
        dialled: true,
        published: Some(Published { here: true, there: true }),
        waiting_for: Some(String::new()),
        redial_in_s: Some(1),
    };
    let source =
        SourceStatus { source: String::new(), ok: true, result: Some(String::new()), tried_s_ago: Some(1), again_in_s: Some(1) };
    let network = NetworkStatus {
        name: String::new(),
        network_id: String::new(),
        list: Some(ListStatus { seq: 1, issued_s: 1, expires_s: 1, nodes: 1, names_this: Some(true) }),
        sources: vec![source],
    };
    let count = ObjectCount { created: 1, live: 1 };
    Status {
        role: Role::Node,
        version: String::new(),
        ready: true,
        waiting_for: Some(String::new()),
        uptime_s: 0,
        label: Some(String::new()),
        node_id: Some(String::new()),
        portname: Some(String::new()),
        socks: Some(([127, 0, 0, 1], 1080).into()),
        guard: Some(name()),
        network: Some(network),
        parameters: String::new(),
        map_nodes: 0,
        known: 0,
        trusted: 0,
        links: vec![link],
        wanted_links: Some(1),
        clients: 0,
        circuits: 0,
        standing: vec![circuit()],
        bottle: Some(BottleStatus { seq: 1, age_s: 1, withdrawn: 1 }),
        store: Some(StoreStatus { path: String::new(), waiting: 0, problem: Some(String::new()) }),
        objects: Some(ObjectsStatus {
            lanes: count,
            half_hops: count,
            edges: count,
            streams: count,
            reserved_cells: 0,
            setups_waiting: 0,
            inputs_waiting: 0,
        }),
        counts: BTreeMap::from([("x".to_owned(), 1)]),
    }
}

#[test]
fn the_document_shows_every_field() {
    assert_all_shown("`GET /v1/status`", &filled_status());
    let node = MapNode {
        node: name(),
        trust: Trust::Trusted,
        addresses: Vec::new(),
        exit_policy: Some(String::new()),
        group: String::new(),
        draining: true,
        bottle_age_s: 0,
    };
    let link = MapLink { nodes: ["a".into(), "b".into()], rtt_us: [None, None] };
    assert_all_shown("`GET /v1/map`", &MeshMap { own: Some(String::new()), nodes: vec![node], links: vec![link] });
    assert_all_shown("`GET /v1/circuits`", &Circuits { circuits: vec![circuit()] });
    let hop = HopSample { node: name(), role: HopRole::Guard, candidates: 1 };
    assert_all_shown("`POST /v1/route`", &RouteSample { hops: vec![hop] });
    let wish = RouteWish { hops: Some(3), target: Some(String::new()), exclude: vec![String::new()] };
    assert_all_shown("`POST /v1/route`", &wish);
    assert_all_shown("`POST /v1/reload`", &Reloaded::default());
    assert_all_shown("Errors", &Refusal::new(RefusalCode::NoRoute, ""));
}

#[test]
fn the_document_lists_every_refusal_with_its_status() {
    let codes = [
        RefusalCode::BadRequest,
        RefusalCode::NotFound,
        RefusalCode::Method,
        RefusalCode::Timeout,
        RefusalCode::NotAClient,
        RefusalCode::NoRoute,
        RefusalCode::Configuration,
        RefusalCode::TooLarge,
        RefusalCode::UnknownNode,
        RefusalCode::Unavailable,
    ];
    for code in codes {
        let name = serde_json::to_value(code).unwrap();
        let row = format!("| {} | `{}` |", code.status().as_u16(), name.as_str().unwrap());
        assert!(DOCUMENT.contains(&row), "{row}");
    }
}

/// A daemon that says what the document says.
struct Documented {
    status: usize,
}

impl Daemon for Documented {
    async fn status(&self) -> Result<Status, Refusal> {
        Ok(read(&examples("`GET /v1/status`")[self.status]))
    }

    async fn map(&self) -> Result<MeshMap, Refusal> {
        Ok(read(&examples("`GET /v1/map`")[0]))
    }

    fn circuits(&self) -> Result<Circuits, Refusal> {
        Ok(read(&examples("`GET /v1/circuits`")[0]))
    }

    fn draw_route(&self, wish: &RouteWish) -> Result<RouteSample, Refusal> {
        let examples = examples("`POST /v1/route`");
        if *wish == read(&examples[0]) { Ok(read(&examples[1])) } else { Err(read(&self::examples("Errors")[0])) }
    }

    async fn reload(&self) -> Result<Reloaded, Refusal> {
        Ok(read(&examples("`POST /v1/reload`")[0]))
    }
}

/// What is heard by asking is, as JSON, what stands in the document: nothing is lost on either side.
fn assert_heard(heard: &impl Serialize, example: &Value) {
    assert_eq!(serde_json::to_value(heard).unwrap(), *example);
}

#[tokio::test]
async fn the_document_s_examples_are_served_and_understood() {
    let root = tempfile::tempdir().unwrap();
    for which in [0, 1] {
        let path = root.path().join(format!("{which}.sock"));
        let socket = ControlSocket::bind(&path).await.unwrap();
        let serving = tokio::spawn(socket.serve(Arc::new(Documented { status: which })));
        assert_heard(&control::status(&path).await.unwrap(), &examples("`GET /v1/status`")[which]);
        assert_heard(&control::map(&path).await.unwrap(), &examples("`GET /v1/map`")[0]);
        assert_heard(&control::circuits(&path).await.unwrap(), &examples("`GET /v1/circuits`")[0]);
        let route = examples("`POST /v1/route`");
        assert_heard(&control::draw_route(&path, &read(&route[0])).await.unwrap(), &route[1]);
        assert_heard(&control::reload(&path).await.unwrap(), &examples("`POST /v1/reload`")[0]);
        let Err(ControlError::Refused(refusal)) = control::draw_route(&path, &RouteWish::default()).await else {
            panic!("it is refused")
        };
        assert_heard(&refusal, &examples("Errors")[0]);
        serving.abort();
        let _ = serving.await;
        assert!(matches!(control::status(&path).await, Err(ControlError::NoDaemon { .. })));
    }
}
