use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};

use super::{CryptoError, Entropy, Secret, same};

/// An X25519 public key.
pub type ExchangePublicKey = [u8; 32];

/// An X25519 key of one circuit, or the classical half of a circuit key.
pub struct EphemeralKey {
    private: PrivateKey,
    public: ExchangePublicKey,
}

impl EphemeralKey {
    /// A new key.
    pub fn generate(entropy: &mut Entropy) -> Self {
        Self::from_secret(&entropy.secret())
    }

    /// The key of 32 given bytes (clamped by the library, RFC 7748).
    pub fn from_secret(secret: &Secret<32>) -> Self {
        // Any 32 bytes are an X25519 private key, and its public key always exists.
        let private = PrivateKey::from_private_key(&X25519, secret.expose()).expect("any 32 bytes are an X25519 key");
        let mut public = [0; 32];
        public.copy_from_slice(private.compute_public_key().expect("X25519 has a public key").as_ref());
        Self { private, public }
    }

    /// The public half.
    pub fn public(&self) -> &ExchangePublicKey {
        &self.public
    }

    /// The shared secret with `peer`.
    ///
    /// # Errors
    /// When it would be zero: `peer` is of small order.
    pub fn exchange(&self, peer: &ExchangePublicKey) -> Result<Secret<32>, CryptoError> {
        let peer = UnparsedPublicKey::new(&X25519, peer);
        let shared: Secret<32> = agree(&self.private, peer, CryptoError, |shared| {
            let shared: &[u8; 32] = shared.try_into().map_err(|_| CryptoError)?;
            Ok(Secret::filled(|out| out.copy_from_slice(shared)))
        })?;
        // The library refuses zero as well; the rule is ours (spec 02, 4), so it does not rest on that.
        if same(shared.expose(), &[0; 32]).is_ok() { Err(CryptoError) } else { Ok(shared) }
    }
}
