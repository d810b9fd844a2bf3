//! Vectors for other implementations: `docs/spec/vectors/network.json` and `tombstone.json`. `PORT17_BLESS=1` writes them anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod sample_bottle;
mod sample_list;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use port17_proto::bottle::{Seq, Tombstone, TombstoneError, UnverifiedTombstone};
use port17_proto::ids::NetworkId;
use port17_proto::limits::LIST_LIFE_S;
use port17_proto::network::{Definition, ListContent, ListError, Release, Roots, SignedList};
use port17_proto::params::{Params, Rate, SetName};
use sample_bottle::{NOW_MS, SEQ, array, bytes, key, map, minimal, text, uint};
use sample_list::{DAY_S, NOW_S, content, definition, envelope, fields, old_bottle, payload, sign_payload, signed, signed_by};
use serde_json::{Value, json};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares with the committed file, or writes it.
fn compare(name: &str, vectors: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/spec/vectors").join(name);
    let text = serde_json::to_string_pretty(vectors).unwrap() + "\n";
    if std::env::var_os("PORT17_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{name} differs from what the code makes; PORT17_BLESS=1 writes it anew");
}

#[test]
fn network_vectors() {
    let valid = [("the least", least(), &[41, 42][..]), ("every field", rich(), &[43, 41, 60])];
    let valid: Vec<Value> = valid.iter().map(|(name, content, roots)| valid_vector(name, content, roots)).collect();
    let invalid: Vec<Value> = invalid().iter().map(invalid_vector).collect();
    let networks: Vec<Value> = networks().iter().map(network_vector).collect();
    compare("network.json", &json!({ "now_s": NOW_S, "networks": networks, "valid": valid, "invalid": invalid }));
}

fn networks() -> Vec<Definition> {
    let one = |name, seed| Definition::new(name, Roots::new(1, vec![key(seed).public()]).unwrap()).unwrap();
    vec![definition(), one("abc", 41), one("a-1", 42)]
}

fn network_vector(network: &Definition) -> Value {
    let keys: Vec<String> = network.roots().keys().iter().map(|key| hex(&key.0)).collect();
    json!({
        "name": network.name(),
        "threshold": network.roots().threshold(),
        "roots": keys,
        "id": hex(&network.id().0),
        "id_text": network.id().to_string(),
    })
}

fn least() -> ListContent {
    ListContent { nodes: vec![], ..content() }
}

fn rich() -> ListContent {
    let release = |version: &str| Release {
        version: version.into(),
        platform: "x86_64-linux".into(),
        sha256: [3; 32],
        url: "https://example.org/port17".into(),
    };
    ListContent {
        nodes: vec![minimal(6).sign(&key(6)).unwrap(), old_bottle(7)],
        params: Params {
            name: SetName::Own,
            hops: 5,
            diversity: false,
            ping_interval: Duration::from_millis(1500),
            client_setups: Rate { per_second: 7, burst: 300 },
            ..Params::DEFAULT
        },
        roots: Some(Roots::new(1, vec![key(51).public(), key(52).public()]).unwrap()),
        releases: vec![release("0.2.0"), release("0.3.0")],
        unknown: [(10, uint(7)), (1000, array(&[text("later"), map(&[(1, vec![0xf6])])]))].into(),
        ..content()
    }
}

fn valid_vector(name: &str, content: &ListContent, roots: &[u8]) -> Value {
    let list = signed_by(content.encode().unwrap(), roots);
    let verified = list.clone().verify(&definition(), NOW_S).unwrap();
    let params: BTreeMap<String, Value> = (content.params.differences().iter())
        .map(|(parameter, text)| (parameter.code.to_string(), json!({ "name": parameter.name, "text": text })))
        .collect();
    json!({
        "name": name,
        "root_seeds": roots.iter().map(|seed| hex(&[*seed; 32])).collect::<Vec<_>>(),
        "seq": content.seq,
        "issued_s": content.issued_s,
        "expires_s": content.expires_s,
        "random": hex(&content.random),
        "nodes": content.nodes.iter().map(|node| hex(node)).collect::<Vec<_>>(),
        "params": params,
        "roots": content.roots.as_ref().map(|roots| json!({
            "threshold": roots.threshold(),
            "keys": roots.keys().iter().map(|key| hex(&key.0)).collect::<Vec<_>>(),
        })),
        "releases": content.releases.iter().map(|it| json!([it.version, it.platform, hex(&it.sha256), it.url])).collect::<Vec<_>>(),
        "unknown": content.unknown.iter().map(|(key, value)| json!({ "key": key, "value": hex(value) })).collect::<Vec<_>>(),
        "payload": hex(&list.payload),
        "envelope": hex(&list.encode()),
        "signers": verified.signers(),
        "seed": hex(&verified.seed()),
    })
}

/// (name, when it is looked at, bytes)
type Case = (&'static str, u64, Vec<u8>);

fn invalid() -> Vec<Case> {
    let mut cases: Vec<Case> = vec![];
    let now = |name, list: SignedList| (name, NOW_S, list.encode());
    let good = || signed(&least());
    cases.push(now("nobody has signed", signed_by(good().payload, &[])));
    cases.push(now("one of two has signed", signed_by(good().payload, &[42])));
    cases.push(now("one of two and strangers have signed", signed_by(good().payload, &[42, 60, 61])));
    let mut wrong = good();
    wrong.signatures[0].1[40] ^= 1;
    cases.push(now("a wrong signature does not count", wrong));
    let mut other_tag = good();
    other_tag.signatures[1].1 = key(43).sign("p17-bottle-v1", &[&other_tag.payload]);
    cases.push(now("a signature over another tag does not count", other_tag));
    let elsewhere = ListContent { network: NetworkId([8; 32]), ..least() };
    cases.push(now("another network", signed(&elsewhere)));
    cases.push(("expired", least().expires_s, good().encode()));
    cases.push(("from the future", least().issued_s - 3601, good().encode()));
    let first = sign_payload(&good().payload, &key(41));
    cases.push(("one signature twice", NOW_S, envelope(&good().payload, &[first.clone(), first])));
    let mut swapped = good();
    swapped.signatures.swap(0, 1);
    cases.push(now("keys do not ascend", swapped));
    cases.push(("cut", NOW_S, good().encode()[..100].to_vec()));
    cases.push(("a byte follows", NOW_S, [good().encode(), vec![0]].concat()));
    cases.push(("a Bottle is no list", NOW_S, minimal(6).sign(&key(6)).unwrap()));
    cases.push(("a fourth part", NOW_S, array(&[uint(3), bytes(&[0xa0]), array(&[]), uint(0)])));
    cases.extend(wrong_fields());
    cases
}

fn wrong_fields() -> Vec<Case> {
    let issued_s = content().issued_s;
    let bottle = minimal(6).sign(&key(6)).unwrap();
    let mut forged = bottle.clone();
    *forged.last_mut().unwrap() ^= 1;
    let release = array(&[text("1"), text("p"), bytes(&[0; 31]), text("u")]);
    let wrong = [
        ("seq 0", 2, uint(0)),
        ("a life of 90 days and a second", 4, uint(issued_s + LIST_LIFE_S + 1)),
        ("a life of nothing", 4, uint(issued_s)),
        ("31 random bytes", 5, bytes(&[0; 31])),
        ("a node's Bottle is forged", 6, array(&[bytes(&forged)])),
        ("a node twice", 6, array(&[bytes(&bottle), bytes(&old_bottle(6))])),
        ("hops out of range", 7, map(&[(42, uint(7))])),
        ("hops as text", 7, map(&[(42, text("4"))])),
        ("a switch as a number", 7, map(&[(50, uint(1))])),
        ("parameters out of order", 7, map(&[(50, vec![0xf4]), (42, uint(5))])),
        ("a root twice", 8, array(&[uint(1), array(&[bytes(&[1; 32]), bytes(&[1; 32])])])),
        ("more roots wanted than there are", 8, array(&[uint(2), array(&[bytes(&[1; 32])])])),
        ("no release where there should be one", 9, array(&[])),
        ("a release without a whole hash", 9, array(&[release])),
        ("a null as a network", 1, vec![0xf6]),
    ];
    let with = |field: u64, value: Vec<u8>| {
        let mut all = fields();
        all.insert(6, array(&[]));
        all.insert(field, value);
        signed_by(payload(&all), &[41, 42]).encode()
    };
    let mut cases: Vec<Case> = wrong.into_iter().map(|(name, field, value)| (name, NOW_S, with(field, value))).collect();
    let mut without = fields();
    without.remove(&5);
    cases.push(("no random bytes", NOW_S, signed_by(payload(&without), &[41, 42]).encode()));
    let mut many = fields();
    many.insert(6, array(&[]));
    many.extend((10..27).map(|key| (key, uint(0))));
    cases.push(("17 unknown fields", NOW_S, signed_by(payload(&many), &[41, 42]).encode()));
    cases
}

fn invalid_vector((name, now_s, envelope): &Case) -> Value {
    let error = SignedList::decode(envelope).and_then(|list| list.verify(&definition(), *now_s)).unwrap_err();
    json!({ "name": name, "now_s": now_s, "envelope": hex(envelope), "error": variant(&error) })
}

/// The error's name without what it holds.
fn variant(error: &ListError) -> String {
    format!("{error:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

// ---- Tombstones (spec 04, 6) ----

const HOUR_MS: u64 = 3_600_000;
const LIFE_MS: u64 = 30 * 24 * HOUR_MS;

fn tombstone_payload(fields: &[(u64, Vec<u8>)]) -> Vec<u8> {
    map(fields)
}

fn tombstone(payload: &[u8], tag: &str) -> Vec<u8> {
    array(&[uint(2), bytes(payload), bytes(&key(1).sign(tag, &[payload]))])
}

#[test]
fn tombstone_vectors() {
    let valid: Vec<Value> = [(1, SEQ), (6, 1)].map(|(seed, seq)| valid_tombstone(seed, seq)).into();
    let invalid: Vec<Value> = invalid_tombstones().iter().map(invalid_tombstone).collect();
    compare("tombstone.json", &json!({ "life_ms": LIFE_MS, "ahead_ms": HOUR_MS, "valid": valid, "invalid": invalid }));
}

fn valid_tombstone(seed: u8, seq: u64) -> Value {
    let envelope = Tombstone::sign(&key(seed), Seq(seq));
    let verified = UnverifiedTombstone::parse(&envelope).unwrap().verify(seq, LIFE_MS, HOUR_MS).unwrap();
    json!({
        "identity_seed": hex(&[seed; 32]),
        "seq": seq,
        "node_id": hex(&verified.node_id().0),
        "envelope": hex(&envelope),
    })
}

fn invalid_tombstones() -> Vec<Case> {
    const TAG: &str = "p17-tombstone-v1";
    let identity = || bytes(&key(1).public().0);
    let fields = || vec![(1, uint(1)), (2, identity()), (3, uint(SEQ))];
    let good = tombstone(&tombstone_payload(&fields()), TAG);
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let with = |at: usize, field: (u64, Vec<u8>)| {
        let mut all = fields();
        all[at] = field;
        tombstone(&tombstone_payload(&all), TAG)
    };
    let more = [fields(), vec![(4, uint(0))]].concat();
    vec![
        ("forged", NOW_MS, forged),
        ("another tag", NOW_MS, tombstone(&tombstone_payload(&fields()), "p17-bottle-v1")),
        ("too early", SEQ - HOUR_MS - 1, good.clone()),
        ("too late", SEQ + LIFE_MS, good.clone()),
        ("another suite", NOW_MS, with(0, (1, uint(2)))),
        ("31 bytes of identity", NOW_MS, with(1, (2, bytes(&[1; 31])))),
        ("another field", NOW_MS, with(2, (4, uint(SEQ)))),
        ("a fourth field", NOW_MS, tombstone(&tombstone_payload(&more), TAG)),
        ("a Bottle's envelope", NOW_MS, [&[good[0], 1][..], &good[2..]].concat()),
        ("a byte follows", NOW_MS, [&good[..], &[0]].concat()),
        ("cut", NOW_MS, good[..80].to_vec()),
    ]
}

fn invalid_tombstone((name, now_ms, envelope): &Case) -> Value {
    let verdict = UnverifiedTombstone::parse(envelope).and_then(|it| it.verify(*now_ms, LIFE_MS, HOUR_MS));
    let error = match verdict.unwrap_err() {
        TombstoneError::TooLarge | TombstoneError::Encoding(_) | TombstoneError::Shape => "Malformed",
        TombstoneError::Signature => "Signature",
        TombstoneError::Ahead => "Ahead",
        TombstoneError::Old => "Old",
    };
    json!({ "name": name, "now_ms": now_ms, "envelope": hex(envelope), "error": error })
}

#[test]
fn a_list_of_ninety_days_is_not_too_long() {
    let long = ListContent { expires_s: content().issued_s + 90 * DAY_S, ..least() };
    assert!(signed(&long).verify(&definition(), NOW_S).is_ok());
}
