use port17::client::tunnel::{Host, Isolation, Target};
use tokio::io::AsyncWriteExt;

use crate::world::{FAILURES, World, credentials, named, read_all, read_exactly};

const HELLO: &[u8] = &[5, 1, 0];
const GRANTED: &[u8] = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

fn request(command: u8, kind: u8, address: &[u8], port: u16) -> Vec<u8> {
    [&[5, command, 0, kind], address, &port.to_be_bytes()].concat()
}

fn connect_name(name: &str, port: u16) -> Vec<u8> {
    request(1, 3, &[&[u8::try_from(name.len()).unwrap()], name.as_bytes()].concat(), port)
}

/// The reply to a whole conversation sent at once, without the method's choice.
async fn reply_to(world: &World, request: &[u8]) -> Vec<u8> {
    let answer = world.exchange_open(&[HELLO, request].concat()).await;
    assert_eq!(answer[..2], [5, 0]);
    answer[2..].to_vec()
}

fn refusal(code: u8) -> Vec<u8> {
    vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

#[tokio::test]
async fn connect_carries_bytes_and_half_closes() {
    let world = World::echo().await;
    let mut stream = world.connect().await;
    stream.write_all(HELLO).await.unwrap();
    assert_eq!(read_exactly(&mut stream, 2).await, [5, 0]);
    stream.write_all(&connect_name("Origin.Demo.", 80)).await.unwrap();
    assert_eq!(read_exactly(&mut stream, 10).await, GRANTED);
    stream.write_all(b"there and back").await.unwrap();
    assert_eq!(read_exactly(&mut stream, 14).await, b"there and back");
    stream.write_all(b"last").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, b"last");
    assert_eq!(world.opened()[0].target, named("origin.demo", 80));
    assert_eq!(world.opened()[0].isolation, Isolation::default());
}

#[tokio::test]
async fn addresses_and_names_become_targets() {
    let world = World::echo().await;
    let ip = |text: &str| Target { host: Host::Ip(text.parse().unwrap()), port: 443 };
    let mut v6 = [0; 16];
    v6[15] = 1;
    for (request, target) in [
        (request(1, 1, &[192, 0, 2, 1], 443), ip("192.0.2.1")),
        (request(1, 4, &v6, 443), ip("::1")),
        (connect_name("192.0.2.7", 443), ip("192.0.2.7")),
        (connect_name("2001:db8::7", 443), ip("2001:db8::7")),
        (connect_name("[2001:db8::8]", 443), ip("2001:db8::8")),
        (connect_name("xn--bcher-kva.EXAMPLE", 443), named("xn--bcher-kva.example", 443)),
    ] {
        let answer = world.exchange(&[HELLO, &request].concat()).await;
        assert_eq!(answer[2..], *GRANTED, "{target:?}");
        assert_eq!(world.opened().last().unwrap().target, target);
    }
}

#[tokio::test]
async fn every_failure_has_its_reply_code() {
    let world = World::echo().await;
    for ((name, error), code) in FAILURES.iter().zip([5, 4, 2, 6, 1, 1, 3]) {
        assert_eq!(reply_to(&world, &connect_name(name, 80)).await, refusal(code), "{error:?}");
    }
}

#[tokio::test]
async fn a_mesh_without_an_answer_gives_ttl_expired() {
    let world = World::echo().await;
    assert_eq!(reply_to(&world, &connect_name("never.test", 80)).await, refusal(6));
}

#[tokio::test]
async fn bind_and_udp_are_not_supported_commands() {
    let world = World::echo().await;
    for command in [0, 2, 3, 255] {
        assert_eq!(reply_to(&world, &request(command, 1, &[0; 4], 0)).await, refusal(7), "command {command}");
    }
    assert!(world.opened().is_empty());
}

#[tokio::test]
async fn unknown_address_types_are_refused() {
    let world = World::echo().await;
    for kind in [0, 2, 5, 255] {
        assert_eq!(reply_to(&world, &request(1, kind, &[1, 2, 3, 4], 80)).await, refusal(8), "type {kind}");
    }
}

#[tokio::test]
async fn a_wrong_version_in_the_request_is_a_general_failure() {
    let world = World::echo().await;
    let mut request = connect_name("origin.demo", 80);
    request[0] = 4;
    assert_eq!(reply_to(&world, &request).await, refusal(1));
}

#[tokio::test]
async fn what_is_no_name_is_host_unreachable() {
    let world = World::echo().await;
    let (long_label, longest) = ("a".repeat(64), "a.".repeat(127) + "b");
    for name in ["", "a b", "bücher.example", "127.1", long_label.as_str(), longest.as_str()] {
        assert_eq!(reply_to(&world, &connect_name(name, 80)).await, refusal(4), "{name:?}");
    }
    assert_eq!(reply_to(&world, &connect_name("origin.demo", 0)).await, refusal(4));
    assert!(world.opened().is_empty());
}

#[tokio::test]
async fn without_a_known_method_there_is_none() {
    let world = World::echo().await;
    for hello in [&[5, 0][..], &[5, 1, 1], &[5, 2, 1, 3]] {
        assert_eq!(world.exchange_open(hello).await, [5, 0xff], "{hello:?}");
    }
}

#[tokio::test]
async fn user_name_and_password_are_asked_for_and_isolate() {
    let world = World::echo().await;
    let password = [&[5, 2, 0, 2, 1, 4][..], b"user", &[6], b"secret", &connect_name("origin.demo", 80)].concat();
    let answer = world.exchange(&password).await;
    assert_eq!(answer, [&[5, 2, 1, 0], GRANTED].concat());
    let longest = [&[5, 1, 2, 1, 255][..], &[7; 255], &[255], &[8; 255], &connect_name("origin.demo", 80)].concat();
    assert_eq!(world.exchange(&longest).await, [&[5, 2, 1, 0], GRANTED].concat());
    let empty = [&[5, 1, 2, 1, 0, 0][..], &connect_name("origin.demo", 80)].concat();
    assert_eq!(world.exchange(&empty).await, [&[5, 2, 1, 0], GRANTED].concat());
    let isolations: Vec<Isolation> = world.opened().into_iter().map(|opened| opened.isolation).collect();
    assert_eq!(isolations, [credentials(b"user", b"secret"), credentials(&[7; 255], &[8; 255]), credentials(b"", b"")]);
}

#[tokio::test]
async fn a_wrong_version_of_the_password_message_fails_it() {
    let world = World::echo().await;
    assert_eq!(world.exchange_open(&[5, 1, 2, 5, 1, b'a', 1, b'b']).await, [5, 2, 1, 1]);
}

#[tokio::test]
async fn data_sent_with_the_request_is_not_lost() {
    let world = World::echo().await;
    let data: Vec<u8> = (0..200_000u32).map(|at| at.to_be_bytes()[3]).collect();
    let answer = world.exchange(&[HELLO, &connect_name("origin.demo", 80), &data].concat()).await;
    assert_eq!(answer[2..12], *GRANTED);
    assert!(answer[12..] == data, "{} bytes came back", answer.len() - 12);
    assert!(world.opened()[0].first_data.len() < 4096, "what is kept before the stream is open is bounded");
}

#[tokio::test]
async fn cut_at_every_byte_it_ends_without_a_hang() {
    let world = World::echo().await;
    let whole = [&[5, 1, 2, 1, 4][..], b"user", &[6], b"secret", &connect_name("origin.demo", 80)].concat();
    for cut in 0..whole.len() {
        let answer = world.exchange(&whole[..cut]).await;
        assert!(answer.len() <= 4, "only the negotiation is answered: {answer:?}");
    }
    assert!(world.opened().is_empty());
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_meets_the_deadline() {
    let world = World::echo().await;
    let whole = [HELLO, &connect_name("origin.demo", 80)].concat();
    for cut in [0, 1, 2, 4, 6, 9, whole.len() - 1] {
        let answer = world.exchange_open(&whole[..cut]).await;
        assert!(answer.len() <= 2, "{answer:?}");
    }
    assert!(world.opened().is_empty());
}

#[tokio::test]
async fn one_byte_at_a_time_is_a_request_too() {
    let world = World::echo().await;
    let mut stream = world.connect().await;
    for byte in [HELLO, &connect_name("origin.demo", 80), b"x"].concat() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = read_exactly(&mut stream, 13).await;
    assert_eq!(answer, [&[5, 0], GRANTED, b"x"].concat());
}
