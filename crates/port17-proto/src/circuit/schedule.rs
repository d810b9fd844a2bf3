//! The key schedule of one hop (spec 02, 5).
//!
//! Two stages. The first keys come from the hop's circuit key alone, so that the client can send at once; the fresh ones add an
//! ephemeral exchange and replace them, so that a circuit key stolen later opens nothing but the first flight. A transcript hash
//! binds each stage to everything said before it.

use zeroize::Zeroize;

use super::keyring::KeyId;
use crate::crypto::{CIPHERTEXT_BYTES, ExchangePublicKey, Hash, KemPublicKey, Prk, Secret, hash, hmac};
use crate::ids::NodeId;
use crate::wire::registry::{CONFIRMATION_BYTES, SETUP_INFO_BYTES};

/// What follows from a hop's record alone.
pub struct FirstKeys {
    /// th0: who, with which key, from which ciphertext.
    pub transcript: Hash,
    /// K_set: seals the record's info and rest.
    pub setup: Secret<32>,
    /// f0: forward cells until CREATED has come.
    pub forward: Secret<32>,
    /// up: carried over into the fresh keys.
    pub upgrade: Secret<32>,
}

impl FirstKeys {
    /// Derives them from the KEM's shared secret.
    pub fn derive(node: NodeId, key_id: KeyId, public: &KemPublicKey, ct: &[u8; CIPHERTEXT_BYTES], shared: &Secret<32>) -> Self {
        // spec 02, 5
        let transcript = hash("p17-th0-v1", &[&node.0, &key_id.0, public.as_bytes(), ct]);
        let prk = Prk::extract(&transcript, shared.expose());
        Self { transcript, setup: prk.expand("setup"), forward: prk.expand("fwd 0"), upgrade: prk.expand("upgrade") }
    }
}

/// Both sides' state between SETUP and CREATED: what the fresh keys will be derived from.
pub struct Upgrade {
    transcript: Hash,
    info: Hash,
    secret: Secret<32>,
}

impl Upgrade {
    /// Joins the first stage's transcript and secret with what the record said.
    pub fn new(transcript: Hash, info: &[u8; SETUP_INFO_BYTES], secret: Secret<32>) -> Self {
        Self { transcript, info: hash("p17-info-v1", &[info]), secret }
    }

    /// Derives the fresh keys from the hop's ephemeral key and the exchange of both ephemeral keys.
    pub fn derive(&self, node_ephemeral: &ExchangePublicKey, exchanged: &Secret<32>) -> FreshKeys {
        // spec 02, 5
        let transcript = hash("p17-th1-v1", &[&self.transcript, &self.info, node_ephemeral]);
        let mut salt = [0; 64];
        salt[..32].copy_from_slice(self.secret.expose());
        salt[32..].copy_from_slice(&transcript);
        let prk = Prk::extract(&salt, exchanged.expose());
        salt.zeroize();
        let mut confirmation = [0; CONFIRMATION_BYTES];
        confirmation.copy_from_slice(&hmac(&prk.expand("confirm"), &transcript)[..CONFIRMATION_BYTES]);
        FreshKeys {
            transcript,
            forward: prk.expand("fwd 1"),
            backward: prk.expand("bwd 1"),
            created: prk.expand("created"),
            confirmation,
        }
    }
}

/// What both sides share once CREATED has come.
pub struct FreshKeys {
    /// th1: all of th0, the record's info, the hop's ephemeral key.
    pub transcript: Hash,
    /// f1: forward cells from now on.
    pub forward: Secret<32>,
    /// b1: all backward cells.
    pub backward: Secret<32>,
    /// Seals this hop's layer of CREATED.
    pub created: Secret<32>,
    /// conf: the hop's proof that it has these keys.
    pub confirmation: [u8; CONFIRMATION_BYTES],
}
