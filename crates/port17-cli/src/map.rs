use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use port17::control::{self, MapNode, MeshMap};

use crate::arguments::MapArguments;
use crate::duration::{milliseconds, words};
use crate::failure::Failure;
use crate::output::{Output, write_out};
use crate::settings::Settings;
use crate::status::counted;
use crate::table::Table;

/// Prints the mesh as the running daemon knows it.
pub(crate) async fn run(arguments: &MapArguments, settings: &Settings, output: Output) -> Result<(), Failure> {
    let map = control::map(&settings.control()?).await?;
    if arguments.dot {
        return write_out(dot(&map).as_bytes());
    }
    output.print(describe(&map), &map)
}

/// The nodes that each node is linked to, by NodeID.
fn neighbours(map: &MeshMap) -> BTreeMap<&str, Vec<&str>> {
    let mut neighbours: BTreeMap<&str, Vec<&str>> = map.nodes.iter().map(|node| (&*node.node.node_id, Vec::new())).collect();
    for [one, other] in map.links.iter().map(|link| &link.nodes) {
        neighbours.entry(one).or_default().push(other);
        neighbours.entry(other).or_default().push(one);
    }
    neighbours
}

/// Parts of the mesh that no link leads out of.
fn components(neighbours: &BTreeMap<&str, Vec<&str>>) -> u64 {
    let mut seen = BTreeSet::new();
    let mut components = 0;
    for start in neighbours.keys() {
        let mut to_visit = vec![*start];
        components += u64::from(!seen.contains(start));
        while let Some(node) = to_visit.pop() {
            if seen.insert(node) {
                to_visit.extend(neighbours.get(node).into_iter().flatten());
            }
        }
    }
    components
}

fn describe(map: &MeshMap) -> String {
    let (neighbours, names) = (neighbours(map), names(map));
    let mut table = Table::default();
    if !map.nodes.is_empty() {
        table.push(["NODE", "TRUST", "ADDRESSES", "EXIT", "BOTTLE", "LINKS"]);
    }
    let mut nodes: Vec<&MapNode> = map.nodes.iter().collect();
    nodes.sort_by_key(|node| node.node.text());
    nodes.iter().for_each(|node| table.push(row(node, map.own.as_deref(), &neighbours, &names)));
    let exits = map.nodes.iter().filter(|node| node.exit_policy.is_some()).count() as u64;
    let totals = [
        counted(map.nodes.len() as u64, "node"),
        counted(map.links.len() as u64, "link"),
        counted(exits, "exit"),
        counted(components(&neighbours), "component"),
    ];
    format!("{table}{}\n", totals.join(", "))
}

fn names(map: &MeshMap) -> BTreeMap<&str, &str> {
    map.nodes.iter().map(|node| (&*node.node.node_id, node.node.text())).collect()
}

fn row(node: &MapNode, own: Option<&str>, neighbours: &BTreeMap<&str, Vec<&str>>, names: &BTreeMap<&str, &str>) -> [String; 6] {
    let id = &*node.node.node_id;
    let addresses = match node.addresses.len() {
        0 => "hidden".to_owned(),
        count => count.to_string(),
    };
    let mut linked: Vec<&str> = neighbours.get(id).into_iter().flatten().map(|id| names.get(id).copied().unwrap_or(id)).collect();
    linked.sort_unstable();
    let mut trust = node.trust.name().to_owned();
    trust += if node.draining { ", draining" } else { "" };
    let name = format!("{}{}", node.node.text(), if own == Some(id) { " (this)" } else { "" });
    let exit = if node.exit_policy.is_some() { "yes" } else { "no" };
    let linked = if linked.is_empty() { "none".to_owned() } else { linked.join(", ") };
    [name, trust, addresses, exit.to_owned(), format!("{} old", words(node.bottle_age_s)), linked]
}

/// The map for graphviz: exits are boxes, hidden nodes dashed, nodes that are not trusted grey.
fn dot(map: &MeshMap) -> String {
    let mut text = String::from("graph port17 {\n");
    // Writing to a String cannot fail.
    for node in &map.nodes {
        let mut style = format!("label={}", quoted(node.node.text()));
        style += if node.exit_policy.is_some() { ", shape=box" } else { "" };
        style += if node.addresses.is_empty() { ", style=dashed" } else { "" };
        style += if node.trust == control::Trust::Trusted { "" } else { ", color=grey" };
        let _ = writeln!(text, "  {} [{style}];", quoted(&node.node.node_id));
    }
    for link in &map.links {
        let [one, other] = &link.nodes;
        let rtt =
            link.rtt_us.iter().flatten().max().map_or(String::new(), |rtt| format!(" [label={}]", quoted(&milliseconds(*rtt))));
        let _ = writeln!(text, "  {} -- {}{rtt};", quoted(one), quoted(other));
    }
    text + "}\n"
}

fn quoted(text: &str) -> String {
    let escaped: String = text.chars().filter(|letter| !letter.is_control()).flat_map(escape).collect();
    format!("\"{escaped}\"")
}

fn escape(letter: char) -> impl Iterator<Item = char> {
    matches!(letter, '"' | '\\').then_some('\\').into_iter().chain([letter])
}

#[cfg(test)]
mod tests {
    use port17::control::{MapLink, NodeName, Trust};

    use super::*;

    fn node(id: &str, name: &str) -> MapNode {
        MapNode {
            node: NodeName { node_id: id.into(), portname: Some(name.into()) },
            trust: Trust::Trusted,
            addresses: vec!["192.0.2.1:1717".parse().unwrap()],
            exit_policy: None,
            group: String::new(),
            draining: false,
            bottle_age_s: 7200,
        }
    }

    fn link(one: &str, other: &str) -> MapLink {
        MapLink { nodes: [one.into(), other.into()], rtt_us: [Some(1200), None] }
    }

    fn map() -> MeshMap {
        let mut exit = node("cc", "carol~c");
        exit.exit_policy = Some("accept tcp *:443".into());
        let mut hidden = node("dd", "dave~d");
        (hidden.addresses, hidden.trust) = (Vec::new(), Trust::Unknown);
        let nodes = vec![node("bb", "bob~b"), node("aa", "alice~a"), exit, hidden];
        MeshMap { own: Some("aa".into()), nodes, links: vec![link("aa", "bb"), link("bb", "cc")] }
    }

    #[test]
    fn a_line_for_each_node_and_the_totals() {
        let text = describe(&map());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "NODE            TRUST    ADDRESSES  EXIT  BOTTLE   LINKS",
                "alice~a (this)  trusted  1          no    2 h old  bob~b",
                "bob~b           trusted  1          no    2 h old  alice~a, carol~c",
                "carol~c         trusted  1          yes   2 h old  bob~b",
                "dave~d          unknown  hidden     no    2 h old  none",
                "4 nodes, 2 links, 1 exit, 2 components",
            ]
        );
        assert_eq!(describe(&MeshMap::default()), "0 nodes, 0 links, 0 exits, 0 components\n");
    }

    #[test]
    fn graphviz_gets_every_node_and_link() {
        let text = dot(&map());
        assert!(text.starts_with("graph port17 {\n") && text.ends_with("}\n"));
        assert!(text.contains("  \"cc\" [label=\"carol~c\", shape=box];\n"), "{text}");
        assert!(text.contains("  \"dd\" [label=\"dave~d\", style=dashed, color=grey];\n"), "{text}");
        assert!(text.contains("  \"aa\" -- \"bb\" [label=\"1.2 ms\"];\n"), "{text}");
        assert_eq!(quoted("a\"\\\nb"), r#""a\"\\b""#);
    }
}
