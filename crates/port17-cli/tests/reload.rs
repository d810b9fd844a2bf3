//! SIGHUP: a running daemon reads its configuration again, refuses what is wrong, and never ends over it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A daemon and what it logs.
struct Daemon {
    child: Child,
    lines: Receiver<String>,
}

impl Daemon {
    fn start(config: &std::path::Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_port17"))
            .args(["client", "--config"])
            .arg(config)
            .env_remove("PORT17_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in errors.lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line that has all of these.
    fn says(&self, parts: &[&str]) {
        let until = Instant::now() + Duration::from_secs(8);
        let mut seen = String::new();
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if parts.iter().all(|part| line.contains(part)) => return,
                Ok(line) => seen += &(line + "\n"),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("never {parts:?}, only:\n{seen}"),
            }
        }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").arg(name).arg(self.child.id().to_string()).status().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn sighup_reads_the_configuration_again_and_never_ends_the_daemon() {
    let root = tempfile::tempdir().unwrap();
    let config = root.path().join("port17.toml");
    let text = "state = \"state\"\n[client]\nproxy = \"127.0.0.1:0\"\n";
    fs::write(&config, text).unwrap();
    let mut daemon = Daemon::start(&config);
    daemon.says(&["proxy listens"]);

    daemon.signal("-HUP");
    daemon.says(&["INFO", "reloaded"]);

    fs::write(&config, format!("{text}hops = 9\n")).unwrap();
    daemon.signal("-HUP");
    daemon.says(&["ERROR", "not reloaded", "port17.toml:4: client.hops: 9"]);

    fs::write(&config, format!("label = \"harbour\"\n{text}hops = 5\n")).unwrap();
    daemon.signal("-HUP");
    daemon.says(&["reloaded", "client.hops, label"]);

    fs::remove_file(&config).unwrap();
    daemon.signal("-HUP");
    daemon.says(&["not reloaded", "port17.toml"]);

    daemon.signal("-TERM");
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0), "an orderly end");
}
