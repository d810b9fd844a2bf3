//! What must be true whatever happens. Each rule is judged from outside: by what hosts publish, hold, send and deliver, never by their
//! own counters alone.

mod ciphers;
mod credit;
mod holdings;
mod mesh;

use std::cell::RefCell;

use port17_proto::node::io::Counted;

pub(crate) use ciphers::Signatures;
pub(crate) use credit::CreditView;
pub(crate) use holdings::Holdings;
pub(crate) use mesh::{check_route, judge_end};

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
    /// When, in microseconds of the run.
    pub at_us: u64,
}

/// What was found so far.
#[derive(Default)]
pub struct Findings {
    list: RefCell<Vec<Finding>>,
    now_us: std::cell::Cell<u64>,
}

/// More say nothing new.
const FINDINGS: usize = 16;

impl Findings {
    /// A rule is broken.
    pub fn report(&self, rule: &'static str, what: String) {
        let mut list = self.list.borrow_mut();
        if list.len() < FINDINGS {
            list.push(Finding { rule, what, at_us: self.now_us.get() });
        }
    }

    pub(crate) fn set_now(&self, now_us: u64) {
        self.now_us.set(now_us);
    }

    /// All, in order.
    pub fn take(&self) -> Vec<Finding> {
        self.list.borrow().clone()
    }
}

/// What no honest peer ever causes.
pub(crate) fn never_by_the_honest(what: Counted) -> bool {
    matches!(
        what,
        Counted::Malformed
            | Counted::OutOfPlace
            | Counted::Violation
            | Counted::TooMuchGossip
            | Counted::Skipped
            | Counted::Network
            | Counted::Version
            | Counted::NameTaken
            | Counted::NoCircuitKey
            | Counted::BottleNotMade
    )
}
