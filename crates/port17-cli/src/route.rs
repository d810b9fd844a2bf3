use port17::control::{self, CircuitStatus, RouteSample, RouteWish};
use serde::Serialize;

use crate::arguments::RouteArguments;
use crate::duration::words;
use crate::failure::Failure;
use crate::output::Output;
use crate::settings::Settings;
use crate::status::counted;
use crate::table::Table;

/// Characters of a NodeID that are shown beside a PortName.
const PREFIX_CHARS: usize = 20;

#[derive(Serialize)]
struct Routes {
    route: RouteSample,
    circuits: Vec<CircuitStatus>,
}

/// Prints a route as the running client would draw it now, and the circuits that stand.
pub(crate) async fn run(arguments: RouteArguments, settings: &Settings, output: Output) -> Result<(), Failure> {
    let socket = settings.control()?;
    let to = arguments.target.clone().unwrap_or_else(|| "some HTTPS server".to_owned());
    let wish = RouteWish { hops: arguments.hops, target: arguments.target, exclude: arguments.exclude };
    let route = control::draw_route(&socket, &wish).await?;
    let circuits = control::circuits(&socket).await?.circuits;
    let routes = Routes { route, circuits };
    output.print(describe(&to, &routes), &routes)
}

fn describe(to: &str, routes: &Routes) -> String {
    let mut hops = Table::default();
    for (at, hop) in routes.route.hops.iter().enumerate() {
        let prefix: String = hop.node.node_id.chars().take(PREFIX_CHARS).collect();
        let choice = match hop.candidates {
            0 | 1 => "no other".to_owned(),
            candidates => format!("one of {candidates}"),
        };
        let name = hop.node.portname.as_deref().unwrap_or("-");
        hops.push([&(at + 1).to_string(), name, &format!("{prefix}…"), hop.role.name(), &choice]);
    }
    let drawn = format!("A route to {to}, drawn for this answer: {}\n{hops}", counted(routes.route.hops.len() as u64, "hop"));
    if routes.circuits.is_empty() {
        return format!("{drawn}\nNo circuit stands.\n");
    }
    format!("{drawn}\nCircuits that stand\n{}", standing(&routes.circuits))
}

fn standing(circuits: &[CircuitStatus]) -> Table {
    let mut table = Table::default();
    for circuit in circuits {
        let state = if circuit.open { "open" } else { "being built" };
        let (streams, age) = (counted(circuit.streams as u64, "stream"), words(circuit.age_s));
        table.push([state, &streams, &format!("{age} old"), &circuit.route.join(" → ")]);
    }
    table
}

#[cfg(test)]
mod tests {
    use port17::control::{HopRole, HopSample, NodeName};

    use super::*;

    #[test]
    fn a_line_for_each_hop_and_each_circuit() {
        let hop = |name: &str, role, candidates| HopSample {
            node: NodeName { node_id: "abcdefghijklmnopqrstuvwxyz".into(), portname: Some(name.into()) },
            role,
            candidates,
        };
        let hops = vec![hop("alice~a", HopRole::Guard, 1), hop("bob~b", HopRole::Pinned, 2), hop("carol~c", HopRole::Exit, 3)];
        let circuit = CircuitStatus { route: vec!["alice~a".into(), "carol~c".into()], streams: 1, age_s: 61, open: true };
        let mut routes = Routes { route: RouteSample { hops }, circuits: vec![circuit] };
        assert_eq!(
            describe("example.com:80", &routes),
            "A route to example.com:80, drawn for this answer: 3 hops\n\
             1  alice~a  abcdefghijklmnopqrst…  guard   no other\n\
             2  bob~b    abcdefghijklmnopqrst…  pinned  one of 2\n\
             3  carol~c  abcdefghijklmnopqrst…  exit    one of 3\n\n\
             Circuits that stand\nopen  1 stream  1 min 1 s old  alice~a → carol~c\n"
        );
        routes.circuits.clear();
        assert!(describe("x", &routes).ends_with("No circuit stands.\n"));
    }
}
