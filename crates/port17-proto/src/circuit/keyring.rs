//! The circuit keys of a node: made, overlapping, erased (spec 03, 2). Never on disk: a restarted node begins with a new one.

use std::sync::Arc;

use super::replay::{ReplayCache, ReplayError, SlotClock, Stamp};
use crate::crypto::{CryptoError, Entropy, KemBackend, KemPublicKey, KemSecretKey, hash};
use crate::limits::CIRCUIT_KEYS;
use crate::planted::planted;
use crate::wire::registry::KEY_ID_BYTES;

/// Names a circuit key in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; KEY_ID_BYTES]);

impl KeyId {
    /// The id of a public key.
    pub fn of(public: &KemPublicKey) -> Self {
        // spec 06, 1
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&hash("p17-key-v1", &[public.as_bytes()])[..KEY_ID_BYTES]);
        Self(id)
    }
}

/// One circuit key. Shared by reference, so that workers decapsulate without holding the keyring; its secret is zeroised when the
/// last of them is done with it.
pub struct CircuitKey {
    id: KeyId,
    secret: KemSecretKey,
    created_at: u64,
    not_after: u64,
}

impl CircuitKey {
    /// Takes a key into use. Times are Unix seconds.
    pub fn new(secret: KemSecretKey, created_at: u64, not_after: u64) -> Self {
        Self { id: KeyId::of(secret.public()), secret, created_at, not_after }
    }

    /// What records call it.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What the Bottle carries.
    pub fn public(&self) -> &KemPublicKey {
        self.secret.public()
    }

    /// When it was made, Unix seconds.
    pub fn created_at(&self) -> u64 {
        self.created_at
    }

    /// From this Unix second on it opens nothing, whatever Bottle still carries it.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    pub(super) fn secret(&self) -> &KemSecretKey {
        &self.secret
    }
}

struct Held {
    key: Arc<CircuitKey>,
    replays: ReplayCache,
}

/// The live circuit keys of a node, oldest first, each with its replay cache.
///
/// All times are Unix seconds as the caller's clock tells them; inside, time never runs backwards.
pub struct CircuitKeyring {
    backend: KemBackend,
    rotation_seconds: u64,
    lifetime_seconds: u64,
    held: Vec<Held>,
    clock: SlotClock,
}

impl CircuitKeyring {
    /// An empty keyring; the first [`Self::rotate`] makes the first key.
    pub fn new(backend: KemBackend, rotation_seconds: u64, lifetime_seconds: u64) -> Self {
        Self { backend, rotation_seconds, lifetime_seconds, held: Vec::new(), clock: SlotClock::default() }
    }

    /// Makes a new current key; the older ones go on opening records until their end.
    ///
    /// # Errors
    /// When the library has no randomness.
    pub fn rotate(&mut self, unix_seconds: u64, entropy: &mut Entropy) -> Result<Arc<CircuitKey>, CryptoError> {
        let secret = KemSecretKey::generate(self.backend, entropy)?;
        let now = self.clock.observe(unix_seconds);
        let key = Arc::new(CircuitKey::new(secret, now, now.saturating_add(self.lifetime_seconds)));
        self.hold(Arc::clone(&key));
        Ok(key)
    }

    /// Takes a ready key as the current one: for vectors and the simulator.
    pub fn hold(&mut self, key: Arc<CircuitKey>) {
        if self.held.len() >= CIRCUIT_KEYS {
            self.held.remove(0);
        }
        self.held.push(Held { key, replays: ReplayCache::default() });
    }

    /// The newest key: the one a Bottle carries. None before the first rotation, or once it has ended.
    pub fn current(&self) -> Option<&Arc<CircuitKey>> {
        self.held.last().map(|held| &held.key)
    }

    /// When a new key is due, none before the first one (which is due at once).
    pub fn next_rotation(&self) -> Option<u64> {
        self.current().map(|key| key.created_at.saturating_add(self.rotation_seconds))
    }

    /// When the next key has to be erased.
    pub fn next_expiry(&self) -> Option<u64> {
        self.held.iter().map(|held| held.key.not_after).min()
    }

    /// Erases every key that has reached its end, with its replay cache, and returns their ids.
    pub fn erase_expired(&mut self, unix_seconds: u64) -> Vec<KeyId> {
        // spec 03, 2
        let now = self.clock.observe(unix_seconds);
        let expired = self.held.iter().filter(|held| held.key.not_after <= now).map(|held| held.key.id).collect();
        self.held.retain(|held| held.key.not_after > now || planted("ended-keys-open"));
        expired
    }

    /// Erases one key, with its replay cache, before its end: the engine says so when the system's clock cannot be relied on.
    pub fn erase(&mut self, id: KeyId) {
        self.held.retain(|held| held.key.id != id || planted("ended-keys-open"));
    }

    /// The key that a record names, unless it has ended.
    pub fn find(&self, id: KeyId, unix_seconds: u64) -> Option<&Arc<CircuitKey>> {
        let now = self.clock.at(unix_seconds);
        self.held.iter().map(|held| &held.key).find(|key| key.id == id && (key.not_after > now || planted("ended-keys-open")))
    }

    /// Number of live keys.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// One atomic insert-if-absent of a record's stamp, then the judgement of its slot. None when the key has ended meanwhile.
    pub(super) fn admit(&mut self, id: KeyId, stamp: Stamp, slot: u32, unix_seconds: u64) -> Option<Result<(), ReplayError>> {
        let now = self.clock.observe(unix_seconds);
        let held =
            self.held.iter_mut().find(|held| held.key.id == id && (held.key.not_after > now || planted("ended-keys-open")))?;
        Some(held.replays.insert(stamp, slot, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const START: u64 = 1_700_000_000;

    #[test]
    fn keys_overlap_and_are_erased_at_their_end() {
        let mut entropy = Entropy::from_number(1);
        let mut keyring = CircuitKeyring::new(KemBackend::Seeded, 6 * HOUR, 30 * HOUR);
        assert!(keyring.is_empty() && keyring.current().is_none() && keyring.next_rotation().is_none());

        let ids: Vec<_> = (0..6)
            .map(|turn| {
                let now = START + turn * 6 * HOUR;
                let erased = keyring.erase_expired(now);
                assert_eq!(erased.len(), usize::from(turn == 5));
                let key = keyring.rotate(now, &mut entropy).unwrap();
                assert_eq!(keyring.next_rotation(), Some(now + 6 * HOUR));
                assert_eq!((key.created_at(), key.not_after()), (now, now + 30 * HOUR));
                key.id()
            })
            .collect();

        let now = START + 30 * HOUR;
        assert_eq!(keyring.len(), 5);
        assert!(keyring.find(ids[0], now).is_none());
        assert!(ids[1..].iter().all(|id| keyring.find(*id, now).is_some()));
        assert_eq!(keyring.current().map(|key| key.id()), Some(ids[5]));
        assert_eq!(keyring.next_expiry(), Some(START + 36 * HOUR));
    }

    #[test]
    fn a_key_opens_nothing_from_its_end_on_even_before_it_is_erased_or_when_the_clock_is_set_back() {
        let mut keyring = CircuitKeyring::new(KemBackend::Seeded, 6 * HOUR, 30 * HOUR);
        let id = keyring.rotate(START, &mut Entropy::from_number(2)).unwrap().id();
        assert!(keyring.find(id, START + 30 * HOUR - 1).is_some());
        assert!(keyring.find(id, START + 30 * HOUR).is_none());
        let stamp = Stamp::of(&[0; crate::crypto::CIPHERTEXT_BYTES]);
        assert_eq!(keyring.admit(id, stamp, 0, START + 30 * HOUR), None);
        assert!(keyring.find(id, START).is_none());
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let mut entropy = Entropy::from_number(3);
        let mut keyring = CircuitKeyring::new(KemBackend::Seeded, 1, u64::MAX);
        for now in 0..(CIRCUIT_KEYS as u64 + 3) {
            keyring.rotate(now, &mut entropy).unwrap();
        }
        assert_eq!(keyring.len(), CIRCUIT_KEYS);
        assert_eq!(keyring.current().map(|key| key.created_at()), Some(CIRCUIT_KEYS as u64 + 2));
    }
}
