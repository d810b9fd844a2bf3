//! Layers of routes of each length and offset: what one end seals the other one opens, and a bit that is turned on the way ends the
//! circuit at the next honest place (spec 06, 1 and 2).

use port17_proto::circuit::onion::{ANSWER_AREA, CellKind};
use port17_proto::circuit::origin::Answer;
use port17_proto::crypto::CryptoError;
use port17_proto::wire::registry::{BODY_BYTES, FRAME_BYTES, HEADER_BYTES, MAX_HOPS, SetupStatus};
use proptest::prelude::*;

use super::route::{Body, Route, message_frame};

/// A length, an offset that leaves room, and two places on the route, the first one not behind the second.
fn places() -> impl Strategy<Value = (usize, u8, usize, usize)> {
    (1..=MAX_HOPS).prop_flat_map(|hops| {
        (Just(hops), 0..=u8::try_from(MAX_HOPS - hops).unwrap(), 0..hops, 0..hops)
            .prop_map(|(hops, offset, one, other)| (hops, offset, one.min(other), one.max(other)))
    })
}

/// Passes a sealed body on through the hops before `end`, which must find another layer in it.
fn through(route: &mut Route, body: &mut Body, end: usize) {
    let flag = route.flag;
    for hop in &mut route.hops[..end] {
        let mut out = [0xee; FRAME_BYTES];
        assert_eq!(hop.forward.open_forward(flag, body, &mut out), Ok(CellKind::Next));
        body.copy_from_slice(&out[HEADER_BYTES..]);
    }
}

/// Puts the layers of the hops before `begin` around a body, from the last one to the first. False if one refuses.
fn back_from(route: &mut Route, body: &mut Body, begin: usize) -> bool {
    for hop in route.hops[..begin].iter_mut().rev() {
        let (mut frame, mut out) = ([0xee; FRAME_BYTES], [0xee; FRAME_BYTES]);
        frame[HEADER_BYTES..].copy_from_slice(body);
        if hop.backward.seal_backward(&mut frame, &mut out).is_err() {
            return false;
        }
        body.copy_from_slice(&out[HEADER_BYTES..]);
    }
    true
}

fn turn(body: &mut Body, bit: usize) {
    body[bit / 8] ^= 1 << (bit % 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_talk_comes_through((hops, offset, ..) in places(), talk in proptest::collection::vec((any::<bool>(), 0..MAX_HOPS, any::<u8>()), 0..12)) {
        let mut route = Route::build(hops, offset, 70);
        route.send(hops - 1, 1).unwrap();
        prop_assert_eq!(route.complete(), Ok(Answer::Complete));
        for (forward, hop, number) in talk {
            let hop = hop % hops;
            if forward { route.send(hop, number).unwrap() } else { route.answer(hop, number).unwrap() }
        }
    }

    #[test]
    fn a_turned_bit_of_a_forward_cell_dies_at_the_next_hop((hops, offset, at, to) in places(), early: bool, bit in 0..BODY_BYTES * 8) {
        let mut route = Route::build(hops, offset, 71);
        if !early {
            prop_assert_eq!(route.complete(), Ok(Answer::Complete));
        }
        let mut body = route.sealed(to, 5);
        through(&mut route, &mut body, at);
        turn(&mut body, bit);
        let flag = route.flag;
        prop_assert_eq!(route.hops[at].forward.open_forward(flag, &body, &mut [0; FRAME_BYTES]), Err(CryptoError));
    }

    #[test]
    fn a_turned_bit_of_a_backward_cell_dies_before_or_at_the_client((hops, offset, at, from) in places(), bit in 0..BODY_BYTES * 8) {
        let mut route = Route::build(hops, offset, 72);
        prop_assert_eq!(route.complete(), Ok(Answer::Complete));
        let mut frame = message_frame(ANSWER_AREA.start, 5);
        route.hops[from].backward.seal_message_backward(&mut frame);
        let mut body: Body = frame[HEADER_BYTES..].try_into().unwrap();
        // It is turned in front of hop `at`, whose own layer is around it already.
        let rest = route.hops.split_off(at);
        let before = std::mem::replace(&mut route.hops, rest);
        prop_assert!(back_from(&mut route, &mut body, from - at));
        turn(&mut body, bit);
        route.hops = before;
        let end = route.hops.len();
        prop_assert!(!back_from(&mut route, &mut body, end) || route.origin.open(&mut body).is_err());
    }

    #[test]
    fn a_turned_bit_of_created_dies_before_or_at_the_client((hops, offset, at, from) in places(), bit in 0..BODY_BYTES * 8) {
        let mut route = Route::build(hops, offset, 73);
        let status = if from + 1 == hops { SetupStatus::Ok } else { SetupStatus::NextRefused };
        let mut body = route.hops[from].created.take().unwrap().answer(status);
        for hop in (0..=from).rev() {
            if hop < from {
                let wrapped = route.hops[hop].created.take().unwrap().relay(&body[..]);
                let Ok(wrapped) = wrapped else { return Ok(()) };
                body = wrapped;
            }
            if hop == at {
                turn(&mut body, bit);
            }
        }
        prop_assert!(route.origin.handle_created(&body[..]).is_err());
    }
}
