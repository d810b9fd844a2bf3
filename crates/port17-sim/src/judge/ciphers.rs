//! Signatures, looked at by another library than the core's.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, VerifyingKey};
use port17_proto::bottle::VerifiedBottle;
use port17_proto::crypto::SIGNATURE_BYTES;

/// Signatures that were looked at, by their bytes and the payload's short id.
#[derive(Default)]
pub(crate) struct Signatures(BTreeMap<([u8; SIGNATURE_BYTES], [u8; 16]), bool>);

impl Signatures {
    /// Whether a Bottle's node has signed it (spec 04, 1).
    pub(crate) fn is_genuine(&mut self, bottle: &VerifiedBottle) -> bool {
        let Some(bytes) = bottle.envelope().last_chunk::<SIGNATURE_BYTES>() else { return false };
        *self.0.entry((*bytes, bottle.short_id().0)).or_insert_with(|| {
            let message = [b"p17-bottle-v1", bottle.payload()].concat();
            let key = VerifyingKey::from_bytes(&bottle.content().identity.0);
            key.is_ok_and(|key| key.verify_strict(&message, &Signature::from_bytes(bytes)).is_ok())
        })
    }
}
