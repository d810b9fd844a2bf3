use std::path::PathBuf;

use port17::config::{Config, ConfigError, Places};

use crate::failure::Failure;

/// Where the configuration comes from.
#[derive(Clone)]
pub(crate) struct Settings {
    config: Option<PathBuf>,
    control: Option<PathBuf>,
    places: Places,
}

impl Settings {
    pub(crate) fn new(config: Option<PathBuf>, control: Option<PathBuf>) -> Self {
        Self { config, control, places: Places::of_this_user() }
    }

    /// The configuration file.
    pub(crate) fn path(&self) -> PathBuf {
        let path = self.config.clone().unwrap_or_else(|| self.places.config.clone());
        std::path::absolute(&path).unwrap_or(path)
    }

    /// Whether the file is another one than the user's usual one.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.path() != self.places.config
    }

    /// The places used for what the configuration does not name.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// The configuration; it must be there.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        Ok(self.read()?)
    }

    /// The configuration as it is now, for a daemon that reads it again.
    pub(crate) fn read(&self) -> Result<Config, ConfigError> {
        Ok(self.with_control(Config::load(&self.path(), &self.places)?))
    }

    /// The configuration, or the defaults where none was named and there is none.
    pub(crate) fn load_or_default(&self) -> Result<Config, Failure> {
        match Config::load(&self.path(), &self.places) {
            Err(ConfigError::Read { source, .. }) if self.config.is_none() && source.kind() == std::io::ErrorKind::NotFound => {
                Ok(self.with_control(Config::without_file(&self.places)))
            }
            loaded => Ok(self.with_control(loaded?)),
        }
    }

    /// The control socket of the daemon that is asked. Who names it needs no configuration: it may be broken, or another user's.
    pub(crate) fn control(&self) -> Result<PathBuf, Failure> {
        match &self.control {
            Some(control) => Ok(control.clone()),
            None => Ok(self.load_or_default()?.control),
        }
    }

    fn with_control(&self, mut config: Config) -> Config {
        if let Some(control) = &self.control {
            config.control = std::path::absolute(control).unwrap_or_else(|_| control.clone());
        }
        config
    }
}
