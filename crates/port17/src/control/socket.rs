//! The control socket as a file: who may open it, and what happens to one that is there already.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};

use super::server::{Bounds, serve};
use super::{Daemon, Refusal};

/// Why the control socket cannot be opened or asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The system refused it.
    #[error("{}: the control socket cannot {action}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A daemon has it.
    #[error("{}: another daemon answers on this control socket; stop it, or name another one by `control = …`", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Nobody listens.
    #[error("{}: no daemon listens there; start one by `port17 node` or `port17 client`, or name its socket by --control", path.display())]
    NoDaemon {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is another user's.
    #[error("{}: no permission for this control socket: ask as the user that runs the daemon, or as root", path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// The answer is none.
    #[error("{}: the daemon gave no valid answer: {problem}", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The daemon answered that it cannot.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl ControlError {
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    /// Why a connection to the socket failed.
    pub(super) fn connecting(path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::NoDaemon { path: path.to_owned() },
            io::ErrorKind::PermissionDenied => Self::Permission { path: path.to_owned() },
            _ => Self::io(path, "be reached")(error),
        }
    }
}

/// The daemon's end of the control socket; the file goes with it.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Opens the socket at `path`. One that a dead daemon left is replaced.
    ///
    /// # Errors
    /// When a daemon answers there, or the system refuses it.
    pub async fn bind(path: &Path) -> Result<Self, ControlError> {
        make_directory(path)?;
        match UnixStream::connect(path).await {
            Ok(_) => return Err(ControlError::InUse { path: path.to_owned() }),
            Err(error) => check_replaceable(path, error)?,
        }
        // Bound beside its place and renamed: at no moment can others connect.
        let beside = path.with_extension("new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(ControlError::io(&beside, "be removed")(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&beside).map_err(ControlError::io(path, "be opened"))?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).map_err(ControlError::io(path, "be closed to others"))?;
        fs::rename(&beside, path).map_err(ControlError::io(path, "be put in its place"))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves `daemon`; never returns. Dropping the future removes the socket.
    pub async fn serve<D: Daemon>(self, daemon: Arc<D>) {
        serve(&self.listener, daemon, Bounds::DEFAULT).await;
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Nothing more can be done; the next daemon replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

fn make_directory(path: &Path) -> Result<(), ControlError> {
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.exists()) else {
        return Ok(());
    };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(ControlError::io(directory, "have its directory made"))
}

/// A missing socket needs no replacing; one that nobody listens on may be; a file of another kind is somebody's.
fn check_replaceable(path: &Path, error: io::Error) -> Result<(), ControlError> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        io::ErrorKind::ConnectionRefused if is_socket(path) => Ok(()),
        _ => Err(ControlError::io(path, "be opened")(error)),
    }
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn socket_and_its_directory_are_private_and_go_with_the_daemon() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run/control.sock");
        let socket = ControlSocket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(ControlSocket::bind(&path).await, Err(ControlError::InUse { .. })));
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn socket_of_a_dead_daemon_is_replaced_and_other_files_are_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(ControlSocket::bind(&path).await.unwrap());

        fs::write(&path, "somebody's").unwrap();
        assert!(matches!(ControlSocket::bind(&path).await, Err(ControlError::Io { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    }

    #[test]
    fn socket_of_another_user_says_whom_to_ask() {
        let error = ControlError::connecting(Path::new("/run/x.sock"), io::ErrorKind::PermissionDenied.into());
        assert!(error.to_string().contains("/run/x.sock: no permission") && error.to_string().contains("root"), "{error}");
    }
}
