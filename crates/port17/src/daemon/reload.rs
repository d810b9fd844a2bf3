//! Looking again, while running, at what the daemon was configured with.
//!
//! A network file's sources and CA, and lists and Bottles themselves, are taken at once. A key of the configuration is not: it is
//! named, so that nobody believes in a change that has not come. What is wrong is refused as a whole, and all stays as it was.

use tokio::sync::mpsc;

use crate::config::{Config, ConfigError};

/// Reads the configuration again.
type Read = Box<dyn Fn() -> Result<Config, ConfigError> + Send>;

/// How a running daemon is told to look again.
pub struct Reloading {
    signals: mpsc::Receiver<()>,
    read: Option<Read>,
}

impl Reloading {
    /// Looks again whenever `signals` gives something; `read` gives the configuration as it is then.
    pub fn new(signals: mpsc::Receiver<()>, read: impl Fn() -> Result<Config, ConfigError> + Send + 'static) -> Self {
        Self { signals, read: Some(Box::new(read)) }
    }

    /// For a daemon whose configuration is not a file's.
    pub fn never() -> Self {
        Self { signals: mpsc::channel(1).1, read: None }
    }

    /// The next time that somebody asks.
    pub(super) async fn asked(&mut self) {
        if self.signals.recv().await.is_none() {
            std::future::pending().await
        }
    }

    /// The keys whose values are others now than in `running`.
    ///
    /// # Errors
    /// What is wrong with the configuration, with file, line and key.
    pub(super) fn changed_keys(&self, running: &Config) -> Result<Vec<String>, String> {
        let Some(read) = &self.read else { return Ok(Vec::new()) };
        let new = read().map_err(|error| error.to_string())?;
        Ok(changed_keys(&table(running), &table(&new)))
    }
}

fn table(config: &Config) -> toml::Table {
    // It was written by the same library a moment ago.
    config.to_toml().parse().unwrap_or_default()
}

fn changed_keys(old: &toml::Table, new: &toml::Table) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    changed
        .flat_map(|name| match (old.get(name), new.get(name)) {
            (Some(toml::Value::Table(old)), Some(toml::Value::Table(new))) => {
                changed_keys(old, new).into_iter().map(|key| format!("{name}.{key}")).collect()
            }
            _ => vec![name.clone()],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Places;

    fn config(text: &str) -> Config {
        Config::parse(text, "/etc/port17/port17.toml".as_ref(), &Places::of_the_system()).unwrap()
    }

    #[test]
    fn changed_keys_are_named_with_their_table() {
        let old = config("label = \"one\"\n[client]\nhops = 4\n[exit]\npolicy = [\"accept tcp *:80\"]");
        let new = "group = \"g\"\n[client]\nhops = 5\n[exit]\npolicy = [\"accept tcp *:80\"]\n[exit.hosts]\na = \"192.0.2.1\"";
        let reloading = Reloading::new(mpsc::channel(1).1, move || Ok(config(new)));
        assert_eq!(reloading.changed_keys(&old).unwrap(), ["client.hops", "exit.hosts.a", "group", "label"]);
        assert_eq!(reloading.changed_keys(&config(new)).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_broken_configuration_is_refused_with_file_line_and_key() {
        let broken = || Config::parse("[client]\nhops = 9", "/etc/x.toml".as_ref(), &Places::of_the_system());
        let error = Reloading::new(mpsc::channel(1).1, broken).changed_keys(&config("")).unwrap_err();
        assert!(error.starts_with("/etc/x.toml:2: client.hops: 9"), "{error}");
    }
}
