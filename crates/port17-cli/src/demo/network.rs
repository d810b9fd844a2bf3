//! The demo's own network: a root key that lives as long as the demo, a network file, and the list that it signs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use port17::bottles::read_bottle;
use port17::keystore::system_entropy;
use port17::list_file;
use port17::network_file::{NetworkFile, Source};
use port17_proto::crypto::{Entropy, SigningKey};
use port17_proto::network::list::ListContent;
use port17_proto::network::{Definition, Roots, SignedList};
use port17_proto::params::Params;

use super::plan::Member;
use crate::bottle::now_ms;
use crate::failure::Failure;

/// A demo that runs longer is no demo.
const LIST_LIFE_S: u64 = 24 * 3600;
/// How often the Bottles are looked for that the list is to name.
const AGAIN: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct DemoNetwork {
    /// What joins it.
    pub(super) file: PathBuf,
    list: PathBuf,
    definition: Definition,
    root: Root,
}

/// The secret that makes trust; never shown.
struct Root(SigningKey);

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Root")
    }
}

impl DemoNetwork {
    /// Draws the root key and writes the network file into `directory`; there is no list yet.
    pub(super) fn make(directory: &Path) -> Result<Self, Failure> {
        let mut entropy = entropy()?;
        let root = SigningKey::generate(&mut entropy);
        // A name and one key are a network.
        let roots = Roots::new(1, vec![root.public()]).expect("one root of one");
        let definition = Definition::new("demo", roots).expect("demo is a name");
        let list = directory.join(list_file::LIST_FILE_NAME);
        let file = NetworkFile {
            definition: definition.clone(),
            sources: vec![Source::File(list.clone())],
            ca_pem: None,
            danger_http: false,
            params: Params::demo(),
        };
        let path = directory.join(file.file_name());
        fs::write(&path, file.to_toml()).map_err(|error| Failure::system(path.display(), &error))?;
        Ok(Self { file: path, list, definition, root: Root(root) })
    }

    /// Waits for the Bottles of the nodes that are to be trusted, and publishes the list that names them.
    pub(super) async fn publish_list(&self, members: &[Member], waits_for: &mut String) -> Result<(), Failure> {
        let mut nodes = Vec::new();
        for member in members.iter().filter(|member| member.is_listed) {
            let Some(id) = member.node else { continue };
            *waits_for = format!("the Bottle of {}", member.name);
            let path = member.config.bottles.join(format!("{id}.bottle"));
            let bottle = loop {
                match read_bottle(&path) {
                    Ok(bottle) => break bottle,
                    Err(_) => tokio::time::sleep(AGAIN).await,
                }
            };
            nodes.push(bottle);
        }
        let list = self.sign(nodes)?;
        list_file::write(&self.list, &list).map_err(|error| Failure::system(self.list.display(), &error))
    }

    fn sign(&self, nodes: Vec<Vec<u8>>) -> Result<SignedList, Failure> {
        let issued_s = now_ms() / 1000;
        let content = ListContent {
            network: self.definition.id(),
            seq: issued_s,
            issued_s,
            expires_s: issued_s + LIST_LIFE_S,
            random: entropy()?.bytes(),
            nodes,
            params: Params::demo(),
            roots: None,
            releases: Vec::new(),
            unknown: std::collections::BTreeMap::new(),
        };
        let payload = content.encode().map_err(|error| Failure::new(crate::failure::Kind::Failed, error))?;
        let mut list = SignedList::new(payload);
        list.sign(&self.root.0);
        Ok(list)
    }
}

fn entropy() -> Result<Entropy, Failure> {
    system_entropy().map_err(|error| Failure::system("cannot make keys", &error))
}
