//! HTTP/1.1 at the proxy port: CONNECT, and requests in absolute form.
//!
//! A CONNECT becomes a stream. A request in absolute form (`GET http://host/path`) travels through a stream of its own, without
//! what concerns only this connection (hop-by-hop fields, RFC 9110, 7.6.1); the connection to the application stays open for
//! the next one. User name and password of `Proxy-Authorization: Basic` are not checked: they keep streams apart.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Request, Response, StatusCode, Uri, Version, client, server};
use hyper_util::rt::{TokioIo, TokioTimer};
use port17_proto::limits;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::listener::{Entrance, OpenStream, PumpStream, Refusal, close_with};
use super::name;
use super::tunnel::{Isolation, OpenError, Target};
use crate::edge::pump_socket;

/// Between an HTTP exchange and its stream: as much as one read of either side is worth keeping.
const EXCHANGE_BYTES: usize = 64 * 1024;

/// Fields that concern one connection, not the exchange (RFC 9110, 7.6.1), and those that concern this proxy. `Expect` is answered
/// here already.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    header::EXPECT,
];

type Answer = Response<Either<Either<Full<Bytes>, Empty<Bytes>>, ExchangeBody>>;

/// What a request asks for.
#[derive(Debug)]
pub struct Asked<B> {
    /// Where to.
    pub target: Target,
    /// What its stream is kept apart by.
    pub isolation: Isolation,
    /// What becomes of the stream.
    pub use_of_stream: UseOfStream<B>,
}

/// What becomes of a request's stream.
#[derive(Debug)]
pub enum UseOfStream<B> {
    /// CONNECT: it is the application's.
    Tunnel(Request<B>),
    /// This request, as the origin gets it, and its answer travel through it.
    Exchange(Request<B>),
}

/// A stream that waits for its CONNECT to be answered.
type Pending<S> = Mutex<Option<(S, OnUpgrade)>>;

/// Serves a connection that speaks neither version of SOCKS.
pub(super) async fn serve<T: OpenStream>(stream: TcpStream, peer: SocketAddr, entrance: Arc<Entrance<T>>) {
    let mut first = [0; 1];
    if !matches!(stream.peek(&mut first).await, Ok(1)) {
        return;
    }
    // A method begins with a letter; a TLS hello, for one, does not.
    if !first[0].is_ascii_alphabetic() {
        return close_with(stream, NOT_HTTP).await;
    }
    let deadline = entrance.deadlines().handshake;
    let pending: Arc<Pending<T::Stream>> = Arc::default();
    let service = service_fn(|request| {
        let (entrance, pending) = (Arc::clone(&entrance), Arc::clone(&pending));
        async move { Ok::<_, Infallible>(answer(request, peer, &entrance, &pending).await) }
    });
    // An application that ends its side has left (no half-close): else an abandoned answer would keep its stream for ever.
    let served = server(deadline).serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    if let Err(error) = served {
        tracing::debug!(%error, "a proxy connection ended early");
    }
    let waiting = pending.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((opened, upgrade)) = waiting
        && let Ok(upgraded) = upgrade.await
    {
        pump_upgraded(opened, upgraded).await;
    }
}

/// Reads what applications send.
pub fn server(deadline: Duration) -> server::conn::http1::Builder {
    let mut server = server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(deadline)
        .max_buf_size(limits::HTTP_HEAD_BYTES)
        .preserve_header_case(true)
        .auto_date_header(false);
    server
}

const NOT_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 142\r\n\
Connection: close\r\n\r\nport17: this is neither SOCKS nor HTTP.\nThis port is a SOCKS5, SOCKS4a and HTTP proxy, \
reached without TLS: use socks5h:// or http:// for it.\n";

async fn pump_upgraded<S: PumpStream>(opened: S, upgraded: Upgraded) {
    // It is the stream that was given to the server; another type would be a bug, and ends the connection.
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else { return };
    // What the application sent before the answer goes first.
    pump_socket(opened, parts.io.into_inner(), parts.read_buf.to_vec()).await;
}

async fn answer<T: OpenStream>(
    request: Request<Incoming>,
    peer: SocketAddr,
    entrance: &Entrance<T>,
    pending: &Pending<T::Stream>,
) -> Answer {
    let answered = match read(request) {
        Ok(Asked { target, isolation, use_of_stream: UseOfStream::Tunnel(request) }) => {
            connect(request, peer, &target, &isolation, entrance, pending).await
        }
        Ok(Asked { target, isolation, use_of_stream: UseOfStream::Exchange(request) }) => {
            exchange(request, peer, &target, &isolation, entrance).await
        }
        Err(trouble) => Err(trouble),
    };
    answered.unwrap_or_else(Trouble::into_answer)
}

/// What an application's request asks for. Nothing was done for it yet.
///
/// # Errors
/// What is wrong with it.
pub fn read<B>(request: Request<B>) -> Result<Asked<B>, Trouble> {
    let isolation = isolation_of(request.headers())?;
    if request.method() == Method::CONNECT {
        let authority = request.uri().authority().ok_or_else(|| bad("CONNECT needs host:port"))?;
        let target = target_of(authority, None).map_err(Trouble::closing)?;
        return Ok(Asked { target, isolation, use_of_stream: UseOfStream::Tunnel(request) });
    }
    let target = absolute_target(request.uri())?;
    Ok(Asked { target, isolation, use_of_stream: UseOfStream::Exchange(for_origin(request)?) })
}

async fn connect<T: OpenStream>(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    target: &Target,
    isolation: &Isolation,
    entrance: &Entrance<T>,
    pending: &Pending<T::Stream>,
) -> Result<Answer, Trouble> {
    let opened = entrance.open(peer, target, isolation, Bytes::new()).await.map_err(|error| refused(error).closing())?;
    let upgrade = hyper::upgrade::on(&mut request);
    *pending.lock().unwrap_or_else(PoisonError::into_inner) = Some((opened, upgrade));
    Ok(Response::new(Either::Left(Either::Right(Empty::new()))))
}

async fn exchange<T: OpenStream>(
    request: Request<Incoming>,
    peer: SocketAddr,
    target: &Target,
    isolation: &Isolation,
    entrance: &Entrance<T>,
) -> Result<Answer, Trouble> {
    let opened = entrance.open(peer, target, isolation, Bytes::new()).await.map_err(refused)?;

    let (ours, theirs) = tokio::io::duplex(EXCHANGE_BYTES);
    let (mut from_app, mut to_app) = tokio::io::split(theirs);
    let broken_off = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&broken_off);
    let pump = AbortOnDrop(tokio::spawn(async move {
        // Told before the pipe closes: where that is the body's end, a cut one would pass for whole.
        let ended = opened.pump(&mut from_app, &mut to_app).await;
        told.store(ended.is_err(), Ordering::Release);
    }));
    let handshake = client::conn::http1::Builder::new().preserve_header_case(true).handshake(TokioIo::new(ours)).await;
    let (mut sender, connection) = handshake.map_err(|_| broken())?;
    let driver = AbortOnDrop(tokio::spawn(async move {
        // Its error is the response's, or the body's.
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(|_| broken())?;
    Ok(for_application(response).map(|incoming| Either::Right(ExchangeBody { incoming, broken_off, _tasks: [pump, driver] })))
}

/// The request as the origin gets it: in origin form, without what concerns this connection.
fn for_origin<B>(request: Request<B>) -> Result<Request<B>, Trouble> {
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().map(|authority| without_user(authority).to_owned()).unwrap_or_default();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().map_err(|_| bad("the path cannot be sent on"))?;
    strip_hop_by_hop(&mut parts.headers);
    // RFC 9112, 3.2.2: the request's own words count. Another Host would let an application speak to another site than the one that
    // was reviewed.
    let host = HeaderValue::from_str(&authority).map_err(|_| bad("the host cannot be sent on"))?;
    parts.headers.insert(header::HOST, host);
    // One stream, one exchange: its end is the stream's end.
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    parts.version = Version::HTTP_11;
    Ok(Request::from_parts(parts, body))
}

/// The response as the application gets it: without what concerns only the connection to the origin.
pub fn for_application<B>(response: Response<B>) -> Response<B> {
    let (mut parts, body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, body)
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // A Connection field cannot take away what the exchange itself needs.
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn absolute_target(uri: &Uri) -> Result<Target, Trouble> {
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(bad("this is a proxy, not a web server: configure it as one, then the request names the whole address"));
    };
    match scheme {
        "http" => target_of(authority, Some(80)),
        "https" => {
            Err(bad("https goes through CONNECT: configure this proxy for https too, by an http:// or socks5h:// address"))
        }
        _ => Err(bad("only http:// can be asked for directly; other protocols go through CONNECT or SOCKS5")),
    }
}

fn target_of(authority: &Authority, default_port: Option<u16>) -> Result<Target, Trouble> {
    let text = without_user(authority);
    // The port is what follows the last colon, unless that is inside an IPv6 address.
    let (host, port) = match text.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let port = match port.filter(|port| !port.is_empty()) {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok(),
        Some(_) => None,
        None => default_port,
    };
    let port = port.ok_or_else(|| bad("the target must be host:port, with a port of 1 to 65535"))?;
    name::target(host, port).map_err(|error| bad(&error.to_string()))
}

fn without_user(authority: &Authority) -> &str {
    let text = authority.as_str();
    text.rsplit_once('@').map_or(text, |(_, host)| host)
}

fn isolation_of(headers: &HeaderMap) -> Result<Isolation, Trouble> {
    let Some(value) = headers.get(header::PROXY_AUTHORIZATION) else { return Ok(Isolation::default()) };
    let credentials = value.to_str().ok().and_then(basic_credentials).ok_or_else(Trouble::unreadable_credentials)?;
    Ok(Isolation { credentials: Some(credentials) })
}

/// User name and password of `Basic …` (RFC 7617).
fn basic_credentials(value: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = decode_base64(encoded.trim())?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = (decoded[..colon].to_vec(), decoded[colon + 1..].to_vec());
    let bounded = user.len() <= limits::SOCKS_CREDENTIAL_BYTES && password.len() <= limits::SOCKS_CREDENTIAL_BYTES;
    bounded.then_some((user, password))
}

/// Base64 (RFC 4648, 4), with or without its padding.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut held, mut bits) = (Vec::new(), 0u32, 0u32);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = (held << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits).to_be_bytes()[3]);
            held &= (1 << bits) - 1;
        }
    }
    Some(out)
}

/// An answer that this proxy gives itself.
#[derive(Debug)]
pub struct Trouble {
    status: StatusCode,
    text: String,
    close: bool,
}

fn bad(problem: &str) -> Trouble {
    Trouble { status: StatusCode::BAD_REQUEST, text: format!("port17: {problem}."), close: false }
}

fn broken() -> Trouble {
    let text = "port17: the target or the circuit ended the connection before a complete answer; try again.".to_owned();
    Trouble { status: StatusCode::BAD_GATEWAY, text, close: false }
}

fn refused(refusal: Refusal) -> Trouble {
    let (status, advice) = match refusal {
        Refusal::Rule => (StatusCode::FORBIDDEN, "Change the rule if you want this connection"),
        Refusal::Open(OpenError::Policy) => (StatusCode::FORBIDDEN, "Another target port or another exit may work"),
        Refusal::Open(OpenError::Refused) => (StatusCode::BAD_GATEWAY, "Check host and port"),
        Refusal::Open(OpenError::Unreachable) => (StatusCode::BAD_GATEWAY, "Check the host's name"),
        Refusal::Open(OpenError::Protocol) => (StatusCode::BAD_GATEWAY, "Try again"),
        Refusal::Open(OpenError::Timeout) => (StatusCode::GATEWAY_TIMEOUT, "Try again"),
        Refusal::Open(OpenError::Resource) => (StatusCode::SERVICE_UNAVAILABLE, "Close some connections or wait a little"),
        Refusal::Open(OpenError::NoRoute) => {
            (StatusCode::SERVICE_UNAVAILABLE, "The client's status on its control socket says what it waits for")
        }
    };
    Trouble { status, text: format!("port17: no connection: {refusal}.\n{advice}. Nothing was sent directly."), close: false }
}

impl Trouble {
    fn unreadable_credentials() -> Self {
        let text = "port17: Proxy-Authorization must be Basic with a user name and a password of at most 255 bytes each. \
                    They are not checked: connections with different ones never share a circuit."
            .to_owned();
        Self { status: StatusCode::PROXY_AUTHENTICATION_REQUIRED, text, close: false }
    }

    /// The application may already have sent what was meant for the target: it must not be read as the next request.
    fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    fn into_answer(self) -> Answer {
        let mut response = Response::new(Either::Left(Either::Left(Full::from(format!("{}\n", self.text)))));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            headers.insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"port17\""));
        }
        response
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A response's body with the tasks that bring it: who stops reading ends the stream.
struct ExchangeBody {
    incoming: Incoming,
    /// The stream did not end in order.
    broken_off: Arc<AtomicBool>,
    _tasks: [AbortOnDrop; 2],
}

impl Body for ExchangeBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(None) if self.broken_off.load(Ordering::Acquire) => {
                Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())))
            }
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tunnel::Host;

    #[test]
    fn basic_credentials_are_read_and_bounded() {
        assert_eq!(basic_credentials("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), Some((b"Aladdin".to_vec(), b"open sesame".to_vec())));
        assert_eq!(basic_credentials("basic Og"), Some((vec![], vec![])));
        for wrong in ["Basic", "Digest Og==", "Basic QQ==", "Basic %%%", ""] {
            assert_eq!(basic_credentials(wrong), None, "{wrong:?}");
        }
        let long = format!("Basic {}Og==", "QUFB".repeat(86));
        assert_eq!(basic_credentials(&long), None, "258 bytes of user name");
    }

    #[test]
    fn authorities_become_targets() {
        let target = |text: &str, default| target_of(&text.parse().unwrap(), default).ok();
        let named = |host: &str, port| Some(Target { host: Host::Name(host.into()), port });
        assert_eq!(target("A.Example:443", None), named("a.example", 443));
        assert_eq!(target("a.example", Some(80)), named("a.example", 80));
        assert_eq!(target("user:secret@a.example:81", Some(80)), named("a.example", 81));
        assert_eq!(target("[::1]:81", None), Some(Target { host: Host::Ip("::1".parse().unwrap()), port: 81 }));
        assert_eq!(target("[::1]", Some(80)), Some(Target { host: Host::Ip("::1".parse().unwrap()), port: 80 }));
        for wrong in ["a.example", "a.example:0", "a.example:99999", "1.2.3:80"] {
            assert_eq!(target(wrong, None), None, "{wrong:?}");
        }
        assert_eq!(target("a.example:99999", Some(80)), None, "a wrong port is not the default port");
    }

    #[test]
    fn hop_by_hop_fields_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("proxy-authorization", "Basic Og=="),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("host", "a.example"),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["host", "accept"]);
    }

    #[test]
    fn the_answer_to_what_is_no_http_has_its_length() {
        let text = std::str::from_utf8(NOT_HTTP).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
