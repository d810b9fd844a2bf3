//! One member as a process of its own. It ends when its standard input does, and that ends with this process, whatever kills it.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use port17::control::Role;
use tokio::process::{Child, ChildStdin, Command};

use super::mesh::{Event, Strings};
use super::plan::Member;
use crate::failure::{Failure, Kind};

/// How long a killed one stays away.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one may take to end in order.
const ENDING: Duration = Duration::from_secs(3);
/// `SIGTERM`'s number, the same on all systems.
const TERMINATED: i32 = 15;

/// Runs `member` until the demo ends or it is ended from outside by SIGTERM; brings it back when it was killed or gave up.
pub(super) async fn supervise(member: Member, binary: PathBuf, mut strings: Strings) {
    let name = member.name.clone();
    loop {
        let (mut child, stdin) = match start(&member, &binary) {
            Ok(started) => started,
            Err(error) => {
                let failure = Failure::system(format_args!("cannot start {}", binary.display()), &error);
                return strings.tell(Event::GaveUp { name, failure }).await;
            }
        };
        // Only a process that was waited for has no id.
        let process = child.id().unwrap_or_default();
        strings.tell(Event::Started { name: name.clone(), process }).await;
        let status = tokio::select! {
            status = child.wait() => status,
            () = strings.stopped() => return end(child, stdin).await,
        };
        let event = match status.map(Ending::of) {
            Ok(Ending::Asked) => return strings.tell(Event::Ended { name }).await,
            Ok(Ending::Killed(how)) => Event::Killed { name: name.clone(), how },
            Ok(Ending::GaveUp(how)) => {
                Event::GaveUp { name: name.clone(), failure: Failure::new(Kind::Failed, format_args!("it ended with {how}")) }
            }
            Err(error) => {
                return strings.tell(Event::GaveUp { name, failure: Failure::system("cannot wait for it", &error) }).await;
            }
        };
        strings.tell(event).await;
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = strings.stopped() => return,
        }
    }
}

fn start(member: &Member, binary: &Path) -> std::io::Result<(Child, Option<ChildStdin>)> {
    let role = match member.role {
        Role::Node => "node",
        Role::Client => "client",
    };
    let mut command = Command::new(binary);
    command.arg("--config").arg(&member.file).args([role, "--until-stdin-ends"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
    // Ctrl-C goes to a terminal's whole group; the children are ended in order by the demo instead.
    command.process_group(0);
    if std::env::var_os("PORT17_LOG").is_none() {
        command.env("PORT17_LOG", "warn");
    }
    let mut child = command.spawn()?;
    // Kept apart: waiting for a child closes what it still holds.
    let stdin = child.stdin.take();
    Ok((child, stdin))
}

async fn end(mut child: Child, stdin: Option<ChildStdin>) {
    drop(stdin);
    if tokio::time::timeout(ENDING, child.wait()).await.is_err() {
        // It fails only when the child has ended meanwhile.
        let _ = child.kill().await;
    }
}

/// How a child ended, by what that means for the demo.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// In order, by SIGTERM: somebody wants it down.
    Asked,
    /// By another signal.
    Killed(String),
    /// With an exit code.
    GaveUp(String),
}

impl Ending {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(0), _) | (_, Some(TERMINATED)) => Self::Asked,
            (_, Some(signal)) => Self::Killed(format!("signal {signal}")),
            (code, None) => Self::GaveUp(format!("exit code {}", code.unwrap_or(-1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, watch};

    use super::super::plan::Plan;
    use super::super::ports::Ports;
    use super::*;

    #[test]
    fn only_sigterm_keeps_a_child_down() {
        assert_eq!(Ending::of(ExitStatus::from_raw(0)), Ending::Asked);
        assert_eq!(Ending::of(ExitStatus::from_raw(15)), Ending::Asked);
        assert_eq!(Ending::of(ExitStatus::from_raw(9)), Ending::Killed("signal 9".into()));
        assert_eq!(Ending::of(ExitStatus::from_raw(6 << 8)), Ending::GaveUp("exit code 6".into()));
    }

    struct Fixture {
        plan: Plan,
        events: mpsc::Receiver<Event>,
        stop: watch::Sender<bool>,
        running: tokio::task::JoinHandle<()>,
        _root: tempfile::TempDir,
    }

    /// Supervises a shell script in the place of the program.
    fn supervised(script: &str) -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let binary = root.path().join("program");
        // Written by another process: a test beside this one that forks now would keep our open file, and none can run that.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$2\" && chmod 755 \"$2\"";
        let written = std::process::Command::new("sh").args(["-c", write, "sh", script]).arg(&binary).status().unwrap();
        assert!(written.success());
        let plan = Plan::make(1, 1, &mut Ports::new()).unwrap();
        let (sender, events) = mpsc::channel(8);
        let (stop, stopped) = watch::channel(false);
        let member = plan.members[0].clone();
        let running = tokio::spawn(supervise(member, binary, Strings { events: sender, stop: stopped }));
        Fixture { plan, events, stop, running, _root: root }
    }

    async fn started(events: &mut mpsc::Receiver<Event>) -> u32 {
        match events.recv().await {
            Some(Event::Started { process, .. }) => process,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_child_ends_with_its_standard_input() {
        let mut fixture = supervised("exec cat");
        let process = started(&mut fixture.events).await;
        assert!(Path::new(&format!("/proc/{process}")).exists());

        fixture.stop.send(true).unwrap();
        fixture.running.await.unwrap();

        assert!(!Path::new(&format!("/proc/{process}")).exists());
        fixture.plan.remove().unwrap();
    }

    #[tokio::test]
    async fn a_killed_child_comes_back_with_the_same_arguments() {
        let mut fixture = supervised("printf '%s\\n' \"$*\" >>\"$2.seen\"; kill -9 $$");
        let first = started(&mut fixture.events).await;
        assert!(matches!(fixture.events.recv().await, Some(Event::Killed { how, .. }) if how == "signal 9"));
        let second = started(&mut fixture.events).await;
        assert_ne!(first, second);
        assert!(matches!(fixture.events.recv().await, Some(Event::Killed { .. })));
        fixture.stop.send(true).unwrap();
        fixture.running.await.unwrap();

        let file = fixture.plan.members[0].file.display().to_string();
        let line = format!("--config {file} node --until-stdin-ends\n");
        assert_eq!(std::fs::read_to_string(format!("{file}.seen")).unwrap(), line.repeat(2));
    }

    #[tokio::test]
    async fn a_child_ended_by_sigterm_stays_down() {
        let mut fixture = supervised("kill -TERM $$");
        started(&mut fixture.events).await;
        assert!(matches!(fixture.events.recv().await, Some(Event::Ended { .. })));
        fixture.running.await.unwrap();
    }

    #[tokio::test]
    async fn a_child_that_gives_up_says_its_code() {
        let mut fixture = supervised("exit 6");
        started(&mut fixture.events).await;
        let Some(Event::GaveUp { failure, .. }) = fixture.events.recv().await else { panic!("no exit code") };
        assert!(failure.message.contains("exit code 6"));
        fixture.running.abort();
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_told() {
        let plan = Plan::make(1, 1, &mut Ports::new()).unwrap();
        let (sender, mut events) = mpsc::channel(8);
        let (_stop, stopped) = watch::channel(false);
        supervise(plan.members[0].clone(), "/nonexistent".into(), Strings { events: sender, stop: stopped }).await;
        assert!(matches!(events.recv().await, Some(Event::GaveUp { .. })));
    }
}
