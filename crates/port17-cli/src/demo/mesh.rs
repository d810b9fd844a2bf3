//! The running members: tasks of this process, or processes of their own.

use std::path::Path;
use std::time::Duration;

use port17::control::Role;
use port17::daemon::Reloading;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::child;
use super::plan::{Member, Plan};
use crate::failure::Failure;

/// Events that wait to be heard: a few for each of at most 10 members.
const EVENTS: usize = 64;
/// How long all members together have to end in order.
const ENDING: Duration = Duration::from_secs(5);

/// What happened to a member.
#[derive(Debug)]
pub(super) enum Event {
    /// It runs as the process with this id.
    Started { name: String, process: u32 },
    /// It was killed, and comes back.
    Killed { name: String, how: String },
    /// It gave up by itself; its own words, if any, are on standard error. A process comes back.
    GaveUp { name: String, failure: Failure },
    /// It ended as it was asked to from outside, and stays down.
    Ended { name: String },
}

/// Everyone who runs.
pub(super) struct Mesh {
    events: mpsc::Receiver<Event>,
    stop: watch::Sender<bool>,
    members: JoinSet<()>,
    has_processes: bool,
}

/// What a member needs to tell its fate and to hear when to end.
#[derive(Clone)]
pub(super) struct Strings {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Strings {
    pub(super) async fn tell(&self, event: Event) {
        // Nobody listens any more at the very end.
        let _ = self.events.send(event).await;
    }

    /// Ready when the demo ends.
    pub(super) async fn stopped(&mut self) {
        // Without a sender there is no demo either.
        let _ = self.stop.wait_for(|stop| *stop).await;
    }
}

impl Mesh {
    /// Starts all members in this process.
    pub(super) fn in_this_process(plan: &Plan) -> Self {
        Self::start(plan, false, run_here)
    }

    /// Starts all members as processes of the program at `binary`.
    pub(super) fn in_processes(plan: &Plan, binary: &Path) -> Self {
        Self::start(plan, true, |member, strings| child::supervise(member, binary.to_owned(), strings))
    }

    fn start<F: Future<Output = ()> + Send + 'static>(
        plan: &Plan,
        has_processes: bool,
        run: impl Fn(Member, Strings) -> F,
    ) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        let (stop, stopped) = watch::channel(false);
        let mut members = JoinSet::new();
        for member in &plan.members {
            members.spawn(run(member.clone(), Strings { events: sender.clone(), stop: stopped.clone() }));
        }
        Self { events, stop, members, has_processes }
    }

    /// Whether members have processes of their own.
    pub(super) fn has_processes(&self) -> bool {
        self.has_processes
    }

    /// What happens next; never ready when nobody is left.
    pub(super) async fn event(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Ends everyone in order; who takes too long is killed.
    pub(super) async fn stop(mut self) {
        // No receiver: nobody is left.
        let _ = self.stop.send(true);
        self.events.close();
        let all = async { while self.members.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(ENDING, all).await;
        self.members.shutdown().await;
    }
}

async fn run_here(member: Member, strings: Strings) {
    let name = member.name.clone();
    let stop = {
        let mut strings = strings.clone();
        async move { strings.stopped().await }
    };
    let result = match member.role {
        Role::Node => port17::daemon::run_node(member.config, Reloading::never(), stop).await,
        Role::Client => port17::daemon::run_client(member.config, Reloading::never(), stop).await,
    };
    strings
        .tell(match result {
            Ok(()) => Event::Ended { name },
            Err(error) => Event::GaveUp { name, failure: error.into() },
        })
        .await;
}
