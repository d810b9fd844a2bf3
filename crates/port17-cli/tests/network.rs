//! `port17 network` and `init --network` from outside: files, words and exit codes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use assert_cmd::Command;
use port17::keystore::read_root_key;
use port17::list_file;
use port17::network_file::NetworkFile;
use port17_proto::bottle::{Address, BottleContent, CircuitKey, Flags, ProtocolRange, Seq};
use port17_proto::crypto::{KemPublicKey, PUBLIC_KEY_BYTES, Secret};
use port17_proto::identity::Identity;
use port17_proto::network::{ListContent, SignedList};
use port17_proto::params::Params;
use port17_proto::wire::registry::{LaneType, Scope};

/// A directory of its own for one operator.
struct Desk {
    root: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    /// With a network named three.
    fn with_network(arguments: &[&str]) -> Self {
        let desk = Self::new();
        desk.ends(&[&["network", "new", "three"], arguments].concat(), 0);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.root.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Runs the command with this exit code; gives both outputs.
    fn ends(&self, arguments: &[&str], code: i32) -> (String, String) {
        let mut command = Command::cargo_bin("port17").unwrap();
        command.env_remove("PORT17_LOG").timeout(std::time::Duration::from_secs(60));
        command.arg("--config").arg(self.path("conf/port17.toml")).args(arguments).current_dir(self.root.path());
        let output = command.assert().code(code).get_output().clone();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ends(&[&["--json"], arguments].concat(), 0).0).unwrap()
    }

    /// Its error, which must be the failure with this exit code.
    fn fails(&self, arguments: &[&str], code: i32, contains: &str) {
        let (out, error) = self.ends(arguments, code);
        assert!(error.contains(contains) && out.is_empty(), "{arguments:?} gave {error} {out}");
    }

    fn network(&self) -> NetworkFile {
        NetworkFile::load(&self.path("three.network.toml")).unwrap()
    }

    fn list(&self) -> ListContent {
        list_file::read(&self.path("bootstrap-nodes.json")).unwrap().unwrap().read_unverified().unwrap()
    }

    fn bottle(&self, name: &str, seed: u8, made_ms: u64) {
        fs::write(self.path(name), bottle(seed, made_ms, Scope::Public)).unwrap();
    }
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn bottle(seed: u8, made_ms: u64, scope: Scope) -> Vec<u8> {
    let identity = Identity::from_seed(Secret::new([seed; 32]));
    let content = BottleContent {
        identity: identity.public(),
        seq: Seq(made_ms),
        scope,
        label: "harbour".parse().unwrap(),
        group: String::new(),
        link_key: Identity::from_seed(Secret::new([9; 32])).public(),
        link_key_expiry_s: made_ms / 1000 + 3600,
        next_link_key: None,
        circuit_key: CircuitKey { public: KemPublicKey::from_bytes([7; PUBLIC_KEY_BYTES]), not_after_s: made_ms / 1000 + 3600 },
        addresses: vec![Address::new("192.0.2.1:1717".parse().unwrap(), LaneType::TlsTcp)],
        egress: Vec::new(),
        links: Vec::new(),
        exit_policy: None,
        load: 0,
        flags: Flags(0),
        protocol: ProtocolRange::OURS,
        software: "test".into(),
        unknown: BTreeMap::new(),
    };
    content.sign(identity.key()).unwrap()
}

const SIGN: [&str; 6] = ["network", "sign", "--network", "three.network.toml", "--key", "root-1.key"];

fn sign<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SIGN[..], more].concat()
}

#[test]
fn a_network_is_made_signed_shown_and_verified() {
    let desk = Desk::new();
    let (out, _) = desk.ends(&["network", "new", "three", "--private", "--source", "https://a.example/bootstrap-nodes.json"], 0);
    for said in ["three.network.toml", "root-1.key", "What is next", "port17 network sign", "What a private network costs"] {
        assert!(out.contains(said), "{said}: {out}");
    }
    assert_eq!(desk.files(), ["root-1.key", "three.network.toml"]);
    assert_eq!(fs::metadata(desk.path("root-1.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(desk.network().params, Params::private());

    desk.bottle("a.bottle", 1, now_ms());
    desk.bottle("b.bottle", 2, now_ms());
    let (out, error) = desk.ends(&sign(&["a.bottle", "b.bottle"]), 0);
    assert!(out.contains("1 of 1 signatures") && out.contains("harbour~") && error.is_empty(), "{out} {error}");
    let (content, now_s) = (desk.list(), now_ms() / 1000);
    assert_eq!((content.nodes.len(), content.seq), (2, content.issued_s));
    assert_eq!((content.expires_s - content.issued_s, content.params), (30 * 86_400, Params::private()));
    assert!(content.issued_s.abs_diff(now_s) < 60);

    let (out, _) = desk.ends(&["network", "verify", "--network", "three.network.toml"], 0);
    assert!(out.starts_with("ok ") && out.contains("2 nodes, signed by 1 of 1 roots"), "{out}");
    let (out, _) = desk.ends(&["network", "show", "three.network.toml"], 0);
    for said in ["1 of 1 must sign", "https://a.example/", "private", "diversity = false", Params::PRIVATE_COSTS] {
        assert!(out.contains(said), "{said}: {out}");
    }
    let (out, _) = desk.ends(&["network", "show", "bootstrap-nodes.json", "--network", "three.network.toml"], 0);
    for said in ["three", "expires     in ", "192.0.2.1:1717", "valid, a root", "hops = 3"] {
        assert!(out.contains(said), "{said}: {out}");
    }
    let shown = desk.json(&["network", "show", "bootstrap-nodes.json"]);
    assert_eq!((shown["nodes"].as_array().unwrap().len(), &shown["signers"][0]["signature"]), (2, &"valid".into()));
    assert_eq!(desk.json(&["network", "show", "three.network.toml"])["parameters"]["hops"], "3");
}

#[test]
fn new_overwrites_nothing() {
    let desk = Desk::with_network(&[]);
    let before = fs::read(desk.path("root-1.key")).unwrap();
    desk.fails(&["network", "new", "three"], 1, "is there already; nothing was written");
    desk.fails(&["network", "new", "other", "--roots", "2"], 1, "root-1.key");
    assert_eq!(desk.files(), ["root-1.key", "three.network.toml"]);
    assert_eq!(fs::read(desk.path("root-1.key")).unwrap(), before);
    desk.ends(&["network", "new", "other", "--output", "elsewhere"], 0);
    assert!(desk.path("elsewhere/other.network.toml").exists());
}

#[test]
fn new_refuses_what_could_not_work() {
    let desk = Desk::new();
    fs::write(desk.path("no.pem"), "no certificate").unwrap();
    for (arguments, contains) in [
        (&["three", "--roots", "2", "--threshold", "3"][..], "only 2 roots"),
        (&["three", "--roots", "17"], "16"),
        (&["three", "--threshold", "0"], "1..=16"),
        (&["Three"], "3 to 32 characters"),
        (&["no"], "3 to 32 characters"),
        (&["../three"], "3 to 32 characters"),
        (&["three", "--source", "http://a.example/"], "--danger-http"),
        (&["three", "--source", "ftp://a.example/"], "https"),
    ] {
        desk.fails(&[&["network", "new"], arguments].concat(), 2, contains);
    }
    desk.fails(&["network", "new", "three", "--ca", "no.pem"], 1, "BEGIN CERTIFICATE");
    desk.fails(&["network", "new", "three", "--ca", "missing.pem"], 6, "missing.pem");
    assert_eq!(desk.files(), ["no.pem"]);
}

#[test]
fn a_ca_of_its_own_travels_inside_the_one_file() {
    let desk = Desk::new();
    let pem = rcgen::generate_simple_self_signed(vec!["ca".into()]).unwrap().cert.pem();
    fs::write(desk.path("ca.pem"), &pem).unwrap();
    desk.ends(&["network", "new", "three", "--ca", "ca.pem", "--source", "http://a.example/", "--danger-http"], 0);
    fs::remove_file(desk.path("ca.pem")).unwrap();
    let network = desk.network();
    assert_eq!((network.ca_pem, network.danger_http), (Some(pem), true));
    assert!(desk.ends(&["network", "show", "three.network.toml"], 0).0.contains("its own, 1"));
}

#[test]
fn roots_that_are_apart_sign_one_after_the_other() {
    let desk = Desk::with_network(&["--roots", "3", "--threshold", "2"]);
    desk.bottle("a.bottle", 1, now_ms());
    let (out, _) = desk.ends(&sign(&["a.bottle"]), 0);
    assert!(out.contains("1 of 2 signatures") && out.contains("--add bootstrap-nodes.json.incomplete"), "{out}");
    assert!(!desk.path("bootstrap-nodes.json").exists(), "no mirror serves what nobody takes");
    let half = list_file::read(&desk.path("bootstrap-nodes.json.incomplete")).unwrap().unwrap();
    desk.fails(
        &["network", "verify", "--network", "three.network.toml", "bootstrap-nodes.json.incomplete"],
        1,
        "1 of the 2 signatures",
    );

    let add = ["network", "sign", "--network", "three.network.toml", "--add", "bootstrap-nodes.json.incomplete", "--key"];
    let (out, _) = desk.ends(&[&add[..], &["root-1.key"]].concat(), 0);
    assert!(out.contains("1 of 2 signatures"), "the same root twice is one: {out}");
    let (out, _) = desk.ends(&[&add[..], &["root-3.key"]].concat(), 0);
    assert!(out.contains("2 of 2 signatures"), "{out}");
    let whole = list_file::read(&desk.path("bootstrap-nodes.json")).unwrap().unwrap();
    assert_eq!(whole.payload, half.payload, "over the same bytes");
    assert!(!desk.path("bootstrap-nodes.json.incomplete").exists());
    desk.ends(&["network", "verify", "--network", "three.network.toml"], 0);

    let all = ["--key", "root-2.key", "--key", "root-3.key", "a.bottle"];
    assert!(desk.ends(&sign(&all), 0).0.contains("3 of 2 signatures"), "all at once");
}

#[test]
fn keys_that_are_no_roots_sign_nothing() {
    let desk = Desk::with_network(&[]);
    desk.bottle("a.bottle", 1, now_ms());
    desk.ends(&["network", "new", "other", "--output", "other"], 0);
    desk.ends(&["init"], 0);
    let with = |key: &'static str| ["network", "sign", "--network", "three.network.toml", "--key", key, "a.bottle"];
    desk.fails(&with("other/root-1.key"), 1, "is no root key of network three");
    desk.fails(&with("missing.key"), 6, "missing.key");
    desk.fails(&with("conf/state/keys/identity.key"), 3, "damaged");
    fs::set_permissions(desk.path("root-1.key"), fs::Permissions::from_mode(0o644)).unwrap();
    desk.fails(&with("root-1.key"), 6, "chmod 600");
    desk.fails(&["network", "sign", "--network", "three.network.toml", "a.bottle"], 2, "--key");
    assert!(!desk.path("bootstrap-nodes.json").exists());
}

#[test]
fn sign_says_what_it_lacks() {
    let desk = Desk::with_network(&[]);
    desk.fails(&SIGN, 2, "BOTTLE");
    desk.fails(&sign(&["--days", "91", "a.bottle"]), 2, "90");
    desk.fails(&sign(&["--days", "0", "a.bottle"]), 2, "90");
    desk.fails(&sign(&["--add", "x.json", "a.bottle"]), 2, "cannot be used with");
    desk.fails(&sign(&["--add", "x.json"]), 6, "there is no such list");
    desk.fails(&sign(&["missing.bottle"]), 6, "missing.bottle");
    desk.fails(&["network", "sign", "--network", "no.toml", "--key", "root-1.key", "a.bottle"], 3, "no.toml");
}

#[test]
fn each_list_has_a_higher_seq_than_the_last() {
    let desk = Desk::with_network(&[]);
    desk.bottle("a.bottle", 1, now_ms());
    desk.ends(&sign(&["a.bottle"]), 0);
    let first = desk.list().seq;
    desk.ends(&sign(&["a.bottle"]), 0);
    let second = desk.list().seq;
    assert!(second > first);

    // One whose seq is ahead of the clock.
    let ahead = ListContent { seq: 9_000_000_000, ..desk.list() };
    let key = read_root_key(&desk.path("root-1.key")).unwrap();
    let mut list = SignedList::new(ahead.encode().unwrap());
    list.sign(&key);
    list_file::write(&desk.path("bootstrap-nodes.json"), &list).unwrap();
    desk.ends(&sign(&["--days", "7", "a.bottle"]), 0);
    assert_eq!((desk.list().seq, desk.list().expires_s - desk.list().issued_s), (9_000_000_001, 7 * 86_400));
}

#[test]
fn a_list_that_is_not_ours_is_never_replaced() {
    let desk = Desk::with_network(&[]);
    desk.bottle("a.bottle", 1, now_ms());
    desk.ends(&sign(&["a.bottle"]), 0);
    let path = desk.path("bootstrap-nodes.json");
    let good = fs::read(&path).unwrap();
    let unsigned = SignedList::new(desk.list().encode().unwrap());
    let foreign = {
        desk.ends(&["network", "new", "other", "--output", "other"], 0);
        let id = NetworkFile::load(&desk.path("other/other.network.toml")).unwrap().definition.id();
        SignedList::new(ListContent { network: id, ..desk.list() }.encode().unwrap())
    };
    for (bytes, contains) in [
        (good[..good.len() / 2].to_vec(), "only a part"),
        (b"mine".to_vec(), "not a signed list in JSON"),
        (list_file::to_json(&unsigned).into_bytes(), "no root of this network has signed it"),
        (list_file::to_json(&foreign).into_bytes(), "another network"),
    ] {
        fs::write(&path, &bytes).unwrap();
        desk.fails(&sign(&["a.bottle"]), 1, contains);
        assert_eq!(fs::read(&path).unwrap(), bytes);
        desk.fails(&sign(&["--add", "bootstrap-nodes.json"]), 1, contains);
    }
}

#[test]
fn the_newest_bottle_of_each_node_is_listed() {
    let desk = Desk::with_network(&[]);
    let now = now_ms();
    desk.bottle("old.bottle", 1, now - 5000);
    desk.bottle("new.bottle", 1, now);
    let newest = fs::read(desk.path("new.bottle")).unwrap();
    for order in [["old.bottle", "new.bottle"], ["new.bottle", "old.bottle"]] {
        desk.ends(&sign(&order), 0);
        assert_eq!(desk.list().nodes, std::slice::from_ref(&newest));
    }
}

#[test]
fn expired_bottles_are_listed_with_a_warning_and_bad_ones_refused() {
    let desk = Desk::with_network(&[]);
    desk.bottle("expired.bottle", 1, now_ms() - 8 * 86_400_000);
    let (_, error) = desk.ends(&sign(&["expired.bottle"]), 0);
    assert!(error.contains("expired.bottle: the Bottle has expired"), "{error}");
    assert_eq!(desk.list().nodes.len(), 1);
    desk.ends(&["network", "verify", "--network", "three.network.toml"], 0);

    let good = bottle(1, now_ms(), Scope::Public);
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    fs::write(desk.path("forged.bottle"), forged).unwrap();
    fs::write(desk.path("cut.bottle"), &good[..good.len() / 2]).unwrap();
    fs::write(desk.path("local.bottle"), bottle(1, now_ms(), Scope::Local)).unwrap();
    let before = desk.list().seq;
    for (file, contains) in [("forged", "forged.bottle: "), ("cut", "cut.bottle: "), ("local", "local Bottle")] {
        desk.fails(&sign(&[&format!("{file}.bottle")]), 1, contains);
    }
    assert_eq!(desk.list().seq, before);
}

#[test]
fn verify_says_why_a_list_is_not_taken() {
    let desk = Desk::with_network(&[]);
    desk.bottle("a.bottle", 1, now_ms());
    desk.ends(&sign(&["a.bottle"]), 0);
    let path = desk.path("bootstrap-nodes.json");
    let (good, content) = (fs::read(&path).unwrap(), desk.list());
    let key = read_root_key(&desk.path("root-1.key")).unwrap();
    let dated = |issued_s: u64| {
        let mut list =
            SignedList::new(ListContent { issued_s, expires_s: issued_s + 86_400, ..content.clone() }.encode().unwrap());
        list.sign(&key);
        list_file::to_json(&list).into_bytes()
    };
    let verify = ["network", "verify", "--network", "three.network.toml"];
    for (bytes, contains) in [
        (dated(content.issued_s - 10 * 86_400), "expired"),
        (dated(content.issued_s + 10 * 86_400), "in the future"),
        (good[..good.len() - 10].to_vec(), "only a part"),
        (vec![b'x'; 2 << 20], "longer than"),
        (list_file::to_json(&SignedList::new(content.encode().unwrap())).into_bytes(), "0 of the 1 signatures"),
    ] {
        fs::write(&path, bytes).unwrap();
        desk.fails(&verify, 1, contains);
    }
    fs::write(&path, good).unwrap();
    desk.ends(&["network", "new", "other", "--output", "other"], 0);
    desk.fails(&["network", "verify", "--network", "other/other.network.toml"], 1, "for another network");
    let (out, _) = desk.ends(&["network", "show", "bootstrap-nodes.json", "--network", "other/other.network.toml"], 0);
    assert!(out.contains("no root of this network"), "{out}");
    fs::remove_file(&path).unwrap();
    desk.fails(&verify, 6, "no such list");
}

#[test]
fn init_joins_by_one_file_and_twice_changes_nothing() {
    let desk = Desk::with_network(&["--source", "https://a.example/list.json"]);
    let made = desk.json(&["init", "--network", "three.network.toml"]);
    let copy = desk.path("conf/three.network.toml");
    assert_eq!(made["network"].as_str().unwrap(), copy.display().to_string());
    assert_eq!(fs::read(&copy).unwrap(), fs::read(desk.path("three.network.toml")).unwrap(), "word for word");
    let config = fs::read_to_string(desk.path("conf/port17.toml")).unwrap();
    assert!(config.contains("\nnetwork = \"three.network.toml\"\n") && config.contains("\n# neighbours = []\n"), "{config}");
    assert!(!config.contains("parameters"));

    desk.ends(&["init", "--network", "three.network.toml"], 0);
    desk.ends(&["init"], 0);
    assert_eq!(fs::read_to_string(desk.path("conf/port17.toml")).unwrap(), config);
    let (out, _) = desk.ends(&["check"], 0);
    assert!(out.contains("network three, 1 source of"), "{out}");
}

#[test]
fn sources_that_are_files_are_found_from_the_new_place() {
    let desk = Desk::with_network(&[]);
    let text = fs::read_to_string(desk.path("three.network.toml")).unwrap();
    let list = desk.path("bootstrap-nodes.json").display().to_string();
    fs::write(desk.path("three.network.toml"), text.replace(&format!("file:{list}"), "bootstrap-nodes.json")).unwrap();
    assert!(!fs::read_to_string(desk.path("three.network.toml")).unwrap().contains(&list));
    for _ in 0..2 {
        desk.ends(&["init", "--network", "three.network.toml"], 0);
    }
    assert_eq!(NetworkFile::load(&desk.path("conf/three.network.toml")).unwrap(), desk.network());
}

#[test]
fn init_refuses_a_broken_network_and_makes_nothing() {
    let desk = Desk::new();
    fs::write(desk.path("broken.network.toml"), "name = \"three\"\nroot = []\n").unwrap();
    desk.fails(&["init", "--network", "broken.network.toml"], 3, "broken.network.toml:2: root: unknown field");
    desk.fails(&["init", "--network", "missing.network.toml"], 3, "missing.network.toml");
    assert!(!desk.path("conf").exists());
}

#[test]
fn init_leaves_what_is_there_to_its_owner() {
    let desk = Desk::with_network(&[]);
    let three = Path::new("three.network.toml");
    desk.ends(&["init"], 0);
    let config = desk.path("conf/port17.toml");
    let before = fs::read(&config).unwrap();
    desk.fails(&["init", "--network", "three.network.toml"], 3, "add: network = \"three.network.toml\"");
    assert_eq!(fs::read(&config).unwrap(), before);
    assert!(!desk.path("conf").join(three).exists());

    fs::remove_file(&config).unwrap();
    desk.ends(&["init", "--network", "three.network.toml"], 0);
    desk.ends(&["network", "new", "other", "--output", "other"], 0);
    desk.fails(&["init", "--network", "other/other.network.toml"], 3, "a node is in one network");
    desk.ends(&["network", "new", "three", "--output", "again"], 0);
    desk.fails(&["init", "--network", "again/three.network.toml"], 3, "is another network's");
    let text = fs::read_to_string(desk.path("three.network.toml")).unwrap() + "# a change\n";
    fs::write(desk.path("three.network.toml"), text).unwrap();
    desk.fails(&["init", "--network", "three.network.toml"], 3, "says something else");
}

#[test]
fn the_public_network_says_that_it_has_no_list_yet() {
    let desk = Desk::new();
    let (_, error) = desk.ends(&["init", "--network", "public"], 0);
    assert!(error.contains("has no signed list yet"), "{error}");
    let network = NetworkFile::load(&desk.path("conf/public.network.toml")).unwrap();
    assert_eq!(network.sources[0].to_string(), "https://bootstrap.safing.io/bootstrap-nodes.json");
    assert!(desk.ends(&["network", "show", "public"], 0).0.contains("bootstrap.safing.io"));
    let (out, _) = desk.ends(&["check"], 4);
    assert!(out.contains("bad  network"), "{out}");
}
