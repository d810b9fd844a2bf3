//! The payload: content to bytes and back (spec 04, 2).

use std::net::IpAddr;

use super::content::{Address, BottleContent, CircuitKey, Flags, LinkClaim, NodePrefix, ProtocolRange};
use super::{BottleError, Seq};
use crate::cbor::record::{FieldWriter, Fields, Schema};
use crate::cbor::{CborError, Reader, Writer};
use crate::crypto::{KemPublicKey, VerifyingKey};
use crate::limits::{BOTTLE_ADDRESSES, BOTTLE_EGRESS, BOTTLE_LINKS, UNKNOWN_DEPTH};
use crate::policy::ExitPolicy;
use crate::wire::registry::{BOTTLE_LINK_BYTES, BottleKey, SUITE, Scope};

/// A Bottle's payload (spec 04, 2).
struct BottleFields;

impl Schema for BottleFields {
    type Key = BottleKey;
    type Error = BottleError;
    const KNOWN: usize = BottleKey::ALL.len();
    const DEPTH: usize = UNKNOWN_DEPTH;

    fn code(key: BottleKey) -> u8 {
        key.code()
    }

    fn missing(key: BottleKey) -> BottleError {
        BottleError::Missing(key)
    }

    fn invalid(key: BottleKey) -> BottleError {
        BottleError::Field(key)
    }

    fn too_many() -> BottleError {
        BottleError::UnknownFields
    }
}

/// Encodes content in its one form.
pub(super) fn encode(content: &BottleContent) -> Vec<u8> {
    let mut fields = FieldWriter::<BottleFields>::new();
    fields.unsigned(BottleKey::Suite, u64::from(SUITE));
    fields.bytes(BottleKey::Identity, &content.identity.0);
    fields.unsigned(BottleKey::Seq, content.seq.0);
    fields.unsigned(BottleKey::Scope, u64::from(content.scope.code()));
    fields.text(BottleKey::Label, content.label.as_str());
    if !content.group.is_empty() {
        fields.text(BottleKey::Group, &content.group);
    }
    fields.bytes(BottleKey::LinkKey, &content.link_key.0);
    fields.unsigned(BottleKey::LinkKeyExpiry, content.link_key_expiry_s);
    if let Some(next) = &content.next_link_key {
        fields.bytes(BottleKey::NextLinkKey, &next.0);
    }
    fields.bytes(BottleKey::CircuitKey, content.circuit_key.public.as_bytes());
    fields.unsigned(BottleKey::CircuitKeyNotAfter, content.circuit_key.not_after_s);
    if !content.addresses.is_empty() {
        fields.add(BottleKey::Addresses, |writer| write_addresses(writer, &content.addresses));
    }
    if !content.egress.is_empty() {
        fields.add(BottleKey::Egress, |writer| write_egress(writer, &content.egress));
    }
    if !content.links.is_empty() {
        fields.bytes(BottleKey::Links, &pack_links(&content.links));
    }
    if let Some(policy) = &content.exit_policy {
        fields.bytes(BottleKey::ExitPolicy, &policy.compile());
    }
    fields.unsigned(BottleKey::Load, u64::from(content.load));
    fields.unsigned(BottleKey::Flags, u64::from(content.flags.0));
    fields.add(BottleKey::Protocol, |writer| write_protocol(writer, content.protocol));
    fields.text(BottleKey::Software, &content.software);
    // A known key among the unknown ones changes the content; `sign` compares.
    fields.add_unknown(&content.unknown);
    fields.into_map()
}

/// Reads a payload.
///
/// # Errors
/// What is wrong with it. What it takes encodes to the same bytes.
pub(super) fn decode(payload: &[u8]) -> Result<BottleContent, BottleError> {
    let mut fields = Fields::<BottleFields>::read(payload)?;
    if fields.number::<u8>(BottleKey::Suite)? != SUITE {
        return Err(BottleError::Field(BottleKey::Suite));
    }
    let content = BottleContent {
        identity: fields.key(BottleKey::Identity)?,
        seq: Seq(fields.number(BottleKey::Seq)?),
        scope: fields.parsed(BottleKey::Scope, |field| Ok(Scope::from_code(number(field)?)))?,
        label: fields.parsed(BottleKey::Label, |field| Ok(field.text()?.parse().ok()))?,
        group: fields.optional(BottleKey::Group, |field| not_empty(field.text()?.to_owned()))?.unwrap_or_default(),
        link_key: fields.key(BottleKey::LinkKey)?,
        link_key_expiry_s: fields.number(BottleKey::LinkKeyExpiry)?,
        next_link_key: fields.optional(BottleKey::NextLinkKey, |field| Ok(field.bytes()?.try_into().ok().map(VerifyingKey)))?,
        circuit_key: CircuitKey {
            public: fields.parsed(BottleKey::CircuitKey, read_circuit_key)?,
            not_after_s: fields.number(BottleKey::CircuitKeyNotAfter)?,
        },
        addresses: fields.optional(BottleKey::Addresses, read_addresses)?.unwrap_or_default(),
        egress: fields.optional(BottleKey::Egress, read_egress)?.unwrap_or_default(),
        links: fields.optional(BottleKey::Links, read_links)?.unwrap_or_default(),
        exit_policy: fields.optional(BottleKey::ExitPolicy, |field| Ok(ExitPolicy::decode(field.bytes()?).ok()))?,
        load: fields.number(BottleKey::Load)?,
        flags: Flags(fields.number(BottleKey::Flags)?),
        protocol: fields.parsed(BottleKey::Protocol, read_protocol)?,
        software: fields.parsed(BottleKey::Software, |field| Ok(Some(field.text()?.to_owned())))?,
        unknown: fields.into_unknown()?,
    };
    content.check()?;
    // spec 04, 1: what does not re-encode to itself is invalid. The reader is strict, so this finds only what it forgot.
    if encode(&content) == payload { Ok(content) } else { Err(BottleError::NotCanonical) }
}

fn not_empty(text: String) -> Result<Option<String>, CborError> {
    Ok((!text.is_empty()).then_some(text))
}

/// A number of one byte; larger ones become 255, which is none of the codes read here.
fn number(field: &mut Reader<'_>) -> Result<u8, CborError> {
    Ok(u8::try_from(field.unsigned()?).unwrap_or(u8::MAX))
}

fn read_circuit_key(field: &mut Reader<'_>) -> Result<Option<KemPublicKey>, CborError> {
    Ok(field.bytes()?.try_into().ok().map(KemPublicKey::from_bytes))
}

fn write_addresses(writer: &mut Writer, addresses: &[Address]) {
    writer.array(addresses.len());
    for address in addresses {
        writer.array(3);
        write_ip(writer, address.ip);
        writer.unsigned(u64::from(address.port));
        writer.unsigned(u64::from(address.lane_code));
    }
}

fn read_addresses(field: &mut Reader<'_>) -> Result<Option<Vec<Address>>, CborError> {
    let count = field.array()?;
    if !(1..=BOTTLE_ADDRESSES as u64).contains(&count) {
        return Ok(None);
    }
    (0..count).map(|_| read_address(field)).collect()
}

fn read_address(field: &mut Reader<'_>) -> Result<Option<Address>, CborError> {
    if field.array()? != 3 {
        return Ok(None);
    }
    let ip = read_ip(field)?;
    let port = u16::try_from(field.unsigned()?).ok();
    let lane_code = u8::try_from(field.unsigned()?).ok();
    let (Some(ip), Some(port), Some(lane_code)) = (ip, port, lane_code) else {
        return Ok(None);
    };
    Ok(Some(Address { ip, port, lane_code }))
}

fn write_egress(writer: &mut Writer, egress: &[IpAddr]) {
    writer.array(egress.len());
    for ip in egress {
        write_ip(writer, *ip);
    }
}

fn read_egress(field: &mut Reader<'_>) -> Result<Option<Vec<IpAddr>>, CborError> {
    let count = field.array()?;
    if !(1..=BOTTLE_EGRESS as u64).contains(&count) {
        return Ok(None);
    }
    (0..count).map(|_| read_ip(field)).collect()
}

fn write_ip(writer: &mut Writer, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => writer.bytes(&ip.octets()),
        IpAddr::V6(ip) => writer.bytes(&ip.octets()),
    }
}

fn read_ip(field: &mut Reader<'_>) -> Result<Option<IpAddr>, CborError> {
    let bytes = field.bytes()?;
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from);
    Ok(v4.or(v6))
}

fn pack_links(links: &[LinkClaim]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(links.len() * BOTTLE_LINK_BYTES);
    for link in links {
        packed.extend(link.peer.0);
        packed.extend([link.rtt, link.capacity]);
    }
    packed
}

fn read_links(field: &mut Reader<'_>) -> Result<Option<Vec<LinkClaim>>, CborError> {
    let packed = field.bytes()?;
    let (links, rest) = packed.as_chunks::<BOTTLE_LINK_BYTES>();
    if links.is_empty() || !rest.is_empty() || links.len() > BOTTLE_LINKS {
        return Ok(None);
    }
    Ok(Some(links.iter().map(unpack_link).collect()))
}

fn unpack_link([a, b, c, d, e, f, g, h, rtt, capacity]: &[u8; BOTTLE_LINK_BYTES]) -> LinkClaim {
    LinkClaim { peer: NodePrefix([*a, *b, *c, *d, *e, *f, *g, *h]), rtt: *rtt, capacity: *capacity }
}

fn write_protocol(writer: &mut Writer, range: ProtocolRange) {
    writer.array(2);
    writer.unsigned(u64::from(range.lowest));
    writer.unsigned(u64::from(range.highest));
}

fn read_protocol(field: &mut Reader<'_>) -> Result<Option<ProtocolRange>, CborError> {
    if field.array()? != 2 {
        return Ok(None);
    }
    let lowest = u8::try_from(field.unsigned()?).ok();
    let highest = u8::try_from(field.unsigned()?).ok();
    Ok(lowest.zip(highest).map(|(lowest, highest)| ProtocolRange { lowest, highest }))
}
