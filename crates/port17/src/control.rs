//! The control API: HTTP/JSON on a Unix socket of mode 0600.
//!
//! The daemon gives a [`StatusSource`]; the command line asks by [`status`].

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};

/// An answer of the control API; a status of 64 links takes about 20 KiB.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// How long a daemon may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// What a daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Node or client.
    pub role: Role,
    /// The software's version.
    pub version: String,
    /// A node's NodeID; a client has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node_id: Option<String>,
    /// A node's PortName.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub portname: Option<String>,
    /// Where a client accepts SOCKS and HTTP.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub socks: Option<SocketAddr>,
    /// What it waits for, in words; none when it is ready.
    pub waiting_for: Option<String>,
    /// Its links, by NodeID.
    pub links: Vec<LinkStatus>,
    /// Circuits on all lanes.
    pub circuits: u64,
    /// A client's own circuits.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub standing: Vec<CircuitStatus>,
    /// What was refused or went wrong, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub counts: BTreeMap<String, u64>,
}

/// One circuit of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitStatus {
    /// The PortNames of its hops, guard first.
    pub route: Vec<String>,
    /// Streams on it.
    pub streams: usize,
    /// Seconds since it was built.
    pub age_s: u64,
    /// Whether every hop has answered.
    pub open: bool,
}

/// A daemon's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Forwards cells.
    Node,
    /// Has a proxy port.
    Client,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The neighbour.
    pub node_id: String,
    /// Its PortName, where its Bottle is known.
    pub portname: Option<String>,
    /// Whether circuits can use it.
    pub up: bool,
    /// Lanes that are up.
    pub lanes: u8,
    /// Why it is not up, in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waiting_for: Option<String>,
}

/// Who knows the daemon's status.
pub trait StatusSource: Send + Sync + 'static {
    /// The status now.
    fn status(&self) -> Status;
}

impl<F: Fn() -> Status + Send + Sync + 'static> StatusSource for F {
    fn status(&self) -> Status {
        self()
    }
}

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
    #[error("{}: no daemon listens there; start `port17 client`, or name its socket by --control", path.display())]
    NoDaemon {
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
}

/// The daemon's end of the control socket; the file goes with it.
#[derive(Debug)]
pub struct ControlSocket {
    listener: Option<UnixListener>,
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
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&beside, "be removed")(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&beside).map_err(failed(path, "be opened"))?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).map_err(failed(path, "be closed to others"))?;
        fs::rename(&beside, path).map_err(failed(path, "be put in its place"))?;
        Ok(Self { listener: Some(listener), path: path.to_owned() })
    }

    /// Serves `source`; never returns. Dropping the future removes the socket.
    pub async fn serve<S: StatusSource>(mut self, source: Arc<S>) {
        let Some(listener) = self.listener.take() else { return };
        let router = Router::new().route("/v1/status", get(status_of::<S>)).with_state(source);
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "the control socket stopped");
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Nothing more can be done; the next daemon replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

async fn status_of<S: StatusSource>(State(source): State<Arc<S>>) -> Json<Status> {
    Json(source.status())
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> ControlError {
    let path = path.to_owned();
    move |source| ControlError::Io { path, action, source }
}

fn make_directory(path: &Path) -> Result<(), ControlError> {
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.exists()) else {
        return Ok(());
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory, "have its directory made"))
}

/// A missing socket needs no replacing; one that nobody listens on may be; a file of another kind is somebody's.
fn check_replaceable(path: &Path, error: io::Error) -> Result<(), ControlError> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        io::ErrorKind::ConnectionRefused if is_socket(path) => Ok(()),
        _ => Err(failed(path, "be opened")(error)),
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Asks the daemon at `socket` for its status.
///
/// # Errors
/// When no daemon answers there within ten seconds.
pub async fn status(socket: &Path) -> Result<Status, ControlError> {
    let answer = tokio::time::timeout(ANSWER_DEADLINE, fetch(socket, "/v1/status")).await;
    let answer = answer.map_err(|_| wrong_answer(socket, "none within 10 s"))??;
    serde_json::from_slice(&answer).map_err(|error| wrong_answer(socket, error))
}

async fn fetch(socket: &Path, path: &str) -> Result<Bytes, ControlError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NoDaemon { path: socket.to_owned() },
        _ => failed(socket, "be reached")(error),
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| wrong_answer(socket, error))?;
    let request = Request::get(path).header(header::HOST, "port17").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| wrong_answer(socket, error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| wrong_answer(socket, error))?;
        if response.status() != StatusCode::OK {
            return Err(wrong_answer(socket, response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| wrong_answer(socket, error))
    };
    tokio::pin!(exchange, connection);
    // The exchange needs the connection to be driven; where that one ends first, the exchange knows.
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

fn wrong_answer(socket: &Path, problem: impl std::fmt::Display) -> ControlError {
    ControlError::Answer { path: socket.to_owned(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Status {
        Status {
            role: Role::Client,
            version: "0.1.0".into(),
            node_id: None,
            portname: None,
            socks: Some(([127, 0, 0, 1], 1080).into()),
            waiting_for: Some("a link to the guard".into()),
            links: vec![LinkStatus { node_id: "a".into(), portname: None, up: false, lanes: 0, waiting_for: None }],
            circuits: 0,
            standing: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn status_is_served_and_the_socket_goes_with_the_daemon() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run/control.sock");
        let socket = ControlSocket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let serving = tokio::spawn(socket.serve(Arc::new(example)));
        assert_eq!(status(&path).await.unwrap(), example());

        assert!(matches!(ControlSocket::bind(&path).await, Err(ControlError::InUse { .. })));

        serving.abort();
        let _ = serving.await;
        assert!(!path.exists());
        assert!(matches!(status(&path).await, Err(ControlError::NoDaemon { .. })));
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

    #[tokio::test]
    async fn what_is_no_daemon_gives_an_error() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                .await
                .unwrap();
            stream
        });
        assert!(matches!(status(&path).await, Err(ControlError::Answer { .. })));
        drop(answering);
    }
}
