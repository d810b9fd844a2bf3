//! X-Wing (spec 02, 4) against its draft's vectors and our own, on both ML-KEM backends and across them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use port17_proto::crypto::{CIPHERTEXT_BYTES, Entropy, KemBackend, KemPublicKey, KemSecretKey, PUBLIC_KEY_BYTES, Secret};
use serde_json::Value;

const VECTORS: &str = include_str!("../../../docs/spec/vectors/xwing.json");
const BACKENDS: [KemBackend; 2] = [KemBackend::AwsLc, KemBackend::Seeded];

fn hex<const N: usize>(text: &Value) -> [u8; N] {
    let text = text.as_str().unwrap();
    let bytes: Vec<u8> = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn check_vector(vector: &Value) {
    let (seed, public, ct) = (hex(&vector["seed"]), hex(&vector["public_key"]), hex(&vector["ciphertext"]));
    let expected: [u8; 32] = hex(&vector["shared_secret"]);
    for backend in BACKENDS {
        let key = KemSecretKey::from_seed_on(backend, &Secret::new(seed)).unwrap();
        assert!(key.public().as_bytes() == &public, "{}: {backend:?}", vector["name"]);
        assert_eq!(key.decapsulate(&ct).unwrap().expose(), &expected, "{}: {backend:?}", vector["name"]);
    }
    if vector["encapsulation_seed"].is_string() {
        let seed = Secret::new(hex(&vector["encapsulation_seed"]));
        let (made, shared) = KemPublicKey::from_bytes(public).encapsulate_from_seed(&seed).unwrap();
        assert!(made == ct, "{}", vector["name"]);
        assert_eq!(shared.expose(), &expected, "{}", vector["name"]);
    }
}

#[test]
fn the_vectors_of_the_draft_hold_on_both_backends() {
    let vectors = vectors();
    let draft = vectors["draft"].as_array().unwrap();
    assert_eq!(draft.len(), 3);
    draft.iter().for_each(check_vector);
}

#[test]
fn our_vectors_with_implicit_rejection_hold_on_both_backends() {
    let vectors = vectors();
    let own = vectors["own"].as_array().unwrap();
    assert!(own.len() >= 6);
    own.iter().for_each(check_vector);
}

#[test]
fn each_backend_opens_what_the_other_sealed() {
    let mut entropy = Entropy::from_number(1);
    for keeper in BACKENDS {
        for sender in BACKENDS {
            for _ in 0..20 {
                let key = KemSecretKey::generate(keeper, &mut entropy).unwrap();
                let (ct, sent) = key.public().encapsulate(sender, &mut entropy).unwrap();
                let received = key.decapsulate(&ct).unwrap();
                assert_eq!(sent.expose(), received.expose(), "{keeper:?} from {sender:?}");
            }
        }
    }
}

#[test]
fn a_changed_ciphertext_gives_another_secret() {
    let mut entropy = Entropy::from_number(2);
    for backend in BACKENDS {
        let key = KemSecretKey::generate(backend, &mut entropy).unwrap();
        let (ct, sent) = key.public().encapsulate(backend, &mut entropy).unwrap();
        for at in (0..CIPHERTEXT_BYTES).step_by(37).chain([1087, 1088, CIPHERTEXT_BYTES - 1]) {
            let mut changed = ct;
            changed[at] ^= 1 << (at % 8);
            let received = key.decapsulate(&changed).unwrap();
            assert_ne!(sent.expose(), received.expose(), "{backend:?}, byte {at}");
        }
    }
}

#[test]
fn two_encapsulations_share_nothing() {
    let mut entropy = Entropy::from_number(3);
    for backend in BACKENDS {
        let key = KemSecretKey::generate(backend, &mut entropy).unwrap();
        let (one, secret) = key.public().encapsulate(backend, &mut entropy).unwrap();
        let (other, other_secret) = key.public().encapsulate(backend, &mut entropy).unwrap();
        assert!(one[..1088] != other[..1088] && one[1088..] != other[1088..]);
        assert_ne!(secret.expose(), other_secret.expose());
    }
}

#[test]
fn the_seed_determines_what_the_seeded_backend_makes() {
    let make = |seed| {
        let mut entropy = Entropy::from_number(seed);
        let key = KemSecretKey::generate(KemBackend::Seeded, &mut entropy).unwrap();
        let (ct, shared) = key.public().encapsulate(KemBackend::Seeded, &mut entropy).unwrap();
        (*key.public().as_bytes(), ct, *shared.expose())
    };
    assert!(make(4) == make(4));
    assert!(make(4) != make(5));
}

#[test]
fn keys_that_are_not_canonical_or_of_small_order_are_refused() {
    let vectors = vectors();
    let mut entropy = Entropy::from_number(6);
    for refused in vectors["refused_keys"].as_array().unwrap() {
        let key = KemPublicKey::from_bytes(hex::<PUBLIC_KEY_BYTES>(&refused["public_key"]));
        for backend in BACKENDS {
            assert!(key.encapsulate(backend, &mut entropy).is_err(), "{}: {backend:?}", refused["name"]);
        }
    }
}

#[test]
fn ciphertexts_with_a_share_of_small_order_are_refused() {
    let vectors = vectors();
    for refused in vectors["refused_ciphertexts"].as_array().unwrap() {
        for backend in BACKENDS {
            let key = KemSecretKey::from_seed_on(backend, &Secret::new(hex(&refused["seed"]))).unwrap();
            assert!(key.decapsulate(&hex(&refused["ciphertext"])).is_err(), "{}: {backend:?}", refused["name"]);
        }
    }
}
