//! See `src/middle.rs`.
#![cfg_attr(fuzzing, no_main)]

port17_fuzz::target!(middle);
