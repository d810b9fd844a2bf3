//! The life of the node's circuit keys (spec 03, 2): a new one every interval, each erased at its end.
//!
//! Both clocks count, whichever is first: the monotone one, so that a system clock that is set back keeps no key alive, and the
//! system's, which also counts the time that a machine slept. The secrets are in the data plane's keyring; here is the public half.

use std::sync::Arc;
use std::time::Duration;

use super::io::{Counted, Output};
use super::{Node, Part, TimerKey};
use crate::circuit::keyring::{CircuitKey, KeyId};
use crate::crypto::{KemBackend, KemPublicKey, KemSecretKey};
use crate::limits::CIRCUIT_KEYS;
use crate::planted::planted;

/// The system's clock is compared with the keys' times at least this often: it may have jumped, or the machine slept.
const CLOCK_CHECK: Duration = Duration::from_secs(60);

/// A circuit key that is not erased yet.
pub(super) struct LiveKey {
    id: KeyId,
    pub(super) public: KemPublicKey,
    created: Duration,
    created_s: u64,
    pub(super) not_after_s: u64,
}

pub(super) struct CircuitKeys {
    backend: KemBackend,
    /// Oldest first.
    live: Vec<LiveKey>,
}

impl CircuitKeys {
    pub(super) fn new(backend: KemBackend) -> Self {
        Self { backend, live: Vec::new() }
    }

    /// The newest: the one that a Bottle carries.
    pub(super) fn current(&self) -> Option<&LiveKey> {
        self.live.last()
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    fn take_ended(&mut self, mono: Duration, unix_s: u64, lifetime: Duration) -> Vec<KeyId> {
        let ended = |key: &LiveKey| key.not_after_s <= unix_s || key.created + lifetime <= mono;
        let ids = self.live.iter().filter(|key| ended(key)).map(|key| key.id).collect();
        self.live.retain(|key| !ended(key));
        ids
    }

    fn is_new_one_due(&self, mono: Duration, unix_s: u64, interval: Duration, lifetime: Duration) -> bool {
        self.current().is_none_or(|key| {
            let is_old = key.created + interval <= mono || key.created_s.saturating_add(interval.as_secs()) <= unix_s;
            // By a newer list it would live too long: nobody takes a Bottle with it any more.
            is_old || key.created_s.saturating_add(lifetime.as_secs()) < key.not_after_s
        })
    }

    fn next_due(&self, interval: Duration, lifetime: Duration) -> Option<Duration> {
        let rotation = self.current().map(|key| key.created + interval);
        let end = self.live.first().map(|key| key.created + lifetime);
        rotation.into_iter().chain(end).min()
    }
}

impl Node {
    /// Erases what has ended, makes what is due, and plans the next look.
    pub(super) fn turn_circuit_keys(&mut self) {
        let Part::Node(part) = &mut self.part else { return };
        let (interval, lifetime) = (self.params.circuit_key_interval, self.params.circuit_key_lifetime);
        let (mono, unix_s) = (self.now.mono, self.now.unix_ms / 1000);
        let keys = &mut part.keys;
        // spec 03, 2: erased at its end, whatever Bottle still carries it
        let ended = keys.take_ended(mono, unix_s, lifetime);
        self.outputs.extend(ended.into_iter().map(Output::EraseCircuitKey));
        let due = keys.is_new_one_due(mono, unix_s, interval, lifetime);
        let next = keys.next_due(interval, lifetime).unwrap_or(Duration::MAX).max(mono + Duration::from_secs(1));
        self.timers.set(TimerKey::CircuitKeys, next.min(mono + CLOCK_CHECK));
        if due {
            self.make_circuit_key();
        }
    }

    fn make_circuit_key(&mut self) {
        let Part::Node(part) = &mut self.part else { return };
        let (mono, unix_s) = (self.now.mono, self.now.unix_ms / 1000);
        let Ok(secret) = KemSecretKey::generate(part.keys.backend, &mut self.entropy) else {
            // The timer is set already: it is tried again then, and the old key serves on.
            return self.count(Counted::NoCircuitKey);
        };
        let not_after_s = unix_s.saturating_add(self.params.circuit_key_lifetime.as_secs());
        let key = Arc::new(CircuitKey::new(secret, unix_s, not_after_s));
        if part.keys.live.len() >= CIRCUIT_KEYS {
            let oldest = part.keys.live.remove(0);
            self.outputs.push_back(Output::EraseCircuitKey(oldest.id));
        }
        part.keys.live.push(LiveKey {
            id: key.id(),
            public: key.public().clone(),
            created: mono,
            created_s: unix_s,
            not_after_s,
        });
        self.push(Output::NewCircuitKey(key));
        if planted("new-key-not-published") && self.own_bottle_out().is_some() {
            return;
        }
        self.want_bottle();
    }

    /// The engine stops: nothing that was sent to this node can be opened any more.
    pub(super) fn erase_all_circuit_keys(&mut self) {
        let Part::Node(part) = &mut self.part else { return };
        let erased = part.keys.live.drain(..).map(|key| Output::EraseCircuitKey(key.id));
        self.outputs.extend(erased);
    }
}
