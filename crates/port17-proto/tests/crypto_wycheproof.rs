//! Project Wycheproof's cases through our own module, as Port17 calls it. Where our rule is stricter, the test says so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use port17_proto::crypto::{AeadKey, EphemeralKey, Prk, Secret, TAG_BYTES, VerifyingKey, hmac};
use wycheproof::{TestResult, aead, eddsa, hkdf, mac, xdh};

#[test]
fn aes_256_gcm() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let mut tried = 0;
    for group in set.test_groups.iter().filter(|group| (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128)) {
        for test in &group.tests {
            let (key, nonce) = (Secret::new(test.key[..].try_into().unwrap()), test.nonce[..].try_into().unwrap());
            let key = AeadKey::new(&key);
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let valid = test.result == TestResult::Valid;

            let mut in_place = sealed.clone();
            let opened = key.open(nonce, &test.aad, &mut in_place);
            assert_eq!(opened.ok().map(|plain| plain.to_vec()), valid.then(|| test.pt.to_vec()), "open {}", test.tc_id);

            let mut out = vec![0; sealed.len() - TAG_BYTES];
            let opened = key.open_into(nonce, &test.aad, &sealed, &mut out);
            assert_eq!(opened.is_ok(), valid, "open_into {}", test.tc_id);
            assert!(!valid || out == test.pt[..]);

            let mut in_place = test.pt.to_vec();
            let tag = key.seal(nonce, &test.aad, &mut in_place);
            assert_eq!(in_place == test.ct[..] && tag == test.tag[..], valid, "seal {}", test.tc_id);
            tried += 1;
        }
    }
    assert!(tried > 60, "only {tried} cases");
}

#[test]
fn ed25519_with_the_stricter_rule() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let (mut tried, mut stricter) = (0, Vec::new());
    for group in &set.test_groups {
        let key = VerifyingKey(group.key.pk[..].try_into().unwrap());
        for test in &group.tests {
            let verdict = test.sig[..].try_into().is_ok_and(|signature| key.verify("", &[&test.msg], signature).is_ok());
            if test.result == TestResult::Invalid {
                assert!(!verdict, "{} {}", test.tc_id, test.comment);
            } else if !verdict {
                stricter.push(test.tc_id);
            }
            tried += 1;
        }
    }
    assert!(tried > 100, "only {tried} cases");
    // No valid case of this set has a small-order or non-canonical A or R: the stricter rule costs none of them.
    assert_eq!(stricter, Vec::<usize>::new());
}

#[test]
fn x25519_without_zero_secrets() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let mut tried = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            let key = EphemeralKey::from_secret(&Secret::new(test.private_key[..].try_into().unwrap()));
            let Ok(peer) = test.public_key[..].try_into() else {
                assert_ne!(test.result, TestResult::Valid);
                continue;
            };
            // Stricter than the set, which calls a secret of zero acceptable: ours refuses it.
            let zero = test.shared_secret.iter().all(|byte| *byte == 0);
            match key.exchange(&peer) {
                Ok(shared) => assert!(!zero && shared.expose()[..] == test.shared_secret[..], "{}", test.tc_id),
                Err(_) => assert!(zero && test.result != TestResult::Valid, "{} {}", test.tc_id, test.comment),
            }
            tried += 1;
        }
    }
    assert!(tried > 500, "only {tried} cases");
}

#[test]
fn hkdf_sha_256() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap();
    let mut tried = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            let prk = Prk::extract(&test.salt, &test.ikm);
            let mut okm = vec![0; test.size];
            let result = prk.expand_into(&test.info, &mut okm);
            assert_eq!(result.is_ok(), test.result == TestResult::Valid, "{} {}", test.tc_id, test.comment);
            assert!(result.is_err() || okm == test.okm[..], "{} {}", test.tc_id, test.comment);
            tried += 1;
        }
    }
    assert!(tried > 80, "only {tried} cases");
}

#[test]
fn hmac_sha_256() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let mut tried = 0;
    // Port17 has keys of 32 bytes alone; some tags are truncated, as conf is.
    for group in set.test_groups.iter().filter(|group| group.key_size == 256) {
        for test in &group.tests {
            let tag = hmac(&Secret::new(test.key[..].try_into().unwrap()), &test.msg);
            let same = tag[..group.tag_size / 8] == test.tag[..];
            assert_eq!(same, test.result == TestResult::Valid, "{} {}", test.tc_id, test.comment);
            tried += 1;
        }
    }
    assert!(tried > 50, "only {tried} cases");
}
