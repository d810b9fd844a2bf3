use std::fmt;
use std::io;

use port17::config::ConfigError;
use port17::control::{ControlError, RefusalCode};
use port17::daemon::DaemonError;
use port17::keystore::KeystoreError;
use port17::network_file::NetworkFileError;

/// Why a command ended without success; its number is the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Anything else.
    Failed = 1,
    /// The command line.
    Usage = 2,
    /// The configuration, or what it names.
    Configuration = 3,
    /// No daemon, or one that starts or ends; no links.
    NoNetwork = 4,
    /// Links, but no route.
    NoRoute = 5,
    /// Ports, files, memory, permission.
    Resource = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

/// A failed command, with what failed, why, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string() }
    }

    /// One that the command's output has said already.
    pub(crate) fn silent(kind: Kind) -> Self {
        Self::new(kind, "")
    }

    /// A failed operation on a file or a socket.
    pub(crate) fn system(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(Kind::Resource, format_args!("{what}: {error}"))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let kind = match &error {
            ConfigError::Read { source, .. } => unreadable(source),
            ConfigError::Invalid(_) => Kind::Configuration,
        };
        Self::new(kind, error)
    }
}

impl From<NetworkFileError> for Failure {
    fn from(error: NetworkFileError) -> Self {
        let kind = match &error {
            NetworkFileError::Read { source, .. } => unreadable(source),
            NetworkFileError::Invalid(_) => Kind::Configuration,
        };
        Self::new(kind, error)
    }
}

/// What kind of failure it is that a file which the configuration needs cannot be read.
fn unreadable(error: &io::Error) -> Kind {
    if error.kind() == io::ErrorKind::PermissionDenied { Kind::Resource } else { Kind::Configuration }
}

impl From<KeystoreError> for Failure {
    fn from(error: KeystoreError) -> Self {
        let kind = match &error {
            KeystoreError::Damaged { .. } => Kind::Configuration,
            KeystoreError::Io { .. } | KeystoreError::Open { .. } | KeystoreError::Owner { .. } | KeystoreError::InUse { .. } => {
                Kind::Resource
            }
        };
        Self::new(kind, error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let kind = match &error {
            ControlError::NoDaemon { .. } => Kind::NoNetwork,
            ControlError::Io { .. } | ControlError::InUse { .. } | ControlError::Permission { .. } => Kind::Resource,
            ControlError::Answer { .. } => Kind::Failed,
            ControlError::Refused(refusal) => match refusal.code {
                RefusalCode::NoRoute => Kind::NoRoute,
                RefusalCode::Unavailable => Kind::NoNetwork,
                RefusalCode::BadRequest | RefusalCode::UnknownNode => Kind::Usage,
                RefusalCode::Configuration => Kind::Configuration,
                RefusalCode::NotFound
                | RefusalCode::Method
                | RefusalCode::Timeout
                | RefusalCode::NotAClient
                | RefusalCode::TooLarge
                | RefusalCode::Other => Kind::Failed,
            },
        };
        Self::new(kind, error)
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Keystore(error) => error.into(),
            DaemonError::Control(error) => error.into(),
            DaemonError::Network(error) => error.into(),
            DaemonError::Configuration(_) | DaemonError::Tls(_) => Self::new(Kind::Configuration, error),
            DaemonError::Listen { .. }
            | DaemonError::Proxy(_)
            | DaemonError::Bottles { .. }
            | DaemonError::Store(_)
            | DaemonError::System(_) => Self::new(Kind::Resource, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_permission_is_no_wrong_configuration() {
        let read = |kind: io::ErrorKind| Failure::from(ConfigError::Read { path: "/x".into(), source: kind.into() });
        let (denied, missing) = (read(io::ErrorKind::PermissionDenied), read(io::ErrorKind::NotFound));
        assert_eq!(denied.kind, Kind::Resource);
        assert!(
            denied.message.contains("as the user whose file it is") && !denied.message.contains("init"),
            "{}",
            denied.message
        );
        assert_eq!(missing.kind, Kind::Configuration);
        assert!(missing.message.contains("port17 init"), "{}", missing.message);
    }
}
