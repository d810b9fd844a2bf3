//! A node's signed record about itself (spec 04).
//!
//! A Bottle comes in as bytes. [`UnverifiedBottle::parse`] checks that they are one, in the one form that its content has;
//! [`UnverifiedBottle::verify`] checks age and signature and gives a [`VerifiedBottle`], the only thing that a Bottlerack takes
//! (law 4). Nobody but its node ever makes or edits one (law 5): [`BottleContent::sign`].
//!
//! Envelope: `[1, payload bytes, signature bytes]`, at most 4096 bytes; the signature is over `"p17-bottle-v1" ‖ payload`. The payload
//! is a map with unsigned integer keys, ascending ([`crate::wire::registry::BottleKey`]). Both are deterministic CBOR (RFC 8949, 4.2.1)
//! without tags, floats and simple values other than false, true and null.
//!
//! | key | field | type, bounds | absent |
//! |---|---|---|---|
//! | 1 | suite | uint, 1 | never |
//! | 2 | identity key | bytes, 32 | never |
//! | 3 | seq | uint, Unix ms with 10 random low bits | never |
//! | 4 | scope | uint, 0 public, 1 local | never |
//! | 5 | label | text, `[a-z][a-z0-9-]{2,23}` | never |
//! | 6 | group | text, 1..=32 printable ASCII | no group |
//! | 7 | link key | bytes, 32 | never |
//! | 8 | link key's expiry | uint, Unix s | never |
//! | 9 | next link key | bytes, 32 | none |
//! | 10 | circuit key | bytes, 1216 | never |
//! | 11 | circuit key's not-after | uint, Unix s | never |
//! | 12 | addresses | 1..=8 of `[ip bytes 4 or 16, port uint 1..=65535, lane type uint 0..=255]`, no two the same | hidden node |
//! | 13 | egress addresses | 1..=4 of ip bytes 4 or 16, no two the same | none |
//! | 14 | links | bytes, 1..=64 times 10: prefix 8, round trip 1, capacity 1; prefixes ascending, no two the same | none |
//! | 15 | exit policy | bytes, 1..=256, compiled ([`crate::policy`]) | no exit |
//! | 16 | load | uint, 0..=3 | never |
//! | 17 | flags | uint, 0..=65535: 1 draining, 2 metered, others kept | never |
//! | 18 | protocol range | `[lowest uint, highest uint]`, 1 <= lowest <= highest <= 255 | never |
//! | 19 | software | text, 0..=32 printable ASCII | never |
//! | others | unknown | at most 16, any value nested at most 4 deep; kept and covered | |
//!
//! What is empty is absent, an IPv6 address is never an IPv4-mapped one, and no address is unspecified or multicast: so one content
//! has one payload. Lane types that are not known are kept, and not dialled.

mod codec;
mod content;
mod envelope;
mod measure;
mod seq;
mod tombstone;

pub use crate::cbor::CborError;
pub use content::{Address, BottleContent, CircuitKey, Flags, LinkClaim, NodePrefix, ProtocolRange};
pub use envelope::{BottleRules, ShortId, UnverifiedBottle, VerifiedBottle};
pub use measure::{capacity_code, capacity_mbit_s, rtt_code, rtt_us};
pub use seq::Seq;
pub use tombstone::{Tombstone, TombstoneError, UnverifiedTombstone};

use crate::wire::registry::BottleKey;

/// Why bytes are not a valid Bottle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BottleError {
    /// More than 4096 bytes.
    #[error("the Bottle is larger than 4096 bytes")]
    TooLarge,
    /// Not deterministic CBOR, or not of the right shape.
    #[error("the Bottle is not encoded as it must be: {0}")]
    Encoding(#[from] CborError),
    /// Not `[1, payload, signature]`.
    #[error("the Bottle's envelope is not one of version 1")]
    Envelope,
    /// A field is missing.
    #[error("the Bottle lacks its field {0:?}")]
    Missing(BottleKey),
    /// A field has a value outside of its bounds.
    #[error("the Bottle's field {0:?} is not valid")]
    Field(BottleKey),
    /// Too many unknown fields.
    #[error("the Bottle has more than 16 unknown fields")]
    UnknownFields,
    /// The content says the same in another way than it must be said.
    #[error("the Bottle does not re-encode to itself")]
    NotCanonical,
    /// The key to sign with is not the identity key of the content.
    #[error("the signing key is not the identity key in the Bottle")]
    WrongKey,
    /// The signature is not the identity key's.
    #[error("the Bottle's signature is wrong")]
    Signature,
    /// Its seq is too far in the future.
    #[error("the Bottle comes from the future: check the clocks")]
    Ahead,
    /// Its life is over.
    #[error("the Bottle has expired")]
    Expired,
}
