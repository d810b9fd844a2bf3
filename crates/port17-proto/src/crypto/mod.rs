//! The one place that names a cryptographic primitive (law 9).
//!
//! Everything else in Port17 speaks of keys, layers and transcripts; which algorithm stands behind a word is decided here and
//! written down in spec 02. All primitives come from vetted libraries: aws-lc-rs in what ships, RustCrypto's `ml-kem` as a second,
//! seeded KEM backend for vectors and the simulator.
//!
//! Invariants: secrets are zeroised on drop and have neither `Debug` nor `Clone`; randomness comes in as [`Entropy`], except for
//! the shipped KEM backend, which draws its own.

mod aead;
mod entropy;
mod hash;
mod kdf;
mod kem;
mod secret;
mod sign;
mod x25519;

pub use aead::{AeadKey, TAG_BYTES};
pub use entropy::Entropy;
pub use hash::{Hash, hash};
pub use kdf::{Prk, hmac, same};
pub use kem::{CIPHERTEXT_BYTES, KemBackend, KemPublicKey, KemSecretKey, PUBLIC_KEY_BYTES};
pub use secret::Secret;
pub use sign::{SIGNATURE_BYTES, Signature, SigningKey, VerifyingKey};
pub use x25519::{EphemeralKey, ExchangePublicKey};

/// A cryptographic operation did not succeed. Deliberately without detail: a peer learns nothing from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cryptographic check failed")]
pub struct CryptoError;

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Display};

    use super::*;

    /// Does not compile when the type has one of the traits: the inference of `_` is then ambiguous.
    macro_rules! has_none_of {
        ($type:ty: $($forbidden:path),+) => {{
            trait Ambiguous<Marker> {
                fn check() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            $({
                struct Marker;
                impl<T: ?Sized + $forbidden> Ambiguous<Marker> for T {}
            })+
            <$type as Ambiguous<_>>::check();
        }};
    }

    #[test]
    fn secret_types_can_be_neither_shown_nor_copied_nor_compared() {
        has_none_of!(Secret<32>: Debug, Display, Clone, PartialEq, AsRef<[u8]>);
        has_none_of!(SigningKey: Debug, Display, Clone, PartialEq, AsRef<[u8]>);
        has_none_of!(EphemeralKey: Debug, Display, Clone, PartialEq, AsRef<[u8]>);
        has_none_of!(KemSecretKey: Debug, Display, Clone, PartialEq, AsRef<[u8]>);
        has_none_of!(AeadKey: Debug, Display, Clone, PartialEq, AsRef<[u8]>);
        has_none_of!(Prk: Debug, Display, Clone, PartialEq, AsRef<[u8]>);
        has_none_of!(Entropy: Debug, Display, Clone, PartialEq, AsRef<[u8]>);
    }

    #[test]
    fn secrets_are_zeroised_on_drop() {
        fn zeroised<T: zeroize::ZeroizeOnDrop>() {}
        zeroised::<Secret<32>>();
        zeroised::<Secret<64>>();
    }

    #[test]
    fn data_may_be_sealed_and_opened_on_any_thread() {
        fn portable<T: Send + Sync>() {}
        portable::<AeadKey>();
        portable::<Prk>();
        portable::<KemSecretKey>();
        portable::<SigningKey>();
    }

    #[test]
    fn sealing_in_place_and_into_another_buffer_is_the_same() {
        let key = AeadKey::new(&Secret::new([9; 32]));
        for length in [0, 1, 15, 16, 17, 2023] {
            let plain: Vec<u8> = (0..length).map(|at: usize| at.to_le_bytes()[0]).collect();
            let mut in_place = plain.clone();
            let tag = key.seal([3; 12], b"aad", &mut in_place);
            let mut out = vec![0; length + TAG_BYTES];
            key.seal_into([3; 12], b"aad", &plain, &mut out).unwrap();
            assert_eq!(out, [&in_place[..], &tag].concat());
        }
    }

    #[test]
    fn an_altered_cell_is_refused_and_leaves_no_plaintext() {
        let key = AeadKey::new(&Secret::new([7; 32]));
        let mut sealed = b"attack at dawn, attack at dawn".to_vec();
        let tag = key.seal([1; 12], b"aad", &mut sealed);
        sealed.extend_from_slice(&tag);

        for (nonce, aad, flip) in [([2; 12], &b"aad"[..], 0), ([1; 12], b"AAD", 0), ([1; 12], b"aad", 1)] {
            let mut altered = sealed.clone();
            altered[0] ^= flip;
            let mut out = vec![0; altered.len() - TAG_BYTES];
            assert_eq!(key.open_into(nonce, aad, &altered, &mut out), Err(CryptoError));
            assert!(!out.starts_with(b"attack") && !out.ends_with(b"dawn"));
            assert!(key.open(nonce, aad, &mut altered).is_err());
            assert!(!altered.starts_with(b"attack") && !altered.ends_with(b"dawn"));
        }
    }

    #[test]
    fn what_is_too_short_or_does_not_fit_is_refused() {
        let key = AeadKey::new(&Secret::new([7; 32]));
        for length in 0..TAG_BYTES {
            assert!(key.open([0; 12], &[], &mut vec![0; length]).is_err());
            assert!(key.open_into([0; 12], &[], &vec![0; length], &mut []).is_err());
        }
        let tag = key.seal([0; 12], &[], &mut []);
        assert!(key.open_into([0; 12], &[], &tag, &mut [0]).is_err());
        assert!(key.open_into([0; 12], &[], &tag, &mut []).is_ok());
        for length in (0..TAG_BYTES + 5).chain(TAG_BYTES + 6..40) {
            assert!(key.seal_into([0; 12], &[], b"plain", &mut vec![0; length]).is_err(), "{length}");
        }
        assert!(key.seal_into([0; 12], &[], b"plain", &mut [0; TAG_BYTES + 5]).is_ok());
    }
}
