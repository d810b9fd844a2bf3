use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use port17::bottles::BottleDirectory;
use port17::config::Config;
use port17::keystore::{Keystore, make_private_directory, system_entropy};
use port17::network_file::NetworkFile;
use port17_proto::ids::NetworkId;
use port17_proto::portname::PortName;
use serde::Serialize;

use crate::arguments::InitArguments;
use crate::failure::{Failure, Kind};
use crate::network::{self, Loaded, PUBLIC_HAS_NO_LIST};
use crate::output::Output;
use crate::settings::Settings;

/// What `init` found or made.
#[derive(Serialize)]
struct Made<'a> {
    node_id: String,
    portname: String,
    config: &'a Path,
    config_is_new: bool,
    keys: &'a Path,
    keys_are_new: bool,
    bottles: &'a Path,
    network: Option<&'a Path>,
}

/// Makes what is missing; run twice, it changes nothing.
pub(crate) fn run(arguments: &InitArguments, settings: &Settings, output: Output) -> Result<(), Failure> {
    let path = settings.path();
    let joined = arguments.network.as_deref().map(|file| Joined::read(file, &path)).transpose()?;
    let config_is_new = !path.exists();
    let config = if config_is_new {
        Config::parse(&Template { settings, arguments, joined: joined.as_ref() }.text(None), &path, settings.places())?
    } else {
        settings.load()?
    };
    if let Some(joined) = &joined {
        joined.check(&config, &path)?;
    }

    let mut entropy = system_entropy().map_err(|error| Failure::system("cannot make keys", &error))?;
    make_private_directory(&config.state)?;
    let keys = Keystore::create(&config.identity.dir)?;
    let keys_are_new = keys.identity()?.is_none();
    let node = keys.identity_or_new(&mut entropy)?.node_id();
    let bottles = BottleDirectory::new(&config.bottles);
    bottles.make().map_err(|error| Failure::system(config.bottles.display(), &error))?;
    let label = config.label_for(&node);
    if let Some(joined) = joined.as_ref().filter(|joined| !joined.place.exists()) {
        write_new(&joined.place, &joined.text)?;
    }
    if config_is_new {
        write_new(&path, &Template { settings, arguments, joined: joined.as_ref() }.text(Some(label.as_str())))?;
    }

    let made = Made {
        node_id: node.to_base32(),
        portname: PortName::of(label, &node).to_string(),
        config: &path,
        config_is_new,
        keys: &config.identity.dir,
        keys_are_new,
        bottles: &config.bottles,
        network: config.network.as_deref(),
    };
    if joined.is_some_and(|joined| joined.is_public) {
        eprintln!("port17: {PUBLIC_HAS_NO_LIST}");
    }
    output.print(describe(&made), &made)
}

fn describe(made: &Made<'_>) -> String {
    let network = made.network.map_or_else(String::new, |network| format!("network   {}\n", network.display()));
    let state = |is_new| if is_new { "new" } else { "already there" };
    format!(
        "NodeID    {}\nPortName  {}\nconfig    {} ({})\nkeys      {} ({})\nBottles   {}\n{network}",
        made.node_id,
        made.portname,
        made.config.display(),
        state(made.config_is_new),
        made.keys.display(),
        state(made.keys_are_new),
        made.bottles.display(),
    )
}

/// A network that the configuration shall name.
struct Joined {
    /// Its file's text, with places that hold from anywhere.
    text: String,
    /// Where it will be: beside the configuration.
    place: PathBuf,
    name: String,
    id: NetworkId,
    is_public: bool,
}

impl Joined {
    fn read(file: &Path, config: &Path) -> Result<Self, Failure> {
        let Loaded { network, text, is_public } = network::load(file)?;
        let place = config.with_file_name(network.file_name());
        // Word for word, with its comments, unless it names files from where it is now.
        let is_same = NetworkFile::parse(&text, &place).is_ok_and(|moved| moved == network);
        let text = if is_same { text } else { network.to_toml() };
        Ok(Self { text, place, name: network.file_name(), id: network.definition.id(), is_public })
    }

    /// Refuses what would take changes to files that are there: those are their owner's.
    fn check(&self, config: &Config, path: &Path) -> Result<(), Failure> {
        let refused = |problem: String| Err(Failure::new(Kind::Configuration, problem));
        let place = self.place.display();
        match &config.network {
            Some(network) if *network == self.place => {}
            Some(network) => {
                let there = network.display();
                return refused(format!(
                    "{}: it names the network file {there} already; a node is in one network",
                    path.display()
                ));
            }
            None => {
                return refused(format!(
                    "{}: is there already; to join, copy the network file to {place} and add: network = \"{}\"",
                    path.display(),
                    self.name
                ));
            }
        }
        if !self.place.exists() {
            return Ok(());
        }
        let there = network::load(&self.place)?;
        if there.network.definition.id() != self.id {
            return refused(format!("{place}: is there already, and is another network's"));
        }
        if there.text != self.text {
            return refused(format!("{place}: is there already and says something else; to take the new one, copy it there"));
        }
        Ok(())
    }
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| Failure::system(path.display(), &error);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

/// A configuration in which everything is explained. One at a place of its own keeps its state beside it: two on one machine
/// must not share it.
struct Template<'a> {
    settings: &'a Settings,
    arguments: &'a InitArguments,
    joined: Option<&'a Joined>,
}

impl Template<'_> {
    fn text(&self, drawn_label: Option<&str>) -> String {
        let Self { settings, arguments, joined } = self;
        let state = if settings.is_elsewhere() {
            "state = \"state\"".to_owned()
        } else {
            format!("# state = \"{}\"", settings.places().state.display())
        };
        let network =
            joined.map_or_else(|| "# network = \"NAME.network.toml\"".into(), |joined| format!("network = \"{}\"", joined.name));
        let label = match &arguments.label {
            Some(label) => format!("label = \"{label}\""),
            None => format!("# label = \"{}\"", drawn_label.unwrap_or("node-abcd")),
        };
        let (listen, addresses) = if arguments.address.is_empty() {
            ("# listen = [\"0.0.0.0:1717\", \"[::]:1717\"]".to_owned(), "# addresses = []".to_owned())
        } else {
            (format!("listen = {}", list(&listening(&arguments.address))), format!("addresses = {}", list(&arguments.address)))
        };
        let (exit, policy) = if arguments.exit.is_empty() {
            ("# [exit]", "# policy = [\"accept tcp *:80,443\"]".to_owned())
        } else {
            ("[exit]", format!("policy = {}", list(&arguments.exit)))
        };
        let replaced = [
            ("@state@", state.as_str()),
            ("@network@", &network),
            ("@label@", &label),
            ("@listen@", &listen),
            ("@addresses@", &addresses),
            ("@exit@", exit),
            ("@policy@", &policy),
        ];
        replaced.into_iter().fold(TEMPLATE.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

/// Where to listen so that the addresses can be dialled: on all of the machine's, for they may be those of a router in front of it.
fn listening(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let any = |address: &SocketAddr| {
        let ip = match address.ip() {
            ip if ip.is_loopback() => ip,
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(ip, address.port())
    };
    let different: BTreeSet<SocketAddr> = addresses.iter().map(any).collect();
    different.into_iter().collect()
}

/// A list of TOML: none of what is written has a quote in it.
fn list(values: &[impl ToString]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("\"{}\"", value.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}

const TEMPLATE: &str = r#"# Port17. Everything may be left out; what is commented shows the default.
# Relative paths are taken from the directory of this file.

# The readable half of the PortName: 3 to 24 characters a-z, 0-9 and -, the first a-z.
@label@

# The operator or family of this node: routes never use two nodes of one group.
# group = ""

# The network to be in: the file that came with it. Without one, nodes exchange Bottles as files, by hand.
@network@

# What must survive a restart, private to this user: keys, sequence number, Bottles.
@state@

# Where Bottles are exchanged as <NodeID>.bottle; default: "bottles" in the state directory.
# bottles = "bottles"

# The control socket; default: in the runtime directory, or in a state directory that is named above.
# control = "control.sock"

# The nodes to keep links with, by NodeID; they must name this node as well. Default: the node decides.
# neighbours = []

[identity]
# Where the keys are; default: "keys" in the state directory.
# dir = "keys"

[node]
# Where links are accepted.
@listen@
# What others are told to dial; default: the addresses above, where they are not 0.0.0.0 or [::].
@addresses@
# Whether clients may use this node as their guard.
# accept_clients = true

# Without this table the node is no exit.
@exit@
# First match decides; what nothing matches is rejected. accept|reject tcp|udp|* ADDRESSES:PORTS,
# with ADDRESSES one of *, private, an address or a prefix, and PORTS one of *, 80, 80,443, 8000-8999.
@policy@
# Private addresses that may be reached all the same. Whoever uses this exit can then reach them.
# danger_exit_private = ["192.0.2.0/24:80"]
# Names this exit resolves by itself.
# [exit.hosts]
# "name.example" = "192.0.2.1"

[client]
# Where programs connect by SOCKS5, SOCKS4a or HTTP.
# proxy = "127.0.0.1:1080"
# Allows addresses above that other machines can reach. They can then use this proxy.
# danger_proxy_listen = false
# The first hop, by NodeID; default: one is drawn.
# guard = ""
# Hops of a route, 1 to 6; default: what the network asks for.
# hops = 4
# The fewest hops allowed. Fewer than 3 hide little.
# danger_min_hops = 3
"#;
