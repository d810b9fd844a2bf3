//! HELLO, and peers that do not keep to it.

use std::time::Duration;

use port17_proto::ids::NetworkId;
use port17_proto::limits::UNADMITTED_LANES;
use port17_proto::node::io::{Input, LaneLoss, Output, Peer};
use port17_proto::params::Params;
use port17_proto::wire::message::{Hello, LaneSlot, LinkId, Message, RawMessage};
use port17_proto::wire::registry::{ControlType, GoAwayReason, Role};
use proptest::prelude::*;

use super::mesh::{Plan, id_of, ordered_seeds};
use super::solo::{Solo, hello, neighbour_key, own_bottle, some_key};

/// The engine with the larger NodeID, so that its neighbour dials; and the neighbour's seed.
fn acceptor() -> (Solo, u64) {
    let [small, large] = ordered_seeds();
    (Solo::new(large, small), small)
}

/// The engine with the smaller NodeID, which dials; and the neighbour's seed.
fn dialler() -> (Solo, u64) {
    let [small, large] = ordered_seeds();
    (Solo::new(small, large), large)
}

const ONE: LaneSlot = LaneSlot::One;
const TWO: LaneSlot = LaneSlot::Two;

#[test]
fn the_acceptor_answers_with_the_same_slot_and_link_then_admits() {
    let (mut solo, peer) = acceptor();
    let lane = solo.accept(neighbour_key(peer));
    assert_eq!(solo.sent(lane), [], "the dialler speaks first");
    solo.say(lane, &hello(Role::Node, ONE, 7));
    let sent = solo.sent(lane);
    assert!(matches!(&sent[0], Message::Hello(Hello { slot: ONE, link: LinkId([7, ..]), role: Role::Node, .. })));
    assert!(matches!(sent[1], Message::Ping(_)));
    assert!(solo.is_admitted(lane));
    assert_eq!(solo.lanes_of(Peer::Node(id_of(peer))), [lane]);
    let admitted = solo.outputs.iter().find_map(|output| match output {
        Output::AdmitLane { circuits, dialled, .. } => Some((*circuits, *dialled)),
        _ => None,
    });
    assert_eq!(admitted, Some((100, false)));
}

#[test]
fn lane_2_needs_lane_1_and_its_link_id() {
    let (mut solo, peer) = acceptor();
    let early = solo.accept(neighbour_key(peer));
    solo.say(early, &hello(Role::Node, TWO, 7));
    assert_eq!(solo.sent_away(early), Some(GoAwayReason::Stranger));

    let first = solo.accept(neighbour_key(peer));
    solo.say(first, &hello(Role::Node, ONE, 7));
    let wrong = solo.accept(neighbour_key(peer));
    solo.say(wrong, &hello(Role::Node, TWO, 8));
    assert_eq!(solo.sent_away(wrong), Some(GoAwayReason::Stranger));
    assert_eq!(solo.count("no-such-link"), 2);

    let second = solo.accept(neighbour_key(peer));
    solo.say(second, &hello(Role::Node, TWO, 7));
    assert_eq!(solo.lanes_of(Peer::Node(id_of(peer))), [first, second]);
}

#[test]
fn a_lane_in_a_taken_slot_replaces_the_old_one() {
    let (mut solo, peer) = acceptor();
    let lanes: Vec<_> = [ONE, TWO, TWO, ONE]
        .map(|slot| {
            let lane = solo.accept(neighbour_key(peer));
            solo.say(lane, &hello(Role::Node, slot, 7));
            lane
        })
        .into();
    assert_eq!(solo.lanes_of(Peer::Node(id_of(peer))), [lanes[3], lanes[2]]);
    assert_eq!(solo.sent_away(lanes[0]), Some(GoAwayReason::Duplicate));
    assert_eq!(solo.sent_away(lanes[1]), Some(GoAwayReason::Duplicate));
}

#[test]
fn a_restarted_neighbour_replaces_its_whole_link() {
    let (mut solo, peer) = acceptor();
    for slot in [ONE, TWO] {
        let lane = solo.accept(neighbour_key(peer));
        solo.say(lane, &hello(Role::Node, slot, 7));
    }
    let old = solo.lanes_of(Peer::Node(id_of(peer)));
    let new = solo.accept(neighbour_key(peer));
    solo.say(new, &hello(Role::Node, ONE, 9));
    assert!(old.iter().all(|lane| solo.sent_away(*lane) == Some(GoAwayReason::Duplicate)));
    assert_eq!(solo.lanes_of(Peer::Node(id_of(peer))), [new]);
}

#[test]
fn of_two_simultaneous_dials_the_smaller_node_ids_stays() {
    // The smaller one has dialled; the larger one's lane is turned away.
    let (mut solo, peer) = dialler();
    let dial = solo.dial().expect("it dials as soon as it knows the Bottle");
    let theirs = solo.accept(neighbour_key(peer));
    solo.say(theirs, &hello(Role::Node, ONE, 7));
    assert_eq!(solo.sent_away(theirs), Some(GoAwayReason::Duplicate));
    let mine = solo.lane_up(Some(dial), neighbour_key(peer));
    let Some(Message::Hello(sent)) = solo.sent(mine).pop() else { panic!("HELLO goes out at once") };
    solo.say(mine, &Message::Hello(Hello { circuits: 5, ..sent }));
    assert_eq!(solo.lanes_of(Peer::Node(id_of(peer))), [mine]);
    // Also once it stands.
    let theirs = solo.accept(neighbour_key(peer));
    solo.say(theirs, &hello(Role::Node, ONE, 8));
    assert_eq!(solo.sent_away(theirs), Some(GoAwayReason::Duplicate));
}

#[test]
fn the_larger_node_id_gives_up_its_own_dial_when_the_smaller_one_comes() {
    let [small, large] = ordered_seeds();
    let plan = Plan { neighbours: vec![id_of(small)], hidden: true, ..Plan::new(large) };
    let mut solo = Solo::with(plan, small);
    let dial = solo.dial().expect("a hidden node dials");
    let theirs = solo.accept(neighbour_key(small));
    solo.say(theirs, &hello(Role::Node, ONE, 7));
    assert_eq!(solo.lanes_of(Peer::Node(id_of(small))), [theirs]);
    assert!(solo.outputs.iter().any(|output| matches!(output, Output::CancelDial(cancelled) if *cancelled == dial)));
    let mine = solo.lane_up(Some(dial), neighbour_key(small));
    assert!(solo.is_closed(mine));
    solo.wait(Duration::from_secs(5));
    assert_eq!(solo.dial(), None, "the link is theirs to complete");
}

#[test]
fn nothing_that_a_client_says_makes_a_node_dial() {
    // law 1
    let (mut solo, _) = acceptor();
    let lane = solo.accept(some_key(1));
    solo.say(lane, &hello(Role::Client, ONE, 7));
    for code in 16..=255 {
        solo.handle(Input::Control { lane, urgent: false, message: RawMessage { code, body: vec![0xa0; 40] } });
    }
    solo.say(lane, &Message::Ping(1));
    solo.say(lane, &Message::GoAway(GoAwayReason::Stranger));
    solo.wait(Duration::from_secs(2));
    assert_eq!(solo.dial(), None);
}

#[test]
fn an_answer_must_repeat_slot_and_link_and_come_from_a_node() {
    let wrongs: [fn(Hello) -> Hello; 4] = [
        |sent| Hello { slot: TWO, ..sent },
        |sent| Hello { link: LinkId([0; 16]), ..sent },
        |sent| Hello { role: Role::Client, ..sent },
        |sent| Hello { versions: (2, 3), ..sent },
    ];
    for wrong in wrongs {
        let (mut solo, peer) = dialler();
        let dial = solo.dial().unwrap();
        let lane = solo.lane_up(Some(dial), neighbour_key(peer));
        let Some(Message::Hello(sent)) = solo.sent(lane).pop() else { panic!("HELLO goes out at once") };
        solo.say(lane, &Message::Hello(wrong(sent)));
        assert!(solo.is_closed(lane) && !solo.is_admitted(lane));
        solo.wait(Params::demo().backoff_min);
        assert!(solo.dial().is_some(), "tried again");
    }
}

#[test]
fn a_dialled_lane_with_another_key_is_closed() {
    let (mut solo, _) = dialler();
    let dial = solo.dial().unwrap();
    let lane = solo.lane_up(Some(dial), some_key(1));
    assert!(solo.is_closed(lane));
    assert_eq!(solo.sent(lane), [], "nothing is said to a stranger");
}

#[test]
fn a_dial_that_nobody_answers_is_cancelled_and_its_late_lane_closed() {
    let (mut solo, peer) = dialler();
    let dial = solo.dial().unwrap();
    let params = Params::demo();
    solo.wait(params.dial_timeout + params.handshake_timeout);
    assert!(solo.outputs.iter().any(|output| matches!(output, Output::CancelDial(cancelled) if *cancelled == dial)));
    let late = solo.lane_up(Some(dial), neighbour_key(peer));
    assert!(solo.is_closed(late));
}

#[test]
fn a_strangers_key_is_sent_away() {
    // A key that the Bottle behind HELLO does not name; a node that is no neighbour; one that only opens a second lane.
    let (mut solo, _) = acceptor();
    let stranger = own_bottle(50);
    for (key, slot) in [(some_key(3), ONE), (neighbour_key(50), ONE), (neighbour_key(50), TWO)] {
        let lane = solo.accept(key);
        solo.say(lane, &hello(Role::Node, slot, 7));
        assert_eq!(solo.sent_away(lane).is_some(), slot == TWO);
        solo.say(lane, &stranger);
        assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Stranger));
    }
    assert_eq!(solo.node.bottlerack().len(), 1, "what a stranger says of itself is not kept");
}

#[test]
fn a_neighbour_whose_key_is_not_known_is_known_by_its_bottle() {
    let [small, large] = ordered_seeds();
    let plan = Plan { neighbours: vec![id_of(small)], ..Plan::new(large) };
    let mut solo = Solo::alone(plan);
    let lane = solo.accept(neighbour_key(small));
    solo.say(lane, &hello(Role::Node, ONE, 7));
    assert!(solo.sent(lane).is_empty() && !solo.is_closed(lane));
    assert!(solo.outputs.iter().any(|output| matches!(output, Output::HearLane { lane: heard } if *heard == lane)));
    solo.say(lane, &own_bottle(small));
    assert!(solo.is_admitted(lane));
    assert_eq!(solo.lanes_of(Peer::Node(id_of(small))), [lane]);
    assert!(matches!(&solo.streamed(lane)[0], Message::Bottles { more: false, envelopes } if envelopes.len() == 1));
}

#[test]
fn a_bottle_that_does_not_come_behind_hello_costs_the_lane() {
    let say: [&dyn Fn() -> Option<Message>; 5] = [
        &|| None,
        &|| Some(Message::Ping(1)),
        &|| Some(Message::Bottles { more: false, envelopes: vec![] }),
        &|| Some(Message::Bottles { more: false, envelopes: vec![vec![1, 2, 3]] }),
        &|| Some(hello(Role::Node, ONE, 7)),
    ];
    for say in say {
        let (mut solo, _) = acceptor();
        let lane = solo.accept(some_key(3));
        solo.say(lane, &hello(Role::Node, ONE, 7));
        match say() {
            Some(message) => solo.say(lane, &message),
            None => solo.wait(Params::demo().handshake_timeout),
        }
        assert!(solo.is_closed(lane) && !solo.is_admitted(lane));
    }
}

#[test]
fn the_other_nodes_bottle_behind_hello_does_not_make_a_neighbour_of_it() {
    // The stranger shows its own key and a neighbour's Bottle.
    let (mut solo, peer) = acceptor();
    let lane = solo.accept(some_key(3));
    solo.say(lane, &hello(Role::Node, ONE, 7));
    solo.say(lane, &own_bottle(peer));
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Stranger));
}

#[test]
fn another_network_is_sent_away_on_both_sides() {
    let other = NetworkId([5; 32]);
    let (mut solo, peer) = acceptor();
    let Message::Hello(good) = hello(Role::Node, ONE, 7) else { return };
    for role in [Role::Node, Role::Client] {
        let lane = solo.accept(neighbour_key(peer));
        solo.say(lane, &Message::Hello(Hello { network: other, role, ..good.clone() }));
        assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Network));
    }
    let (mut solo, peer) = dialler();
    let dial = solo.dial().unwrap();
    let lane = solo.lane_up(Some(dial), neighbour_key(peer));
    let Some(Message::Hello(sent)) = solo.sent(lane).pop() else { panic!("HELLO goes out at once") };
    solo.say(lane, &Message::Hello(Hello { network: other, ..sent }));
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Network));
}

#[test]
fn the_dialler_sends_its_bottle_behind_its_hello() {
    let (mut solo, peer) = dialler();
    let dial = solo.dial().unwrap();
    let lane = solo.lane_up(Some(dial), neighbour_key(peer));
    assert!(matches!(&solo.streamed(lane)[..], [Message::Bottles { more: false, envelopes }] if envelopes.len() == 1));
}

#[test]
fn no_version_in_common_is_said() {
    let (mut solo, peer) = acceptor();
    let lane = solo.accept(neighbour_key(peer));
    let Message::Hello(good) = hello(Role::Node, ONE, 7) else { return };
    solo.say(lane, &Message::Hello(Hello { versions: (2, 9), ..good.clone() }));
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Version));
    // A newer peer that still speaks version 1 is welcome.
    let lane = solo.accept(neighbour_key(peer));
    solo.say(lane, &Message::Hello(Hello { versions: (1, 9), ..good }));
    assert!(solo.is_admitted(lane));
}

#[test]
fn hello_twice_closes_the_lane() {
    let (mut solo, peer) = acceptor();
    let lane = solo.accept(neighbour_key(peer));
    solo.say(lane, &hello(Role::Node, ONE, 7));
    solo.say(lane, &hello(Role::Node, ONE, 7));
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
    assert_eq!(solo.lanes_of(Peer::Node(id_of(peer))), []);
}

#[test]
fn anything_before_hello_closes_the_lane() {
    for message in [Message::Ping(1), Message::Pong(1)] {
        let (mut solo, peer) = acceptor();
        let lane = solo.accept(neighbour_key(peer));
        solo.say(lane, &message);
        assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
        assert_eq!(solo.count("out-of-place"), 1);
    }
    let (mut solo, peer) = acceptor();
    let lane = solo.accept(neighbour_key(peer));
    let message = RawMessage { code: ControlType::Announce.code(), body: vec![0; 60_000] };
    solo.handle(Input::Control { lane, urgent: false, message });
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
}

#[test]
fn hello_too_late_closes_the_lane() {
    let (mut solo, peer) = acceptor();
    let lane = solo.accept(neighbour_key(peer));
    solo.wait(Params::demo().handshake_timeout - Duration::from_millis(1));
    assert!(!solo.is_closed(lane));
    solo.wait(Duration::from_millis(1));
    assert!(solo.is_closed(lane));
    assert_eq!(solo.count("handshake-timeout"), 1);
    // What comes on it now is nobody's.
    solo.say(lane, &hello(Role::Node, ONE, 7));
    assert!(!solo.is_admitted(lane));
}

#[test]
fn garbage_closes_the_lane_and_is_counted() {
    let bodies: [(u8, bool, &[u8]); 6] = [
        (1, true, &[0xff; 100]),
        (1, true, &[]),
        (2, false, &[0xa1, 0x01, 0x05]),
        (9, true, &[0xa0]),
        (0, false, &[0xa0]),
        (16, true, &[0xa0]),
    ];
    for (code, urgent, body) in bodies {
        let (mut solo, peer) = acceptor();
        let lane = solo.accept(neighbour_key(peer));
        solo.handle(Input::Control { lane, urgent, message: RawMessage { code, body: body.to_vec() } });
        assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
        assert_eq!(solo.count("malformed"), 1);
    }
}

#[test]
fn messages_of_later_versions_are_skipped_on_lane_1_alone() {
    let (mut solo, peer) = acceptor();
    let lanes = [ONE, TWO].map(|slot| {
        let lane = solo.accept(neighbour_key(peer));
        solo.say(lane, &hello(Role::Node, slot, 7));
        lane
    });
    let reserved = ControlType::Attestations.code();
    for (lane, code) in [(lanes[0], reserved), (lanes[0], 255), (lanes[1], reserved)] {
        solo.handle(Input::Control { lane, urgent: false, message: RawMessage { code, body: vec![1, 2, 3] } });
    }
    assert!(!solo.is_closed(lanes[0]));
    assert_eq!(solo.count("skipped"), 2);
    assert_eq!(solo.sent_away(lanes[1]), Some(GoAwayReason::Protocol));
}

#[test]
fn a_pong_that_nobody_asked_for_closes_the_lane() {
    let (mut solo, peer) = acceptor();
    let lane = solo.accept(neighbour_key(peer));
    solo.say(lane, &hello(Role::Node, ONE, 7));
    let Some(Message::Ping(token)) = solo.sent(lane).pop() else { panic!("PING follows HELLO") };
    solo.say(lane, &Message::Pong(token));
    assert!(!solo.is_closed(lane));
    solo.say(lane, &Message::Pong(token));
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
}

#[test]
fn a_ping_is_answered() {
    let (mut solo, peer) = acceptor();
    let lane = solo.accept(neighbour_key(peer));
    solo.say(lane, &hello(Role::Node, ONE, 7));
    solo.say(lane, &Message::Ping(42));
    assert_eq!(solo.sent(lane).pop(), Some(Message::Pong(42)));
}

#[test]
fn goaway_ends_the_lane_without_an_answer() {
    let (mut solo, peer) = acceptor();
    let lane = solo.accept(neighbour_key(peer));
    solo.say(lane, &hello(Role::Node, ONE, 7));
    let before = solo.sent(lane).len();
    solo.say(lane, &Message::GoAway(GoAwayReason::Shutdown));
    assert!(solo.is_closed(lane));
    assert_eq!(solo.sent(lane).len(), before);
}

#[test]
fn a_violation_seen_by_the_lane_closes_it() {
    let (mut solo, peer) = acceptor();
    let lane = solo.accept(neighbour_key(peer));
    solo.say(lane, &hello(Role::Node, ONE, 7));
    solo.handle(Input::Violation { lane, what: "credit" });
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
    let why = solo.node.status().links[0].why.clone();
    assert_eq!(why.as_deref(), Some("it broke the protocol: credit"));
    solo.handle(Input::Violation { lane, what: "credit" });
    solo.handle(Input::LaneDown { lane, why: LaneLoss::Closed });
    assert_eq!(solo.count("violation"), 1);
}

#[test]
fn lanes_without_hello_are_bounded() {
    let (mut solo, _) = acceptor();
    for seed in 0..UNADMITTED_LANES {
        let lane = solo.accept(some_key(seed as u64 % 3));
        assert!(!solo.is_closed(lane));
    }
    let lane = solo.accept(some_key(1));
    assert!(solo.is_closed(lane));
    assert_eq!(solo.count("unadmitted-full"), 1);
}

#[test]
fn a_client_needs_no_known_key_and_its_second_lane_the_links_id() {
    let (mut solo, _) = acceptor();
    let client = Peer::Client(LinkId([7; 16]));
    let first = solo.accept(some_key(1));
    solo.say(first, &hello(Role::Client, ONE, 7));
    let second = solo.accept(some_key(2));
    solo.say(second, &hello(Role::Client, TWO, 7));
    assert_eq!(solo.lanes_of(client), [first, second]);
    let stray = solo.accept(some_key(3));
    solo.say(stray, &hello(Role::Client, TWO, 8));
    assert_eq!(solo.sent_away(stray), Some(GoAwayReason::Stranger));
    solo.handle(Input::LaneDown { lane: first, why: LaneLoss::Broken });
    assert_eq!(solo.lanes_of(client), [second]);
    solo.handle(Input::LaneDown { lane: second, why: LaneLoss::Broken });
    assert_eq!(solo.lanes_of(client), []);
    assert_eq!(solo.node.status().clients, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_order_of_inputs_makes_the_engine_panic(
        steps in proptest::collection::vec((0u8..12, 1u64..6, 0u8..4, any::<u64>()), 1..60),
    ) {
        let (mut solo, peer) = acceptor();
        for (what, lane, small, value) in steps {
            let lane = port17_proto::node::io::LaneId(lane);
            match what {
                0 => drop(solo.accept(neighbour_key(peer))),
                1 => drop(solo.accept(some_key(value % 4))),
                2 | 3 => {
                    let role = if what == 2 { Role::Node } else { Role::Client };
                    let slot = if small & 1 == 0 { ONE } else { TWO };
                    solo.say(lane, &hello(role, slot, small));
                }
                4 => solo.say(lane, &Message::Ping(value)),
                5 => solo.say(lane, &Message::Pong(value)),
                6 => solo.say(lane, &Message::GoAway(GoAwayReason::ALL[usize::from(small)])),
                7 => solo.handle(Input::LaneDown { lane, why: LaneLoss::Broken }),
                8 => solo.handle(Input::Violation { lane, what: "test" }),
                9 => solo.wait(Duration::from_millis(value % 20_000)),
                10 => solo.handle(Input::Bottle(value.to_be_bytes().to_vec())),
                _ => solo.handle(Input::SeqStored(port17_proto::bottle::Seq(value))),
            }
        }
        // A link and its lanes are gone together.
        solo.handle(Input::Shutdown);
        prop_assert!(solo.lanes_of(Peer::Node(id_of(peer))).is_empty());
        prop_assert!(matches!(solo.outputs.last(), Some(Output::Stopped)));
    }
}
