//! Circuits in memory: client and hops joined by function calls, every byte as it would be on the wire (spec 06).

mod route;

use port17_proto::circuit::created::CreatedError;
use port17_proto::circuit::depth::Depth;
use port17_proto::circuit::onion::{CellKind, OPENED_AREA};
use port17_proto::circuit::origin::{Answer, Origin, OriginError, OriginForward};
use port17_proto::circuit::replay::{ReplayError, slot_of};
use port17_proto::circuit::setup::{
    OriginSetup, RouteError, RouteHop, SetupError, SetupInfo, SetupPacket, SetupParts, draw_offset,
};
use port17_proto::crypto::{CryptoError, Entropy, KemBackend, KemPublicKey, PUBLIC_KEY_BYTES};
use port17_proto::ids::NodeId;
use port17_proto::wire::registry::{
    BODY_BYTES, FRAME_BYTES, HEADER_BYTES, HopKind, MAX_HOPS, MESSAGE_BYTES, SETUP_BYTES, SUITE, SetupStatus, VERSION,
};
use proptest::prelude::*;
use route::{Frame, NOW, Node, Route, message, nodes};

// ---- A whole circuit ----

#[test]
fn circuits_of_every_length_and_offset_carry_messages_both_ways() {
    for hops in 1..=MAX_HOPS {
        for offset in 0..=MAX_HOPS - hops {
            let mut route = Route::build(hops, offset as u8, 7);
            // The first flight, before CREATED.
            route.send(hops - 1, 1).unwrap();
            route.send(0, 2).unwrap();
            assert_eq!(route.complete(), Ok(Answer::Complete), "{hops} hops at {offset}");
            for hop in 0..hops {
                route.send(hop, 10 + hop as u8).unwrap();
                route.answer(hop, 20 + hop as u8).unwrap();
            }
            route.send(hops - 1, 3).unwrap();
            route.answer(hops - 1, 4).unwrap();
        }
    }
}

#[test]
fn both_kem_backends_build_the_same_kind_of_circuit() {
    let mut route = Route::build_with(3, 1, 8, KemBackend::AwsLc);
    assert_eq!(route.complete(), Ok(Answer::Complete));
    route.send(2, 1).unwrap();
    route.answer(2, 2).unwrap();
}

#[test]
fn cells_pass_several_rekeys_in_both_directions() {
    let mut route = Route::build(2, 0, 9);
    route.send(1, 1).unwrap();
    route.complete().unwrap();
    for number in 0..(2u32 << 16) + 3 {
        route.send(1, number as u8).unwrap();
    }
    for number in 0..(1u32 << 16) + 3 {
        route.answer(1, number as u8).unwrap();
    }
}

#[test]
fn fresh_keys_that_come_after_a_rekey_are_ratcheted_as_far() {
    let mut route = Route::build(1, 0, 10);
    for number in 0..(1u32 << 16) + 1 {
        route.send(0, number as u8).unwrap();
    }
    route.complete().unwrap();
    route.send(0, 1).unwrap();
    route.answer(0, 2).unwrap();
}

// ---- SETUP ----

#[test]
fn a_packet_shows_neither_length_nor_next_hop_and_always_fills_four_frames() {
    let mut route = Route::build(3, 2, 11);
    assert_eq!(route.packets.len(), 3);
    for (hop, packet) in route.packets.iter().enumerate() {
        let depth = Depth::new(2 + hop as u8).unwrap();
        assert_eq!(packet.depth(), depth);
        assert_eq!(packet.parts().map(<[u8]>::len).collect::<Vec<_>>(), [BODY_BYTES; 4]);
        assert!(packet.as_bytes()[depth.setup_bytes()..].iter().all(|byte| *byte == 0));
        for node in &route.nodes {
            assert!(!packet.as_bytes().windows(32).any(|window| window == node.id.0));
        }
    }
    assert_eq!(route.complete(), Ok(Answer::Complete));
}

#[test]
fn a_replayed_setup_is_refused_whatever_became_of_the_first() {
    let mut nodes = nodes(2, KemBackend::Seeded, &mut Entropy::from_number(12));
    let (_, packet) = route::origin(&nodes, 0, slot_of(NOW), 12);
    assert!(nodes[0].take(packet.clone(), NOW).is_ok());
    assert_eq!(nodes[0].refusal(packet.clone(), NOW), SetupError::Replay(ReplayError::Replayed));
    assert_eq!(nodes[0].refusal(packet, NOW + 300), SetupError::Replay(ReplayError::Replayed));

    // A slot of the future is refused, and stays used when its time has come.
    let (_, early) = route::origin(&nodes, 0, slot_of(NOW) + 2, 13);
    assert_eq!(nodes[0].refusal(early.clone(), NOW), SetupError::Replay(ReplayError::Slot));
    assert_eq!(nodes[0].refusal(early, NOW + 1800), SetupError::Replay(ReplayError::Replayed));

    // So does nonsense that is authentic.
    let odd = route::record(&nodes[0], Depth::new(0).unwrap(), |info| info[3] = 1, &[]);
    assert_eq!(nodes[0].refusal(odd.clone(), NOW), SetupError::Replay(ReplayError::Slot), "time has gone on");
    let odd_now = route::record_at(&nodes[0], Depth::new(0).unwrap(), slot_of(NOW + 1800), |info| info[3] = 1, &[]);
    assert_eq!(nodes[0].refusal(odd_now.clone(), NOW + 1800), SetupError::Unsupported);
    assert_eq!(nodes[0].refusal(odd_now, NOW + 1800), SetupError::Replay(ReplayError::Replayed));
}

#[test]
fn a_setup_is_served_in_its_slot_the_one_after_and_shortly_before() {
    // Two slots on, so that the nodes, who have seen NOW, count every time below.
    let begin = NOW - NOW % 900 + 1800;
    let slot = slot_of(begin);
    for (at, served) in [(begin - 121, false), (begin - 120, true), (begin, true), (begin + 1799, true), (begin + 1800, false)] {
        let mut nodes = nodes(1, KemBackend::Seeded, &mut Entropy::from_number(14));
        let (_, packet) = route::origin(&nodes, 0, slot, 14);
        assert_eq!(nodes[0].take(packet, at).is_ok(), served, "{} s", at as i64 - begin as i64);
    }
}

#[test]
fn a_node_whose_clock_is_set_back_does_not_serve_a_passed_slot() {
    let mut nodes = nodes(1, KemBackend::Seeded, &mut Entropy::from_number(15));
    let (_, old) = route::origin(&nodes, 0, slot_of(NOW), 15);
    let (_, new) = route::origin(&nodes, 0, slot_of(NOW + 1800), 16);
    assert!(nodes[0].take(new, NOW + 1800).is_ok());
    assert_eq!(nodes[0].refusal(old, NOW), SetupError::Replay(ReplayError::Slot));
}

#[test]
fn an_unknown_or_ended_circuit_key_is_refused() {
    let mut nodes = nodes(2, KemBackend::Seeded, &mut Entropy::from_number(17));
    let (_, packet) = route::origin(&nodes, 0, slot_of(NOW), 17);
    assert_eq!(nodes[1].refusal(packet.clone(), NOW), SetupError::UnknownKey);
    let key = nodes[1].keyring.current().unwrap().clone();
    assert_eq!(packet.clone().open(nodes[1].id, &key).err(), Some(SetupError::UnknownKey));
    assert_eq!(nodes[0].refusal(packet.clone(), NOW + route::LIFETIME), SetupError::UnknownKey);

    // A key that ends between opening and admission admits nothing.
    let key = nodes[0].keyring.current().unwrap().clone();
    let opened = packet.open(nodes[0].id, &key).unwrap();
    nodes[0].keyring.erase_expired(NOW + route::LIFETIME);
    assert_eq!(opened.admit(&mut nodes[0].keyring, NOW).err(), Some(SetupError::UnknownKey));
}

#[test]
fn a_record_opens_only_at_its_own_node() {
    let mut nodes = nodes(2, KemBackend::Seeded, &mut Entropy::from_number(18));
    let (_, packet) = route::origin(&nodes, 0, slot_of(NOW), 18);
    nodes[0].id = nodes[1].id;
    assert_eq!(nodes[0].refusal(packet, NOW), SetupError::Crypto(CryptoError));
}

#[test]
fn a_depth_above_5_and_a_relay_at_5_are_refused() {
    assert_eq!(SetupPacket::new(6, Box::new([0; SETUP_BYTES])).err(), Some(SetupError::Depth));
    assert_eq!(SetupParts::begin(0, 6, &[0; BODY_BYTES]).err(), Some(SetupError::Depth));
    let mut node = nodes(1, KemBackend::Seeded, &mut Entropy::from_number(19)).remove(0);
    let relay = |info: &mut [u8; 72]| info[1] = HopKind::Relay.code();
    let packet = route::record(&node, Depth::DEEPEST, relay, &[]);
    assert_eq!(node.refusal(packet, NOW), SetupError::Depth);
    let packet = route::record(&node, Depth::new(4).unwrap(), relay, &[]);
    assert_eq!(node.take(packet, NOW).unwrap().forward_packet.unwrap().depth(), Depth::DEEPEST);
}

#[test]
fn unknown_version_suite_kind_and_flags_are_refused() {
    let mut node = nodes(1, KemBackend::Seeded, &mut Entropy::from_number(20)).remove(0);
    for (at, value) in [(0, 0), (0, 2), (1, 2), (1, 255), (2, 0), (2, 2), (3, 1), (3, 128)] {
        let packet = route::record(&node, Depth::new(1).unwrap(), |info| info[at] = value, &[]);
        assert_eq!(node.refusal(packet, NOW), SetupError::Unsupported, "byte {at} = {value}");
    }
}

#[test]
fn an_exit_with_a_next_hop_a_token_or_padding_is_refused() {
    let mut node = nodes(1, KemBackend::Seeded, &mut Entropy::from_number(21)).remove(0);
    let depth = Depth::new(3).unwrap();
    let packet = route::record(&node, depth, |info| info[39] = 1, &[]);
    assert_eq!(node.refusal(packet, NOW), SetupError::Padding);
    let packet = route::record(&node, depth, |_| {}, &[1]);
    assert_eq!(node.refusal(packet, NOW), SetupError::Padding);
    let mut rest = vec![0; depth.inner_setup_bytes()];
    rest[depth.inner_setup_bytes() - 1] = 1;
    let packet = route::record(&node, depth, |_| {}, &rest);
    assert_eq!(node.refusal(packet, NOW), SetupError::Padding);
    let packet = route::record(&node, depth, |_| {}, &[]);
    assert!(node.take(packet, NOW).unwrap().forward_packet.is_none());
}

#[test]
fn a_zero_ephemeral_key_of_the_client_is_refused() {
    let mut node = nodes(1, KemBackend::Seeded, &mut Entropy::from_number(22)).remove(0);
    let packet = route::record(&node, Depth::new(0).unwrap(), |info| info[40..].fill(0), &[]);
    let admitted = node.take(packet, NOW).unwrap();
    assert_eq!(admitted.answer(&mut Entropy::from_number(1)).err(), Some(SetupError::Crypto(CryptoError)));
}

#[test]
fn parts_come_in_order_and_belong_together() {
    let body = [7; BODY_BYTES];
    assert!(SetupParts::begin(1, 0, &body).is_err());
    assert!(SetupParts::begin(0, 0, &body[1..]).is_err());
    let mut parts = SetupParts::begin(0, 3, &body).unwrap();
    for (part, delta, body) in [(0, 3, &body[..]), (2, 3, &body), (1, 4, &body), (1, 3, &body[..10]), (255, 3, &body)] {
        assert_eq!(parts.push(part, delta, body), Err(SetupError::Parts));
    }
    assert_eq!(parts.push(1, 3, &body), Ok(false));
    assert_eq!(parts.push(2, 3, &body), Ok(false));
    assert_eq!(parts.push(3, 3, &body), Ok(true));
    assert_eq!(parts.push(4, 3, &body), Err(SetupError::Parts));
    let packet = parts.finish().unwrap();
    assert_eq!((packet.depth().code(), packet.as_bytes()), (3, &[7; SETUP_BYTES]));
    let begun = SetupParts::begin(0, 0, &body).unwrap();
    assert_eq!(begun.finish().err(), Some(SetupError::Parts));
}

#[test]
fn a_route_has_1_to_6_hops_and_an_offset_that_leaves_room() {
    let nodes = nodes(6, KemBackend::Seeded, &mut Entropy::from_number(23));
    let hops: Vec<_> = nodes.iter().chain(&nodes[..1]).map(Node::hop).collect();
    let build = |hops: &[RouteHop], offset| {
        OriginSetup::new(hops, offset, 0, KemBackend::Seeded, &mut Entropy::from_number(1)).map(|_| ()).err()
    };
    assert_eq!(build(&[], 0), Some(RouteError::Length));
    assert_eq!(build(&hops, 0), Some(RouteError::Length));
    assert_eq!(build(&hops[..6], 1), Some(RouteError::Length));
    assert_eq!(build(&hops[..1], 6), Some(RouteError::Length));
    assert_eq!(build(&hops[..1], 255), Some(RouteError::Length));
    assert_eq!(build(&hops[..6], 0), None);
    assert_eq!(build(&hops[..1], 5), None);
}

#[test]
fn a_circuit_key_that_is_no_key_names_its_hop() {
    let nodes = nodes(2, KemBackend::Seeded, &mut Entropy::from_number(24));
    let bad = RouteHop { node: NodeId([9; 32]), key: KemPublicKey::from_bytes([0xff; PUBLIC_KEY_BYTES]) };
    for backend in [KemBackend::Seeded, KemBackend::AwsLc] {
        let hops = [nodes[0].hop(), RouteHop { node: bad.node, key: bad.key.clone() }];
        let built = OriginSetup::new(&hops, 0, 0, backend, &mut Entropy::from_number(1));
        assert_eq!(built.err(), Some(RouteError::Key { hop: 1 }));
    }
}

#[test]
fn offsets_use_all_places_that_are_left() {
    let mut entropy = Entropy::from_number(25);
    for hops in 1..=MAX_HOPS {
        for as_client_of_a_node in [false, true] {
            let seen: std::collections::BTreeSet<_> =
                (0..500).map(|_| draw_offset(hops, as_client_of_a_node, &mut entropy)).collect();
            let least = usize::from(as_client_of_a_node && hops <= 5);
            let expected: Vec<_> = (least..=MAX_HOPS - hops).map(|offset| offset as u8).collect();
            assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected, "{hops} hops");
        }
    }
    assert_eq!(draw_offset(9, true, &mut entropy), 0);
}

// ---- CREATED ----

#[test]
fn each_hop_can_refuse_and_the_client_learns_who_and_why() {
    for hops in 1..=4 {
        for refusing in 0..hops {
            for status in SetupStatus::ALL.iter().filter(|status| **status != SetupStatus::Ok) {
                let mut route = Route::build(hops, 1, 30);
                let body = route.created_from(refusing, *status);
                assert_eq!(route.origin.handle_created(&body[..]), Ok(Answer::Failed { hop: refusing, status: *status }));
                assert_eq!(route.origin.handle_created(&body[..]), Err(OriginError::OutOfTurn));
                assert_eq!(route.origin.open(&mut [0; BODY_BYTES]), Err(OriginError::OutOfTurn));
            }
        }
    }
}

#[test]
fn a_second_created_ends_the_circuit() {
    let mut route = Route::build(2, 0, 31);
    let body = route.created_from(1, SetupStatus::Ok);
    assert_eq!(route.origin.handle_created(&body[..]), Ok(Answer::Complete));
    assert_eq!(route.origin.handle_created(&body[..]), Err(OriginError::OutOfTurn));
    assert!(route.answer(1, 1).is_err());
}

#[test]
fn a_backward_cell_before_created_is_out_of_turn() {
    let mut route = Route::build(2, 0, 32);
    let mut body = route.answer_bodies(1, 5).pop().unwrap();
    assert_eq!(route.origin.open(&mut body), Err(OriginError::OutOfTurn));
}

#[test]
fn a_relay_that_says_ok_with_nothing_behind_it_is_found_out() {
    let mut route = Route::build(3, 0, 33);
    let first = route.hops.remove(0).created.unwrap();
    let body = first.answer(SetupStatus::Ok);
    assert_eq!(route.origin.handle_created(&body[..]), Err(OriginError::Created(CreatedError { hop: 1 })));
}

#[test]
fn a_relay_checks_that_nothing_stands_behind_the_inner_layer() {
    let mut route = Route::build(2, 0, 34);
    let mut inner = route.hops[1].created.take().unwrap().answer(SetupStatus::Ok);
    inner[Depth::new(1).unwrap().created_bytes()] = 1;
    assert_eq!(route.hops[0].created.take().unwrap().relay(&inner[..]).err(), Some(CryptoError));
    let mut route = Route::build(2, 0, 34);
    assert_eq!(route.hops[0].created.take().unwrap().relay(&inner[1..]).err(), Some(CryptoError));
}

#[test]
fn created_of_the_wrong_length_is_refused() {
    for length in [0, 1, BODY_BYTES - 1, BODY_BYTES + 1] {
        let mut route = Route::build(1, 0, 35);
        assert!(route.origin.handle_created(&vec![0; length]).is_err());
    }
}

// ---- Cells ----

#[test]
fn every_layer_fills_its_length_and_is_zero_behind_it() {
    let mut route = Route::build(3, 1, 40);
    route.complete().unwrap();
    for (hop, body) in route.send_bodies(2, 6).iter().enumerate() {
        let depth = Depth::new(1 + hop as u8).unwrap();
        assert!(body[depth.cell_bytes()..].iter().all(|byte| *byte == 0));
        assert!(body[..depth.cell_bytes()].iter().rev().take(32).any(|byte| *byte != 0));
    }
    for (hop, body) in route.answer_bodies(2, 6).iter().rev().enumerate() {
        let depth = Depth::new(1 + hop as u8).unwrap();
        assert!(body[depth.cell_bytes()..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn replayed_and_reordered_forward_cells_fail() {
    let mut route = Route::build(2, 0, 41);
    let (first, second, third) = (route.sealed(1, 1), route.sealed(1, 2), route.sealed(1, 3));
    let mut out: Frame = [0; FRAME_BYTES];
    assert_eq!(route.hops[0].forward.open_forward(0, &first, &mut out), Ok(CellKind::Next));
    assert_eq!(route.hops[0].forward.open_forward(0, &first, &mut out), Err(CryptoError));
    assert_eq!(route.hops[0].forward.open_forward(0, &third, &mut out), Err(CryptoError));
    assert_eq!(route.hops[0].forward.open_forward(0, &second, &mut out), Ok(CellKind::Next));
}

#[test]
fn replayed_reordered_and_reflected_backward_cells_fail() {
    let mut route = Route::build(2, 0, 42);
    route.complete().unwrap();
    let first = route.answer_bodies(1, 1).pop().unwrap();
    let second = route.answer_bodies(1, 2).pop().unwrap();
    assert!(route.origin.open(&mut second.clone()).is_err());
    let mut route = Route::build(2, 0, 42);
    route.complete().unwrap();
    assert!(route.origin.open(&mut first.clone()).is_ok());
    assert!(route.origin.open(&mut first.clone()).is_err());
    let mut route = Route::build(2, 0, 42);
    route.complete().unwrap();
    let reflected = route.sealed(1, 1);
    assert!(route.origin.open(&mut reflected.clone()).is_err());
}

#[test]
fn the_first_fresh_cell_erases_the_first_key() {
    let mut route = Route::build(1, 0, 43);
    let mut client = Route::build(1, 0, 43);
    client.send(0, 1).unwrap();
    route.send(0, 1).unwrap();
    let stale = client.sealed(0, 2);
    let before = route.sealed(0, 2);
    assert_eq!(stale, before);

    // A changed or wrongly flagged cell erases nothing.
    let mut out: Frame = [0; FRAME_BYTES];
    let hop = &mut route.hops[0].forward;
    assert_eq!(hop.open_forward(1, &stale, &mut out), Err(CryptoError));
    assert_eq!(hop.open_forward(2, &stale, &mut out), Err(CryptoError));
    assert_eq!(hop.open_forward(0, &stale, &mut out), Ok(CellKind::Message));

    client.complete().unwrap();
    route.complete().unwrap();
    let fresh = route.sealed(0, 3);
    let hop = &mut route.hops[0].forward;
    assert_eq!(hop.open_forward(0, &fresh, &mut out), Err(CryptoError));
    assert_eq!(hop.open_forward(1, &fresh, &mut out), Ok(CellKind::Message));
    // What the first key would still open at this counter is refused now.
    let mut late = Route::build(1, 0, 43);
    let cells: Vec<_> = (0..4).map(|number| late.sealed(0, number)).collect();
    assert_eq!(hop.open_forward(0, &cells[3], &mut out), Err(CryptoError));
}

#[test]
fn a_relay_copies_the_flag_that_it_authenticated() {
    let mut route = Route::build(2, 0, 44);
    route.complete().unwrap();
    let sealed = route.sealed(1, 1);
    let mut out: Frame = [0; FRAME_BYTES];
    assert_eq!(route.hops[0].forward.open_forward(1, &sealed, &mut out), Ok(CellKind::Next));
    let mut last: Frame = [0; FRAME_BYTES];
    assert_eq!(route.hops[1].forward.open_forward(0, &out[HEADER_BYTES..], &mut last), Err(CryptoError));
    assert_eq!(route.hops[1].forward.open_forward(1, &out[HEADER_BYTES..], &mut last), Ok(CellKind::Message));
}

#[test]
fn cells_of_the_wrong_length_fail() {
    let mut route = Route::build(2, 0, 45);
    let body = route.sealed(1, 1);
    let mut out: Frame = [0; FRAME_BYTES];
    for length in [0, 1, 16, 2022, BODY_BYTES - 1] {
        assert_eq!(route.hops[0].forward.open_forward(0, &body[..length], &mut out), Err(CryptoError));
    }
    route.complete().unwrap();
    for length in [0, 1, 16, BODY_BYTES - 1] {
        assert!(route.origin.open(&mut body.to_vec()[..length]).is_err());
    }
}

#[test]
fn padding_behind_a_layer_is_checked_by_everyone() {
    let mut route = Route::build(2, 1, 46);
    route.complete().unwrap();
    let mut out: Frame = [0; FRAME_BYTES];
    let past = Depth::new(1).unwrap().cell_bytes();

    let mut body = route.sealed(1, 1);
    body[past] = 1;
    assert_eq!(route.hops[0].forward.open_forward(1, &body, &mut out), Err(CryptoError));

    let mut frame = route::message_frame(HEADER_BYTES + 1, 2);
    route.hops[1].backward.seal_message_backward(&mut frame);
    frame[FRAME_BYTES - 1] = 1;
    assert_eq!(route.hops[0].backward.seal_backward(&mut frame, &mut out), Err(CryptoError));
    frame[FRAME_BYTES - 1] = 0;
    assert_eq!(route.hops[0].backward.seal_backward(&mut frame, &mut out), Ok(()));
    let mut body: [u8; BODY_BYTES] = out[HEADER_BYTES..].try_into().unwrap();
    body[BODY_BYTES - 1] = 1;
    assert!(route.origin.open(&mut body.clone()).is_err());
    body[BODY_BYTES - 1] = 0;
    assert!(route.origin.open(&mut body).is_ok());
}

#[test]
fn another_layer_under_the_exits_is_refused() {
    let mut route = Route::build(3, 0, 47);
    let mut exit = route.second_hop_as_exit(47);
    let body = route.sealed(2, 1);
    let mut out: Frame = [0; FRAME_BYTES];
    assert_eq!(route.hops[0].forward.open_forward(0, &body, &mut out), Ok(CellKind::Next));
    // The same authentic cell: a relay passes it on, an exit must not find a layer inside.
    assert_eq!(exit.open_forward(0, &out[HEADER_BYTES..], &mut [0; FRAME_BYTES]), Err(CryptoError));
    assert_eq!(route.hops[1].forward.open_forward(0, &out[HEADER_BYTES..], &mut [0; FRAME_BYTES]), Ok(CellKind::Next));
}

#[test]
fn the_last_hop_cannot_speak_for_one_behind_it() {
    let mut route = Route::build(1, 0, 48);
    route.complete().unwrap();
    let mut frame: Frame = [0; FRAME_BYTES];
    let mut out: Frame = [0; FRAME_BYTES];
    route.hops[0].backward.seal_backward(&mut frame, &mut out).unwrap();
    assert_eq!(route.origin.open(&mut out[HEADER_BYTES..]), Err(OriginError::Crypto(CryptoError)));
}

#[test]
fn a_message_for_a_hop_that_does_not_exist_is_not_sealed() {
    let mut route = Route::build(2, 0, 49);
    let mut frame: Frame = [0; FRAME_BYTES];
    assert_eq!(route.origin.seal(2, &mut frame), Err(OriginError::Crypto(CryptoError)));
    assert!(route.origin.seal(usize::MAX, &mut frame).is_err());
    route.send(1, 1).unwrap();
}

#[test]
fn the_parted_halves_go_on_where_the_whole_was() {
    let mut route = Route::build(3, 0, 50);
    route.send(2, 1).unwrap();
    route.complete().unwrap();
    route.send(2, 2).unwrap();
    let body = route.answer_bodies(1, 9).pop().unwrap();
    let (mut forward, mut backward) = route.origin.split().unwrap();
    assert_eq!(forward.hops(), 3);
    let (hop, area) = backward.open(&mut body.clone()).map(|(hop, area)| (hop, area.len())).unwrap();
    assert_eq!((hop, area), (1, MESSAGE_BYTES));
    let mut frame: Frame = [0; FRAME_BYTES];
    frame[OriginForward::area(0)].copy_from_slice(&message(3));
    assert_eq!(forward.seal(0, &mut frame), Ok(1));
    let mut out: Frame = [0; FRAME_BYTES];
    assert_eq!(route.hops[0].forward.open_forward(1, &frame[HEADER_BYTES..], &mut out), Ok(CellKind::Message));
    assert_eq!(out[OPENED_AREA], message(3));
    assert!(Route::build(1, 0, 51).origin.split().is_none());
}

// ---- Peers lie ----

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flipped_bit_anywhere_in_a_packet_is_found_at_the_first_hop(at in 0..SETUP_BYTES, bit in 0..8u8, offset in 0..4u8) {
        let mut nodes = nodes(3, KemBackend::Seeded, &mut Entropy::from_number(60));
        let (_, packet) = route::origin(&nodes, offset, slot_of(NOW), 60);
        let mut bytes = Box::new(*packet.as_bytes());
        bytes[at] ^= 1 << bit;
        let changed = SetupPacket::new(offset, bytes).unwrap();
        prop_assert!(nodes[0].take(changed, NOW).is_err());
        let moved = SetupPacket::new((offset + 1) % 6, Box::new(*packet.as_bytes())).unwrap();
        prop_assert!(nodes[0].take(moved, NOW).is_err());
        prop_assert!(nodes[0].take(packet, NOW).is_ok());
    }

    #[test]
    fn made_up_bytes_never_panic(seed: u64, delta: u8, part: u8, length in 0..3000usize) {
        let mut entropy = Entropy::from_number(seed);
        let mut bytes = Box::new([0; SETUP_BYTES]);
        entropy.fill(&mut bytes[..]);
        let mut node = nodes(1, KemBackend::Seeded, &mut Entropy::from_number(63)).remove(0);
        bytes[..8].copy_from_slice(&node.keyring.current().unwrap().id().0);
        if let Ok(packet) = SetupPacket::new(delta, bytes.clone()) {
            prop_assert!(node.take(packet, NOW).is_err());
        }
        let body = &bytes[..length];
        let _ = SetupParts::begin(part, delta, body).map(|mut parts| parts.push(part, delta, body));
        let mut route = Route::build(2, 0, 63);
        prop_assert!(route.hops[0].forward.open_forward(part, body, &mut [0; FRAME_BYTES]).is_err());
        prop_assert!(route.origin.handle_created(body).is_err());
        prop_assert!(route.origin.open(&mut body.to_vec()).is_err());
    }

    #[test]
    fn an_info_that_decodes_encodes_to_itself(kind in 0..4u8, slot: u32, next: [u8; 32], ephemeral: [u8; 32]) {
        let mut bytes = [0; 72];
        bytes[..4].copy_from_slice(&[VERSION, kind, SUITE, 0]);
        bytes[4..8].copy_from_slice(&slot.to_be_bytes());
        bytes[8..40].copy_from_slice(&next);
        bytes[40..].copy_from_slice(&ephemeral);
        match SetupInfo::decode(&bytes) {
            Ok(info) => prop_assert_eq!(info.encode(), bytes),
            Err(_) => prop_assert!(kind != 0),
        }
    }
}

#[test]
fn keys_can_cross_threads() {
    fn send<T: Send>() {}
    fn share<T: Send + Sync>() {}
    send::<Origin>();
    send::<port17_proto::circuit::setup::HopKeys>();
    send::<port17_proto::circuit::setup::OpenedSetup>();
    share::<port17_proto::circuit::keyring::CircuitKeyring>();
    share::<port17_proto::circuit::keyring::CircuitKey>();
}
