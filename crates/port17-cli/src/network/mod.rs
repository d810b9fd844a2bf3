//! `port17 network`: makes networks, signs their lists, shows both.

mod new;
mod show;
mod sign;

use std::fmt;
use std::path::Path;

use port17::list_file;
use port17::network_file::NetworkFile;
use port17_proto::network::SignedList;
use serde_json::json;

use crate::arguments::NetworkCommand;
use crate::bottle::now_ms;
use crate::failure::{Failure, Kind};
use crate::output::Output;

/// The public network's file, under the name `public`.
const PUBLIC: &str = include_str!("../../networks/public.network.toml");

/// What must be said to who uses it, as long as its root keys are not made.
pub(crate) const PUBLIC_HAS_NO_LIST: &str =
    "the public network has no signed list yet: its root keys are not made, so this waits";

pub(crate) fn run(command: NetworkCommand, output: Output) -> Result<(), Failure> {
    match command {
        NetworkCommand::New(arguments) => new::run(&arguments, output),
        NetworkCommand::Sign(arguments) => sign::run(&arguments, output),
        NetworkCommand::Show { file, network } => show::run(&file, network.as_deref(), output),
        NetworkCommand::Verify { network, list } => verify(&network, &list, output),
    }
}

/// A network file as it was found.
pub(crate) struct Loaded {
    pub(crate) network: NetworkFile,
    /// Its text, word for word.
    pub(crate) text: String,
    /// Whether it is the public network's, wherever it lies.
    pub(crate) is_public: bool,
}

/// The network file at a path; `public` is the one that ships, where no file is called so.
pub(crate) fn load(path: &Path) -> Result<Loaded, Failure> {
    let shipped = NetworkFile::parse(PUBLIC, Path::new("/public.network.toml"))?;
    if path == Path::new("public") && !path.exists() {
        return Ok(Loaded { network: shipped, text: PUBLIC.to_owned(), is_public: true });
    }
    let network = NetworkFile::load(path)?;
    let text = std::fs::read_to_string(path).map_err(|error| Failure::system(path.display(), &error))?;
    Ok(Loaded { is_public: network.definition == shipped.definition, network, text })
}

/// A list that must be there.
fn read_list(path: &Path) -> Result<SignedList, Failure> {
    let missing = || Failure::new(Kind::Resource, format_args!("{}: there is no such list", path.display()));
    list_file::read(path).map_err(|error| about(path, error))?.ok_or_else(missing)
}

/// A failure of what a file says.
fn about(path: &Path, problem: impl fmt::Display) -> Failure {
    Failure::new(Kind::Failed, format_args!("{}: {problem}", path.display()))
}

fn now_s() -> u64 {
    now_ms() / 1000
}

fn verify(network: &Path, list: &Path, output: Output) -> Result<(), Failure> {
    let network = load(network)?.network;
    let verified = read_list(list)?.verify(&network.definition, now_s()).map_err(|error| about(list, error))?;
    let roots = network.definition.roots();
    let left = crate::duration::words(verified.expires_s().saturating_sub(now_s()));
    let text = format!(
        "ok   {}: list {} of network {}: {} nodes, signed by {} of {} roots ({} wanted), holds for {left}",
        list.display(),
        verified.seq(),
        network.definition.name(),
        verified.nodes().len(),
        verified.signers(),
        roots.keys().len(),
        roots.threshold(),
    );
    let object = json!({
        "network": network.definition.name(),
        "seq": verified.seq(),
        "nodes": verified.nodes().len(),
        "signers": verified.signers(),
        "threshold": roots.threshold(),
        "expires_s": verified.expires_s(),
    });
    output.print(text, &object)
}
