//! Runs many seeds of a scenario, a run on each core, and prints what was found: `seeds [--scenario NAME|FILE] [--from N] [--count N]
//! [--jobs N] [--go-on]`. Exit code 1 when a rule was broken.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use port17_sim::run::run;
use port17_sim::scenario::Scenario;

struct Arguments {
    scenario: Scenario,
    from: u64,
    count: u64,
    jobs: usize,
    goes_on: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments { scenario: Scenario::faults(), from: 1, count: 100, jobs: 1, goes_on: false };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or(format!("{argument} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"));
        match argument.as_str() {
            "--scenario" => arguments.scenario = scenario(&value()?)?,
            "--from" => arguments.from = number(value()?)?,
            "--count" => arguments.count = number(value()?)?,
            "--jobs" => arguments.jobs = usize::try_from(number(value()?)?).unwrap_or(1).max(1),
            "--go-on" => arguments.goes_on = true,
            other => return Err(format!("{other:?} is not known")),
        }
    }
    Ok(arguments)
}

fn scenario(name: &str) -> Result<Scenario, String> {
    match name {
        "default" => Ok(Scenario::default()),
        file => {
            if let Some((_, scenario, _)) = Scenario::instruments().into_iter().find(|(known, ..)| *known == file) {
                return Ok(scenario);
            }
            let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
            Scenario::parse(&text).map_err(|error| format!("{file}: {error}"))
        }
    }
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("seeds: {error}");
            return ExitCode::from(2);
        }
    };
    let (next, broken, stop) = (AtomicU64::new(arguments.from), AtomicU64::new(0), AtomicBool::new(false));
    let (events, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.from + arguments.count {
                        return;
                    }
                    let Ok(outcome) = run(&arguments.scenario, seed) else { return };
                    events.fetch_add(outcome.events, Ordering::Relaxed);
                    done.fetch_add(outcome.figures.streams_done, Ordering::Relaxed);
                    failed.fetch_add(outcome.figures.streams_failed, Ordering::Relaxed);
                    for finding in &outcome.findings {
                        println!("seed {seed}, {:.3} s: {}: {}", finding.at_us as f64 / 1e6, finding.rule, finding.what);
                    }
                    if !outcome.findings.is_empty() {
                        broken.fetch_add(1, Ordering::Relaxed);
                        stop.store(!arguments.goes_on, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let broken = broken.load(Ordering::Relaxed);
    println!(
        "{} seeds from {} on, {broken} with a broken rule; {} events, {} streams done, {} failed; {:.1} s",
        arguments.count,
        arguments.from,
        events.load(Ordering::Relaxed),
        done.load(Ordering::Relaxed),
        failed.load(Ordering::Relaxed),
        began.elapsed().as_secs_f64()
    );
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
