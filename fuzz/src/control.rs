//! What two neighbours say beside cells: messages out of urgent frames and out of a lane's stream (spec 05, 4; spec 11, 1).
//!
//! The first byte says which of the two, and how the stream is cut into pieces; the rest is what came.

use port17_proto::bottle::{Seq, ShortId};
use port17_proto::ids::{NetworkId, NodeId};
use port17_proto::limits::{
    ANNOUNCE_IDS, BOTTLE_BYTES, BOTTLES_BYTES, CONTROL_MESSAGE_BYTES, LIST_PIECE_BYTES, RECONCILE_ENTRIES, TOMBSTONE_BYTES, WANT_IDS,
};
use port17_proto::wire::message::{
    Held, Hello, LaneSlot, LinkId, Message, MessageStream, PIECE_BYTES, RawMessage, split_into_pieces,
};
use port17_proto::wire::registry::{GoAwayReason, Role};

use crate::choices::Choices;

const URGENT: u8 = 0;

/// Reads an urgent frame's message, or a stream of messages.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    match choices.byte() {
        URGENT => urgent(choices.rest()),
        piece => stream(choices.rest(), usize::from(piece)),
    }
}

fn urgent(bytes: &[u8]) {
    let Ok(raw) = RawMessage::from_urgent(bytes) else { return };
    assert_eq!(raw.encode(), bytes, "a message's frame has one form");
    decode(&raw);
}

fn stream(bytes: &[u8], piece: usize) {
    let (whole, refused_whole) = fed(bytes.chunks(PIECE_BYTES));
    let (cut, refused_cut) = fed(bytes.chunks(piece));
    assert_eq!(refused_whole, refused_cut, "where a stream is cut changes nothing");
    // What came in one piece with the message that ends the stream is lost with it.
    let same = if refused_whole { cut.starts_with(&whole) || whole.starts_with(&cut) } else { cut == whole };
    assert!(same, "where a stream is cut changes nothing");
    whole.iter().for_each(decode);
}

/// The messages of these pieces, and whether the stream ended in an error.
fn fed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<RawMessage>, bool) {
    let (mut stream, mut messages) = (MessageStream::new(), Vec::new());
    for piece in pieces {
        let Ok(found) = stream.feed(piece) else { return (messages, true) };
        messages.extend(found);
        assert!(stream.held_bytes() <= CONTROL_MESSAGE_BYTES + 4, "one message at most is held");
    }
    (messages, false)
}

fn decode(raw: &RawMessage) {
    assert!(raw.body.len() < CONTROL_MESSAGE_BYTES);
    let decoded = [true, false].map(|urgent| Message::decode(raw, urgent));
    assert!(decoded.iter().filter(|read| read.is_ok()).count() <= 1, "a type travels in one way");
    for (message, urgent) in decoded.into_iter().zip([true, false]) {
        let Ok(message) = message else { continue };
        assert_eq!((message.code(), message.is_urgent()), (raw.code, urgent));
        if matches!(message, Message::Later(_)) {
            continue;
        }
        assert_eq!(message.encode(), raw.encode(), "a message has one form");
        assert_eq!(split_into_pieces(&message.encode()).map(<[u8]>::len).sum::<usize>(), raw.body.len() + 5);
        bounded(&message);
    }
}

fn bounded(message: &Message) {
    let envelopes_fit = |envelopes: &[Vec<u8>], most: usize| {
        envelopes.iter().all(|envelope| (1..=most).contains(&envelope.len()))
            && envelopes.iter().map(Vec::len).sum::<usize>() <= BOTTLES_BYTES
    };
    let fits = match message {
        Message::Hello(hello) => hello.versions.0 <= hello.versions.1,
        Message::Announce(ids) => (1..=ANNOUNCE_IDS).contains(&ids.len()),
        Message::Want(ids) => (1..=WANT_IDS).contains(&ids.len()),
        Message::Bottles { envelopes, .. } => envelopes_fit(envelopes, BOTTLE_BYTES),
        Message::Tombstones(envelopes) => !envelopes.is_empty() && envelopes_fit(envelopes, TOMBSTONE_BYTES),
        Message::List { bytes, .. } => bytes.len() <= LIST_PIECE_BYTES,
        Message::Reconcile { held, .. } => held.len() <= RECONCILE_ENTRIES,
        Message::Ping(_)
        | Message::Pong(_)
        | Message::GoAway(_)
        | Message::ListSeq(_)
        | Message::WantList { .. }
        | Message::Publish
        | Message::Unpublish
        | Message::Later(_) => true,
    };
    assert!(fits, "{message:?} is larger than it may be");
}

/// One message of each type.
pub(crate) fn samples() -> Vec<Message> {
    let hello = Hello {
        versions: (1, 1),
        role: Role::Node,
        slot: LaneSlot::One,
        link: LinkId([7; 16]),
        circuits: 1000,
        network: NetworkId([9; 32]),
    };
    let held = Held { node: NodeId([3; 32]), seq: Seq(1_799_999_970_021), short_id: ShortId([4; 16]) };
    vec![
        Message::Hello(hello.clone()),
        Message::Hello(Hello { role: Role::Client, slot: LaneSlot::Two, ..hello }),
        Message::Ping(0x0123_4567_89ab_cdef),
        Message::Pong(5),
        Message::GoAway(GoAwayReason::Shutdown),
        Message::Announce(vec![ShortId([1; 16]), ShortId([2; 16])]),
        Message::Want(vec![ShortId([1; 16])]),
        Message::Bottles { more: true, envelopes: vec![vec![0x83; 40], vec![1]] },
        Message::Bottles { more: false, envelopes: vec![] },
        Message::Tombstones(vec![vec![0x83; 30]]),
        Message::ListSeq(70_000),
        Message::WantList { seq: 7, offset: 65_536 },
        Message::List { seq: 7, offset: 0, total: 100, bytes: vec![5; 40] },
        Message::Reconcile { more: false, held: vec![held, held] },
        Message::Publish,
        Message::Unpublish,
        Message::Later(200),
    ]
}

/// Each message in its way, and all of the stream's together.
pub fn seeds() -> Vec<Vec<u8>> {
    let marked = |mark: u8, message: &Message| [&[mark][..], &message.encode()].concat();
    let mut seeds: Vec<_> = samples().iter().map(|it| marked(if it.is_urgent() { URGENT } else { 255 }, it)).collect();
    let streamed = samples().into_iter().filter(|it| !it.is_urgent());
    seeds.push([vec![7], streamed.flat_map(|it| it.encode()).collect()].concat());
    seeds
}
