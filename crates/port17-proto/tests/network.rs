//! Signed lists: what is one, whose word it is, and how long it holds (spec 12, 2).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod sample_bottle;
mod sample_list;

use port17_proto::bottle::{BottleError, CborError, UnverifiedBottle};
use port17_proto::crypto;
use port17_proto::ids::NetworkId;
use port17_proto::limits::{LIST_BYTES, LIST_LIFE_S, LIST_SIGNATURES};
use port17_proto::network::{Definition, ListContent, ListError, Release, Roots, SignedList};
use port17_proto::params::Params;
use port17_proto::wire::registry::{BottleKey, ListKey, Scope};
use proptest::prelude::*;
use sample_bottle::{array, bytes, key, map, minimal, text, uint};
use sample_list::{
    DAY_S, NOW_S, content, definition, envelope, fields, old_bottle, payload, sign_payload, signed, signed_by, with_fields,
};

fn verdict(list: &SignedList, now_s: u64) -> Result<u64, ListError> {
    let list = SignedList::decode(&list.encode())?;
    list.verify(&definition(), now_s).map(|list| list.seq())
}

fn refusal(list: &SignedList) -> ListError {
    verdict(list, NOW_S).unwrap_err()
}

#[test]
fn a_list_that_enough_roots_signed_is_taken_and_says_what_it_says() {
    let list = signed(&content());
    let verified = SignedList::decode(&list.encode()).unwrap().verify(&definition(), NOW_S).unwrap();
    assert_eq!(verified.content(), &content());
    assert_eq!((verified.seq(), verified.signers()), (5, 2));
    assert_eq!(verified.signed(), &list);
    assert_eq!(verified.seed(), crypto::hash("p17-seed-v1", &[&list.payload]));
    assert_eq!(verified.nodes().len(), 2);
    assert!(verified.nodes().is_sorted_by_key(|node| node.node_id()));
    for node in verified.nodes() {
        assert_eq!(verified.node(&node.node_id()).unwrap().short_id(), node.short_id());
    }
}

#[test]
fn content_by_hand_encodes_to_the_same_bytes() {
    assert_eq!(content().encode().unwrap(), payload(&fields()));
}

#[test]
fn every_field_comes_back() {
    let rich = ListContent {
        params: Params::private(),
        roots: Some(Roots::new(1, vec![key(51).public(), key(52).public()]).unwrap()),
        releases: vec![Release {
            version: "0.2.0".into(),
            platform: "x86_64-linux".into(),
            sha256: [3; 32],
            url: "https://example.org/port17".into(),
        }],
        unknown: [(10, uint(7)), (1000, array(&[text("later"), map(&[(1, vec![0xf6])])]))].into(),
        ..content()
    };
    assert_eq!(signed(&rich).read_unverified().unwrap(), rich);
    assert_eq!(verdict(&signed(&rich), NOW_S), Ok(5));
}

#[test]
fn a_list_may_name_no_node() {
    assert_eq!(verdict(&signed(&ListContent { nodes: vec![], ..content() }), NOW_S), Ok(5));
}

// ---- Signatures ----

#[test]
fn too_few_signatures_are_not_enough() {
    let payload = content().encode().unwrap();
    let few = |valid| ListError::TooFewSignatures { valid, wanted: 2, roots: 3 };
    assert_eq!(refusal(&signed_by(payload.clone(), &[])), few(0));
    assert_eq!(refusal(&signed_by(payload.clone(), &[42])), few(1));
    // Strangers do not count, nor does one who signs twice.
    assert_eq!(refusal(&signed_by(payload.clone(), &[42, 42, 60, 61])), few(1));
    assert_eq!(verdict(&signed_by(payload, &[43, 60, 41, 61]), NOW_S), Ok(5));
}

#[test]
fn a_wrong_signature_does_not_count() {
    let mut list = signed(&content());
    list.signatures[0].1[5] ^= 1;
    assert_eq!(refusal(&list), ListError::TooFewSignatures { valid: 1, wanted: 2, roots: 3 });
    // Nor does that of another key, or over another tag.
    let mut list = signed(&content());
    list.signatures[0].1 = list.signatures[1].1;
    assert_eq!(list.signers(definition().roots()), 1);
    let mut list = signed(&content());
    list.signatures[0].1 = key(41).sign("p17-bottle-v1", &[&list.payload]);
    list.signatures[1].1 = key(43).sign("p17-bottle-v1", &[&list.payload]);
    assert_eq!(list.signers(definition().roots()), 0);
}

#[test]
fn the_signatures_are_over_the_bytes_that_came() {
    let list = signed(&content());
    for at in [0, 20, list.payload.len() / 2, list.payload.len() - 1] {
        let mut changed = list.clone();
        changed.payload[at] ^= 1;
        let error = refusal(&changed);
        let told = matches!(error, ListError::TooFewSignatures { valid: 0, .. } | ListError::OtherNetwork { .. });
        assert!(told, "{at}: {error}");
    }
}

#[test]
fn signing_again_replaces_and_keys_ascend() {
    let mut list = signed_by(content().encode().unwrap(), &[43, 41, 42, 41]);
    assert_eq!(list.signatures.len(), 3);
    assert!(list.signatures.is_sorted_by_key(|(key, _)| *key));
    let bytes = list.encode();
    list.sign(&key(42));
    assert_eq!(list.encode(), bytes);

    list.signatures.swap(0, 1);
    assert_eq!(SignedList::decode(&list.encode()), Err(ListError::Encoding(CborError::KeyOrder)));
    let twice = sign_payload(&list.payload, &key(41));
    let twice = envelope(&list.payload, &[twice.clone(), twice]);
    assert_eq!(SignedList::decode(&twice), Err(ListError::Encoding(CborError::KeyOrder)));
}

#[test]
fn a_list_of_another_network_is_named_as_such() {
    let other = ListContent { network: NetworkId([8; 32]), ..content() };
    let wanted = definition().id();
    let error = ListError::OtherNetwork { found: NetworkId([8; 32]), wanted };
    assert_eq!(refusal(&signed(&other)), error);
    // Also when its own roots have signed it, and ours have not.
    assert_eq!(refusal(&signed_by(other.encode().unwrap(), &[60])), error);
    // The name and the threshold make another network of the same keys.
    for (name, threshold) in [("sample-net2", 2), ("sample-net", 1)] {
        let roots = Roots::new(threshold, definition().roots().keys().to_vec()).unwrap();
        let network = Definition::new(name, roots).unwrap();
        assert!(matches!(signed(&content()).verify(&network, NOW_S), Err(ListError::OtherNetwork { .. })));
    }
}

// ---- Time ----

#[test]
fn a_list_holds_from_an_hour_before_its_making_to_its_end() {
    let (list, made, ends) = (signed(&content()), content().issued_s, content().expires_s);
    assert_eq!(verdict(&list, made - 3601), Err(ListError::Future { by_s: 3601 }));
    assert_eq!(verdict(&list, made - 3600), Ok(5));
    assert_eq!(verdict(&list, ends - 1), Ok(5));
    assert_eq!(verdict(&list, ends), Err(ListError::Expired { for_s: 0 }));
    assert_eq!(verdict(&list, ends + 7 * DAY_S), Err(ListError::Expired { for_s: 7 * DAY_S }));
    assert_eq!(verdict(&list, 0), Err(ListError::Future { by_s: made }));
}

#[test]
fn a_list_that_was_in_force_is_still_one_after_its_end() {
    let list = signed(&content()).verify_whatever_age(&definition()).unwrap();
    assert!(list.has_expired(content().expires_s));
    assert!(!list.has_expired(content().expires_s - 1));
}

#[test]
fn a_list_is_old_after_its_networks_time() {
    let list = signed(&content()).verify(&definition(), NOW_S).unwrap();
    let warn_s = Params::DEFAULT.list_warn_age.as_secs();
    assert!(!list.is_old(content().issued_s + warn_s));
    assert!(list.is_old(content().issued_s + warn_s + 1));
    assert!(!list.is_old(0));
}

#[test]
fn a_life_is_at_most_90_days_and_not_nothing() {
    let ends = |expires_s| with_fields(&[(4, uint(expires_s))]);
    let issued_s = content().issued_s;
    assert_eq!(verdict(&ends(issued_s + LIST_LIFE_S), NOW_S), Ok(5));
    for wrong in [issued_s + LIST_LIFE_S + 1, issued_s, issued_s - 1, 0, u64::MAX] {
        assert_eq!(refusal(&ends(wrong)), ListError::Field(ListKey::Expires), "{wrong}");
    }
}

// ---- Bytes ----

#[test]
fn half_a_list_is_none() {
    let bytes = signed(&content()).encode();
    for length in 0..bytes.len() {
        let error = SignedList::decode(&bytes[..length]).unwrap_err();
        assert!(matches!(error, ListError::NotAList | ListError::Encoding(CborError::Cut)), "{length}: {error}");
    }
    let more = [&bytes[..], &[0]].concat();
    assert_eq!(SignedList::decode(&more), Err(ListError::Encoding(CborError::Trailing)));
}

#[test]
fn what_is_no_list_is_named_as_such() {
    let page = b"<!DOCTYPE html><html><body>404 not found</body></html>";
    assert_eq!(SignedList::decode(page), Err(ListError::NotAList));
    assert_eq!(SignedList::decode(&minimal(6).sign(&key(6)).unwrap()), Err(ListError::NotAList));
    assert_eq!(SignedList::decode(&[]), Err(ListError::NotAList));
    let newer = array(&[uint(3), bytes(&[0xa0]), array(&[]), uint(0)]);
    assert_eq!(SignedList::decode(&newer), Err(ListError::NewerVersion));
    for odd in [envelope(&[0xa0], &[(vec![1; 31], vec![1; 64])]), envelope(&[0xa0], &[(vec![1; 32], vec![1; 65])])] {
        assert_eq!(SignedList::decode(&odd), Err(ListError::NotAList));
    }
}

#[test]
fn a_huge_list_is_refused_before_it_is_read() {
    assert_eq!(SignedList::decode(&vec![0x83; LIST_BYTES + 1]), Err(ListError::TooLarge));
    let signatures: Vec<_> = (0..=LIST_SIGNATURES).map(|at| (vec![u8::try_from(at).unwrap(); 32], vec![0; 64])).collect();
    assert!(SignedList::decode(&envelope(&[0xa0], &signatures[..LIST_SIGNATURES])).is_ok());
    assert_eq!(SignedList::decode(&envelope(&[0xa0], &signatures)), Err(ListError::TooLarge));
}

#[test]
fn who_makes_a_list_is_told_before_the_receivers_are() {
    let node = minimal(6).sign(&key(6)).unwrap();
    let cases = [
        (ListContent { nodes: vec![vec![1; 1400]; 1000], ..content() }, "Node"),
        (ListContent { seq: 0, ..content() }, "Field(Seq)"),
        (ListContent { expires_s: content().issued_s + LIST_LIFE_S + 1, ..content() }, "Field(Expires)"),
        (ListContent { nodes: vec![node.clone(), node], ..content() }, "TwoBottles"),
        (ListContent { params: Params { hops: 0, ..Params::DEFAULT }, ..content() }, "Params"),
        (ListContent { unknown: [(10, vec![0x5b; 2])].into(), ..content() }, "Encoding"),
        (ListContent { unknown: [(10, bytes(&vec![0; LIST_BYTES]))].into(), ..content() }, "TooLarge"),
        (ListContent { unknown: (10..27).map(|key| (key, uint(0))).collect(), ..content() }, "TooLarge"),
        // A known key in the wrong place.
        (ListContent { unknown: [(2, uint(9))].into(), ..content() }, "NotAList"),
    ];
    for (content, name) in cases {
        let error = format!("{:?}", content.encode().unwrap_err());
        assert!(error.starts_with(name), "{error} instead of {name}");
    }
}

#[test]
fn each_field_has_its_bounds() {
    let long = "x".repeat(513);
    let release = |version: &str, sha: usize, url: &str| array(&[text(version), text("p"), bytes(&vec![0; sha]), text(url)]);
    let roots = |threshold, seeds: &[u8]| {
        let mut keys: Vec<_> = seeds.iter().map(|seed| key(*seed).public().0).collect();
        keys.sort_unstable();
        array(&[uint(threshold), array(&keys.iter().map(|key| bytes(key)).collect::<Vec<_>>())])
    };
    let wrong = [
        (ListKey::Network, bytes(&[0; 31])),
        (ListKey::Seq, uint(0)),
        (ListKey::Random, bytes(&[0; 33])),
        (ListKey::Nodes, array(&[bytes(&[])])),
        (ListKey::Nodes, array(&[bytes(&[0; 4097])])),
        (ListKey::Roots, roots(0, &[51])),
        (ListKey::Roots, roots(2, &[51])),
        (ListKey::Roots, array(&[uint(1), array(&[bytes(&[1; 32]), bytes(&[1; 32])])])),
        (ListKey::Roots, array(&[uint(1), array(&[bytes(&[2; 32]), bytes(&[1; 32])])])),
        (ListKey::Releases, array(&[])),
        (ListKey::Releases, array(&vec![release("1", 32, "u"); 65])),
        (ListKey::Releases, array(&[release("", 32, "u")])),
        (ListKey::Releases, array(&[release("1", 31, "u")])),
        (ListKey::Releases, array(&[release("1", 32, &long)])),
        (ListKey::Releases, array(&[release("ä", 32, "u")])),
    ];
    for (field, value) in wrong {
        let list = with_fields(&[(u64::from(field.code()), value)]);
        let error = list.read_unverified().unwrap_err();
        assert_eq!(error, ListError::Field(field));
    }
    for field in ListKey::ALL.iter().filter(|key| key.code() <= 7) {
        let mut without = fields();
        without.remove(&u64::from(field.code()));
        let error = signed_by(payload(&without), &[41, 42]).verify_whatever_age(&definition()).unwrap_err();
        assert_eq!(error, ListError::Missing(*field));
        let odd = with_fields(&[(u64::from(field.code()), vec![0xf6])]).read_unverified().unwrap_err();
        assert_eq!(odd, ListError::Encoding(CborError::WrongType), "{field:?}");
    }
}

#[test]
fn only_the_one_encoding_is_read() {
    let good = payload(&fields());
    // seq 5 as a longer number.
    let at = good.windows(2).position(|pair| pair == [2, 5]).unwrap();
    let longer = [&good[..=at], &[0x18, 5], &good[at + 2..]].concat();
    assert_eq!(refusal(&signed_by(longer, &[41, 42])), ListError::Encoding(CborError::NotShortest));
    let pair = |key: u64| [uint(key), fields()[&key].clone()].concat();
    let mut out_of_order: Vec<Vec<u8>> = (1..=7).map(pair).collect();
    out_of_order.swap(1, 2);
    let out_of_order = [vec![0xa7], out_of_order.concat()].concat();
    assert_eq!(refusal(&signed_by(out_of_order, &[41, 42])), ListError::Encoding(CborError::KeyOrder));
    assert_eq!(refusal(&signed_by([&good[..], &[0]].concat(), &[41, 42])), ListError::Encoding(CborError::Trailing));
}

// ---- Nodes ----

#[test]
fn a_listed_bottle_may_be_of_any_age() {
    let list = signed(&ListContent { nodes: vec![old_bottle(6)], ..content() });
    let verified = list.verify(&definition(), NOW_S).unwrap();
    assert!(verified.nodes()[0].expires_ms() < NOW_S * 1000);
}

#[test]
fn a_bottle_that_is_not_valid_is_named_by_its_place() {
    let good = || minimal(6).sign(&key(6)).unwrap();
    let mut forged = minimal(7).sign(&key(7)).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    let mut local = minimal(7);
    local.scope = Scope::Local;
    let mut long_lived = minimal(7);
    long_lived.link_key_expiry_s += 90 * DAY_S;
    let cases = [
        (forged, BottleError::Signature),
        (good()[..100].to_vec(), BottleError::Encoding(CborError::Cut)),
        (local.sign(&key(7)).unwrap(), BottleError::Field(BottleKey::Scope)),
        (long_lived.sign(&key(7)).unwrap(), BottleError::Field(BottleKey::LinkKeyExpiry)),
    ];
    for (bad, why) in cases {
        let list = with_fields(&[(6, array(&[bytes(&good()), bytes(&bad)]))]);
        assert_eq!(refusal(&list), ListError::Node { index: 1, why });
    }
}

#[test]
fn two_bottles_of_one_node_are_refused() {
    let node = minimal(6).sign(&key(6)).unwrap();
    let list = with_fields(&[(6, array(&[bytes(&node), bytes(&old_bottle(6))]))]);
    let named = port17_proto::ids::NodeId::of(&key(6).public());
    assert_eq!(refusal(&list), ListError::TwoBottles(named));
}

// ---- Parameters ----

#[test]
fn parameters_of_a_list_are_checked_and_named() {
    // 42 is hops.
    let error = refusal(&with_fields(&[(7, map(&[(42, uint(7))]))]));
    assert!(matches!(error, ListError::Params(error) if error.name == "hops"), "{error}");
    let error = refusal(&with_fields(&[(7, map(&[(42, text("4"))]))]));
    assert!(matches!(error, ListError::Params(error) if error.name == "hops"), "{error}");
    let list = with_fields(&[(7, map(&[(42, uint(5))]))]).verify(&definition(), NOW_S).unwrap();
    assert_eq!(list.params(), &Params { hops: 5, ..Params::DEFAULT });
}

#[test]
fn parameters_of_a_later_version_are_skipped_and_stay_signed() {
    let later = with_fields(&[(7, map(&[(42, uint(5)), (9999, array(&[uint(1), text("later")]))]))]);
    let verified = later.clone().verify(&definition(), NOW_S).unwrap();
    assert_eq!(verified.params().hops, 5);
    assert_eq!(verified.signed(), &later);
}

#[test]
fn the_lives_of_a_lists_bottles_are_those_of_its_parameters() {
    // 6 is link_key_lifetime: an hour.
    let list = with_fields(&[(7, map(&[(6, uint(3_600_000))]))]);
    let why = BottleError::Field(BottleKey::LinkKeyExpiry);
    assert_eq!(refusal(&list), ListError::Node { index: 0, why });
}

// ---- What people read ----

#[test]
fn a_list_can_shorten_the_life_of_circuit_keys_whatever_its_nodes_have_now() {
    let hours = |hours: u64| std::time::Duration::from_secs(hours * 3600);
    let lives = Params { circuit_key_lifetime: hours(3), circuit_key_interval: hours(1), ..Params::DEFAULT };
    let bottle = UnverifiedBottle::parse(&content().nodes[0]).unwrap();
    assert!(bottle.verify_of_any_age(&lives.bottle_rules()).is_err(), "such a Bottle is no hop any more");
    let shorter = ListContent { params: lives, ..content() };
    assert!(verdict(&signed(&shorter), NOW_S).is_ok());
}

#[test]
fn every_refusal_says_what_to_do() {
    let id = NetworkId([8; 32]);
    let cases = [
        (ListError::NotAList, "check that the file"),
        (ListError::Encoding(CborError::Cut), "fetch it again"),
        (ListError::NewerVersion, "update this software"),
        (ListError::OtherNetwork { found: id, wanted: definition().id() }, "check the network file"),
        (ListError::TooFewSignatures { valid: 1, wanted: 2, roots: 3 }, "1 of the 2"),
        (ListError::Expired { for_s: 3 * DAY_S + 7200 }, "3 d 2 h ago: fetch a newer one"),
        (ListError::Future { by_s: 7260 }, "2 h 1 min in the future: check this machine's clock"),
        (ListError::Node { index: 1, why: BottleError::Signature }, "node 2 of the list"),
    ];
    for (error, words) in cases {
        assert!(error.to_string().contains(words), "{error}");
    }
}

// ---- Anything at all ----

proptest! {
    #[test]
    fn made_up_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = SignedList::decode(&bytes);
        let _ = signed_by(bytes, &[41, 42]).verify_whatever_age(&definition());
    }

    #[test]
    fn a_changed_byte_is_refused_or_does_not_matter(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut bytes = signed(&content()).encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let verdict = SignedList::decode(&bytes).and_then(|list| list.verify(&definition(), NOW_S));
        prop_assert!(verdict.is_err());
    }
}
