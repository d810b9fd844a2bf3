//! docs/simulator.md says all that there is: keys of a scenario, figures, rules.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use port17_sim::report::Figures;
use port17_sim::scenario::Scenario;

fn manual() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/simulator.md")).unwrap()
}

/// The words in backquotes.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_of_a_scenario_is_explained() {
    let (manual, tables) = (quoted(&manual()), ["", "[wire]", "[traffic]", "[faults]", "[liars]"]);
    for table in tables {
        // The parser says which keys there are.
        let error = Scenario::parse(&format!("{table}\nno_such_key = 1\n")).unwrap_err().to_string();
        let keys = quoted(error.split_once("expected one of").unwrap().1);
        assert!(keys.len() > 2, "{error}");
        keys.iter().for_each(|key| assert!(manual.contains(key), "{table} {key}"));
    }
}

#[test]
fn the_example_is_a_scenario() {
    let manual = manual();
    let example = manual.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    Scenario::parse(example).unwrap();
}

#[test]
fn every_figure_is_explained() {
    let manual = quoted(&manual());
    let figures = serde_json::to_value(Figures::default()).unwrap();
    figures.as_object().unwrap().keys().for_each(|name| assert!(manual.contains(name), "{name}"));
}

#[test]
fn every_rule_is_named() {
    let manual = quoted(&manual());
    let rules: BTreeSet<String> = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).iter().flat_map(rules_in).collect();
    assert!(rules.len() > 30, "{rules:?}");
    rules.iter().for_each(|rule| assert!(manual.contains(rule), "{rule}"));
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

fn rules_in(path: &PathBuf) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let named = |before: &str| {
        let found = text.split(before).skip(1).filter_map(|rest| rest.split_once('"'));
        found.map(|(rule, _)| rule.to_owned()).collect::<Vec<_>>()
    };
    [named(".report(\""), named("Some((\""), named("then(|| (\"")].concat()
}
