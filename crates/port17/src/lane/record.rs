//! TLS 1.3 records after the handshake (spec 05, 1).
//!
//! rustls does the handshake and protects each record; here is only the framing around that. Its connection object has one state
//! for both directions and copies what it decrypts; its kernel interface hands out the two directions apart, so that the reader
//! opens records where they lie and the writer seals without a lock between them.

use std::sync::{Arc, Mutex};

use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite, Tls13CipherSuite};

use super::lock;

const HEADER: usize = 5;
/// A record of 16 KiB and what protection adds.
pub(super) const MAX_RECORD: usize = HEADER + 16 * 1024 + 256;
/// Records under one key before KeyUpdate: far below AES-GCM's 2^24.5 (RFC 8446, 5.5).
const KEY_UPDATE_AFTER: u64 = 1 << 23;
/// A KeyUpdate that asks for none in return.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// The key schedule of a connection whose handshake is done.
pub(super) enum Kernel {
    Dialled(KernelConnection<ClientConnectionData>),
    Accepted(KernelConnection<ServerConnectionData>),
}

impl Kernel {
    fn next_sending(&mut self) -> Result<ConnectionTrafficSecrets, Error> {
        let (_, secrets) = match self {
            Self::Dialled(connection) => connection.update_tx_secret()?,
            Self::Accepted(connection) => connection.update_tx_secret()?,
        };
        Ok(secrets)
    }

    fn next_receiving(&mut self) -> Result<ConnectionTrafficSecrets, Error> {
        let (_, secrets) = match self {
            Self::Dialled(connection) => connection.update_rx_secret()?,
            Self::Accepted(connection) => connection.update_rx_secret()?,
        };
        Ok(secrets)
    }

    pub(super) fn suite(&self) -> Result<&'static Tls13CipherSuite, Error> {
        let suite = match self {
            Self::Dialled(connection) => connection.negotiated_cipher_suite(),
            Self::Accepted(connection) => connection.negotiated_cipher_suite(),
        };
        match suite {
            SupportedCipherSuite::Tls13(suite) => Ok(suite),
            #[allow(unreachable_patterns, reason = "TLS 1.2 is compiled in when another crate asks for it")]
            _ => Err(Error::General("not TLS 1.3".into())),
        }
    }
}

fn key(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), Error> {
    match secrets {
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(Error::General("a cipher suite that was not offered".into())),
    }
}

/// Seals the records of one direction.
pub(super) struct Sealer {
    suite: &'static Tls13CipherSuite,
    kernel: Arc<Mutex<Kernel>>,
    encrypter: Box<dyn MessageEncrypter>,
    seq: u64,
    update_after: u64,
}

impl Sealer {
    pub(super) fn new(kernel: Arc<Mutex<Kernel>>, (seq, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let suite = lock(&kernel).suite()?;
        let (key, iv) = key(secrets)?;
        Ok(Self { suite, kernel, encrypter: suite.aead_alg.encrypter(key, iv), seq, update_after: KEY_UPDATE_AFTER })
    }

    /// Seals the concatenation of `parts`, at most 16 KiB, as one record of application data. Gives its bytes, and before them a
    /// KeyUpdate when one is due.
    pub(super) fn seal(&mut self, parts: &[&[u8]], out: &mut Vec<Vec<u8>>) -> Result<(), Error> {
        if self.seq >= self.update_after {
            out.push(self.protect(ContentType::Handshake, OutboundChunks::Single(&KEY_UPDATE))?);
            let (key, iv) = key(lock(&self.kernel).next_sending()?)?;
            self.encrypter = self.suite.aead_alg.encrypter(key, iv);
            self.seq = 0;
        }
        out.push(self.protect(ContentType::ApplicationData, OutboundChunks::new(parts))?);
        Ok(())
    }

    /// An orderly end.
    pub(super) fn close_notify(&mut self) -> Result<Vec<u8>, Error> {
        self.protect(ContentType::Alert, OutboundChunks::Single(&[1, 0]))
    }

    fn protect(&mut self, typ: ContentType, payload: OutboundChunks<'_>) -> Result<Vec<u8>, Error> {
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_3, payload };
        let record = self.encrypter.encrypt(message, self.seq)?;
        self.seq += 1;
        Ok(record.encode())
    }
}

/// What a record held.
pub(super) enum Opened {
    /// Application data: this many bytes behind the record's header.
    Data(usize),
    /// Nothing for us: a key update.
    Nothing,
    /// The peer ends the connection.
    Closed,
}

/// Opens the records of one direction.
pub(super) struct Opener {
    suite: &'static Tls13CipherSuite,
    kernel: Arc<Mutex<Kernel>>,
    decrypter: Box<dyn MessageDecrypter>,
    seq: u64,
}

impl Opener {
    pub(super) fn new(kernel: Arc<Mutex<Kernel>>, (seq, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let suite = lock(&kernel).suite()?;
        let (key, iv) = key(secrets)?;
        Ok(Self { suite, kernel, decrypter: suite.aead_alg.decrypter(key, iv), seq })
    }

    /// Length of the first record in `bytes`, header included; none when its header is not whole.
    pub(super) fn record_len(bytes: &[u8]) -> Option<Result<usize, Error>> {
        let header = bytes.first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        // After the handshake every record is outwardly application data (RFC 8446, 5.2).
        let fits = header[0] == u8::from(ContentType::ApplicationData) && HEADER + length <= MAX_RECORD;
        Some(if fits { Ok(HEADER + length) } else { Err(Error::General("not a record of this connection".into())) })
    }

    /// Opens one whole record in place; data then begins behind its header.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Opened, Error> {
        let message = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut record[HEADER..]);
        let plain = self.decrypter.decrypt(message, self.seq)?;
        self.seq += 1;
        match plain.typ {
            ContentType::ApplicationData => Ok(Opened::Data(plain.payload.len())),
            ContentType::Handshake if matches!(plain.payload, [24, 0, 0, 1, 0]) => {
                let (key, iv) = key(lock(&self.kernel).next_receiving()?)?;
                self.decrypter = self.suite.aead_alg.decrypter(key, iv);
                self.seq = 0;
                Ok(Opened::Nothing)
            }
            ContentType::Alert => Ok(Opened::Closed),
            _ => Err(Error::General("a message that this connection never has".into())),
        }
    }

    /// Where data begins in a record.
    pub(super) const DATA_AT: usize = HEADER;
}

#[cfg(test)]
mod tests {
    use port17_proto::crypto::{Entropy, SigningKey};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::tls::{self, Established};
    use super::*;

    /// Two ends of one connection.
    async fn ends() -> (Established, Established) {
        let mut entropy = Entropy::from_number(17);
        let (dialler, acceptor) = (SigningKey::generate(&mut entropy), SigningKey::generate(&mut entropy));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = tls::server_config(&acceptor).unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let dialled = tls::dial(dialled, &dialler, vec![acceptor.public()]);
        tokio::try_join!(dialled, tls::accept(accepted, config)).unwrap()
    }

    /// Spec 05, 1: keys change by KeyUpdate, each direction by itself, and the other end follows.
    #[tokio::test]
    async fn keys_are_updated_and_the_other_end_follows() {
        let (mut dialled, mut accepted) = ends().await;
        dialled.sealer.update_after = 3;
        accepted.sealer.update_after = 5;
        let mut updates = [0, 0];
        for number in 0..20u8 {
            let pairs = [(&mut dialled.sealer, &mut accepted.opener), (&mut accepted.sealer, &mut dialled.opener)];
            for (direction, (sealer, opener)) in pairs.into_iter().enumerate() {
                let mut records = Vec::new();
                sealer.seal(&[b"record ", &[number]], &mut records).unwrap();
                let (record, before) = records.split_last_mut().unwrap();
                for update in before {
                    assert!(matches!(opener.open(update).unwrap(), Opened::Nothing));
                    updates[direction] += 1;
                }
                let Opened::Data(length) = opener.open(record).unwrap() else { panic!("no data") };
                assert_eq!(record[Opener::DATA_AT..][..length], [&b"record "[..], &[number]].concat());
            }
        }
        assert_eq!(updates, [6, 3]);
    }

    /// Under the old key nothing is taken any more; nor is a record twice, or a changed one.
    #[tokio::test]
    async fn a_record_that_is_not_the_next_one_is_refused() {
        let (mut dialled, mut accepted) = ends().await;
        dialled.sealer.update_after = 2;
        let mut records = Vec::new();
        (0..3).for_each(|_| dialled.sealer.seal(&[b"x"], &mut records).unwrap());
        let [first, second, update, third] = &records[..] else { panic!("{} records", records.len()) };
        let opener = &mut accepted.opener;
        assert!(opener.open(&mut second.clone()).is_err(), "out of order");
        let mut changed = first.clone();
        changed[Opener::DATA_AT] ^= 1;
        assert!(opener.open(&mut changed).is_err());
        assert!(opener.open(&mut first.clone()).is_ok());
        assert!(opener.open(&mut first.clone()).is_err(), "again");
        assert!(opener.open(&mut second.clone()).is_ok());
        assert!(opener.open(&mut third.clone()).is_err(), "the update is missing");
        assert!(opener.open(&mut update.clone()).is_ok());
        assert!(opener.open(&mut third.clone()).is_ok());
    }
}
