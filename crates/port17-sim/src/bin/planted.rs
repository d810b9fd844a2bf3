//! Whether the simulator finds the faults that were planted: `planted [--seeds N] [--seconds N] [NAME...]`. For each fault it goes
//! through the scenarios, seed after seed, until a rule is broken. Built with the feature `planted` alone.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use port17_proto::planted::{FAULTS, choose};
use port17_sim::run::run;
use port17_sim::scenario::Scenario;

struct Found {
    scenario: &'static str,
    seed: u64,
    rule: String,
}

/// Runs until a rule is broken.
fn look(seeds: u64, patience: Duration) -> (u64, Option<Found>) {
    let (began, mut runs) = (Instant::now(), 0);
    for seed in 1..=seeds {
        for (name, scenario, every) in Scenario::instruments() {
            if !seed.is_multiple_of(every) && every > 1 && seed != 1 {
                continue;
            }
            runs += 1;
            let Ok(outcome) = run(&scenario, seed) else { continue };
            if let Some(finding) = outcome.findings.first() {
                let rule = format!("{}: {}", finding.rule, finding.what);
                return (runs, Some(Found { scenario: name, seed, rule }));
            }
            if began.elapsed() > patience {
                return (runs, None);
            }
        }
    }
    (runs, None)
}

fn main() -> ExitCode {
    let (mut seeds, mut seconds, mut names) = (50, 100, Vec::new());
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--seeds" => seeds = given.next().and_then(|text| text.parse().ok()).unwrap_or(seeds),
            "--seconds" => seconds = given.next().and_then(|text| text.parse().ok()).unwrap_or(seconds),
            "--list" => {
                FAULTS.iter().for_each(|fault| println!("{}", fault.name));
                return ExitCode::SUCCESS;
            }
            name => names.push(name.to_owned()),
        }
    }
    if names.is_empty() {
        names = FAULTS.iter().map(|fault| fault.name.to_owned()).collect();
    }
    // A fault may well make the code panic: that is a finding, told in a line like the others.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = 0;
    for name in &names {
        if !choose(Some(name)) {
            eprintln!("planted: no fault is called {name:?}; `planted --list` has them all");
            return ExitCode::from(2);
        }
        let began = Instant::now();
        let (runs, found) = look(seeds, Duration::from_secs(seconds));
        let took = began.elapsed().as_secs_f64();
        match found {
            Some(Found { scenario, seed, rule }) => {
                let rule: String = rule.chars().take(90).collect();
                println!("found   {name:34} {took:6.1} s {runs:4} runs  {scenario} {seed}: {rule}");
            }
            None => {
                missed += 1;
                println!("missed  {name:34} {took:6.1} s {runs:4} runs");
            }
        }
    }
    println!("{} passed, {missed} failed", names.len() - missed);
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
