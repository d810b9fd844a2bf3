use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use port17::daemon::Reloading;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::arguments::DaemonArguments;
use crate::failure::{Failure, Kind};
use crate::settings::Settings;

pub(crate) fn run_node(settings: &Settings, arguments: &DaemonArguments) -> Result<(), Failure> {
    let config = settings.load()?;
    block_on(async {
        let (stop, interrupted) = stop(arguments)?;
        port17::daemon::run_node(config, reloading(settings)?, stop).await?;
        ended(&interrupted)
    })?
}

pub(crate) fn run_client(settings: &Settings, arguments: &DaemonArguments) -> Result<(), Failure> {
    let config = settings.load()?;
    block_on(async {
        let (stop, interrupted) = stop(arguments)?;
        port17::daemon::run_client(config, reloading(settings)?, stop).await?;
        ended(&interrupted)
    })?
}

/// Runs a command's asynchronous part on all cores.
pub(crate) fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::system("cannot start the runtime", &error))?;
    Ok(runtime.block_on(future))
}

/// Ready at Ctrl-C, at SIGTERM, and where it was asked for when standard input ends; and whether it was Ctrl-C.
fn stop(arguments: &DaemonArguments) -> Result<(impl Future<Output = ()> + Send + use<>, Arc<AtomicBool>), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::system("cannot listen for signals", &error));
    let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let stdin = arguments.until_stdin_ends.then(stdin_end);
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let stop = async move {
        let by_interrupt = first_of(interrupt, terminate, stdin).await;
        flag.store(by_interrupt, Ordering::Relaxed);
    };
    Ok((stop, interrupted))
}

/// SIGHUP never ends the daemon: it reads its configuration again.
fn reloading(settings: &Settings) -> Result<Reloading, Failure> {
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| Failure::system("cannot listen for signals", &error))?;
    // Two signals in a row are one: what is read is what is there then.
    let (signals, asked) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            if let Err(TrySendError::Closed(())) = signals.try_send(()) {
                return;
            }
        }
    });
    let settings = settings.clone();
    Ok(Reloading::new(asked, move || settings.read()))
}

async fn first_of(mut interrupt: Signal, mut terminate: Signal, stdin: Option<oneshot::Receiver<()>>) -> bool {
    let stdin = async {
        match stdin {
            // Its sender is dropped at the end as well.
            Some(end) => drop(end.await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupt.recv() => true,
        _ = terminate.recv() => false,
        () = stdin => false,
    }
}

/// Ready when standard input ends. A thread of its own: reading it blocks, and would hold up the end of the runtime.
fn stdin_end() -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        while stdin.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {}
        // Nobody waits any more: the process is ending.
        let _ = ended.send(());
    });
    end
}

fn ended(interrupted: &AtomicBool) -> Result<(), Failure> {
    if interrupted.load(Ordering::Relaxed) { Err(Failure::new(Kind::Interrupted, "")) } else { Ok(()) }
}
