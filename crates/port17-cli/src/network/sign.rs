use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use port17::bottles::read_bottle;
use port17::keystore::{read_root_key, system_entropy};
use port17::list_file;
use port17::network_file::{NetworkFile, key_to_text};
use port17_proto::bottle::{BottleRules, VerifiedBottle};
use port17_proto::crypto::SigningKey;
use port17_proto::ids::NodeId;
use port17_proto::network::{ListContent, SignedList};
use port17_proto::wire::registry::Scope;
use serde_json::json;

use super::{Loaded, about, load, now_s, read_list, show};
use crate::arguments::SignArguments;
use crate::bottle;
use crate::failure::{Failure, Kind};
use crate::output::Output;

/// How the name of a list ends that too few have signed: a mirror must never serve one in place of a good one.
const INCOMPLETE: &str = ".incomplete";

/// Makes a list or adds to one, signs it, and writes it.
pub(super) fn run(arguments: &SignArguments, output: Output) -> Result<(), Failure> {
    let Loaded { network, .. } = load(&arguments.network)?;
    let keys = root_keys(&arguments.key, &network)?;
    let (mut list, warnings) = match &arguments.add {
        Some(path) => (unfinished(path, &network)?, Vec::new()),
        None => new_list(arguments, &network)?,
    };
    keys.iter().for_each(|key| list.sign(key));

    let target = complete_path(arguments.add.as_ref().unwrap_or(&arguments.list));
    let is_complete = list.signers(network.definition.roots()) >= usize::from(network.definition.roots().threshold());
    let written = if is_complete { target.clone() } else { incomplete_path(&target) };
    if is_complete {
        // What leaves here must be what everybody takes.
        list.clone().verify(&network.definition, now_s()).map_err(|error| about(&written, error))?;
    }
    list_file::write(&written, &list).map_err(|error| Failure::system(written.display(), &error))?;
    if is_complete {
        // It may never have been there.
        let _ = fs::remove_file(incomplete_path(&target));
    }
    report(&list, &network, &written, &warnings, output)
}

fn root_keys(paths: &[PathBuf], network: &NetworkFile) -> Result<Vec<SigningKey>, Failure> {
    let mut keys = Vec::new();
    for path in paths {
        let key = read_root_key(path)?;
        let public = key.public();
        if !network.definition.roots().keys().contains(&public) {
            let name = network.definition.name();
            let problem =
                format!("{} is no root key of network {name}; `port17 network show` prints its roots", key_to_text(&public));
            return Err(about(path, problem));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn complete_path(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    text.strip_suffix(INCOMPLETE).map_or_else(|| path.to_owned(), PathBuf::from)
}

fn incomplete_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(INCOMPLETE);
    name.into()
}

/// A list that waits for more signatures.
fn unfinished(path: &Path, network: &NetworkFile) -> Result<SignedList, Failure> {
    let list = read_list(path)?;
    let content = read_own(path, &list, network)?;
    if content.expires_s <= now_s() {
        return Err(about(path, "it has expired; make a new one"));
    }
    Ok(list)
}

/// What a list of this network says; one that no root has signed could say anything.
fn read_own(path: &Path, list: &SignedList, network: &NetworkFile) -> Result<ListContent, Failure> {
    let content = list.read_unverified().map_err(|error| about(path, error))?;
    if content.network != network.definition.id() {
        return Err(about(path, format_args!("it is a list of another network than {}", network.definition.name())));
    }
    if list.signers(network.definition.roots()) == 0 {
        return Err(about(path, "no root of this network has signed it; move it away if it is not wanted"));
    }
    Ok(content)
}

fn new_list(arguments: &SignArguments, network: &NetworkFile) -> Result<(SignedList, Vec<String>), Failure> {
    let before = list_file::read(&arguments.list).map_err(|error| {
        about(
            &arguments.list,
            format_args!("{error}; a new list must have a higher sequence number than this one: restore it or move it away"),
        )
    })?;
    let last_seq = before.map(|list| read_own(&arguments.list, &list, network)).transpose()?.map_or(0, |content| content.seq);
    let issued_s = now_s();
    let (nodes, warnings) = nodes(&arguments.bottles, &network.params.bottle_rules())?;
    let mut entropy = system_entropy().map_err(|error| Failure::system("cannot draw", &error))?;
    let content = ListContent {
        network: network.definition.id(),
        // Two who sign without the last list at hand still go up (spec 12, 2).
        seq: last_seq.saturating_add(1).max(issued_s),
        issued_s,
        expires_s: issued_s + u64::from(arguments.days) * 86_400,
        random: entropy.bytes(),
        nodes: nodes.into_values().map(|bottle| bottle.envelope().to_vec()).collect(),
        params: network.params.clone(),
        roots: None,
        releases: Vec::new(),
        unknown: BTreeMap::new(),
    };
    let payload = content.encode().map_err(|error| Failure::new(Kind::Failed, error))?;
    Ok((SignedList::new(payload), warnings))
}

/// The newest Bottle of each node, and what is odd about them.
fn nodes(paths: &[PathBuf], rules: &BottleRules) -> Result<(BTreeMap<NodeId, VerifiedBottle>, Vec<String>), Failure> {
    let (mut nodes, mut warnings) = (BTreeMap::<NodeId, VerifiedBottle>::new(), Vec::new());
    for path in paths {
        let bytes = read_bottle(path).map_err(|error| Failure::system(path.display(), &error))?;
        let bottle = bottle::signed(&bytes).map_err(|error| about(path, error))?;
        if bottle.content().scope != Scope::Public {
            return Err(about(path, "a local Bottle belongs to no list"));
        }
        let name = path.display();
        if bottle.seq().unix_ms().saturating_add(rules.life_ms) < bottle::now_ms() {
            warnings.push(format!("{name}: the Bottle has expired; it still says who is trusted and where"));
        }
        if bottle.content().addresses.is_empty() {
            warnings.push(format!("{name}: the node has no address: nobody can begin with it"));
        }
        match nodes.get(&bottle.node_id()) {
            Some(there) if there.seq() >= bottle.seq() => {
                warnings.push(format!("{name}: not taken, a newer Bottle of this node is given"))
            }
            Some(_) | None => drop(nodes.insert(bottle.node_id(), bottle)),
        }
    }
    Ok((nodes, warnings))
}

fn report(list: &SignedList, network: &NetworkFile, path: &Path, warnings: &[String], output: Output) -> Result<(), Failure> {
    for warning in warnings {
        eprintln!("port17: {warning}");
    }
    let roots = network.definition.roots();
    let (signed, wanted) = (list.signers(roots), usize::from(roots.threshold()));
    let content = list.read_unverified().map_err(|error| about(path, error))?;
    let mut text = show::describe_list(list, &content, Some(network));
    text += &format!("\nwritten   {}: {signed} of {wanted} signatures\n", path.display());
    if signed < wanted {
        text += &format!(
            "nobody takes it yet; the next root adds its signature by\n  port17 network sign --network {} --add {} --key KEY\n",
            network.file_name(),
            path.display()
        );
    }
    let mut object = show::list_as_json(list, &content, Some(network));
    object["file"] = json!(path);
    object["complete"] = json!(signed >= wanted);
    object["warnings"] = json!(warnings);
    output.print(text, &object)
}
