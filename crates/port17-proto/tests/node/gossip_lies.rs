//! Neighbours and clients that lie in gossip: each costs itself its lane at most, and the honest ones are heard.

use std::time::Duration;

use port17_proto::bottle::{BottleContent, Seq, ShortId, Tombstone, UnverifiedBottle};
use port17_proto::ids::NodeId;
use port17_proto::limits::{ANNOUNCE_IDS, RECONCILES, WANT_IDS};
use port17_proto::node::io::{Input, LaneId, LaneLoss, Peer};
use port17_proto::params::{Params, Rate};
use port17_proto::wire::message::{Held, LaneSlot, LinkId, Message, RawMessage};
use port17_proto::wire::registry::{ControlType, GoAwayReason, Role};
use proptest::prelude::*;

use super::gossip::{paper_bottle, paper_id, paper_key, short_id};
use super::mesh::{Plan, START_UNIX_MS, id_of, link_key_of, ordered_seeds};
use super::solo::{Solo, bottle_of, hello, neighbour_key, own_bottle, some_key};

const ONE: LaneSlot = LaneSlot::One;
/// Younger than the engine's start, older than its now.
const SEQ_MS: u64 = START_UNIX_MS + 1_005_000;

/// An engine with two neighbours on lanes, which have said their first word.
fn between_two() -> (Solo, [LaneId; 2]) {
    with_params(Params::demo())
}

fn with_params(params: Params) -> (Solo, [LaneId; 2]) {
    // The largest NodeID, so that both neighbours dial.
    let [a, b, own] = ordered_seeds();
    let mut solo = Solo::alone(Plan { neighbours: vec![id_of(a), id_of(b)], params, ..Plan::new(own) });
    let lanes = [(a, 7), (b, 8)].map(|(seed, link)| {
        let lane = solo.accept(neighbour_key(seed));
        solo.say(lane, &hello(Role::Node, ONE, link));
        solo.say(lane, &own_bottle(seed));
        assert!(solo.is_admitted(lane));
        lane
    });
    solo.wait(Params::demo().gossip_batch);
    solo.outputs.clear();
    (solo, lanes)
}

fn bottles(envelopes: &[&Vec<u8>]) -> Message {
    Message::Bottles { more: false, envelopes: envelopes.iter().map(|it| (*it).clone()).collect() }
}

fn fake_ids(from: u64, count: usize) -> Vec<ShortId> {
    (from..from + count as u64).map(|number| ShortId((u128::from(number) << 64).to_be_bytes())).collect()
}

fn holds(solo: &Solo, seed: u64) -> bool {
    solo.node.bottlerack().get(&paper_id(seed)).is_some()
}

#[test]
fn what_is_announced_is_wanted_once_and_passed_on_to_the_others() {
    let (mut solo, [first, second]) = between_two();
    let bottle = paper_bottle(1, SEQ_MS, 0);
    let id = short_id(&bottle);
    solo.say(first, &Message::Announce(vec![id]));
    solo.say(second, &Message::Announce(vec![id]));
    assert_eq!((solo.wanted(first), solo.wanted(second)), (vec![vec![id]], vec![]));
    solo.say(first, &bottles(&[&bottle]));
    assert!(holds(&solo, 1));
    solo.wait(Params::demo().gossip_batch);
    assert!(!solo.streamed(second).iter().any(|it| matches!(it, Message::Announce(_))), "it has offered it itself");
    solo.say(second, &Message::Announce(vec![id]));
    assert_eq!(solo.wanted(second), Vec::<Vec<ShortId>>::new());

    let newer = paper_bottle(1, SEQ_MS + 1, 0);
    solo.say(first, &Message::Announce(vec![short_id(&newer)]));
    solo.say(first, &bottles(&[&newer]));
    solo.wait(Params::demo().gossip_batch);
    assert!(solo.streamed(second).contains(&Message::Announce(vec![short_id(&newer)])));
    assert!(!solo.streamed(first).iter().any(|it| matches!(it, Message::Announce(_))), "never to who brought it");
}

#[test]
fn of_more_than_two_truths_the_preferred_one_is_wanted() {
    let (mut solo, [lane, _]) = between_two();
    let mut truths: Vec<Vec<u8>> = (0..4).map(|load| paper_bottle(1, SEQ_MS, load)).collect();
    truths.sort_by_key(|bottle| short_id(bottle));
    let [smallest, second, third, largest] = truths.try_into().unwrap();
    for bottle in [&third, &second] {
        solo.say(lane, &Message::Announce(vec![short_id(bottle)]));
        solo.say(lane, &bottles(&[bottle]));
    }
    solo.outputs.clear();
    let held = |bottle| Message::Reconcile { more: false, held: vec![entry(1, SEQ_MS, bottle)] };
    solo.say(lane, &held(&largest));
    assert_eq!(solo.wanted(lane), Vec::<Vec<ShortId>>::new(), "the proof is there");
    solo.say(lane, &held(&smallest));
    assert_eq!(solo.wanted(lane), [[short_id(&smallest)]], "what the others use");
    solo.say(lane, &bottles(&[&smallest]));
    assert_eq!(solo.node.bottlerack().get(&paper_id(1)).unwrap().bottle.short_id(), short_id(&smallest));
}

#[test]
fn bottles_that_nobody_asked_for_cost_the_lane() {
    let (mut solo, [lane, _]) = between_two();
    solo.say(lane, &bottles(&[&paper_bottle(1, SEQ_MS, 0)]));
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
    // Among those that were asked for, too, and one twice.
    for answer in [[2, 3], [2, 2]] {
        let (mut solo, [lane, _]) = between_two();
        solo.say(lane, &Message::Announce(vec![short_id(&paper_bottle(2, SEQ_MS, 0))]));
        let envelopes = answer.map(|seed| paper_bottle(seed, SEQ_MS, 0));
        solo.say(lane, &bottles(&[&envelopes[0], &envelopes[1]]));
        assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
        assert!(holds(&solo, 2) && !holds(&solo, 3));
    }
}

#[test]
fn the_first_word_of_a_known_neighbour_is_its_own_bottle_alone() {
    let [small, large] = ordered_seeds();
    let wrongs = [bottles(&[&paper_bottle(1, SEQ_MS, 0)]), bottles(&[]), bottles(&[&bottle_of(small), &bottle_of(small)])];
    for wrong in wrongs {
        let mut solo = Solo::new(large, small);
        let lane = solo.accept(neighbour_key(small));
        solo.say(lane, &hello(Role::Node, ONE, 7));
        assert!(solo.is_admitted(lane));
        solo.say(lane, &wrong);
        assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
        assert!(!holds(&solo, 1));
    }
}

#[test]
fn a_forged_bottle_costs_its_bringer_the_lane() {
    let good = paper_bottle(1, SEQ_MS, 0);
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let (mut solo, [lane, _]) = between_two();
    solo.say(lane, &Message::Announce(vec![short_id(&good)]));
    solo.say(lane, &bottles(&[&forged]));
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
    assert!(!holds(&solo, 1));
    assert_eq!(solo.count("bottle-refused"), 1);
}

#[test]
fn cut_and_oversized_bottles_cost_the_lane() {
    let good = paper_bottle(1, SEQ_MS, 0);
    for bad in [good[..good.len() - 1].to_vec(), vec![0x83; 4096]] {
        let (mut solo, [lane, _]) = between_two();
        solo.say(lane, &Message::Announce(vec![short_id(&good)]));
        solo.say(lane, &bottles(&[&bad]));
        assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
    }
    let (mut solo, [lane, _]) = between_two();
    let oversized = Message::Bottles { more: false, envelopes: vec![vec![0; 4097]] };
    solo.handle(Input::Control { lane, urgent: false, message: RawMessage::from_urgent(&oversized.encode()).unwrap() });
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
}

#[test]
fn bottles_of_the_wrong_age_are_counted_and_the_lane_stays() {
    let (mut solo, [lane, _]) = between_two();
    let life_ms = u64::try_from(Params::demo().bottle_lifetime.as_millis()).unwrap();
    let wrong = [SEQ_MS - life_ms, SEQ_MS + 2 * 3_600_000].map(|seq| paper_bottle(1, seq, 0));
    solo.say(lane, &Message::Announce(wrong.iter().map(|it| short_id(it)).collect()));
    solo.say(lane, &bottles(&[&wrong[0], &wrong[1]]));
    assert_eq!((solo.count("bottle-refused"), solo.is_closed(lane), holds(&solo, 1)), (2, false, false));
    // And not asked for again at once, whoever offers them.
    solo.say(lane, &Message::Announce(wrong.iter().map(|it| short_id(it)).collect()));
    assert_eq!(solo.wanted(lane).len(), 1);
}

#[test]
fn an_older_bottle_does_not_come_back() {
    let (mut solo, [lane, other]) = between_two();
    let [old, new] = [SEQ_MS, SEQ_MS + 1].map(|seq| paper_bottle(1, seq, 0));
    for bottle in [&new, &old] {
        solo.say(lane, &Message::Announce(vec![short_id(bottle)]));
        solo.say(lane, &bottles(&[bottle]));
    }
    assert_eq!(solo.node.bottlerack().seq(&paper_id(1)), Some(Seq(SEQ_MS + 1)));
    assert_eq!(solo.count("bottle-older"), 1);
    solo.wait(Params::demo().gossip_batch);
    assert!(solo.streamed(other).iter().all(|it| *it != Message::Announce(vec![short_id(&old)])));
}

#[test]
fn a_node_that_publishes_too_often_is_not_passed_on() {
    let params = Params { bottle_interval: Duration::from_secs(8), bottle_burst: 2, ..Params::demo() };
    let (mut solo, [lane, _]) = with_params(params);
    let versions: Vec<_> = (0..10).map(|at| paper_bottle(1, SEQ_MS + at, 0)).collect();
    for bottle in &versions {
        solo.say(lane, &Message::Announce(vec![short_id(bottle)]));
        solo.say(lane, &bottles(&[bottle]));
    }
    // Twice as many at once as its node may publish.
    assert_eq!(solo.node.bottlerack().seq(&paper_id(1)), Some(Seq(SEQ_MS + 3)));
    assert_eq!((solo.count("bottle-too-often"), solo.is_closed(lane)), (6, false));
    // What is told again later is taken: a token is back after half an interval.
    let newest = versions.last().unwrap();
    let held = Message::Reconcile { more: false, held: vec![entry(1, SEQ_MS + 9, newest)] };
    solo.say(lane, &held);
    assert_eq!(solo.wanted(lane).len(), 10, "not yet");
    solo.wait(Duration::from_secs(4));
    solo.say(lane, &held);
    solo.say(lane, &bottles(&[newest]));
    assert_eq!(solo.node.bottlerack().seq(&paper_id(1)), Some(Seq(SEQ_MS + 9)));
}

fn entry(seed: u64, seq: u64, bottle: &[u8]) -> Held {
    Held { node: paper_id(seed), seq: Seq(seq), short_id: short_id(bottle) }
}

#[test]
fn who_never_answers_loses_its_lane_and_the_next_is_asked() {
    let (mut solo, [liar, honest]) = between_two();
    let bottle = paper_bottle(1, SEQ_MS, 0);
    solo.say(liar, &Message::Announce(vec![short_id(&bottle)]));
    solo.say(honest, &Message::Announce(vec![short_id(&bottle)]));
    assert_eq!(solo.wanted(honest).len(), 0);
    solo.wait(Params::demo().bulk_timeout);
    assert!(solo.is_closed(liar));
    assert_eq!(solo.count("answer-timeout"), 1);
    solo.wait(Params::demo().gossip_batch);
    assert_eq!(solo.wanted(honest), [[short_id(&bottle)]]);
    solo.say(honest, &bottles(&[&bottle]));
    assert!(holds(&solo, 1));
}

#[test]
fn what_one_omits_is_asked_from_the_next() {
    let (mut solo, [liar, honest]) = between_two();
    let bottle = paper_bottle(1, SEQ_MS, 0);
    solo.say(liar, &Message::Announce(vec![short_id(&bottle)]));
    solo.say(honest, &Message::Announce(vec![short_id(&bottle)]));
    solo.say(liar, &bottles(&[]));
    assert_eq!((solo.count("bottle-omitted"), solo.is_closed(liar)), (1, false));
    assert_eq!(solo.wanted(honest), [[short_id(&bottle)]]);
}

#[test]
fn a_flood_of_announcements_is_bounded_and_the_honest_are_heard() {
    let params = Params { bottles_per_link: Rate { per_second: 200, burst: 2000 }, ..Params::demo() };
    let (mut solo, [liar, honest]) = with_params(params);
    let mut answered = 0;
    for at in 0..100 {
        solo.say(liar, &Message::Announce(fake_ids(at * 1000, ANNOUNCE_IDS)));
        if solo.wanted(liar).len() > answered {
            answered += 1;
            solo.say(liar, &bottles(&[]));
        }
    }
    // Our own rate bounds what is asked, the peer's what is listened to.
    let asked: usize = solo.wanted(liar).iter().map(Vec::len).sum();
    assert!(asked <= 2000, "{asked}");
    assert!(solo.count("too-much-gossip") > 50);
    let bottle = paper_bottle(1, SEQ_MS, 0);
    solo.say(honest, &Message::Announce(vec![short_id(&bottle)]));
    assert_eq!(solo.wanted(honest), [[short_id(&bottle)]]);
    solo.say(honest, &bottles(&[&bottle]));
    assert!(holds(&solo, 1));
}

#[test]
fn an_answer_that_never_ends_costs_the_lane() {
    let (mut solo, [lane, _]) = between_two();
    solo.say(lane, &Message::Announce(fake_ids(1, 1)));
    solo.say(lane, &Message::Bottles { more: true, envelopes: vec![] });
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
    let (mut solo, [lane, _]) = between_two();
    let bottle = paper_bottle(1, SEQ_MS, 0);
    solo.say(lane, &Message::Announce([vec![short_id(&bottle)], fake_ids(1, 5)].concat()));
    solo.say(lane, &Message::Bottles { more: true, envelopes: vec![bottle] });
    solo.wait(Params::demo().bulk_timeout);
    assert!(solo.is_closed(lane) && holds(&solo, 1));
}

#[test]
fn wants_without_end_cost_the_lane() {
    let (mut solo, [lane, _]) = with_params(Params { bottles_per_link: Rate { per_second: 10, burst: 300 }, ..Params::demo() });
    let mut answered = 0;
    while !solo.is_closed(lane) {
        solo.say(lane, &Message::Want(fake_ids(0, WANT_IDS)));
        answered += 1;
        assert!(answered < 10);
    }
    assert_eq!(solo.count("too-much-gossip"), 1);
    let (mut solo, [lane, _]) = between_two();
    solo.say(lane, &Message::Want([fake_ids(0, 1), fake_ids(0, 1)].concat()));
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
}

#[test]
fn an_answer_is_cut_into_messages_in_the_order_asked() {
    let (mut solo, [lane, _]) = between_two();
    let envelopes: Vec<_> = (0..100).map(|seed| paper_bottle(seed, SEQ_MS, 0)).collect();
    envelopes.iter().for_each(|bottle| solo.handle(Input::Bottle(bottle.clone())));
    solo.outputs.clear();
    solo.say(lane, &Message::Want(envelopes.iter().map(|it| short_id(it)).collect()));
    let mut got = Vec::new();
    let answers = solo.streamed(lane);
    for (at, answer) in answers.iter().enumerate() {
        let Message::Bottles { more, envelopes } = answer else { panic!("{answer:?}") };
        assert_eq!(*more, at + 1 < answers.len());
        got.extend(envelopes.clone());
    }
    assert_eq!(got, envelopes);
    assert!(answers.len() > 1);
}

#[test]
fn rubbish_in_a_reconcile_is_not_asked_for() {
    let (mut solo, [lane, _]) = between_two();
    let bottle = paper_bottle(1, SEQ_MS, 0);
    let day_ms = 86_400_000;
    let own = solo.node.id();
    let held = vec![
        Held { seq: Seq(u64::MAX), ..entry(1, SEQ_MS, &bottle) },
        Held { seq: Seq(SEQ_MS + day_ms), ..entry(2, SEQ_MS, &bottle) },
        Held { seq: Seq(SEQ_MS - 2 * day_ms), ..entry(3, SEQ_MS, &bottle) },
        Held { node: own, seq: Seq(5), short_id: fake_ids(9, 1)[0] },
        Held { node: own, seq: Seq(u64::MAX), short_id: fake_ids(9, 1)[0] },
    ];
    solo.say(lane, &Message::Reconcile { more: false, held });
    assert_eq!((solo.wanted(lane).len(), solo.is_closed(lane)), (0, false));
    let missing = entry(1, SEQ_MS, &bottle);
    solo.say(lane, &Message::Reconcile { more: false, held: vec![missing, missing] });
    assert_eq!(solo.wanted(lane), [[missing.short_id]]);
}

#[test]
fn reconciles_without_end_cost_the_lane() {
    let (mut solo, [lane, _]) = between_two();
    for _ in 0..RECONCILES {
        solo.say(lane, &Message::Reconcile { more: true, held: vec![] });
    }
    assert!(!solo.is_closed(lane));
    solo.say(lane, &Message::Reconcile { more: true, held: vec![] });
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
}

#[test]
fn forged_tombstones_cost_the_lane_and_those_of_strangers_are_bounded() {
    let mut forged = Tombstone::sign(&paper_key(1), Seq(SEQ_MS));
    *forged.last_mut().unwrap() ^= 1;
    let (mut solo, [lane, other]) = between_two();
    solo.say(lane, &Message::Tombstones(vec![forged]));
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
    let many: Vec<_> = (0..300).map(|seed| Tombstone::sign(&paper_key(seed), Seq(SEQ_MS))).collect();
    solo.say(other, &Message::Tombstones(many));
    assert_eq!(solo.node.bottlerack().tombstones().count(), port17_proto::limits::TOMBSTONES_UNKNOWN);
    // A node that is held still has its place.
    solo.handle(Input::Bottle(paper_bottle(400, SEQ_MS, 0)));
    assert!(holds(&solo, 400));
    solo.say(other, &Message::Tombstones(vec![Tombstone::sign(&paper_key(400), Seq(SEQ_MS - 1))]));
    assert!(!holds(&solo, 400) && !solo.is_closed(other), "whatever Bottle is held");
}

#[test]
fn who_tells_of_a_node_that_has_left_is_told_so() {
    let (mut solo, [lane, _]) = between_two();
    let tombstone = Tombstone::sign(&paper_key(1), Seq(SEQ_MS));
    solo.handle(Input::Tombstone(tombstone.clone()));
    solo.outputs.clear();
    let bottle = paper_bottle(1, SEQ_MS, 0);
    solo.say(lane, &Message::Reconcile { more: false, held: vec![entry(1, SEQ_MS, &bottle)] });
    assert_eq!(solo.streamed(lane), [Message::Tombstones(vec![tombstone.clone()])]);
    solo.say(lane, &Message::Announce(vec![short_id(&bottle)]));
    solo.say(lane, &bottles(&[&bottle]));
    assert_eq!(solo.streamed(lane).pop(), Some(Message::Tombstones(vec![tombstone])));
    assert!(!holds(&solo, 1));
}

#[test]
fn law_1_nothing_that_a_client_says_enters_the_rack() {
    let bottle = paper_bottle(1, SEQ_MS, 0);
    let said = [
        bottles(&[&bottle]),
        Message::Announce(vec![short_id(&bottle)]),
        Message::Tombstones(vec![Tombstone::sign(&paper_key(1), Seq(SEQ_MS))]),
        Message::Reconcile { more: false, held: vec![entry(1, SEQ_MS, &bottle)] },
        Message::Publish,
    ];
    for message in said {
        let (mut solo, _) = between_two();
        let before = solo.node.bottlerack().len();
        let lane = solo.accept(some_key(1));
        solo.say(lane, &hello(Role::Client, ONE, 9));
        solo.say(lane, &message);
        assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol), "{message:?}");
        assert_eq!((solo.node.bottlerack().len(), solo.node.bottlerack().tombstones().count()), (before, 0));
        assert_eq!(solo.dial(), None);
        assert_eq!(solo.lanes_of(Peer::Client(LinkId([9; 16]))), []);
    }
}

#[test]
fn a_client_is_told_what_is_held_and_given_what_it_wants() {
    let (mut solo, _) = between_two();
    let lane = solo.accept(some_key(1));
    solo.say(lane, &hello(Role::Client, ONE, 9));
    let told = solo.streamed(lane);
    assert!(matches!(&told[0], Message::Bottles { more: false, envelopes } if envelopes.len() == 1));
    let Some(Message::Reconcile { more: false, held }) = told.get(1) else { panic!("{told:?}") };
    let nodes: Vec<NodeId> = held.iter().map(|it| it.node).collect();
    assert_eq!(nodes.len(), 3, "its own and both neighbours'");
    solo.say(lane, &Message::Want(held.iter().map(|it| it.short_id).collect()));
    assert!(matches!(solo.streamed(lane).pop(), Some(Message::Bottles { more: false, envelopes }) if envelopes.len() == 3));
    assert!(!solo.is_closed(lane));
}

#[test]
fn the_message_stream_of_lane_2_is_nobodys() {
    let [_, _, _] = ordered_seeds::<3>();
    let (mut solo, _) = between_two();
    let [first, ..] = ordered_seeds::<3>();
    let lane = solo.accept(neighbour_key(first));
    solo.say(lane, &hello(Role::Node, LaneSlot::Two, 7));
    assert!(solo.is_admitted(lane));
    assert_eq!(solo.streamed(lane), []);
    let message = RawMessage { code: ControlType::Announce.code(), body: vec![0xa0] };
    solo.handle(Input::Control { lane, urgent: false, message });
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
}

#[test]
fn a_neighbours_key_in_anothers_bottle_takes_no_link_from_it() {
    // A liar names the victim's link key as its own. The victim is still itself.
    let [victim, own] = ordered_seeds();
    let liar = UnverifiedBottle::parse(&paper_bottle(1, SEQ_MS, 0)).unwrap();
    let liar = liar.verify(SEQ_MS, &Params::demo().bottle_rules()).unwrap();
    let content = BottleContent { link_key: link_key_of(victim), ..liar.content().clone() };
    let lie = content.sign(&paper_key(1)).unwrap();
    let mut solo = Solo::alone(Plan { neighbours: vec![id_of(victim), paper_id(1)], ..Plan::new(own) });
    solo.handle(Input::Bottle(lie));
    solo.handle(Input::Bottle(bottle_of(victim)));
    let lanes = [ONE, LaneSlot::Two].map(|slot| {
        let lane = solo.accept(neighbour_key(victim));
        solo.say(lane, &hello(Role::Node, slot, 7));
        if slot == ONE {
            solo.say(lane, &own_bottle(victim));
        }
        lane
    });
    assert_eq!(solo.lanes_of(Peer::Node(id_of(victim))), lanes);
    assert_eq!(solo.lanes_of(Peer::Node(paper_id(1))), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_gossip_makes_the_engine_panic_or_ask_twice(
        steps in proptest::collection::vec((0u8..10, 0usize..3, 0u64..6, 0u64..4), 1..60),
    ) {
        let (mut solo, [first, second]) = between_two();
        let client = solo.accept(some_key(1));
        solo.say(client, &hello(Role::Client, ONE, 9));
        for (what, lane, seed, version) in steps {
            let lane = [first, second, client][lane];
            let bottle = paper_bottle(seed, SEQ_MS + version / 2, u8::try_from(version).unwrap());
            let id = short_id(&bottle);
            match what {
                0 | 1 => solo.say(lane, &Message::Announce(vec![id])),
                2 | 3 => solo.say(lane, &bottles(&[&bottle])),
                4 => solo.say(lane, &bottles(&[])),
                5 => solo.say(lane, &Message::Want(vec![id])),
                6 => solo.say(lane, &Message::Reconcile { more: false, held: vec![entry(seed, SEQ_MS + version / 2, &bottle)] }),
                7 => solo.say(lane, &Message::Tombstones(vec![Tombstone::sign(&paper_key(seed), Seq(SEQ_MS + version))])),
                8 => solo.handle(Input::LaneDown { lane, why: LaneLoss::Broken }),
                _ => solo.wait(Duration::from_millis(version * 500)),
            }
        }
        for lane in [first, second] {
            let answers = solo.wanted(lane);
            prop_assert!(answers.iter().all(|ids| !ids.is_empty() && ids.len() <= WANT_IDS));
        }
        prop_assert_eq!(solo.wanted(client).len(), 0);
    }
}
