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
