//! See `src/node.rs`.
#![cfg_attr(fuzzing, no_main)]

port17_fuzz::target!(node);
