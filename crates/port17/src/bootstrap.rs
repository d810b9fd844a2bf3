//! Asks a network's sources for its signed list, and says how that goes.
//!
//! Nothing is decided here: what a source has goes to the engine, which verifies it again and takes the highest sequence number
//! (spec 12, 4). All sources are asked, in random order, so that none of them can hold a newer list back. Until a list is in force
//! they are asked again and again, afterwards a few times a day. A node that knows others from before waits a little first: a newer
//! list may come over a link, and nobody learns from a mirror's log that this machine starts.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use port17_proto::crypto::Entropy;
use port17_proto::network::Definition;
use serde::Serialize;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::fetcher::{FetchError, Fetcher};
use crate::list_file;
use crate::network_file::{NetworkFile, Source};

/// When sources are asked. These are no parameters of a network: they count before its first list.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The first wait when others are known from before.
    pub first_wait: Duration,
    /// While no list is in force: the wait after the first failure; doubles each time.
    pub retry_min: Duration,
    /// The longest such wait.
    pub retry_max: Duration,
    /// The same for files, always: looking at one costs nothing.
    pub file_retry: Duration,
    /// Once a list is in force: the wait on average, ± 20 %.
    pub refresh: Duration,
}

impl Schedule {
    /// For daemons (spec 12, 4).
    pub const DEFAULT: Self = Self {
        first_wait: Duration::from_secs(10),
        retry_min: Duration::from_secs(1),
        retry_max: Duration::from_secs(60),
        file_retry: Duration::from_secs(1),
        refresh: Duration::from_secs(6 * 3600),
    };
}

/// What is known at the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// The sequence number of the list in force; none without one, or when it has expired.
    pub list: Option<u64>,
    /// Whether there are nodes to get a list from.
    pub nodes: bool,
}

/// A list as a source has it: valid here and now, which the engine judges for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The source.
    pub source: Source,
    /// The signed list's envelope, as the engine takes it.
    pub bytes: Vec<u8>,
}

/// How it goes with one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceState {
    /// The source.
    pub source: String,
    /// What it gave when it was last asked.
    pub last: Option<Attempt>,
    /// When it is asked next, in seconds from now; none while it is being asked.
    pub next_in_s: Option<u64>,
}

/// What a source gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// How long ago, in seconds.
    pub ago_s: u64,
    /// The sequence number of its valid list.
    pub seq: Option<u64>,
    /// Why there was none.
    pub problem: Option<String>,
}

/// Why a running bootstrap cannot take a network file.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Its CA certificates.
    #[error("ca_pem: {0}")]
    Ca(#[from] rustls::Error),
    /// It is for another network.
    #[error("it is another network's: name or root keys differ; a running daemon stays in its network, so restart it")]
    OtherNetwork,
}

/// The task that asks.
pub struct Bootstrap {
    shared: Arc<Shared>,
}

/// What others say to the task, and learn from it.
#[derive(Clone)]
pub struct BootstrapHandle {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    definition: Arc<Definition>,
    fetcher: Fetcher,
    schedule: Schedule,
    sources: Vec<Tracked>,
    list: Option<u64>,
    entropy: Entropy,
}

struct Tracked {
    source: Source,
    last: Option<Last>,
    next: Instant,
    is_asked: bool,
    /// Asked for while it was being asked: what it says may be what it said before.
    ask_again: bool,
    failures: u32,
}

struct Last {
    at: Instant,
    result: Result<u64, Problem>,
}

/// Why a source gave no list.
#[derive(Debug, Clone)]
struct Problem {
    text: String,
    /// It is a file that is not there.
    is_missing: bool,
}

impl Problem {
    /// Whether the same went wrong: times and sizes in the text do not count.
    fn is_same(&self, other: &Self) -> bool {
        let words = |problem: &Self| problem.text.chars().filter(|letter| !letter.is_ascii_digit()).collect::<String>();
        words(self) == words(other)
    }
}

impl<E: std::fmt::Display> From<E> for Problem {
    fn from(error: E) -> Self {
        Self { text: error.to_string(), is_missing: false }
    }
}

impl Bootstrap {
    /// For the network of a file.
    ///
    /// # Errors
    /// When its CA certificates cannot be used.
    pub fn new(file: &NetworkFile, known: Known, entropy: Entropy) -> Result<Self, BootstrapError> {
        let fetcher = Fetcher::new(file.ca_certificates().as_deref())?;
        Ok(Self::under(Schedule::DEFAULT, fetcher, file, known, entropy))
    }

    /// The same with another schedule and fetcher.
    pub fn under(schedule: Schedule, fetcher: Fetcher, file: &NetworkFile, known: Known, entropy: Entropy) -> Self {
        // Known nodes come before mirrors (spec 12, 4).
        let first = if known.nodes { Instant::now() + schedule.first_wait } else { Instant::now() };
        let sources = file.sources.iter().map(|source| Tracked::new(source.clone(), first)).collect();
        let definition = Arc::new(file.definition.clone());
        let state = State { definition, fetcher, schedule, sources, list: known.list, entropy };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() }) }
    }

    /// A way to talk to the task.
    pub fn handle(&self) -> BootstrapHandle {
        BootstrapHandle { shared: Arc::clone(&self.shared) }
    }

    /// Asks, until nobody takes lists any more.
    pub async fn run(self, lists: mpsc::Sender<Fetched>) {
        let mut fetches = JoinSet::new();
        loop {
            let next = self.shared.state().ask_due(&mut fetches);
            tokio::select! {
                Some(done) = fetches.join_next() => {
                    // A fetch has nothing to panic about; its source would stay marked as being asked.
                    let Ok((source, result)) = done else { continue };
                    let list = self.shared.state().answered(&source, result);
                    if let Some(bytes) = list {
                        // When nobody takes it any more, the loop ends below.
                        let _ = lists.send(Fetched { source, bytes }).await;
                    }
                }
                () = tokio::time::sleep_until(next) => {}
                () = self.shared.wake.notified() => {}
                () = lists.closed() => return,
            }
        }
    }
}

impl BootstrapHandle {
    /// Tells which list is in force: its sequence number, or none when there is none or it has expired. The sources are then asked
    /// seldom, or at once and often.
    pub fn list_in_force(&self, seq: Option<u64>) {
        let mut state = self.shared.state();
        if state.list == seq {
            return;
        }
        state.list = seq;
        if seq.is_none() {
            state.ask_all_now();
        } else {
            state.ask_all_later();
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Asks all sources now.
    pub fn fetch_now(&self) {
        self.shared.state().ask_all_now();
        self.shared.wake.notify_one();
    }

    /// Takes a changed network file's sources and CA, and asks all of them now.
    ///
    /// # Errors
    /// When it is for another network or its CA certificates cannot be used; nothing has changed then.
    pub fn replace(&self, file: &NetworkFile) -> Result<(), BootstrapError> {
        let fetcher = Fetcher::new(file.ca_certificates().as_deref())?;
        let mut state = self.shared.state();
        if *state.definition != file.definition {
            return Err(BootstrapError::OtherNetwork);
        }
        state.fetcher = fetcher;
        let mut old = std::mem::take(&mut state.sources);
        let now = Instant::now();
        let mut kept = |source: &Source| {
            let at = old.iter().position(|tracked| tracked.source == *source);
            at.map_or_else(|| Tracked::new(source.clone(), now), |at| old.swap_remove(at))
        };
        state.sources = file.sources.iter().map(&mut kept).collect();
        state.ask_all_now();
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// How it goes with each source, in the network file's order.
    pub fn sources(&self) -> Vec<SourceState> {
        let now = Instant::now();
        self.shared.state().sources.iter().map(|tracked| tracked.shown(now)).collect()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds this lock can leave a state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Starts to ask those whose time has come, in random order; gives the time of the next one.
    fn ask_due(&mut self, fetches: &mut JoinSet<(Source, Result<ValidList, Problem>)>) -> Instant {
        let now = Instant::now();
        let mut due: Vec<usize> =
            (0..self.sources.len()).filter(|at| !self.sources[*at].is_asked && self.sources[*at].next <= now).collect();
        while !due.is_empty() {
            // Below the length, which is an index.
            let drawn = usize::try_from(self.entropy.below(due.len() as u64)).unwrap_or(0);
            let tracked = &mut self.sources[due.swap_remove(drawn)];
            tracked.is_asked = true;
            fetches.spawn(ask(self.fetcher.clone(), Arc::clone(&self.definition), tracked.source.clone()));
        }
        let waiting = self.sources.iter().filter(|tracked| !tracked.is_asked).map(|tracked| tracked.next);
        waiting.min().unwrap_or(now + self.schedule.refresh)
    }

    /// Notes what a source gave; the list's bytes if there is one.
    fn answered(&mut self, source: &Source, result: Result<ValidList, Problem>) -> Option<Vec<u8>> {
        let later = self.later();
        let (schedule, in_force, now) = (self.schedule, self.list.is_some(), Instant::now());
        // A reload may have dropped it in the meantime; its list counts all the same.
        if let Some(tracked) = self.sources.iter_mut().find(|tracked| tracked.source == *source) {
            tracked.answered(result.as_ref().map(|list| list.seq).map_err(Clone::clone), in_force, now);
            let wait = match (std::mem::take(&mut tracked.ask_again), in_force) {
                (true, _) => Duration::ZERO,
                (false, true) if tracked.failures > 0 => later / FAILED_REFRESH,
                (false, true) => later,
                (false, false) => tracked.retry(&schedule),
            };
            tracked.next = now + wait;
        }
        result.ok().map(|list| list.bytes)
    }

    fn ask_all_now(&mut self) {
        let now = Instant::now();
        for tracked in &mut self.sources {
            (tracked.next, tracked.failures, tracked.ask_again) = (now, 0, tracked.is_asked);
        }
    }

    fn ask_all_later(&mut self) {
        for at in 0..self.sources.len() {
            let later = self.later();
            self.sources[at].next = Instant::now() + later;
            self.sources[at].failures = 0;
        }
    }

    /// The wait once a list is in force: ± 20 %, so that a network's nodes do not ask all at once.
    fn later(&mut self) -> Duration {
        let percent = 80 + self.entropy.below(41);
        self.schedule.refresh.saturating_mul(u32::try_from(percent).unwrap_or(100)) / 100
    }
}

/// A source that failed while a list is in force is asked again after this part of the usual time: a quarter of an hour.
const FAILED_REFRESH: u32 = 24;

impl Tracked {
    fn new(source: Source, next: Instant) -> Self {
        Self { source, last: None, next, is_asked: false, ask_again: false, failures: 0 }
    }

    fn answered(&mut self, result: Result<u64, Problem>, in_force: bool, at: Instant) {
        self.is_asked = false;
        let is_news = self.last.as_ref().is_none_or(|last| match (&last.result, &result) {
            (Ok(before), Ok(now)) => before != now,
            (Err(before), Err(now)) => !before.is_same(now),
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => true,
        });
        match &result {
            Ok(seq) if is_news => info!(source = %self.source, seq, "list fetched"),
            // A new network's list is made after its nodes have started: that a file is not there yet is how it begins.
            Err(problem) if is_news && problem.is_missing && !in_force => {
                info!(source = %self.source, problem = problem.text, "waiting for a list");
            }
            Err(problem) if is_news => warn!(source = %self.source, problem = problem.text, "no list"),
            Ok(_) | Err(_) => {}
        }
        self.failures = if result.is_ok() { 0 } else { self.failures.saturating_add(1) };
        self.last = Some(Last { at, result });
    }

    /// The wait while no list is in force. A list that the engine did not take will not be another one soon: the longest.
    fn retry(&self, schedule: &Schedule) -> Duration {
        match self.source {
            Source::File(_) => schedule.file_retry,
            Source::Web(_) if self.failures == 0 => schedule.retry_max,
            Source::Web(_) => {
                let doublings = self.failures.saturating_sub(1).min(31);
                schedule.retry_min.saturating_mul(1 << doublings).min(schedule.retry_max)
            }
        }
    }

    fn shown(&self, now: Instant) -> SourceState {
        let last = self.last.as_ref().map(|last| Attempt {
            ago_s: now.saturating_duration_since(last.at).as_secs(),
            seq: last.result.as_ref().ok().copied(),
            problem: last.result.as_ref().err().map(|problem| problem.text.clone()),
        });
        let next_in_s = (!self.is_asked).then(|| self.next.saturating_duration_since(now).as_secs());
        SourceState { source: self.source.to_string(), last, next_in_s }
    }
}

struct ValidList {
    seq: u64,
    bytes: Vec<u8>,
}

async fn ask(fetcher: Fetcher, definition: Arc<Definition>, source: Source) -> (Source, Result<ValidList, Problem>) {
    let checked = async {
        let bytes = match fetcher.fetch(&source).await {
            Err(FetchError::File(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Problem { text: "there is no such file".to_owned(), is_missing: true });
            }
            fetched => fetched?,
        };
        // A thousand signatures take their time.
        tokio::task::spawn_blocking(move || check(&bytes, &definition)).await?
    };
    let result = checked.await;
    (source, result)
}

/// Whether the engine would take it at all, in words for who looks at the status.
fn check(bytes: &[u8], definition: &Definition) -> Result<ValidList, Problem> {
    let list = list_file::parse(bytes)?;
    let bytes = list.encode();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let verified = list.verify(definition, now_s)?;
    Ok(ValidList { seq: verified.seq(), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_that_only_counts_on_is_no_news() {
        let problem = Problem::from;
        assert!(problem("made 23 h 46 min in the future").is_same(&problem("made 23 h 45 min in the future")));
        assert!(!problem("answers 404 Not Found").is_same(&problem("answers 503 Service Unavailable")));
    }
}
