//! The demo's origin: a small HTTP/1.1 server on a loopback port, in the demo's own process.
//!
//! It is measured beside the mesh, so it spends next to nothing: bodies are written from one block in memory, with writes as large as
//! the socket takes.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::content::{Body, Content};

/// A request's head; longer ones are answered by 431.
const HEAD_BYTES: usize = 16 * 1024;
/// Bodies up to this go out in one write with their head.
const SMALL_BYTES: u64 = 16 * 1024;

/// Serves `content` to everyone who connects; never returns.
pub(super) async fn serve(listener: TcpListener, content: Content) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let content = content.clone();
                tokio::spawn(async move {
                    // A client that goes away is none of the origin's business.
                    let _ = converse(stream, &content).await;
                });
            }
            // Out of descriptors, most likely: others will close theirs.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

async fn converse(mut stream: TcpStream, content: &Content) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(HEAD_BYTES);
    loop {
        let Some(length) = read_head(&mut stream, &mut buffer).await? else {
            return if buffer.is_empty() { Ok(()) } else { answer(&mut stream, &Response::error(431)).await };
        };
        let response = respond(&buffer[..length], content);
        buffer.drain(..length);
        answer(&mut stream, &response).await?;
        if response.closes {
            return stream.shutdown().await;
        }
    }
}

/// Reads until the empty line; the head's length, or none when the client ended or said too much.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(Some(end + 4));
        }
        if buffer.len() >= HEAD_BYTES {
            return Ok(None);
        }
        if stream.read_buf(buffer).await? == 0 {
            buffer.clear();
            return Ok(None);
        }
    }
}

struct Response {
    status: u16,
    body: Option<Body>,
    /// Only the head is wanted.
    head_only: bool,
    closes: bool,
}

impl Response {
    fn error(status: u16) -> Self {
        Self { status, body: None, head_only: false, closes: true }
    }

    fn reason(&self) -> &'static str {
        match self.status {
            200 => "OK",
            404 => "Not Found",
            405 => "Method Not Allowed",
            431 => "Request Header Fields Too Large",
            _ => "Bad Request",
        }
    }
}

fn respond(head: &[u8], content: &Content) -> Response {
    let Ok(head) = std::str::from_utf8(head) else { return Response::error(400) };
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Response::error(400);
    };
    if !version.starts_with("HTTP/1.") {
        return Response::error(400);
    }
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Response::error(405),
    };
    let connection = lines
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, value)| name.eq_ignore_ascii_case("connection").then(|| value.trim().to_ascii_lowercase()));
    let closes = match connection.as_deref() {
        Some("close") => true,
        Some("keep-alive") => false,
        _ => version == "HTTP/1.0",
    };
    let body = find(path_of(target), content);
    Response { status: if body.is_some() { 200 } else { 404 }, body, head_only, closes }
}

/// The path of an origin-form or absolute-form target, without its query.
fn path_of(target: &str) -> &str {
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |start| &rest[start..]),
        None => target,
    };
    path.split_once('?').map_or(path, |(path, _)| path)
}

fn find(path: &str, content: &Content) -> Option<Body> {
    match path {
        "/" => Some(content.page()),
        "/1k.bin" => Some(content.bytes(1_000)),
        "/10m.bin" => Some(content.bytes(10_000_000)),
        "/100m.bin" => Some(content.bytes(100_000_000)),
        _ => {
            let number = path.strip_prefix("/bytes/").filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))?;
            number.parse().ok().map(|bytes| content.bytes(bytes))
        }
    }
}

async fn answer(stream: &mut TcpStream, response: &Response) -> io::Result<()> {
    let Response { status, body, head_only, closes } = response;
    let reason = response.reason();
    let text = format!("{status} {reason}\n");
    let (length, media_type) = body.as_ref().map_or((text.len() as u64, "text/plain"), |body| (body.bytes, body.media_type));
    let connection = if *closes { "close" } else { "keep-alive" };
    let mut out = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n"
    )
    .into_bytes();
    let Some(body) = body else {
        if !head_only {
            out.extend_from_slice(text.as_bytes());
        }
        return stream.write_all(&out).await;
    };
    let mut position = 0;
    if *head_only || body.bytes <= SMALL_BYTES {
        if !head_only {
            out.extend_from_slice(body.piece(0));
        }
        return stream.write_all(&out).await;
    }
    stream.write_all(&out).await?;
    while position < body.bytes {
        let piece = body.piece(position);
        stream.write_all(piece).await?;
        position += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn origin() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Content::new()));
        TcpStream::connect(address).await.unwrap()
    }

    /// Sends one closing request; the head and the body.
    async fn fetch(request_line: &str) -> (String, Vec<u8>) {
        let mut stream = origin().await;
        stream.write_all(format!("{request_line}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        let end = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let body = all.split_off(end);
        (String::from_utf8(all).unwrap(), body)
    }

    #[tokio::test]
    async fn files_have_their_length_and_content() {
        let content = Content::new();
        for (path, body) in [
            ("/", content.page()),
            ("/1k.bin", content.bytes(1_000)),
            ("/10m.bin", content.bytes(10_000_000)),
            ("/bytes/0", content.bytes(0)),
            ("/bytes/3000000", content.bytes(3_000_000)),
            ("http://origin.demo:80/bytes/7?x", content.bytes(7)),
        ] {
            let (head, bytes) = fetch(&format!("GET {path} HTTP/1.1")).await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {head}");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.bytes)), "{path}: {head}");
            assert_eq!(super::super::content::sha256(&[&bytes]), body.sha256(), "{path}");
        }
    }

    #[tokio::test]
    async fn head_sends_the_length_alone() {
        let (head, body) = fetch("HEAD /100m.bin HTTP/1.1").await;
        assert!(head.contains("Content-Length: 100000000\r\n") && body.is_empty(), "{head}");
    }

    #[tokio::test]
    async fn what_is_not_there_is_404_and_what_is_no_request_400() {
        for path in ["/x", "/bytes/", "/bytes/x", "/bytes/+1", "/bytes/99999999999999999999999"] {
            let (head, body) = fetch(&format!("GET {path} HTTP/1.1")).await;
            assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{path}: {head}");
            assert_eq!(body, b"404 Not Found\n");
        }
        assert!(fetch("POST / HTTP/1.1").await.0.starts_with("HTTP/1.1 405 "));
        assert!(fetch("GET /").await.0.starts_with("HTTP/1.1 400 "));
        assert!(fetch("GET / HTTP/2").await.0.starts_with("HTTP/1.1 400 "));
    }

    #[tokio::test]
    async fn a_connection_takes_request_after_request() {
        let mut stream = origin().await;
        stream.write_all(b"GET /bytes/5 HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\n\r\nGET /bytes/6 HTTP/1.0\r\n\r\n").await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        let text = String::from_utf8_lossy(&all);
        let statuses: Vec<&str> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect();
        assert_eq!(statuses, ["200", "404", "200"]);
    }

    #[tokio::test]
    async fn an_endless_head_is_refused() {
        let mut stream = origin().await;
        stream.write_all(&vec![b'x'; HEAD_BYTES]).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert!(all.starts_with(b"HTTP/1.1 431 "));
    }
}
