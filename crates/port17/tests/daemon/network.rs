//! Daemons of a network: its file, its signed list, what they store, and what they read again while they run.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use port17::control::Status;
use port17::list_file;
use port17::network_file::NetworkFile;
use port17_proto::crypto::{Secret, SigningKey};
use port17_proto::network::{ListContent, SignedList};
use port17_proto::params::Params;
use tempfile::TempDir;

use super::mesh::{Daemon, eventually, loopback_net};

fn root_key() -> SigningKey {
    SigningKey::from_seed(Secret::new([17; 32]))
}

/// A directory with a network file and a place for its list.
struct Network {
    root: TempDir,
    net: [u8; 3],
}

impl Network {
    fn new() -> Self {
        let network = Self { root: tempfile::tempdir().unwrap(), net: loopback_net() };
        network.write("list.json");
        network
    }

    /// Writes the network file with this source.
    fn write(&self, source: &str) {
        let key: String = root_key().public().0.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("name = \"three\"\nthreshold = 1\nroots = [\"{key}\"]\nsources = [\"file:{source}\"]\n");
        fs::write(self.file(), text + "[parameters]\nset = \"demo\"\n").unwrap();
    }

    fn file(&self) -> PathBuf {
        self.root.path().join("three.network.toml")
    }

    /// Signs a list and puts it there.
    fn publish(&self, name: &str, seq: u64, params: Params) {
        self.publish_nodes(name, seq, params, Vec::new());
    }

    /// The same, with these Bottles.
    fn publish_nodes(&self, name: &str, seq: u64, params: Params, nodes: Vec<Vec<u8>>) {
        let issued_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 1;
        let content = ListContent {
            network: NetworkFile::load(&self.file()).unwrap().definition.id(),
            seq,
            issued_s,
            expires_s: issued_s + 86_400,
            random: [1; 32],
            nodes,
            params,
            roots: None,
            releases: Vec::new(),
            unknown: Default::default(),
        };
        let mut list = SignedList::new(content.encode().unwrap());
        list.sign(&root_key());
        list_file::write(&self.root.path().join(name), &list).unwrap();
    }

    fn node(&self) -> Daemon {
        let [a, b, c] = self.net;
        let listen = Ipv4Addr::new(a, b, c, 1);
        let text = format!("network = \"three.network.toml\"\n[node]\nlisten = [\"{listen}:21717\"]");
        Daemon::node_alone(self.root.path(), &text)
    }

    /// Node `number` of several.
    fn node_of(&self, number: u8) -> Daemon {
        let [a, b, c] = self.net;
        let listen = Ipv4Addr::new(a, b, c, number);
        let root = self.root.path().join(format!("of{number}"));
        fs::create_dir_all(&root).unwrap();
        let text = format!("network = \"../three.network.toml\"\n[node]\nlisten = [\"{listen}:21717\"]");
        Daemon::node_alone(&root, &text)
    }

    fn client(&self) -> Daemon {
        let [a, b, c] = self.net;
        let proxy = Ipv4Addr::new(a, b, c, 250);
        let text = format!("network = \"three.network.toml\"\n[client]\nproxy = \"{proxy}:0\"");
        Daemon::client_alone(self.root.path(), &text)
    }

    fn store(&self) -> PathBuf {
        self.root.path().join("n0/store.redb")
    }
}

/// The sequence number of the list in force.
fn seq(status: &Status) -> Option<u64> {
    status.network.as_ref()?.list.as_ref().map(|list| list.seq)
}

#[test]
fn a_node_waits_for_its_list_and_says_so() {
    let network = Network::new();
    let mut node = network.node();
    node.start();
    let status = node.wait("the source is asked", |status| {
        status.network.as_ref().is_some_and(|network| network.sources.iter().any(|source| source.result.is_some()))
    });
    let shown = status.network.unwrap();
    assert_eq!((shown.name.as_str(), shown.list.is_none(), shown.sources[0].ok), ("three", true, false));
    assert!(shown.sources[0].source.ends_with("list.json"), "{shown:?}");
    assert!(status.waiting_for.unwrap().contains("signed list"));
    assert_eq!(status.parameters, "demo", "the network file's");

    network.publish("list.json", 5, Params::demo());
    node.wait("the list", |status| seq(status) == Some(5));
    node.stop();
}

#[test]
fn a_stored_list_is_in_force_after_a_restart_and_its_parameters_hold() {
    let network = Network::new();
    network.publish("list.json", 5, Params { loopback_allowed: true, ..Params::private() });
    for mut daemon in [network.node(), network.client()] {
        daemon.start();
        let status = daemon.wait("the list", |status| seq(status) == Some(5));
        assert_eq!(status.parameters, "demo", "the data plane started without it");
        daemon.wait("it is stored", |status| status.store.as_ref().is_some_and(|store| store.waiting == 0));
        daemon.kill();
    }
    fs::remove_file(network.root.path().join("list.json")).unwrap();
    for mut daemon in [network.node(), network.client()] {
        daemon.start();
        let status = daemon.wait("the list", |status| seq(status) == Some(5));
        assert_eq!(status.parameters, "private", "the data plane started with it");
        daemon.stop();
    }
}

#[test]
fn what_waits_is_stored_at_an_orderly_end() {
    let network = Network::new();
    network.publish("list.json", 5, Params::demo());
    let mut node = network.node();
    node.start();
    node.wait("the list", |status| seq(status) == Some(5));
    node.stop();
    fs::remove_file(network.root.path().join("list.json")).unwrap();
    node.start();
    node.wait("the list", |status| seq(status) == Some(5));
    node.stop();
}

#[test]
fn a_damaged_store_is_set_aside_and_the_daemon_starts() {
    let network = Network::new();
    network.publish("list.json", 5, Params::demo());
    let mut node = network.node();
    node.start();
    node.wait("the list", |status| seq(status) == Some(5));
    node.stop();
    let mut bytes = fs::read(network.store()).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs::write(network.store(), &bytes).unwrap();

    node.start();
    node.wait("the list comes again", |status| seq(status) == Some(5));
    node.stop();
    let names = fs::read_dir(network.store().parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<_> = names.filter(|path| path.to_string_lossy().contains("store.redb.damaged-")).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(fs::read(&kept[0]).unwrap(), bytes, "as it was");
}

#[test]
fn in_a_network_the_directory_is_written_and_never_read() {
    let (network, other) = (Network::new(), Network::new());
    let mut stranger = other.node();
    stranger.start();
    let bottle = eventually("its Bottle", || stranger.bottle());
    stranger.stop();
    let mut node = network.node();
    fs::create_dir_all(network.root.path().join("bottles")).unwrap();
    fs::write(network.root.path().join("bottles").join(format!("{}.bottle", stranger.id)), bottle).unwrap();
    node.start();
    eventually("the own Bottle", || node.bottle());
    assert!(node.reload().unwrap().changed.is_empty());
    assert_eq!(node.wait("its status", |_| true).known, 0);
    node.stop();
}

#[test]
fn a_reload_takes_new_sources_at_once_and_refuses_a_broken_file() {
    let network = Network::new();
    let mut node = network.node();
    node.start();
    node.wait("its start", |status| status.network.is_some());
    network.publish("elsewhere.json", 6, Params::demo());

    fs::write(network.file(), "name = \"three\"\nthreshold = 0\n").unwrap();
    let error = node.reload().unwrap_err();
    assert!(error.contains("three.network.toml:") && error.contains("roots"), "{error}");
    assert_eq!(seq(&node.status().unwrap()), None);

    network.write("elsewhere.json");
    let changed = node.reload().unwrap().changed;
    assert!(changed.len() == 2 && changed[0].contains("new source") && changed[1].contains("is gone"), "{changed:?}");
    node.wait("the list", |status| seq(status) == Some(6));

    // A newer list is there at once, though nobody would ask for hours.
    network.publish("elsewhere.json", 7, Params::demo());
    assert_eq!(node.reload().unwrap().changed, Vec::<String>::new());
    node.wait("the newer list", |status| seq(status) == Some(7));

    let renamed = fs::read_to_string(network.file()).unwrap().replace("\"three\"", "\"four\"");
    fs::write(network.file(), renamed).unwrap();
    let error = node.reload().unwrap_err();
    assert!(error.contains("another network"), "{error}");
    node.stop();
}

#[test]
fn a_broken_network_file_refuses_the_start_with_its_line() {
    let network = Network::new();
    fs::write(network.file(), "name = \"three\"\nthreshhold = 1\n").unwrap();
    let config = network.node().config;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ended = runtime.block_on(port17::daemon::run_node_under(Params::demo(), config, std::future::pending()));
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("three.network.toml:2: threshhold"), "{error}");
}

#[test]
fn three_nodes_and_a_client_meet_by_the_list_and_again_by_what_they_stored() {
    let network = Network::new();
    let mut nodes: Vec<Daemon> = (1..=3).map(|number| network.node_of(number)).collect();
    nodes.iter_mut().for_each(Daemon::start);
    let bottles = nodes.iter().map(|node| eventually("its Bottle", || node.bottle())).collect();
    network.publish_nodes("list.json", 5, Params::demo(), bottles);
    let mut client = network.client();
    client.start();
    let meet = |nodes: &[Daemon], client: &Daemon| {
        for node in nodes {
            node.wait("both links", |status| status.links.iter().filter(|link| link.up).count() == 2);
        }
        client.wait("a guard and the whole map", |status| {
            status.guard.is_some() && status.known == 3 && status.links.iter().any(|link| link.up)
        });
    };
    meet(&nodes, &client);
    let guard = client.status().unwrap().guard;
    for daemon in nodes.iter().chain([&client]) {
        daemon.wait("all is stored", |status| status.store.as_ref().is_some_and(|store| store.waiting == 0));
    }

    nodes.iter_mut().for_each(Daemon::kill);
    client.kill();
    fs::remove_file(network.root.path().join("list.json")).unwrap();
    nodes.iter_mut().for_each(Daemon::start);
    client.start();
    meet(&nodes, &client);
    assert_eq!(client.status().unwrap().guard, guard, "the guard is stored");
    nodes.iter_mut().for_each(Daemon::stop);
    client.stop();
}
