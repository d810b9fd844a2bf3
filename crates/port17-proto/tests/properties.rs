//! Properties: what holds whatever is drawn. A failing case is kept in a `.proptest-regressions` file beside its test, and
//! tried first from then on.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod route;
mod sample_bottle;
mod sample_list;

#[path = "properties/codec.rs"]
mod codec;
#[path = "properties/credit.rs"]
mod credit;
#[path = "properties/merge.rs"]
mod merge;
#[path = "properties/onion.rs"]
mod onion;
