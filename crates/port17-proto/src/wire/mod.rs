//! The bytes: numbers, frames, messages. Codecs only; what the bytes mean is decided elsewhere.

pub mod message;
pub mod registry;
