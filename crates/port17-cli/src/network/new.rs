use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use port17::keystore::{system_entropy, write_root_key};
use port17::list_file::LIST_FILE_NAME;
use port17::network_file::{NETWORK_FILE_ENDING, NetworkFile, SOURCES, Source, certificates};
use port17_proto::crypto::SigningKey;
use port17_proto::network::{Definition, DefinitionError, Roots};
use port17_proto::params::Params;
use serde_json::json;

use crate::arguments::NewNetworkArguments;
use crate::failure::{Failure, Kind};
use crate::output::Output;

/// Makes root keys and the network file; touches nothing that exists.
pub(super) fn run(arguments: &NewNetworkArguments, output: Output) -> Result<(), Failure> {
    let threshold = arguments.threshold.unwrap_or(arguments.roots / 2 + 1);
    if threshold > arguments.roots {
        let problem = format!("--threshold {threshold}: there are only {} roots to sign", arguments.roots);
        return Err(Failure::new(Kind::Usage, problem));
    }
    let mut entropy = system_entropy().map_err(|error| Failure::system("cannot make keys", &error))?;
    let keys: Vec<SigningKey> = (0..arguments.roots).map(|_| SigningKey::generate(&mut entropy)).collect();
    let network = network(arguments, threshold, &keys)?;

    let directory = &arguments.output;
    let file = directory.join(format!("{}{NETWORK_FILE_ENDING}", arguments.name));
    let key_files: Vec<PathBuf> = (1..=keys.len()).map(|number| directory.join(format!("root-{number}.key"))).collect();
    if let Some(there) = key_files.iter().chain([&file]).find(|path| path.exists()) {
        return Err(Failure::new(Kind::Failed, format_args!("{}: is there already; nothing was written", there.display())));
    }
    fs::create_dir_all(directory).map_err(|error| Failure::system(directory.display(), &error))?;
    for (path, key) in key_files.iter().zip(&keys) {
        write_root_key(path, key)?;
    }
    write_network_file(&file, &network)?;

    let object = json!({
        "network": network.definition.name(),
        "id": network.definition.id().to_string(),
        "file": file,
        "keys": key_files,
        "threshold": threshold,
    });
    // Without an address, nodes on this machine look for the list beside the file.
    let list = arguments.source.is_empty().then(|| directory.join(LIST_FILE_NAME));
    let mut text = describe(&network, &file, &key_files, list.as_deref());
    if arguments.private {
        text += "\nWhat a private network costs:\n";
        text += Params::PRIVATE_COSTS;
    }
    output.print(text, &object)
}

fn network(arguments: &NewNetworkArguments, threshold: u8, keys: &[SigningKey]) -> Result<NetworkFile, Failure> {
    let usage = |problem: String| Failure::new(Kind::Usage, problem);
    let wrong = |error: DefinitionError| usage(format!("{}: {error}", arguments.name));
    let roots = Roots::new(threshold, keys.iter().map(SigningKey::public).collect()).map_err(wrong)?;
    let definition = Definition::new(&arguments.name, roots).map_err(wrong)?;
    let here = std::env::current_dir().map_err(|error| Failure::system("the current directory", &error))?;
    let texts = if arguments.source.is_empty() {
        // A list beside the file, until its operator has a place for it.
        vec![arguments.output.join(LIST_FILE_NAME).display().to_string()]
    } else {
        arguments.source.clone()
    };
    let mut sources = Vec::new();
    for text in &texts {
        let source = Source::parse(text, &here).map_err(|problem| usage(format!("--source {problem}")))?;
        if source.is_plain_http() && !arguments.danger_http {
            let problem = format!("--source {source}: whoever is on the way can hold newer lists back; --danger-http allows it");
            return Err(usage(problem));
        }
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    if sources.len() > SOURCES {
        return Err(usage(format!("--source: at most {SOURCES} are allowed")));
    }
    let ca_pem = arguments.ca.as_deref().map(read_ca).transpose()?;
    let params = if arguments.private { Params::private() } else { Params::DEFAULT };
    Ok(NetworkFile { definition, sources, ca_pem, danger_http: arguments.danger_http, params })
}

fn read_ca(path: &Path) -> Result<String, Failure> {
    let pem = fs::read_to_string(path).map_err(|error| Failure::system(path.display(), &error))?;
    certificates(&pem).map_err(|problem| Failure::new(Kind::Failed, format_args!("{}: {problem}", path.display())))?;
    Ok(pem)
}

fn write_network_file(path: &Path, network: &NetworkFile) -> Result<(), Failure> {
    let text = format!(
        "# The network {}. Who has this file can join by it: `port17 init --network {}`.\n\
         # Its lists count when {} of these {} root keys have signed them.\n\n{}",
        network.definition.name(),
        network.file_name(),
        network.definition.roots().threshold(),
        network.definition.roots().keys().len(),
        network.to_toml(),
    );
    // What was written must be what is read.
    NetworkFile::parse(&text, path)?;
    let failed = |error| Failure::system(path.display(), &error);
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

fn describe(network: &NetworkFile, file: &Path, keys: &[PathBuf], list: Option<&Path>) -> String {
    let keys: Vec<String> = keys.iter().map(|path| path.display().to_string()).collect();
    let sources: Vec<String> = network.sources.iter().map(ToString::to_string).collect();
    let (file, threshold) = (file.display(), usize::from(network.definition.roots().threshold()));
    let signing: Vec<String> = keys.iter().take(threshold).map(|key| format!("--key {key}")).collect();
    let to = list.map_or_else(String::new, |list| format!(" --list {}", list.display()));
    format!(
        "network   {}\nfile      {file}: give it to everybody who shall join\n\
         keys      {}: keep them secret, best offline; who has {threshold} of {} decides who is trusted\n\
         sources   {}: put the signed list there\n\n\
         What is next:\n\
         1. on each node:    port17 init --network {file} --address IP:PORT, then port17 node\n\
         \x20                   (some of them must be exits: --exit \"accept tcp *:80,443\")\n\
         2. on each node:    port17 bottle export --output NAME.bottle\n\
         3. here:            port17 network sign --network {file} {}{to} *.bottle\n\
         4. put {LIST_FILE_NAME} where the sources are; nodes and clients find it by themselves\n\
         5. on each client:  port17 init --network {file}, then port17 client\n",
        network.definition.name(),
        keys.join(", "),
        keys.len(),
        sources.join(", "),
        signing.join(" "),
    )
}
