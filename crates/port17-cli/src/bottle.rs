use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use port17::bottles::{BottleDirectory, read_bottle, read_bounded};
use port17::control;
use port17::keystore::Keystore;
use port17_proto::bottle::{
    Address, BottleContent, BottleError, BottleRules, LinkClaim, UnverifiedBottle, VerifiedBottle, capacity_mbit_s, rtt_us,
};
use port17_proto::ids::NodeId;
use port17_proto::wire::registry::{LaneType, Scope};
use serde_json::{Value, json};

use crate::arguments::BottleCommand;
use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::output::{Output, write_out};
use crate::settings::Settings;

pub(crate) fn run(command: BottleCommand, settings: &Settings, output: Output) -> Result<(), Failure> {
    match command {
        BottleCommand::Show { file } => show(&file, output),
        BottleCommand::Verify { files } => for_each(&files, output, |file| {
            let bottle = verify(file)?;
            Ok((bottle.node_id(), format!("{}, {}", bottle.portname(), age(&bottle))))
        }),
        BottleCommand::Export { output: to } => export(settings, to.as_deref(), output),
        BottleCommand::Import { files } => import(&files, settings, output),
    }
}

/// Now, in Unix milliseconds; 0 for a clock before 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if file == Path::new("-") { read_bounded(io::stdin().lock()) } else { read_bottle(file) }
}

/// A Bottle whose signature is right, whatever its age.
pub(crate) fn signed(bytes: &[u8]) -> Result<VerifiedBottle, BottleError> {
    let ageless = BottleRules { life_ms: u64::MAX, ahead_ms: u64::MAX, ..BottleRules::DEFAULT };
    UnverifiedBottle::parse(bytes)?.verify(now_ms(), &ageless)
}

/// A Bottle that is valid now.
pub(crate) fn valid(bytes: &[u8]) -> Result<VerifiedBottle, BottleError> {
    UnverifiedBottle::parse(bytes)?.verify(now_ms(), &BottleRules::DEFAULT)
}

fn verify(file: &Path) -> Result<VerifiedBottle, String> {
    let bytes = read(file).map_err(|error| error.to_string())?;
    valid(&bytes).map_err(|error| error.to_string())
}

/// Does something with each file, prints a line for each, and fails when one of them failed.
fn for_each(
    files: &[impl AsRef<Path>],
    output: Output,
    mut work: impl FnMut(&Path) -> Result<(NodeId, String), String>,
) -> Result<(), Failure> {
    let (mut lines, mut objects, mut bad) = (String::new(), Vec::new(), 0);
    for file in files {
        let name = file.as_ref().display().to_string();
        match work(file.as_ref()) {
            Ok((node, text)) => {
                // Writing to a String cannot fail.
                let _ = writeln!(lines, "ok   {name}: {text}");
                objects.push(json!({ "file": name, "ok": true, "node_id": node.to_base32(), "text": text }));
            }
            Err(problem) => {
                bad += 1;
                let _ = writeln!(lines, "bad  {name}: {problem}");
                objects.push(json!({ "file": name, "ok": false, "text": problem }));
            }
        }
    }
    output.print(lines, &objects)?;
    if bad == 0 { Ok(()) } else { Err(Failure::new(Kind::Failed, format_args!("{bad} of {} Bottles are bad", files.len()))) }
}

fn show(file: &Path, output: Output) -> Result<(), Failure> {
    let bytes = read(file).map_err(|error| Failure::system(file.display(), &error))?;
    let bad = |error: BottleError| Failure::new(Kind::Failed, format_args!("{}: {error}", file.display()));
    let bottle = signed(&bytes).map_err(bad)?;
    let validity = match valid(&bytes) {
        Ok(_) => age(&bottle),
        Err(error) => error.to_string(),
    };
    output.print(describe(&bottle, &validity, bytes.len()), &as_json(&bottle, &validity))
}

/// How old it is and how long it lives, in words.
fn age(bottle: &VerifiedBottle) -> String {
    let expires_ms = bottle.seq().unix_ms().saturating_add(BottleRules::DEFAULT.life_ms);
    let minutes = |ms: u64| format!("{} h {:02} min", ms / 3_600_000, ms / 60_000 % 60);
    let age_ms = now_ms().saturating_sub(bottle.seq().unix_ms());
    format!("valid, {} old, expires in {}", minutes(age_ms), minutes(expires_ms.saturating_sub(now_ms())))
}

fn describe(bottle: &VerifiedBottle, validity: &str, length: usize) -> String {
    let content = bottle.content();
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<12}{value}");
    };
    line("NodeID", bottle.node_id().to_base32());
    line("PortName", bottle.portname().to_string());
    line("group", if content.group.is_empty() { "none".into() } else { content.group.clone() });
    line("state", validity.to_owned());
    line("seq", content.seq.0.to_string());
    line("scope", scope(content.scope).into());
    line("addresses", or_none(content.addresses.iter().map(address)));
    line("egress", or_none(content.egress.iter().map(ToString::to_string)));
    line("links", or_none(content.links.iter().map(link)));
    line("exit", content.exit_policy.as_ref().map_or("none".into(), ToString::to_string));
    line("link key", format!("{} until {}", hex(&content.link_key.0), content.link_key_expiry_s));
    if let Some(next) = &content.next_link_key {
        line("next key", hex(&next.0));
    }
    line("circuit key", format!("until {}", content.circuit_key.not_after_s));
    line("load", format!("{} of 3", content.load));
    line("flags", flags(content));
    line("protocol", format!("{} to {}", content.protocol.lowest, content.protocol.highest));
    line("software", content.software.clone());
    line("unknown", format!("{} fields", content.unknown.len()));
    line("length", format!("{length} bytes"));
    text
}

fn as_json(bottle: &VerifiedBottle, validity: &str) -> Value {
    let content = bottle.content();
    let links = |link: &LinkClaim| json!({ "prefix": hex(&link.peer.0), "round_trip_us": rtt_us(link.rtt), "capacity_mbit_s": capacity_mbit_s(link.capacity) });
    json!({
        "node_id": bottle.node_id().to_base32(),
        "portname": bottle.portname().to_string(),
        "group": content.group,
        "state": validity,
        "valid": valid(bottle.envelope()).is_ok(),
        "seq": content.seq.0,
        "scope": scope(content.scope),
        "addresses": content.addresses.iter().map(address).collect::<Vec<_>>(),
        "egress": content.egress.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "links": content.links.iter().map(links).collect::<Vec<_>>(),
        "exit_policy": content.exit_policy.as_ref().map(ToString::to_string),
        "identity_key": hex(&content.identity.0),
        "link_key": hex(&content.link_key.0),
        "link_key_expiry_s": content.link_key_expiry_s,
        "next_link_key": content.next_link_key.map(|key| hex(&key.0)),
        "circuit_key_not_after_s": content.circuit_key.not_after_s,
        "load": content.load,
        "draining": content.flags.is_draining(),
        "metered": content.flags.is_metered(),
        "protocol": [content.protocol.lowest, content.protocol.highest],
        "software": content.software,
        "unknown_fields": content.unknown.len(),
    })
}

fn or_none(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { "none".into() } else { items.join(", ") }
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Public => "public",
        Scope::Local => "local",
    }
}

fn address(address: &Address) -> String {
    match address.lane_type() {
        Some(LaneType::TlsTcp) => address.socket().to_string(),
        Some(LaneType::Quic) => format!("{} (QUIC)", address.socket()),
        None => format!("{} (lane type {})", address.socket(), address.lane_code),
    }
}

fn link(link: &LinkClaim) -> String {
    let time = rtt_us(link.rtt).map_or("?".into(), |time| format!("{}.{} ms", time / 1000, time % 1000 / 100));
    let capacity = capacity_mbit_s(link.capacity).map_or("?".into(), |capacity| format!("{capacity} Mbit/s"));
    format!("{}… ({time}, {capacity})", hex(&link.peer.0))
}

fn flags(content: &BottleContent) -> String {
    let named = [(content.flags.is_draining(), "draining"), (content.flags.is_metered(), "metered")];
    or_none(named.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// What a node that has just started may take until its Bottle is out.
const START: Duration = Duration::from_secs(5);

fn export(settings: &Settings, to: Option<&Path>, output: Output) -> Result<(), Failure> {
    let config = settings.load_or_default()?;
    let identity = Keystore::existing(&config.identity.dir)?.map(|keys| keys.identity()).transpose()?.flatten();
    let Some(identity) = identity else {
        let problem = format!("{}: no identity key; `port17 init` makes one", config.identity.dir.display());
        return Err(Failure::new(Kind::Configuration, problem));
    };
    let (node, bottles) = (identity.node_id(), BottleDirectory::new(&config.bottles));
    let path = bottles.path_of(&node);
    let read = || bottles.read(&node).map_err(|error| Failure::system(path.display(), &error));
    let began = Instant::now();
    let mut found = read()?;
    // A script asks the moment after it has started the node.
    while found.is_none() && began.elapsed() < START {
        let runs = daemon::block_on(control::status(&config.control))?.is_ok();
        if !runs && began.elapsed() > START / 5 {
            break;
        }
        std::thread::sleep(START / 50);
        found = read()?;
    }
    let Some(bytes) = found else {
        let problem = format!("{}: this node has no Bottle yet; a running `port17 node` writes it", path.display());
        return Err(Failure::new(Kind::Failed, problem));
    };
    valid(&bytes).map_err(|error| Failure::new(Kind::Failed, format_args!("{}: {error}", path.display())))?;
    if let Some(to) = to {
        return fs::write(to, &bytes).map_err(|error| Failure::system(to.display(), &error));
    }
    if output.is_json() {
        return output.print("", &json!({ "node_id": node.to_base32(), "bottle": hex(&bytes) }));
    }
    if io::stdout().is_terminal() {
        return Err(Failure::new(Kind::Usage, "a Bottle is not text: redirect it into a file, or use --output FILE"));
    }
    write_out(&bytes)
}

fn import(files: &[impl AsRef<Path>], settings: &Settings, output: Output) -> Result<(), Failure> {
    let bottles = BottleDirectory::new(&settings.load_or_default()?.bottles);
    bottles.make().map_err(|error| Failure::system(bottles.path().display(), &error))?;
    for_each(files, output, |file| {
        let bottle = verify(file)?;
        let node = bottle.node_id();
        let done = put(&bottles, &bottle).map_err(|error| format!("{}: {error}", bottles.path_of(&node).display()))?;
        Ok((node, format!("{}, {done}", bottle.portname())))
    })
}

/// Puts a Bottle into the directory unless one as new is there (spec 04, 3: the newest valid one wins).
fn put(bottles: &BottleDirectory, bottle: &VerifiedBottle) -> io::Result<&'static str> {
    let node = bottle.node_id();
    // What is no Bottle, or not this node's, may be replaced.
    let there = bottles.read(&node).ok().flatten().and_then(|bytes| signed(&bytes).ok()).filter(|there| there.node_id() == node);
    if let Some(there) = there {
        if there.envelope() == bottle.envelope() {
            return Ok("already there");
        }
        if there.seq() >= bottle.seq() {
            return Ok("not taken: a newer one is there");
        }
    }
    bottles.write(&node, bottle.envelope())?;
    Ok("imported")
}
