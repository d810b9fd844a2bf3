use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::{CryptoError, Entropy, Secret};

/// Length of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// An Ed25519 signature.
pub type Signature = [u8; SIGNATURE_BYTES];

/// An Ed25519 key pair. Each signature is over `tag ‖ message` (spec 02, 3).
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: Secret<32>,
}

impl SigningKey {
    /// A new key.
    pub fn generate(entropy: &mut Entropy) -> Self {
        Self::from_seed(entropy.secret())
    }

    /// The key that belongs to an RFC 8032 seed.
    pub fn from_seed(seed: Secret<32>) -> Self {
        // Any 32 bytes are a valid seed.
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).expect("any 32 bytes are an Ed25519 seed");
        Self { pair, seed }
    }

    /// The RFC 8032 seed, to be written to a key file or given to the TLS library.
    pub fn seed(&self) -> &Secret<32> {
        &self.seed
    }

    /// The public half.
    pub fn public(&self) -> VerifyingKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        VerifyingKey(bytes)
    }

    /// Signs `tag ‖ parts…`.
    pub fn sign(&self, tag: &str, parts: &[&[u8]]) -> Signature {
        let mut out = [0; SIGNATURE_BYTES];
        out.copy_from_slice(self.pair.sign(&message(tag, parts)).as_ref());
        out
    }
}

/// An Ed25519 public key as its 32 bytes; whether they are a usable point is found out when something is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifyingKey(pub [u8; 32]);

impl VerifyingKey {
    /// Verifies a signature over `tag ‖ parts…` by the one rule of spec 02, 3: A and R canonical and not of small order, S < L,
    /// then the cofactorless check, R = S·B - k·A, on the encodings.
    ///
    /// # Errors
    /// When any of these does not hold.
    pub fn verify(&self, tag: &str, parts: &[&[u8]], signature: &Signature) -> Result<(), CryptoError> {
        self.check()?;
        let (r, _) = signature.split_first_chunk::<32>().ok_or(CryptoError)?;
        check_point(r)?;
        UnparsedPublicKey::new(&ED25519, self.0).verify(&message(tag, parts), signature).map_err(|_| CryptoError)
    }

    /// Checks that the key is canonically encoded and not a point of small order. Half of all such encodings are no point of the
    /// curve at all: nothing ever verifies under those, so nobody gains by publishing one.
    ///
    /// # Errors
    /// When it is not so.
    pub fn check(&self) -> Result<(), CryptoError> {
        check_point(&self.0)
    }
}

fn message(tag: &str, parts: &[&[u8]]) -> Vec<u8> {
    let length = tag.len() + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(tag.as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// The y coordinates (little-endian, sign bit cleared) of all points whose order divides 8.
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    // y = 0, order 4
    [0; 32],
    // y = 1, the neutral element
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    // y = -1, order 2
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
    ],
    // order 8
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05,
        0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    // order 8
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa,
        0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// The field's prime 2^255 - 19, little-endian.
const PRIME: [u8; 32] = [
    0xed, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
];

/// Both points whose y is below the prime but whose sign bit is wrong (x = 0, sign 1) are of small order, so this covers them.
fn check_point(encoded: &[u8; 32]) -> Result<(), CryptoError> {
    let mut y = *encoded;
    y[31] &= 0x7f;
    let canonical = y.iter().rev().lt(PRIME.iter().rev());
    if canonical && !SMALL_ORDER_Y.contains(&y) { Ok(()) } else { Err(CryptoError) }
}
