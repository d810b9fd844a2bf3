//! Replays what is kept: every seed and every file of a corpus. With `PORT17_BLESS=1` the seeds are written into the corpora anew.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::{TARGETS, Target};

fn directory(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora").join(target.name)
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target has this name");
    let bless = std::env::var_os("PORT17_BLESS").is_some();
    for seed in (target.seeds)() {
        (target.run)(&seed);
        if bless {
            let mut hasher = DefaultHasher::new();
            seed.hash(&mut hasher);
            fs::create_dir_all(directory(target)).unwrap();
            fs::write(directory(target).join(format!("seed-{:016x}", hasher.finish())), seed).unwrap();
        }
    }
    let mut files: Vec<PathBuf> = fs::read_dir(directory(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{name} has a corpus");
    for file in files {
        // Shown when the test fails, right above the reason.
        println!("{}", file.display());
        (target.run)(&fs::read(&file).unwrap());
    }
}

macro_rules! replays {
    ($($name:ident,)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_has_its_binary() {
            let manifest = include_str!("../Cargo.toml");
            assert!(TARGETS.iter().all(|target| manifest.contains(&format!("path = \"targets/{}.rs\"", target.name))));
        }
    };
}

with_all_targets!(replays);
