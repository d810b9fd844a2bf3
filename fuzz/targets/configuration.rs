//! See `src/configuration.rs`.
#![cfg_attr(fuzzing, no_main)]

port17_fuzz::target!(configuration);
