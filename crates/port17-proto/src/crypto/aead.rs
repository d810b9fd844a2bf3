use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{CryptoError, Secret};

/// Bytes that sealing adds.
pub const TAG_BYTES: usize = 16;

/// AES-256-GCM under one key, zeroised on drop (by the library). The caller never uses a nonce twice: counters are never sent and never reset (spec 06, 2).
pub struct AeadKey(LessSafeKey);

impl AeadKey {
    /// Expands the key schedule.
    pub fn new(key: &Secret<32>) -> Self {
        Self::from_bytes(key.expose())
    }

    pub(super) fn from_bytes(key: &[u8; 32]) -> Self {
        // 32 bytes are the one length AES-256 takes, so `new` cannot fail.
        let unbound = UnboundKey::new(&AES_256_GCM, key).expect("a 32-byte key fits AES-256");
        Self(LessSafeKey::new(unbound))
    }

    /// Seals `in_out` in place and returns the tag.
    pub fn seal(&self, nonce: [u8; 12], aad: &[u8], in_out: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), in_out);
        let mut out = [0; TAG_BYTES];
        // Fails only above 64 GiB of plaintext.
        out.copy_from_slice(tag.expect("far below the length limit of GCM").as_ref());
        out
    }

    /// Opens `in_out` = ciphertext ‖ tag in place; the plaintext is its first `len - 16` bytes.
    ///
    /// # Errors
    /// When it is too short or was not sealed so; `in_out` then holds nothing of use.
    pub fn open<'a>(&self, nonce: [u8; 12], aad: &[u8], in_out: &'a mut [u8]) -> Result<&'a mut [u8], CryptoError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, Aad::from(aad), in_out).map_err(|_| CryptoError)
    }

    /// Opens `sealed` = ciphertext ‖ tag into `out`, which has exactly 16 bytes less.
    ///
    /// # Errors
    /// When the lengths do not fit or it was not sealed so.
    pub fn open_into(&self, nonce: [u8; 12], aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<(), CryptoError> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(CryptoError)?;
        if out.len() != ciphertext.len() {
            return Err(CryptoError);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, out).map_err(|_| CryptoError)
    }

    /// Seals `plaintext` into `out` = ciphertext ‖ tag, which has exactly 16 bytes more; one pass, no copy.
    ///
    /// # Errors
    /// When the lengths do not fit.
    pub fn seal_into(&self, nonce: [u8; 12], aad: &[u8], plaintext: &[u8], out: &mut [u8]) -> Result<(), CryptoError> {
        let (ciphertext, tag) = out.split_last_chunk_mut::<TAG_BYTES>().ok_or(CryptoError)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.seal_out_of_place_scatter(nonce, Aad::from(aad), plaintext, ciphertext, &[], tag).map_err(|_| CryptoError)
    }
}
