//! The ready file: how scripts learn that the demo stands, where everything is, and who carries cells.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::plan::{ORIGIN_NAME, Plan};

/// What the file says.
#[derive(Debug, Serialize)]
pub(super) struct Ready {
    /// The client's SOCKS and HTTP proxy.
    socks: String,
    /// The client's control socket, absolute.
    control: PathBuf,
    /// The control socket of each member.
    controls: BTreeMap<String, PathBuf>,
    /// The network file: what joins the demo's network.
    network: PathBuf,
    /// The origin's address, for the direct way.
    origin: String,
    /// The origin's name, which the exits alone know.
    origin_name: String,
    /// Every process that carries a cell, by member.
    processes: BTreeMap<String, u32>,
    /// Seconds from the demo's first line to the first byte through the mesh.
    formed_s: Option<f64>,
}

impl Ready {
    pub(super) fn new(plan: &Plan, processes: BTreeMap<String, u32>, formed: Option<Duration>) -> Self {
        Self {
            socks: plan.socks.to_string(),
            control: plan.control.clone(),
            controls: plan.members.iter().map(|member| (member.name.clone(), member.config.control.clone())).collect(),
            network: plan.network.file.clone(),
            origin: format!("http://{}", plan.origin),
            origin_name: format!("http://{ORIGIN_NAME}:{}", plan.origin.port()),
            processes,
            formed_s: formed.map(|formed| formed.as_secs_f64()),
        }
    }
}

/// The file's place.
#[derive(Debug)]
pub(super) struct ReadyFile {
    path: PathBuf,
}

impl ReadyFile {
    /// Removes what an earlier run left, since it says what no longer holds, and tries whether the file can be written.
    pub(super) fn prepare(path: &Path) -> io::Result<Self> {
        let this = Self { path: path.to_owned() };
        fs::write(this.beside(), "")?;
        fs::remove_file(this.beside())?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(this),
        }
    }

    /// Writes it; a reader finds the old or the new one.
    pub(super) fn write(&self, ready: &Ready) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(ready)?;
        text.push('\n');
        fs::write(self.beside(), text)?;
        fs::rename(self.beside(), &self.path)
    }

    fn beside(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ports::Ports;
    use super::*;

    #[test]
    fn file_appears_whole_and_replaces_what_was_left() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("ready.json");
        fs::write(&path, "old").unwrap();
        let file = ReadyFile::prepare(&path).unwrap();
        assert!(!path.exists());

        let plan = Plan::make(1, 1, &mut Ports::new()).unwrap();
        file.write(&Ready::new(&plan, [("client".to_owned(), 1), ("node-1".to_owned(), 2)].into(), None)).unwrap();

        let ready: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(ready["socks"], plan.socks.to_string());
        assert_eq!(ready["origin"], format!("http://{}", plan.origin));
        assert_eq!(ready["origin_name"], format!("http://origin.demo:{}", plan.origin.port()));
        assert_eq!(ready["processes"], serde_json::json!({"client": 1, "node-1": 2}));
        assert!(Path::new(ready["control"].as_str().unwrap()).is_absolute());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_known_at_once() {
        assert!(ReadyFile::prepare(Path::new("/nonexistent/ready.json")).is_err());
    }
}
