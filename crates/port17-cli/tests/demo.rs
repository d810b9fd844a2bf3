//! `port17 demo` from outside: its last line, its ready file, and what becomes of its children.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A condition that holds sooner or later, or the test hangs visibly here.
fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn demo(temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_port17"));
    command.arg("demo").env("TMPDIR", temporary).env_remove("PORT17_LOG").stdin(Stdio::null());
    command
}

/// A demo that stays up.
struct Standing {
    child: Child,
    ready_file: PathBuf,
    root: tempfile::TempDir,
}

impl Standing {
    fn start(arguments: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let ready_file = root.path().join("ready.json");
        let mut command = demo(root.path());
        command.args(arguments).arg("--ready-file").arg(&ready_file).stdout(Stdio::null());
        Self { child: command.spawn().unwrap(), ready_file, root }
    }

    fn ready(&mut self) -> Value {
        eventually("the ready file", || {
            assert!(self.child.try_wait().unwrap().is_none(), "the demo ended");
            fs::read_to_string(&self.ready_file).ok()
        })
        .parse()
        .unwrap()
    }

    fn process(&mut self, member: &str) -> Option<u64> {
        self.ready()["processes"][member].as_u64()
    }

    fn signal(&self, process: u64, signal: &str) {
        assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
    }

    /// The demo's own temporary directories.
    fn left_behind(&self) -> usize {
        fs::read_dir(self.root.path()).unwrap().flatten().filter(|entry| entry.path().is_dir()).count()
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        // Already ended, in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_alive(process: u64) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

fn check_ends_with_ok(arguments: &[&str]) {
    let root = tempfile::tempdir().unwrap();
    let output = demo(root.path()).arg("--check").args(arguments).output().unwrap();
    let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{out}{error}");
    let last = out.lines().last().unwrap();
    let fields: Vec<&str> = last.split(' ').collect();
    assert!(
        last.starts_with("ok 100000000 bytes sha256 ") && last.contains(" hops 3 ") && last.contains(" MB/s, first byte "),
        "{last}"
    );
    assert!(fields[4].len() == 64 && fields[4].bytes().all(|byte| byte.is_ascii_hexdigit()), "{last}");
    assert!(out.contains("parameters: the demo set"), "{out}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "files stay behind");
}

#[test]
fn check_downloads_through_three_hops_in_one_process() {
    check_ends_with_ok(&[]);
}

#[test]
fn check_downloads_through_three_hops_in_processes() {
    check_ends_with_ok(&["--processes", "--nodes", "3"]);
}

#[test]
fn ready_file_lists_who_carries_cells() {
    let mut demo = Standing::start(&["--processes", "--nodes", "3"]);
    let ready = demo.ready();
    let names: Vec<&String> = ready["processes"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["client", "node-1", "node-2", "node-3"]);
    assert!(ready["processes"].as_object().unwrap().values().all(|process| is_alive(process.as_u64().unwrap())));
    assert!(ready["socks"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(Path::new(ready["control"].as_str().unwrap()).exists());
    let port = ready["origin"].as_str().unwrap().strip_prefix("http://127.0.0.1:").unwrap();
    assert_eq!(ready["origin_name"], format!("http://origin.demo:{port}"));
}

#[test]
fn a_killed_child_comes_back_and_one_ended_by_sigterm_does_not() {
    let mut demo = Standing::start(&["--processes", "--nodes", "4"]);
    let first = demo.process("node-1").unwrap();
    demo.signal(first, "-KILL");
    let second = eventually("node-1", || demo.process("node-1").filter(|process| *process != first));
    assert!(is_alive(second));

    let exit = demo.process("node-4").unwrap();
    demo.signal(exit, "-TERM");
    eventually("node-4's end", || demo.process("node-4").is_none().then_some(()));
    // Longer than a killed one stays away.
    let later = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < later {
        assert!(demo.process("node-4").is_none(), "it came back");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn sigterm_ends_everything_in_order() {
    let mut demo = Standing::start(&["--processes", "--nodes", "3"]);
    let processes: Vec<u64> = demo.ready()["processes"].as_object().unwrap().values().filter_map(Value::as_u64).collect();
    demo.signal(demo.child.id().into(), "-TERM");
    assert!(demo.child.wait().unwrap().success());
    assert!(processes.iter().all(|process| !is_alive(*process)));
    assert_eq!(demo.left_behind(), 0);
}

#[test]
fn interrupt_ends_everything_with_130() {
    let mut demo = Standing::start(&["--nodes", "3"]);
    assert_eq!(demo.process("demo"), Some(demo.child.id().into()));
    demo.signal(demo.child.id().into(), "-INT");
    assert_eq!(demo.child.wait().unwrap().code(), Some(130));
    assert_eq!(demo.left_behind(), 0);
}

#[test]
fn no_child_outlives_a_killed_demo() {
    let mut demo = Standing::start(&["--processes", "--nodes", "3"]);
    let processes: Vec<u64> = demo.ready()["processes"].as_object().unwrap().values().filter_map(Value::as_u64).collect();
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    eventually("the children's end", || processes.iter().all(|process| !is_alive(*process)).then_some(()));
}

#[test]
fn a_ready_file_that_cannot_be_written_ends_the_demo_at_once() {
    let root = tempfile::tempdir().unwrap();
    let output = demo(root.path()).args(["--check", "--ready-file", "/nonexistent/ready.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nonexistent/ready.json"));
}

#[test]
fn two_demos_run_side_by_side() {
    let root = tempfile::tempdir().unwrap();
    let start = || demo(root.path()).args(["--check", "--nodes", "3"]).stdout(Stdio::piped()).spawn().unwrap();
    for mut child in [start(), start()] {
        let lines: Vec<String> = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
        assert!(child.wait().unwrap().success(), "{lines:?}");
        assert!(lines.last().unwrap().starts_with("ok 100000000 bytes"), "{lines:?}");
    }
}
