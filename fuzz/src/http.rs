//! HTTP at the proxy port: the requests of programs on this machine, and the answers of any web server (RFC 9110, 9112).
//!
//! The first byte says who speaks, and in what pieces; the rest is what comes.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri, Version, client};
use hyper_util::rt::TokioIo;
use port17::client::http::{Asked, UseOfStream, for_application, read, server};
use port17::client::tunnel::Host;

use crate::choices::Choices;
use crate::socks::{check_isolation, check_target};
use crate::talk::{self, Talk};

/// Fields that never go further than this connection.
const HERE: [&str; 9] =
    ["connection", "proxy-connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authorization", "expect"];

/// Reads requests or an answer.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let first = choices.byte();
    let piece = if first < 0x80 { usize::from(first >> 1) } else { usize::MAX };
    match first & 1 {
        0 => requests(choices.rest(), piece),
        _ => answer(choices.rest(), piece),
    }
}

fn requests(coming: &[u8], piece: usize) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let came = request.uri().clone();
        if let Ok(asked) = read(request) {
            check(&came, asked);
        }
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let mut talk = Talk::new(coming, piece);
    let deadline = std::time::Duration::from_secs(30);
    let served = talk::run(async { server(deadline).serve_connection(TokioIo::new(&mut talk), service).await });
    assert!(served.is_err() || talk.said.is_empty() || talk.said.starts_with(b"HTTP/1."), "the proxy speaks HTTP");
}

fn check(came: &Uri, asked: Asked<Incoming>) {
    check_target(&asked.target);
    check_isolation(&asked.isolation);
    let request = match asked.use_of_stream {
        UseOfStream::Tunnel(request) => {
            assert!(request.method() == hyper::Method::CONNECT);
            return;
        }
        UseOfStream::Exchange(request) => request,
    };
    assert!(request.method() != hyper::Method::CONNECT && came.scheme_str() == Some("http"));
    assert!(request.uri().scheme().is_none() && request.uri().authority().is_none(), "the origin gets a path");
    assert_eq!(request.version(), Version::HTTP_11);
    let headers = request.headers();
    // `Connection: close` is this proxy's own.
    assert!(HERE.iter().all(|name| !headers.contains_key(*name) || *name == "connection"));
    assert!(headers.get_all(header::CONNECTION).iter().eq(["close"].iter()));
    let hosts: Vec<_> = headers.get_all(header::HOST).iter().collect();
    let named = came.authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default().to_owned());
    assert_eq!(hosts.iter().map(|host| host.as_bytes()).collect::<Vec<_>>(), [named.unwrap_or_default().as_bytes()]);
    if let Host::Name(name) = &asked.target.host {
        let host = String::from_utf8_lossy(hosts[0].as_bytes()).to_ascii_lowercase();
        assert!(host.starts_with(name.as_str()), "the origin is asked by its own name");
    }
    one_length(headers, request.body());
}

/// Where a message ends is said once.
fn one_length(headers: &HeaderMap, body: &Incoming) {
    let lengths: Vec<_> = headers.get_all(header::CONTENT_LENGTH).iter().collect();
    if let Some(length) = lengths.first() {
        let length = length.to_str().ok().and_then(|text| text.parse().ok());
        assert!(lengths.len() == 1 && length.is_some() && body.size_hint().exact() == length, "{lengths:?}");
    }
}

fn answer(coming: &[u8], piece: usize) {
    let talk = Talk::new(coming, piece);
    let heard = talk::run(async {
        let (mut sender, connection) = client::conn::http1::Builder::new().handshake(TokioIo::new(talk)).await?;
        let request = Request::get("/").header("host", "origin.demo").body(Empty::<Bytes>::new()).expect("a request");
        let exchange = sender.send_request(request);
        tokio::pin!(exchange, connection);
        tokio::select! {
            biased;
            heard = &mut exchange => heard,
            _ = &mut connection => exchange.await,
        }
    });
    let Ok(response) = heard else { return };
    let status = response.status();
    let passed = for_application(response);
    assert_eq!((passed.status(), passed.version()), (status, Version::HTTP_11));
    assert!(HERE.iter().all(|name| !passed.headers().contains_key(*name)));
}

/// What browsers and curl send, and what servers answer.
pub fn seeds() -> Vec<Vec<u8>> {
    let requests = [
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
        "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nProxy-Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n\r\nearly",
        "GET http://a.example/path?query HTTP/1.1\r\nHost: a.example\r\nProxy-Connection: keep-alive\r\nAccept: */*\r\n\r\n",
        "GET http://user:pw@A.example.:8080 HTTP/1.1\r\nConnection: x-mine, close\r\nX-Mine: 1\r\nTE: trailers\r\n\r\n",
        "POST http://a.example/ HTTP/1.1\r\nHost: b.example\r\nContent-Length: 4\r\n\r\nbodyGET http://[::1]/ HTTP/1.1\r\n\r\n",
        "POST http://192.0.2.1/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        "GET http://a.example/ HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "GET https://a.example/ HTTP/1.1\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-mine\r\nX-Mine: 1\r\n\r\nok",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.0 301 Moved\r\nLocation: http://b.example/\r\nKeep-Alive: timeout=5\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ];
    let marked = |mark: u8, texts: &[&str]| -> Vec<Vec<u8>> {
        texts.iter().map(|text| [&[mark][..], text.as_bytes()].concat()).collect()
    };
    [marked(0x80, &requests), marked(0x81, &answers)].concat()
}
