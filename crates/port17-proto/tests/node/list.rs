//! Which signed list is in force, and how lists travel (spec 12, 3; spec 11, 4).

use std::collections::BTreeMap;
use std::time::Duration;

use port17_proto::bottle::UnverifiedBottle;
use port17_proto::crypto::{Secret, SigningKey};
use port17_proto::limits::{LIST_AHEAD_S, LIST_ASKS, LIST_BYTES, LIST_PIECE_BYTES};
use port17_proto::network::{Definition, ListContent, Roots, SignedList};
use port17_proto::node::config::{ClientSetup, Config, Role as EngineRole};
use port17_proto::node::io::{Input, LaneId, LaneLoss, Output};
use port17_proto::node::record::RecordKey;
use port17_proto::node::status::ListAge;
use port17_proto::params::{Params, SetName};
use port17_proto::wire::message::{Hello, LaneSlot, LinkId, Message};
use port17_proto::wire::registry::{GoAwayReason, Role};

use super::mesh::{Mesh, Plan, START_UNIX_MS, address_of, id_of, link_key_of, node_config, ordered_seeds};
use super::solo::{Solo, bottle_of, neighbour_key, some_key};

const NOW: Duration = Duration::from_secs(1010);
const DAY_S: u64 = 24 * 3600;

/// The seeds of the node under test and of its peers 1, 2 and 3. It has the greatest NodeID, so that they are the ones who dial.
fn seeds() -> [u64; 4] {
    let [a, b, c, greatest] = ordered_seeds();
    [greatest, a, b, c]
}

fn peers() -> impl Iterator<Item = u64> {
    seeds().into_iter().skip(1)
}

fn root(seed: u8) -> SigningKey {
    SigningKey::from_seed(Secret::new([seed; 32]))
}

fn definition() -> Definition {
    Definition::new("test-net", Roots::new(1, vec![root(41).public()]).unwrap()).unwrap()
}

fn now_s() -> u64 {
    START_UNIX_MS / 1000 + NOW.as_secs()
}

/// A list without nodes, made an hour ago for 30 days.
fn content(seq: u64) -> ListContent {
    ListContent {
        network: definition().id(),
        seq,
        issued_s: now_s() - 3600,
        expires_s: now_s() - 3600 + 30 * DAY_S,
        random: [u8::try_from(seq % 256).unwrap(); 32],
        nodes: vec![],
        params: Params::demo(),
        roots: None,
        releases: vec![],
        unknown: BTreeMap::new(),
    }
}

fn signed(content: &ListContent) -> Vec<u8> {
    signed_by(content, 41)
}

fn signed_by(content: &ListContent, seed: u8) -> Vec<u8> {
    let mut list = SignedList::new(content.encode().unwrap());
    list.sign(&root(seed));
    list.encode()
}

fn list(seq: u64) -> Vec<u8> {
    signed(&content(seq))
}

/// A list of many pieces.
fn long_list(seq: u64) -> Vec<u8> {
    let field = [&[0x5a, 0, 2, 0, 0], &[7; 0x20000][..]].concat();
    signed(&ListContent { unknown: [(1000, field)].into(), ..content(seq) })
}

/// Ended a day ago.
fn expired(seq: u64) -> Vec<u8> {
    signed(&ListContent { issued_s: now_s() - 8 * DAY_S, expires_s: now_s() - DAY_S, ..content(seq) })
}

fn config(stored: Option<Vec<u8>>) -> Config {
    let plan = Plan { neighbours: peers().map(id_of).collect(), ..Plan::new(seeds()[0]) };
    let stored = stored.map(|bytes| (RecordKey::List, bytes)).into_iter().collect();
    Config { network: Some(definition()), stored, ..node_config(&plan) }
}

/// A node of the network that knows its peers' Bottles.
fn node(stored: Option<Vec<u8>>) -> Solo {
    let mut solo = Solo::of(config(stored), NOW);
    let mut mesh = Mesh::new();
    for peer in peers() {
        mesh.add(Plan { neighbours: vec![id_of(seeds()[0])], ..Plan::new(peer) });
    }
    mesh.run_for(Duration::from_secs(1));
    for host in &mesh.hosts {
        solo.handle(Input::Bottle(host.bottle_bytes.clone()));
    }
    solo
}

fn hello(role: Role, link: u8) -> Message {
    let link = LinkId([link; 16]);
    Message::Hello(Hello { versions: (1, 1), role, slot: LaneSlot::One, link, circuits: 100, network: definition().id() })
}

/// A link with peer 1, 2 or 3: its lane 1.
fn link(solo: &mut Solo, peer: usize) -> LaneId {
    let lane = solo.accept(neighbour_key(seeds()[peer]));
    solo.say(lane, &hello(Role::Node, u8::try_from(peer).unwrap()));
    assert!(solo.is_admitted(lane));
    lane
}

fn client_link(solo: &mut Solo) -> LaneId {
    let lane = solo.accept(some_key(99));
    solo.say(lane, &hello(Role::Client, 99));
    assert!(solo.is_admitted(lane));
    lane
}

fn piece(bytes: &[u8], seq: u64, offset: usize) -> Message {
    let rest = &bytes[offset..];
    let (offset, total) = (u32::try_from(offset).unwrap(), u32::try_from(bytes.len()).unwrap());
    Message::List { seq, offset, total, bytes: rest[..rest.len().min(LIST_PIECE_BYTES)].to_vec() }
}

/// What was asked for last.
fn list_wanted(solo: &Solo, lane: LaneId) -> Option<(u64, usize)> {
    solo.streamed(lane).into_iter().rev().find_map(|message| match message {
        Message::WantList { seq, offset } => Some((seq, usize::try_from(offset).unwrap())),
        _ => None,
    })
}

fn seqs_said(solo: &Solo, lane: LaneId) -> Vec<u64> {
    let said = solo.streamed(lane).into_iter().filter_map(|message| match message {
        Message::ListSeq(seq) => Some(seq),
        _ => None,
    });
    said.collect()
}

/// Gives the list that is asked for, piece by piece.
fn serve(solo: &mut Solo, lane: LaneId, seq: u64, bytes: &[u8]) {
    let mut asked = 0;
    while let Some((wanted_seq, offset)) = list_wanted(solo, lane)
        && wanted_seq == seq
        && (offset > 0 || asked == 0)
        && !solo.is_closed(lane)
        && asked < bytes.len().div_ceil(LIST_PIECE_BYTES)
    {
        asked += 1;
        solo.say(lane, &piece(bytes, seq, offset));
    }
}

fn seq_of(solo: &Solo) -> Option<u64> {
    solo.node.list().map(|list| list.seq())
}

fn saved(solo: &Solo) -> Vec<Vec<u8>> {
    let saved = solo.outputs.iter().filter_map(|output| match output {
        Output::Save(RecordKey::List, bytes) => Some(bytes.clone()),
        _ => None,
    });
    saved.collect()
}

fn words(solo: &Solo) -> Vec<String> {
    let words = solo.outputs.iter().filter_map(|output| match output {
        Output::ListRefused(why) => Some(why.clone()),
        _ => None,
    });
    words.collect()
}

// ---- The list in force ----

#[test]
fn a_better_list_is_stored_in_force_and_told_to_every_link() {
    let mut solo = node(None);
    let lanes = [link(&mut solo, 1), link(&mut solo, 2), client_link(&mut solo)];
    assert!(lanes.iter().all(|lane| seqs_said(&solo, *lane) == [0]), "0 says that there is none yet");
    solo.handle(Input::List(list(5)));

    assert_eq!(saved(&solo), [list(5)]);
    assert!(solo.outputs.iter().any(|output| matches!(output, Output::ListAccepted { seq: 5 })));
    assert!(lanes.iter().all(|lane| seqs_said(&solo, *lane) == [0, 5]));
    let held = solo.node.list().unwrap();
    assert_eq!((held.seq(), held.seed()), (5, solo.node.seed()));
    assert_ne!(solo.node.seed(), [0; 32]);
    let status = solo.node.status().list.unwrap();
    assert_eq!((status.seq, status.signers, status.nodes, status.age), (5, (1, 1), 0, ListAge::Good));
    assert_eq!((status.issued_s, status.expires_s), (content(5).issued_s, content(5).expires_s));

    let new = link(&mut solo, 3);
    assert_eq!(seqs_said(&solo, new), [5]);
    solo.handle(Input::List(list(6)));
    assert_eq!((seq_of(&solo), saved(&solo).len()), (Some(6), 2));
}

#[test]
fn a_new_lists_parameters_hold_at_once() {
    let mut solo = node(None);
    assert_eq!(solo.node.params().name, SetName::Demo);
    let params = Params { name: SetName::Own, hops: 5, ..Params::demo() };
    solo.handle(Input::List(signed(&ListContent { params: params.clone(), ..content(5) })));
    assert_eq!(solo.node.params(), &params);
    assert_eq!(solo.node.status().params, "own");
}

#[test]
fn a_bottle_that_a_new_list_makes_invalid_is_made_anew() {
    let mut solo = node(None);
    solo.wait(Duration::from_secs(1));
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let params =
        Params { circuit_key_interval: hours(2), circuit_key_lifetime: hours(6), link_key_lifetime: hours(24), ..Params::demo() };
    assert!(solo.published().last().unwrap().content().circuit_key.not_after_s > now_s() + 7 * 3600);
    solo.outputs.clear();
    solo.handle(Input::List(signed(&ListContent { params: params.clone(), ..content(5) })));
    solo.wait(Duration::from_secs(2));
    let made = solo.published().last().unwrap().envelope().to_vec();
    let now_ms = super::solo::time(solo.now).unix_ms;
    assert!(UnverifiedBottle::parse(&made).unwrap().verify(now_ms, &params.bottle_rules()).is_ok());
    // One that changes nothing for Bottles costs none.
    solo.outputs.clear();
    solo.handle(Input::List(signed(&ListContent { params, ..content(6) })));
    solo.wait(Duration::from_secs(5));
    assert!(solo.published().is_empty());
}

#[test]
fn a_replayed_list_changes_nothing() {
    let mut solo = node(Some(list(5)));
    solo.handle(Input::List(list(5)));
    assert_eq!((seq_of(&solo), saved(&solo).len(), words(&solo).len()), (Some(5), 0, 0));
    assert_eq!((solo.count("list-older"), solo.count("list-refused")), (0, 0));
}

#[test]
fn an_older_list_never_comes_back() {
    let mut solo = node(Some(list(5)));
    solo.handle(Input::List(list(4)));
    assert_eq!((seq_of(&solo), solo.count("list-older"), saved(&solo).len()), (Some(5), 1, 0));
    // Not even when the one in force has expired.
    let mut solo = node(Some(expired(5)));
    solo.handle(Input::List(list(4)));
    assert_eq!((seq_of(&solo), solo.count("list-older")), (Some(5), 1));
}

#[test]
fn of_two_lists_with_one_number_the_first_stays_and_it_is_said() {
    let mut solo = node(Some(list(5)));
    solo.handle(Input::List(signed(&ListContent { random: [99; 32], ..content(5) })));
    assert_eq!((solo.node.list().unwrap().content().random, solo.count("list-twin")), ([5; 32], 1));
    assert!(words(&solo)[0].contains("two different lists"), "{:?}", words(&solo));
}

#[test]
fn a_list_that_is_not_valid_is_refused_in_words() {
    let half = list(5)[..200].to_vec();
    let other_network = ListContent { network: port17_proto::ids::NetworkId([8; 32]), ..content(5) };
    let future = ListContent { issued_s: now_s() + 7200, ..content(5) };
    let cases = [
        (half, "fetch it again"),
        (vec![0; LIST_BYTES + 1], "larger than is allowed"),
        (b"<html>".to_vec(), "not a signed list"),
        (signed_by(&content(5), 42), "0 of the 1 signatures"),
        (signed(&other_network), "another network"),
        (expired(5), "expired 1 d 0 h ago"),
        (signed(&future), "in the future"),
    ];
    for (bytes, expected) in cases {
        let mut solo = node(None);
        solo.handle(Input::List(bytes));
        assert_eq!((seq_of(&solo), solo.count("list-refused"), saved(&solo).len()), (None, 1, 0));
        assert!(words(&solo)[0].contains(expected), "{:?} lacks {expected}", words(&solo));
    }
}

#[test]
fn without_a_network_every_list_is_refused() {
    let mut solo = Solo::new(1, 2);
    solo.handle(Input::List(list(5)));
    assert_eq!((seq_of(&solo), solo.count("list-refused")), (None, 1));
    assert!(words(&solo)[0].contains("no network file"));
    assert!(solo.node.may_choose_guard());
}

#[test]
fn without_a_list_a_node_of_a_network_waits_and_says_so() {
    let solo = node(None);
    assert!(solo.node.status().waits_for.unwrap().contains("signed list"));
    assert!(!solo.node.may_choose_guard());
}

#[test]
fn a_node_that_is_the_whole_network_waits_for_nobody() {
    let alone = |nodes| {
        let mut config = config(Some(signed(&ListContent { nodes, ..content(1) })));
        if let EngineRole::Node(setup) = &mut config.role {
            setup.neighbours = None;
        }
        Solo::of(config, NOW).node.status().waits_for
    };
    assert!(alone(vec![]).unwrap().contains("other nodes"), "a list that does not name it");
    assert_eq!(alone(vec![bottle_of(seeds()[0])]), None);
}

// ---- Restarts ----

#[test]
fn a_stored_list_is_in_force_after_a_restart() {
    let params = Params { hops: 5, ..Params::demo() };
    let stored = signed(&ListContent { params, ..content(5) });
    // Its parameters hold from the start: those of the configuration would refuse a loopback address.
    let solo = Solo::of(Config { params: Params::DEFAULT, ..config(Some(stored)) }, NOW);
    assert_eq!((seq_of(&solo), solo.node.params().hops), (Some(5), 5));
    assert!(solo.node.may_choose_guard());
}

#[test]
fn a_stored_list_that_has_expired_stays_in_force_and_chooses_no_guard() {
    let mut solo = node(Some(expired(5)));
    assert_eq!(solo.node.status().list.unwrap().age, ListAge::Expired);
    assert_eq!((seq_of(&solo), solo.node.may_choose_guard()), (Some(5), false));
    solo.handle(Input::List(list(6)));
    assert_eq!(solo.node.status().list.unwrap().age, ListAge::Good);
    assert!(solo.node.may_choose_guard());
}

#[test]
fn a_list_grows_old_and_expires_while_it_is_in_force() {
    let mut solo = node(Some(list(5)));
    let age = |solo: &Solo| (solo.node.status().list.unwrap().age, solo.node.may_choose_guard());
    assert_eq!(age(&solo), (ListAge::Good, true));
    solo.wait(Duration::from_secs(10 * DAY_S));
    assert_eq!(age(&solo), (ListAge::Old, false));
    solo.wait(Duration::from_secs(20 * DAY_S));
    assert_eq!(age(&solo), (ListAge::Expired, false));
}

#[test]
fn a_stored_list_that_cannot_be_used_is_named() {
    for bad in [vec![1, 2, 3], signed_by(&content(5), 42)] {
        let solo = node(Some(bad));
        assert_eq!((seq_of(&solo), solo.count("list-refused"), words(&solo).len()), (None, 1, 1));
    }
}

// ---- Fetching ----

#[test]
fn a_list_that_a_link_offers_is_fetched_piece_by_piece() {
    let mut solo = node(Some(list(4)));
    let lane = link(&mut solo, 1);
    let bytes = long_list(5);
    solo.say(lane, &Message::ListSeq(5));
    assert_eq!(list_wanted(&solo, lane), Some((5, 0)));
    for offset in (0..bytes.len()).step_by(LIST_PIECE_BYTES) {
        assert_eq!((list_wanted(&solo, lane), seq_of(&solo)), (Some((5, offset)), Some(4)));
        solo.say(lane, &piece(&bytes, 5, offset));
    }
    assert_eq!((seq_of(&solo), saved(&solo)), (Some(5), vec![bytes]));
    assert!(!solo.is_closed(lane));
}

#[test]
fn what_is_not_newer_is_not_asked_for() {
    let mut solo = node(Some(list(5)));
    let lane = link(&mut solo, 1);
    for seq in [0, 4, 5] {
        solo.say(lane, &Message::ListSeq(seq));
    }
    assert_eq!(list_wanted(&solo, lane), None);
}

#[test]
fn one_list_comes_at_a_time_from_one_link() {
    let mut solo = node(None);
    let lanes = [1, 2, 3].map(|peer| link(&mut solo, peer));
    for (lane, seq) in lanes.iter().zip([7, 5, 6]) {
        solo.say(*lane, &Message::ListSeq(seq));
    }
    let asked: Vec<_> = lanes.iter().filter(|lane| list_wanted(&solo, **lane).is_some()).collect();
    assert_eq!(asked, [&lanes[0]]);
    // What the others offer is fetched afterwards as long as it is newer.
    solo.say(lanes[0], &Message::ListSeq(4));
    serve(&mut solo, lanes[0], 4, &list(4));
    for _ in 0..3 {
        for (lane, seq) in lanes.iter().zip([4, 5, 6]) {
            serve(&mut solo, *lane, seq, &list(seq));
        }
    }
    assert_eq!(seq_of(&solo), Some(6));
}

#[test]
fn a_list_that_does_not_come_costs_the_lane_and_another_link_is_asked() {
    let mut solo = node(None);
    let lanes = [link(&mut solo, 1), link(&mut solo, 2)];
    solo.say(lanes[0], &Message::ListSeq(5));
    solo.say(lanes[1], &Message::ListSeq(5));
    solo.handle(Input::Control { lane: lanes[0], urgent: false, message: later_message() });
    let patience = solo.node.params().bulk_timeout;
    // Both PINGs are answered: it is the list alone that is late.
    let steps = 40;
    for _ in 0..steps {
        answer_pings(&mut solo, &lanes);
        solo.wait((patience + Duration::from_millis(10)) / steps);
    }
    assert!(solo.is_closed(lanes[0]) && !solo.is_closed(lanes[1]));
    assert_eq!(solo.count("list-late"), 1);
    serve(&mut solo, lanes[1], 5, &list(5));
    assert_eq!(seq_of(&solo), Some(5));
}

/// A type of a later version: skipped.
fn later_message() -> port17_proto::wire::message::RawMessage {
    port17_proto::wire::message::RawMessage { code: 255, body: vec![] }
}

fn answer_pings(solo: &mut Solo, lanes: &[LaneId]) {
    for lane in lanes {
        let pending = solo.outputs.iter().enumerate().rev().find_map(|(at, output)| match output {
            Output::Send { lane: on, urgent: true, message } if on == lane => {
                let raw = port17_proto::wire::message::RawMessage::from_urgent(message).unwrap();
                match Message::decode(&raw, true) {
                    Ok(Message::Ping(token)) => Some((at, token)),
                    _ => None,
                }
            }
            _ => None,
        });
        if let Some((at, token)) = pending {
            solo.outputs.remove(at);
            solo.say(*lane, &Message::Pong(token));
        }
    }
}

#[test]
fn a_link_that_goes_down_takes_its_offer_along() {
    let mut solo = node(None);
    let lanes = [link(&mut solo, 1), link(&mut solo, 2)];
    solo.say(lanes[0], &Message::ListSeq(9));
    solo.say(lanes[1], &Message::ListSeq(5));
    assert_eq!(list_wanted(&solo, lanes[1]), None);
    solo.handle(Input::LaneDown { lane: lanes[0], why: LaneLoss::Broken });
    assert_eq!(list_wanted(&solo, lanes[1]), Some((5, 0)));
    serve(&mut solo, lanes[1], 5, &list(5));
    assert_eq!(seq_of(&solo), Some(5));
}

#[test]
fn a_piece_that_does_not_fit_costs_the_lane() {
    let bytes = long_list(5);
    let total = u32::try_from(bytes.len()).unwrap();
    let full = bytes[..LIST_PIECE_BYTES].to_vec();
    let first = |offset, total, bytes: &[u8]| Message::List { seq: 5, offset, total, bytes: bytes.to_vec() };
    let too_large = u32::try_from(LIST_BYTES + 1).unwrap();
    let wrong = [
        first(1, total, &full),
        first(0, too_large, &full),
        first(0, 0, &[]),
        first(0, total, &[]),
        first(0, total, &full[1..]),
        first(0, 10, &full),
        first(total, total, &[]),
        Message::List { seq: 6, offset: 0, total, bytes: full.clone() },
    ];
    for message in wrong {
        let mut solo = node(None);
        let lane = link(&mut solo, 1);
        solo.say(lane, &Message::ListSeq(5));
        solo.say(lane, &message);
        assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
    }
    // The second piece: of another total, twice the first, out of order.
    let second = LIST_PIECE_BYTES;
    let other_total = Message::List { seq: 5, offset: u32::try_from(second).unwrap(), total: total + 1, bytes: full };
    for message in [other_total, piece(&bytes, 5, 0), piece(&bytes, 5, 2 * second)] {
        let mut solo = node(None);
        let lane = link(&mut solo, 1);
        solo.say(lane, &Message::ListSeq(5));
        solo.say(lane, &piece(&bytes, 5, 0));
        solo.say(lane, &message);
        assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
    }
}

#[test]
fn a_list_that_nobody_asked_for_costs_the_lane() {
    let mut solo = node(None);
    let lane = link(&mut solo, 1);
    solo.say(lane, &piece(&list(5), 5, 0));
    assert_eq!((solo.sent_away(lane), seq_of(&solo)), (Some(GoAwayReason::Protocol), None));
}

#[test]
fn a_piece_that_the_source_has_overtaken_costs_nothing_once() {
    let mut solo = node(None);
    let lane = link(&mut solo, 1);
    solo.say(lane, &Message::ListSeq(5));
    assert_eq!(list_wanted(&solo, lane), Some((5, 0)));
    solo.handle(Input::List(list(5)));
    solo.say(lane, &piece(&list(5), 5, 0));
    assert!(!solo.is_closed(lane), "it was asked for, and came from elsewhere first");
    solo.say(lane, &piece(&list(5), 5, 0));
    assert!(solo.is_closed(lane), "it was asked for once");
}

#[test]
fn a_forged_list_costs_the_lane_and_another_link_is_asked() {
    let other_number = list(6);
    for bad in [signed_by(&content(5), 42), vec![7; 500], other_number] {
        let mut solo = node(None);
        let lanes = [link(&mut solo, 1), link(&mut solo, 2)];
        solo.say(lanes[0], &Message::ListSeq(5));
        solo.say(lanes[1], &Message::ListSeq(5));
        serve(&mut solo, lanes[0], 5, &bad);
        assert_eq!((solo.sent_away(lanes[0]), solo.count("list-refused")), (Some(GoAwayReason::Protocol), 1));
        assert_eq!(seq_of(&solo), None);
        serve(&mut solo, lanes[1], 5, &list(5));
        assert_eq!(seq_of(&solo), Some(5));
    }
}

#[test]
fn a_list_that_the_roots_signed_and_is_of_no_use_costs_no_lane_and_is_not_asked_for_again() {
    let mut solo = node(None);
    let lanes = [link(&mut solo, 1), link(&mut solo, 2)];
    solo.say(lanes[0], &Message::ListSeq(5));
    serve(&mut solo, lanes[0], 5, &expired(5));
    assert_eq!((seq_of(&solo), solo.count("list-refused"), solo.is_closed(lanes[0])), (None, 1, false));
    solo.say(lanes[1], &Message::ListSeq(5));
    assert_eq!(list_wanted(&solo, lanes[1]), None);
    solo.say(lanes[1], &Message::ListSeq(6));
    serve(&mut solo, lanes[1], 6, &list(6));
    assert_eq!(seq_of(&solo), Some(6));
}

#[test]
fn a_list_that_was_of_no_use_is_asked_for_again_once_the_clock_may_be_right() {
    let mut solo = node(None);
    let lane = link(&mut solo, 1);
    let early = signed(&ListContent { issued_s: now_s() + LIST_AHEAD_S + 3, ..content(5) });
    solo.say(lane, &Message::ListSeq(5));
    serve(&mut solo, lane, 5, &early);
    assert_eq!((seq_of(&solo), solo.count("list-refused")), (None, 1));
    solo.outputs.clear();
    solo.wait(Duration::from_millis(500));
    solo.say(lane, &Message::ListSeq(5));
    assert_eq!(list_wanted(&solo, lane), None, "not again and again");
    solo.wait(Duration::from_secs(4));
    solo.say(lane, &Message::ListSeq(5));
    serve(&mut solo, lane, 5, &early);
    assert_eq!(seq_of(&solo), Some(5));
}

#[test]
fn which_list_is_in_force_is_said_again_with_each_repair() {
    let mut solo = node(Some(list(5)));
    let lane = link(&mut solo, 1);
    assert_eq!(seqs_said(&solo, lane), [5]);
    for _ in 0..6 {
        solo.wait(Duration::from_millis(500));
    }
    assert_eq!(seqs_said(&solo, lane), [5, 5]);
}

#[test]
fn what_was_planned_by_older_parameters_comes_when_the_new_ones_say() {
    let mut slow = config(None);
    slow.params.repair_interval = Duration::from_secs(600);
    let mut solo = Solo::of(slow, NOW);
    solo.handle(Input::Bottle(super::solo::bottle_of(seeds()[1])));
    let lane = link(&mut solo, 1);
    solo.outputs.clear();
    solo.wait(Duration::from_secs(3));
    let repairs = |solo: &Solo| solo.streamed(lane).iter().filter(|it| matches!(it, Message::Reconcile { .. })).count();
    assert_eq!(repairs(&solo), 0);
    solo.handle(Input::List(list(5)));
    solo.wait(Duration::from_secs(3));
    assert_eq!(repairs(&solo), 1);
}

#[test]
fn a_list_that_is_offered_again_and_again_and_never_comes_costs_the_lane() {
    let mut solo = node(None);
    let lane = link(&mut solo, 1);
    for seq in 0..u64::from(LIST_ASKS) {
        solo.say(lane, &Message::ListSeq(5 + seq));
        assert_eq!(list_wanted(&solo, lane), Some((5 + seq, 0)));
    }
    assert!(!solo.is_closed(lane));
    solo.say(lane, &Message::ListSeq(100));
    assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
}

#[test]
fn nothing_is_fetched_while_the_engine_stops() {
    let mut solo = node(None);
    let lanes = [link(&mut solo, 1), link(&mut solo, 2)];
    lanes.iter().for_each(|lane| solo.say(*lane, &Message::ListSeq(5)));
    solo.handle(Input::Shutdown);
    assert_eq!(list_wanted(&solo, lanes[1]), None);
}

// ---- Giving ----

#[test]
fn whoever_asks_gets_the_piece() {
    let bytes = long_list(5);
    let mut solo = node(Some(bytes.clone()));
    let lanes = [link(&mut solo, 1), client_link(&mut solo)];
    for lane in lanes {
        for offset in [LIST_PIECE_BYTES, 0, bytes.len() - 1, 0] {
            solo.say(lane, &Message::WantList { seq: 5, offset: u32::try_from(offset).unwrap() });
            assert!(solo.streamed(lane).pop() == Some(piece(&bytes, 5, offset)), "{offset}");
        }
    }
}

#[test]
fn who_asks_for_another_list_is_told_which_there_is() {
    let mut solo = node(Some(list(5)));
    let lane = link(&mut solo, 1);
    for seq in [4, 6] {
        solo.say(lane, &Message::WantList { seq, offset: 0 });
        assert_eq!(solo.streamed(lane).pop(), Some(Message::ListSeq(5)));
    }
    let mut solo = node(None);
    let lane = link(&mut solo, 1);
    solo.say(lane, &Message::WantList { seq: 5, offset: 0 });
    assert_eq!(solo.streamed(lane).pop(), Some(Message::ListSeq(0)));
}

#[test]
fn who_asks_beyond_the_end_loses_the_lane() {
    for offset in [list(5).len(), usize::try_from(u32::MAX).unwrap()] {
        let mut solo = node(Some(list(5)));
        let lane = link(&mut solo, 1);
        solo.say(lane, &Message::WantList { seq: 5, offset: u32::try_from(offset).unwrap() });
        assert_eq!(solo.sent_away(lane), Some(GoAwayReason::Protocol));
    }
}

// ---- Clients (law 1) ----

#[test]
fn law_1_nodes_take_no_list_from_clients() {
    let mut solo = node(Some(list(4)));
    let lane = client_link(&mut solo);
    solo.say(lane, &Message::ListSeq(5));
    assert_eq!((list_wanted(&solo, lane), solo.is_closed(lane)), (None, false));
    solo.say(lane, &piece(&list(5), 5, 0));
    assert_eq!((solo.sent_away(lane), seq_of(&solo)), (Some(GoAwayReason::Protocol), Some(4)));
}

fn client(mesh: &mut Mesh, seed: u64, guard: u64) -> usize {
    let config = Config {
        role: EngineRole::Client(ClientSetup { guard: Some(id_of(guard)), hops: None }),
        params: Params::demo(),
        network: Some(definition()),
        stored: vec![],
        entropy: port17_proto::crypto::Entropy::from_number(seed),
    };
    mesh.add_host(config, port17_proto::ids::NodeId([0; 32]), link_key_of(seed), vec![])
}

/// A line of nodes, each linked to the next.
fn line(mesh: &mut Mesh, seeds: &[u64]) {
    for (at, seed) in seeds.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| seeds[at]);
        let after = seeds.get(at + 1).copied();
        let neighbours = before.into_iter().chain(after).map(id_of).collect();
        let plan = Plan { neighbours, ..Plan::new(*seed) };
        let config = Config { network: Some(definition()), ..node_config(&plan) };
        mesh.add_host(config, id_of(*seed), link_key_of(*seed), vec![address_of(*seed)]);
    }
}

fn all_have(mesh: &Mesh, seq: u64) -> bool {
    mesh.hosts.iter().all(|host| host.node.as_ref().unwrap().list().is_some_and(|list| list.seq() == seq))
}

#[test]
fn a_newer_list_on_one_node_comes_to_the_whole_mesh_and_its_clients() {
    let mut mesh = Mesh::new();
    line(&mut mesh, &[1, 2, 3, 4, 5]);
    client(&mut mesh, 9, 5);
    mesh.run_for(Duration::from_secs(1));
    mesh.input(0, Input::List(list(5)));
    mesh.run_until(Duration::from_secs(2), "the first list", |mesh| all_have(mesh, 5));
    mesh.input(3, Input::List(long_list(6)));
    mesh.run_until(Duration::from_secs(2), "the second list", |mesh| all_have(mesh, 6));
    // An older one that somebody is given again goes nowhere.
    mesh.input(1, Input::List(list(5)));
    mesh.run_for(Duration::from_secs(1));
    assert!(all_have(&mesh, 6));
    let seeds: Vec<_> = mesh.hosts.iter().map(|host| host.node.as_ref().unwrap().seed()).collect();
    assert!(seeds.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn who_was_away_has_the_newest_list_with_its_first_link() {
    let mut mesh = Mesh::new();
    line(&mut mesh, &[1, 2]);
    mesh.run_for(Duration::from_secs(1));
    mesh.input(0, Input::List(list(5)));
    mesh.run_for(Duration::from_secs(1));
    client(&mut mesh, 9, 2);
    mesh.run_until(Duration::from_secs(3), "the list at the newcomer", |mesh| all_have(mesh, 5));
}

// ---- Contact ----

#[test]
fn a_listed_node_is_dialled_without_any_other_bottle_of_it() {
    let mut mesh = Mesh::new();
    let other = 2;
    mesh.add(Plan::new(other));
    mesh.run_for(Duration::from_secs(1));
    let bottle = mesh.hosts[0].bottle_bytes.clone();
    let plan = Plan { neighbours: vec![id_of(other)], hidden: true, ..Plan::new(1) };
    let mut solo = Solo::of(Config { network: Some(definition()), ..node_config(&plan) }, NOW);
    assert!(solo.dial().is_none());
    // Whatever its age: a week later.
    solo.wait(Duration::from_secs(7 * DAY_S));
    solo.handle(Input::List(signed(&ListContent { nodes: vec![bottle], ..content(5) })));
    assert!(solo.dial().is_some());
    assert!(solo.node.is_listed(&id_of(other)));
    assert!(!solo.node.is_listed(&id_of(3)));
    assert_eq!(solo.node.listed().len(), 1);
    // Contact, and never a hop.
    assert!(solo.node.bottlerack().is_empty());
}
