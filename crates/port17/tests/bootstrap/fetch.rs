use std::time::{Duration, Instant};

use port17::fetcher::{FetchError, Fetcher, LIST_FILE_BYTES};
use port17::network_file::Source;
use tokio::io::AsyncWriteExt;

use crate::server::{Ca, Server, Stream, Validity};

/// The address of the public network's list, as its network file has it.
const HOST: &str = "bootstrap.safing.io";

fn source(text: &str) -> Source {
    Source::parse(text, std::path::Path::new("/")).unwrap()
}

fn https() -> Source {
    source(&format!("https://{HOST}/bootstrap-nodes.json"))
}

async fn send(mut stream: Stream, bytes: impl AsRef<[u8]>) {
    // The fetcher may have left already.
    let _ = stream.write_all(bytes.as_ref()).await;
    let _ = stream.shutdown().await;
}

fn ok(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

/// What a fetcher gets from a server with this certificate that answers with `answer`.
async fn fetch_of(ca: &Ca, fetcher: Fetcher, name: &str, validity: Validity, answer: Vec<u8>) -> Result<Vec<u8>, FetchError> {
    let server = Server::start(Some(ca.acceptor(name, validity)), move |stream| send(stream, answer.clone())).await;
    let mut fetcher = fetcher;
    fetcher.resolve_to(HOST, server.address);
    fetcher.fetch(&https()).await
}

async fn answered(answer: impl Into<Vec<u8>>) -> Result<Vec<u8>, FetchError> {
    let ca = Ca::new();
    fetch_of(&ca, ca.fetcher(), HOST, Validity::Now, answer.into()).await
}

fn problem(result: Result<Vec<u8>, FetchError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn an_https_source_under_its_own_name_and_ca_is_fetched() {
    assert_eq!(answered(ok(5) + "hello").await.unwrap(), b"hello");
}

#[tokio::test]
async fn a_chunked_answer_is_fetched() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(answered(answer).await.unwrap(), b"hello");
}

#[tokio::test]
async fn the_request_tells_nothing_about_who_asks() {
    let (sender, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let read = tokio::io::AsyncReadExt::read(&mut tcp, &mut head).await.unwrap();
        sender.send(String::from_utf8(head[..read].to_vec()).unwrap()).unwrap();
        tcp.write_all(ok(0).as_bytes()).await.unwrap();
    });
    Fetcher::new(None).unwrap().fetch(&source(&format!("http://{address}/list.json?a=1"))).await.unwrap();
    let head = requests.recv().await.unwrap();
    assert_eq!(
        head,
        format!("GET /list.json?a=1 HTTP/1.1\r\nhost: {address}\r\naccept: application/json\r\nconnection: close\r\n\r\n")
    );
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let (ca, other) = (Ca::new(), Ca::new());
    let text = problem(fetch_of(&ca, other.fetcher(), HOST, Validity::Now, ok(0).into()).await);
    assert!(text.contains("not signed by a CA"), "{text}");
    let text = problem(fetch_of(&ca, Fetcher::new(None).unwrap(), HOST, Validity::Now, ok(0).into()).await);
    assert!(text.contains("not signed by a CA"), "the public web's CAs do not know it: {text}");
}

#[tokio::test]
async fn an_expired_certificate_and_one_of_the_future_are_refused() {
    let ca = Ca::new();
    let text = problem(fetch_of(&ca, ca.fetcher(), HOST, Validity::Over, ok(0).into()).await);
    assert!(text.contains("has expired"), "{text}");
    let text = problem(fetch_of(&ca, ca.fetcher(), HOST, Validity::NotYet, ok(0).into()).await);
    assert!(text.contains("not valid yet"), "{text}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let ca = Ca::new();
    let text = problem(fetch_of(&ca, ca.fetcher(), "bootstrap.example", Validity::Now, ok(0).into()).await);
    assert!(text.contains("for another name"), "{text}");
}

#[tokio::test]
async fn another_status_than_200_is_named() {
    assert_eq!(problem(answered("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await), "answers 404 Not Found");
    assert_eq!(problem(answered("HTTP/1.1 204 No Content\r\n\r\n").await), "answers 204 No Content");
}

#[tokio::test]
async fn a_redirect_is_named_and_not_followed() {
    let elsewhere = Server::start(None, |stream| send(stream, ok(5) + "hello")).await;
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n", elsewhere.address);
    let text = problem(answered(answer).await);
    assert!(text.contains("302") && text.contains(&elsewhere.address.to_string()) && text.contains("not followed"), "{text}");
    assert_eq!(elsewhere.requests(), 0);
}

#[tokio::test]
async fn half_a_body_is_an_error_and_never_a_list() {
    let text = problem(answered(ok(1000) + "half").await);
    assert!(text.contains("broke off"), "{text}");
    let text = problem(answered("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel").await);
    assert!(text.contains("broke off"), "{text}");
    assert!(matches!(answered("garbage\r\n\r\n").await, Err(FetchError::Http(_))));
    assert!(matches!(answered("").await, Err(FetchError::Http(_))));
}

#[tokio::test]
async fn a_body_is_read_up_to_its_bound() {
    let most = [ok(LIST_FILE_BYTES).into_bytes(), vec![b'x'; LIST_FILE_BYTES]].concat();
    assert_eq!(answered(most).await.unwrap().len(), LIST_FILE_BYTES);
    let two_mib = [ok(2 << 20).into_bytes(), vec![b'x'; 2 << 20]].concat();
    assert!(matches!(answered(two_mib).await, Err(FetchError::TooLong)));
}

#[tokio::test]
async fn an_endless_body_is_left_at_the_bound() {
    let server = Server::start(None, |mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
        // Ends when the fetcher leaves.
        while stream.write_all(&chunk).await.is_ok() {}
    })
    .await;
    let result = Fetcher::new(None).unwrap().fetch(&source(&format!("http://{}/", server.address))).await;
    assert!(matches!(result, Err(FetchError::TooLong)));
}

#[tokio::test]
async fn an_endless_head_is_left_at_the_bound() {
    let server = Server::start(None, |mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        while stream.write_all(&[b"X: ".to_vec(), vec![b'x'; 8000], b"\r\n".to_vec()].concat()).await.is_ok() {}
    })
    .await;
    let result = Fetcher::new(None).unwrap().fetch(&source(&format!("http://{}/", server.address))).await;
    assert!(matches!(result, Err(FetchError::Http(_))), "{result:?}");
}

#[tokio::test]
async fn a_slow_source_ends_at_the_deadline_whatever_it_sends() {
    let drip = Server::start(None, |mut stream| async move {
        stream.write_all(ok(1_000_000).as_bytes()).await.unwrap();
        while stream.write_all(b"x").await.is_ok() && stream.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let silent = Server::start(None, |stream| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    let mut fetcher = Fetcher::new(None).unwrap();
    fetcher.set_deadline(Duration::from_millis(300));
    for server in [&drip, &silent] {
        let started = Instant::now();
        let result = fetcher.fetch(&source(&format!("http://{}/", server.address))).await;
        assert!(matches!(result, Err(FetchError::Deadline(_))), "{result:?}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    // One that takes the connection and never begins TLS.
    fetcher.resolve_to(HOST, silent.address);
    assert!(matches!(fetcher.fetch(&https()).await, Err(FetchError::Deadline(_))));
}

#[tokio::test]
async fn a_host_that_is_not_there_is_named() {
    let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let fetcher = Fetcher::new(None).unwrap();
    let text = problem(fetcher.fetch(&source(&format!("http://{address}/"))).await);
    assert!(text.contains("127.0.0.1 cannot be reached"), "{text}");
    let text = problem(fetcher.fetch(&source("https://nothing..invalid/")).await);
    assert!(text.contains("the name nothing..invalid cannot be resolved"), "{text}");
}

#[tokio::test]
async fn a_plain_server_behind_https_is_a_tls_error() {
    let server = Server::start(None, |stream| send(stream, "HTTP/1.1 400 Bad Request\r\n\r\n")).await;
    let mut fetcher = Fetcher::new(None).unwrap();
    fetcher.set_deadline(Duration::from_secs(2));
    fetcher.resolve_to(HOST, server.address);
    let result = fetcher.fetch(&https()).await;
    assert!(matches!(result, Err(FetchError::Tls(_) | FetchError::Deadline(_))), "{result:?}");
}

#[tokio::test]
async fn a_file_is_missing_then_there_and_never_more_than_its_bound() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("bootstrap-nodes.json");
    let (file, fetcher) = (Source::File(path.clone()), Fetcher::new(None).unwrap());
    assert!(problem(fetcher.fetch(&file).await).contains("No such file"));
    std::fs::write(&path, "list").unwrap();
    assert_eq!(fetcher.fetch(&file).await.unwrap(), b"list");
    std::fs::write(&path, vec![b'x'; LIST_FILE_BYTES + 1]).unwrap();
    assert!(matches!(fetcher.fetch(&file).await, Err(FetchError::TooLong)));
    assert!(problem(fetcher.fetch(&Source::File(root.path().to_owned())).await).contains("not a regular file"));
}
