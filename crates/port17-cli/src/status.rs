use std::fmt::Write as _;

use port17::control::{self, LinkStatus, ListStatus, NetworkStatus, Role, SourceStatus, Status};

use crate::bottle::now_ms;
use crate::duration::{milliseconds, words};
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::settings::Settings;
use crate::table::Table;

/// Prints what the running daemon says of itself; exit code 4 while it is not connected.
pub(crate) async fn run(settings: &Settings, output: Output) -> Result<(), Failure> {
    let status = control::status(&settings.control()?).await?;
    output.print(describe(&status, now_ms() / 1000), &status)?;
    if status.ready { Ok(()) } else { Err(Failure::silent(Kind::NoNetwork)) }
}

fn describe(status: &Status, now_s: u64) -> String {
    let mut text = format!("{}\n\n", summary(status));
    let mut facts = Table::default();
    if let Some(socks) = status.socks {
        facts.push(["proxy", &format!("{socks} (SOCKS5, SOCKS4a, HTTP)")]);
    }
    if let Some(node_id) = &status.node_id {
        facts.push(["NodeID", node_id]);
    }
    facts.push(["version", &format!("{}, up {}", status.version, words(status.uptime_s))]);
    facts.push(["parameters", &status.parameters]);
    if let Some(network) = &status.network {
        facts.push(["list", &network.list.as_ref().map_or("none yet".to_owned(), |list| list_line(list, now_s))]);
        network.sources.iter().for_each(|source| facts.push(["source", &source_line(source)]));
    }
    facts.push([
        "map",
        &format!(
            "{}; {} known, {} of them trusted",
            counted(status.map_nodes, "node"),
            counted(status.known, "other"),
            status.trusted
        ),
    ]);
    if let Some(bottle) = &status.bottle {
        let withdrawn = if bottle.withdrawn > 0 {
            let are = if bottle.withdrawn == 1 { "is" } else { "are" };
            format!(", without {} that {are} down", counted(bottle.withdrawn, "link"))
        } else {
            String::new()
        };
        facts.push(["Bottle", &format!("seq {}, published {} ago{withdrawn}", bottle.seq, words(bottle.age_s))]);
    }
    if let Some(store) = &status.store {
        let state = store.problem.as_ref().map_or_else(
            || format!("{}: in order", store.path),
            |problem| format!("{problem}; {} to write", counted(store.waiting, "record")),
        );
        facts.push(["store", &state]);
    }
    if status.role == Role::Node {
        facts.push(["clients", &status.clients.to_string()]);
    }
    facts.push(["circuits", &status.circuits.to_string()]);
    // Writing to a String cannot fail.
    let _ = write!(text, "{facts}");
    if !status.links.is_empty() {
        let _ = write!(text, "\n{}", links(&status.links));
    }
    let mut counts = Table::default();
    status
        .counts
        .iter()
        .filter(|(_, times)| **times > 0)
        .for_each(|(what, times)| counts.push([what.clone(), times.to_string()]));
    let counts = counts.to_string();
    if !counts.is_empty() {
        let _ = write!(text, "\nrefused or gone wrong since its start\n{counts}");
    }
    text
}

/// One sentence for people.
pub(crate) fn summary(status: &Status) -> String {
    let who = match (status.role, &status.portname, &status.label) {
        (Role::Node, Some(portname), _) => format!("node {portname}"),
        (Role::Node, None, _) => "node".to_owned(),
        (Role::Client, _, Some(label)) => format!("client \"{label}\""),
        (Role::Client, _, None) => "client".to_owned(),
    };
    let who = status.network.as_ref().map_or(who.clone(), |network| format!("{who} of network \"{}\"", network.name));
    if !status.ready {
        return format!("{who} is waiting for {}", missing(status).unwrap_or_else(|| "its network".to_owned()));
    }
    let link = match (&status.guard, status.role) {
        (Some(guard), _) => format!("guard {}", guard.text()),
        (None, Role::Client) => "no guard".to_owned(),
        (None, Role::Node) => {
            let (up, wanted) = (
                status.links.iter().filter(|link| link.up).count() as u64,
                status.wanted_links.unwrap_or(status.links.len() as u64),
            );
            format!("{up} of {}", counted(wanted, "link"))
        }
    };
    let circuits = match status.role {
        Role::Client => status.standing.iter().filter(|circuit| circuit.open).count() as u64,
        Role::Node => status.circuits,
    };
    let rest = missing(status).map_or(String::new(), |missing| format!("; still waits for {missing}"));
    format!("{who}: ready; {link}, map of {}, {}{rest}", counted(status.map_nodes, "node"), counted(circuits, "circuit"))
}

/// What is missing; for a first list, what came of asking for it.
fn missing(status: &Status) -> Option<String> {
    let without_list = |network: &&NetworkStatus| network.list.is_none() && !network.sources.is_empty();
    let Some(network) = status.network.as_ref().filter(without_list) else { return status.waiting_for.clone() };
    let first = network.sources.first().map(source_line).unwrap_or_default();
    let more = match network.sources.len() {
        0 | 1 => String::new(),
        sources => format!(", and {}", counted(sources as u64 - 1, "more source")),
    };
    Some(format!("a signed list: {first}{more}"))
}

fn source_line(source: &SourceStatus) -> String {
    let result = source.result.as_deref().unwrap_or("not asked yet");
    let times = [
        source.tried_s_ago.map(|ago| format!("tried {} ago", words(ago))),
        source
            .again_in_s
            .map(|later| format!("{} in {}", if source.tried_s_ago.is_some() { "again" } else { "first" }, words(later))),
    ];
    let times: Vec<String> = times.into_iter().flatten().collect();
    let times = if times.is_empty() { String::new() } else { format!(" ({})", times.join(", ")) };
    format!("{}: {result}{times}", source.source)
}

fn list_line(list: &ListStatus, now_s: u64) -> String {
    let life = match list.expires_s.checked_sub(now_s) {
        Some(left) => format!("expires in {}", words(left)),
        None => format!("EXPIRED {} ago", words(now_s.saturating_sub(list.expires_s))),
    };
    let age = words(now_s.saturating_sub(list.issued_s));
    let missing = if list.names_this == Some(false) { "; this node is not in it: it is nobody's guard or exit" } else { "" };
    format!("seq {}, {}, signed {age} ago, {life}{missing}", list.seq, counted(list.nodes, "node"))
}

fn links(links: &[LinkStatus]) -> Table {
    let mut table = Table::default();
    table.push(["LINK", "STATE", "LANES", "ROUND TRIP", "PUBLISHED", ""]);
    for link in links {
        let state = format!("{} {}", if link.up { "up" } else { "down" }, words(link.since_s));
        let published = match link.published.map(|published| (published.here, published.there)) {
            None => "-",
            Some((true, true)) => "both",
            Some((true, false)) => "here only",
            Some((false, true)) => "there only",
            Some((false, false)) => "no",
        };
        let again = link.redial_in_s.map(|later| format!("again in {}", words(later)));
        let why: Vec<String> = link.waiting_for.iter().cloned().chain(again).collect();
        let rtt = link.rtt_us.map_or("-".to_owned(), milliseconds);
        table.push([link.node.text(), &state, &link.lanes.to_string(), &rtt, published, &why.join("; ")]);
    }
    table
}

/// `1 node`, `2 nodes`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use port17::control::{BottleStatus, CircuitStatus, NodeName, Published, StoreStatus};

    use super::*;

    fn network(list: Option<ListStatus>, sources: Vec<SourceStatus>) -> Option<NetworkStatus> {
        Some(NetworkStatus { name: "three".into(), network_id: "x".into(), list, sources })
    }

    fn source() -> SourceStatus {
        SourceStatus {
            source: "https://a.example/l.json".into(),
            ok: false,
            result: Some("answers 404".into()),
            tried_s_ago: Some(3),
            again_in_s: Some(4),
        }
    }

    fn ready(role: Role) -> Status {
        Status { ready: true, waiting_for: None, map_nodes: 3, known: 2, trusted: 1, ..Status::of(role) }
    }

    #[test]
    fn a_ready_client_says_its_guard() {
        let circuit = |open| CircuitStatus { route: vec!["a".into()], streams: 0, age_s: 0, open };
        let status = Status {
            label: Some("home".into()),
            network: network(None, Vec::new()),
            guard: Some(NodeName { node_id: "aa".into(), portname: Some("alice~abcdefghijklm".into()) }),
            standing: vec![circuit(true), circuit(true), circuit(false)],
            ..ready(Role::Client)
        };
        let wanted = "client \"home\" of network \"three\": ready; guard alice~abcdefghijklm, map of 3 nodes, 2 circuits";
        assert_eq!(summary(&status), wanted);
    }

    #[test]
    fn a_node_without_a_list_says_what_came_of_asking() {
        let mut status = Status { portname: Some("bob~abcdefghijklm".into()), ..Status::of(Role::Node) };
        assert_eq!(summary(&status), "node bob~abcdefghijklm is waiting for its start");
        status.network = network(None, vec![source(), source(), source()]);
        let wanted = "node bob~abcdefghijklm of network \"three\" is waiting for a signed list: https://a.example/l.json: answers 404 \
                      (tried 3 s ago, again in 4 s), and 2 more sources";
        assert_eq!(summary(&status), wanted);
        status.network = network(None, vec![SourceStatus { result: None, tried_s_ago: None, again_in_s: None, ..source() }]);
        assert!(summary(&status).ends_with("a signed list: https://a.example/l.json: not asked yet"), "{}", summary(&status));
        let list = ListStatus { seq: 1, issued_s: 0, expires_s: 0, nodes: 0, names_this: None };
        status.network = network(Some(list), vec![source()]);
        assert!(summary(&status).ends_with("is waiting for its start"), "with a list its sources are no news");
    }

    #[test]
    fn a_ready_node_says_what_is_still_missing() {
        let link = |up| LinkStatus {
            node: NodeName { node_id: "aa".into(), portname: None },
            up,
            since_s: 1,
            lanes: 2,
            rtt_us: None,
            dialled: true,
            published: None,
            waiting_for: None,
            redial_in_s: None,
        };
        let mut status = Status { links: vec![link(true), link(false)], waiting_for: Some("a link".into()), ..ready(Role::Node) };
        assert_eq!(summary(&status), "node: ready; 1 of 2 links, map of 3 nodes, 0 circuits; still waits for a link");
        status.wanted_links = Some(8);
        assert!(summary(&status).contains("1 of 8 links"));
    }

    #[test]
    fn the_table_has_links_list_bottle_store_and_counts() {
        let list = ListStatus { seq: 7, issued_s: 1_000_000, expires_s: 2_000_000, nodes: 3, names_this: Some(false) };
        let link = LinkStatus {
            node: NodeName { node_id: "aa".into(), portname: Some("alice~abcdefghijklm".into()) },
            up: false,
            since_s: 70,
            lanes: 0,
            rtt_us: Some(1234),
            dialled: true,
            published: Some(Published { here: true, there: false }),
            waiting_for: Some("refused".into()),
            redial_in_s: Some(5),
        };
        let mut status = Status {
            network: network(Some(list), Vec::new()),
            links: vec![link],
            bottle: Some(BottleStatus { seq: 9, age_s: 3600, withdrawn: 1 }),
            store: Some(StoreStatus { path: "/s".into(), waiting: 2, problem: Some("/s: no space left".into()) }),
            counts: [("setup-late".to_owned(), 3), ("never".to_owned(), 0)].into(),
            ..ready(Role::Node)
        };
        let text = describe(&status, 1_086_400);
        for line in [
            "list        seq 7, 3 nodes, signed 1 d ago, expires in 10 d 13 h; this node is not in it: it is nobody's guard or exit\n",
            "map         3 nodes; 2 others known, 1 of them trusted\n",
            "Bottle      seq 9, published 1 h ago, without 1 link that is down\n",
            "store       /s: no space left; 2 records to write\n",
            "alice~abcdefghijklm  down 1 min 10 s  0      1.2 ms      here only  refused; again in 5 s\n",
            "\nsetup-late  3\n",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        assert!(!text.contains("never"));
        status.counts.clear();
        assert!(!describe(&status, 0).contains("gone wrong"));
        assert!(describe(&status, 2_000_060).contains("EXPIRED 1 min ago"));
    }
}
