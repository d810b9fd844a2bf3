use std::fs;
use std::path::Path;

use port17::network_file::{NetworkFile, key_to_text};
use port17_proto::bottle::VerifiedBottle;
use port17_proto::network::{ListContent, Roots, SignedList};
use port17_proto::params::{Params, SetName};
use serde_json::{Value, json};

use super::{about, load, now_s, read_list};
use crate::bottle;
use crate::duration::words;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::Table;

/// Prints a network file, or a list, whichever it is.
pub(super) fn run(path: &Path, network: Option<&Path>, output: Output) -> Result<(), Failure> {
    if !is_json(path) {
        let network = load(path)?.network;
        return output.print(describe_network(&network), &network_as_json(&network));
    }
    let network = network.map(load).transpose()?.map(|loaded| loaded.network);
    let list = read_list(path)?;
    let content = list.read_unverified().map_err(|error| about(path, error))?;
    output.print(describe_list(&list, &content, network.as_ref()), &list_as_json(&list, &content, network.as_ref()))
}

/// A list begins with a brace, or at least calls itself so; what cannot be read is said by who reads it properly.
fn is_json(path: &Path) -> bool {
    let begins = fs::File::open(path).and_then(|mut file| {
        let mut first = [0; 1];
        std::io::Read::read(&mut file, &mut first).map(|_| first[0] == b'{')
    });
    path.extension().is_some_and(|ending| ending == "json") || begins.unwrap_or(false)
}

fn describe_network(network: &NetworkFile) -> String {
    let roots = network.definition.roots();
    let mut table = Table::default();
    table.push(["network", network.definition.name()]);
    table.push(["id", &network.definition.id().to_string()]);
    table.push(["roots", &format!("{} of {} must sign", roots.threshold(), roots.keys().len())]);
    for key in roots.keys() {
        table.push(["", &key_to_text(key)]);
    }
    for (at, source) in network.sources.iter().enumerate() {
        table.push([if at == 0 { "sources" } else { "" }, &source.to_string()]);
    }
    if network.sources.is_empty() {
        table.push(["sources", "none: a list must come over a link"]);
    }
    table.push(["CA", &network.ca_certificates().map_or("the public web's".into(), |own| format!("its own, {}", own.len()))]);
    push_params(&mut table, &network.params);
    let costs = if network.params.name == SetName::Private { format!("\n{}", Params::PRIVATE_COSTS) } else { String::new() };
    format!("{table}{costs}")
}

fn push_params(table: &mut Table, params: &Params) {
    table.push(["parameters", &params.name.to_string()]);
    for (parameter, value) in params.differences().into_iter().filter(|(parameter, _)| parameter.name != "name") {
        table.push(["", &format!("{} = {value}", parameter.name)]);
    }
}

fn network_as_json(network: &NetworkFile) -> Value {
    let roots = network.definition.roots();
    json!({
        "network": network.definition.name(),
        "id": network.definition.id().to_string(),
        "threshold": roots.threshold(),
        "roots": roots.keys().iter().map(key_to_text).collect::<Vec<_>>(),
        "sources": network.sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "own_ca_certificates": network.ca_certificates().map_or(0, |own| own.len()),
        "danger_http": network.danger_http,
        "parameters": params_as_json(&network.params),
    })
}

fn params_as_json(params: &Params) -> Value {
    let differences = params.differences().into_iter().map(|(parameter, value)| (parameter.name.to_owned(), value.into()));
    Value::Object(differences.collect())
}

/// The list in words. Its signatures are checked; whether they suffice only a network can say.
pub(super) fn describe_list(list: &SignedList, content: &ListContent, network: Option<&NetworkFile>) -> String {
    let now_s = now_s();
    let mut table = Table::default();
    let name = network.filter(|network| network.definition.id() == content.network).map(|network| network.definition.name());
    table.push(["network", &name.map_or_else(|| content.network.to_string(), str::to_owned)]);
    table.push(["seq", &content.seq.to_string()]);
    table.push(["issued", &format!("{} ago", words(now_s.saturating_sub(content.issued_s)))]);
    let expires = match content.expires_s.checked_sub(now_s) {
        Some(left_s) if left_s > 0 => format!("in {}", words(left_s)),
        Some(_) | None => format!("expired {} ago", words(now_s.saturating_sub(content.expires_s))),
    };
    table.push(["expires", &expires]);
    push_params(&mut table, &content.params);
    for (at, (key, signature)) in signers(list, network.map(|network| network.definition.roots())).iter().enumerate() {
        table.push([if at == 0 { "signed by" } else { "" }, &format!("{key} ({signature})")]);
    }
    if list.signatures.is_empty() {
        table.push(["signed by", "nobody"]);
    }
    table.push(["nodes", &content.nodes.len().to_string()]);
    let mut nodes = Table::default();
    for node in &content.nodes {
        match bottle::signed(node) {
            Ok(node) => {
                nodes.push([node.portname().to_string(), node.node_id().to_base32(), addresses(&node).join(" "), age(&node)])
            }
            Err(error) => nodes.push(["?".to_owned(), error.to_string()]),
        }
    }
    format!("{table}\n{nodes}")
}

/// Each key that signed, and what its signature is worth.
fn signers(list: &SignedList, roots: Option<&Roots>) -> Vec<(String, &'static str)> {
    let worth = |entry: &_| {
        let (key, _) = entry;
        // Asked of each key alone: whether this one has validly signed.
        let alone = Roots::new(1, vec![*key]).map_or(0, |alone| list.signers(&alone));
        let worth = match (alone, roots) {
            (0, _) => "its signature is wrong",
            (_, None) => "valid",
            (_, Some(roots)) if roots.keys().contains(key) => "valid, a root",
            (_, Some(_)) => "valid, but no root of this network",
        };
        (key_to_text(key), worth)
    };
    list.signatures.iter().map(worth).collect()
}

fn addresses(bottle: &VerifiedBottle) -> Vec<String> {
    let addresses = bottle.content().addresses.iter().map(|address| address.socket().to_string());
    let addresses: Vec<String> = addresses.collect();
    if addresses.is_empty() { vec!["no address".into()] } else { addresses }
}

fn age(bottle: &VerifiedBottle) -> String {
    format!("Bottle {} old", words(now_s().saturating_sub(bottle.seq().unix_ms() / 1000)))
}

pub(super) fn list_as_json(list: &SignedList, content: &ListContent, network: Option<&NetworkFile>) -> Value {
    let nodes = content.nodes.iter().map(|node| match bottle::signed(node) {
        Ok(node) => json!({
            "node_id": node.node_id().to_base32(),
            "portname": node.portname().to_string(),
            "addresses": node.content().addresses.iter().map(|address| address.socket().to_string()).collect::<Vec<_>>(),
            "seq": node.seq().0,
        }),
        Err(error) => json!({ "error": error.to_string() }),
    });
    let signers = signers(list, network.map(|network| network.definition.roots()));
    json!({
        "network": content.network.to_string(),
        "seq": content.seq,
        "issued_s": content.issued_s,
        "expires_s": content.expires_s,
        "parameters": params_as_json(&content.params),
        "signers": signers.iter().map(|(key, worth)| json!({ "key": key, "signature": worth })).collect::<Vec<_>>(),
        "nodes": nodes.collect::<Vec<_>>(),
        "releases": content.releases.len(),
        "unknown_fields": content.unknown.len(),
    })
}
