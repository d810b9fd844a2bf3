//! See `src/records.rs`.
#![cfg_attr(fuzzing, no_main)]

port17_fuzz::target!(records);
