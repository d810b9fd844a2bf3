use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use port17::bottles::BottleDirectory;
use port17::config::Config;
use port17::control::{self, Role, Status};
use port17::keystore::{Keystore, SeqFile};
use serde::Serialize;

use crate::bottle;
use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::network::{self, Loaded, PUBLIC_HAS_NO_LIST};
use crate::output::Output;
use crate::settings::Settings;
use crate::status::counted;

/// One line of the report.
#[derive(Serialize)]
struct Finding {
    ok: bool,
    what: &'static str,
    text: String,
    #[serde(skip)]
    kind: Kind,
}

impl Finding {
    fn ok(what: &'static str, text: impl fmt::Display) -> Self {
        Self { ok: true, what, text: text.to_string(), kind: Kind::Failed }
    }

    fn bad(what: &'static str, failure: impl Into<Failure>) -> Self {
        let failure = failure.into();
        Self { ok: false, what, text: failure.message, kind: failure.kind }
    }
}

/// Looks at everything a daemon needs, and changes nothing.
pub(crate) fn run(settings: &Settings, output: Output) -> Result<(), Failure> {
    let config = match settings.load() {
        Ok(config) => config,
        Err(failure) => return report(vec![Finding::bad("config", failure)], output),
    };
    let running = daemon::block_on(control::status(&config.control))?.ok();
    let mut findings = vec![Finding::ok("config", settings.path().display()), daemon_finding(running.as_ref())];
    findings.extend([keys(&config), state(&config), bottles(&config)]);
    findings.extend(config.network.as_deref().map(network));
    // One file serves one daemon: the one that runs, else the one that it says something about.
    let is_node =
        config.exit.is_some() || !config.node.addresses.is_empty() || config.neighbours.iter().any(|them| !them.is_empty());
    let role = running.as_ref().map_or(if is_node { Role::Node } else { Role::Client }, |status| status.role);
    match role {
        Role::Node => {
            findings.extend(config.node.listen.iter().map(|address| port("listen", *address, running.as_ref(), Role::Node)));
        }
        Role::Client => findings.push(port("proxy", config.client.proxy, running.as_ref(), Role::Client)),
    }
    report(findings, output)
}

fn report(findings: Vec<Finding>, output: Output) -> Result<(), Failure> {
    let line = |finding: &Finding| format!("{}  {:<8}{}", if finding.ok { "ok " } else { "bad" }, finding.what, finding.text);
    let lines: Vec<String> = findings.iter().map(line).collect();
    output.print(lines.join("\n"), &findings)?;
    let mut bad = findings.iter().filter(|finding| !finding.ok);
    match bad.next() {
        None => Ok(()),
        Some(first) => Err(Failure::new(first.kind, format_args!("{} of {} checks failed", bad.count() + 1, findings.len()))),
    }
}

fn daemon_finding(running: Option<&Status>) -> Finding {
    match running {
        Some(Status { role: Role::Node, .. }) => Finding::ok("daemon", "a node runs"),
        Some(Status { role: Role::Client, .. }) => Finding::ok("daemon", "a client runs"),
        None => Finding::ok("daemon", "none runs"),
    }
}

fn keys(config: &Config) -> Finding {
    let dir = config.identity.dir.display();
    let look = || -> Result<Finding, Failure> {
        let Some(keys) = Keystore::existing(&config.identity.dir)? else {
            return Ok(Finding::ok("keys", format_args!("{dir}: none yet; `port17 init` makes them, a client needs none")));
        };
        keys.link_key()?;
        Ok(match keys.identity()? {
            Some(identity) => Finding::ok("keys", format_args!("{dir}: NodeID {}", identity.node_id())),
            None => Finding::ok("keys", format_args!("{dir}: no identity yet; `port17 init` makes one, a client needs none")),
        })
    };
    look().unwrap_or_else(|failure| Finding::bad("keys", failure))
}

fn state(config: &Config) -> Finding {
    let dir = config.state.display();
    // The state directory is private in the same way as that of the keys.
    let look = || -> Result<Finding, Failure> {
        if Keystore::existing(&config.state)?.is_none() {
            return Ok(Finding::ok("state", format_args!("{dir}: none yet")));
        }
        SeqFile::new(&config.state).load()?;
        Ok(Finding::ok("state", dir))
    };
    look().unwrap_or_else(|failure| Finding::bad("state", failure))
}

fn network(path: &Path) -> Finding {
    match network::load(path) {
        Ok(Loaded { is_public: true, .. }) => {
            Finding::bad("network", Failure::new(Kind::NoNetwork, format_args!("{}: {PUBLIC_HAS_NO_LIST}", path.display())))
        }
        Ok(Loaded { network, .. }) => {
            let (name, sources) = (network.definition.name(), counted(network.sources.len() as u64, "source"));
            Finding::ok("network", format_args!("{}: network {name}, {sources} of its list", path.display()))
        }
        Err(failure) => Finding::bad("network", failure),
    }
}

fn bottles(config: &Config) -> Finding {
    let directory = BottleDirectory::new(&config.bottles);
    let path = config.bottles.display();
    let files = match directory.read_all() {
        Ok(files) => files,
        Err(error) => return Finding::bad("bottles", Failure::system(path, &error)),
    };
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for file in &files {
        let checked = match &file.bytes {
            Ok(bytes) => bottle::valid(bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match checked {
            Ok(bottle) => good.push(bottle.node_id()),
            Err(problem) => bad.push(format!("{}: {problem}", file.path.display())),
        }
    }
    if !bad.is_empty() {
        let problem = format!("{} of {} files: {}", bad.len(), files.len(), bad.join("; "));
        return Finding::bad("bottles", Failure::new(Kind::Configuration, problem));
    }
    let mut text = format!("{path}: {} valid", good.len());
    if let Some(neighbours) = &config.neighbours {
        let known = neighbours.iter().filter(|node| good.contains(node)).count();
        text += &format!("; {known} of {} neighbours are among them", neighbours.len());
    }
    Finding::ok("bottles", text)
}

/// Whether a port can be opened, or is open in the daemon that runs here.
fn port(what: &'static str, address: SocketAddr, running: Option<&Status>, role: Role) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(what, format_args!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && running.is_some_and(|status| status.role == role) => {
            Finding::ok(what, format_args!("{address} is in use, as the running daemon needs it"))
        }
        Err(error) => Finding::bad(what, Failure::system(address, &error)),
    }
}
