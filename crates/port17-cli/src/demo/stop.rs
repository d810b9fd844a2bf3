//! What ends the demo from outside.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Kind};

/// The signals that end the demo. A closed terminal (SIGHUP) does too: else its files would stay.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// Which one came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM or SIGHUP.
    Terminated,
}

impl Stop {
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::system("cannot listen for signals", &error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    pub(super) async fn wait(&mut self) -> Stopped {
        tokio::select! {
            _ = self.interrupt.recv() => Stopped::Interrupted,
            _ = self.terminate.recv() => Stopped::Terminated,
            _ = self.hangup.recv() => Stopped::Terminated,
        }
    }
}

impl Stopped {
    /// The command's result: an orderly end counts as success only once the download is done.
    pub(super) fn after(self, is_ready: bool) -> Result<(), Failure> {
        match (self, is_ready) {
            (Self::Terminated, true) => Ok(()),
            (Self::Terminated, false) => Err(Failure::new(Kind::Interrupted, "ended before its download was done")),
            (Self::Interrupted, _) => Err(Failure::new(Kind::Interrupted, "")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigterm_is_success_only_after_the_download() {
        assert!(Stopped::Terminated.after(true).is_ok());
        assert_eq!(Stopped::Terminated.after(false).unwrap_err().kind, Kind::Interrupted);
        assert_eq!(Stopped::Interrupted.after(true).unwrap_err().kind, Kind::Interrupted);
    }
}
