//! Files that people write: whatever is allowed reads back the same once it is written, and a key that is not known is named.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use port17::config::{Config, Places};
use port17::network_file::{NetworkFile, key_to_text};
use port17_proto::crypto::{Entropy, SigningKey};
use port17_proto::ids::NodeId;
use port17_proto::params::Params;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const AT: &str = "/etc/port17/port17.toml";

fn places() -> Places {
    Places::of_the_system()
}

/// A key and its value as TOML.
type Line = (&'static str, String);

fn quoted(text: impl ToString) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    format!("[{}]", items.into_iter().map(quoted).collect::<Vec<_>>().join(", "))
}

/// Some of these lines, in any order.
fn some(lines: Vec<BoxedStrategy<Line>>) -> impl Strategy<Value = Vec<Line>> {
    let lines: Vec<_> = lines.into_iter().map(of).collect();
    lines.prop_map(|lines| lines.into_iter().flatten().collect::<Vec<_>>()).prop_shuffle()
}

fn line<T: 'static>(
    key: &'static str,
    value: impl Strategy<Value = T> + 'static,
    write: impl Fn(T) -> String + 'static,
) -> BoxedStrategy<Line> {
    value.prop_map(move |value| (key, write(value))).boxed()
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z. \"\\\\é/-]{1,12}", "/{1,3}[a-z.é/ #]{0,12}"]
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    (ip(), 1..=u16::MAX).prop_map(SocketAddr::from).prop_filter("one that can be dialled", |at| !at.ip().is_unspecified())
}

fn node() -> impl Strategy<Value = String> {
    any::<[u8; 32]>().prop_map(|id| NodeId(id).to_base32())
}

fn node_table() -> impl Strategy<Value = Vec<Line>> {
    some(vec![
        line("listen", vec(socket(), 0..8), list),
        line("addresses", vec(socket(), 0..8), list),
        line("accept_clients", any::<bool>(), |value| value.to_string()),
    ])
}

fn exit_table() -> impl Strategy<Value = Option<Vec<Line>>> {
    let rules = select(vec!["reject * private:*", "accept tcp *:80,443", "accept * [2001:db8::]/32:1-9"]);
    let hosts = btree_map("[a-z]{1,9}\\.[a-z]{1,5}", ip(), 0..4).prop_map(|hosts| {
        let hosts: Vec<String> = hosts.iter().map(|(host, ip)| format!("{} = {}", quoted(host), quoted(ip))).collect();
        format!("{{ {} }}", hosts.join(", "))
    });
    let more = some(vec![
        line("danger_exit_private", vec(select(vec!["10.0.0.0/8:*", "127.0.0.1:80"]), 0..3), list),
        line("hosts", hosts, |hosts| hosts),
    ]);
    of((vec(rules, 1..4), more).prop_map(|(rules, more)| [vec![("policy", list(rules))], more].concat()))
}

fn client_table() -> impl Strategy<Value = Vec<Line>> {
    let proxy = prop_oneof![
        any::<u16>().prop_map(|port| vec![("proxy", quoted(format!("127.0.0.1:{port}")))]),
        socket().prop_map(|at| vec![("proxy", quoted(at)), ("danger_proxy_listen", "true".to_owned())]),
        Just(vec![]),
    ];
    let hops = prop_oneof![
        (3..=6u8).prop_map(|hops| vec![("hops", hops.to_string())]),
        (1..=6u8).prop_flat_map(|least| (least..=6)
            .prop_map(move |hops| { vec![("danger_min_hops", least.to_string()), ("hops", hops.to_string())] })),
        Just(vec![]),
    ];
    (proxy, hops, of(node())).prop_map(|(proxy, hops, guard)| {
        let guard = guard.map(|guard| ("guard", quoted(guard)));
        [proxy, hops, guard.into_iter().collect()].concat()
    })
}

fn top() -> impl Strategy<Value = Vec<Line>> {
    let network_or_set = prop_oneof![
        path().prop_map(|path| ("network", quoted(path))),
        select(vec!["default", "demo"]).prop_map(|set| ("parameters", quoted(set))),
    ];
    some(vec![
        line("label", "[a-z][a-z0-9-]{2,23}", quoted),
        line("group", "[ -~]{0,32}", quoted),
        network_or_set.boxed(),
        line("bottles", path(), quoted),
        line("neighbours", vec(node(), 0..4), list),
        line("state", path(), quoted),
        line("control", path(), quoted),
    ])
}

/// A configuration: the lines in front of all tables, and the tables.
fn configuration() -> impl Strategy<Value = Vec<(&'static str, Vec<Line>)>> {
    let identity = some(vec![line("dir", path(), quoted)]);
    (top(), identity, node_table(), exit_table(), client_table()).prop_map(|(top, identity, node, exit, client)| {
        let mut tables = vec![("", top), ("identity", identity), ("node", node)];
        tables.extend(exit.map(|exit| ("exit", exit)));
        tables.push(("client", client));
        tables
    })
}

fn written(tables: &[(&str, Vec<Line>)]) -> String {
    let mut text = String::new();
    for (table, lines) in tables {
        if !table.is_empty() {
            writeln!(text, "[{table}]").unwrap();
        }
        lines.iter().for_each(|(key, value)| writeln!(text, "{key} = {value}").unwrap());
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_configuration_reads_back_the_same(tables in configuration()) {
        let text = written(&tables);
        let config = Config::parse(&text, Path::new(AT), &places()).map_err(|error| TestCaseError::fail(format!("{text}{error}")))?;
        let again = Config::parse(&config.to_toml(), Path::new("/elsewhere/other.toml"), &places());
        prop_assert_eq!(again.map_err(|error| error.to_string()), Ok(config), "{}", text);
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_line_and_key(mut tables in configuration(), table in any::<Index>(), at in any::<Index>(), letters in "[a-z]{1,8}") {
        let key: &'static str = Box::leak(format!("x_{letters}").into_boxed_str());
        let (name, lines) = &mut tables[table.index(4)];
        let path = if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
        let at = at.index(lines.len() + 1);
        lines.insert(at, (key, "1".to_owned()));
        let text = written(&tables);
        let line = 1 + text.lines().position(|line| line.starts_with(key)).unwrap();
        let error = Config::parse(&text, Path::new(AT), &places()).unwrap_err().to_string();
        prop_assert!(error.starts_with(&format!("{AT}:{line}: {path}: unknown field")), "{}: {}", text, error);
    }
}

// ---- Network files ----

fn source() -> impl Strategy<Value = String> {
    prop_oneof![
        "https://[a-z]{1,9}(:[1-9][0-9]{0,3})?(/[a-zA-Z0-9.%-]{0,9}){0,3}(\\?[a-z=&]{1,9})?",
        "http://\\[::1\\]/[a-z]{0,9}",
        path(),
        path().prop_map(|path| format!("file:{path}")),
        path().prop_map(|path| format!("file://{path}")),
    ]
}

fn parameters() -> impl Strategy<Value = Vec<Line>> {
    let sets = select(vec!["default", "private", "demo"]);
    some(vec![
        line("set", sets, quoted),
        line("hops", 3..=6u8, |hops| hops.to_string()),
        line("ping_interval", 5..30u32, |seconds| quoted(format!("{seconds} s"))),
        line("diversity", any::<bool>(), |value| value.to_string()),
    ])
}

fn network() -> impl Strategy<Value = String> {
    let roots = btree_set(0..50u64, 1..5);
    ("[a-z][a-z0-9-]{2,12}", roots, any::<Index>(), vec(source(), 0..5), parameters()).prop_map(
        |(name, roots, threshold, sources, parameters)| {
            let keys = roots.iter().map(|seed| key_to_text(&SigningKey::generate(&mut Entropy::from_number(*seed)).public()));
            let top = vec![
                ("name", quoted(name)),
                ("threshold", (1 + threshold.index(roots.len())).to_string()),
                ("roots", list(keys)),
                ("sources", list(sources)),
                ("danger_http", "true".to_owned()),
            ];
            written(&[("", top), ("parameters", parameters)])
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_network_file_reads_back_the_same(text in network()) {
        // Two names of one source are refused, and some paths look like addresses.
        let Ok(file) = NetworkFile::parse(&text, Path::new("/etc/port17/a.network.toml")) else { return Ok(()) };
        let again = NetworkFile::parse(&file.to_toml(), Path::new("/elsewhere/b.network.toml"));
        prop_assert_eq!(again.map_err(|error| error.to_string()), Ok(file), "{}", text);
    }

    #[test]
    fn an_unknown_key_of_a_network_file_is_refused_with_file_line_and_key(text in network(), at in 0..5usize, letters in "[a-z]{1,8}") {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.insert(at, format!("x_{letters} = 1"));
        let error = NetworkFile::parse(&lines.join("\n"), Path::new("/etc/a.network.toml")).unwrap_err().to_string();
        prop_assert!(error.starts_with(&format!("/etc/a.network.toml:{}: x_{letters}: unknown field", at + 1)), "{}", error);
        // Parameters have names of their own.
        let more = format!("{text}x_{letters} = 1");
        let line = more.lines().count();
        let error = NetworkFile::parse(&more, Path::new("/etc/a.network.toml")).map(|_| ());
        if NetworkFile::parse(&text, Path::new("/etc/a.network.toml")).is_ok() {
            let error = error.unwrap_err().to_string();
            prop_assert!(error.starts_with(&format!("/etc/a.network.toml:{line}: parameters.x_{letters}: ")), "{}", error);
        }
    }
}

#[test]
fn the_sets_read_back_by_their_names() {
    for (set, params) in [("default", Params::DEFAULT), ("private", Params::private()), ("demo", Params::demo())] {
        let key = key_to_text(&SigningKey::generate(&mut Entropy::from_number(1)).public());
        let text = format!("name = \"abc\"\nthreshold = 1\nroots = [\"{key}\"]\nsources = []\n[parameters]\nset = \"{set}\"\n");
        let file = NetworkFile::parse(&text, Path::new("/a.network.toml")).unwrap();
        assert_eq!(file.params, params);
        assert_eq!(NetworkFile::parse(&file.to_toml(), Path::new("/b.network.toml")).unwrap(), file);
    }
}

#[test]
fn a_parameter_at_its_default_and_a_path_with_two_slashes_read_back() {
    let key = key_to_text(&SigningKey::generate(&mut Entropy::from_number(1)).public());
    let text =
        format!("name = \"abc\"\nthreshold = 1\nroots = [\"{key}\"]\nsources = [\"file:////x\"]\n[parameters]\nhops = 4\n");
    let file = NetworkFile::parse(&text, Path::new("/a.network.toml")).unwrap();
    assert_eq!(file.params, Params::DEFAULT, "nothing was changed");
    assert_eq!(file.sources[0].to_string(), "file:/x");
    assert_eq!(NetworkFile::parse(&file.to_toml(), Path::new("/b.network.toml")).unwrap(), file);
}
