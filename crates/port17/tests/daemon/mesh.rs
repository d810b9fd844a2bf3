//! A mesh of real daemons on loopback, each in a runtime of its own, so that one can be killed without an orderly end.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use port17::config::{Config, Places};
use port17::control::{self, Reloaded, Status};
use port17::daemon::{DaemonError, run_client_under, run_node_under};
use port17::keystore::{Keystore, system_entropy};
use port17_proto::ids::NodeId;
use port17_proto::params::Params;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The port of all nodes; each has an address of its own.
const PORT: u16 = 21717;
/// What any condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// Waits until `look` sees what it looks for.
///
/// # Panics
/// When it does not come.
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// Waits until `look` sees what it looks for, at most this long.
pub(crate) fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + patience;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < until, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A /24 of the loopback network that no other mesh of any test has.
pub(crate) fn loopback_net() -> [u8; 3] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    // 127.0 and 127.1 are others' (a demo's, the proxy's).
    [127, 32 + u8::try_from(number / 256 % 192).unwrap(), u8::try_from(number % 256).unwrap()]
}

/// The demo's parameters, quicker still.
pub(crate) fn quick() -> Params {
    Params { directory_rescan: Duration::from_millis(50), spare_circuits: 0, ..Params::demo() }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Node,
    Client,
}

/// A node or a client.
pub(crate) struct Daemon {
    pub(crate) config: Config,
    pub(crate) params: Params,
    /// A node's identity; made up for a client.
    pub(crate) id: NodeId,
    role: Role,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), DaemonError>>,
}

impl Daemon {
    /// A node by itself, configured by `text` beside what all have; `root` is the directory of relative paths.
    pub(crate) fn node_alone(root: &Path, text: &str) -> Self {
        let id = make_identity(&root.join("n0"));
        let config = parse(&format!("state = \"n0\"\nbottles = \"bottles\"\n{text}"), root);
        Self { config, params: quick(), id, role: Role::Node, running: None }
    }

    /// A client by itself.
    pub(crate) fn client_alone(root: &Path, text: &str) -> Self {
        let config = parse(&format!("state = \"c\"\nbottles = \"bottles\"\n{text}"), root);
        Self { config, params: quick(), id: NodeId([0; 32]), role: Role::Client, running: None }
    }

    /// What SIGHUP does.
    pub(crate) fn reload(&self) -> Result<Reloaded, String> {
        let running = self.running.as_ref().unwrap();
        running.runtime.block_on(control::reload(&self.config.control)).map_err(|error| error.to_string())
    }

    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let (params, config) = (self.params.clone(), self.config.clone());
        let ended = match self.role {
            Role::Node => runtime.spawn(run_node_under(params, config, stopped)),
            Role::Client => runtime.spawn(run_client_under(params, config, stopped)),
        };
        self.running = Some(Running { runtime, stop, ended });
    }

    /// What it says of itself; none while it does not answer.
    pub(crate) fn status(&self) -> Option<Status> {
        let running = self.running.as_ref()?;
        assert!(!running.ended.is_finished(), "the daemon has ended by itself");
        running.runtime.block_on(control::status(&self.config.control)).ok()
    }

    /// Waits until its status is as wanted.
    pub(crate) fn wait(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            last = self.status();
            if let Some(status) = last.take_if(|status| wanted(status)) {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{what}: last seen {last:#?}");
    }

    /// Ends it as SIGTERM does.
    pub(crate) fn stop(&mut self) {
        let Running { runtime, stop, ended } = self.running.take().unwrap();
        stop.send(()).unwrap();
        runtime.block_on(ended).unwrap().unwrap();
        runtime.shutdown_timeout(Duration::from_secs(1));
    }

    /// Ends it as SIGKILL does: nobody is told, the kernel closes its connections.
    pub(crate) fn kill(&mut self) {
        self.running.take().unwrap().runtime.shutdown_timeout(Duration::from_secs(2));
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.config.node.listen[0]
    }

    /// A client's proxy port.
    pub(crate) fn proxy(&self) -> SocketAddr {
        self.wait("the proxy port", |status| status.socks.is_some()).socks.unwrap()
    }

    pub(crate) fn bottle_path(&self) -> PathBuf {
        self.config.bottles.join(format!("{}.bottle", self.id))
    }

    pub(crate) fn bottle(&self) -> Option<Vec<u8>> {
        std::fs::read(self.bottle_path()).ok()
    }
}

/// What a mesh is made of.
pub(crate) struct Plan {
    pub(crate) params: Params,
    pub(crate) nodes: usize,
    /// Which of the nodes are exits; they reach all of loopback.
    pub(crate) exits: Vec<usize>,
    /// More of the exits' configuration, in TOML.
    pub(crate) exit: String,
    pub(crate) hops: u8,
    /// Neighbours that are not part of the mesh, of all nodes.
    pub(crate) strangers: Vec<NodeId>,
}

impl Plan {
    pub(crate) const ALL_OF_LOOPBACK: &'static str =
        "policy = [\"accept tcp *:*\"]\ndanger_exit_private = [\"127.0.0.0/8:*\", \"[::1]:*\"]\n";

    /// `nodes` nodes, the last of them the exit, routes of as many hops as there are nodes, up to 3.
    pub(crate) fn of(nodes: usize) -> Self {
        Self {
            params: quick(),
            nodes,
            exits: vec![nodes - 1],
            exit: Self::ALL_OF_LOOPBACK.to_owned(),
            hops: u8::try_from(nodes.min(3)).unwrap(),
            strangers: Vec::new(),
        }
    }

    /// Starts all of it and waits until routes can be built.
    pub(crate) fn start(self) -> Mesh {
        let mut mesh = self.prepare();
        mesh.nodes.iter_mut().for_each(Daemon::start);
        mesh.client.start();
        mesh.wait();
        mesh
    }

    /// All of it, not started.
    pub(crate) fn prepare(self) -> Mesh {
        let root = tempfile::tempdir().unwrap();
        let net = loopback_net();
        let ids: Vec<NodeId> = (0..self.nodes).map(|node| make_identity(&root.path().join(format!("n{node}")))).collect();
        let nodes = (0..self.nodes).map(|node| self.node(root.path(), net, &ids, node)).collect();
        let text = format!("{}[client]\nproxy = \"{}:0\"\n", head("client"), Ipv4Addr::new(net[0], net[1], net[2], 250))
            + &format!("guard = \"{}\"\nhops = {}\ndanger_min_hops = 1\n", ids[0], self.hops);
        let client = Daemon {
            config: parse(&text, root.path()),
            params: self.params,
            id: NodeId([0; 32]),
            role: Role::Client,
            running: None,
        };
        Mesh { nodes, client, net, root }
    }

    fn node(&self, root: &Path, net: [u8; 3], ids: &[NodeId], node: usize) -> Daemon {
        let others = ids.iter().filter(|id| **id != ids[node]).chain(&self.strangers);
        let others: Vec<String> = others.map(|id| format!("\"{id}\"")).collect();
        let mut text = head(&format!("n{node}"));
        let own = u8::try_from(node + 1).unwrap();
        writeln!(text, "label = \"node-{node}\"\nneighbours = [{}]", others.join(", ")).unwrap();
        writeln!(text, "[node]\nlisten = [\"{}:{PORT}\"]", Ipv4Addr::new(net[0], net[1], net[2], own)).unwrap();
        if self.exits.contains(&node) {
            writeln!(text, "[exit]\n{}", self.exit).unwrap();
        }
        let config = parse(&text, root);
        Daemon { config, params: self.params.clone(), id: ids[node], role: Role::Node, running: None }
    }
}

fn head(state: &str) -> String {
    format!("parameters = \"demo\"\nbottles = \"bottles\"\nstate = \"{state}\"\n")
}

fn parse(text: &str, root: &Path) -> Config {
    let nowhere = PathBuf::from("/nonexistent");
    let places = Places { config: nowhere.clone(), state: nowhere.clone(), control: nowhere };
    Config::parse(text, &root.join("port17.toml"), &places).unwrap()
}

fn make_identity(state: &Path) -> NodeId {
    port17::keystore::make_private_directory(state).unwrap();
    let keys = Keystore::create(&state.join("keys")).unwrap();
    keys.identity_or_new(&mut system_entropy().unwrap()).unwrap().node_id()
}

/// A mesh in which every node is a neighbour of every other one, and a client whose guard is node 0.
pub(crate) struct Mesh {
    pub(crate) nodes: Vec<Daemon>,
    pub(crate) client: Daemon,
    /// The /24 it lives in: nodes at 1, 2 and so on, the client's proxy at 250.
    pub(crate) net: [u8; 3],
    /// Dropped last.
    pub(crate) root: TempDir,
}

impl Mesh {
    /// Waits until all links of what runs are up and the client can use them.
    pub(crate) fn wait(&self) {
        let links = self.nodes.len() - 1;
        for node in &self.nodes {
            let up = |status: &Status| status.links.iter().filter(|link| link.up && link.lanes == 2).count() >= links;
            node.wait("all links", up);
        }
        // A Bottle may come over the guard's link before its file is read: until then nobody vouches for it.
        let whole = self.nodes.len() as u64;
        let ready = |status: &Status| status.waiting_for.is_none() && status.links.iter().all(|link| link.up);
        self.client.wait("the guard and the map", |status| ready(status) && status.trusted >= whole);
    }

    pub(crate) fn proxy(&self) -> SocketAddr {
        self.client.proxy()
    }

    /// The network's address that ends so.
    pub(crate) fn ip(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.net[0], self.net[1], self.net[2], last)
    }
}

/// Whether an error is what a reset connection gives.
pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
