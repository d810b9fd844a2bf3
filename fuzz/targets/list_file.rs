//! See `src/list_file.rs`.
#![cfg_attr(fuzzing, no_main)]

port17_fuzz::target!(list_file);
