//! What is in a control message: its CBOR, written and read (spec 05, 4; spec 11, 1).

use minicbor::{Decoder, Encoder};

use super::message::{Held, Hello, LaneSlot, LinkId, Message};
use super::registry::{
    ControlType, GoAwayReason, HELD_BYTES, Role, SHORT_ID_BYTES, announce_key, bottles_key, goaway_key, hello_key, list_key,
    ping_key, reconcile_key,
};
use crate::bottle::{Seq, ShortId};
use crate::ids::{NetworkId, NodeId};
use crate::limits::{ANNOUNCE_IDS, BOTTLE_BYTES, BOTTLES_BYTES, LIST_PIECE_BYTES, RECONCILE_ENTRIES, TOMBSTONE_BYTES, WANT_IDS};

/// Appends the message's CBOR to `out`.
pub(super) fn write(message: &Message, out: Vec<u8>) -> Vec<u8> {
    let mut cbor = Encoder::new(out);
    let written = match message {
        Message::Hello(hello) => write_hello(&mut cbor, hello),
        Message::Ping(token) | Message::Pong(token) => write_field(&mut cbor, ping_key::TOKEN, *token),
        Message::GoAway(reason) => write_field(&mut cbor, goaway_key::REASON, u64::from(reason.code())),
        Message::Announce(ids) | Message::Want(ids) => write_ids(&mut cbor, ids),
        Message::Bottles { more, envelopes } => write_envelopes(&mut cbor, *more, envelopes),
        Message::Tombstones(envelopes) => write_envelopes(&mut cbor, false, envelopes),
        Message::ListSeq(seq) => write_field(&mut cbor, list_key::SEQ, *seq),
        Message::WantList { seq, offset } => write_want_list(&mut cbor, *seq, *offset),
        Message::List { seq, offset, total, bytes } => write_list(&mut cbor, *seq, *offset, *total, bytes),
        Message::Reconcile { more, held } => write_reconcile(&mut cbor, *more, held),
        Message::Publish | Message::Unpublish => cbor.map(0).map(|_| ()),
        Message::Later(_) => Ok(()),
    };
    // Writing to a Vec has no error to give.
    debug_assert!(written.is_ok(), "a Vec takes every write");
    cbor.into_writer()
}

/// Bytes that a buffer for the message's CBOR should have: a long message makes it grow no more.
pub(super) fn room(message: &Message) -> usize {
    const REST_BYTES: usize = 64;
    const HEAD_BYTES: usize = 5;
    let long = match message {
        Message::Announce(ids) | Message::Want(ids) => ids.len() * SHORT_ID_BYTES,
        Message::Bottles { envelopes, .. } | Message::Tombstones(envelopes) => {
            envelopes.iter().map(|envelope| HEAD_BYTES + envelope.len()).sum()
        }
        Message::List { bytes, .. } => bytes.len(),
        Message::Reconcile { held, .. } => held.len() * HELD_BYTES,
        _ => 0,
    };
    REST_BYTES + long
}

/// Reads without regard to what follows or to how numbers are written: the caller compares with the one encoding. A type that is
/// reserved for later is skipped.
pub(super) fn read(known: ControlType, body: &[u8]) -> Option<Message> {
    let mut cbor = Decoder::new(body);
    let cbor = &mut cbor;
    match known {
        ControlType::Hello => read_hello(cbor).map(Message::Hello),
        ControlType::Ping => read_field(cbor, ping_key::TOKEN).map(Message::Ping),
        ControlType::Pong => read_field(cbor, ping_key::TOKEN).map(Message::Pong),
        ControlType::GoAway => {
            let code = u8::try_from(read_field(cbor, goaway_key::REASON)?).ok()?;
            GoAwayReason::from_code(code).map(Message::GoAway)
        }
        ControlType::Announce => read_ids(cbor, ANNOUNCE_IDS).map(Message::Announce),
        ControlType::Want => read_ids(cbor, WANT_IDS).map(Message::Want),
        ControlType::Bottles => {
            let (more, envelopes) = read_envelopes(cbor, BOTTLE_BYTES)?;
            Some(Message::Bottles { more, envelopes })
        }
        ControlType::Tombstones => {
            let (more, envelopes) = read_envelopes(cbor, TOMBSTONE_BYTES)?;
            (!more && !envelopes.is_empty()).then_some(Message::Tombstones(envelopes))
        }
        ControlType::ListSeq => read_field(cbor, list_key::SEQ).map(Message::ListSeq),
        ControlType::WantList => read_want_list(cbor),
        ControlType::List => read_list(cbor),
        ControlType::Reconcile => read_reconcile(cbor),
        ControlType::Publish => read_map(cbor, 0).map(|()| Message::Publish),
        ControlType::Unpublish => read_map(cbor, 0).map(|()| Message::Unpublish),
        ControlType::Attestations
        | ControlType::Vouchers
        | ControlType::Seagull
        | ControlType::Bottle
        | ControlType::WhoAmI
        | ControlType::YouAre => Some(Message::Later(known.code())),
    }
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn write_hello(cbor: &mut Encoder<Vec<u8>>, hello: &Hello) -> Written {
    cbor.map(6)?;
    cbor.u8(hello_key::VERSIONS)?.array(2)?.u8(hello.versions.0)?.u8(hello.versions.1)?;
    cbor.u8(hello_key::ROLE)?.u8(hello.role.code())?;
    cbor.u8(hello_key::SLOT)?.u8(hello.slot.code())?;
    cbor.u8(hello_key::LINK)?.bytes(&hello.link.0)?;
    cbor.u8(hello_key::CIRCUITS)?.u32(hello.circuits)?;
    cbor.u8(hello_key::NETWORK)?.bytes(&hello.network.0)?;
    Ok(())
}

fn write_field(cbor: &mut Encoder<Vec<u8>>, key: u8, value: u64) -> Written {
    cbor.map(1)?.u8(key)?.u64(value)?;
    Ok(())
}

fn write_ids(cbor: &mut Encoder<Vec<u8>>, ids: &[ShortId]) -> Written {
    cbor.map(1)?.u8(announce_key::IDS)?.bytes_len((ids.len() * SHORT_ID_BYTES) as u64)?;
    ids.iter().for_each(|id| cbor.writer_mut().extend_from_slice(&id.0));
    Ok(())
}

fn write_envelopes(cbor: &mut Encoder<Vec<u8>>, more: bool, envelopes: &[Vec<u8>]) -> Written {
    cbor.map(2)?.u8(bottles_key::MORE)?.u8(more.into())?.u8(bottles_key::ENVELOPES)?.array(envelopes.len() as u64)?;
    envelopes.iter().try_for_each(|envelope| cbor.bytes(envelope).map(|_| ()))
}

fn write_want_list(cbor: &mut Encoder<Vec<u8>>, seq: u64, offset: u32) -> Written {
    cbor.map(2)?.u8(list_key::SEQ)?.u64(seq)?.u8(list_key::OFFSET)?.u32(offset)?;
    Ok(())
}

fn write_list(cbor: &mut Encoder<Vec<u8>>, seq: u64, offset: u32, total: u32, bytes: &[u8]) -> Written {
    cbor.map(4)?.u8(list_key::SEQ)?.u64(seq)?.u8(list_key::OFFSET)?.u32(offset)?;
    cbor.u8(list_key::TOTAL)?.u32(total)?.u8(list_key::BYTES)?.bytes(bytes)?;
    Ok(())
}

fn write_reconcile(cbor: &mut Encoder<Vec<u8>>, more: bool, held: &[Held]) -> Written {
    cbor.map(2)?.u8(reconcile_key::MORE)?.u8(more.into())?.u8(reconcile_key::HELD)?;
    cbor.bytes_len((held.len() * HELD_BYTES) as u64)?;
    for held in held {
        cbor.writer_mut().extend_from_slice(&held.node.0);
        cbor.writer_mut().extend_from_slice(&held.seq.0.to_be_bytes());
        cbor.writer_mut().extend_from_slice(&held.short_id.0);
    }
    Ok(())
}

fn read_hello(cbor: &mut Decoder<'_>) -> Option<Hello> {
    read_map(cbor, 6)?;
    read_key(cbor, hello_key::VERSIONS)?;
    if cbor.array().ok()? != Some(2) {
        return None;
    }
    let versions = (cbor.u8().ok()?, cbor.u8().ok()?);
    read_key(cbor, hello_key::ROLE)?;
    let role = Role::from_code(cbor.u8().ok()?)?;
    read_key(cbor, hello_key::SLOT)?;
    let slot = LaneSlot::from_code(cbor.u8().ok()?)?;
    read_key(cbor, hello_key::LINK)?;
    let link = LinkId(cbor.bytes().ok()?.try_into().ok()?);
    read_key(cbor, hello_key::CIRCUITS)?;
    let circuits = cbor.u32().ok()?;
    read_key(cbor, hello_key::NETWORK)?;
    let network = NetworkId(cbor.bytes().ok()?.try_into().ok()?);
    (versions.0 <= versions.1).then_some(Hello { versions, role, slot, link, circuits, network })
}

fn read_field(cbor: &mut Decoder<'_>, key: u8) -> Option<u64> {
    read_map(cbor, 1)?;
    read_key(cbor, key)?;
    cbor.u64().ok()
}

fn read_map(cbor: &mut Decoder<'_>, fields: u64) -> Option<()> {
    (cbor.map().ok()? == Some(fields)).then_some(())
}

fn read_key(cbor: &mut Decoder<'_>, key: u8) -> Option<()> {
    (cbor.u8().ok()? == key).then_some(())
}

fn read_ids(cbor: &mut Decoder<'_>, most: usize) -> Option<Vec<ShortId>> {
    read_map(cbor, 1)?;
    read_key(cbor, announce_key::IDS)?;
    let (ids, rest) = cbor.bytes().ok()?.as_chunks::<SHORT_ID_BYTES>();
    (rest.is_empty() && (1..=most).contains(&ids.len())).then(|| ids.iter().map(|id| ShortId(*id)).collect())
}

/// Envelopes of at most `most` bytes each. Nothing is kept before all bounds hold.
fn read_envelopes(cbor: &mut Decoder<'_>, most: usize) -> Option<(bool, Vec<Vec<u8>>)> {
    read_map(cbor, 2)?;
    read_key(cbor, bottles_key::MORE)?;
    let more = read_bool(cbor)?;
    read_key(cbor, bottles_key::ENVELOPES)?;
    let count = cbor.array().ok()??;
    let (mut envelopes, mut total) = (Vec::new(), 0);
    for _ in 0..count {
        let envelope = cbor.bytes().ok()?;
        total += envelope.len();
        if envelope.is_empty() || envelope.len() > most || total > BOTTLES_BYTES {
            return None;
        }
        envelopes.push(envelope.to_vec());
    }
    Some((more, envelopes))
}

fn read_bool(cbor: &mut Decoder<'_>) -> Option<bool> {
    match cbor.u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn read_want_list(cbor: &mut Decoder<'_>) -> Option<Message> {
    read_map(cbor, 2)?;
    read_key(cbor, list_key::SEQ)?;
    let seq = cbor.u64().ok()?;
    read_key(cbor, list_key::OFFSET)?;
    Some(Message::WantList { seq, offset: cbor.u32().ok()? })
}

fn read_list(cbor: &mut Decoder<'_>) -> Option<Message> {
    read_map(cbor, 4)?;
    read_key(cbor, list_key::SEQ)?;
    let seq = cbor.u64().ok()?;
    read_key(cbor, list_key::OFFSET)?;
    let offset = cbor.u32().ok()?;
    read_key(cbor, list_key::TOTAL)?;
    let total = cbor.u32().ok()?;
    read_key(cbor, list_key::BYTES)?;
    let bytes = cbor.bytes().ok()?;
    (bytes.len() <= LIST_PIECE_BYTES).then(|| Message::List { seq, offset, total, bytes: bytes.to_vec() })
}

fn read_reconcile(cbor: &mut Decoder<'_>) -> Option<Message> {
    read_map(cbor, 2)?;
    read_key(cbor, reconcile_key::MORE)?;
    let more = read_bool(cbor)?;
    read_key(cbor, reconcile_key::HELD)?;
    let (entries, rest) = cbor.bytes().ok()?.as_chunks::<HELD_BYTES>();
    if !rest.is_empty() || entries.len() > RECONCILE_ENTRIES {
        return None;
    }
    let mut held = Vec::with_capacity(entries.len());
    for entry in entries {
        let (node, rest) = entry.split_first_chunk()?;
        let (seq, rest) = rest.split_first_chunk()?;
        held.push(Held { node: NodeId(*node), seq: Seq(u64::from_be_bytes(*seq)), short_id: ShortId(rest.try_into().ok()?) });
    }
    Some(Message::Reconcile { more, held })
}
