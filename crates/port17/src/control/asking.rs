//! The command line's end of the control API.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{CIRCUITS_PATH, MAP_PATH, RELOAD_PATH, ROUTE_PATH, STATUS_PATH, VERSION};
use super::{Circuits, ControlError, MeshMap, Refusal, Reloaded, RouteSample, RouteWish, Status};

/// An answer of the control API; a map of 10,000 nodes with 20 links each takes about 20 MiB.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// How long a daemon may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Asks the daemon at `socket` for its status.
///
/// # Errors
/// When no daemon answers there within ten seconds.
pub async fn status(socket: &Path) -> Result<Status, ControlError> {
    ask(socket, Method::GET, STATUS_PATH, None::<&()>).await
}

/// Asks the daemon at `socket` for the mesh as it knows it.
///
/// # Errors
/// When no daemon answers there within ten seconds, or it cannot say.
pub async fn map(socket: &Path) -> Result<MeshMap, ControlError> {
    ask(socket, Method::GET, MAP_PATH, None::<&()>).await
}

/// Asks the client at `socket` for its circuits.
///
/// # Errors
/// When no client answers there within ten seconds.
pub async fn circuits(socket: &Path) -> Result<Circuits, ControlError> {
    ask(socket, Method::GET, CIRCUITS_PATH, None::<&()>).await
}

/// Lets the client at `socket` draw a route; nothing is built over it.
///
/// # Errors
/// When no client answers there within ten seconds, or there is no such route.
pub async fn draw_route(socket: &Path, wish: &RouteWish) -> Result<RouteSample, ControlError> {
    ask(socket, Method::POST, ROUTE_PATH, Some(wish)).await
}

/// Lets the daemon at `socket` read its configuration and its network's list again, as SIGHUP does.
///
/// # Errors
/// When no daemon answers there within ten seconds, or the configuration is wrong.
pub async fn reload(socket: &Path) -> Result<Reloaded, ControlError> {
    ask(socket, Method::POST, RELOAD_PATH, None::<&()>).await
}

/// An answer and the version of who gave it.
struct Answer {
    status: StatusCode,
    version: Option<String>,
    body: Bytes,
}

async fn ask<A: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<A, ControlError> {
    let body = body.map(serde_json::to_vec).transpose().map_err(|error| no_answer(socket, error))?;
    let answer = tokio::time::timeout(ANSWER_DEADLINE, fetch(socket, method, path, body.unwrap_or_default())).await;
    let answer = answer.map_err(|_| no_answer(socket, "none within 10 s"))??;
    if answer.status == StatusCode::OK {
        return serde_json::from_slice(&answer.body).map_err(|error| no_answer(socket, explained(&answer, path, &error)));
    }
    Err(match serde_json::from_slice::<Refusal>(&answer.body) {
        // A path that the asker knows and the daemon does not: another version.
        Ok(refusal) if answer.status != StatusCode::NOT_FOUND => ControlError::Refused(refusal),
        Ok(_) | Err(_) => no_answer(socket, explained(&answer, path, &answer.status)),
    })
}

/// What is wrong, and the versions where they differ.
fn explained(answer: &Answer, path: &str, problem: &dyn std::fmt::Display) -> String {
    match answer.version.as_deref() {
        Some(VERSION) => format!("{path}: {problem}"),
        Some(other) => {
            format!("{path}: {problem}; it has version {other}, this command {VERSION}: restart the daemon with this one")
        }
        None => format!("{path}: {problem}; is it another program, or another version than {VERSION}?"),
    }
}

async fn fetch(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<Answer, ControlError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| ControlError::connecting(socket, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| no_answer(socket, error))?;
    let request = Request::builder().method(method).uri(path).header(header::HOST, "port17");
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| no_answer(socket, error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| no_answer(socket, error))?;
        let (status, version) = (response.status(), version_of(&response));
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| no_answer(socket, error))?.to_bytes();
        Ok(Answer { status, version, body })
    };
    tokio::pin!(exchange, connection);
    // The exchange needs the connection to be driven; where that one ends first, the exchange knows.
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

fn version_of<B>(response: &Response<B>) -> Option<String> {
    let server = response.headers().get(header::SERVER)?.to_str().ok()?;
    server.strip_prefix("port17/").map(ToOwned::to_owned)
}

fn no_answer(socket: &Path, problem: impl std::fmt::Display) -> ControlError {
    ControlError::Answer { path: socket.to_owned(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// What is heard of a daemon that answers with these bytes.
    async fn hear(answer: &str) -> Result<Status, ControlError> {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answer = answer.to_owned();
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            // Who asks may have heard enough.
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        let heard = status(&path).await;
        answering.abort();
        heard
    }

    fn with(status: &str, version: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nServer: {version}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn what_is_no_daemon_gives_an_error() {
        for answer in ["", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", "HTTP/1.1 204 No Content\r\n\r\n"] {
            let error = hear(answer).await.unwrap_err();
            assert!(matches!(error, ControlError::Answer { .. }), "{answer}: {error}");
        }
        let error = hear(&with("200 OK", "nginx", "<html>")).await.unwrap_err();
        assert!(error.to_string().contains("is it another program"), "{error}");
    }

    #[tokio::test]
    async fn fields_of_a_later_version_are_ignored_and_missing_ones_are_said() {
        let mut later = serde_json::to_value(Status::of(super::super::Role::Node)).unwrap();
        later["of_a_later_version"] = 1.into();
        assert_eq!(
            hear(&with("200 OK", "port17/9.0.0", &later.to_string())).await.unwrap(),
            Status::of(super::super::Role::Node)
        );

        let object = later.as_object_mut().unwrap();
        object.remove("links");
        let error = hear(&with("200 OK", "port17/0.0.9", &later.to_string())).await.unwrap_err().to_string();
        assert!(error.contains("missing field `links`") && error.contains("it has version 0.0.9"), "{error}");
    }

    #[tokio::test]
    async fn a_path_that_the_daemon_does_not_have_is_a_matter_of_versions() {
        let body = r#"{"error": "there is no /v1/status", "code": "not_found"}"#;
        let error = hear(&with("404 Not Found", "port17/0.0.9", body)).await.unwrap_err().to_string();
        assert!(error.contains("404") && error.contains("it has version 0.0.9"), "{error}");
        let error = hear(&with("404 Not Found", "x", "")).await.unwrap_err();
        assert!(matches!(error, ControlError::Answer { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_refusal_of_a_later_version_is_still_one() {
        let body = r#"{"error": "not on Sundays", "code": "sunday"}"#;
        let Err(ControlError::Refused(refusal)) = hear(&with("418 I'm a teapot", "port17/9.0.0", body)).await else {
            panic!("it is refused")
        };
        assert_eq!((&*refusal.error, refusal.code), ("not on Sundays", super::super::RefusalCode::Other));
    }
}
