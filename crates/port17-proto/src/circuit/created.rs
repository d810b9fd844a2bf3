//! CREATED: each hop's sealed answer (spec 06, 1).
//!
//! The answering hop begins, each hop on the way back puts its own answer around it. Only the client can read who said what: a hop
//! sees a body, checks that nothing stands behind the layer it will wrap, and seals.

use super::depth::Depth;
use super::onion::{BackwardLayer, all_zero};
use super::setup::{OriginSetup, PendingHop};
use crate::crypto::{AeadKey, CryptoError, ExchangePublicKey, Hash, Secret, TAG_BYTES, same};
use crate::wire::registry::{BODY_BYTES, CONFIRMATION_BYTES, SetupStatus};

/// The hop's ephemeral key stands in front, unsealed.
const SEALED_AT: usize = 32;
/// Status and confirmation stand in front of the inner layer.
const INNER_AT: usize = SEALED_AT + 1 + CONFIRMATION_BYTES;
/// The created key seals one message only.
const NONCE: [u8; 12] = [0; 12];

fn layer_aad(transcript: &Hash, depth: Depth) -> [u8; 47] {
    // spec 06, 1
    let mut aad = [0; 47];
    aad[..14].copy_from_slice(b"p17-created-v1");
    aad[14..46].copy_from_slice(transcript);
    aad[46] = depth.code();
    aad
}

/// Seals a hop's one answer; using it takes it away.
pub struct CreatedSealer {
    depth: Depth,
    ephemeral: ExchangePublicKey,
    transcript: Hash,
    confirmation: [u8; CONFIRMATION_BYTES],
    key: AeadKey,
}

impl CreatedSealer {
    pub(super) fn new(
        depth: Depth,
        ephemeral: ExchangePublicKey,
        transcript: Hash,
        confirmation: [u8; CONFIRMATION_BYTES],
        key: &Secret<32>,
    ) -> Self {
        Self { depth, ephemeral, transcript, confirmation, key: AeadKey::new(key) }
    }

    /// The body of the answering hop: the exit, or whoever cannot go on. After any other status than OK it destroys the circuit.
    pub fn answer(self, status: SetupStatus) -> Box<[u8; BODY_BYTES]> {
        self.seal(status, Box::new([0; BODY_BYTES]))
    }

    /// The body of a relay: OK, around what came from the next hop.
    ///
    /// # Errors
    /// When that is not a whole body or anything stands behind its layer. The circuit must then be destroyed.
    pub fn relay(self, inner_body: &[u8]) -> Result<Box<[u8; BODY_BYTES]>, CryptoError> {
        let inner_body: &[u8; BODY_BYTES] = inner_body.try_into().map_err(|_| CryptoError)?;
        let (inner, past) = inner_body.split_at(self.depth.inner_created_bytes());
        // spec 06, 1
        all_zero(past)?;
        let mut body = Box::new([0; BODY_BYTES]);
        body[INNER_AT..INNER_AT + inner.len()].copy_from_slice(inner);
        Ok(self.seal(SetupStatus::Ok, body))
    }

    /// Seals a body whose inner layer is in place.
    fn seal(self, status: SetupStatus, mut body: Box<[u8; BODY_BYTES]>) -> Box<[u8; BODY_BYTES]> {
        let tag_at = self.depth.created_bytes() - TAG_BYTES;
        body[..SEALED_AT].copy_from_slice(&self.ephemeral);
        body[SEALED_AT] = status.code();
        body[SEALED_AT + 1..INNER_AT].copy_from_slice(&self.confirmation);
        let aad = layer_aad(&self.transcript, self.depth);
        let tag = self.key.seal(NONCE, &aad, &mut body[SEALED_AT..tag_at]);
        body[tag_at..tag_at + TAG_BYTES].copy_from_slice(&tag);
        body
    }
}

/// How the route answered.
pub enum CreatedOutcome {
    /// Every hop is part of the circuit.
    Complete(FreshLayers),
    /// A hop (0 is the guard) refused; the circuit is over.
    Failed {
        /// Who.
        hop: usize,
        /// Why: never OK.
        status: SetupStatus,
    },
}

/// The keys that a complete answer brings, guard first.
pub struct FreshLayers {
    /// f1 of each hop.
    pub forward: Vec<Secret<32>>,
    /// The layers of backward cells.
    pub backward: Vec<BackwardLayer>,
}

/// The answer is not authentic, not from this hop on. Whoever stands in front of it, or it itself, broke it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer of hop {hop} does not open")]
pub struct CreatedError {
    /// The first hop (0 is the guard) whose layer is wrong.
    pub hop: usize,
}

impl OriginSetup {
    /// Opens all layers of the one CREATED and checks every confirmation. Public-key work.
    ///
    /// # Errors
    /// When a layer does not open, a confirmation or a padding is wrong. The circuit must then be destroyed.
    pub fn created(self, body: &[u8]) -> Result<CreatedOutcome, CreatedError> {
        let mut body: [u8; BODY_BYTES] = body.try_into().map_err(|_| CreatedError { hop: 0 })?;
        let last = self.pending.len().saturating_sub(1);
        let mut fresh = FreshLayers { forward: Vec::new(), backward: Vec::new() };
        for (hop, pending) in self.pending.iter().enumerate() {
            let (status, forward, backward) = open_layer(pending, &mut body).map_err(|CryptoError| CreatedError { hop })?;
            if hop == last || status != SetupStatus::Ok {
                // The answering hop has nothing inside (spec 06, 1).
                all_zero(&body).map_err(|CryptoError| CreatedError { hop })?;
            }
            if status != SetupStatus::Ok {
                return Ok(CreatedOutcome::Failed { hop, status });
            }
            fresh.forward.push(forward);
            fresh.backward.push(backward);
        }
        Ok(CreatedOutcome::Complete(fresh))
    }
}

/// Opens one layer and leaves the inner one at the front of `body`, with zeros behind it.
fn open_layer(
    pending: &PendingHop,
    body: &mut [u8; BODY_BYTES],
) -> Result<(SetupStatus, Secret<32>, BackwardLayer), CryptoError> {
    let depth = pending.depth;
    all_zero(&body[depth.created_bytes()..])?;
    let mut ephemeral = [0; 32];
    ephemeral.copy_from_slice(&body[..SEALED_AT]);
    let exchanged = pending.ephemeral.exchange(&ephemeral)?;
    let keys = pending.upgrade.derive(&ephemeral, &exchanged);
    let aad = layer_aad(&keys.transcript, depth);
    AeadKey::new(&keys.created).open(NONCE, &aad, &mut body[SEALED_AT..depth.created_bytes()])?;
    let status = SetupStatus::from_code(body[SEALED_AT]).ok_or(CryptoError)?;
    same(&body[SEALED_AT + 1..INNER_AT], &keys.confirmation)?;
    body.copy_within(INNER_AT..INNER_AT + depth.inner_created_bytes(), 0);
    body[depth.inner_created_bytes()..].fill(0);
    Ok((status, keys.forward, BackwardLayer::new(keys.backward, depth)))
}
