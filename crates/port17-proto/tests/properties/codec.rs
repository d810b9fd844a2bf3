//! What goes over the wire and into the store: it comes back as it was, has one encoding, and whatever else comes is refused.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use port17_proto::bottle::{
    Address, BottleContent, BottleRules, CircuitKey, Flags, LinkClaim, NodePrefix, ProtocolRange, Seq, ShortId, Tombstone,
    UnverifiedBottle, UnverifiedTombstone,
};
use port17_proto::circuit::message::{Area, CellReader, Host, Message as CellMessage, Piece, Target, encode, header};
use port17_proto::crypto::{KemPublicKey, PUBLIC_KEY_BYTES};
use port17_proto::ids::{CircuitId, NetworkId, NodeId, StreamId};
use port17_proto::lane::frame::{FrameBuf, Header, PAIRS_PER_FRAME, pairs, pairs_frame};
use port17_proto::limits::{ANNOUNCE_IDS, LIST_PIECE_BYTES, RECONCILE_ENTRIES, TOMBSTONE_BYTES, WANT_IDS};
use port17_proto::network::{ListContent, Release, SignedList};
use port17_proto::params::Params;
use port17_proto::policy::ExitPolicy;
use port17_proto::wire::message::{Held, Hello, LaneSlot, LinkId, Message, RawMessage};
use port17_proto::wire::registry::{
    CellType, Command, GoAwayReason, HEADER_BYTES, LaneType, MESSAGE_BYTES, MESSAGE_HEADER_BYTES, ResetCode, Role, Scope,
    StreamProtocol,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::sample_bottle::{NOW_MS, SEQ, array, bytes, key, map, text, uint};
use super::sample_list::{NOW_S, content as list_content, definition, signed, signed_by};

/// What a peer does to bytes: a bit turned, some cut off, some put in.
#[derive(Debug, Clone)]
struct Change {
    at: Index,
    bit: u8,
    cut: Option<Index>,
    put: Option<(Index, u8)>,
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let at = self.at.index(bytes.len());
        bytes[at] ^= 1 << self.bit;
        if let Some((at, byte)) = &self.put {
            bytes.insert(at.index(bytes.len() + 1), *byte);
        }
        if let Some(cut) = &self.cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let (at, put) = (any::<Index>(), proptest::option::weighted(0.2, (any::<Index>(), any::<u8>())));
    let cut = proptest::option::weighted(0.2, any::<Index>());
    (at, 0..8u8, cut, put).prop_map(|(at, bit, cut, put)| Change { at, bit, cut, put })
}

// ---- Frames ----

fn a_header() -> impl Strategy<Value = Header> {
    let parts = (select(Command::ALL.to_vec()), 1..=u32::MAX, any::<bool>(), any::<u8>(), 0..4u8);
    parts.prop_map(|(command, circuit, flag, depth, part)| {
        let of_lane =
            matches!(command, Command::Padding | Command::Control | Command::Credit | Command::Reclaim | Command::Limit);
        let has_flag = matches!(command, Command::Control | Command::Cell);
        let (depth, part) = if command == Command::Setup { (depth, part) } else { (0, 0) };
        let circuit = CircuitId(if of_lane { 0 } else { circuit });
        Header { circuit, command, flags: u8::from(flag && has_flag), depth, part }
    })
}

proptest! {
    #[test]
    fn headers_come_back(header in a_header()) {
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn a_header_that_is_read_is_written_the_same(bytes: [u8; HEADER_BYTES], low: [bool; HEADER_BYTES]) {
        // Half of the bytes are small: else hardly one is a header.
        let mut bytes = bytes;
        bytes.iter_mut().zip(low).filter(|(_, low)| *low).for_each(|(byte, _)| *byte &= 1);
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn pairs_come_back(sent in vec((1..=u32::MAX, any::<u64>()), 0..=PAIRS_PER_FRAME), change in change()) {
        let sent: Vec<_> = sent.into_iter().map(|(circuit, cells)| (CircuitId(circuit), cells)).collect();
        let mut frame = pairs_frame(Command::Credit, &sent);
        let read = |frame: &FrameBuf| pairs(&frame.bytes()[HEADER_BYTES..]).map(Iterator::collect::<Vec<_>>);
        prop_assert_eq!(read(&frame), Ok(sent));
        let at = HEADER_BYTES + change.at.index(frame.bytes().len() - HEADER_BYTES);
        frame.bytes_mut()[at] ^= 1 << change.bit;
        if let Ok(others) = read(&frame) {
            let again = pairs_frame(Command::Credit, &others);
            prop_assert_eq!(again.bytes(), frame.bytes());
        }
    }
}

// ---- Control messages ----

fn ids(most: usize) -> impl Strategy<Value = Vec<ShortId>> {
    vec(any::<[u8; 16]>().prop_map(ShortId), 1..=most)
}

fn hello() -> impl Strategy<Value = Message> {
    let parts =
        (any::<(u8, u8)>(), select(Role::ALL.to_vec()), any::<bool>(), any::<[u8; 16]>(), any::<u32>(), any::<[u8; 32]>());
    parts.prop_map(|((one, other), role, first, link, circuits, network)| {
        Message::Hello(Hello {
            versions: (one.min(other), one.max(other)),
            role,
            slot: if first { LaneSlot::One } else { LaneSlot::Two },
            link: LinkId(link),
            circuits,
            network: NetworkId(network),
        })
    })
}

fn message() -> impl Strategy<Value = Message> {
    let held = (any::<[u8; 32]>(), any::<u64>(), any::<[u8; 16]>());
    let held = held.prop_map(|(node, seq, short_id)| Held { node: NodeId(node), seq: Seq(seq), short_id: ShortId(short_id) });
    let envelope = |most| vec(any::<u8>(), 1..=most);
    prop_oneof![
        hello(),
        any::<u64>().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
        select(GoAwayReason::ALL.to_vec()).prop_map(Message::GoAway),
        ids(ANNOUNCE_IDS).prop_map(Message::Announce),
        ids(WANT_IDS).prop_map(Message::Want),
        (any::<bool>(), vec(envelope(300), 0..6)).prop_map(|(more, envelopes)| Message::Bottles { more, envelopes }),
        vec(envelope(TOMBSTONE_BYTES), 1..6).prop_map(Message::Tombstones),
        any::<u64>().prop_map(Message::ListSeq),
        any::<(u64, u32)>().prop_map(|(seq, offset)| Message::WantList { seq, offset }),
        (any::<(u64, u32, u32)>(), vec(any::<u8>(), 0..300)).prop_map(|((seq, offset, total), bytes)| Message::List {
            seq,
            offset,
            total,
            bytes
        }),
        (any::<bool>(), vec(held, 0..40)).prop_map(|(more, held)| Message::Reconcile { more, held }),
        Just(Message::Publish),
        Just(Message::Unpublish),
    ]
}

fn raw(message: &Message) -> RawMessage {
    RawMessage::from_urgent(&message.encode()).unwrap()
}

proptest! {
    #[test]
    fn messages_come_back(message in message()) {
        prop_assert_eq!(Message::decode(&raw(&message), message.is_urgent()), Ok(message.clone()));
        prop_assert!(Message::decode(&raw(&message), !message.is_urgent()).is_err());
    }

    #[test]
    fn a_changed_message_is_refused_or_is_another_one(message in message(), change in change()) {
        let mut raw = raw(&message);
        change.make(&mut raw.body);
        if let Ok(other) = Message::decode(&raw, message.is_urgent()) {
            prop_assert_eq!(RawMessage::from_urgent(&other.encode()).unwrap(), raw);
        }
    }
}

#[test]
fn the_largest_messages_come_back() {
    let held = Held { node: NodeId([255; 32]), seq: Seq(u64::MAX), short_id: ShortId([255; 16]) };
    let list = Message::List { seq: u64::MAX, offset: u32::MAX, total: u32::MAX, bytes: vec![1; LIST_PIECE_BYTES] };
    for message in [list, Message::Reconcile { more: true, held: vec![held; RECONCILE_ENTRIES] }] {
        let encoded = RawMessage { code: message.code(), body: message.encode()[5..].to_vec() };
        assert_eq!(Message::decode(&encoded, false), Ok(message));
    }
}

// ---- Bottles and farewells ----

fn ip() -> impl Strategy<Value = IpAddr> {
    let any_ip = prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
    any_ip.prop_filter("a host's address", |ip| {
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        *ip == ip.to_canonical() && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
    })
}

fn policy() -> impl Strategy<Value = Option<ExitPolicy>> {
    let rule =
        select(vec!["reject * private:*", "accept tcp *:80,443", "accept udp [2001:db8::]/32:53", "accept tcp 192.0.2.0/24:1-9"]);
    proptest::option::of(vec(rule, 1..4).prop_map(|rules| ExitPolicy::parse(&rules).unwrap()))
}

fn unknown_value() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        any::<u64>().prop_map(uint),
        vec(any::<u8>(), 0..20).prop_map(|value| bytes(&value)),
        "[a-z é]{0,9}".prop_map(|value| text(&value)),
        Just(vec![0xf6]),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|values| array(&values)),
            btree_map(0..30u64, inner, 0..3).prop_map(|pairs| map(&pairs.into_iter().collect::<Vec<_>>())),
        ]
    })
}

fn bottle() -> impl Strategy<Value = BottleContent> {
    let texts = ("[a-z][a-z0-9-]{2,23}", "[ -~]{0,32}", "[ -~]{0,32}");
    let ends = (0..7_000_000u64, 0..100_000u64, 0..4096u64);
    let lists =
        (vec((ip(), 1..=u16::MAX, any::<bool>()), 0..8), vec(ip(), 0..4), btree_map(any::<[u8; 8]>(), any::<(u8, u8)>(), 0..64));
    let numbers = (0..4u8, any::<u16>(), 1..=255u8, 1..=255u8);
    let more =
        (proptest::option::of(3..9u8), policy(), btree_map(20..2000u64, unknown_value(), 0..5), select(Scope::ALL.to_vec()));
    (texts, ends, lists, numbers, more).prop_map(|(texts, ends, lists, numbers, more)| {
        let seq = SEQ - ends.2;
        let mut addresses: Vec<Address> = Vec::new();
        for (ip, port, quic) in lists.0 {
            let address = Address::new(SocketAddr::new(ip, port), if quic { LaneType::Quic } else { LaneType::TlsTcp });
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let mut egress = lists.1;
        egress.sort();
        egress.dedup();
        BottleContent {
            identity: key(1).public(),
            seq: Seq(seq),
            scope: more.3,
            label: texts.0.parse().unwrap(),
            group: texts.1,
            link_key: key(2).public(),
            link_key_expiry_s: seq / 1000 + ends.0,
            next_link_key: more.0.map(|seed| key(seed).public()),
            circuit_key: CircuitKey {
                public: KemPublicKey::from_bytes([numbers.0; PUBLIC_KEY_BYTES]),
                not_after_s: seq / 1000 + ends.1,
            },
            addresses,
            egress,
            links: lists
                .2
                .into_iter()
                .map(|(peer, (rtt, capacity))| LinkClaim { peer: NodePrefix(peer), rtt, capacity })
                .collect(),
            exit_policy: more.1,
            load: numbers.0,
            flags: Flags(numbers.1),
            protocol: ProtocolRange { lowest: numbers.2.min(numbers.3), highest: numbers.2.max(numbers.3) },
            software: texts.2,
            unknown: more.2,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn bottles_come_back(content in bottle(), change in change()) {
        let envelope = content.sign(&key(1)).unwrap();
        let parsed = UnverifiedBottle::parse(&envelope).unwrap();
        let verified = parsed.verify(NOW_MS, &BottleRules::DEFAULT).unwrap();
        prop_assert_eq!(verified.content(), &content);
        prop_assert_eq!(verified.envelope(), &envelope[..]);
        let mut changed = envelope.clone();
        change.make(&mut changed);
        if changed != envelope {
            let taken = UnverifiedBottle::parse(&changed).and_then(|bottle| bottle.verify(NOW_MS, &BottleRules::DEFAULT));
            prop_assert!(taken.is_err());
        }
    }

    #[test]
    fn farewells_come_back(seed in 1..255u8, behind_ms in 0..29 * 24 * 3_600_000u64, change in change()) {
        let seq = Seq(NOW_MS - behind_ms);
        let envelope = Tombstone::sign(&key(seed), seq);
        let take = |bytes: &[u8]| UnverifiedTombstone::parse(bytes).and_then(|it| it.verify(NOW_MS, 30 * 24 * 3_600_000, 0));
        let taken = take(&envelope).unwrap();
        prop_assert_eq!((taken.node_id(), taken.seq()), (NodeId::of(&key(seed).public()), seq));
        prop_assert_eq!(taken.envelope(), &envelope[..]);
        let mut changed = envelope.clone();
        change.make(&mut changed);
        prop_assert!(changed == envelope || take(&changed).is_err());
    }
}

// ---- Signed lists ----

fn list() -> impl Strategy<Value = ListContent> {
    let release = ("[ -~]{1,64}", "[ -~]{1,64}", any::<[u8; 32]>(), "[ -~]{1,99}")
        .prop_map(|(version, platform, sha256, url)| Release { version, platform, sha256, url });
    let params = select(vec![Params::DEFAULT, Params::private(), Params::demo()]);
    let times = (1..=u64::MAX, 0..9 * 24 * 3600u64, any::<[u8; 32]>());
    (times, vec(release, 0..4), params, btree_map(20..2000u64, unknown_value(), 0..5)).prop_map(
        |((seq, age_s, random), releases, params, unknown)| {
            let issued_s = NOW_S - age_s;
            ListContent {
                seq,
                issued_s,
                expires_s: issued_s + 10 * 24 * 3600,
                random,
                releases,
                params,
                unknown,
                ..list_content()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lists_come_back(content in list(), change in change()) {
        let bytes = signed(&content).encode();
        let list = SignedList::decode(&bytes).unwrap();
        prop_assert_eq!(&list.encode(), &bytes);
        prop_assert_eq!(list.read_unverified(), Ok(content.clone()));
        let verified = list.verify(&definition(), NOW_S);
        prop_assert_eq!(verified.map(|list| list.content().clone()), Ok(content.clone()));
        // What the roots sign is read in its one form alone.
        let mut payload = content.encode().unwrap();
        change.make(&mut payload);
        let other = signed_by(payload.clone(), &[41, 43]).read_unverified();
        // Whoever writes one verifies the Bottles in it, too.
        if let Some(encoded) = other.ok().and_then(|other| other.encode().ok()) {
            prop_assert_eq!(encoded, payload);
        }
    }
}

// ---- Messages in cells ----

#[derive(Debug, Clone)]
enum Talk {
    Data(u16, Vec<u8>),
    Message(u16, CellMessage),
}

fn cell_message() -> impl Strategy<Value = CellMessage> {
    let address = || prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
    let host = prop_oneof!["[a-z0-9._-]{1,255}".prop_map(Host::Name), address().prop_map(Host::Ip)];
    let open = (select(StreamProtocol::ALL.to_vec()), host, any::<u16>());
    prop_oneof![
        open.prop_map(|(protocol, host, port)| CellMessage::Open { protocol, target: Target { host, port } }),
        (address(), any::<u32>()).prop_map(|(ip, ttl_s)| CellMessage::Opened { ip, ttl_s }),
        Just(CellMessage::Fin),
        select(ResetCode::ALL.to_vec()).prop_map(CellMessage::Reset),
        any::<u64>().prop_map(CellMessage::Window),
    ]
}

fn talk() -> impl Strategy<Value = Vec<Talk>> {
    let data = (any::<u16>(), vec(any::<u8>(), 1..5000)).prop_map(|(stream, data)| Talk::Data(stream, data));
    let message = (any::<u16>(), cell_message()).prop_map(|(stream, message)| Talk::Message(stream, message));
    vec(prop_oneof![1 => data, 3 => message], 1..12)
}

/// Message areas, one behind the other; a header that does not fit begins the next one.
fn packed(talk: &[Talk]) -> Vec<Area> {
    let mut joined = Vec::new();
    for talk in talk {
        let left = (MESSAGE_BYTES - joined.len() % MESSAGE_BYTES) % MESSAGE_BYTES;
        if left < MESSAGE_HEADER_BYTES {
            joined.resize(joined.len() + left, 0);
        }
        match talk {
            Talk::Message(stream, message) => joined.extend(encode(StreamId(*stream), message)),
            Talk::Data(stream, data) => {
                joined.extend(header(CellType::Data, StreamId(*stream), u16::try_from(data.len()).unwrap()));
                joined.extend(data);
            }
        }
    }
    let area = |chunk: &[u8]| {
        let mut area = [0; MESSAGE_BYTES];
        area[..chunk.len()].copy_from_slice(chunk);
        area
    };
    joined.chunks(MESSAGE_BYTES).map(area).collect()
}

/// A stream, and its message or its bytes.
type Said = (u16, Result<CellMessage, Vec<u8>>);

/// What comes out, DATA of one message joined again; none if it is junk.
fn unpacked(areas: &[Area]) -> Option<Vec<Said>> {
    let (mut reader, mut found) = (CellReader::default(), Vec::<Said>::new());
    for area in areas {
        let mut goes_on = reader.is_unfinished();
        let read = reader.read(area, |piece| {
            match piece {
                Piece::Message(stream, message) => found.push((stream.0, Ok(message))),
                Piece::Data(stream, data) => match found.last_mut() {
                    Some((last, Err(joined))) if goes_on && *last == stream.0 => joined.extend(data),
                    _ => found.push((stream.0, Err(data.to_vec()))),
                },
            }
            goes_on = false;
            Ok(())
        });
        read.ok()?;
    }
    (!reader.is_unfinished()).then_some(found)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn talk_in_cells_comes_back(talk in talk()) {
        let expected: Vec<_> = talk.iter().map(|talk| match talk {
            Talk::Data(stream, data) => (*stream, Err(data.clone())),
            Talk::Message(stream, message) => (*stream, Ok(message.clone())),
        }).collect();
        prop_assert_eq!(unpacked(&packed(&talk)), Some(expected));
    }

    #[test]
    fn changed_talk_is_junk_or_says_just_that(talk in talk(), at in any::<Index>(), bit in 0..8u8) {
        let mut areas = packed(&talk);
        let at = at.index(areas.len() * MESSAGE_BYTES);
        areas[at / MESSAGE_BYTES][at % MESSAGE_BYTES] ^= 1 << bit;
        if let Some(found) = unpacked(&areas) {
            let said: Vec<Talk> = found.into_iter().map(|(stream, what)| match what {
                Ok(message) => Talk::Message(stream, message),
                Err(data) => Talk::Data(stream, data),
            }).collect();
            prop_assert_eq!(packed(&said), areas);
        }
    }
}

/// An empty Bottle has no unknown fields: nothing is kept that was not there.
#[test]
fn nothing_is_made_up() {
    let content = super::sample_bottle::minimal(1);
    let parsed = UnverifiedBottle::parse(&content.sign(&key(1)).unwrap()).unwrap();
    assert_eq!(parsed.verify(NOW_MS, &BottleRules::DEFAULT).unwrap().content().unknown, BTreeMap::new());
}
