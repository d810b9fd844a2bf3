//! See `src/cells.rs`.
#![cfg_attr(fuzzing, no_main)]

port17_fuzz::target!(cells);
