//! Whether the simulator finds the faults that were planted: `planted [--seeds N] [--seconds N] [NAME...]`. For each fault it goes
//! through the scenarios, seed after seed, until a rule is broken. Built with the feature `planted` alone.

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
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
            if !(seed - 1).is_multiple_of(every) {
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

/// Looks for one fault in this process, and says what came of it.
fn look_for(name: &str, seeds: u64, seconds: u64) -> ExitCode {
    if !choose(Some(name)) {
        eprintln!("planted: no fault is called {name:?}; `planted --list` has them all");
        return ExitCode::from(2);
    }
    // A fault may well make the code panic: that is a finding, told in a line like the others.
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let (runs, found) = look(seeds, Duration::from_secs(seconds));
    let took = began.elapsed().as_secs_f64();
    match found {
        Some(Found { scenario, seed, rule }) => {
            let rule: String = rule.chars().take(90).collect();
            println!("found   {name:34} {took:6.1} s {runs:4} runs  {scenario} {seed}: {rule}");
            ExitCode::SUCCESS
        }
        None => {
            println!("missed  {name:34} {took:6.1} s {runs:4} runs");
            ExitCode::FAILURE
        }
    }
}

/// Looks for one fault in a process of its own: what hangs or takes all memory ends with it, and is not counted as found.
fn look_apart(name: &str, seeds: u64, seconds: u64) -> std::io::Result<bool> {
    const SLACK_S: u64 = 60;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--one", name, "--seeds", &seeds.to_string(), "--seconds", &seconds.to_string()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let Some(mut output) = child.stdout.take() else { return Ok(false) };
    let (said, hears) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        // What it has said before it ended is all there is.
        let _ = output.read_to_string(&mut text);
        let _ = said.send(text);
    });
    let text = hears.recv_timeout(Duration::from_secs(seconds + SLACK_S)).unwrap_or_default();
    // It has ended already, or is not waited for any longer.
    let _ = child.kill();
    let status = child.wait()?;
    if text.is_empty() {
        println!("missed  {name:34} ended without a word ({status})");
    } else {
        print!("{text}");
    }
    Ok(status.success() && !text.is_empty())
}

fn main() -> ExitCode {
    let (mut seeds, mut seconds, mut names, mut one) = (50, 100, Vec::new(), None);
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--seeds" => seeds = given.next().and_then(|text| text.parse().ok()).unwrap_or(seeds),
            "--seconds" => seconds = given.next().and_then(|text| text.parse().ok()).unwrap_or(seconds),
            "--one" => one = given.next(),
            "--list" => {
                FAULTS.iter().for_each(|fault| println!("{:34} {}", fault.name, fault.what));
                return ExitCode::SUCCESS;
            }
            name if FAULTS.iter().any(|fault| fault.name == name) => names.push(name.to_owned()),
            other => {
                eprintln!("planted: {other:?} is neither an option nor a fault; `planted --list` has them all");
                return ExitCode::from(2);
            }
        }
    }
    if let Some(name) = one {
        return look_for(&name, seeds, seconds);
    }
    if names.is_empty() {
        names = FAULTS.iter().map(|fault| fault.name.to_owned()).collect();
    }
    let mut found = 0;
    for name in &names {
        match look_apart(name, seeds, seconds) {
            Ok(is_found) => found += usize::from(is_found),
            Err(error) => eprintln!("planted: {name}: {error}"),
        }
    }
    println!("{found} passed, {} failed", names.len() - found);
    if found == names.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
