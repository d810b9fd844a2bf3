use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;

/// Where results go: for people, or as JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints a result in the way that was asked for.
    pub(crate) fn print(self, human: impl fmt::Display, value: &impl Serialize) -> Result<(), Failure> {
        let text = if self.json {
            serde_json::to_string_pretty(value).map_err(|error| Failure::system("standard output", &error.into()))?
        } else {
            printable(&human.to_string())
        };
        write_out(format!("{}\n", text.trim_end()).as_bytes())
    }

    /// Says on standard error why the command failed; gives its exit code.
    pub(crate) fn fail(self, failure: &Failure) -> ExitCode {
        let code = failure.kind as u8;
        if failure.message.is_empty() {
            return ExitCode::from(code);
        }
        let text = if self.json {
            serde_json::json!({ "error": failure.message, "code": code }).to_string()
        } else {
            format!("port17: {}", printable(&failure.message))
        };
        // Where nobody reads it, the exit code still says it.
        let _ = writeln!(io::stderr(), "{text}");
        ExitCode::from(code)
    }
}

/// What others chose, such as a node's software or a server's answer, must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() && letter != '\n' { '\u{fffd}' } else { letter }).collect()
}

/// Writes to standard output. A reader that has read enough (`| head`) is no failure.
pub(crate) fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::system("standard output", &error)),
        _ => Ok(()),
    }
}

/// Starts the log on standard error: warnings, for daemons what happens, each `-v` one level more.
pub(crate) fn start_log(verbose: u8, is_daemon: bool) {
    let level = ["warn", "info", "debug", "trace"][usize::from(verbose.min(2)) + usize::from(is_daemon)];
    let filter = EnvFilter::try_from_env("PORT17_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(io::stderr).init();
}
