//! Faults that are put in on purpose, to see whether the instruments find them.
//!
//! They exist with the feature `planted` alone, which no release has; without it [`planted`] is `false` when the code is compiled, and
//! what depends on it is not there. One fault is on at a time: the one that `choose` was given, or, where it was never called, the one
//! that the variable `PORT17_PLANTED` named when a fault was first asked for. So the tests can be run against a fault, too:
//! `PORT17_PLANTED=rack-takes-older cargo test -p port17-proto --features planted --test bottle`.

/// A fault: its name, and what it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What `choose` and [`planted`] call it.
    pub name: &'static str,
    /// What is wrong, in a sentence.
    pub what: &'static str,
}

/// All faults of the core: the control plane's, then those of lanes and circuits, then those of routes.
pub const FAULTS: &[Fault] = &[
    Fault {
        name: "no-redial-after-failure",
        what: "A dial that failed sets no time for the next one: a node or client that could not reach its peer once stays without that link.",
    },
    Fault {
        name: "listed-link-not-published",
        what: "A link that both ends want in the map waits for the next Bottle that is due anyway: for hours no route leads over it.",
    },
    Fault {
        name: "bottle-before-its-seq",
        what: "A Bottle is out before its sequence number is stored: after a crash the node signs a second truth under the same number and is distrusted.",
    },
    Fault {
        name: "link-listed-on-one-word",
        what: "A link stands in the Bottle when one end alone has said PUBLISH: a node's map entry names links that its peer never wanted.",
    },
    Fault {
        name: "bottle-signature-unchecked",
        what: "A Bottle's signature is not checked: anyone can put words into the mouth of any node, and reroute or silence it.",
    },
    Fault {
        name: "bottle-from-the-future",
        what: "A Bottle that is ahead of the clock is taken: one signed by a wrong clock, or on purpose, stays the newest for as long as it is ahead.",
    },
    Fault {
        name: "client-gossip-taken",
        what: "A node asks a client for what it announces, and takes its Bottles: clients change the map (law 1).",
    },
    Fault {
        name: "list-one-signature-short",
        what: "A list is taken with one signature fewer than the threshold: a single stolen root key, or none at all, decides who is trusted.",
    },
    Fault {
        name: "trust-only-grows",
        what: "Nodes that a new list leaves out stay trusted: an operator cannot take back a node that was taken over.",
    },
    Fault {
        name: "silent-peer-not-noticed",
        what: "Only the first PONG of a lane has a deadline: a peer that falls silent later keeps its link, and circuits over it hang.",
    },
    Fault {
        name: "rack-takes-older",
        what: "An older Bottle takes the place of the newer one: who replays it gives the node its old keys and links back.",
    },
    Fault {
        name: "backup-left-dialling",
        what: "The backup that was tried is not given up when the next one is dialled: a client has links to two backups at once and shows itself to both.",
    },
    Fault {
        name: "evidence-ends-with-newer-bottle",
        what: "A newer Bottle clears its node of having signed two truths: a liar is trusted again as soon as it publishes anything.",
    },
    Fault {
        name: "grave-as-short-as-distrust",
        what: "A tombstone is kept as long as evidence is, a week: a node that has left for good, or whose key was stolen, comes back then.",
    },
    Fault {
        name: "asked-of-a-dead-lane",
        what: "What a lost lane was asked for still counts as asked: that Bottle is never asked from anyone else.",
    },
    Fault {
        name: "list-fetch-stuck",
        what: "A fetch whose lane is lost is not ended: the node takes no list over links any more.",
    },
    Fault {
        name: "pins-not-stored",
        what: "The second hops are not stored with their guard: each restart of the client draws others, which in time name its guard.",
    },
    Fault {
        name: "new-key-not-published",
        what: "A circuit key that replaces another is not published: after a day the node's Bottle and key have ended, and nobody builds circuits over it.",
    },
    Fault {
        name: "wall-clock-runs-back",
        what: "The engine follows a wall clock that is set back: its node holds Bottles for coming from the future, and revives what has ended.",
    },
    Fault {
        name: "stored-seq-forgotten",
        what: "A restart begins without the stored sequence number: if the clock is behind, its Bottles are older than what others hold, and nobody takes them.",
    },
    Fault {
        name: "fin-ends-both-ways",
        what: "A stream that the peer has ended one way is over both ways: a reply to a request that was closed behind itself is lost.",
    },
    Fault {
        name: "window-wakes-nobody",
        what: "WINDOW does not wake the stream that waited for it: an upload or download stops at 256 KiB.",
    },
    Fault {
        name: "late-data-after-reset-is-junk",
        what: "What was under way when a stream was reset counts as junk: one aborted download ends all streams of its circuit.",
    },
    Fault {
        name: "fin-overtakes-data",
        what: "A stream without window sends FIN before its last bytes: the receiver takes a cut file for a whole one.",
    },
    Fault {
        name: "dials-never-end",
        what: "An exit counts a dial that has succeeded as one under way: from the 65th connection on a circuit's streams are refused.",
    },
    Fault {
        name: "reset-cuts-promised-data",
        what: "DATA whose header is packed is not finished when its stream is reset: what follows is read as the dead stream's bytes, and other streams of the circuit break.",
    },
    Fault {
        name: "credit-wakes-nobody",
        what: "CREDIT does not wake the circuit that waited for it: it stops after its first window.",
    },
    Fault {
        name: "one-cell-too-many",
        what: "A sender goes one cell beyond its credit: the next hop destroys an honest circuit, and in the end the lane.",
    },
    Fault {
        name: "destroy-stops-at-relay",
        what: "A DESTROY from the exit's side is answered and not passed on: the client waits on a circuit that is gone.",
    },
    Fault {
        name: "lost-lane-leaves-its-circuits",
        what: "A lane that is lost does not end its circuits on the lanes behind: exits keep connections, memory and ids of clients that are gone.",
    },
    Fault {
        name: "orderly-end-waits-forever",
        what: "A circuit that ends behind cells without credit is never ended at once: a peer that gives no credit keeps its memory and id for ever.",
    },
    Fault {
        name: "no-credit-after-reclaim",
        what: "A circuit whose memory was asked back gets no credit any more: a stream that paused for some seconds never goes on.",
    },
    Fault {
        name: "limit-below-what-was-sent",
        what: "RECLAIM is answered by what was asked, though more was sent: the receiver takes the honest sender for a liar and destroys the circuit.",
    },
    Fault {
        name: "window-without-memory",
        what: "A window grows though no memory could be reserved for it: a node permits more cells than its pool holds.",
    },
    Fault {
        name: "refused-memory-stays-taken",
        what: "A share whose pool is full keeps what it could not reserve: after a rush its clients get no memory any more.",
    },
    Fault {
        name: "breaches-not-counted",
        what: "Overruns of credit are not counted for their lane: a peer that breaks circuit after circuit keeps it.",
    },
    Fault {
        name: "setup-with-our-id",
        what: "A SETUP may use an id of the receiver's parity: a peer takes ids that the node draws for its own circuits.",
    },
    Fault {
        name: "relay-forgets-rekey",
        what: "A relay does not replace its backward key after 65,536 cells: each download of more than 120 MB ends there.",
    },
    Fault {
        name: "first-key-not-erased",
        what: "A hop keeps the first forward key after the fresh one has come: who steals its circuit key later can still speak for the client.",
    },
    Fault {
        name: "client-stays-on-first-key",
        what: "The client goes on under the first keys after CREATED: all that it sends can be read by who steals a hop's circuit key later.",
    },
    Fault {
        name: "padding-behind-a-layer",
        what: "A relay does not look at what stands behind a forward layer: two hops that conspire mark cells for each other through it.",
    },
    Fault {
        name: "replay-bucket-too-early",
        what: "Stamps of the previous slot are forgotten though it is still accepted: a SETUP that is replayed across the quarter of an hour is served again.",
    },
    Fault {
        name: "previous-slot-refused",
        what: "A SETUP of the previous slot is refused: circuits fail at each quarter of an hour, and for clients whose clock is a little behind.",
    },
    Fault {
        name: "ended-keys-open",
        what: "Circuit keys are neither erased nor refused at their end: who seizes the node opens first flights of long ago, and stale clients are served.",
    },
    Fault {
        name: "refusal-not-reported",
        what: "A next hop that ends a circuit before its CREATED is not reported: the client does not learn which hop to leave out.",
    },
    Fault {
        name: "route-comes-back-to-the-guard",
        what: "Of the fixed hops only the last is kept out of the rest of a route: a route can lead over the guard twice.",
    },
    Fault {
        name: "map-takes-one-word",
        what: "A link counts for the map when one end lists it: routes lead over links that do not exist, as any node pleases.",
    },
    Fault {
        name: "stranger-as-exit",
        what: "A node that nobody vouches for can be an exit: who makes up nodes reads what clients send.",
    },
];

/// Whether the fault of this name is on.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_name: &str) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use chosen::{choose, choose_among, planted};

#[cfg(feature = "planted")]
mod chosen {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{FAULTS, Fault};

    /// No fault is on.
    const NONE: usize = usize::MAX;
    /// Nobody has chosen: the environment says.
    const UNASKED: usize = usize::MAX - 1;

    /// Faults of a crate above, behind those of the core.
    static OTHERS: OnceLock<&[Fault]> = OnceLock::new();

    /// A place in [`FAULTS`], or behind it in [`OTHERS`].
    static CHOSEN: AtomicUsize = AtomicUsize::new(UNASKED);

    /// Whether the fault of this name is on.
    #[inline]
    pub fn planted(name: &str) -> bool {
        match CHOSEN.load(Ordering::Relaxed) {
            NONE => false,
            UNASKED => planted_by_environment(name),
            chosen => all().nth(chosen).is_some_and(|fault| fault.name == name),
        }
    }

    /// Switches one fault on, and every other one off; all off for none. False, and all off, when there is no fault of this name.
    pub fn choose(name: Option<&str>) -> bool {
        let chosen = name.map(index);
        CHOSEN.store(chosen.flatten().unwrap_or(NONE), Ordering::Relaxed);
        chosen != Some(None)
    }

    /// As [`choose`], with the faults of a crate above. The first such table stays.
    pub fn choose_among(others: &'static [Fault], name: Option<&str>) -> bool {
        OTHERS.get_or_init(|| others);
        choose(name)
    }

    fn all() -> impl Iterator<Item = &'static Fault> {
        FAULTS.iter().chain(OTHERS.get().into_iter().copied().flatten())
    }

    fn index(name: &str) -> Option<usize> {
        all().position(|fault| fault.name == name)
    }

    #[cold]
    fn planted_by_environment(name: &str) -> bool {
        let wanted = std::env::var("PORT17_PLANTED").ok();
        let chosen =
            wanted.as_deref().map(|wanted| index(wanted).unwrap_or_else(|| panic!("there is no planted fault {wanted}")));
        // Whoever chose meanwhile is right.
        let _ = CHOSEN.compare_exchange(UNASKED, chosen.unwrap_or(NONE), Ordering::Relaxed, Ordering::Relaxed);
        planted(name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// What `planted` is asked for in the files below `folder`.
    fn names_in(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let names = entries.flat_map(|path| -> BTreeSet<String> {
            if path.is_dir() {
                return names_in(&path);
            }
            let text = fs::read_to_string(&path).unwrap();
            text.split("planted(\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
        });
        names.collect()
    }

    #[test]
    fn every_fault_is_planted_and_every_planted_one_is_named() {
        let planted = names_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        let named: BTreeSet<String> = FAULTS.iter().map(|fault| fault.name.to_owned()).collect();
        assert_eq!(planted, named);
        assert_eq!(named.len(), FAULTS.len());
    }
}
