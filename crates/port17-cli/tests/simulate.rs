//! `port17 simulate` from outside: one seed is one run, figures, pictures, and what is said about wrong scenarios.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

/// A small mesh whose runs take no time.
const SMALL: &[&str] = &["simulate", "--nodes", "5", "--clients", "1", "--minutes", "2", "--scenario", "short.toml"];

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        home.write("short.toml", "quiet_minutes = 0\nparameter_set = \"private\"\n");
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn ends(&self, arguments: &[&str], code: i32) -> (String, String) {
        let mut command = Command::cargo_bin("port17").unwrap();
        command.env_remove("PORT17_LOG").timeout(std::time::Duration::from_secs(120)).current_dir(self.0.path()).args(arguments);
        let output = command.assert().code(code).get_output().clone();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn json(&self, more: &[&str]) -> Value {
        let (out, _) = self.ends(&[SMALL, &["--json"], more].concat(), 0);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

#[test]
fn one_seed_is_one_run() {
    let home = Home::new();
    let (one, again, other) = (home.json(&["--seed", "3"]), home.json(&["--seed", "3"]), home.json(&["--seed", "4"]));
    assert_eq!(one, again);
    assert_ne!(one["trace_hash"], other["trace_hash"]);
    assert_eq!((&one["nodes"], &one["clients"], &one["seed"]), (&5.into(), &1.into(), &3.into()));
    for name in ["events", "delivered_bytes", "convergence_p50_s", "sent_wire_bytes_per_node_day", "link_changes_per_node_day"] {
        assert!(one[name].is_number(), "{name}: {one}");
    }
    for name in ["diameter", "exits_reachable", "exit_entropy_bits", "guard_entropy_bits"] {
        assert!(one[name].is_number(), "{name}: {one}");
    }
    assert_eq!(one["findings"], Value::Array(Vec::new()));
}

#[test]
fn people_read_the_seed_and_the_verdict_first() {
    let (out, error) = Home::new().ends(SMALL, 0);
    assert!(out.starts_with("5 nodes, 1 client, 2 virtual minutes, seed 1: no rule broken\n"), "{out}");
    assert!(out.contains("\nexit unknown by") && error.is_empty(), "{out}{error}");
}

#[test]
fn many_seeds_give_means_with_intervals() {
    let all = Home::new().json(&["--seed", "3", "--seeds", "3"]);
    let seeds: Vec<u64> = all["runs"].as_array().unwrap().iter().map(|run| run["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [3, 4, 5]);
    let opened = &all["figures"]["stream_open_p50_ms"];
    let [low, mean, high] = ["low", "mean", "high"].map(|name| opened[name].as_f64().unwrap());
    assert!(low < mean && mean < high && opened["runs"] == 3, "{opened}");
    let of_runs: f64 = all["runs"].as_array().unwrap().iter().map(|run| run["stream_open_p50_ms"].as_f64().unwrap()).sum();
    assert!((of_runs / 3.0 - mean).abs() < 1e-6);
}

#[test]
fn one_of_many_seeds_is_the_run_of_that_seed() {
    let home = Home::new();
    assert_eq!(home.json(&["--seed", "3", "--seeds", "2"])["runs"][1], home.json(&["--seed", "4"]));
}

#[test]
fn pictures_are_written() {
    let home = Home::new();
    home.ends(&[SMALL, &["--svg", "map.svg"]].concat(), 0);
    home.ends(&[SMALL, &["--seeds", "2", "--svg", "figures.svg"]].concat(), 0);
    for (name, words) in [("map.svg", "link that both ends list"), ("figures.svg", "95 % confidence interval")] {
        let text = fs::read_to_string(home.path(name)).unwrap();
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n") && text.contains(words), "{name}");
    }
}

#[test]
fn a_picture_that_cannot_be_written_costs_no_run() {
    let home = Home::new();
    // Before a run that would take days.
    let (_, error) = home.ends(&["simulate", "--nodes", "1000", "--minutes", "80000", "--svg", "no/such/directory.svg"], 6);
    assert!(error.contains("no/such/directory.svg"), "{error}");
    let (out, error) = home.ends(&[SMALL, &["--svg", "/dev/full"]].concat(), 6);
    assert!(out.contains("exit unknown by") && error.contains("/dev/full"), "{out}{error}");
}

#[test]
fn a_wrong_key_is_named_with_file_and_line() {
    let home = Home::new();
    home.write("wrong.toml", "nodes = 4\n\n[faults]\nkils = 3\n");
    let (out, error) = home.ends(&["simulate", "--scenario", "wrong.toml"], 3);
    assert!(error.contains("wrong.toml:4: faults.kils: unknown field") && error.contains("`kills`") && out.is_empty(), "{error}");
    home.write("wrong.toml", "nodes = \"many\"\n");
    assert!(home.ends(&["simulate", "--scenario", "wrong.toml"], 3).1.contains("wrong.toml:1: nodes: invalid type"));
    home.write("wrong.toml", "nodes = \n");
    assert!(home.ends(&["simulate", "--scenario", "wrong.toml"], 3).1.contains("wrong.toml:1:"));
}

#[test]
fn a_wrong_value_is_named_with_its_file() {
    let home = Home::new();
    for (text, words) in [
        ("nodes = 0\n", "nodes: 1 to 20000"),
        ("parameter_set = \"huge\"\n", "none of default, private, demo"),
        ("[parameters]\nhops = \"9\"\n", "hops"),
        ("[parameters]\nnonsense = \"9\"\n", "nonsense"),
    ] {
        home.write("wrong.toml", text);
        let (_, error) = home.ends(&["simulate", "--scenario", "wrong.toml"], 3);
        assert!(error.contains("wrong.toml") && error.contains(words), "{text}: {error}");
    }
}

#[test]
fn a_missing_scenario_says_where_to_find_one() {
    let (_, error) = Home::new().ends(&["simulate", "--scenario", "nowhere.toml"], 3);
    assert!(
        error.contains("nowhere.toml") && error.contains("docs/simulator.md") && error.contains("default, faults, liars"),
        "{error}"
    );
}

#[test]
fn a_scenario_that_is_built_in_goes_by_its_name() {
    let home = Home::new();
    let (help, _) = home.ends(&["simulate", "--help"], 0);
    let words: String = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&port17_sim::scenario::Scenario::names().join(", ")), "{words}");
    let runs = |name| home.ends(&["simulate", "--nodes", "5", "--clients", "1", "--minutes", "1", "--scenario", name], 0).0;
    assert!(runs("liars").starts_with("5 nodes, 1 client, 7 virtual minutes, seed 1: no rule broken\n"), "{}", runs("liars"));
    assert_ne!(runs("liars").lines().nth(1), runs("default").lines().nth(1));
}

#[test]
fn wrong_flags_are_usage_errors() {
    let home = Home::new();
    for wrong in
        [&["--nodes", "0"][..], &["--nodes", "x"], &["--seed", "-1"], &["--seeds", "0"], &["--minutes", "0"], &["--nonsense"]]
    {
        let (out, error) = home.ends(&[&["simulate"], wrong].concat(), 2);
        assert!(out.is_empty() && !error.is_empty(), "{wrong:?}");
    }
    // Each is allowed, but not together with the quiet minutes.
    let (_, error) = home.ends(&["simulate", "--minutes", "86400"], 2);
    assert!(error.contains("sixty days"), "{error}");
}

#[test]
fn ctrl_c_ends_it() {
    let home = Home::new();
    let binary = assert_cmd::cargo::cargo_bin("port17");
    let mut child = std::process::Command::new(binary)
        .args(["simulate", "--nodes", "60", "--minutes", "10000"])
        .current_dir(home.0.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The handler stands once the signal is caught: until then it would end by the signal itself.
    let caught = || catches_interrupt(Path::new(&format!("/proc/{}/status", child.id())));
    while !caught() {
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

fn catches_interrupt(status: &Path) -> bool {
    const SIGINT_BIT: u64 = 1 << 1;
    let text = fs::read_to_string(status).unwrap();
    let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & SIGINT_BIT > 0
}
