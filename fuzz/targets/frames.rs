//! See `src/frames.rs`.
#![cfg_attr(fuzzing, no_main)]

port17_fuzz::target!(frames);
