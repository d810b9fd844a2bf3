//! Faults that are put in on purpose, to see whether the instruments find them.
//!
//! They exist with the feature `planted` alone, which no release has; without it [`planted`] is `false` when the code is compiled, and
//! what depends on it is not there. One fault is on at a time, chosen at run time by its name.

/// A fault: its name, and what it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What [`choose`] and [`planted`] call it.
    pub name: &'static str,
    /// What is wrong, in a sentence.
    pub what: &'static str,
}

/// All faults of the core.
pub const FAULTS: &[Fault] = &[];

/// Whether the fault of this name is on.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_name: &str) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use chosen::{choose, planted};

#[cfg(feature = "planted")]
mod chosen {
    use std::sync::RwLock;

    static CHOSEN: RwLock<Option<String>> = RwLock::new(None);

    /// Whether the fault of this name is on.
    pub fn planted(name: &str) -> bool {
        CHOSEN.read().is_ok_and(|chosen| chosen.as_deref() == Some(name))
    }

    /// Switches one fault on, and every other one off.
    pub fn choose(name: Option<&str>) {
        if let Ok(mut chosen) = CHOSEN.write() {
            *chosen = name.map(str::to_owned);
        }
    }
}
