//! The other end of a lane in a test's own hands: a TLS library, frames, and nothing that keeps to the protocol by itself.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use port17_proto::crypto::{Entropy, SigningKey};
use port17_proto::ids::CircuitId;
use port17_proto::lane::frame::{FrameBuf, Header};
use port17_proto::wire::message::{Hello, LaneSlot, LinkId, Message, RawMessage, read_control_body, write_control_body};
use port17_proto::wire::registry::{ALPN, BODY_BYTES, CONTROL_FLAG_URGENT, Command, FRAME_BYTES, HEADER_BYTES, Role};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ClientConnection, ResolvesClientCert};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, ServerConnection};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ConnectionCommon, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};

use crate::mesh::PATIENCE;

/// Takes any key: what a test looks at is the other end.
#[derive(Debug)]
struct AnyKey {
    raw: bool,
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

/// Shows what stands for a certificate, though it is a key.
#[derive(Debug)]
struct Certificate(Arc<CertifiedKey>);

impl ResolvesClientCert for Certificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What the test's end shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    RawKey,
    Certificate,
    Nothing,
}

/// How the test's end does its handshake.
#[derive(Clone)]
pub(crate) struct Offer {
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) groups: Vec<&'static dyn SupportedKxGroup>,
    pub(crate) shown: Shown,
    /// Takes raw keys of the other end, else certificates.
    pub(crate) takes_raw_keys: bool,
    /// Tickets that an acceptor sends.
    pub(crate) tickets: usize,
    pub(crate) key: [u8; 32],
}

impl Offer {
    /// All as it should be, with a key from `seed`.
    pub(crate) fn right(seed: u8) -> Self {
        Self {
            alpn: vec![ALPN.to_vec()],
            groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
            shown: Shown::RawKey,
            takes_raw_keys: true,
            tickets: 0,
            key: [seed; 32],
        }
    }

    pub(crate) fn key(&self) -> SigningKey {
        SigningKey::from_seed(port17_proto::crypto::Secret::new(self.key))
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        Arc::new(CryptoProvider { kx_groups: self.groups.clone(), ..aws_lc_rs::default_provider() })
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        let pkcs8 = [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &self.key].concat();
        let signing = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).unwrap();
        let spki = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..], &self.key().public().0].concat();
        Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signing))
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(self.provider()).with_protocol_versions(&[&rustls::version::TLS13]);
        let verifier = Arc::new(AnyKey { raw: self.takes_raw_keys });
        let builder = builder.unwrap().dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match self.shown {
            Shown::RawKey => {
                builder.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(self.certified())))
            }
            Shown::Certificate => builder.with_client_cert_resolver(Arc::new(Certificate(self.certified()))),
            Shown::Nothing => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        Arc::new(config)
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(self.provider()).with_protocol_versions(&[&rustls::version::TLS13]);
        let mut config = builder
            .unwrap()
            .with_client_cert_verifier(Arc::new(AnyKey { raw: true }))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.certified())));
        config.alpn_protocols.clone_from(&self.alpn);
        config.send_tls13_tickets = self.tickets;
        Arc::new(config)
    }
}

/// A TCP connection that never waits longer than a test may.
pub(crate) fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    patient(&stream);
    stream
}

pub(crate) fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

/// Whether the connection is over, in order or by a reset, and not just silent.
pub(crate) fn is_over(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Reads to the end of a connection, however it ends.
pub(crate) fn drain(stream: &mut impl Read) -> Vec<u8> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return bytes,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) => {
                assert!(is_over(&error), "the connection stays open");
                return bytes;
            }
        }
    }
}

/// One end of a lane.
pub(crate) struct Lane<C> {
    pub(crate) tls: C,
    pub(crate) tcp: TcpStream,
}

pub(crate) type Dialled = Lane<ClientConnection>;
pub(crate) type Accepted = Lane<ServerConnection>;

impl Dialled {
    /// Dials; the handshake is complete as far as this end can tell.
    pub(crate) fn dial(address: SocketAddr, offer: &Offer) -> io::Result<Self> {
        let name = ServerName::IpAddress(address.ip().into());
        let mut lane = Self { tls: ClientConnection::new(offer.client(), name).unwrap(), tcp: tcp(address) };
        lane.tls.complete_io(&mut lane.tcp)?;
        Ok(lane)
    }

    /// A client's lane whose HELLO was answered.
    pub(crate) fn client(address: SocketAddr) -> Self {
        let mut lane = Self::dial(address, &Offer::right(77)).unwrap();
        lane.send(&hello(Role::Client, LinkId(rand())));
        let Message::Hello(answer) = lane.message() else { panic!("no HELLO") };
        assert_eq!(answer.role, Role::Node);
        lane
    }
}

impl Accepted {
    /// Accepts on a connection that was dialled from the other end.
    pub(crate) fn accept(tcp: TcpStream, offer: &Offer) -> io::Result<Self> {
        patient(&tcp);
        let mut lane = Self { tls: ServerConnection::new(offer.server()).unwrap(), tcp };
        lane.tls.complete_io(&mut lane.tcp)?;
        Ok(lane)
    }
}

impl<C, Data> Lane<C>
where
    C: std::ops::DerefMut<Target = ConnectionCommon<Data>> + 'static,
    Data: rustls::SideData + 'static,
{
    fn stream(&mut self) -> rustls::Stream<'_, C, TcpStream> {
        rustls::Stream::new(&mut self.tls, &mut self.tcp)
    }

    /// Sends bytes as one record.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.stream();
        stream.write_all(bytes)?;
        stream.flush()
    }

    pub(crate) fn send(&mut self, message: &Message) {
        self.write(control(message).bytes()).unwrap();
    }

    /// The next frame; an error at the lane's end.
    pub(crate) fn frame(&mut self) -> io::Result<Box<[u8; FRAME_BYTES]>> {
        let mut frame = Box::new([0; FRAME_BYTES]);
        self.stream().read_exact(&mut frame[..])?;
        Ok(frame)
    }

    /// The next frame of this command, whatever comes before it.
    pub(crate) fn frame_of(&mut self, command: Command) -> io::Result<Box<[u8; FRAME_BYTES]>> {
        loop {
            let frame = self.frame()?;
            if Header::decode(&frame[..]).unwrap().command == command {
                return Ok(frame);
            }
        }
    }

    /// The next control message, whatever comes before it.
    pub(crate) fn message(&mut self) -> Message {
        self.message_or_end().unwrap()
    }

    pub(crate) fn message_or_end(&mut self) -> io::Result<Message> {
        loop {
            let frame = self.frame()?;
            let header = Header::decode(&frame[..]).unwrap();
            if header.command == Command::Control && header.flags == CONTROL_FLAG_URGENT {
                let body: &[u8; BODY_BYTES] = frame[HEADER_BYTES..].try_into().unwrap();
                let raw = RawMessage::from_urgent(read_control_body(body).unwrap()).unwrap();
                return Ok(Message::decode(&raw, true).unwrap());
            }
        }
    }

    /// All frames until the lane ends.
    pub(crate) fn drain(&mut self) -> Vec<u8> {
        drain(&mut self.stream())
    }
}

pub(crate) fn rand<const N: usize>() -> [u8; N] {
    let mut entropy: Entropy = port17::keystore::system_entropy().unwrap();
    entropy.bytes()
}

pub(crate) fn hello(role: Role, link: LinkId) -> Message {
    Message::Hello(Hello {
        versions: (1, 1),
        role,
        slot: LaneSlot::One,
        link,
        circuits: 64,
        network: port17_proto::ids::NetworkId::default(),
    })
}

pub(crate) fn control(message: &Message) -> FrameBuf {
    let mut body = [0; BODY_BYTES];
    write_control_body(&message.encode(), &mut body).unwrap();
    let flags = if message.is_urgent() { CONTROL_FLAG_URGENT } else { 0 };
    FrameBuf::with_body(Header { flags, ..Header::new(CircuitId(0), Command::Control) }, &body)
}

/// How long a node waits in these tests.
pub(crate) const HANDSHAKE: Duration = Duration::from_millis(700);
