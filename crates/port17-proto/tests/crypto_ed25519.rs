//! The one Ed25519 rule of spec 02, 3: the committed edge cases, and agreement with an independent implementation.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ed25519_dalek::{Signer, SigningKey as OracleKey, VerifyingKey as OracleVerifyingKey};
use port17_proto::crypto::{Entropy, Secret, Signature, SigningKey, VerifyingKey};
use proptest::prelude::*;
use serde_json::Value;

const VECTORS: &str = include_str!("../../../docs/spec/vectors/ed25519.json");

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn cases() -> Vec<Value> {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    ["published", "own"].iter().flat_map(|list| vectors[list].as_array().unwrap().clone()).collect()
}

fn parts(case: &Value) -> (VerifyingKey, Vec<u8>, Signature) {
    let key = VerifyingKey(hex(&case["public_key"]).try_into().unwrap());
    (key, hex(&case["message"]), hex(&case["signature"]).try_into().unwrap())
}

#[test]
fn every_edge_case_has_the_verdict_of_the_rule() {
    let cases = cases();
    for case in &cases {
        let (key, message, signature) = parts(case);
        let verdict = key.verify("", &[&message], &signature);
        assert_eq!(verdict.is_ok(), case["valid"].as_bool().unwrap(), "{}: {}", case["name"], case["why"]);
    }
    assert!(cases.len() >= 81, "a list of cases is missing");
}

#[test]
fn no_key_of_small_order_or_other_encoding_passes_the_check() {
    for case in cases() {
        let (key, _, _) = parts(&case);
        let name = case["name"].as_str().unwrap();
        let expected = !name.starts_with("A = ") && !case["why"].as_str().unwrap().contains("small-order A");
        // Cases 10 and 11 of the paper have a key that is not canonical.
        let expected = expected && !case["why"].as_str().unwrap().starts_with("A not canonical");
        assert_eq!(key.check().is_ok(), expected, "{name}");
    }
}

/// The oracle's strict verification takes nothing that the rule refuses, canonical encodings aside, which it does not look at.
#[test]
fn the_oracle_agrees_on_every_edge_case() {
    for case in cases() {
        let (key, message, signature) = parts(&case);
        let strict = OracleVerifyingKey::from_bytes(&key.0).and_then(|oracle| oracle.verify_strict(&message, &signature.into()));
        assert_eq!(strict.is_ok(), case["valid"].as_bool().unwrap(), "{}: {}", case["name"], case["why"]);
    }
}

#[test]
fn a_signature_is_for_its_tag_alone() {
    let key = SigningKey::generate(&mut Entropy::from_number(1));
    let signature = key.sign("p17-one-v1", &[b"message"]);
    assert!(key.public().verify("p17-one-v1", &[b"mess", b"age"], &signature).is_ok());
    assert!(key.public().verify("p17-two-v1", &[b"message"], &signature).is_err());
    assert!(key.public().verify("p17-one-v1", &[b"messag"], &signature).is_err());
}

proptest! {
    #[test]
    fn ours_and_the_oracle_sign_and_verify_alike(
        seed: [u8; 32],
        message in proptest::collection::vec(any::<u8>(), 0..300),
        flip in 0usize..512,
    ) {
        let (ours, oracle) = (SigningKey::from_seed(Secret::new(seed)), OracleKey::from_bytes(&seed));
        prop_assert_eq!(ours.public().0, oracle.verifying_key().to_bytes());
        prop_assert_eq!(ours.seed().expose(), &seed);

        let signature = ours.sign("p17-tag-v1", &[&message]);
        let tagged = [&b"p17-tag-v1"[..], &message].concat();
        prop_assert_eq!(signature, oracle.sign(&tagged).to_bytes());
        prop_assert!(ours.public().verify("p17-tag-v1", &[&message], &signature).is_ok());
        prop_assert!(oracle.verifying_key().verify_strict(&tagged, &signature.into()).is_ok());

        let mut changed = signature;
        changed[flip / 8] ^= 1 << (flip % 8);
        prop_assert!(ours.public().verify("p17-tag-v1", &[&message], &changed).is_err());
        prop_assert!(oracle.verifying_key().verify_strict(&tagged, &changed.into()).is_err());
    }

    #[test]
    fn arbitrary_keys_and_signatures_are_refused_alike(key: [u8; 32], r: [u8; 32], s: [u8; 32], message: [u8; 8]) {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(&s);
        prop_assert!(VerifyingKey(key).verify("", &[&message], &signature).is_err());
        let oracle = OracleVerifyingKey::from_bytes(&key).and_then(|oracle| oracle.verify_strict(&message, &signature.into()));
        prop_assert!(oracle.is_err());
    }
}
