use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use port17::config::InvalidFile;
use port17_sim::report::{Figures, Interval, intervals, number, plot_intervals, plot_map};
use port17_sim::run::{self, Outcome};
use port17_sim::scenario::{Scenario, ScenarioError};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::arguments::SimulateArguments;
use crate::daemon::block_on;
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::status::counted;
use crate::table::Table;

/// One run as JSON.
#[derive(Serialize)]
struct Run {
    trace_hash: String,
    seed: u64,
    nodes: usize,
    clients: usize,
    /// Virtual time.
    minutes: u64,
    events: u64,
    #[serde(flatten)]
    figures: Figures,
    findings: Vec<Finding>,
}

/// A broken rule as JSON.
#[derive(Serialize)]
struct Finding {
    rule: &'static str,
    what: String,
    at_s: f64,
}

/// Many runs as JSON.
#[derive(Serialize)]
struct Runs<'a> {
    runs: &'a [Run],
    figures: BTreeMap<String, Interval>,
}

/// Runs a mesh in virtual time, once or with many seeds, and says what was measured and which rules were broken.
pub(crate) fn run(arguments: &SimulateArguments, output: Output) -> Result<(), Failure> {
    let scenario = scenario(arguments)?;
    let seeds = arguments.seeds.unwrap_or(1);
    if let Some(path) = &arguments.svg {
        // Now, and not after hours.
        let opened = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
        opened.map_err(|error| Failure::system(path.display(), &error))?;
    }
    let began = Instant::now();
    let outcomes = block_on(simulate(&scenario, arguments.seed, seeds, output))??;
    let picture = arguments.svg.as_ref().map(|path| (path, picture(&scenario, &outcomes, arguments.seeds.is_some())));
    let runs: Vec<Run> = outcomes.into_iter().map(|outcome| Run::of(&scenario, outcome)).collect();
    let broken = runs.iter().filter(|run| !run.findings.is_empty()).count();
    let took_s = began.elapsed().as_secs_f64();
    match (&runs[..], arguments.seeds) {
        ([run], None) => output.print(describe(run, took_s), run)?,
        (runs, _) => {
            let all: Vec<Figures> = runs.iter().map(|run| run.figures.clone()).collect();
            let whole = Runs { runs, figures: intervals(&all) };
            output.print(describe_all(&whole, took_s), &whole)?;
        }
    }
    if let Some((path, picture)) = picture {
        fs::write(path, picture).map_err(|error| Failure::system(path.display(), &error))?;
    }
    if broken > 0 { Err(Failure::silent(Kind::Failed)) } else { Ok(()) }
}

/// The scenario that is asked for, by its name or from a file, and what the command line says instead.
fn scenario(arguments: &SimulateArguments) -> Result<Scenario, Failure> {
    let mut scenario = match &arguments.scenario {
        Some(given) => match given.to_str().and_then(Scenario::named) {
            Some(scenario) => scenario,
            None => read(given)?,
        },
        None => Scenario::default(),
    };
    let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    scenario.nodes = arguments.nodes.map_or(scenario.nodes, size);
    scenario.clients = arguments.clients.map_or(scenario.clients, size);
    scenario.minutes = arguments.minutes.map_or(scenario.minutes, u64::from);
    scenario.check().map_err(|error| Failure::new(Kind::Usage, error))?;
    Ok(scenario)
}

fn read(path: &Path) -> Result<Scenario, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        let kind = if error.kind() == std::io::ErrorKind::PermissionDenied { Kind::Resource } else { Kind::Configuration };
        let names = Scenario::names().join(", ");
        let help = format_args!("a scenario is a file, of which docs/simulator.md has an example, or one of {names}");
        Failure::new(kind, format_args!("{}: {error}; {help}", path.display()))
    })?;
    Scenario::parse(&text).map_err(|error| match &error {
        ScenarioError::Toml(wrong) => {
            let offset = wrong.span().map_or(0, |span| span.start);
            Failure::new(Kind::Configuration, InvalidFile::at(&text, path, offset, None, wrong.message()))
        }
        ScenarioError::Parameter(_) | ScenarioError::Params(_) | ScenarioError::Set(_) | ScenarioError::Size(_) => {
            Failure::new(Kind::Configuration, format_args!("{}: {error}", path.display()))
        }
    })
}

/// Runs all seeds, one on each core, until they are done or Ctrl-C comes; in the order of the seeds.
async fn simulate(scenario: &Scenario, first: u64, seeds: u32, output: Output) -> Result<Vec<Outcome>, Failure> {
    let (done, mut outcomes) = mpsc::unbounded_channel();
    let next = Arc::new(AtomicU64::new(0));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let scenario = Arc::new(scenario.clone());
    for _ in 0..cores.min(usize::try_from(seeds).unwrap_or(1)) {
        let (done, next, scenario) = (done.clone(), Arc::clone(&next), Arc::clone(&scenario));
        // Plain threads: nobody waits for them when Ctrl-C comes.
        std::thread::spawn(move || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= u64::from(seeds) || !simulate_one(&scenario, first.wrapping_add(number), &done) {
                    return;
                }
            }
        });
    }
    drop(done);
    let mut all = Vec::new();
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| Failure::system("cannot listen for signals", &error))?;
                return Err(Failure::new(Kind::Interrupted, ""));
            }
            outcome = outcomes.recv() => match outcome {
                None => break,
                Some(outcome) => {
                    let outcome = outcome.map_err(|error| Failure::new(Kind::Configuration, error))?;
                    if seeds > 1 && !output.is_json() {
                        let first = outcome.findings.first().map(|it| format!("; {}: {}", it.rule, it.what));
                        eprintln!("seed {}: {}{}", outcome.seed, verdict(outcome.findings.len()), first.unwrap_or_default());
                    }
                    all.push(outcome);
                }
            },
        }
    }
    all.sort_by_key(|outcome| outcome.seed);
    if all.len() < usize::try_from(seeds).unwrap_or(usize::MAX) {
        return Err(Failure::new(Kind::Failed, "a simulation ended without a result"));
    }
    Ok(all)
}

/// One run, in a thread that has the seed's name: where the code panics, that is said with it. False when there is no more to do.
fn simulate_one(scenario: &Arc<Scenario>, seed: u64, done: &mpsc::UnboundedSender<Result<Outcome, ScenarioError>>) -> bool {
    let (scenario, done) = (Arc::clone(scenario), done.clone());
    let work = move || done.send(run::run(&scenario, seed)).is_ok();
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).spawn(work);
    thread.is_ok_and(|thread| thread.join().unwrap_or(false))
}

fn picture(scenario: &Scenario, outcomes: &[Outcome], has_many: bool) -> String {
    let minutes = scenario.minutes + scenario.quiet_minutes;
    match outcomes {
        [outcome] if !has_many => {
            let title = format!("A simulated mesh after {minutes} virtual minutes (seed {})", outcome.seed);
            plot_map(&outcome.sketch, &outcome.figures, &title)
        }
        all => {
            let nodes = counted(scenario.nodes as u64, "node");
            let runs = counted(all.len() as u64, "run");
            let title = format!("Simulated meshes of {nodes}, {minutes} virtual minutes, {runs}");
            let figures: Vec<Figures> = all.iter().map(|outcome| outcome.figures.clone()).collect();
            plot_intervals(&figures, &title)
        }
    }
}

impl Run {
    fn of(scenario: &Scenario, outcome: Outcome) -> Self {
        let findings = outcome.findings.into_iter();
        let finding = |it: port17_sim::judge::Finding| Finding { rule: it.rule, what: it.what, at_s: it.at_us as f64 / 1e6 };
        Self {
            trace_hash: outcome.trace_hash,
            seed: outcome.seed,
            nodes: scenario.nodes,
            clients: scenario.clients,
            minutes: scenario.minutes + scenario.quiet_minutes,
            events: outcome.events,
            figures: outcome.figures,
            findings: findings.map(finding).collect(),
        }
    }
}

fn describe(run: &Run, took_s: f64) -> String {
    let Run { nodes, clients, minutes, seed, figures: it, .. } = run;
    let (nodes, clients) = (counted(*nodes as u64, "node"), counted(*clients as u64, "client"));
    let mut table = Table::default();
    let mut row = |what: &str, words: String| table.push([what.to_owned(), words]);
    row(
        "streams",
        format!("{} done, {} failed, {} bytes delivered", it.streams_done, it.streams_failed, number(it.delivered_bytes as f64)),
    );
    row("", format!("open after {} ms (median), {} ms (99 %)", shown(it.stream_open_p50_ms), shown(it.stream_open_p99_ms)));
    row(
        "circuits",
        format!("{}, {} of them failed, {} since nobody answered", it.circuits, it.circuits_failed, it.circuits_late),
    );
    let spread = [it.convergence_p50_s, it.convergence_p99_s, it.convergence_max_s].map(shown).join(" / ");
    let on_their_way = match it.bottles_spreading {
        0 => String::new(),
        count => format!("; {count} were still on their way at the end"),
    };
    row("convergence", format!("{spread} s from a Bottle to all (50 / 99 / 100 %, {} Bottles{on_their_way})", it.bottles));
    let started = [it.start_convergence_p50_s, it.start_convergence_p99_s, it.start_convergence_max_s].map(shown).join(" / ");
    row("", format!("{started} s from a node's start"));
    let a_day = |wire, message| format!("{} bytes a day on the wire, {} in messages", shown(wire), shown(message));
    row("control", format!("a node sends {}", a_day(it.sent_wire_bytes_per_node_day, it.sent_message_bytes_per_node_day)));
    let (wire, message) = (it.received_wire_bytes_per_client_day, it.received_message_bytes_per_client_day);
    row("", format!("a client gets {}", a_day(wire, message)));
    row(
        "links",
        format!(
            "{}, {} of a node (median), {} changes of a node a day",
            it.links,
            shown(it.degree_p50),
            shown(it.link_changes_per_node_day)
        ),
    );
    let apart = match it.pairs_apart {
        0 => String::new(),
        pairs => format!("; {pairs} pairs with no way between them"),
    };
    row("map", format!("diameter {}, {} links apart on average{apart}", it.diameter, shown(it.mean_distance)));
    row("exits", format!("a client reaches {} of {}", shown(it.exits_reachable), shown(it.exits_eligible)));
    let bits = |shannon, min, most| format!("{} bits, min-entropy {}, at most {}", shown(shannon), shown(min), shown(most));
    row("exit unknown by", bits(it.exit_entropy_bits, it.exit_min_entropy_bits, it.exit_most_bits));
    row("guard unknown by", bits(it.guard_entropy_bits, it.guard_min_entropy_bits, it.guard_most_bits));
    let run_words = format!("trace {}, {} events", run.trace_hash, number(run.events as f64));
    format!(
        "{nodes}, {clients}, {minutes} virtual minutes, seed {seed}: {}\n{table}{}{run_words}, {took_s:.1} s\n",
        verdict(run.findings.len()),
        broken(std::slice::from_ref(run))
    )
}

fn describe_all(whole: &Runs<'_>, took_s: f64) -> String {
    let Some(first) = whole.runs.first() else { return String::new() };
    let (nodes, clients) = (counted(first.nodes as u64, "node"), counted(first.clients as u64, "client"));
    let mut table = Table::default();
    table.push(["FIGURE", "MEAN", "95 % CONFIDENCE"]);
    for (name, it) in &whole.figures {
        table.push([name.clone(), number(it.mean), format!("{} to {}", number(it.low), number(it.high))]);
    }
    let (runs, last) = (counted(whole.runs.len() as u64, "run"), whole.runs.last().map_or(0, |run| run.seed));
    let bad = whole.runs.iter().filter(|run| !run.findings.is_empty()).count();
    format!(
        "{nodes}, {clients}, {} virtual minutes, {runs} with the seeds {} to {last}: {}\n{table}{}{took_s:.1} s\n",
        first.minutes,
        first.seed,
        if bad == 0 { "no rule broken".to_owned() } else { format!("{bad} with a broken rule") },
        broken(whole.runs)
    )
}

fn shown(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), number)
}

fn verdict(findings: usize) -> String {
    if findings == 0 { "no rule broken".to_owned() } else { format!("rules broken: {findings} findings") }
}

fn broken(runs: &[Run]) -> String {
    let line = |seed: u64, it: &Finding| format!("BROKEN  seed {seed}, {:.3} s: {}: {}\n", it.at_s, it.rule, it.what);
    runs.iter().flat_map(|run| run.findings.iter().map(|it| line(run.seed, it))).collect()
}
