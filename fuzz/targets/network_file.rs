//! See `src/network_file.rs`.
#![cfg_attr(fuzzing, no_main)]

port17_fuzz::target!(network_file);
