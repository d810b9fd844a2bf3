//! SETUP: what a hop makes of a packet that somebody on the way has changed (spec 06, 1).
//!
//! The first byte says what the rest is: the info inside of a record; the parts of a packet; or a route, at which hop its packet is
//! changed, and how.

use port17_proto::circuit::keyring::CircuitKeyring;
use port17_proto::circuit::setup::{SetupError, SetupInfo, SetupPacket, SetupParts};
use port17_proto::wire::registry::{BODY_BYTES, HopKind, SETUP_BYTES, SETUP_INFO_BYTES, SETUP_PARTS};

use crate::choices::Choices;
use crate::route::{Route, keyring, next_of, process};

const INFO: usize = 0;
const PARTS: usize = 1;

/// Reads an info, joins parts, or takes a packet through a route.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    match choices.below(3) {
        INFO => info(choices.rest()),
        PARTS => parts(&mut choices),
        _ => packet(&mut choices),
    }
}

fn info(bytes: &[u8]) {
    let mut record = [0; SETUP_INFO_BYTES];
    let length = bytes.len().min(SETUP_INFO_BYTES);
    record[..length].copy_from_slice(&bytes[..length]);
    let Ok(info) = SetupInfo::decode(&record) else { return };
    assert_eq!(info.encode(), record, "an info has one form");
    assert!(info.kind == HopKind::Relay || info.next.0 == [0; 32], "nobody follows an exit");
}

/// Parts in any order, of any depth, of any length.
fn parts(choices: &mut Choices<'_>) {
    let mut sent: Vec<Vec<u8>> = Vec::new();
    let mut joined: Option<SetupParts> = None;
    while !choices.is_empty() && sent.len() < 2 * SETUP_PARTS {
        let (part, delta, cut) = (choices.byte(), choices.byte(), choices.byte());
        let mut body = choices.bytes().to_vec();
        body.resize(if cut == 0xff { BODY_BYTES - 1 } else { BODY_BYTES }, cut);
        let in_order = usize::from(part) == sent.len();
        let taken = match &mut joined {
            None => SetupParts::begin(part, delta, &body).map(|begun| joined = Some(begun)).map(|()| false),
            Some(parts) => parts.push(part, delta, &body),
        };
        let Ok(complete) = taken else { continue };
        assert!(in_order && body.len() == BODY_BYTES, "parts come whole and in order");
        sent.push(body);
        assert_eq!(complete, sent.len() == SETUP_PARTS);
    }
    let Some(packet) = joined.map(SetupParts::finish) else { return };
    assert_eq!(packet.is_ok(), sent.len() == SETUP_PARTS);
    if let Ok(packet) = packet {
        assert_eq!(packet.as_bytes()[..], sent.concat());
        assert!(packet.parts().eq(sent.iter().map(Vec::as_slice)));
    }
}

/// A packet that is changed in front of one hop goes no further than to that hop; nobody takes it twice.
fn packet(choices: &mut Choices<'_>) {
    let mut route = Route::chosen(choices);
    let changed_at = choices.below(route.hops + 1);
    let mut packet = route.packet.clone();
    for hop in 0..route.hops {
        let changed = hop == changed_at;
        if changed {
            let Some(other) = altered(&packet, choices) else { return };
            packet = other;
        }
        let mut keyring = keyring(hop);
        match (process(hop, packet.clone(), &mut keyring), changed) {
            (Ok(_), true) => panic!("hop {hop} takes a packet that was changed"),
            (Err(_), true) => return,
            (Err(why), false) => panic!("hop {hop} refuses an honest packet: {why}"),
            (Ok(mut admitted), false) => {
                assert!(admitted.info.next == next_of(hop, route.hops));
                refused_again(hop, &packet, &mut keyring);
                let next = admitted.forward_packet.take();
                assert_eq!(next.is_some(), hop + 1 < route.hops);
                admitted.answer(&mut route.entropy).map(drop).expect("the client's ephemeral key is a good one");
                if let Some(next) = next {
                    assert_eq!(next.depth().code(), packet.depth().code() + 1);
                    packet = next;
                }
            }
        }
    }
}

fn refused_again(hop: usize, packet: &SetupPacket, keyring: &mut CircuitKeyring) {
    let again = process(hop, packet.clone(), keyring).map(drop);
    assert!(matches!(again, Err(SetupError::Replay(_))), "a packet is taken once");
}

/// The packet with some bytes of it changed, none if they are what they were.
fn altered(packet: &SetupPacket, choices: &mut Choices<'_>) -> Option<SetupPacket> {
    let mut bytes = Box::new(*packet.as_bytes());
    let delta = packet.depth().code().wrapping_add(choices.byte() % 7);
    for _ in 0..1 + choices.below(3) {
        let at = usize::from(choices.short()) % SETUP_BYTES;
        bytes[at] ^= choices.byte();
    }
    let same = *bytes == *packet.as_bytes() && delta == packet.depth().code();
    SetupPacket::new(delta, bytes).ok().filter(|_| !same)
}

/// An info of each kind, a whole packet, and routes that are left alone or changed at a hop.
pub fn seeds() -> Vec<Vec<u8>> {
    let info = |kind, next| {
        let info = SetupInfo { kind, slot: 7, next: next_of(next, 2), ephemeral: [9; 32] };
        [&[INFO as u8][..], &info.encode()].concat()
    };
    let whole = (0..SETUP_PARTS as u8).flat_map(|part| [part, 2, 0, 2, 5, 6]);
    let mut seeds = vec![info(HopKind::Relay, 0), info(HopKind::Exit, 1), [PARTS as u8].into_iter().chain(whole).collect()];
    for hops in 0..6 {
        seeds.push(vec![2, hops, 0, 1, 0xff]);
        seeds.push(vec![2, hops, 0, 1, hops / 2, 0, 0, 4, hops, 0x10]);
    }
    seeds
}
