use port17::client::tunnel::{Host, Isolation, Target};

use crate::world::{FAILURES, World, credentials, named};

const GRANTED: &[u8] = &[0, 0x5a, 0, 0, 0, 0, 0, 0];
const REJECTED: &[u8] = &[0, 0x5b, 0, 0, 0, 0, 0, 0];

fn request(command: u8, ip: [u8; 4], port: u16, user: &[u8]) -> Vec<u8> {
    [&[4, command][..], &port.to_be_bytes(), &ip, user, &[0]].concat()
}

fn request_4a(name: &[u8], user: &[u8]) -> Vec<u8> {
    [&request(1, [0, 0, 0, 1], 80, user)[..], name, &[0]].concat()
}

#[tokio::test]
async fn addresses_and_names_become_targets_and_user_ids_isolate() {
    let world = World::echo().await;
    let answer = world.exchange(&[&request(1, [192, 0, 2, 1], 80, b"")[..], b"data"].concat()).await;
    assert_eq!(answer, [GRANTED, b"data"].concat());
    let answer = world.exchange(&[&request_4a(b"Origin.Demo", b"user")[..], b"data"].concat()).await;
    assert_eq!(answer, [GRANTED, b"data"].concat());
    let opened = world.opened();
    assert_eq!(opened[0].target, Target { host: Host::Ip([192, 0, 2, 1].into()), port: 80 });
    assert_eq!(opened[0].isolation, Isolation::default());
    assert_eq!(opened[1].target, named("origin.demo", 80));
    assert_eq!(opened[1].isolation, credentials(b"user", b""));
}

#[tokio::test]
async fn every_failure_is_rejected() {
    let world = World::echo().await;
    for (name, error) in FAILURES {
        assert_eq!(world.exchange_open(&request_4a(name.as_bytes(), b"")).await, REJECTED, "{error:?}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_rejected() {
    let world = World::echo().await;
    for request in [
        request(2, [192, 0, 2, 1], 80, b""),
        request(1, [192, 0, 2, 1], 0, b""),
        request(1, [192, 0, 2, 1], 80, &[b'u'; 256]),
        request_4a(b"", b""),
        request_4a(b"a b", b""),
        request_4a(&[b'n'; 256], b""),
        request_4a(&[0xff, 0xfe], b""),
    ] {
        assert_eq!(world.exchange_open(&request).await, REJECTED, "{request:?}");
    }
    assert!(world.opened().is_empty());
}

#[tokio::test]
async fn cut_at_every_byte_it_ends_without_a_hang() {
    let world = World::echo().await;
    let whole = request_4a(b"origin.demo", b"user");
    for cut in 0..whole.len() {
        assert_eq!(world.exchange(&whole[..cut]).await, [0; 0], "cut at {cut}");
    }
    assert!(world.exchange_open(&whole[..whole.len() - 1]).await.is_empty(), "a client that stops meets the deadline");
    assert!(world.opened().is_empty());
}
