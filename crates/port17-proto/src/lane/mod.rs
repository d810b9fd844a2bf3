//! Lanes: frames, scheduling, credit, the reader (spec 05 and 06, 4).
//!
//! A lane is one transport connection. Its reader owns the crypto state of every half-hop that arrives on it ([`reader`]); its
//! writer takes batches from its queue ([`queue`]). Both are plain data, so that the daemon's tasks only move bytes.

pub mod credit;
pub mod frame;
pub mod queue;
pub mod reader;
