use aws_lc_rs::{constant_time, hkdf, hmac as aws_hmac};

use super::{CryptoError, Secret};

/// A pseudo-random key: the result of HKDF-Extract, from which keys are expanded (spec 02, 2).
pub struct Prk(hkdf::Prk);

impl Prk {
    /// HKDF-SHA-256 Extract(salt, input key material).
    pub fn extract(salt: &[u8], ikm: &[u8]) -> Self {
        Self(hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(ikm))
    }

    /// Uses 32 secret bytes as the pseudo-random key itself (for rekeying: the key is already uniform).
    pub fn from_key(key: &Secret<32>) -> Self {
        Self(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key.expose()))
    }

    /// HKDF-SHA-256 Expand(this, label), 32 bytes.
    pub fn expand(&self, label: &str) -> Secret<32> {
        let mut out = [0; 32];
        let info = [label.as_bytes()];
        // 32 bytes are within HKDF's limit of 255 blocks, the only thing that can fail here.
        if let Ok(okm) = self.0.expand(&info, hkdf::HKDF_SHA256) {
            let filled = okm.fill(&mut out);
            debug_assert!(filled.is_ok(), "one block of output");
        }
        Secret::new(out)
    }
}

/// HMAC-SHA-256.
pub fn hmac(key: &Secret<32>, data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let key = aws_hmac::Key::new(aws_hmac::HMAC_SHA256, key.expose());
    out.copy_from_slice(aws_hmac::sign(&key, data).as_ref());
    out
}

/// Compares in constant time.
///
/// # Errors
/// When the two differ, in length or in content.
pub fn same(a: &[u8], b: &[u8]) -> Result<(), CryptoError> {
    constant_time::verify_slices_are_equal(a, b).map_err(|_| CryptoError)
}
