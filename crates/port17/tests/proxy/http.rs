use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use port17::client::tunnel::{Host, Target};
use port17::portmaster::Portmaster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{FAILURES, HANG, World, credentials, named, read_all, read_exactly};

/// An origin that says what it was asked.
async fn web() -> World {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = socket.local_addr().unwrap();
    let serving = async move {
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(say));
            tokio::spawn(serving);
        }
    };
    World::with(origin, serving, Portmaster::new()).await
}

async fn say(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut said = format!("{} {}\n", parts.method, parts.uri);
    for (name, value) in &parts.headers {
        said += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    said += &format!("body {}: {}", body.len(), String::from_utf8_lossy(&body[..body.len().min(20)]));
    let mut response = Response::new(Full::from(said));
    if parts.uri.path() == "/missing" {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response.headers_mut().insert("x-origin", "yes".parse().unwrap());
    Ok(response)
}

/// One response with a Content-Length, as status line with fields, and body.
async fn read_response(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(HANG, stream.read_u8()).await.expect("the proxy hangs");
        head.push(byte.expect("a whole head"));
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let length: usize = length.expect("a Content-Length").parse().unwrap();
    let body = String::from_utf8(read_exactly(stream, length).await).unwrap();
    (head, body)
}

#[tokio::test]
async fn connect_carries_bytes_both_ways() {
    let world = World::echo().await;
    let mut stream = world.connect().await;
    stream.write_all(b"CONNECT Origin.Demo:443 HTTP/1.1\r\nHost: origin.demo:443\r\n\r\n").await.unwrap();
    let answer = read_exactly(&mut stream, 19).await;
    assert_eq!(answer, b"HTTP/1.1 200 OK\r\n\r\n");
    stream.write_all(b"there and back").await.unwrap();
    assert_eq!(read_exactly(&mut stream, 14).await, b"there and back");
    stream.shutdown().await.unwrap();
    assert!(read_all(&mut stream).await.is_empty());
    assert_eq!(world.opened()[0].target, named("origin.demo", 443));
}

#[tokio::test]
async fn connect_keeps_what_was_sent_too_early() {
    let world = World::echo().await;
    let data = "early".repeat(10_000);
    let mut stream = world.connect().await;
    stream.write_all(format!("CONNECT [::1]:443 HTTP/1.1\r\n\r\n{data}").as_bytes()).await.unwrap();
    assert_eq!(read_exactly(&mut stream, 19).await, b"HTTP/1.1 200 OK\r\n\r\n");
    assert!(read_exactly(&mut stream, data.len()).await == data.as_bytes());
    assert_eq!(world.opened()[0].target, Target { host: Host::Ip("::1".parse().unwrap()), port: 443 });
}

#[tokio::test]
async fn requests_in_absolute_form_go_through_one_kept_connection() {
    let world = web().await;
    let mut stream = world.connect().await;
    let get = "GET http://Origin.Demo/a?b=c HTTP/1.1\r\nHost: origin.demo\r\nProxy-Connection: keep-alive\r\n\
               Connection: X-Private\r\nX-Private: 1\r\nProxy-Authorization: Basic dTpw\r\nAccept: */*\r\n\r\n";
    stream.write_all(get.as_bytes()).await.unwrap();
    let (head, body) = read_response(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("x-origin: yes"), "{head}");
    assert!(body.starts_with("GET /a?b=c\n"), "{body}");
    assert!(body.contains("host: Origin.Demo\n") && body.contains("accept: */*\n"), "{body}");
    assert!(!body.contains("private") && !body.contains("proxy"), "hop-by-hop fields stayed here: {body}");

    let post = format!(
        "POST http://origin.demo:8080/form HTTP/1.1\r\nHost: other.example\r\nHost: third.example\r\nContent-Length: 200000\r\n\r\n{}",
        "z".repeat(200_000)
    );
    stream.write_all(post.as_bytes()).await.unwrap();
    let (_, body) = read_response(&mut stream).await;
    assert!(body.starts_with("POST /form\n") && body.ends_with("body 200000: zzzzzzzzzzzzzzzzzzzz"), "{body}");
    assert!(body.contains("host: origin.demo:8080\n") && !body.contains("example"), "RFC 9112, 3.2.2: {body}");

    let chunked = "POST http://origin.demo/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(chunked.as_bytes()).await.unwrap();
    assert_eq!(read_exactly(&mut stream, 25).await, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"3\r\nabc\r\n0\r\n\r\n").await.unwrap();
    let (_, body) = read_response(&mut stream).await;
    assert!(body.starts_with("POST /\n") && body.ends_with("body 3: abc"), "{body}");
    assert!(body.contains("host: origin.demo\n"), "a missing Host comes from the address: {body}");

    let targets: Vec<Target> = world.opened().into_iter().map(|opened| opened.target).collect();
    assert_eq!(targets, [named("origin.demo", 80), named("origin.demo", 8080), named("origin.demo", 80)]);
}

#[tokio::test]
async fn the_origins_answer_stays_what_it_is() {
    let world = web().await;
    let mut stream = world.connect().await;
    stream.write_all(b"GET http://origin.demo/missing HTTP/1.1\r\nHost: origin.demo\r\n\r\n").await.unwrap();
    let (head, body) = read_response(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{head}");
    assert!(body.starts_with("GET /missing\n"), "{body}");

    let answer =
        world.exchange_open(b"HEAD http://origin.demo/ HTTP/1.1\r\nHost: origin.demo\r\nConnection: close\r\n\r\n").await;
    let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200 ok\r\n") && answer.contains("content-length:"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "no body: {answer}");

    let answer = world.exchange_open(b"GET http://origin.demo/ HTTP/1.0\r\n\r\n").await;
    assert!(String::from_utf8(answer).unwrap().contains("GET /\n"));
}

#[tokio::test]
async fn an_endless_answer_arrives_while_it_is_written() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = socket.local_addr().unwrap();
    let (ended, at_end) = tokio::sync::oneshot::channel();
    let serving = async move {
        let (mut stream, _) = socket.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nfirst part").await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        ended.send(()).unwrap();
    };
    let world = World::with(origin, serving, Portmaster::new()).await;
    let mut stream = world.connect().await;
    stream.write_all(b"GET http://origin.demo/ HTTP/1.1\r\nHost: origin.demo\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(10).any(|window| window == b"first part") {
        seen.extend(read_exactly(&mut stream, 1).await);
    }
    drop(stream);
    tokio::time::timeout(HANG, at_end).await.expect("an application that leaves ends the stream").unwrap();
}

#[tokio::test]
async fn every_failure_has_its_status_and_says_what_to_do() {
    let world = World::echo().await;
    for ((name, error), status) in FAILURES.iter().zip([502, 502, 403, 504, 503, 502, 503]) {
        for request in
            [format!("CONNECT {name}:80 HTTP/1.1\r\n\r\n"), format!("GET http://{name}/ HTTP/1.1\r\nConnection: close\r\n\r\n")]
        {
            let answer = String::from_utf8(world.exchange_open(request.as_bytes()).await).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{error:?}: {answer}");
            assert!(answer.contains("text/plain") && answer.contains(&error.to_string()), "{answer}");
        }
    }
    let answer = world.exchange_open(b"CONNECT never.test:80 HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 504 "));
}

#[tokio::test]
async fn what_a_proxy_cannot_do_is_explained() {
    let world = World::echo().await;
    for (request, status, says) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n", 400, "this is a proxy"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n", 400, "this is a proxy"),
        ("GET https://a.example/ HTTP/1.1\r\n", 400, "CONNECT"),
        ("GET ftp://a.example/ HTTP/1.1\r\n", 400, "CONNECT"),
        ("GET http://a_b!/ HTTP/1.1\r\n", 400, "characters"),
        ("GET http://127.1/ HTTP/1.1\r\n", 400, "IP address"),
        ("GET http://a.example:99999/ HTTP/1.1\r\n", 400, "port"),
        ("CONNECT a.example HTTP/1.1\r\n", 400, "host:port"),
        ("CONNECT a.example:0 HTTP/1.1\r\n", 400, "port"),
        ("GET http://a.example/ HTTP/1.1\r\nProxy-Authorization: Bearer x\r\n", 407, "Basic"),
    ] {
        let answer = world.exchange_open(format!("{request}Connection: close\r\n\r\n").as_bytes()).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(says), "{request:?} gave {answer}");
    }
    let tls_hello = world.exchange_open(&[0x16, 3, 1, 0, 5]).await;
    assert!(String::from_utf8(tls_hello).unwrap().contains("neither SOCKS nor HTTP"));
    assert!(world.opened().is_empty());
}

#[tokio::test]
async fn credentials_isolate_as_those_of_socks_do() {
    let world = World::echo().await;
    let request = "CONNECT origin.demo:80 HTTP/1.1\r\nProxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n";
    let mut stream = world.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(read_exactly(&mut stream, 12).await, b"HTTP/1.1 200");
    assert_eq!(world.opened()[0].isolation, credentials(b"user", b"secret"));
}

#[tokio::test]
async fn an_origin_that_breaks_off_is_a_bad_gateway() {
    let world = World::echo().await;
    // The echo of a request is no response.
    let answer = world.exchange_open(b"GET http://origin.demo/ HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 502 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn heads_are_bounded() {
    let world = World::echo().await;
    let request = format!("GET http://origin.demo/ HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(300_000));
    let answer = world.exchange_open(request.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
    assert!(world.opened().is_empty());
}

#[tokio::test]
async fn cut_at_every_byte_it_ends_without_a_hang() {
    let world = World::echo().await;
    let whole = b"CONNECT origin.demo:80 HTTP/1.1\r\nHost: origin.demo\r\n\r\n";
    for cut in 0..whole.len() {
        let _ = world.exchange(&whole[..cut]).await;
    }
    let _ = world.exchange_open(&whole[..20]).await;
    assert!(world.opened().is_empty());
}
