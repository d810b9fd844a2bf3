//! The daemon's end of the control API: one request a connection, everything bounded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::{CIRCUITS_PATH, Daemon, MAP_PATH, RELOAD_PATH, ROUTE_PATH, Refusal, RefusalCode, STATUS_PATH, VERSION};

/// What an asker may use up. Askers are this user or root; the bounds are against their mistakes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
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
    pub(super) const DEFAULT: Self = Self {
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

async fn exchange<D: Daemon>(stream: UnixStream, daemon: Arc<D>, bounds: Bounds) {
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
        STATUS_PATH => succeed(&daemon.status()),
        MAP_PATH => either(daemon.map().await),
        CIRCUITS_PATH => either(daemon.circuits()),
        ROUTE_PATH => either(wish_in(&body).and_then(|wish| daemon.draw_route(&wish))),
        _ => either(daemon.reload().await),
    }
}

async fn body_of(body: Incoming, bounds: Bounds) -> Result<Bytes, Refusal> {
    let body = timeout(bounds.patience, Limited::new(body, bounds.body_bytes).collect()).await;
    let late =
        |_| Refusal::new(RefusalCode::Timeout, format_args!("the body did not come within {} s", bounds.patience.as_secs()));
    match body.map_err(late)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Refusal::new(RefusalCode::TooLarge, format_args!("a body has at most {} bytes", bounds.body_bytes)))
        }
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
