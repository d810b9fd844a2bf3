//! The handshake of a lane: TLS 1.3, raw public keys on both sides, X25519MLKEM768 only (spec 05, 1).

use std::io;
use std::sync::{Arc, Mutex};

use port17_proto::crypto::{SigningKey, VerifyingKey};
use port17_proto::wire::registry::ALPN;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme, version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::record::{Kernel, MAX_RECORD, Opener, Sealer};

/// What is in front of the 32 bytes of an Ed25519 key as a SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What is in front of an Ed25519 seed in PKCS #8 (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// What a peer may send before its handshake is complete: far more than a handshake with raw keys takes.
const HANDSHAKE_BYTES: usize = 4 * MAX_RECORD;

/// Why there is no lane.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The peer showed another key than expected.
    #[error("the peer showed another key than its Bottle names")]
    WrongKey,
    /// No agreement.
    #[error("TLS: {0}")]
    Tls(Error),
}

impl From<Error> for HandshakeError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => Self::WrongKey,
            other => Self::Tls(other),
        }
    }
}

/// A connection whose handshake is complete.
pub struct Established {
    pub(super) stream: TcpStream,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    /// Decrypted already: what the peer sent in one breath with its last handshake message.
    pub(super) early: Vec<u8>,
    /// Received and not decrypted yet.
    pub(super) incoming: Vec<u8>,
    /// The key that the peer has proven.
    pub peer_key: VerifyingKey,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    })
}

fn certified(key: &SigningKey) -> Result<Arc<CertifiedKey>, Error> {
    let mut pkcs8 = Zeroizing::new([0; PKCS8_PREFIX.len() + 32]);
    pkcs8[..PKCS8_PREFIX.len()].copy_from_slice(&PKCS8_PREFIX);
    pkcs8[PKCS8_PREFIX.len()..].copy_from_slice(key.seed().expose());
    let signing = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..]))?;
    let spki = [&SPKI_PREFIX[..], &key.public().0].concat();
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signing)))
}

fn raw_key(spki: &[u8]) -> Result<VerifyingKey, Error> {
    let key = spki.strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok()).map(VerifyingKey);
    key.filter(|key| key.check().is_ok()).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// Accepts raw Ed25519 keys: those expected, or any (who may connect is decided by the engine, after HELLO).
#[derive(Debug)]
struct LinkVerifier {
    provider: Arc<CryptoProvider>,
    expected: Option<Vec<VerifyingKey>>,
}

impl LinkVerifier {
    fn accept(&self, spki: &CertificateDer<'_>) -> Result<(), Error> {
        let key = raw_key(spki)?;
        let expected = self.expected.as_ref().is_none_or(|expected| expected.contains(&key));
        if expected { Ok(()) } else { Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) }
    }

    fn verify(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, dss, &self.provider.signature_verification_algorithms)
    }
}

fn only_tls13() -> Error {
    Error::General("only TLS 1.3 is spoken".into())
}

impl ServerCertVerifier for LinkVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.accept(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for LinkVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.accept(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The listening side's configuration, made once.
///
/// # Errors
/// When the library does not take the key.
pub fn server_config(key: &SigningKey) -> Result<Arc<ServerConfig>, HandshakeError> {
    let provider = provider();
    let verifier = Arc::new(LinkVerifier { provider: Arc::clone(&provider), expected: None });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(key)?)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // No resumption, no tickets, no 0-RTT (spec 05, 1).
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

fn client_config(key: &SigningKey, expected: Vec<VerifyingKey>) -> Result<Arc<ClientConfig>, HandshakeError> {
    let provider = provider();
    let verifier = Arc::new(LinkVerifier { provider: Arc::clone(&provider), expected: Some(expected) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(key)?)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// Does the handshake of a connection that was opened from here.
///
/// # Errors
/// When there is none; the caller bounds the time.
pub async fn dial(stream: TcpStream, key: &SigningKey, expected: Vec<VerifyingKey>) -> Result<Established, HandshakeError> {
    let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
    let connection = UnbufferedClientConnection::new(client_config(key, expected)?, name)?;
    Handshake::new(Side::Dialled(connection), stream).run().await
}

/// Does the handshake of a connection that was accepted here.
///
/// # Errors
/// When there is none; the caller bounds the time.
pub async fn accept(stream: TcpStream, config: Arc<ServerConfig>) -> Result<Established, HandshakeError> {
    Handshake::new(Side::Accepted(UnbufferedServerConnection::new(config)?), stream).run().await
}

enum Side {
    Dialled(UnbufferedClientConnection),
    Accepted(UnbufferedServerConnection),
}

enum Next {
    Again,
    Flush,
    Read,
    Done,
}

struct Handshake {
    side: Side,
    stream: TcpStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    early: Vec<u8>,
}

impl Handshake {
    fn new(side: Side, stream: TcpStream) -> Self {
        Self { side, stream, incoming: Vec::new(), outgoing: Vec::new(), early: Vec::new() }
    }

    async fn run(mut self) -> Result<Established, HandshakeError> {
        loop {
            match self.step() {
                Ok(Next::Again) => {}
                Ok(Next::Flush) => self.flush().await?,
                Ok(Next::Read) => self.read().await?,
                Ok(Next::Done) => {
                    self.flush().await?;
                    return self.establish();
                }
                Err(error) => {
                    // The alert that tells the peer why, as far as it can be sent.
                    while matches!(self.step(), Ok(Next::Again)) {}
                    let _ = self.flush().await;
                    return Err(error.into());
                }
            }
        }
    }

    fn step(&mut self) -> Result<Next, Error> {
        let (discard, next) = match &mut self.side {
            Side::Dialled(connection) => {
                advance(connection.process_tls_records(&mut self.incoming), &mut self.outgoing, &mut self.early)
            }
            Side::Accepted(connection) => {
                advance(connection.process_tls_records(&mut self.incoming), &mut self.outgoing, &mut self.early)
            }
        };
        self.incoming.drain(..discard);
        next
    }

    async fn flush(&mut self) -> io::Result<()> {
        let written = self.stream.write_all(&self.outgoing).await;
        self.outgoing.clear();
        written
    }

    async fn read(&mut self) -> Result<(), HandshakeError> {
        if self.incoming.len() >= HANDSHAKE_BYTES {
            return Err(HandshakeError::Tls(Error::General("the handshake is too long".into())));
        }
        match self.stream.read_buf(&mut self.incoming).await? {
            0 => Err(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    fn establish(self) -> Result<Established, HandshakeError> {
        let common = match &self.side {
            Side::Dialled(connection) => connection.peer_certificates().zip(connection.alpn_protocol()),
            Side::Accepted(connection) => connection.peer_certificates().zip(connection.alpn_protocol()),
        };
        // spec 05, 1: who does not speak this protocol is not a peer.
        let (certificates, alpn) = common.ok_or(HandshakeError::Tls(Error::NoApplicationProtocol))?;
        if alpn != ALPN {
            return Err(HandshakeError::Tls(Error::NoApplicationProtocol));
        }
        let peer_key = raw_key(certificates.first().ok_or(Error::NoCertificatesPresented)?)?;
        let (secrets, kernel) = match self.side {
            Side::Dialled(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                (secrets, Kernel::Dialled(kernel))
            }
            Side::Accepted(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                (secrets, Kernel::Accepted(kernel))
            }
        };
        let kernel = Arc::new(Mutex::new(kernel));
        let sealer = Sealer::new(Arc::clone(&kernel), secrets.tx)?;
        let opener = Opener::new(kernel, secrets.rx)?;
        let Self { stream, incoming, early, .. } = self;
        Ok(Established { stream, sealer, opener, early, incoming, peer_key })
    }
}

fn advance<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Vec<u8>,
    early: &mut Vec<u8>,
) -> (usize, Result<Next, Error>) {
    let next = status.state.and_then(|state| match state {
        ConnectionState::EncodeTlsData(mut data) => {
            let at = outgoing.len();
            outgoing.resize(at + MAX_RECORD, 0);
            let written = data.encode(&mut outgoing[at..]).map_err(|_| Error::General("a record is too large".into()))?;
            outgoing.truncate(at + written);
            Ok(Next::Again)
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Next::Flush)
        }
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                early.extend_from_slice(record?.payload);
            }
            Ok(Next::Again)
        }
        ConnectionState::BlockedHandshake => Ok(Next::Read),
        ConnectionState::WriteTraffic(_) => Ok(Next::Done),
        ConnectionState::PeerClosed | ConnectionState::Closed => Err(Error::General("the peer closed the connection".into())),
        _ => Err(Error::General("early data".into())),
    });
    (status.discard, next)
}
