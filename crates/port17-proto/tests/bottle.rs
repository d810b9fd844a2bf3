//! Bottles and the Bottlerack (spec 04).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod sample_bottle;

use std::collections::BTreeMap;

use port17_proto::bottle::{Address, VerifiedBottle};
use port17_proto::bottle::{
    BottleContent, BottleError, BottleRules, CborError, Flags, LinkClaim, NodePrefix, Seq, Tombstone, UnverifiedBottle,
    UnverifiedTombstone,
};
use port17_proto::bottlerack::{Bottlerack, Bury, Insert, RackRules, Trust};
use port17_proto::crypto::{Entropy, SigningKey};
use port17_proto::limits::{BOTTLE_BYTES, EQUIVOCATIONS};
use port17_proto::params::Params;
use port17_proto::policy::ExitPolicy;
use port17_proto::wire::registry::{BottleKey, LaneType, Scope};
use proptest::prelude::*;
use sample_bottle::{NOW_MS, SEQ, array, bytes, envelope, full, full_fields, key, map, minimal, text, uint, verified};

const RULES: BottleRules = BottleRules::DEFAULT;
const HOUR_MS: u64 = 3_600_000;

fn parse(bytes: &[u8]) -> Result<UnverifiedBottle, BottleError> {
    UnverifiedBottle::parse(bytes)
}

fn parse_error(bytes: &[u8]) -> BottleError {
    parse(bytes).map(|_| ()).unwrap_err()
}

fn verify(content: &BottleContent, now_ms: u64) -> Result<VerifiedBottle, BottleError> {
    parse(&content.sign(&key(1)).unwrap()).unwrap().verify(now_ms, &RULES)
}

#[test]
fn a_bottle_reads_back_as_what_was_signed() {
    for content in [full(), minimal(1)] {
        let envelope = content.sign(&key(1)).unwrap();
        let bottle = parse(&envelope).unwrap().verify(NOW_MS, &RULES).unwrap();
        assert_eq!(bottle.content(), &content);
        assert_eq!(bottle.node_id(), content.node_id());
        assert_eq!(bottle.portname(), content.portname());
        assert_eq!(bottle.seq(), Seq(SEQ));
        assert_eq!(bottle.envelope(), envelope);
        assert_eq!(bottle.expires_ms(), SEQ + 30 * HOUR_MS);
    }
}

#[test]
fn an_independent_writer_gives_the_same_bytes() {
    let payload = map(&full_fields());
    assert_eq!(full().sign(&key(1)).unwrap(), envelope(&payload));
    assert_eq!(verified(&full(), 1).payload(), payload);
}

#[test]
fn every_cut_is_an_error() {
    let envelope = full().sign(&key(1)).unwrap();
    for length in 0..envelope.len() {
        assert!(parse(&envelope[..length]).is_err(), "{length}");
    }
}

#[test]
fn every_changed_bit_is_an_error() {
    let envelope = full().sign(&key(1)).unwrap();
    for index in 0..envelope.len() {
        let mut changed = envelope.clone();
        changed[index] ^= 1 << (index % 8);
        let verified = parse(&changed).and_then(|bottle| bottle.verify(NOW_MS, &RULES));
        assert!(verified.is_err(), "byte {index}");
    }
}

#[test]
fn trailing_bytes_are_an_error_inside_and_outside() {
    let outside = [full().sign(&key(1)).unwrap(), vec![0]].concat();
    assert_eq!(parse_error(&outside), CborError::Trailing.into());
    let inside = [map(&full_fields()), vec![0]].concat();
    assert_eq!(parse_error(&envelope(&inside)), CborError::Trailing.into());
}

#[test]
fn nothing_larger_than_the_limit_is_looked_at() {
    assert_eq!(parse_error(&vec![0; BOTTLE_BYTES + 1]), BottleError::TooLarge);
    let mut content = minimal(1);
    content.unknown.insert(100, bytes(&[0; 3000]));
    assert_eq!(content.sign(&key(1)), Err(BottleError::TooLarge));
    content.unknown.insert(100, bytes(&[0; 2500]));
    assert!(content.sign(&key(1)).is_ok());
}

#[test]
fn the_largest_content_fits() {
    let mut content = full();
    content.group = "g".repeat(32);
    content.software = "s".repeat(32);
    content.label = "l".repeat(24).parse().unwrap();
    content.addresses =
        (1..=8).map(|n| Address::new(format!("[2001:db8::{n}]:1717").parse().unwrap(), LaneType::TlsTcp)).collect();
    content.egress = (1..=4).map(|n| format!("2001:db8::{n}").parse().unwrap()).collect();
    content.links = (0..64).map(|n| LinkClaim { peer: NodePrefix([n; 8]), rtt: n, capacity: n }).collect();
    let rules: Vec<String> = (1..=42).map(|port| format!("accept tcp 0.0.0.0/0:{port}")).collect();
    content.exit_policy = Some(ExitPolicy::parse(&rules).unwrap());
    let envelope = content.sign(&key(1)).unwrap();
    assert!(parse(&envelope).is_ok());
    assert!(envelope.len() < 3000, "{}", envelope.len());
}

#[test]
fn every_field_but_the_optional_ones_is_needed() {
    let optional = [6, 9, 12, 13, 14, 15, 20, 1000];
    for (left_out, _) in full_fields() {
        let rest: Vec<(u64, Vec<u8>)> = full_fields().into_iter().filter(|(key, _)| *key != left_out).collect();
        let parsed = parse(&envelope(&map(&rest)));
        if optional.contains(&left_out) {
            assert!(parsed.is_ok(), "{left_out}");
        } else {
            let key = BottleKey::from_code(u8::try_from(left_out).unwrap()).unwrap();
            assert_eq!(parsed.unwrap_err(), BottleError::Missing(key));
        }
    }
}

#[test]
fn every_field_has_its_type() {
    for (wrong, _) in full_fields().into_iter().filter(|(key, _)| *key < 20) {
        for value in [vec![0xf6], vec![0x20], vec![0xa0]] {
            let fields: Vec<_> =
                full_fields().into_iter().map(|(key, old)| (key, if key == wrong { value.clone() } else { old })).collect();
            assert_eq!(parse_error(&envelope(&map(&fields))), CborError::WrongType.into(), "{wrong}");
        }
    }
}

#[test]
fn unknown_fields_are_kept_covered_and_bounded() {
    let mut content = minimal(1);
    content.unknown = (100..116).map(|key| (key, uint(key))).collect();
    assert_eq!(verify(&content, NOW_MS).unwrap().content(), &content);
    content.unknown.insert(116, uint(0));
    assert_eq!(content.sign(&key(1)), Err(BottleError::UnknownFields));
    content.unknown = BTreeMap::from([(100, vec![0x81, 0x81, 0x81, 0x81, 0])]);
    assert!(content.sign(&key(1)).is_ok());
    content.unknown = BTreeMap::from([(100, vec![0x81, 0x81, 0x81, 0x81, 0x81, 0])]);
    assert_eq!(content.sign(&key(1)), Err(CborError::TooDeep.into()));
}

#[test]
fn what_is_signed_is_what_was_given() {
    let mut content = minimal(1);
    assert_eq!(content.sign(&key(9)), Err(BottleError::WrongKey));
    // A known key among the unknown ones would speak for a field.
    content.unknown = BTreeMap::from([(6, text("smuggled"))]);
    assert_eq!(content.sign(&key(1)), Err(BottleError::NotCanonical));
    content.unknown = BTreeMap::from([(1, uint(1))]);
    assert_eq!(content.sign(&key(1)), Err(BottleError::NotCanonical));
    content.unknown = BTreeMap::from([(100, vec![])]);
    assert!(content.sign(&key(1)).is_err());
}

#[test]
fn content_out_of_bounds_is_not_signed() {
    let wrong = |change: fn(&mut BottleContent)| {
        let mut content = full();
        change(&mut content);
        content.sign(&key(1)).unwrap_err()
    };
    assert_eq!(wrong(|c| c.group = "é".into()), BottleError::Field(BottleKey::Group));
    assert_eq!(wrong(|c| c.load = 4), BottleError::Field(BottleKey::Load));
    assert_eq!(wrong(|c| c.protocol.lowest = 2), BottleError::Field(BottleKey::Protocol));
    assert_eq!(wrong(|c| c.links.reverse()), BottleError::Field(BottleKey::Links));
    assert_eq!(wrong(|c| c.addresses[0].port = 0), BottleError::Field(BottleKey::Addresses));
    assert_eq!(wrong(|c| c.addresses[0].ip = "0.0.0.0".parse().unwrap()), BottleError::Field(BottleKey::Addresses));
    assert_eq!(wrong(|c| c.egress = vec!["::ffff:1.2.3.4".parse().unwrap()]), BottleError::Field(BottleKey::Egress));
    assert_eq!(wrong(|c| c.link_key.0 = [0; 32]), BottleError::Field(BottleKey::LinkKey));
}

#[test]
fn lane_types_and_flags_from_the_future_are_kept() {
    let mut content = full();
    content.addresses[0].lane_code = 77;
    content.flags = Flags(0x8001);
    let bottle = verify(&content, NOW_MS).unwrap();
    assert_eq!(bottle.content().addresses[0].lane_type(), None);
    assert!(bottle.content().flags.is_draining() && !bottle.content().flags.is_metered());
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let payload = map(&full_fields());
    let forged = array(&[uint(1), bytes(&payload), bytes(&sample_bottle::signature(&payload, 9))]);
    assert_eq!(parse(&forged).unwrap().verify(NOW_MS, &RULES).unwrap_err(), BottleError::Signature);
    let untagged = array(&[uint(1), bytes(&payload), bytes(&key(1).sign("", &[&payload]))]);
    assert_eq!(parse(&untagged).unwrap().verify(NOW_MS, &RULES).unwrap_err(), BottleError::Signature);
}

#[test]
fn a_bottle_is_valid_from_an_hour_before_its_seq_to_thirty_hours_after() {
    assert_eq!(verify(&full(), SEQ - HOUR_MS - 1).unwrap_err(), BottleError::Ahead);
    assert!(verify(&full(), SEQ - HOUR_MS).is_ok());
    assert!(verify(&full(), SEQ + 30 * HOUR_MS - 1).is_ok());
    assert_eq!(verify(&full(), SEQ + 30 * HOUR_MS).unwrap_err(), BottleError::Expired);
    assert_eq!(verify(&full(), 0).unwrap_err(), BottleError::Ahead);
    assert_eq!(verify(&full(), u64::MAX).unwrap_err(), BottleError::Expired);
}

#[test]
fn keys_that_would_live_too_long_are_refused() {
    let mut content = full();
    let latest_s = (SEQ + 31 * HOUR_MS) / 1000;
    content.circuit_key.not_after_s = latest_s;
    assert!(verify(&content, NOW_MS).is_ok());
    content.circuit_key.not_after_s = latest_s + 1;
    assert_eq!(verify(&content, NOW_MS).unwrap_err(), BottleError::Field(BottleKey::CircuitKeyNotAfter));
    let mut content = full();
    content.link_key_expiry_s = u64::MAX;
    assert_eq!(verify(&content, NOW_MS).unwrap_err(), BottleError::Field(BottleKey::LinkKeyExpiry));
}

#[test]
fn link_keys_are_the_current_one_until_it_ends_and_the_next() {
    let bottle = verify(&full(), NOW_MS).unwrap();
    assert_eq!(bottle.link_keys(NOW_MS), [key(2).public(), key(4).public()]);
    assert_eq!(bottle.link_keys(1_805_000_000_000), [key(4).public()]);
}

#[test]
fn a_circuit_key_is_usable_until_its_margin_and_not_past_the_bottle() {
    let bottle = verify(&full(), NOW_MS).unwrap();
    assert_eq!(bottle.usable_until_ms(HOUR_MS), 1_800_100_000_000 - HOUR_MS);
    let mut content = full();
    content.circuit_key.not_after_s = (SEQ + 31 * HOUR_MS) / 1000;
    assert_eq!(verify(&content, NOW_MS).unwrap().usable_until_ms(0), SEQ + 30 * HOUR_MS);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
        let _ = parse(&envelope(&bytes));
    }

    #[test]
    fn any_change_of_the_payload_is_refused_or_canonical(
        at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()
    ) {
        let mut payload = map(&full_fields());
        let at = at.index(payload.len());
        payload[at] = value;
        if cut.index(4) == 0 {
            payload.truncate(cut.index(payload.len()));
        }
        let envelope = envelope(&payload);
        // Well signed by key 1; what is taken is signed again to the same bytes (if it still names that key).
        if let Ok(bottle) = parse(&envelope).and_then(|bottle| bottle.verify(NOW_MS, &RULES)) {
            prop_assert_eq!(bottle.content().sign(&key(1)), Ok(envelope));
        }
    }
}

// ---- The Bottlerack ----

fn version(seed: u8, seq: u64, load: u8) -> VerifiedBottle {
    let mut content = minimal(seed);
    content.seq = Seq(seq);
    content.load = load;
    verified(&content, seed)
}

#[test]
fn the_newest_seq_wins() {
    let mut rack = Bottlerack::new(Scope::Public);
    assert_eq!(rack.insert(version(1, SEQ, 0), NOW_MS), Insert::New);
    assert_eq!(rack.insert(version(1, SEQ, 0), NOW_MS), Insert::Same);
    assert_eq!(rack.insert(version(1, SEQ + 5, 1), NOW_MS + 1), Insert::Newer);
    assert_eq!(rack.insert(version(1, SEQ, 0), NOW_MS + 2), Insert::Older);
    assert_eq!(rack.insert(version(2, SEQ, 0), NOW_MS), Insert::New);
    let stored = rack.get(&minimal(1).node_id()).unwrap();
    assert_eq!((stored.bottle.seq(), stored.received_ms), (Seq(SEQ + 5), NOW_MS + 1));
    assert_eq!(rack.len(), 2);
}

#[test]
fn two_truths_under_one_seq_are_kept_as_evidence() {
    let node = minimal(1).node_id();
    let mut rack = Bottlerack::new(Scope::Public);
    rack.insert(version(1, SEQ, 0), NOW_MS);
    assert!(rack.equivocation(&node).is_none());
    assert_eq!(rack.insert(version(1, SEQ, 1), NOW_MS), Insert::Equivocation);
    let pair = rack.equivocation(&node).unwrap().pair.clone();
    assert!(pair[0].short_id() < pair[1].short_id());
    assert_eq!(rack.get(&node).unwrap().bottle.short_id(), pair[0].short_id());
    for load in [0, 1] {
        assert_eq!(rack.insert(version(1, SEQ, load), NOW_MS), Insert::Same);
    }
    // The evidence outlives the Bottle, until it is forgotten.
    assert_eq!(rack.insert(version(1, SEQ + 1, 0), NOW_MS), Insert::Newer);
    assert!(rack.equivocation(&node).is_some());
    rack.forget_equivocations(NOW_MS + 1);
    assert!(rack.equivocation(&node).is_none());
}

#[test]
fn made_up_nodes_never_fill_the_place_for_evidence_against_a_trusted_one() {
    let truths = |seed: u64| {
        let key = SigningKey::generate(&mut Entropy::from_number(seed));
        [0, 1].map(|load| {
            let mut content = minimal(1);
            (content.identity, content.load) = (key.public(), load);
            let bytes = content.sign(&key).unwrap();
            UnverifiedBottle::parse(&bytes).unwrap().verify(NOW_MS, &BottleRules::DEFAULT).unwrap()
        })
    };
    let mut rack = Bottlerack::new(Scope::Public);
    let sign_two = |rack: &mut Bottlerack, seed: u64| {
        let [one, other] = truths(seed);
        assert_eq!(rack.insert(one, NOW_MS), Insert::New);
        rack.insert(other, NOW_MS)
    };
    for seed in 0..EQUIVOCATIONS as u64 {
        assert_eq!(sign_two(&mut rack, seed), Insert::Equivocation);
    }
    assert_ne!(sign_two(&mut rack, 1000), Insert::Equivocation, "full");
    let trusted = truths(2000)[0].node_id();
    rack.trust_only([trusted]);
    assert_eq!(sign_two(&mut rack, 2000), Insert::Equivocation);
    assert_eq!(rack.trust(&trusted, NOW_MS), Trust::Distrusted);
    let kept = (0..EQUIVOCATIONS as u64).filter(|seed| rack.equivocation(&truths(*seed)[0].node_id()).is_some()).count();
    assert_eq!(kept, EQUIVOCATIONS - 1);
}

#[test]
fn a_rack_holds_one_scope() {
    let mut content = minimal(1);
    content.scope = Scope::Local;
    let local = verified(&content, 1);
    assert_eq!(Bottlerack::new(Scope::Public).insert(local.clone(), NOW_MS), Insert::WrongScope);
    assert_eq!(Bottlerack::new(Scope::Local).insert(local, NOW_MS), Insert::New);
}

#[test]
fn a_full_rack_takes_newer_bottles_of_its_nodes_alone() {
    let mut rack = Bottlerack::with_rules(Scope::Public, RackRules { most_bottles: 2, ..Params::DEFAULT.rack_rules() });
    assert_eq!(rack.insert(version(1, SEQ, 0), NOW_MS), Insert::New);
    assert_eq!(rack.insert(version(2, SEQ, 0), NOW_MS), Insert::New);
    assert_eq!(rack.insert(version(3, SEQ, 0), NOW_MS), Insert::Full);
    assert_eq!(rack.insert(version(2, SEQ + 1, 0), NOW_MS), Insert::Newer);
    assert_eq!(rack.len(), 2);
}

#[test]
fn bottles_expire() {
    let mut rack = Bottlerack::new(Scope::Public);
    rack.insert(version(1, SEQ, 0), NOW_MS);
    rack.insert(version(2, SEQ + 1000, 0), NOW_MS);
    assert_eq!(rack.expire(SEQ + 30 * HOUR_MS - 1), []);
    assert_eq!(rack.expire(SEQ + 30 * HOUR_MS), [minimal(1).node_id()]);
    assert_eq!(rack.len(), 1);
}

fn small_rules() -> RackRules {
    RackRules { most_bottles: 4, most_unknown: 2, ..Params::DEFAULT.rack_rules() }
}

#[test]
fn unknown_nodes_get_their_share_of_the_places_and_no_more() {
    let mut rack = Bottlerack::with_rules(Scope::Public, small_rules());
    rack.trust_only([4, 5, 6].map(|seed| minimal(seed).node_id()));
    assert_eq!([1, 2, 3].map(|seed| rack.insert(version(seed, SEQ, 0), NOW_MS)), [Insert::New, Insert::New, Insert::Full]);
    assert_eq!([4, 5].map(|seed| rack.insert(version(seed, SEQ, 0), NOW_MS)), [Insert::New; 2]);
    assert_eq!(rack.len(), 4);
    // The share is one of all places, not of what is held: a network without trust fills a quarter.
    assert_eq!(Params::DEFAULT.rack_rules().most_unknown, 8192);
}

#[test]
fn a_trusted_node_evicts_the_newest_unknown_one_and_is_never_evicted() {
    let mut rack = Bottlerack::with_rules(Scope::Public, small_rules());
    rack.trust_only([3, 4, 5, 6, 7].map(|seed| minimal(seed).node_id()));
    for (seed, at) in [(1, 5), (2, 9), (3, 1), (4, 2)] {
        assert_eq!(rack.insert(version(seed, SEQ, 0), NOW_MS + at), Insert::New);
    }
    let holds = |rack: &Bottlerack| [1, 2, 3, 4, 5, 6, 7].map(|seed| rack.get(&minimal(seed).node_id()).is_some());
    assert_eq!(rack.insert(version(5, SEQ, 0), NOW_MS + 10), Insert::New);
    assert_eq!(holds(&rack), [true, false, true, true, true, false, false]);
    assert_eq!(rack.insert(version(6, SEQ, 0), NOW_MS + 11), Insert::New);
    assert_eq!(rack.insert(version(7, SEQ, 0), NOW_MS + 12), Insert::Full);
    assert_eq!(rack.insert(version(1, SEQ, 0), NOW_MS + 13), Insert::Full);
    assert_eq!(holds(&rack), [false, false, true, true, true, true, false]);
    // Who is trusted no more is counted among the others.
    rack.trust_only([]);
    assert!(!rack.has_room(&minimal(1).node_id()));
}

#[test]
fn newer_bottles_of_one_node_are_limited_by_a_bucket() {
    let rules = RackRules { interval_ms: 1000, burst: 3, ..Params::DEFAULT.rack_rules() };
    let mut rack = Bottlerack::with_rules(Scope::Public, rules);
    let mut at = |seq: u64, now_ms: u64| rack.insert_limited(version(1, SEQ + seq, 0), NOW_MS + now_ms);
    assert_eq!([at(0, 0), at(1, 0), at(2, 0)], [Insert::New, Insert::Newer, Insert::Newer]);
    assert_eq!([at(3, 0), at(3, 999), at(3, 1000)], [Insert::TooOften, Insert::TooOften, Insert::Newer]);
    assert_eq!(at(4, 1500), Insert::TooOften);
    // Another one's is its own, and the operator's directory is not limited.
    assert_eq!(rack.insert_limited(version(2, SEQ, 0), NOW_MS), Insert::New);
    assert_eq!(rack.insert(version(1, SEQ + 5, 0), NOW_MS), Insert::Newer);
}

#[test]
fn an_expired_bottle_becomes_a_hint_and_no_hop() {
    let node = minimal(1).node_id();
    let rules = RackRules { hint_ms: HOUR_MS, ..Params::DEFAULT.rack_rules() };
    let mut rack = Bottlerack::with_rules(Scope::Public, rules);
    rack.insert(version(1, SEQ, 0), NOW_MS);
    assert!(rack.hint(&node).is_none());
    let end = SEQ + 30 * HOUR_MS;
    rack.expire(end);
    assert!(rack.get(&node).is_none() && rack.iter().next().is_none());
    assert_eq!(rack.hint(&node).unwrap().bottle.seq(), Seq(SEQ));
    rack.expire(end + HOUR_MS - 1);
    assert_eq!(rack.hints(), 1);
    rack.expire(end + HOUR_MS);
    assert_eq!(rack.hints(), 0);
    // A living one ends the hint.
    rack.insert_hint(version(1, SEQ, 0), NOW_MS);
    rack.insert(version(1, SEQ + 1, 0), NOW_MS);
    assert_eq!((rack.hints(), rack.insert_hint(version(1, SEQ, 0), NOW_MS)), (0, false));
}

#[test]
fn a_pair_is_evidence_also_when_its_node_has_said_more_since() {
    let node = minimal(1).node_id();
    let mut rack = Bottlerack::new(Scope::Public);
    rack.insert(version(1, SEQ + 9, 0), NOW_MS);
    assert_eq!(rack.insert(version(1, SEQ, 0), NOW_MS), Insert::Older);
    assert_eq!(rack.insert(version(1, SEQ, 0), NOW_MS), Insert::Older);
    assert_eq!(rack.insert(version(1, SEQ, 1), NOW_MS), Insert::Equivocation);
    assert_eq!(rack.seq(&node), Some(Seq(SEQ + 9)));
    // All three can be asked for, and are told of together.
    let held = rack.held_after(None, 10, NOW_MS);
    assert_eq!(held.len(), 3);
    assert!(held.iter().all(|held| rack.by_short_id(&held.short_id).is_some_and(|bottle| bottle.seq() == held.seq)));
    // And they are not forgotten with the Bottle, but with their time.
    assert_eq!(rack.trust(&node, NOW_MS), Trust::Distrusted);
    assert_eq!(rack.trust(&node, NOW_MS + 7 * 24 * HOUR_MS), Trust::Unknown);
    rack.expire(NOW_MS + 7 * 24 * HOUR_MS);
    assert!(rack.equivocation(&node).is_none());
    assert!(held.iter().all(|held| rack.by_short_id(&held.short_id).is_none()));
}

#[test]
fn third_truths_change_no_evidence_and_are_limited() {
    let rules = RackRules { interval_ms: 1000, burst: 2, ..Params::DEFAULT.rack_rules() };
    let mut rack = Bottlerack::with_rules(Scope::Public, rules);
    let mut content = minimal(1);
    let mut stored = 0;
    for port in 1..60 {
        content.software = format!("{port}");
        stored += u32::from(rack.insert_limited(verified(&content, 1), NOW_MS) == Insert::Newer);
    }
    assert!(stored <= 2, "{stored}");
    assert!(rack.equivocation(&content.node_id()).is_some());
}

#[test]
fn a_tombstone_ends_its_node_for_its_time() {
    let (node, life_ms) = (minimal(1).node_id(), Params::DEFAULT.rack_rules().tombstone_ms);
    let mut rack = Bottlerack::new(Scope::Public);
    rack.insert(version(1, SEQ + 1, 0), NOW_MS);
    let farewell = |seq: u64| {
        let parsed = UnverifiedTombstone::parse(&Tombstone::sign(&key(1), Seq(seq))).unwrap();
        parsed.verify(NOW_MS, life_ms, HOUR_MS).unwrap()
    };
    assert_eq!(rack.bury(farewell(SEQ), NOW_MS), Bury::New, "also before the Bottle that is held");
    assert_eq!(rack.bury(farewell(SEQ + 2), NOW_MS), Bury::Same);
    assert!(rack.is_empty() && rack.hint(&node).is_none());
    assert_eq!(rack.insert(version(1, SEQ + 1000, 0), NOW_MS), Insert::Buried);
    rack.expire(NOW_MS + life_ms - 1);
    assert!(rack.is_buried(&node));
    rack.expire(NOW_MS + life_ms);
    assert_eq!(rack.insert(version(1, SEQ + 1000, 0), NOW_MS), Insert::New);
}

#[test]
fn a_node_is_called_by_its_label_and_its_own_suffix() {
    let mut rack = Bottlerack::new(Scope::Public);
    rack.insert(version(1, SEQ, 0), NOW_MS);
    rack.insert(version(2, SEQ, 0), NOW_MS);
    let names = [1, 2].map(|seed| rack.name_of(&minimal(seed).node_id()).unwrap());
    assert_eq!((names[0].label(), names[0] == names[1]), (names[1].label(), false));
    assert!(names[0].belongs_to(&minimal(1).node_id()));
    assert!(rack.name_of(&minimal(3).node_id()).is_none());
}
