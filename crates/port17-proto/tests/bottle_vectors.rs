//! Vectors for other implementations: `docs/spec/vectors/identity.json` and `bottle.json`. `PORT17_BLESS=1` writes them anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod sample_bottle;

use std::path::Path;

use port17_proto::bottle::{
    BottleContent, BottleError, BottleRules, CborError, UnverifiedBottle, capacity_code, capacity_mbit_s, rtt_code, rtt_us,
};
use port17_proto::crypto::Secret;
use port17_proto::identity::Identity;
use port17_proto::limits::BOTTLE_BYTES;
use port17_proto::policy::ExitPolicy;
use port17_proto::portname::PortName;
use port17_proto::wire::registry::BottleKey;
use sample_bottle::{NOW_MS, SEQ, address, array, bytes, envelope, full, full_fields, key, map, minimal, signature, text, uint};
use serde_json::{Value, json};

const HOUR_MS: u64 = 3_600_000;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares with the committed file, or writes it.
fn compare(name: &str, vectors: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/spec/vectors").join(name);
    let text = serde_json::to_string_pretty(vectors).unwrap() + "\n";
    if std::env::var_os("PORT17_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{name} differs from what the code makes; PORT17_BLESS=1 writes it anew");
}

#[test]
fn identity_vectors() {
    let labels = [(0x01, "sample-node"), (0x02, "abc"), (0x7f, "a--------------------0-9"), (0xff, "node-a2b3")];
    let vectors: Vec<Value> = labels.iter().map(|(seed, label)| identity_vector(*seed, label)).collect();
    compare("identity.json", &json!({ "suite": 1, "identities": vectors }));
}

fn identity_vector(seed: u8, label: &str) -> Value {
    let identity = Identity::from_seed(Secret::new([seed; 32]));
    let node_id = identity.node_id();
    json!({
        "seed": hex(&[seed; 32]),
        "public_key": hex(&identity.public().0),
        "node_id": hex(&node_id.0),
        "node_id_text": node_id.to_base32(),
        "label": label,
        "portname": PortName::of(label.parse().unwrap(), &node_id).to_string(),
    })
}

#[test]
fn bottle_vectors() {
    let valid = [("every field", full(), 1), ("the least", minimal(6), 6)];
    let valid: Vec<Value> = valid.iter().map(|(name, content, seed)| valid_vector(name, content, *seed)).collect();
    let invalid: Vec<Value> = invalid().iter().map(invalid_vector).collect();
    let vectors = json!({
        "now_ms": NOW_MS,
        "valid": valid,
        "invalid": invalid,
        "exit_policies": policies(),
        "round_trips": round_trips(),
        "capacities": capacities(),
    });
    compare("bottle.json", &vectors);
}

fn valid_vector(name: &str, content: &BottleContent, seed: u8) -> Value {
    let envelope = content.sign(&key(seed)).unwrap();
    let bottle = UnverifiedBottle::parse(&envelope).unwrap().verify(NOW_MS, &BottleRules::DEFAULT).unwrap();
    json!({
        "name": name,
        "identity_seed": hex(&[seed; 32]),
        "fields": fields(content),
        "payload": hex(bottle.payload()),
        "signature": hex(&signature(bottle.payload(), seed)),
        "envelope": hex(&envelope),
        "short_id": hex(&bottle.short_id().0),
        "node_id": hex(&bottle.node_id().0),
        "portname": bottle.portname().to_string(),
        "expires_ms": bottle.expires_ms(),
    })
}

fn fields(content: &BottleContent) -> Value {
    let addresses = content.addresses.iter().map(|a| json!({ "ip": a.ip.to_string(), "port": a.port, "lane_type": a.lane_code }));
    let links =
        content.links.iter().map(|link| json!({ "prefix": hex(&link.peer.0), "rtt": link.rtt, "capacity": link.capacity }));
    let unknown = content.unknown.iter().map(|(key, value)| json!({ "key": key, "value": hex(value) }));
    json!({
        "suite": 1,
        "identity": hex(&content.identity.0),
        "seq": content.seq.0,
        "scope": content.scope.code(),
        "label": content.label.as_str(),
        "group": content.group,
        "link_key": hex(&content.link_key.0),
        "link_key_expiry_s": content.link_key_expiry_s,
        "next_link_key": content.next_link_key.map(|key| hex(&key.0)),
        "circuit_key": hex(content.circuit_key.public.as_bytes()),
        "circuit_key_not_after_s": content.circuit_key.not_after_s,
        "addresses": addresses.collect::<Vec<_>>(),
        "egress": content.egress.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "links": links.collect::<Vec<_>>(),
        "exit_policy": content.exit_policy.as_ref().map(|policy| hex(&policy.compile())),
        "load": content.load,
        "flags": content.flags.0,
        "protocol": [content.protocol.lowest, content.protocol.highest],
        "software": content.software,
        "unknown": unknown.collect::<Vec<_>>(),
    })
}

fn policies() -> Vec<Value> {
    let texts: [&[&str]; 6] = [
        &["accept * *:*"],
        &["reject * private:*", "accept tcp *:80,443", "accept udp [2001:db8::]/32:53"],
        &["reject tcp 10.0.0.0/8:*", "accept tcp 10.1.2.3/32:22", "accept tcp 0.0.0.0/0:8000-8999"],
        &["accept tcp *:1,3,5,7,9,11,13,15,17"],
        &["accept udp [2000::]/3:443", "reject * [::]/0:*"],
        &["accept tcp 172.16.0.0/12:443,80,81-90,85-100"],
    ];
    let vector = |rules: &&[&str]| {
        let policy = ExitPolicy::parse(rules).unwrap();
        json!({ "rules": rules, "compiled": hex(&policy.compile()) })
    };
    texts.iter().map(vector).collect()
}

fn round_trips() -> Vec<Value> {
    [0, 99, 100, 101, 112, 113, 1_000, 25_000, 300_000, 10_000_000_000]
        .map(|us: u64| json!({ "rtt_us": us, "code": rtt_code(us), "code_means_us": rtt_us(rtt_code(us)) }))
        .into()
}

fn capacities() -> Vec<Value> {
    [0, 1, 3, 100, 1_000, 10_000, 1_000_000]
        .map(|mbit_s: u64| json!({ "mbit_s": mbit_s, "code": capacity_code(mbit_s), "code_means_mbit_s": capacity_mbit_s(capacity_code(mbit_s)) }))
        .into()
}

// ---- What must be refused ----

struct Invalid {
    name: &'static str,
    envelope: Vec<u8>,
    now_ms: u64,
    error: BottleError,
}

fn invalid_vector(case: &Invalid) -> Value {
    json!({ "name": case.name, "envelope": hex(&case.envelope), "now_ms": case.now_ms, "error": format!("{:?}", case.error) })
}

#[test]
fn every_invalid_bottle_is_refused_for_its_reason() {
    for case in invalid() {
        let verified =
            UnverifiedBottle::parse(&case.envelope).and_then(|bottle| bottle.verify(case.now_ms, &BottleRules::DEFAULT));
        assert_eq!(verified.map(|_| ()), Err(case.error), "{}", case.name);
    }
}

fn invalid() -> Vec<Invalid> {
    let mut cases = Vec::new();
    cases.extend(at_wrong_times());
    let now = |(name, envelope, error)| Invalid { name, envelope, now_ms: NOW_MS, error };
    cases.extend(wrong_envelopes().into_iter().map(now));
    cases.extend(wrong_encodings().into_iter().map(|(name, payload, error)| now((name, envelope(&payload), error.into()))));
    cases.extend(wrong_fields().into_iter().map(|(name, key, value)| {
        let error = BottleError::Field(BottleKey::from_code(u8::try_from(key).unwrap()).unwrap());
        now((name, envelope(&with(key, value)), error))
    }));
    cases.extend(wrong_shapes().into_iter().map(|(name, payload, error)| now((name, envelope(&payload), error))));
    cases
}

/// The full payload with one field replaced.
fn with(key: u64, value: Vec<u8>) -> Vec<u8> {
    let replace = |(old_key, old): (u64, Vec<u8>)| (old_key, if old_key == key { value.clone() } else { old });
    map(&full_fields().into_iter().map(replace).collect::<Vec<_>>())
}

fn payload() -> Vec<u8> {
    map(&full_fields())
}

fn at_wrong_times() -> Vec<Invalid> {
    let good = envelope(&payload());
    let far_link_key = with(8, uint((SEQ + (90 * 24 + 1) * HOUR_MS) / 1000 + 1));
    let far_circuit_key = with(11, uint((SEQ + 31 * HOUR_MS) / 1000 + 1));
    vec![
        Invalid {
            name: "seq more than an hour ahead",
            envelope: good.clone(),
            now_ms: SEQ - HOUR_MS - 1,
            error: BottleError::Ahead,
        },
        Invalid {
            name: "expired 30 hours after its seq",
            envelope: good,
            now_ms: SEQ + 30 * HOUR_MS,
            error: BottleError::Expired,
        },
        Invalid {
            name: "link key that lives longer than 90 days and an hour",
            envelope: envelope(&far_link_key),
            now_ms: NOW_MS,
            error: BottleError::Field(BottleKey::LinkKeyExpiry),
        },
        Invalid {
            name: "circuit key that lives longer than 30 hours and an hour",
            envelope: envelope(&far_circuit_key),
            now_ms: NOW_MS,
            error: BottleError::Field(BottleKey::CircuitKeyNotAfter),
        },
    ]
}

fn wrong_envelopes() -> Vec<(&'static str, Vec<u8>, BottleError)> {
    let payload = payload();
    let sealed = |version: Vec<u8>, payload: &[u8], signature: &[u8]| array(&[version, bytes(payload), bytes(signature)]);
    let good = envelope(&payload);
    let signed = signature(&payload, 1);
    let mut flipped = signed;
    flipped[63] ^= 0x10;
    let mut malleable = signed;
    add_order(&mut malleable);
    let long_version = [&[0x83, 0x18, 1][..], &good[2..]].concat();
    let long_length = [&good[..2], &[0x5a, 0, 0], &good[3..]].concat();
    let indefinite = [&[0x9f][..], &good[1..], &[0xff]].concat();
    vec![
        ("nothing", Vec::new(), CborError::Cut.into()),
        ("cut by one byte", good[..good.len() - 1].to_vec(), CborError::Cut.into()),
        ("cut in the middle", good[..good.len() / 2].to_vec(), CborError::Cut.into()),
        ("a trailing byte", [&good[..], &[0]].concat(), CborError::Trailing.into()),
        ("more than 4096 bytes", vec![0; BOTTLE_BYTES + 1], BottleError::TooLarge),
        ("envelope version 2", sealed(uint(2), &payload, &signed), BottleError::Envelope),
        ("envelope of two elements", array(&[uint(1), bytes(&payload)]), BottleError::Envelope),
        ("envelope of four elements", array(&[uint(1), bytes(&payload), bytes(&signed), uint(0)]), BottleError::Envelope),
        ("signature of 63 bytes", sealed(uint(1), &payload, &signed[..63]), BottleError::Envelope),
        ("payload as text", array(&[uint(1), text("payload"), bytes(&signed)]), CborError::WrongType.into()),
        ("version not in its shortest form", long_version, CborError::NotShortest.into()),
        ("payload length not in its shortest form", long_length, CborError::NotShortest.into()),
        ("envelope of indefinite length", indefinite, CborError::Indefinite.into()),
        ("a tag around the envelope", [&[0xd2][..], &good].concat(), CborError::WrongType.into()),
        ("wrong signature", sealed(uint(1), &payload, &flipped), BottleError::Signature),
        ("signature by another key", sealed(uint(1), &payload, &signature(&payload, 9)), BottleError::Signature),
        ("signature without its tag", sealed(uint(1), &payload, &key(1).sign("", &[&payload])), BottleError::Signature),
        ("signature with S + order", sealed(uint(1), &payload, &malleable), BottleError::Signature),
        ("signature of zeros", sealed(uint(1), &payload, &[0; 64]), BottleError::Signature),
    ]
}

/// Adds the group's order to S: the same signature for whoever does not ask S < order.
fn add_order(signature: &mut [u8; 64]) {
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, added) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(added) + carry;
        let [high, low] = sum.to_be_bytes();
        *byte = low;
        carry = u16::from(high);
    }
}

fn wrong_encodings() -> Vec<(&'static str, Vec<u8>, CborError)> {
    let good = payload();
    // The payload's head is b5: 21 pairs; it goes on with 01 01, the suite.
    let long_key = [&good[..1], &[0x18, 1], &good[2..]].concat();
    let long_value = [&good[..2], &[0x18, 1], &good[3..]].concat();
    let long_count = [&[0xb8, 21][..], &good[1..]].concat();
    let indefinite = [&[0xbf][..], &good[1..], &[0xff]].concat();
    let mut swapped = full_fields();
    swapped.swap(4, 5);
    let mut twice = full_fields();
    twice.insert(1, twice[0].clone());
    let negative = [&good[..1], &[0x20, 1], &good[3..]].concat();
    vec![
        ("payload empty", Vec::new(), CborError::Cut),
        ("payload cut", good[..good.len() - 1].to_vec(), CborError::Cut),
        ("a byte after the payload's map", [&good[..], &[0]].concat(), CborError::Trailing),
        ("payload not a map", array(&[uint(1)]), CborError::WrongType),
        ("a key not in its shortest form", long_key, CborError::NotShortest),
        ("an integer not in its shortest form", long_value, CborError::NotShortest),
        ("the map's count not in its shortest form", long_count, CborError::NotShortest),
        ("a string's length not in its shortest form", with(5, [&[0x78, 3][..], b"abc"].concat()), CborError::NotShortest),
        ("map of indefinite length", indefinite, CborError::Indefinite),
        ("text of indefinite length", with(5, [&[0x7f, 0x63][..], b"abc", &[0xff]].concat()), CborError::Indefinite),
        ("keys not in order", map(&swapped), CborError::KeyOrder),
        ("a key twice", map(&twice), CborError::KeyOrder),
        ("a negative key", negative, CborError::WrongType),
        ("text that is not UTF-8", with(19, vec![0x61, 0xff]), CborError::NotUtf8),
        ("scope as text", with(4, text("public")), CborError::WrongType),
        ("seq as bytes", with(3, bytes(&SEQ.to_be_bytes())), CborError::WrongType),
        ("an unknown float", with(20, vec![0xf9, 0x3c, 0]), CborError::Unsupported),
        ("an unknown tag", with(20, vec![0xc1, 0]), CborError::Unsupported),
        ("an unknown undefined", with(20, vec![0xf7]), CborError::Unsupported),
        ("an unknown value nested 5 deep", with(20, vec![0x81, 0x81, 0x81, 0x81, 0x81, 0]), CborError::TooDeep),
        ("an unknown map with keys not in order", with(20, vec![0xa2, 2, 0, 1, 0]), CborError::KeyOrder),
        ("an unknown array that claims 2^64 - 1 elements", with(20, [&[0x9b][..], &[0xff; 8]].concat()), CborError::Cut),
    ]
}

fn wrong_fields() -> Vec<(&'static str, u64, Vec<u8>)> {
    let v4 = [192, 0, 2, 17];
    let addresses = |count: u64| array(&(1..=count).map(|port| address(&v4, port, 1)).collect::<Vec<_>>());
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4];
    let egress = |count: u8| array(&(1..=count).map(|last| bytes(&[192, 0, 2, last])).collect::<Vec<_>>());
    let link = |first: u8| [&[first; 8][..], &[1, 1]].concat();
    vec![
        ("suite 2", 1, uint(2)),
        ("identity key of 31 bytes", 2, bytes(&[1; 31])),
        ("scope 2", 4, uint(2)),
        ("label of two characters", 5, text("ab")),
        ("label with a capital", 5, text("Abc")),
        ("label of 25 characters", 5, text(&"a".repeat(25))),
        ("group present and empty", 6, text("")),
        ("group of 33 characters", 6, text(&"g".repeat(33))),
        ("group with a control character", 6, text("a\n")),
        ("link key of 33 bytes", 7, bytes(&[1; 33])),
        ("link key of small order", 7, bytes(&[0; 32])),
        ("next link key not canonical", 9, bytes(&[0xff; 32])),
        ("circuit key of 1215 bytes", 10, bytes(&[5; 1215])),
        ("addresses present and empty", 12, array(&[])),
        ("nine addresses", 12, addresses(9)),
        ("an address twice", 12, array(&[address(&v4, 1717, 1), address(&v4, 1717, 1)])),
        ("an address of two elements", 12, array(&[array(&[bytes(&v4), uint(1717)])])),
        ("an address of 5 bytes", 12, array(&[address(&[1, 2, 3, 4, 5], 1717, 1)])),
        ("an IPv4-mapped address", 12, array(&[address(&mapped, 1717, 1)])),
        ("an unspecified address", 12, array(&[address(&[0; 4], 1717, 1)])),
        ("a multicast address", 12, array(&[address(&[224, 0, 0, 1], 1717, 1)])),
        ("the broadcast address", 12, array(&[address(&[255; 4], 1717, 1)])),
        ("port 0", 12, array(&[address(&v4, 0, 1)])),
        ("port 65536", 12, array(&[address(&v4, 65_536, 1)])),
        ("lane type 256", 12, array(&[address(&v4, 1717, 256)])),
        ("egress present and empty", 13, array(&[])),
        ("five egress addresses", 13, egress(5)),
        ("an egress address twice", 13, array(&[bytes(&v4), bytes(&v4)])),
        ("links present and empty", 14, bytes(&[])),
        ("links of 11 bytes", 14, bytes(&[1; 11])),
        ("links not in order", 14, bytes(&[link(2), link(1)].concat())),
        ("a link twice", 14, bytes(&[link(1), link(1)].concat())),
        ("65 links", 14, bytes(&(0..65).flat_map(link).collect::<Vec<u8>>())),
        ("exit policy present and empty", 15, bytes(&[])),
        ("exit policy of 257 bytes", 15, bytes(&[0x80; 257])),
        ("exit policy with protocol 3", 15, bytes(&[0xe0])),
        ("exit policy with host bits", 15, bytes(&[0x88, 7, 0xff])),
        ("exit policy cut", 15, bytes(&[0x81, 0, 80])),
        ("load 4", 16, uint(4)),
        ("flags 65536", 17, uint(65_536)),
        ("protocol range that starts at 0", 18, array(&[uint(0), uint(1)])),
        ("protocol range backwards", 18, array(&[uint(2), uint(1)])),
        ("protocol range of three", 18, array(&[uint(1), uint(1), uint(1)])),
        ("protocol version 256", 18, array(&[uint(1), uint(256)])),
        ("software of 33 bytes", 19, text(&"s".repeat(33))),
        ("software not ASCII", 19, text("pört17")),
    ]
}

fn wrong_shapes() -> Vec<(&'static str, Vec<u8>, BottleError)> {
    let without = |left_out: u64| map(&full_fields().into_iter().filter(|(key, _)| *key != left_out).collect::<Vec<_>>());
    let mut many = full_fields();
    many.truncate(19);
    many.extend((20..37).map(|key| (key, uint(0))));
    let few_and_many: Vec<_> =
        full_fields().into_iter().filter(|(key, _)| *key < 20 && *key != 6).chain(many[19..].to_vec()).collect();
    vec![
        ("no suite", without(1), BottleError::Missing(BottleKey::Suite)),
        ("no identity key", without(2), BottleError::Missing(BottleKey::Identity)),
        ("no circuit key", without(10), BottleError::Missing(BottleKey::CircuitKey)),
        ("no software", without(19), BottleError::Missing(BottleKey::Software)),
        ("an empty map", map(&[]), BottleError::Missing(BottleKey::Suite)),
        ("17 unknown fields", map(&many), BottleError::UnknownFields),
        ("17 unknown fields and a known one less", map(&few_and_many), BottleError::UnknownFields),
    ]
}
