//! Fetches what should be a signed list from one source: a file, or a web address over TLS 1.3.
//!
//! A source is trusted with nothing: what it gives is bytes of bounded length within a bounded time, and every other outcome is an
//! error that says which step failed. The host's name is resolved by the system, so who watches the resolver or the connection sees
//! that this machine asks for the list. Redirects are not followed: the file names who is asked.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::network_file::Source;

/// Bytes of a list's file, at most: a list of 1 MiB in base64, with its signatures.
pub const LIST_FILE_BYTES: usize = 1536 * 1024;
/// How long one source may take in all, from its name to the last byte.
pub const FETCH_DEADLINE: Duration = Duration::from_secs(20);
/// Bytes of an answer's head, at most.
const HEAD_BYTES: usize = 64 * 1024;

/// Why a source gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The file is not there, or cannot be read.
    #[error("{0}")]
    File(io::Error),
    /// The host's name has no address.
    #[error("the name {host} cannot be resolved: {source}")]
    Name {
        /// The name.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// No address of the host takes a connection.
    #[error("{host} cannot be reached: {source}")]
    Connect {
        /// The host.
        host: String,
        /// Of the last address.
        source: io::Error,
    },
    /// The host did not prove its name.
    #[error("{0}")]
    Tls(String),
    /// It is not HTTP, or it broke off.
    #[error("the answer broke off or is no HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// It answered something else.
    #[error("answers {0}")]
    Status(StatusCode),
    /// It points elsewhere.
    #[error("answers {status}, a redirect to {to}, which is not followed: name the address that has the list")]
    Redirect {
        /// The status.
        status: StatusCode,
        /// Where it points to.
        to: String,
    },
    /// It is longer than any list.
    #[error("it is longer than {LIST_FILE_BYTES} bytes: no list")]
    TooLong,
    /// It took too long.
    #[error("it took longer than {} s", .0.as_secs_f32())]
    Deadline(Duration),
}

/// Fetches from sources.
#[derive(Clone)]
pub struct Fetcher {
    tls: TlsConnector,
    deadline: Duration,
    resolved: BTreeMap<String, SocketAddr>,
}

impl Fetcher {
    /// One that holds HTTPS sources to these CAs; none: to those of the public web.
    ///
    /// # Errors
    /// When a certificate cannot be one of a CA.
    pub fn new(ca: Option<&[CertificateDer<'static>]>) -> Result<Self, rustls::Error> {
        let roots = match ca {
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
            Some(certificates) => {
                let mut roots = RootCertStore::empty();
                certificates.iter().try_for_each(|certificate| roots.add(certificate.clone()))?;
                roots
            }
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
        let config = versions.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: Arc::new(config).into(), deadline: FETCH_DEADLINE, resolved: BTreeMap::new() })
    }

    /// Takes this address for a host instead of what the system's resolver says, port included; the certificate must be the
    /// host's all the same.
    pub fn resolve_to(&mut self, host: &str, address: SocketAddr) {
        self.resolved.insert(host.to_ascii_lowercase(), address);
    }

    /// Allows each source this long in all.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// What the source has, at most [`LIST_FILE_BYTES`].
    ///
    /// # Errors
    /// Why it gave nothing.
    pub async fn fetch(&self, source: &Source) -> Result<Vec<u8>, FetchError> {
        let fetched = async {
            match source {
                Source::File(path) => read_file(path).await,
                Source::Web(uri) => self.get(uri).await,
            }
        };
        tokio::time::timeout(self.deadline, fetched).await.map_err(|_| FetchError::Deadline(self.deadline))?
    }

    async fn get(&self, uri: &Uri) -> Result<Vec<u8>, FetchError> {
        let host = uri.host().unwrap_or_default();
        // An IPv6 address stands in brackets in an address, nowhere else.
        let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
        let is_plain = uri.scheme_str() == Some("http");
        let port = uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let tcp = self.connect(bare, port).await?;
        if is_plain {
            return exchange(tcp, uri).await;
        }
        let name = ServerName::try_from(bare.to_owned());
        let name = name.map_err(|_| FetchError::Tls(format!("{bare} is no name that a certificate could be for")))?;
        let tls = self.tls.connect(name, tcp).await.map_err(|error| FetchError::Tls(tls_problem(&error)))?;
        exchange(tls, uri).await
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, FetchError> {
        let addresses: Vec<SocketAddr> = match self.resolved.get(&host.to_ascii_lowercase()) {
            Some(address) => vec![*address],
            None => match tokio::net::lookup_host((host, port)).await {
                Ok(addresses) => addresses.collect(),
                Err(source) => return Err(FetchError::Name { host: host.to_owned(), source }),
            },
        };
        // Tokio tries one address after the other.
        let connected = TcpStream::connect(&addresses[..]).await;
        connected.map_err(|source| FetchError::Connect { host: host.to_owned(), source })
    }
}

/// One request, one answer.
async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, uri: &Uri) -> Result<Vec<u8>, FetchError> {
    let (mut sender, connection) = http1::Builder::new().max_buf_size(HEAD_BYTES).handshake(TokioIo::new(stream)).await?;
    // Its errors come out of the request as well. It ends when this function does: the guard stops it.
    let _connection = AbortOnDrop(tokio::spawn(async { drop(connection.await) }));
    let response = sender.send_request(request(uri)).await?;
    read_answer(response).await
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Says nothing about who asks.
fn request(uri: &Uri) -> Request<Empty<Bytes>> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path).header(header::HOST, host).header(header::ACCEPT, "application/json");
    // Both parts come out of a parsed address.
    request.header(header::CONNECTION, "close").body(Empty::new()).expect("an address makes a request")
}

async fn read_answer(response: Response<hyper::body::Incoming>) -> Result<Vec<u8>, FetchError> {
    let status = response.status();
    if status.is_redirection() {
        return Err(FetchError::Redirect { status, to: redirect_target(response.headers()) });
    }
    if status != StatusCode::OK {
        return Err(FetchError::Status(status));
    }
    match Limited::new(response.into_body(), LIST_FILE_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(FetchError::Http(*error)),
            // The only other error of a limited body is that its limit is reached.
            Err(_) => Err(FetchError::TooLong),
        },
    }
}

/// What a stranger says, cut and cleaned for a terminal.
fn redirect_target(headers: &HeaderMap) -> String {
    let Some(to) = headers.get(header::LOCATION) else { return "nowhere".into() };
    String::from_utf8_lossy(to.as_bytes()).chars().filter(|letter| letter.is_ascii_graphic()).take(200).collect()
}

/// A failed handshake in the words of who has to mend it.
fn tls_problem(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(problem)) = inner else { return format!("TLS: {error}") };
    match problem {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not signed by a CA that this network accepts (`ca_pem` of the network file, else the public web's)"
                .into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired (or this machine's clock is wrong)".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet (or this machine's clock is wrong)".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name".into()
        }
        other => format!("its certificate is not accepted: {other}"),
    }
}

/// Reads a file on a thread of its own: a network file system may hang.
async fn read_file(path: &Path) -> Result<Vec<u8>, FetchError> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_bounded(&path)).await;
    read.map_err(|error| FetchError::File(io::Error::other(error)))?
}

/// Reads a file of at most [`LIST_FILE_BYTES`].
///
/// # Errors
/// When it cannot be read, is no regular file, or is longer.
pub fn read_bounded(path: &Path) -> Result<Vec<u8>, FetchError> {
    // Before it is opened: a pipe without a writer would block for ever.
    if !fs::metadata(path).map_err(FetchError::File)?.is_file() {
        return Err(FetchError::File(io::Error::other("not a regular file")));
    }
    let file = fs::File::open(path).map_err(FetchError::File)?;
    let mut bytes = Vec::new();
    file.take(LIST_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(FetchError::File)?;
    if bytes.len() > LIST_FILE_BYTES { Err(FetchError::TooLong) } else { Ok(bytes) }
}
