//! Who takes part in the demo: addresses, keys and configurations, all of it in one temporary directory.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use port17::config::{Config, ExitConfig, Places};
use port17::control::Role;
use port17::keystore::{Keystore, make_private_directory, system_entropy};
use port17_proto::ids::NodeId;
use tempfile::TempDir;

use super::network::DemoNetwork;
use super::ports::Ports;
use crate::failure::Failure;

/// The name that the exits resolve to the origin.
pub(super) const ORIGIN_NAME: &str = "origin.demo";
/// Where client and origin are.
const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// A Unix socket's path has at most 107 bytes; the longest below a temporary directory is `port17-demo-123456/client/control.sock`.
const TEMPORARY_PATH_BYTES: usize = 60;
/// Fewest hops that need no permission.
const SAFE_HOPS: u8 = 3;
/// Nodes that are in the signed list before any is left out, and those that are left out.
const LISTED: u8 = 4;
const UNLISTED: u8 = 2;

/// One node, or the client.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// `node-1`, `client`.
    pub(super) name: String,
    pub(super) role: Role,
    /// None for the client.
    pub(super) node: Option<NodeId>,
    /// Whether the signed list names it; the others become known by gossip, and are middles only.
    pub(super) is_listed: bool,
    pub(super) config: Config,
    /// The configuration as a file.
    pub(super) file: PathBuf,
}

/// Everyone, and where they are.
#[derive(Debug)]
pub(super) struct Plan {
    /// The nodes in order, then the client.
    pub(super) members: Vec<Member>,
    pub(super) socks: SocketAddr,
    /// The client's control socket.
    pub(super) control: PathBuf,
    pub(super) origin: SocketAddr,
    pub(super) hops: u8,
    pub(super) network: DemoNetwork,
    /// All files; removed when this is dropped.
    root: TempDir,
}

impl Plan {
    /// Chooses addresses, makes keys, writes configurations.
    pub(super) fn make(nodes: u8, hops: u8, ports: &mut Ports) -> Result<Self, Failure> {
        let root = temporary_directory().map_err(|error| Failure::system("cannot make a temporary directory", &error))?;
        let port = |found: io::Result<SocketAddr>| found.map_err(|error| Failure::system("cannot find a port", &error));
        let origin = port(ports.other(HOME))?;
        let socks = port(ports.usual(HOME))?;
        let network = DemoNetwork::make(root.path())?;
        let mut members = Vec::new();
        for number in 1..=nodes {
            let address = port(ports.usual(Ipv4Addr::new(127, 0, 1, number)))?;
            members.push(node(root.path(), number, nodes, address)?);
        }
        let mut client = client(root.path(), socks, hops)?;
        if hops == 1 {
            // The only hop is guard and exit: one that is drawn from all nodes mostly leads nowhere.
            client.config.client.guard = members.iter().find(|member| member.is_exit()).and_then(|member| member.node);
        }
        let control = client.config.control.clone();
        members.push(client);
        for member in &mut members {
            member.config.network = Some(network.file.clone());
            fs::write(&member.file, member.config.to_toml()).map_err(|error| Failure::system(member.file.display(), &error))?;
        }
        Ok(Self { members, socks, control, origin, hops, network, root })
    }

    /// The nodes' names on a route that is told by PortNames or NodeIDs.
    pub(super) fn names_of(&self, route: &[String]) -> Vec<String> {
        let name = |hop: &String| {
            let known = |member: &&Member| member.node.is_some_and(|node| names(hop, &member.name, &node));
            self.members.iter().find(known).map_or_else(|| hop.clone(), |member| member.name.clone())
        };
        route.iter().map(name).collect()
    }

    /// Removes all files.
    pub(super) fn remove(self) -> Result<(), Failure> {
        let path = self.root.path().to_owned();
        self.root.close().map_err(|error| Failure::system(path.display(), &error))
    }
}

impl Member {
    /// Whether it opens connections for clients.
    pub(super) fn is_exit(&self) -> bool {
        self.role == Role::Node && self.config.exit.is_some()
    }
}

fn names(hop: &str, label: &str, node: &NodeId) -> bool {
    hop == node.to_base32() || hop.split_once('~').is_some_and(|(found, _)| found == label)
}

fn temporary_directory() -> io::Result<TempDir> {
    let usual = std::env::temp_dir();
    let place = if usual.as_os_str().len() <= TEMPORARY_PATH_BYTES { usual } else { "/tmp".into() };
    let mut builder = tempfile::Builder::new();
    builder.prefix("port17-demo-").permissions(fs::Permissions::from_mode(0o700)).tempdir_in(std::path::absolute(place)?)
}

fn node(root: &Path, number: u8, nodes: u8, address: SocketAddr) -> Result<Member, Failure> {
    let mut member = member(root, format!("node-{number}"), Role::Node)?;
    let mut entropy = system_entropy().map_err(|error| Failure::system("cannot make keys", &error))?;
    member.node = Some(Keystore::create(&member.config.identity.dir)?.identity_or_new(&mut entropy)?.node_id());
    // `node-` and a digit are a label.
    member.config.label = member.name.parse().ok();
    member.is_listed = is_listed(number, nodes);
    member.config.node.listen = vec![address];
    member.config.node.addresses = vec![address];
    if is_exit(number, nodes) {
        member.config.exit = Some(ExitConfig {
            policy: vec!["accept tcp *:*".to_owned()],
            // The machine itself is all that a demo has. The nodes' own addresses stay refused (spec 07).
            danger_exit_private: vec!["127.0.0.0/8:*".to_owned()],
            hosts: [(ORIGIN_NAME.to_owned(), HOME.into())].into(),
        });
    }
    Ok(member)
}

/// The last two.
fn is_exit(number: u8, nodes: u8) -> bool {
    number + 2 > nodes
}

/// All but the first ones, where enough are left for guard, second hop and exit.
fn is_listed(number: u8, nodes: u8) -> bool {
    number > nodes.saturating_sub(LISTED).min(UNLISTED)
}

fn client(root: &Path, socks: SocketAddr, hops: u8) -> Result<Member, Failure> {
    let mut member = member(root, "client".to_owned(), Role::Client)?;
    member.config.client.proxy = socks;
    member.config.client.hops = Some(hops);
    member.config.client.danger_min_hops = hops.min(SAFE_HOPS);
    Ok(member)
}

/// One without anything of its role; its directory exists.
fn member(root: &Path, name: String, role: Role) -> Result<Member, Failure> {
    let state = root.join(&name);
    make_private_directory(&state)?;
    let file = state.join("port17.toml");
    let places = Places { config: file.clone(), control: state.join("control.sock"), state };
    let config = Config::without_file(&places);
    Ok(Member { name, role, node: None, is_listed: false, config, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: u8, hops: u8) -> Plan {
        Plan::make(nodes, hops, &mut Ports::new()).unwrap()
    }

    #[test]
    fn most_nodes_are_listed_and_two_are_exits() {
        let plan = plan(6, 3);
        assert_eq!(plan.members.len(), 7);
        let (client, nodes) = plan.members.split_last().unwrap();
        for node in nodes {
            assert_eq!(node.is_listed, !["node-1", "node-2"].contains(&node.name.as_str()));
            assert!(node.is_listed || !node.is_exit());
        }
        assert_eq!(nodes.iter().filter(|node| node.is_exit()).count(), 2);
        assert_eq!((client.role, client.config.client.hops, client.config.client.danger_min_hops), (Role::Client, Some(3), 3));
        assert!(!client.is_listed && !client.is_exit());
    }

    #[test]
    fn every_size_has_an_exit_and_few_hops_are_permitted_by_name() {
        for nodes in 1..=9 {
            let plan = plan(nodes, nodes.min(6));
            assert_eq!(plan.members.iter().filter(|member| member.is_exit()).count(), usize::from(nodes.min(2)));
            assert_eq!(plan.members.last().unwrap().config.client.danger_min_hops, nodes.min(3));
        }
    }

    #[test]
    fn a_small_mesh_is_listed_as_a_whole() {
        for nodes in 1..=4 {
            assert!(plan(nodes, 1).members.iter().all(|member| member.node.is_none() || member.is_listed));
        }
        assert_eq!(plan(5, 3).members.iter().filter(|member| member.is_listed).count(), 4);
        assert_eq!(plan(9, 3).members.iter().filter(|member| member.is_listed).count(), 7);
    }

    #[test]
    fn a_route_of_one_hop_has_an_exit_as_its_guard() {
        let one = plan(6, 1);
        let guard = one.members.last().unwrap().config.client.guard;
        assert!(one.members.iter().any(|member| member.is_exit() && member.node == guard));
        assert_eq!(plan(6, 3).members.last().unwrap().config.client.guard, None);
    }

    #[test]
    fn written_configurations_say_the_same() {
        let plan = plan(2, 2);
        for member in &plan.members {
            let read = Config::load(&member.file, &Places::of_the_system()).unwrap();
            assert_eq!(read, member.config, "{}", member.name);
        }
    }

    #[test]
    fn all_addresses_differ_and_sockets_fit() {
        let plan = plan(9, 3);
        let mut addresses: Vec<SocketAddr> =
            plan.members.iter().filter_map(|member| member.node.map(|_| member.config.node.listen[0])).collect();
        addresses.extend([plan.socks, plan.origin]);
        let count = addresses.len();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), count);
        assert!(plan.members.iter().all(|member| member.config.control.as_os_str().len() <= 107));
    }

    #[test]
    fn everything_is_private_and_removed_at_the_end() {
        let plan = plan(1, 1);
        let root = plan.root.path().to_owned();
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        plan.remove().unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn routes_are_told_by_the_names_of_the_demo() {
        let plan = plan(2, 2);
        let id = plan.members[1].node.unwrap().to_base32();
        let route = [format!("node-1~{}", &id[..13]), id, "stranger~x".to_owned()];
        assert_eq!(plan.names_of(&route), ["node-1", "node-2", "stranger~x"]);
    }
}
