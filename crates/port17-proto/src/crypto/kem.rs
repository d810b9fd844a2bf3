//! X-Wing (draft-connolly-cfrg-xwing-kem): X25519 and ML-KEM-768 in one KEM, secure while either is. Spec 02, 4.

use aws_lc_rs::digest;
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use ml_kem::{B32, EncapsulateDeterministic, EncodedSizeUser, KemCore, MlKem768, kem::Decapsulate};
use sha3::Shake256;
use sha3::digest::{ExtendableOutput, Update, XofReader};
use zeroize::Zeroize;

use super::{CryptoError, Entropy, EphemeralKey, Secret};

const ML_PUBLIC_BYTES: usize = 1184;
const ML_CIPHERTEXT_BYTES: usize = 1088;
const LABEL: &[u8; 6] = br"\.//^\";

/// Length of a public key.
pub const PUBLIC_KEY_BYTES: usize = ML_PUBLIC_BYTES + 32;
/// Length of a ciphertext.
pub const CIPHERTEXT_BYTES: usize = ML_CIPHERTEXT_BYTES + 32;

/// Which library does ML-KEM-768.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KemBackend {
    /// aws-lc-rs: what ships. It draws its own randomness, so its results differ each time.
    AwsLc,
    /// RustCrypto `ml-kem`, seeded from [`Entropy`]: for vectors and the simulator.
    Seeded,
}

/// A public key: ML-KEM-768 (1184 B) ‖ X25519 (32 B).
#[derive(Clone, PartialEq, Eq)]
pub struct KemPublicKey(Box<[u8; PUBLIC_KEY_BYTES]>);

impl KemPublicKey {
    /// Takes the bytes as they come in a Bottle; a bad key shows when it is used.
    pub fn from_bytes(bytes: [u8; PUBLIC_KEY_BYTES]) -> Self {
        Self(Box::new(bytes))
    }

    /// The encoded key.
    pub fn as_bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.0
    }

    fn halves(&self) -> (&[u8; ML_PUBLIC_BYTES], &[u8; 32]) {
        let (ml, x) = self.0.split_first_chunk().expect("1216 bytes hold 1184");
        (ml, x.try_into().expect("32 bytes remain"))
    }

    /// Draws a shared secret and encapsulates it to this key.
    ///
    /// # Errors
    /// When the key is not a valid one.
    pub fn encapsulate(
        &self,
        backend: KemBackend,
        entropy: &mut Entropy,
    ) -> Result<([u8; CIPHERTEXT_BYTES], Secret<32>), CryptoError> {
        match backend {
            KemBackend::AwsLc => self.encapsulate_with(&EphemeralKey::generate(entropy), |ml_public, ct_ml| {
                let key = EncapsulationKey::new(&ML_KEM_768, ml_public).map_err(|_| CryptoError)?;
                let (ciphertext, shared) = key.encapsulate().map_err(|_| CryptoError)?;
                ct_ml.copy_from_slice(ciphertext.as_ref());
                secret_from(shared.as_ref())
            }),
            KemBackend::Seeded => self.encapsulate_from_seed(&entropy.secret()),
        }
    }

    /// Encapsulates with the randomness of a seed (ML-KEM's m 32 ‖ the X25519 secret 32), by the seeded backend.
    ///
    /// # Errors
    /// When the key is not a valid one.
    pub fn encapsulate_from_seed(&self, seed: &Secret<64>) -> Result<([u8; CIPHERTEXT_BYTES], Secret<32>), CryptoError> {
        let (m, x) = seed.expose().split_at(32);
        let ephemeral = EphemeralKey::from_secret(&secret_from(x)?);
        self.encapsulate_with(&ephemeral, |ml_public, ct_ml| {
            type Key = <MlKem768 as KemCore>::EncapsulationKey;
            let key = Key::from_bytes(ml_public.into());
            // A public key that does not re-encode to itself is not canonical (FIPS 203, 7.2); aws-lc-rs checks the same.
            if key.as_bytes().as_slice() != ml_public {
                return Err(CryptoError);
            }
            let m: &B32 = m.try_into().map_err(|_| CryptoError)?;
            let (ciphertext, mut shared) = key.encapsulate_deterministic(m).map_err(|()| CryptoError)?;
            ct_ml.copy_from_slice(&ciphertext);
            let secret = secret_from(&shared);
            shared.zeroize();
            secret
        })
    }

    fn encapsulate_with(
        &self,
        ephemeral: &EphemeralKey,
        encapsulate_ml: impl FnOnce(&[u8; ML_PUBLIC_BYTES], &mut [u8]) -> Result<Secret<32>, CryptoError>,
    ) -> Result<([u8; CIPHERTEXT_BYTES], Secret<32>), CryptoError> {
        let (ml_public, x_public) = self.halves();
        let mut ct = [0; CIPHERTEXT_BYTES];
        let (ct_ml, ct_x) = ct.split_at_mut(ML_CIPHERTEXT_BYTES);
        let ss_ml = encapsulate_ml(ml_public, ct_ml)?;
        ct_x.copy_from_slice(ephemeral.public());
        let ss_x = ephemeral.exchange(x_public)?;
        let shared = combine(&ss_ml, &ss_x, ephemeral.public(), x_public);
        Ok((ct, shared))
    }
}

enum MlSecret {
    AwsLc(DecapsulationKey),
    Seeded(Box<<MlKem768 as KemCore>::DecapsulationKey>),
}

/// A secret key, of either backend. Never on disk.
pub struct KemSecretKey {
    ml: MlSecret,
    x: EphemeralKey,
    public: KemPublicKey,
}

impl KemSecretKey {
    /// A new key.
    ///
    /// # Errors
    /// When the library has no randomness.
    pub fn generate(backend: KemBackend, entropy: &mut Entropy) -> Result<Self, CryptoError> {
        match backend {
            KemBackend::AwsLc => {
                let ml = DecapsulationKey::generate(&ML_KEM_768).map_err(|_| CryptoError)?;
                let ml_public = ml.encapsulation_key().and_then(|key| key.key_bytes()).map_err(|_| CryptoError)?;
                let x = EphemeralKey::generate(entropy);
                let public = join(ml_public.as_ref(), &x)?;
                Ok(Self { ml: MlSecret::AwsLc(ml), x, public })
            }
            KemBackend::Seeded => Self::from_seed(&entropy.secret()),
        }
    }

    /// The key of an X-Wing seed, in the seeded backend.
    ///
    /// # Errors
    /// As [`Self::from_seed_on`].
    pub fn from_seed(seed: &Secret<32>) -> Result<Self, CryptoError> {
        Self::from_seed_on(KemBackend::Seeded, seed)
    }

    /// The key of an X-Wing seed: SHAKE256(seed) gives d 32 ‖ z 32 ‖ the X25519 secret 32.
    ///
    /// # Errors
    /// Never for a seed of 32 bytes; the type follows [`Self::generate`].
    pub fn from_seed_on(backend: KemBackend, seed: &Secret<32>) -> Result<Self, CryptoError> {
        let mut shake = Shake256::default();
        shake.update(seed.expose());
        let mut reader = shake.finalize_xof();
        let (mut d, mut z) = (B32::default(), B32::default());
        reader.read(&mut d);
        reader.read(&mut z);
        let x = EphemeralKey::from_secret(&Secret::filled(|out| reader.read(out)));
        let (ml, ml_public) = MlKem768::generate_deterministic(&d, &z);
        d.zeroize();
        z.zeroize();
        let public = join(&ml_public.as_bytes(), &x)?;
        let ml = match backend {
            KemBackend::AwsLc => {
                let mut bytes = ml.as_bytes();
                let key = DecapsulationKey::new(&ML_KEM_768, &bytes);
                bytes.zeroize();
                MlSecret::AwsLc(key.map_err(|_| CryptoError)?)
            }
            KemBackend::Seeded => MlSecret::Seeded(Box::new(ml)),
        };
        Ok(Self { ml, x, public })
    }

    /// The public half.
    pub fn public(&self) -> &KemPublicKey {
        &self.public
    }

    /// Recovers the shared secret. A ciphertext that was made up gives an unrelated secret, not an error.
    ///
    /// # Errors
    /// When the X25519 part is of small order.
    pub fn decapsulate(&self, ct: &[u8; CIPHERTEXT_BYTES]) -> Result<Secret<32>, CryptoError> {
        let (ct_ml, ct_x) = ct.split_at(ML_CIPHERTEXT_BYTES);
        let ss_ml = match &self.ml {
            MlSecret::AwsLc(key) => {
                let shared = key.decapsulate(Ciphertext::from(ct_ml)).map_err(|_| CryptoError)?;
                secret_from(shared.as_ref())?
            }
            MlSecret::Seeded(key) => {
                let mut shared = key.decapsulate(ct_ml.try_into().map_err(|_| CryptoError)?).map_err(|()| CryptoError)?;
                let secret = secret_from(&shared);
                shared.zeroize();
                secret?
            }
        };
        let ct_x: &[u8; 32] = ct_x.try_into().map_err(|_| CryptoError)?;
        let ss_x = self.x.exchange(ct_x)?;
        Ok(combine(&ss_ml, &ss_x, ct_x, self.x.public()))
    }
}

fn join(ml_public: &[u8], x: &EphemeralKey) -> Result<KemPublicKey, CryptoError> {
    let mut bytes = [0; PUBLIC_KEY_BYTES];
    if ml_public.len() != ML_PUBLIC_BYTES {
        return Err(CryptoError);
    }
    bytes[..ML_PUBLIC_BYTES].copy_from_slice(ml_public);
    bytes[ML_PUBLIC_BYTES..].copy_from_slice(x.public());
    Ok(KemPublicKey::from_bytes(bytes))
}

fn secret_from(bytes: &[u8]) -> Result<Secret<32>, CryptoError> {
    let bytes: &[u8; 32] = bytes.try_into().map_err(|_| CryptoError)?;
    Ok(Secret::filled(|out| out.copy_from_slice(bytes)))
}

fn combine(ss_ml: &Secret<32>, ss_x: &Secret<32>, ct_x: &[u8; 32], pk_x: &[u8; 32]) -> Secret<32> {
    let mut context = digest::Context::new(&digest::SHA3_256);
    for part in [&ss_ml.expose()[..], ss_x.expose(), ct_x, pk_x, LABEL] {
        context.update(part);
    }
    Secret::filled(|out| out.copy_from_slice(context.finish().as_ref()))
}
