//! Figures of meshes that are small enough to be counted by hand, and the pictures of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;

use port17_sim::report::{plot_intervals, plot_map};
use port17_sim::run::{Outcome, run};
use port17_sim::scenario::{Faults, Scenario, Traffic, Wire};

/// Four nodes that all are linked, three of them exits, one client with routes of three hops; 20 ms between any two; nothing goes wrong.
fn four_nodes() -> Scenario {
    Scenario {
        nodes: 4,
        clients: 1,
        minutes: 3,
        quiet_minutes: 0,
        listed_percent: 100,
        hidden_percent: 0,
        exit_percent: 0,
        parameter_set: "private".into(),
        wire: Wire { geography: false, latency_ms: 20, jitter_ms: 0, loss_permille: 0, kilobytes_per_second: 0 },
        traffic: Traffic { streams_per_hour: 600, largest_bytes: 4096, last_download_bytes: 0 },
        faults: Faults::default(),
        ..Scenario::default()
    }
}

fn ran(scenario: &Scenario, seed: u64) -> Outcome {
    let outcome = run(scenario, seed).unwrap();
    assert!(outcome.findings.is_empty(), "seed {seed}: {:?}", outcome.findings);
    outcome
}

fn near(one: Option<f64>, other: f64) -> bool {
    one.is_some_and(|one| (one - other).abs() < 1e-9)
}

#[test]
fn one_seed_gives_one_run_and_another_another() {
    let (one, again, other) = (ran(&four_nodes(), 5), ran(&four_nodes(), 5), ran(&four_nodes(), 6));
    assert_eq!((&one.trace_hash, one.events, &one.figures), (&again.trace_hash, again.events, &again.figures));
    assert_eq!(one.sketch, again.sketch);
    assert_ne!(one.trace_hash, other.trace_hash);
}

#[test]
fn four_nodes_and_a_client() {
    let it = ran(&four_nodes(), 1).figures;
    assert_eq!((it.nodes_running, it.clients_running), (4, 1));
    // Every two are linked.
    assert_eq!((it.links, it.diameter, it.pairs_apart), (6, 1, 0));
    assert_eq!((it.degree_p50, it.mean_distance), (Some(3.0), Some(1.0)));
    // Guard, pinned hop, exit: two of four nodes are taken, three are exits, so one or two are left; all are alike.
    assert_eq!((it.clients_asked, it.exits_eligible), (1, Some(3.0)));
    let reachable = it.exits_reachable.unwrap();
    assert!([1.0, 2.0].contains(&reachable), "{reachable}");
    assert!(near(it.exit_entropy_bits, reachable.log2()) && near(it.exit_min_entropy_bits, reachable.log2()));
    assert!(near(it.exit_most_bits, 3.0f64.log2()));
    // Each of the three others may have pinned that hop, and each had three to choose from.
    assert!(near(it.guard_most_bits, 2.0) && near(it.guard_entropy_bits, 3.0f64.log2()), "{:?}", it.guard_entropy_bits);
    assert!(near(it.guard_min_entropy_bits, 3.0f64.log2()));
}

#[test]
fn what_is_measured_in_time_and_bytes_is_what_it_can_be() {
    let it = ran(&four_nodes(), 1).figures;
    // All are one wire apart, and nothing is faster than it.
    assert!(it.bottles >= 4 && it.bottles_spreading == 0, "{it:?}");
    assert!(it.convergence_p50_s.unwrap() >= 0.02 && it.convergence_max_s.unwrap() < 60.0, "{it:?}");
    assert!(it.start_convergence_max_s >= it.start_convergence_p50_s && it.start_convergence_p50_s > Some(0.0));
    // Client, guard, pinned hop, exit and back: six wires at least.
    assert!(it.streams_done > 10 && it.streams_failed == 0, "{it:?}");
    assert!(it.stream_open_p50_ms.unwrap() >= 120.0, "{it:?}");
    // A frame is never smaller than what is in it.
    assert!(it.sent_wire_bytes_per_node_day > it.sent_message_bytes_per_node_day);
    assert!(it.received_wire_bytes_per_client_day > it.received_message_bytes_per_client_day);
    assert_eq!(it.link_changes_per_node_day, Some(0.0));
}

#[test]
fn without_clients_nothing_is_said_about_them() {
    let it = ran(&Scenario { clients: 0, ..four_nodes() }, 1).figures;
    assert_eq!((it.clients_asked, it.exit_entropy_bits, it.guard_entropy_bits), (0, None, None));
    assert_eq!((it.received_wire_bytes_per_client_day, it.stream_open_p50_ms), (None, None));
}

#[test]
fn pictures_are_well_formed() {
    let outcome = ran(&four_nodes(), 1);
    let map = plot_map(&outcome.sketch, &outcome.figures, "a < b & \"c\"");
    let tags = elements(&map);
    // Four listed nodes and the legend's; six links, eleven of the graticule's and so on, the client's and the legend's.
    assert!(tags["circle"] >= 4 + 3 && tags["line"] > 6 && tags["polygon"] == 2, "{tags:?}");
    assert!(map.contains("a &lt; b &amp; \"c\""));
    let runs = [outcome.figures, ran(&four_nodes(), 2).figures];
    let plot = plot_intervals(&runs, "two runs");
    assert!(elements(&plot)["circle"] > 2 * 10);
    elements(&plot_intervals(&[], "no run"));
}

/// Checks what this SVG uses of XML: elements that end, in order, attributes in quotation marks, no bare `&`. Gives how many of each.
fn elements(text: &str) -> BTreeMap<String, usize> {
    let (mut open, mut counts, mut rest) = (Vec::new(), BTreeMap::new(), text);
    while let Some(at) = rest.find('<') {
        let (before, tail) = rest.split_at(at);
        assert!(!before.contains('>'), "a bare > in {before:?}");
        assert!(
            before.split('&').skip(1).all(|word| ["amp;", "lt;", "gt;"].iter().any(|name| word.starts_with(name))),
            "{before:?}"
        );
        let (tag, after) = tail[1..].split_once('>').unwrap();
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap().to_owned();
        assert!(tag.matches('"').count() % 2 == 0 && tag.matches('=').count() * 2 <= tag.matches('"').count(), "{tag}");
        *counts.entry(name.clone()).or_default() += 1;
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} are not closed");
    counts
}
