//! The bytes: numbers, frames, messages. Codecs only; what the bytes mean is decided elsewhere.

mod content;
pub mod message;
pub mod registry;
