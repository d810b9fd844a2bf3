//! The binary from outside: output, files and exit codes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use assert_cmd::Command;
use port17::control::{
    CircuitStatus, Circuits, ControlSocket, Daemon, HopRole, HopSample, MapLink, MapNode, MeshMap, NodeName, Refusal,
    RefusalCode, Reloaded, Role, RouteSample, RouteWish, Status, Trust,
};
use port17_proto::bottle::{BottleContent, CircuitKey, Flags, ProtocolRange, Seq};
use port17_proto::crypto::{KemPublicKey, PUBLIC_KEY_BYTES, Secret};
use port17_proto::identity::Identity;
use port17_proto::ids::NodeId;
use port17_proto::wire::registry::Scope;

/// A place of its own for one user of the command.
struct Home {
    root: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("port17.toml")
    }

    /// The command with this home's configuration.
    fn port17(&self, arguments: &[&str]) -> Command {
        let mut command = bare();
        command.arg("--config").arg(self.config()).args(arguments).current_dir(self.root.path());
        command
    }

    fn with_config(text: &str) -> Self {
        let home = Self::new();
        fs::write(home.config(), text).unwrap();
        home
    }
}

fn bare() -> Command {
    let mut command = Command::cargo_bin("port17").unwrap();
    command.env_remove("PORT17_LOG").timeout(std::time::Duration::from_secs(60));
    command
}

fn ends(command: &mut Command, code: i32) -> (String, String) {
    let output = command.assert().code(code).get_output().clone();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn content(identity: &Identity, made_ms: u64) -> BottleContent {
    BottleContent {
        identity: identity.public(),
        seq: Seq(made_ms),
        scope: Scope::Public,
        label: "harbour".parse().unwrap(),
        group: String::new(),
        link_key: Identity::from_seed(Secret::new([9; 32])).public(),
        link_key_expiry_s: made_ms / 1000 + 3600,
        next_link_key: None,
        circuit_key: CircuitKey { public: KemPublicKey::from_bytes([7; PUBLIC_KEY_BYTES]), not_after_s: made_ms / 1000 + 3600 },
        addresses: Vec::new(),
        egress: Vec::new(),
        links: Vec::new(),
        exit_policy: None,
        load: 0,
        flags: Flags(0),
        protocol: ProtocolRange::OURS,
        software: "test".into(),
        unknown: BTreeMap::new(),
    }
}

fn bottle(seed: u8, made_ms: u64) -> (NodeId, Vec<u8>) {
    let identity = Identity::from_seed(Secret::new([seed; 32]));
    (identity.node_id(), content(&identity, made_ms).sign(identity.key()).unwrap())
}

#[test]
fn help_and_version_are_no_failures() {
    assert!(ends(bare().arg("--help"), 0).0.contains("Exit codes"));
    assert!(ends(bare().arg("--version"), 0).0.starts_with("port17 "));
}

#[test]
fn wrong_flags_are_usage_errors() {
    for arguments in [
        &[][..],
        &["nonsense"],
        &["node", "--nonsense"],
        &["demo", "--nodes", "10"],
        &["demo", "--nodes", "0"],
        &["demo", "--hops", "7"],
        &["demo", "--hops", "0"],
        &["demo", "--hops", "x"],
        &["bottle", "show"],
        &["bottle", "verify"],
        &["bottle", "import"],
    ] {
        let (out, error) = ends(bare().args(arguments), 2);
        assert!(out.is_empty() && !error.is_empty(), "{arguments:?}");
    }
}

#[test]
fn more_hops_than_nodes_is_a_usage_error() {
    let (_, error) = ends(bare().args(["demo", "--nodes", "3", "--hops", "4"]), 2);
    assert!(error.contains("4 hops need as many nodes"), "{error}");
}

#[test]
fn few_hops_are_said_to_be_for_measuring() {
    let (out, error) = ends(bare().args(["demo", "--check", "--nodes", "1", "--hops", "1"]), 0);
    assert!(error.contains("for measuring only"), "{error}");
    assert!(out.contains("1 node and a client") && out.lines().last().unwrap().starts_with("ok "), "{out}");
}

#[test]
fn missing_configuration_says_what_to_do() {
    let home = Home::new();
    for command in ["node", "client", "check", "env"] {
        let (out, error) = ends(&mut home.port17(&[command]), 3);
        let said = out + &error;
        assert!(said.contains("port17.toml") && said.contains("port17 init"), "{command}: {said}");
    }
}

#[test]
fn wrong_configuration_names_file_line_and_key() {
    let home = Home::with_config("label = \"harbour\"\n[client]\nhopps = 3\n");
    for command in ["node", "client", "env", "init"] {
        let (_, error) = ends(&mut home.port17(&[command]), 3);
        assert!(error.contains("port17.toml:3: client.hopps: unknown field"), "{command}: {error}");
    }
    let (_, error) = ends(&mut home.port17(&["--json", "node"]), 3);
    assert_eq!(json(&error)["code"], 3);
}

#[test]
fn init_makes_what_is_missing_and_changes_nothing_else() {
    let home = Home::new();
    let (first, _) = ends(&mut home.port17(&["--json", "init"]), 0);
    let first = json(&first);
    assert_eq!((first["config_is_new"].as_bool(), first["keys_are_new"].as_bool()), (Some(true), Some(true)));
    let node: NodeId = first["node_id"].as_str().unwrap().parse().unwrap();
    assert!(first["portname"].as_str().unwrap().ends_with(&format!("~{}", &node.to_base32()[..13])));

    let key = home.path("state/keys/identity.key");
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(key.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    let (config, keys) = (fs::read(home.config()).unwrap(), fs::read(&key).unwrap());

    let (second, _) = ends(&mut home.port17(&["init"]), 0);
    assert!(second.contains(&node.to_base32()) && second.contains("already there"), "{second}");
    assert_eq!((fs::read(home.config()).unwrap(), fs::read(&key).unwrap()), (config, keys));
}

#[test]
fn every_commented_line_of_the_new_configuration_is_valid() {
    let home = Home::new();
    ends(&mut home.port17(&["init"]), 0);
    let text = fs::read_to_string(home.config()).unwrap();
    let is_setting = |line: &str| line.contains(" = ") || line.starts_with("[exit");
    let lines = text.lines().map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line));
    let set: Vec<&str> = lines.filter(|line| !line.starts_with("guard")).collect();
    assert!(set.len() > 40 && set.contains(&"[exit.hosts]"));
    fs::write(home.config(), set.join("\n")).unwrap();
    ends(&mut home.port17(&["init"]), 0);
}

#[test]
fn keys_that_others_can_read_are_refused() {
    let home = Home::new();
    ends(&mut home.port17(&["init"]), 0);
    fs::set_permissions(home.path("state/keys/identity.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let (_, error) = ends(&mut home.port17(&["init"]), 6);
    assert!(error.contains("identity.key") && error.contains("chmod 600"), "{error}");
}

#[test]
fn damaged_keys_are_a_configuration_error_and_stay() {
    let home = Home::new();
    ends(&mut home.port17(&["init"]), 0);
    let key = home.path("state/keys/identity.key");
    fs::write(&key, "port17 identity key 1\nseed 00\n").unwrap();
    let (_, error) = ends(&mut home.port17(&["init"]), 3);
    assert!(error.contains("damaged"), "{error}");
    assert!(fs::read_to_string(&key).unwrap().ends_with("seed 00\n"));
}

#[test]
fn env_without_a_daemon_finds_no_network() {
    let home = Home::new();
    ends(&mut home.port17(&["init"]), 0);
    let (out, error) = ends(&mut home.port17(&["env"]), 4);
    assert!(out.is_empty() && error.contains("no daemon"), "{error}");
    let (_, error) = ends(&mut home.port17(&["env", "--control", "elsewhere.sock"]), 4);
    assert!(error.contains("elsewhere.sock"), "{error}");
}

/// A daemon that says what a test wants.
#[derive(Clone)]
struct Said {
    status: Status,
    map: MeshMap,
    route: Result<RouteSample, Refusal>,
}

impl Said {
    fn by(role: Role) -> Self {
        let status = Status { waiting_for: None, ready: true, parameters: "default".into(), ..Status::of(role) };
        let route = Err(Refusal::new(RefusalCode::NoRoute, "no exit that can be used allows TCP port 443"));
        Self { status, map: MeshMap::default(), route }
    }

    fn serve(self, path: &Path) -> tokio::runtime::Runtime {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let socket = runtime.block_on(ControlSocket::bind(path)).unwrap();
        runtime.spawn(socket.serve(Arc::new(self)));
        runtime
    }
}

impl Daemon for Said {
    async fn status(&self) -> Result<Status, Refusal> {
        Ok(self.status.clone())
    }

    async fn map(&self) -> Result<MeshMap, Refusal> {
        Ok(self.map.clone())
    }

    fn circuits(&self) -> Result<Circuits, Refusal> {
        Ok(Circuits { circuits: self.status.standing.clone() })
    }

    fn draw_route(&self, _: &RouteWish) -> Result<RouteSample, Refusal> {
        self.route.clone()
    }

    async fn reload(&self) -> Result<Reloaded, Refusal> {
        Ok(Reloaded::default())
    }
}

fn serve_status(path: &Path, role: Role, socks: Option<&str>) -> tokio::runtime::Runtime {
    let mut said = Said::by(role);
    said.status.socks = socks.map(|address| address.parse().unwrap());
    said.serve(path)
}

#[test]
fn env_prints_the_lines_of_the_running_client() {
    let home = Home::new();
    ends(&mut home.port17(&["init"]), 0);
    let daemon = serve_status(&home.path("state/control.sock"), Role::Client, Some("127.0.0.1:1234"));
    let (out, _) = ends(&mut home.port17(&["env"]), 0);
    for line in [
        "export ALL_PROXY=socks5h://127.0.0.1:1234\n",
        "export http_proxy=http://127.0.0.1:1234\n",
        "export https_proxy=http://127.0.0.1:1234\n",
        "export no_proxy=\n",
    ] {
        assert!(out.contains(line), "{out}");
    }
    let (out, _) = ends(&mut home.port17(&["env", "--json"]), 0);
    assert_eq!(json(&out)["ALL_PROXY"], "socks5h://127.0.0.1:1234");
    drop(daemon);

    let node = home.path("node.sock");
    let daemon = serve_status(&node, Role::Node, None);
    let (_, error) = ends(home.port17(&["env", "--control"]).arg(&node), 1);
    assert!(error.contains("nodes have no proxy"), "{error}");
    drop(daemon);
}

#[test]
fn bottles_are_shown_and_verified() {
    let home = Home::new();
    let (node, bytes) = bottle(1, now_ms());
    fs::write(home.path("good.bottle"), &bytes).unwrap();
    let (out, _) = ends(&mut home.port17(&["bottle", "show", "good.bottle"]), 0);
    assert!(out.contains(&node.to_base32()) && out.contains("harbour~") && out.contains("valid, 0 h"), "{out}");
    let (out, _) = ends(home.port17(&["--json", "bottle", "show", "-"]).write_stdin(bytes.clone()), 0);
    assert_eq!((json(&out)["node_id"].as_str().unwrap(), json(&out)["valid"].as_bool()), (&*node.to_base32(), Some(true)));
    ends(&mut home.port17(&["bottle", "verify", "good.bottle"]), 0);

    let (_, old) = bottle(1, now_ms() - 31 * 3_600_000);
    fs::write(home.path("old.bottle"), old).unwrap();
    assert!(ends(&mut home.port17(&["bottle", "show", "old.bottle"]), 0).0.contains("expired"));

    let mut forged = bytes.clone();
    *forged.last_mut().unwrap() ^= 1;
    fs::write(home.path("forged.bottle"), forged).unwrap();
    fs::write(home.path("cut.bottle"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(home.path("empty.bottle"), "").unwrap();
    fs::write(home.path("huge.bottle"), vec![0; 5000]).unwrap();
    for bad in ["old", "forged", "cut", "empty", "huge", "missing"] {
        let file = format!("{bad}.bottle");
        let (out, error) = ends(&mut home.port17(&["bottle", "verify", "good.bottle", &file]), 1);
        assert!(out.contains("ok   good.bottle") && out.contains(&format!("bad  {file}")), "{out}");
        assert!(error.contains("1 of 2"), "{error}");
    }
    ends(&mut home.port17(&["bottle", "show", "forged.bottle"]), 1);
    ends(&mut home.port17(&["bottle", "show", "missing.bottle"]), 6);
}

#[test]
fn import_takes_the_newest_valid_one() {
    let home = Home::with_config("state = \"state\"\n");
    let now = now_ms();
    let (node, new) = bottle(1, now);
    let (_, old) = bottle(1, now - 5000);
    let (_, expired) = bottle(2, now - 31 * 3_600_000);
    for (name, bytes) in [("new", &new), ("old", &old), ("expired", &expired)] {
        fs::write(home.path(name), bytes).unwrap();
    }
    let stored = home.path("state/bottles").join(format!("{node}.bottle"));

    let import = |name: &str, code| ends(&mut home.port17(&["bottle", "import", name]), code).0;
    assert!(import("old", 0).contains("imported"));
    assert!(import("new", 0).contains("imported"));
    assert!(import("new", 0).contains("already there"));
    assert!(import("old", 0).contains("newer one is there"));
    assert_eq!(fs::read(&stored).unwrap(), new);
    assert!(import("expired", 1).contains("expired"));
    assert_eq!(fs::read_dir(home.path("state/bottles")).unwrap().count(), 1);

    fs::write(&stored, "damaged").unwrap();
    assert!(import("old", 0).contains("imported"), "what is no Bottle protects nothing");
}

#[test]
fn export_gives_the_own_bottle() {
    let home = Home::new();
    let (_, error) = ends(Home::with_config("state = \"state\"").port17(&["bottle", "export"]).arg("--json"), 3);
    assert!(error.contains("port17 init"), "{error}");
    let (out, _) = ends(&mut home.port17(&["--json", "init"]), 0);
    let node = json(&out)["node_id"].as_str().unwrap().to_owned();
    assert!(ends(&mut home.port17(&["bottle", "export"]), 1).1.contains("no Bottle yet"));

    let key = fs::read_to_string(home.path("state/keys/identity.key")).unwrap();
    let seed = key.lines().find_map(|line| line.strip_prefix("seed ")).unwrap();
    let seed: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&seed[2 * at..2 * at + 2], 16).unwrap()).collect();
    let identity = Identity::from_seed(Secret::new(seed.try_into().unwrap()));
    let bytes = content(&identity, now_ms()).sign(identity.key()).unwrap();
    fs::write(home.path("state/bottles").join(format!("{node}.bottle")), &bytes).unwrap();

    let output = home.port17(&["bottle", "export"]).assert().code(0).get_output().clone();
    assert_eq!(output.stdout, bytes);
    ends(&mut home.port17(&["bottle", "export", "--output", "mine.bottle"]), 0);
    assert_eq!(fs::read(home.path("mine.bottle")).unwrap(), bytes);
}

#[test]
fn check_reports_every_thing_and_changes_nothing() {
    let home = Home::with_config(
        "state = \"state\"\n[node]\nlisten = [\"127.0.0.1:0\"]\naddresses = []\n[client]\nproxy = \"127.0.0.1:0\"\n",
    );
    let (out, _) = ends(&mut home.port17(&["check"]), 0);
    assert!(out.lines().all(|line| line.starts_with("ok ")) && out.contains("none yet"), "{out}");
    assert!(!home.path("state").exists(), "it changes nothing");

    ends(&mut home.port17(&["init"]), 0);
    fs::write(home.path("state/bottles/x.bottle"), "no Bottle").unwrap();
    let (out, _) = ends(&mut home.port17(&["--json", "check"]), 3);
    let bad: Vec<_> = json(&out).as_array().unwrap().iter().filter(|line| line["ok"] == false).cloned().collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!(bad[0]["what"], "bottles");
}

#[test]
fn check_finds_ports_in_use_and_open_keys() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let home = Home::with_config(&format!("state = \"state\"\n[node]\nlisten = []\n[client]\nproxy = \"{address}\"\n"));
    let (out, _) = ends(&mut home.port17(&["check"]), 6);
    assert!(out.contains(&format!("bad  proxy   {address}")), "{out}");

    let daemon = serve_status(&home.path("state/control.sock"), Role::Client, Some(&address.to_string()));
    let (out, _) = ends(&mut home.port17(&["check"]), 0);
    assert!(out.contains("as the running daemon needs it"), "{out}");
    drop(daemon);
    drop(taken);

    ends(&mut home.port17(&["init"]), 0);
    fs::set_permissions(home.path("state/keys"), fs::Permissions::from_mode(0o755)).unwrap();
    let (out, _) = ends(&mut home.port17(&["check"]), 6);
    assert!(out.contains("bad  keys"), "{out}");
}

/// A home without configuration beside a running daemon's socket.
fn asks(home: &Home, said: Said) -> (tokio::runtime::Runtime, impl Fn(&[&str]) -> Command) {
    let socket = home.path("daemon.sock");
    let daemon = said.serve(&socket);
    let ask = move |arguments: &[&str]| {
        let mut command = bare();
        command.env("HOME", socket.parent().unwrap()).env_remove("XDG_CONFIG_HOME").arg("--control").arg(&socket).args(arguments);
        command
    };
    (daemon, ask)
}

fn name(node: &str) -> NodeName {
    NodeName { node_id: format!("{node:a<52}"), portname: Some(format!("{node}~{node:a<13}")) }
}

fn small_map() -> MeshMap {
    let node = |node: &str| MapNode {
        node: name(node),
        trust: Trust::Trusted,
        addresses: Vec::new(),
        exit_policy: None,
        group: String::new(),
        draining: false,
        bottle_age_s: 60,
    };
    let link = MapLink { nodes: [name("alice").node_id, name("bob").node_id], rtt_us: [None, None] };
    MeshMap { own: None, nodes: vec![node("alice"), node("bob")], links: vec![link] }
}

#[test]
fn asking_without_a_daemon_says_how_to_start_one() {
    let home = Home::new();
    ends(&mut home.port17(&["init"]), 0);
    for command in ["status", "map", "route"] {
        let (out, error) = ends(&mut home.port17(&[command]), 4);
        assert!(out.is_empty() && error.contains("no daemon") && error.contains("port17 client"), "{command}: {error}");
        let (out, error) = ends(&mut home.port17(&["--json", command]), 4);
        assert!(out.is_empty());
        assert_eq!(json(&error)["code"], 4);
    }
}

#[test]
fn a_daemon_that_is_named_is_asked_whatever_the_configuration_says() {
    let home = Home::with_config("[client]\nhops = 9");
    let socket = home.path("elsewhere.sock");
    let _runtime = serve_status(&socket, Role::Node, None);
    ends(&mut home.port17(&["status"]), 3);
    let (out, _) = ends(&mut home.port17(&["--json", "status", "--control", socket.to_str().unwrap()]), 0);
    assert_eq!(json(&out)["role"], "node");
}

#[test]
fn status_says_one_sentence_first_and_ends_with_0_when_ready() {
    let home = Home::new();
    let mut said = Said::by(Role::Client);
    said.status.label = Some("home".into());
    said.status.guard = Some(name("alice"));
    let status = said.status.clone();
    let (_daemon, ask) = asks(&home, said);
    let (out, error) = ends(&mut ask(&["status"]), 0);
    assert!(out.starts_with("client \"home\": ready; guard alice~aliceaaaaaaaa, map of 0 nodes, 0 circuits\n"), "{out}");
    assert!(error.is_empty(), "{error}");
    let (out, _) = ends(&mut ask(&["status", "--json"]), 0);
    assert_eq!(serde_json::from_str::<Status>(&out).unwrap(), status, "the API's object");
}

#[test]
fn status_ends_with_4_while_not_connected() {
    let home = Home::new();
    let mut said = Said::by(Role::Node);
    said.status = Status::of(Role::Node);
    said.status.waiting_for = Some("a signed list\u{1b}[2J".into());
    let (_daemon, ask) = asks(&home, said);
    let (out, error) = ends(&mut ask(&["status"]), 4);
    assert!(out.starts_with("node is waiting for a signed list\u{fffd}[2J\n"), "nothing steers the terminal: {out}");
    assert!(error.is_empty(), "said already: {error}");
    let (out, error) = ends(&mut ask(&["status", "--json"]), 4);
    assert!(json(&out)["ready"] == false && error.is_empty(), "{out} {error}");
}

#[test]
fn map_is_printed_as_text_json_and_graphviz() {
    let home = Home::new();
    let mut said = Said::by(Role::Node);
    said.map = small_map();
    let (_daemon, ask) = asks(&home, said);
    let (out, _) = ends(&mut ask(&["map"]), 0);
    assert!(out.contains("alice~aliceaaaaaaaa") && out.ends_with("2 nodes, 1 link, 0 exits, 1 component\n"), "{out}");
    let (out, _) = ends(&mut ask(&["map", "--json"]), 0);
    assert_eq!(serde_json::from_str::<MeshMap>(&out).unwrap(), small_map());
    let (out, _) = ends(&mut ask(&["map", "--dot"]), 0);
    assert!(out.starts_with("graph port17 {") && out.contains(" -- "), "{out}");
    let (_, error) = ends(&mut ask(&["map", "--dot", "--json"]), 2);
    assert!(error.contains("--dot"), "{error}");
}

#[test]
fn route_prints_the_hops_and_what_stands() {
    let home = Home::new();
    let mut said = Said::by(Role::Client);
    let hop = |node: &str, role| HopSample { node: name(node), role, candidates: 2 };
    said.route = Ok(RouteSample { hops: vec![hop("alice", HopRole::Guard), hop("bob", HopRole::Exit)] });
    let standing = CircuitStatus { route: vec!["alice~x".into(), "bob~x".into()], streams: 3, age_s: 5, open: true };
    said.status.standing = vec![standing];
    let (_daemon, ask) = asks(&home, said);
    let (out, _) = ends(&mut ask(&["route", "example.com:80", "--hops", "2", "--exclude", "carol~x"]), 0);
    assert!(out.starts_with("A route to example.com:80, drawn for this answer: 2 hops\n1  alice~"), "{out}");
    assert!(out.contains("open  3 streams  5 s old  alice~x → bob~x"), "{out}");
    let (out, _) = ends(&mut ask(&["route", "--json"]), 0);
    assert_eq!((&json(&out)["route"]["hops"][1]["role"], &json(&out)["circuits"][0]["streams"]), (&"exit".into(), &3.into()));
    ends(&mut ask(&["route", "--hops", "7"]), 2);
}

#[test]
fn no_route_ends_with_5_and_says_why() {
    let home = Home::new();
    let (_daemon, ask) = asks(&home, Said::by(Role::Client));
    let (out, error) = ends(&mut ask(&["route", "--exclude", "x"]), 5);
    assert!(out.is_empty() && error.contains("no exit that can be used allows TCP port 443"), "{error}");
}

#[test]
fn a_node_says_that_it_has_no_routes() {
    let home = Home::new();
    let mut said = Said::by(Role::Node);
    said.route = Err(Refusal::new(RefusalCode::NotAClient, "a node has no routes of its own"));
    let (_daemon, ask) = asks(&home, said);
    let (_, error) = ends(&mut ask(&["route"]), 1);
    assert!(error.contains("no routes of its own"), "{error}");
}

#[test]
fn wishes_that_the_daemon_cannot_read_are_usage_errors() {
    let home = Home::new();
    for code in [RefusalCode::BadRequest, RefusalCode::UnknownNode] {
        let mut said = Said::by(Role::Client);
        said.route = Err(Refusal::new(code, "carol: no node of this name"));
        let (_daemon, ask) = asks(&home, said);
        assert!(ends(&mut ask(&["route", "--exclude", "carol"]), 2).1.contains("carol: no node"));
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let home = Home::new();
    let mut said = Said::by(Role::Client);
    said.map = small_map();
    // More than a pipe holds.
    said.map.nodes = std::iter::repeat_n(said.map.nodes[0].clone(), 5000).collect();
    let (_daemon, _) = asks(&home, said);
    let socket = home.path("daemon.sock");
    for command in [&["map"][..], &["map", "--json"], &["map", "--dot"], &["man"], &["completions", "bash"]] {
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("port17"))
            .arg("--control")
            .arg(&socket)
            .args(command)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{command:?}");
    }
}

#[test]
fn completions_are_scripts_that_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let (script, _) = ends(bare().args(["completions", shell]), 0);
        for command in ["status", "map", "route", "bottle", "completions", "man"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
        // The one shell that is surely there reads its script; the others do where they are.
        let Ok(mut child) = std::process::Command::new(shell).arg("-n").stdin(std::process::Stdio::piped()).spawn() else {
            continue;
        };
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{shell} -n");
    }
    ends(bare().args(["completions", "tcsh"]), 2);
}

#[test]
fn man_pages_cover_every_command() {
    let (page, _) = ends(bare().arg("man"), 0);
    let (help, _) = ends(bare().arg("--help"), 0);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert!(commands.len() >= 12, "{commands:?}");
    let home = Home::new();
    let directory = home.path("pages");
    assert!(ends(bare().arg("man").arg("--output").arg(&directory), 0).0.is_empty());
    for command in commands {
        assert!(page.contains(&format!("port17\\-{command}(1)")), "{command} in the main page");
        let own = fs::read_to_string(directory.join(format!("port17-{command}.1"))).unwrap();
        assert!(own.starts_with(".ie") && own.contains(".TH") && own.contains("NAME"), "{command}: {own}");
    }
    assert!(fs::read_to_string(directory.join("port17-bottle-show.1")).unwrap().contains("bottle"));
    let main = fs::read_to_string(directory.join("port17.1")).unwrap();
    assert!(main.contains("Exit codes"));

    fs::write(home.path("file"), "").unwrap();
    ends(bare().arg("man").arg("--output").arg(home.path("file")), 6);
}
