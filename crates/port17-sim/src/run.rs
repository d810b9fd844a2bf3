//! One run: a mesh forms, is used, goes through its faults, and must be well at the end.

use std::panic::{AssertUnwindSafe, catch_unwind};

use port17_proto::ids::NodeId;

use crate::host::Kind;
use crate::judge::{Finding, judge_end};
use crate::liar::Lie;
use crate::report::{Figures, Sketch, figures};
use crate::scenario::{Scenario, ScenarioError};
use crate::world::World;

const SECOND_US: u64 = 1_000_000;
const MINUTE_US: u64 = 60 * SECOND_US;
/// The first signed list.
const LIST_US: u64 = 6 * SECOND_US;
/// From here on the mesh is used, and things go wrong.
const FORMED_US: u64 = 60 * SECOND_US;
/// From here on a mesh costs what one costs that stands, or from half of the run on where that is earlier.
const SETTLED_US: u64 = 10 * MINUTE_US;

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The run in one number.
    pub trace_hash: String,
    /// How much has happened.
    pub events: u64,
    /// Broken rules, none if all is well.
    pub findings: Vec<Finding>,
    /// What was measured.
    pub figures: Figures,
    /// The map at the end.
    pub sketch: Sketch,
}

/// Runs a scenario with a seed. A panic anywhere in it is a finding.
///
/// # Errors
/// When the scenario makes no mesh.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Outcome, ScenarioError> {
    let mut world = World::new(scenario.clone(), seed)?;
    let findings = std::rc::Rc::clone(&world.findings);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        go_through(&mut world);
        (figures(&mut world), Sketch::of(&world))
    }));
    let (figures, sketch) = ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
        findings.report("panic", text.unwrap_or_default());
        (Figures::default(), Sketch::default())
    });
    let (trace_hash, events) = (world.trace.hash(), world.trace.events());
    Ok(Outcome { seed, trace_hash, events, findings: findings.take(), figures, sketch })
}

fn go_through(world: &mut World) {
    let scenario = world.scenario.clone();
    let active_us = scenario.minutes * MINUTE_US;
    let quiet_us = scenario.quiet_minutes * MINUTE_US;
    let well_us = active_us + quiet_us * 6 / 10;
    let last_us = active_us + quiet_us * 85 / 100;
    let end_us = active_us + quiet_us;
    form(world);
    if active_us > FORMED_US {
        world.plan_faults(FORMED_US, active_us);
        plan_traffic(world, FORMED_US, active_us);
    }
    for _ in 0..scenario.faults.farewells {
        let at_us = 30 * MINUTE_US + world.entropy.below(60 * MINUTE_US);
        world.script(at_us, |world| world.leave(true));
    }
    plan_audits(world, end_us);
    world.script(SETTLED_US.min(end_us / 2), |world| world.record.formed = world.counted_so_far());
    world.script(active_us, World::heal);
    world.script(well_us, move |world| {
        world.is_quiet = true;
        plan_last_streams(world, well_us, last_us);
    });
    world.run_until(last_us);
    for host in 0..world.hosts.len() {
        world.end_circuits(host);
    }
    world.run_until(end_us);
    if quiet_us > 0 {
        judge_end(world);
    }
}

/// Nodes come one after the other, then the list, then clients.
fn form(world: &mut World) {
    let scenario = world.scenario.clone();
    let percent = |of: usize, share: u64| of * usize::try_from(share.min(100)).unwrap_or(100) / 100;
    let listed = percent(scenario.nodes, scenario.listed_percent).max(1);
    for place in 0..scenario.nodes {
        let is_listed = place < listed;
        // Who is listed has an address: the others make up for it.
        let unlisted_percent = 100_u64.saturating_sub(scenario.listed_percent).max(1);
        let hidden = !is_listed && world.entropy.below(unlisted_percent) < scenario.hidden_percent;
        let exit = place < 3 || world.entropy.below(100) < scenario.exit_percent;
        let at_us = world.entropy.below(3 * SECOND_US);
        world.script(at_us, move |world| {
            let added = world.add(Kind::Node, |host| {
                host.listens = (!hidden).then(|| (host.ip, 1717).into());
                host.is_exit = exit;
            });
            if is_listed {
                world.founders.push(added);
            }
        });
    }
    world.script(LIST_US, |world| {
        let founders = world.founders.clone();
        world.publish_list(&founders);
        plan_liars(world);
    });
    for _ in 0..scenario.clients {
        let at_us = LIST_US + 2 * SECOND_US + world.entropy.below(4 * SECOND_US);
        world.script(at_us, |world| {
            world.add(Kind::Client, |_| {});
        });
    }
}

/// Liars: those whom the list does not name where that is enough, listed ones where a lie needs trust.
fn plan_liars(world: &mut World) {
    let liars = world.scenario.liars.clone();
    let mut unlisted: Vec<usize> =
        (0..world.hosts.len()).filter(|host| !world.founders.contains(host) && world.hosts[*host].kind == Kind::Node).collect();
    let mut listed: Vec<usize> = world.founders.iter().skip(3).copied().collect();
    let kinds = [
        (Lie::Forges, liars.forgers),
        (Lie::Replays, liars.replayers),
        (Lie::Floods, liars.flooders),
        (Lie::Equivocates, liars.equivocators),
        (Lie::Foretells, liars.prophets),
        (Lie::ForgesLists, liars.list_forgers),
        (Lie::Cells, liars.cell_liars),
    ];
    for (lie, count) in kinds {
        for _ in 0..count {
            let from = if lie == Lie::Cells { &mut listed } else { &mut unlisted };
            if let Some(host) = from.pop() {
                world.make_liar(host, lie);
            }
        }
    }
    for (lie, count) in [(Lie::SpeaksAsNode, liars.clients), (Lie::GoesBack, liars.key_keepers)] {
        for _ in 0..count {
            let client = world.add(Kind::Client, |_| {});
            world.make_liar(client, lie);
        }
    }
    for _ in 0..liars.impostors {
        let victim = world.founders.first().copied();
        let claimed = victim.and_then(|host| world.hosts[host].listens);
        let impostor = world.add(Kind::Node, |host| host.claims = claimed);
        world.make_liar(impostor, Lie::Impersonates);
    }
    let sybils = world.scenario.nodes as u64 * liars.sybil_percent / 100;
    let target = world.founders.get(1).map(|host| world.hosts[*host].id).filter(|_| liars.eclipse);
    for _ in 0..sybils {
        let sybil = world.add(Kind::Node, |host| {
            host.listens = Some((host.ip, 1717).into());
            host.dials_only = target;
        });
        world.make_liar(sybil, Lie::Sybil);
    }
}

fn plan_traffic(world: &mut World, from_us: u64, to_us: u64) {
    let traffic = world.scenario.traffic.clone();
    let Some(mean_us) = (60 * MINUTE_US).checked_div(traffic.streams_per_hour) else { return };
    for client in 0..world.scenario.clients {
        let mut at_us = from_us + world.entropy.below(mean_us);
        while at_us < to_us {
            let (up, down) = draw_sizes(world, traffic.largest_bytes);
            world.script(at_us, move |world| ask_client(world, client, up, down));
            at_us += 1 + world.entropy.below(2 * mean_us);
        }
    }
}

/// Most streams are small, a few are large.
fn draw_sizes(world: &mut World, largest: u64) -> (u64, u64) {
    let mut draw = || {
        let most = largest >> (2 * world.entropy.below(5));
        world.entropy.below(most + 1)
    };
    (draw() / 4, draw())
}

fn ask_client(world: &mut World, client: usize, up: u64, down: u64) {
    let hosts: Vec<usize> =
        (0..world.hosts.len()).filter(|host| world.hosts[*host].kind == Kind::Client && world.hosts[*host].is_honest).collect();
    if let Some(host) = hosts.get(client).copied().filter(|host| world.hosts[*host].node.is_some()) {
        world.ask(host, up, down);
    }
}

/// All is well: every one of these must succeed.
fn plan_last_streams(world: &mut World, from_us: u64, to_us: u64) {
    const EACH: u64 = 6;
    // The last ones need their time.
    let span_us = (to_us - from_us) / 2;
    let traffic = world.scenario.traffic.clone();
    for client in 0..world.scenario.clients {
        for _ in 0..EACH {
            let at_us = from_us + world.entropy.below(span_us.max(1));
            let (up, down) = draw_sizes(world, traffic.largest_bytes);
            world.script(at_us, move |world| ask_client(world, client, up, down));
        }
    }
    if traffic.last_download_bytes > 0 {
        world.script(from_us, move |world| ask_client(world, 0, 1000, traffic.last_download_bytes));
    }
}

fn plan_audits(world: &mut World, end_us: u64) {
    let every_us = (end_us / 20).max(30 * SECOND_US);
    let mut at_us = every_us;
    while at_us < end_us {
        world.script(at_us, |world| {
            for host in world.running() {
                world.audit(host);
            }
        });
        at_us += every_us;
    }
}

impl World {
    /// The nodes that the list names.
    pub(crate) fn listed(&self) -> Vec<NodeId> {
        self.founders.iter().map(|host| self.hosts[*host].id).collect()
    }
}
