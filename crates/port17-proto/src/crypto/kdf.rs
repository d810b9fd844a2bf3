use aws_lc_rs::{constant_time, hkdf, hmac as aws_hmac};

use super::{CryptoError, Secret};

/// A pseudo-random key: the result of HKDF-Extract, from which keys are expanded (spec 02, 2).
pub struct Prk(hkdf::Prk);

impl Prk {
    /// HKDF-SHA-256 Extract(salt, input key material).
    pub fn extract(salt: &[u8], ikm: &[u8]) -> Self {
        // RFC 5869, 2.2 defines it so. The library's own `Salt` is neither computed once nor zeroised, and ours can be a secret.
        Self::from_key(&Secret::filled(|out| hmac_into(salt, ikm, out)))
    }

    /// Uses 32 secret bytes as the pseudo-random key itself (for rekeying: the key is already uniform).
    pub fn from_key(key: &Secret<32>) -> Self {
        Self(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key.expose()))
    }

    /// HKDF-SHA-256 Expand(this, label), 32 bytes.
    pub fn expand(&self, label: &str) -> Secret<32> {
        // 32 bytes are within HKDF's limit of 255 blocks, the only thing that can fail here. Going on with zeros would be worse.
        Secret::filled(|out| self.expand_into(label.as_bytes(), out).expect("one block of output"))
    }

    /// HKDF-SHA-256 Expand(this, info), as many bytes as `out` has.
    ///
    /// # Errors
    /// When that is more than 255 blocks of 32 bytes.
    pub fn expand_into(&self, info: &[u8], out: &mut [u8]) -> Result<(), CryptoError> {
        struct Length(usize);
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        let info = [info];
        let okm = self.0.expand(&info, Length(out.len())).map_err(|_| CryptoError)?;
        okm.fill(out).map_err(|_| CryptoError)
    }
}

/// HMAC-SHA-256.
pub fn hmac(key: &Secret<32>, data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    hmac_into(key.expose(), data, &mut out);
    out
}

fn hmac_into(key: &[u8], data: &[u8], out: &mut [u8; 32]) {
    let key = aws_hmac::Key::new(aws_hmac::HMAC_SHA256, key);
    // 32 bytes are the tag's length, the only thing that can be wrong.
    aws_hmac::sign_to_buffer(&key, data, out).expect("32 bytes hold the tag");
}

/// Compares in constant time.
///
/// # Errors
/// When the two differ, in length or in content.
pub fn same(a: &[u8], b: &[u8]) -> Result<(), CryptoError> {
    constant_time::verify_slices_are_equal(a, b).map_err(|_| CryptoError)
}
