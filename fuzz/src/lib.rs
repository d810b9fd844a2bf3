//! Fuzz targets: what a stranger can send, in any form, must end in an error value at worst (law 6), and hold its rules.
//!
//! A target is a function over bytes that panics when a rule does not hold. libFuzzer calls it with inputs that it makes up
//! (`./test fuzz TARGET`, binaries in `targets/`); the test in `corpora.rs` calls it with those that are kept in `corpora/TARGET/`,
//! and needs nothing but cargo. Each target has seeds, made by the encoders of the product.
//!
//! What the tests of the product have already (samples, a mesh in memory) is taken from there by path.

/// A target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What its binary and its corpus are called.
    pub name: &'static str,
    /// What it is over.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident,)*) => {
        $(pub mod $name;)*

        /// All targets.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $name::run, seeds: $name::seeds },)*];
    };
}

/// Hands the names of all targets to another macro.
macro_rules! with_all_targets {
    ($what:ident) => {
        $what! {
            api,
            bottle,
            cells,
            configuration,
            control,
            created,
            frames,
            http,
            list,
            list_file,
            middle,
            network_file,
            node,
            records,
            setup,
            socks,
            store,
            tombstone,
        }
    };
}

with_all_targets!(targets);

mod choices;
#[cfg(test)]
mod corpora;
mod engine;
mod paper;
mod route;
mod talk;

#[path = "../../crates/port17-proto/tests/plane/edge.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod edge;
#[path = "../../crates/port17-proto/tests/plane/mesh.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod mesh;
#[path = "../../crates/port17-proto/tests/sample_bottle/mod.rs"]
mod sample_bottle;
#[path = "../../crates/port17-proto/tests/sample_list/mod.rs"]
mod sample_list;

/// The binary of a target: libFuzzer's when it is built for fuzzing, else one that runs the files it is given.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| port17_fuzz::$name::run(bytes));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            std::env::args_os().skip(1).try_for_each(|path| std::fs::read(path).map(|bytes| port17_fuzz::$name::run(&bytes)))
        }
    };
}
