//! CREATED: what a client makes of an answer that somebody on the way has changed, or that a hop has refused (spec 06, 1).
//!
//! The input is a route, which hop answers and how, and at which hop of the way back the answer is changed.

use port17_proto::circuit::created::CreatedSealer;
use port17_proto::circuit::origin::{Answer, OriginError};
use port17_proto::wire::registry::{BODY_BYTES, SetupStatus};

use crate::choices::Choices;
use crate::route::Route;

/// Takes an answer back to the client.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut route = Route::chosen(&mut choices);
    let answering = choices.below(route.hops);
    // Only the exit can say yes: a relay's OK has something inside.
    let status = SetupStatus::from_code(choices.byte());
    let status = status.filter(|it| answering + 1 == route.hops || *it != SetupStatus::Ok).unwrap_or(SetupStatus::NextRefused);
    let changed_at = choices.below(route.hops + 1);
    let mut sealers: Vec<CreatedSealer> = route.sealers();
    sealers.truncate(answering + 1);

    let mut changed = false;
    let mut body = sealers.pop().expect("somebody answers").answer(status);
    for (hop, sealer) in sealers.into_iter().enumerate().rev() {
        if hop + 1 == changed_at {
            changed |= alter(&mut body, &mut choices);
        }
        match sealer.relay(&body[..]) {
            Ok(outer) => body = outer,
            Err(_) => {
                assert!(changed, "hop {hop} does not wrap an honest answer");
                return;
            }
        }
    }
    if changed_at == 0 {
        changed |= alter(&mut body, &mut choices);
    }
    check(&mut route, &body, changed, (answering, status));
}

fn check(route: &mut Route, body: &[u8; BODY_BYTES], changed: bool, (hop, status): (usize, SetupStatus)) {
    let answer = route.origin.handle_created(body);
    match (&answer, status) {
        (Err(_), _) => assert!(changed, "an honest answer is refused"),
        (Ok(_), _) if changed => panic!("an answer that was changed is taken"),
        (Ok(Answer::Complete), SetupStatus::Ok) => {}
        (Ok(Answer::Failed { hop: at, status: why }), _) => assert_eq!((*at, *why), (hop, status)),
        (Ok(Answer::Complete), _) => panic!("a refusal makes a circuit"),
    }
    assert_eq!(route.origin.handle_created(body), Err(OriginError::OutOfTurn), "there is one answer");
    let mut cell = [7; BODY_BYTES];
    assert!(route.origin.open(&mut cell).is_err(), "garbage is no cell");
}

fn alter(body: &mut [u8; BODY_BYTES], choices: &mut Choices<'_>) -> bool {
    let before = *body;
    for _ in 0..1 + choices.below(3) {
        body[usize::from(choices.short()) % BODY_BYTES] ^= choices.byte();
    }
    *body != before
}

/// Routes of each length that are complete, refused, and changed.
pub fn seeds() -> Vec<Vec<u8>> {
    let refused = SetupStatus::NextRefused.code();
    let ok = SetupStatus::Ok.code();
    let of_length = |hops: u8| {
        [
            vec![hops, 0, 1, hops, ok, 0xff],
            vec![hops, 0, 1, hops / 2, refused, 0xff],
            vec![hops, 0, 1, hops, ok, 0, 0, 0, 32, 1],
            vec![hops, 0, 1, hops, ok, hops / 2, 0, 7, 0, 1],
        ]
    };
    (0..6).flat_map(of_length).collect()
}
