//! A list's payload: content to bytes and back (spec 12, 2).

use super::list::{ListContent, ListError, Release};
use super::{ROOTS, Roots};
use crate::cbor::record::{FieldWriter, Fields, Schema};
use crate::cbor::{CborError, Reader, Writer};
use crate::crypto::VerifyingKey;
use crate::ids::NetworkId;
use crate::limits::{BOTTLE_BYTES, LIST_LIFE_S, LIST_NODES, LIST_RELEASES, RELEASE_NAME_BYTES, RELEASE_URL_BYTES, UNKNOWN_DEPTH};
use crate::params::Params;
use crate::params::codec::ParamsReadError;
use crate::wire::registry::ListKey;

/// A list's payload (spec 12, 2).
struct ListFields;

impl Schema for ListFields {
    type Key = ListKey;
    type Error = ListError;
    const KNOWN: usize = ListKey::ALL.len();
    /// The deepest of the known fields is an array of arrays.
    const DEPTH: usize = UNKNOWN_DEPTH;

    fn code(key: ListKey) -> u8 {
        key.code()
    }

    fn missing(key: ListKey) -> ListError {
        ListError::Missing(key)
    }

    fn invalid(key: ListKey) -> ListError {
        ListError::Field(key)
    }

    fn too_many() -> ListError {
        ListError::TooLarge
    }
}

/// Encodes content in its one form.
pub(super) fn encode(content: &ListContent) -> Vec<u8> {
    let mut fields = FieldWriter::<ListFields>::new();
    fields.bytes(ListKey::Network, &content.network.0);
    fields.unsigned(ListKey::Seq, content.seq);
    fields.unsigned(ListKey::Issued, content.issued_s);
    fields.unsigned(ListKey::Expires, content.expires_s);
    fields.bytes(ListKey::Random, &content.random);
    fields.add(ListKey::Nodes, |writer| {
        writer.array(content.nodes.len());
        content.nodes.iter().for_each(|envelope| writer.bytes(envelope));
    });
    fields.add(ListKey::Params, |writer| content.params.write(writer));
    if let Some(roots) = &content.roots {
        fields.add(ListKey::Roots, |writer| write_roots(writer, roots));
    }
    if !content.releases.is_empty() {
        fields.add(ListKey::Releases, |writer| {
            writer.array(content.releases.len());
            content.releases.iter().for_each(|release| write_release(writer, release));
        });
    }
    fields.add_unknown(&content.unknown);
    fields.into_map()
}

/// Reads a payload.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode(payload: &[u8]) -> Result<ListContent, ListError> {
    let mut fields = Fields::<ListFields>::read(payload)?;
    let content = ListContent {
        network: NetworkId(fields.array32(ListKey::Network)?),
        seq: fields.number(ListKey::Seq)?,
        issued_s: fields.number(ListKey::Issued)?,
        expires_s: fields.number(ListKey::Expires)?,
        random: fields.array32(ListKey::Random)?,
        nodes: fields.parsed(ListKey::Nodes, read_nodes)?,
        params: read_params(fields.take(ListKey::Params)?)?,
        roots: fields.optional(ListKey::Roots, read_roots)?,
        releases: fields.optional(ListKey::Releases, read_releases)?.unwrap_or_default(),
        unknown: fields.into_unknown()?,
    };
    if content.seq == 0 {
        return Err(ListError::Field(ListKey::Seq));
    }
    let life_s = content.expires_s.saturating_sub(content.issued_s);
    if !(1..=LIST_LIFE_S).contains(&life_s) {
        return Err(ListError::Field(ListKey::Expires));
    }
    Ok(content)
}

/// The network that a payload names, before anything else of it is read.
pub(super) fn network(payload: &[u8]) -> Result<NetworkId, ListError> {
    Ok(NetworkId(Fields::<ListFields>::read(payload)?.array32(ListKey::Network)?))
}

fn read_nodes(field: &mut Reader<'_>) -> Result<Option<Vec<Vec<u8>>>, CborError> {
    let count = field.array()?;
    // No Bottle is empty, so the bytes that are there bound the loop; what is larger than a Bottle is not copied.
    let mut nodes = Vec::new();
    for _ in 0..count {
        let envelope = field.bytes()?;
        if envelope.is_empty() || envelope.len() > BOTTLE_BYTES {
            return Ok(None);
        }
        nodes.push(envelope.to_vec());
    }
    Ok((nodes.len() <= LIST_NODES).then_some(nodes))
}

fn read_params(value: &[u8]) -> Result<Params, ListError> {
    let mut reader = Reader::new(value);
    let params = Params::read(&mut reader).map_err(|error| match error {
        ParamsReadError::Encoding(error) => ListError::Encoding(error),
        ParamsReadError::Params(error) => ListError::Params(error),
    })?;
    reader.finish()?;
    Ok(params)
}

fn write_roots(writer: &mut Writer, roots: &Roots) {
    writer.array(2);
    writer.unsigned(roots.threshold().into());
    writer.array(roots.keys().len());
    roots.keys().iter().for_each(|key| writer.bytes(&key.0));
}

fn read_roots(field: &mut Reader<'_>) -> Result<Option<Roots>, CborError> {
    if field.array()? != 2 {
        return Ok(None);
    }
    let threshold = u8::try_from(field.unsigned()?).ok();
    let count = field.array()?;
    if count > ROOTS as u64 {
        return Ok(None);
    }
    let mut keys = Vec::new();
    for _ in 0..count {
        let Ok(key) = field.bytes()?.try_into().map(VerifyingKey) else { return Ok(None) };
        keys.push(key);
    }
    let ascend = keys.windows(2).all(|pair| pair[0] < pair[1]);
    Ok(threshold.filter(|_| ascend).and_then(|threshold| Roots::new(threshold, keys).ok()))
}

fn write_release(writer: &mut Writer, release: &Release) {
    writer.array(4);
    writer.text(&release.version);
    writer.text(&release.platform);
    writer.bytes(&release.sha256);
    writer.text(&release.url);
}

fn read_releases(field: &mut Reader<'_>) -> Result<Option<Vec<Release>>, CborError> {
    let count = field.array()?;
    if !(1..=LIST_RELEASES as u64).contains(&count) {
        return Ok(None);
    }
    (0..count).map(|_| read_release(field)).collect()
}

fn read_release(field: &mut Reader<'_>) -> Result<Option<Release>, CborError> {
    if field.array()? != 4 {
        return Ok(None);
    }
    let version = printable(field, RELEASE_NAME_BYTES)?;
    let platform = printable(field, RELEASE_NAME_BYTES)?;
    let sha256 = field.bytes()?.try_into().ok();
    let url = printable(field, RELEASE_URL_BYTES)?;
    let (Some(version), Some(platform), Some(sha256), Some(url)) = (version, platform, sha256, url) else { return Ok(None) };
    Ok(Some(Release { version, platform, sha256, url }))
}

fn printable(field: &mut Reader<'_>, most: usize) -> Result<Option<String>, CborError> {
    let text = field.text()?;
    let fits = (1..=most).contains(&text.len()) && text.bytes().all(|letter| (b' '..=b'~').contains(&letter));
    Ok(fits.then(|| text.to_owned()))
}
