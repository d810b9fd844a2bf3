//! The control stream (spec 05, 4): what is said comes through, and nothing else does.

use port17_proto::bottle::{Seq, ShortId};
use port17_proto::ids::{NetworkId, NodeId};
use port17_proto::limits::{
    ANNOUNCE_IDS, BOTTLE_BYTES, BOTTLES_BYTES, CONTROL_MESSAGE_BYTES, LIST_PIECE_BYTES, RECONCILE_ENTRIES, TOMBSTONE_BYTES,
    WANT_IDS,
};
use port17_proto::wire::message::{
    Held, Hello, LaneSlot, LinkId, Message, MessageError, MessageStream, PIECE_BYTES, RawMessage, read_control_body,
    split_into_pieces, write_control_body,
};
use port17_proto::wire::registry::{BODY_BYTES, ControlType, GoAwayReason, Role};
use proptest::prelude::*;

fn hello() -> Hello {
    Hello {
        versions: (1, 1),
        role: Role::Node,
        slot: LaneSlot::Two,
        link: LinkId([7; 16]),
        circuits: 4096,
        network: NetworkId([9; 32]),
    }
}

fn samples() -> Vec<Message> {
    let mut all = vec![
        Message::Hello(hello()),
        Message::Hello(Hello { role: Role::Client, slot: LaneSlot::One, versions: (0, 255), circuits: u32::MAX, ..hello() }),
    ];
    for token in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), u64::MAX] {
        all.extend([Message::Ping(token), Message::Pong(token)]);
    }
    all.extend(GoAwayReason::ALL.iter().map(|reason| Message::GoAway(*reason)));
    all
}

fn decode_urgent(bytes: &[u8]) -> Result<Message, MessageError> {
    Message::decode(&RawMessage::from_urgent(bytes)?, true)
}

#[test]
fn every_message_comes_through() {
    for message in samples() {
        let bytes = message.encode();
        assert!(bytes.len() <= PIECE_BYTES, "an urgent message fits one frame");
        assert_eq!(decode_urgent(&bytes), Ok(message));
    }
}

#[test]
fn hello_has_these_bytes() {
    let expected = [
        &[0, 0, 0, 65, 1][..],
        &[0xa6, 0x01, 0x82, 0x01, 0x01, 0x02, 0x00, 0x03, 0x02, 0x04, 0x50],
        &[7; 16],
        &[0x05, 0x10, 0x06, 0x58, 0x20],
        &[9; 32],
    ]
    .concat();
    assert_eq!(Message::Hello(Hello { circuits: 16, ..hello() }).encode(), expected);
}

fn ids(count: usize) -> Vec<ShortId> {
    vec![ShortId([7; 16]); count]
}

fn reconcile(entries: usize) -> Message {
    let held = Held { node: NodeId([1; 32]), seq: Seq(u64::MAX), short_id: ShortId([7; 16]) };
    Message::Reconcile { more: true, held: vec![held; entries] }
}

fn bottles(count: usize, bytes: usize) -> Message {
    Message::Bottles { more: true, envelopes: vec![vec![5; bytes]; count] }
}

fn list(bytes: usize) -> Message {
    Message::List { seq: u64::MAX, offset: u32::MAX, total: u32::MAX, bytes: vec![5; bytes] }
}

fn through_the_stream(message: &Message) -> Result<Message, MessageError> {
    let raw = MessageStream::new().feed(&message.encode())?.remove(0);
    Message::decode(&raw, false)
}

#[test]
fn messages_of_the_stream_come_through_up_to_their_bounds() {
    let largest = [
        Message::Announce(ids(ANNOUNCE_IDS)),
        Message::Want(ids(WANT_IDS)),
        bottles(BOTTLES_BYTES / BOTTLE_BYTES, BOTTLE_BYTES),
        Message::Bottles { more: false, envelopes: vec![] },
        Message::Tombstones(vec![vec![5; TOMBSTONE_BYTES]; BOTTLES_BYTES / TOMBSTONE_BYTES]),
        reconcile(RECONCILE_ENTRIES),
        reconcile(0),
        Message::ListSeq(0),
        Message::WantList { seq: u64::MAX, offset: u32::MAX },
        list(LIST_PIECE_BYTES),
        Message::Publish,
        Message::Unpublish,
    ];
    for message in largest {
        assert_eq!(through_the_stream(&message).as_ref(), Ok(&message));
        let RawMessage { code, body } = MessageStream::new().feed(&message.encode()).unwrap().remove(0);
        let longer = RawMessage { code, body: [&body[..], &[0]].concat() };
        assert_eq!(Message::decode(&longer, false), Err(MessageError::Malformed), "a byte behind it");
        let shorter = RawMessage { code, body: body[..body.len() - 1].to_vec() };
        assert_eq!(Message::decode(&shorter, false), Err(MessageError::Malformed), "cut");
    }
}

#[test]
fn messages_of_the_stream_beyond_their_bounds_are_refused() {
    let beyond = [
        Message::Announce(ids(0)),
        Message::Announce(ids(ANNOUNCE_IDS + 1)),
        Message::Want(ids(0)),
        Message::Want(ids(WANT_IDS + 1)),
        bottles(1, 0),
        bottles(1, BOTTLE_BYTES + 1),
        bottles(16, BOTTLES_BYTES / 16 + 1),
        Message::Tombstones(vec![]),
        Message::Tombstones(vec![vec![5; TOMBSTONE_BYTES + 1]]),
        reconcile(RECONCILE_ENTRIES + 1),
        list(LIST_PIECE_BYTES + 1),
    ];
    for message in beyond {
        assert_eq!(through_the_stream(&message), Err(MessageError::Malformed));
    }
    // Half an id, half an entry, more = 2, TOMBSTONES with more.
    let bodies: [(ControlType, &[u8]); 4] = [
        (ControlType::Announce, &[0xa1, 1, 0x48, 0, 0, 0, 0, 0, 0, 0, 0]),
        (ControlType::Reconcile, &[0xa2, 1, 0, 2, 0x41, 0]),
        (ControlType::Bottles, &[0xa2, 1, 2, 2, 0x80]),
        (ControlType::Tombstones, &[0xa2, 1, 1, 2, 0x81, 0x41, 0]),
    ];
    for (known, body) in bodies {
        let raw = RawMessage { code: known.code(), body: body.to_vec() };
        assert_eq!(Message::decode(&raw, false), Err(MessageError::Malformed), "{known:?}");
    }
}

#[test]
fn messages_of_the_stream_have_these_bytes() {
    let announce = [&[0, 0, 0, 20, 16, 0xa1, 0x01, 0x50][..], &[7; 16]].concat();
    assert_eq!(Message::Announce(ids(1)).encode(), announce);
    assert_eq!(Message::ListSeq(5).encode(), [0, 0, 0, 4, 22, 0xa1, 0x01, 0x05]);
    assert_eq!(Message::Publish.encode(), [0, 0, 0, 2, 36, 0xa0]);
    let bottles = Message::Bottles { more: false, envelopes: vec![vec![0x83]] };
    assert_eq!(bottles.encode(), [0, 0, 0, 8, 18, 0xa2, 0x01, 0x00, 0x02, 0x81, 0x41, 0x83]);
    assert_eq!(Message::WantList { seq: 7, offset: 61_440 }.encode(), [0, 0, 0, 8, 25, 0xa2, 0x01, 0x07, 0x02, 0x19, 0xf0, 0x00]);
}

#[test]
fn cut_messages_are_refused() {
    for message in samples() {
        let bytes = message.encode();
        for cut in 0..bytes.len() {
            assert!(decode_urgent(&bytes[..cut]).is_err());
        }
        // Cut inside, with a length that fits what is left.
        let raw = RawMessage::from_urgent(&bytes).unwrap();
        for cut in 0..raw.body.len() {
            let short = RawMessage { code: raw.code, body: raw.body[..cut].to_vec() };
            assert_eq!(decode_urgent(&short.encode()), Err(MessageError::Malformed));
        }
    }
}

#[test]
fn trailing_bytes_are_refused() {
    for message in samples() {
        let mut bytes = message.encode();
        bytes.push(0);
        assert_eq!(decode_urgent(&bytes), Err(MessageError::NotOneMessage));
        let mut raw = RawMessage::from_urgent(&message.encode()).unwrap();
        raw.body.push(0);
        assert_eq!(Message::decode(&raw, true), Err(MessageError::Malformed));
    }
}

#[test]
fn non_canonical_cbor_is_refused() {
    let cases: &[(&str, &[u8])] = &[
        ("a long key", &[0xa1, 0x18, 0x01, 0x05]),
        ("a long value", &[0xa1, 0x01, 0x18, 0x05]),
        ("an indefinite map", &[0xbf, 0x01, 0x05, 0xff]),
        ("a long map head", &[0xb8, 0x01, 0x01, 0x05]),
        ("a key twice", &[0xa2, 0x01, 0x05, 0x01, 0x05]),
        ("an unknown key", &[0xa1, 0x02, 0x05]),
        ("one key more", &[0xa2, 0x01, 0x05, 0x02, 0x05]),
        ("no key", &[0xa0]),
        ("a text", &[0xa1, 0x01, 0x61, 0x61]),
        ("a negative number", &[0xa1, 0x01, 0x20]),
        ("a tag", &[0xa1, 0x01, 0xc1, 0x05]),
        ("a float", &[0xa1, 0x01, 0xf9, 0x00, 0x00]),
        ("an array", &[0x81, 0x05]),
        ("deep nesting", &[0x81; 1500]),
        ("nothing", &[]),
    ];
    for (what, body) in cases {
        for kind in [ControlType::Ping, ControlType::Pong, ControlType::GoAway, ControlType::Hello] {
            let raw = RawMessage { code: kind.code(), body: body.to_vec() };
            assert_eq!(Message::decode(&raw, true), Err(MessageError::Malformed), "{what}");
        }
    }
}

#[test]
fn hello_with_impossible_values_is_refused() {
    let body = RawMessage::from_urgent(&Message::Hello(hello()).encode()).unwrap().body;
    let offsets =
        [("versions the wrong way round", 3, 2), ("role", 6, 2), ("slot 0", 8, 0), ("slot 3", 8, 3), ("a short id", 10, 0x4f)];
    for (what, at, value) in offsets {
        let mut wrong = body.clone();
        wrong[at] = value;
        let raw = RawMessage { code: ControlType::Hello.code(), body: wrong };
        assert_eq!(Message::decode(&raw, true), Err(MessageError::Malformed), "{what}");
    }
}

#[test]
fn unknown_types_are_skipped_from_16_and_refused_below() {
    for code in 0..=255u8 {
        let raw = RawMessage { code, body: vec![0xa0] };
        let found = Message::decode(&raw, false);
        match code {
            0 | 5..=15 => assert_eq!(found, Err(MessageError::UnknownType)),
            1..=4 => assert_eq!(found, Err(MessageError::WrongClass)),
            16..=18 | 21..=25 | 36 | 37 => assert_ne!(found, Ok(Message::Later(code))),
            16.. => assert_eq!(found, Ok(Message::Later(code))),
        }
    }
}

#[test]
fn a_stream_message_must_not_come_urgent() {
    let raw = RawMessage { code: ControlType::Announce.code(), body: vec![] };
    assert_eq!(Message::decode(&raw, true), Err(MessageError::WrongClass));
}

#[test]
fn the_stream_assembles_the_largest_message() {
    let message = RawMessage { code: 18, body: vec![5; CONTROL_MESSAGE_BYTES - 1] };
    let mut stream = MessageStream::new();
    let bytes = message.encode();
    let mut got = Vec::new();
    for piece in split_into_pieces(&bytes) {
        got.extend(stream.feed(piece).unwrap());
    }
    assert_eq!(got, [message]);
    assert_eq!(stream.held_bytes(), 0);
}

#[test]
fn a_length_above_the_limit_or_zero_is_refused_before_its_bytes_come() {
    for length in [0, CONTROL_MESSAGE_BYTES as u32 + 1, u32::MAX] {
        assert_eq!(MessageStream::new().feed(&length.to_be_bytes()), Err(MessageError::Length));
        assert_eq!(RawMessage::from_urgent(&length.to_be_bytes()), Err(MessageError::Length));
    }
}

#[test]
fn a_control_body_is_length_bytes_zeros() {
    let mut body = [0; BODY_BYTES];
    write_control_body(b"abc", &mut body).unwrap();
    assert_eq!(&body[..6], [0, 3, b'a', b'b', b'c', 0]);
    assert_eq!(read_control_body(&body), Ok(&b"abc"[..]));
    body[BODY_BYTES - 1] = 1;
    assert_eq!(read_control_body(&body), Err(MessageError::FrameRest));
    assert_eq!(write_control_body(b"", &mut [0; BODY_BYTES]), Err(MessageError::FrameLength));
    assert_eq!(write_control_body(&[1; PIECE_BYTES + 1], &mut [0; BODY_BYTES]), Err(MessageError::FrameLength));
    let mut full = [0; BODY_BYTES];
    write_control_body(&[1; PIECE_BYTES], &mut full).unwrap();
    assert_eq!(read_control_body(&full).map(<[u8]>::len), Ok(PIECE_BYTES));
    for length in [0, PIECE_BYTES as u16 + 1, u16::MAX] {
        full[..2].copy_from_slice(&length.to_be_bytes());
        assert_eq!(read_control_body(&full), Err(MessageError::FrameLength));
    }
}

proptest! {
    #[test]
    fn the_stream_gives_the_same_messages_however_it_is_cut(
        messages in proptest::collection::vec((16u8.., proptest::collection::vec(any::<u8>(), 0..5000)), 1..6),
        cuts in proptest::collection::vec(1usize..3000, 1..40),
    ) {
        let messages: Vec<_> = messages.into_iter().map(|(code, body)| RawMessage { code, body }).collect();
        let bytes: Vec<u8> = messages.iter().flat_map(RawMessage::encode).collect();
        let (mut stream, mut got, mut rest, mut cuts) = (MessageStream::new(), Vec::new(), &bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            got.extend(stream.feed(piece).unwrap());
            rest = after;
        }
        prop_assert_eq!(got, messages);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), code in any::<u8>(), urgent: bool) {
        let _ = RawMessage::from_urgent(&bytes);
        let _ = MessageStream::new().feed(&bytes);
        if let Ok(message) = Message::decode(&RawMessage { code, body: bytes.clone() }, urgent)
            && !matches!(message, Message::Later(_))
        {
            prop_assert_eq!(RawMessage::from_urgent(&message.encode()).unwrap().body, bytes);
        }
    }
}
