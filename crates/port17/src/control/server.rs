//! The daemon's end of the control API: one request a connection, everything bounded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::{CIRCUITS_PATH, Daemon, MAP_PATH, RELOAD_PATH, ROUTE_PATH, Refusal, RefusalCode, STATUS_PATH, VERSION};

/// What an asker may use up. Askers are this user or root; the bounds are against their mistakes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Askers at once; more wait.
    askers: usize,
    /// Bytes of a request's head.
    head_bytes: usize,
    /// Bytes of a request's body: a wish for a route that excludes a few hundred nodes.
    body_bytes: usize,
    /// How long the head may take, and how long the body.
    patience: Duration,
    /// How long all of it may take, the reading of the answer too.
    exchange: Duration,
}

impl Bounds {
    /// What the control socket allows.
    pub const DEFAULT: Self = Self {
        askers: 32,
        head_bytes: 16 * 1024,
        body_bytes: 64 * 1024,
        patience: Duration::from_secs(5),
        exchange: Duration::from_secs(30),
    };
}

type Answer = Response<Full<Bytes>>;

/// Answers whoever connects; never returns. Dropping the future ends every exchange.
pub(super) async fn serve<D: Daemon>(listener: &UnixListener, daemon: Arc<D>, bounds: Bounds) {
    let places = Arc::new(Semaphore::new(bounds.askers));
    let mut exchanges = tokio::task::JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while exchanges.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let daemon = Arc::clone(&daemon);
                exchanges.spawn(async move {
                    // Whoever takes too long is left.
                    let _ = timeout(bounds.exchange, exchange(stream, daemon, bounds)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket accepts nobody for a second");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// One asker's connection: a request, its answer, and no more.
pub async fn exchange<D: Daemon>(stream: impl AsyncRead + AsyncWrite + Unpin, daemon: Arc<D>, bounds: Bounds) {
    let service = service_fn(|request| {
        let daemon = Arc::clone(&daemon);
        async move { Ok::<_, Infallible>(answer(request, &*daemon, bounds).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.patience)
        .max_buf_size(bounds.head_bytes)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a control connection ended early");
    }
}

async fn answer<D: Daemon>(request: Request<Incoming>, daemon: &D, bounds: Bounds) -> Answer {
    // An asker of the version before this one or after it meets a path or a method it did not expect: both are said.
    let wanted = match request.uri().path() {
        STATUS_PATH | MAP_PATH | CIRCUITS_PATH => Method::GET,
        ROUTE_PATH | RELOAD_PATH => Method::POST,
        path => return refuse(&Refusal::new(RefusalCode::NotFound, format_args!("there is no {path}"))),
    };
    if *request.method() != wanted {
        let refusal = Refusal::new(RefusalCode::Method, format_args!("{} is asked by {wanted}", request.uri().path()));
        let mut answer = refuse(&refusal);
        answer
            .headers_mut()
            .insert(header::ALLOW, header::HeaderValue::from_static(if wanted == Method::GET { "GET" } else { "POST" }));
        return answer;
    }
    let path = request.uri().path().to_owned();
    let body = match body_of(request.into_body(), bounds).await {
        Ok(body) => body,
        Err(refusal) => return refuse(&refusal),
    };
    match &*path {
        STATUS_PATH => either(daemon.status().await),
        MAP_PATH => either(daemon.map().await),
        CIRCUITS_PATH => either(daemon.circuits()),
        ROUTE_PATH => either(wish_in(&body).and_then(|wish| daemon.draw_route(&wish))),
        _ => either(daemon.reload().await),
    }
}

async fn body_of(body: Incoming, bounds: Bounds) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::new(RefusalCode::TooLarge, format_args!("a body has at most {} bytes", bounds.body_bytes));
    // One that is announced as too long is not waited for.
    if body.size_hint().lower() > bounds.body_bytes as u64 {
        return Err(too_large());
    }
    let body = timeout(bounds.patience, Limited::new(body, bounds.body_bytes).collect()).await;
    let late =
        |_| Refusal::new(RefusalCode::Timeout, format_args!("the body did not come within {} s", bounds.patience.as_secs()));
    match body.map_err(late)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Refusal::new(RefusalCode::BadRequest, format_args!("the body cannot be read: {error}"))),
    }
}

/// No body asks for the defaults.
fn wish_in<W: DeserializeOwned + Default>(body: &[u8]) -> Result<W, Refusal> {
    if body.is_empty() {
        return Ok(W::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(RefusalCode::BadRequest, format_args!("the body is not what is expected: {error}")))
}

fn either(result: Result<impl Serialize, Refusal>) -> Answer {
    match result {
        Ok(value) => succeed(&value),
        Err(refusal) => refuse(&refusal),
    }
}

fn succeed(value: &impl Serialize) -> Answer {
    respond(StatusCode::OK, value)
}

fn refuse(refusal: &Refusal) -> Answer {
    respond(refusal.code.status(), refusal)
}

fn respond(status: StatusCode, value: &impl Serialize) -> Answer {
    // Strings, numbers and lists always have a form.
    let (status, body) = match serde_json::to_vec(value) {
        Ok(body) => (status, body),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if let Ok(version) = header::HeaderValue::try_from(format!("port17/{VERSION}")) {
        headers.insert(header::SERVER, version);
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::JoinHandle;

    use super::super::{Circuits, MeshMap, Reloaded, Role, RouteSample, RouteWish, Status};
    use super::*;

    struct Example;

    impl Daemon for Example {
        async fn status(&self) -> Result<Status, Refusal> {
            Ok(Status::of(Role::Node))
        }

        async fn map(&self) -> Result<MeshMap, Refusal> {
            Ok(MeshMap::default())
        }

        fn circuits(&self) -> Result<Circuits, Refusal> {
            Err(Refusal::new(RefusalCode::NotAClient, "a node"))
        }

        fn draw_route(&self, wish: &RouteWish) -> Result<RouteSample, Refusal> {
            Err(Refusal::new(RefusalCode::NoRoute, format_args!("{:?}", wish.hops)))
        }

        async fn reload(&self) -> Result<Reloaded, Refusal> {
            Ok(Reloaded::default())
        }
    }

    /// A served socket, and the directory that goes with it.
    struct Served {
        path: PathBuf,
        serving: JoinHandle<()>,
        _root: tempfile::TempDir,
    }

    impl Drop for Served {
        fn drop(&mut self) {
            self.serving.abort();
        }
    }

    fn served(bounds: Bounds) -> Served {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let serving = tokio::spawn(async move { serve(&listener, Arc::new(Example), bounds).await });
        Served { path, serving, _root: root }
    }

    const HASTY: Bounds = Bounds { patience: Duration::from_millis(50), exchange: Duration::from_millis(400), ..Bounds::DEFAULT };

    /// The whole answer to some bytes.
    async fn tell(path: &Path, request: &str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A server that has heard enough may reset what it has not read.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    fn request(method: &str, path: &str, body: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn a_wrong_path_or_method_is_said() {
        let served = served(Bounds::DEFAULT);
        for (method, path, status, code) in [
            ("GET", "/", "404", "not_found"),
            ("GET", "/v2/status", "404", "not_found"),
            ("POST", "/v1/status", "405", "method"),
            ("DELETE", "/v1/map", "405", "method"),
            ("GET", "/v1/route", "405", "method"),
            ("GET", "/v1/reload", "405", "method"),
            ("GET", "/v1/circuits", "409", "not_a_client"),
        ] {
            let answer = tell(&served.path, &request(method, path, "")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
            assert!(answer.contains(&format!("\"code\":\"{code}\"")) && answer.contains("server: port17/"), "{answer}");
        }
        assert!(tell(&served.path, &request("GET", "/v1/route", "")).await.contains("allow: POST"));
        assert!(tell(&served.path, &request("GET", "/v1/status?x=1", "")).await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn a_body_is_read_strictly_or_not_needed() {
        let served = served(Bounds::DEFAULT);
        let route = |body: &str| request("POST", "/v1/route", body);
        assert!(tell(&served.path, &route("")).await.contains("\"error\":\"None\""));
        assert!(tell(&served.path, &route("{\"hops\": 2}")).await.contains("\"error\":\"Some(2)\""));
        for bad in ["{", "3", "{\"hops\": 256}", "{\"hopps\": 2}", "\u{0}"] {
            let answer = tell(&served.path, &route(bad)).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("bad_request"), "{bad}: {answer}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_refused_before_it_is_read() {
        let served = served(Bounds::DEFAULT);
        let announced = "POST /v1/route HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n";
        let chunk = format!("{:x}\r\n{}\r\n", 40_000, "x".repeat(40_000));
        let endless = format!("POST /v1/route HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}");
        for request in [announced, &endless] {
            let answer = tell(&served.path, request).await;
            assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("too_large"), "{answer}");
        }
    }

    #[tokio::test]
    async fn what_is_no_http_ends_and_disturbs_nobody() {
        let served = served(HASTY);
        let long_head = format!("GET /v1/status HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        for garbage in ["\u{16}\u{3}\u{1}", "hello\r\n\r\n", &long_head, "GET /v1/status HTTP/1.1\r\nHost: x\r\n"] {
            let answer = tell(&served.path, garbage).await;
            assert!(!answer.contains("200 OK"), "{answer}");
        }
        assert!(tell(&served.path, &request("GET", "/v1/status", "")).await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn a_slow_body_is_answered_and_a_slow_head_is_left() {
        let served = served(HASTY);
        let answer = tell(&served.path, "POST /v1/route HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{").await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("timeout"), "{answer}");
        // It ends by itself: the answer to half a head is read to its end.
        tell(&served.path, "GET /v1/st").await;
    }

    #[tokio::test]
    async fn askers_that_say_nothing_hold_the_others_up_for_a_while_only() {
        let served = served(Bounds { askers: 2, ..HASTY });
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(UnixStream::connect(&served.path).await.unwrap());
        }
        assert!(tell(&served.path, &request("GET", "/v1/status", "")).await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn one_request_is_answered_on_a_connection() {
        let served = served(Bounds::DEFAULT);
        let twice = request("GET", "/v1/status", "").repeat(2);
        assert_eq!(tell(&served.path, &twice).await.matches("HTTP/1.1 200").count(), 1);
    }
}
