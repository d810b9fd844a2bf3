//! The demo's own download: SOCKS5, one GET, the bytes kept in memory, so that hashing them does not take part in what is measured.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A response's head; the origin's has about 120 bytes.
const HEAD_BYTES: usize = 4096;
/// How long nothing may come before the download counts as failed.
const SILENCE: Duration = Duration::from_secs(20);

/// What is to be fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// The client's SOCKS address.
    pub(super) proxy: SocketAddr,
    /// The name that the exit resolves.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) path: &'a str,
    /// What must come.
    pub(super) bytes: usize,
}

/// A finished download.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) body: Vec<u8>,
    /// From the first connect to the first byte of the answer.
    pub(super) first_byte: Duration,
    /// From the first connect to the last byte.
    pub(super) whole: Duration,
}

impl Download {
    /// Megabytes a second, over the whole time.
    pub(super) fn rate(&self) -> f64 {
        self.body.len() as f64 / 1e6 / self.whole.as_secs_f64().max(1e-9)
    }
}

/// Why a download failed.
#[derive(Debug)]
pub(super) enum DownloadError {
    /// The client refused it: the mesh may not stand yet.
    Refused(u8),
    /// The connection failed.
    Io(&'static str, io::Error),
    /// What came is not what the origin sends.
    Wrong(String),
}

impl fmt::Display for DownloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => write!(f, "the client refuses it: {} (SOCKS reply {code})", reply(*code)),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Wrong(problem) => f.write_str(problem),
        }
    }
}

fn reply(code: u8) -> &'static str {
    match code {
        1 => "general failure",
        2 => "not allowed",
        3 => "no route",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "timeout",
        _ => "another reason",
    }
}

/// Fetches; `progress` hears how many bytes of the body there are, at every read.
pub(super) async fn fetch(request: &Request<'_>, mut progress: impl FnMut(usize)) -> Result<Download, DownloadError> {
    let started = Instant::now();
    let failed = |what| move |error| DownloadError::Io(what, error);
    let mut stream = TcpStream::connect(request.proxy).await.map_err(failed("cannot reach the client"))?;
    stream.set_nodelay(true).map_err(failed("cannot reach the client"))?;
    in_time(connect(&mut stream, request)).await?;
    let Request { host, port, path, bytes, .. } = *request;
    let text = format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.map_err(failed("cannot send the request"))?;

    let mut body = Vec::with_capacity(bytes + HEAD_BYTES);
    let (head, first_byte) = in_time(read_head(&mut stream, &mut body, started)).await?;
    check_head(&body[..head], bytes)?;
    body.drain(..head);
    progress(body.len());
    while body.len() < bytes {
        let read = async { stream.read_buf(&mut body).await.map_err(failed("the download broke off")) };
        if in_time(read).await? == 0 {
            return Err(DownloadError::Wrong(format!("the download ended after {} of {bytes} bytes", body.len())));
        }
        progress(body.len());
    }
    let whole = started.elapsed();
    if body.len() > bytes {
        return Err(DownloadError::Wrong(format!("{} bytes came instead of {bytes}", body.len())));
    }
    Ok(Download { body, first_byte, whole })
}

async fn in_time<T>(work: impl Future<Output = Result<T, DownloadError>>) -> Result<T, DownloadError> {
    let silence = || DownloadError::Wrong(format!("nothing came for {} s", SILENCE.as_secs()));
    tokio::time::timeout(SILENCE, work).await.map_err(|_| silence())?
}

/// SOCKS5 without credentials, CONNECT to a name (RFC 1928).
async fn connect(stream: &mut TcpStream, request: &Request<'_>) -> Result<(), DownloadError> {
    let failed = |error| DownloadError::Io("the client gave no SOCKS answer", error);
    let no_socks = || DownloadError::Wrong("the client's answer is no SOCKS5".to_owned());
    let host = request.host.as_bytes();
    let length = u8::try_from(host.len()).map_err(|_| DownloadError::Wrong("the name is too long for SOCKS".to_owned()))?;
    stream.write_all(&[5, 1, 0]).await.map_err(failed)?;
    if take::<2>(stream).await.map_err(failed)? != [5, 0] {
        return Err(no_socks());
    }
    let mut out = vec![5, 1, 0, 3, length];
    out.extend_from_slice(host);
    out.extend_from_slice(&request.port.to_be_bytes());
    stream.write_all(&out).await.map_err(failed)?;
    let [version, code, _, kind] = take::<4>(stream).await.map_err(failed)?;
    match (version, code, kind) {
        (5, 0, 1) => take::<6>(stream).await.map(drop).map_err(failed),
        (5, 0, 4) => take::<18>(stream).await.map(drop).map_err(failed),
        (5, 1.., _) => Err(DownloadError::Refused(code)),
        _ => Err(no_socks()),
    }
}

async fn take<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut out = [0; N];
    stream.read_exact(&mut out).await?;
    Ok(out)
}

/// Reads until the head is complete: its length, and when its first byte came. What follows it stays in `buffer`.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>, started: Instant) -> Result<(usize, Duration), DownloadError> {
    let mut first_byte = None;
    loop {
        let count = stream.read_buf(buffer).await.map_err(|error| DownloadError::Io("the origin gave no answer", error))?;
        let first = *first_byte.get_or_insert_with(|| started.elapsed());
        if let Some(end) = buffer.windows(4).take(HEAD_BYTES).position(|window| window == b"\r\n\r\n") {
            return Ok((end + 4, first));
        }
        if count == 0 || buffer.len() > HEAD_BYTES {
            return Err(DownloadError::Wrong("the origin's answer is no HTTP".to_owned()));
        }
    }
}

fn check_head(head: &[u8], bytes: usize) -> Result<(), DownloadError> {
    let head = String::from_utf8_lossy(head);
    let status = head.lines().next().unwrap_or_default();
    if status != "HTTP/1.1 200 OK" {
        return Err(DownloadError::Wrong(format!("the origin answers {status:?}")));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    if length != Some(&*bytes.to_string()) {
        return Err(DownloadError::Wrong(format!(
            "the origin announces {} bytes instead of {bytes}",
            length.unwrap_or("unknown")
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::content::Content;
    use super::super::origin;
    use super::*;

    /// A SOCKS5 proxy for one connection that answers with `code`, and leads to the origin where that is 0.
    async fn proxy(code: u8, origin: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            assert_eq!(take::<3>(&mut client).await.unwrap(), [5, 1, 0]);
            client.write_all(&[5, 0]).await.unwrap();
            let request = take::<18>(&mut client).await.unwrap();
            assert_eq!(&request[..16], b"\x05\x01\x00\x03\x0borigin.demo");
            client.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            if code == 0 {
                let mut server = TcpStream::connect(origin).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
        address
    }

    async fn origin() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(origin::serve(listener, Content::new()));
        address
    }

    async fn fetch_by(code: u8, path: &str, bytes: usize) -> Result<Download, DownloadError> {
        let origin = origin().await;
        let proxy = proxy(code, origin).await;
        fetch(&Request { proxy, host: "origin.demo", port: origin.port(), path, bytes }, |_| ()).await
    }

    #[tokio::test]
    async fn the_whole_body_comes_and_progress_grows() {
        let origin = origin().await;
        let proxy = proxy(0, origin).await;
        let mut seen = Vec::new();
        let request = Request { proxy, host: "origin.demo", port: origin.port(), path: "/10m.bin", bytes: 10_000_000 };

        let download = fetch(&request, |bytes| seen.push(bytes)).await.unwrap();

        assert_eq!(super::super::content::sha256(&[&download.body]), Content::new().bytes(10_000_000).sha256());
        assert!(download.first_byte <= download.whole && download.rate() > 0.0);
        assert!(seen.is_sorted() && seen.last() == Some(&10_000_000));
    }

    #[tokio::test]
    async fn a_refusal_gives_its_code() {
        assert!(matches!(fetch_by(3, "/", 1).await, Err(DownloadError::Refused(3))));
    }

    #[tokio::test]
    async fn another_length_or_status_is_an_error() {
        assert!(fetch_by(0, "/1k.bin", 1001).await.unwrap_err().to_string().contains("1000 bytes instead of 1001"));
        assert!(fetch_by(0, "/none", 1).await.unwrap_err().to_string().contains("404"));
    }

    #[tokio::test]
    async fn nobody_at_the_proxy_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        drop(listener);
        let request = Request { proxy, host: "origin.demo", port: 1, path: "/", bytes: 1 };
        assert!(matches!(fetch(&request, |_| ()).await, Err(DownloadError::Io(..))));
    }
}
