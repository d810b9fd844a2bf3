use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use port17::bottles::BottleDirectory;
use port17::config::Config;
use port17::keystore::{Keystore, make_private_directory, system_entropy};
use port17_proto::portname::PortName;
use serde::Serialize;

use crate::failure::Failure;
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
}

/// Makes what is missing; run twice, it changes nothing.
pub(crate) fn run(settings: &Settings, output: Output) -> Result<(), Failure> {
    let path = settings.path();
    let config_is_new = !path.exists();
    let config =
        if config_is_new { Config::parse(&template(settings, None), &path, settings.places())? } else { settings.load()? };

    let mut entropy = system_entropy().map_err(|error| Failure::system("cannot make keys", &error))?;
    make_private_directory(&config.state)?;
    let keys = Keystore::create(&config.identity.dir)?;
    let keys_are_new = keys.identity()?.is_none();
    let node = keys.identity_or_new(&mut entropy)?.node_id();
    let bottles = BottleDirectory::new(&config.bottles);
    bottles.make().map_err(|error| Failure::system(config.bottles.display(), &error))?;
    let label = config.label_for(&node);
    if config_is_new {
        write_new(&path, &template(settings, Some(label.as_str())))?;
    }

    let made = Made {
        node_id: node.to_base32(),
        portname: PortName::of(label, &node).to_string(),
        config: &path,
        config_is_new,
        keys: &config.identity.dir,
        keys_are_new,
        bottles: &config.bottles,
    };
    output.print(describe(&made), &made)
}

fn describe(made: &Made<'_>) -> String {
    let state = |is_new| if is_new { "new" } else { "already there" };
    format!(
        "NodeID    {}\nPortName  {}\nconfig    {} ({})\nkeys      {} ({})\nBottles   {}\n",
        made.node_id,
        made.portname,
        made.config.display(),
        state(made.config_is_new),
        made.keys.display(),
        state(made.keys_are_new),
        made.bottles.display(),
    )
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
fn template(settings: &Settings, label: Option<&str>) -> String {
    let state = if settings.is_elsewhere() {
        "state = \"state\"".to_owned()
    } else {
        format!("# state = \"{}\"", settings.places().state.display())
    };
    TEMPLATE.replace("@state@", &state).replace("@label@", label.unwrap_or("node-abcd"))
}

const TEMPLATE: &str = r#"# Port17. Everything may be left out; what is commented shows the default.
# Relative paths are taken from the directory of this file.

# The readable half of the PortName: 3 to 24 characters a-z, 0-9 and -, the first a-z.
# label = "@label@"

# The operator or family of this node: routes never use two nodes of one group.
# group = ""

# "default", or "demo" for a mesh on one machine that forms in seconds.
# parameters = "default"

# What must survive a restart, private to this user: keys, sequence number, Bottles.
@state@

# Where Bottles are exchanged as <NodeID>.bottle; default: "bottles" in the state directory.
# bottles = "bottles"

# The control socket; default: in the runtime directory, or in a state directory that is named above.
# control = "control.sock"

# The nodes to keep links with, by NodeID; they must name this node as well.
neighbours = []

[identity]
# Where the keys are; default: "keys" in the state directory.
# dir = "keys"

[node]
# Where links are accepted.
# listen = ["0.0.0.0:1717", "[::]:1717"]
# What others are told to dial; default: the addresses above, where they are not 0.0.0.0 or [::].
# addresses = []
# Whether clients may use this node as their guard.
# accept_clients = true

# Without this table the node is no exit.
# [exit]
# First match decides; what nothing matches is rejected. accept|reject tcp|udp|* ADDRESSES:PORTS,
# with ADDRESSES one of *, private, an address or a prefix, and PORTS one of *, 80, 80,443, 8000-8999.
# policy = ["accept tcp *:80,443"]
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
