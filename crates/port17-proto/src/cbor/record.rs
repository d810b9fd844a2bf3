//! Signed records as maps with unsigned integer keys: fields by key, each taken once; what nobody takes is unknown and kept.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use super::{CborError, Reader, Writer};
use crate::crypto::VerifyingKey;
use crate::limits::UNKNOWN_FIELDS;

/// The fields of one kind of record.
pub(crate) trait Schema {
    /// Names a field.
    type Key: Copy;
    /// What is said of a wrong one.
    type Error: From<CborError>;
    /// Fields that this version knows.
    const KNOWN: usize;
    /// How deep a value may nest.
    const DEPTH: usize;

    fn code(key: Self::Key) -> u8;
    fn missing(key: Self::Key) -> Self::Error;
    fn invalid(key: Self::Key) -> Self::Error;
    /// More fields than are known and may be unknown.
    fn too_many() -> Self::Error;
}

/// Values to be written, in the order of their keys.
pub(crate) struct FieldWriter<S> {
    values: BTreeMap<u64, Vec<u8>>,
    schema: PhantomData<S>,
}

impl<S: Schema> FieldWriter<S> {
    pub(crate) fn new() -> Self {
        Self { values: BTreeMap::new(), schema: PhantomData }
    }

    pub(crate) fn add(&mut self, key: S::Key, write: impl FnOnce(&mut Writer)) {
        let mut writer = Writer::default();
        write(&mut writer);
        self.values.insert(S::code(key).into(), writer.into_bytes());
    }

    pub(crate) fn unsigned(&mut self, key: S::Key, value: u64) {
        self.add(key, |writer| writer.unsigned(value));
    }

    pub(crate) fn bytes(&mut self, key: S::Key, value: &[u8]) {
        self.add(key, |writer| writer.bytes(value));
    }

    pub(crate) fn text(&mut self, key: S::Key, value: &str) {
        self.add(key, |writer| writer.text(value));
    }

    /// Fields of a later version. A known key among them changes nothing: the known field stands.
    pub(crate) fn add_unknown(&mut self, unknown: &BTreeMap<u64, Vec<u8>>) {
        for (key, value) in unknown {
            self.values.entry(*key).or_insert_with(|| value.clone());
        }
    }

    pub(crate) fn into_map(self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.map(self.values.len());
        for (key, value) in self.values {
            writer.unsigned(key);
            writer.encoded(&value);
        }
        writer.into_bytes()
    }
}

/// Values that were read, by key, each one whole value.
pub(crate) struct Fields<'a, S> {
    values: BTreeMap<u64, &'a [u8]>,
    schema: PhantomData<S>,
}

impl<'a, S: Schema> Fields<'a, S> {
    pub(crate) fn read(payload: &'a [u8]) -> Result<Self, S::Error> {
        let mut reader = Reader::new(payload);
        let count = reader.map()?;
        // More than all known and the unknown ones that may be there: not worth reading.
        if count > (S::KNOWN + UNKNOWN_FIELDS) as u64 {
            return Err(S::too_many());
        }
        let mut values = BTreeMap::new();
        for _ in 0..count {
            let key = reader.unsigned()?;
            if values.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(CborError::KeyOrder.into());
            }
            values.insert(key, reader.value(S::DEPTH)?);
        }
        reader.finish()?;
        Ok(Self { values, schema: PhantomData })
    }

    /// A field's value as it is.
    pub(crate) fn take(&mut self, key: S::Key) -> Result<&'a [u8], S::Error> {
        self.values.remove(&S::code(key).into()).ok_or(S::missing(key))
    }

    /// A field that may be absent; `read` says `None` for a value out of bounds.
    pub(crate) fn optional<T>(
        &mut self,
        key: S::Key,
        read: impl FnOnce(&mut Reader<'a>) -> Result<Option<T>, CborError>,
    ) -> Result<Option<T>, S::Error> {
        let Some(value) = self.values.remove(&S::code(key).into()) else {
            return Ok(None);
        };
        let mut reader = Reader::new(value);
        let parsed = read(&mut reader)?.ok_or(S::invalid(key))?;
        reader.finish()?;
        Ok(Some(parsed))
    }

    pub(crate) fn parsed<T>(
        &mut self,
        key: S::Key,
        read: impl FnOnce(&mut Reader<'a>) -> Result<Option<T>, CborError>,
    ) -> Result<T, S::Error> {
        self.optional(key, read)?.ok_or(S::missing(key))
    }

    pub(crate) fn number<T: TryFrom<u64>>(&mut self, key: S::Key) -> Result<T, S::Error> {
        self.parsed(key, |field| Ok(T::try_from(field.unsigned()?).ok()))
    }

    pub(crate) fn array32(&mut self, key: S::Key) -> Result<[u8; 32], S::Error> {
        self.parsed(key, |field| Ok(field.bytes()?.try_into().ok()))
    }

    pub(crate) fn key(&mut self, key: S::Key) -> Result<VerifyingKey, S::Error> {
        self.array32(key).map(VerifyingKey)
    }

    /// What nobody has taken.
    pub(crate) fn into_unknown(self) -> Result<BTreeMap<u64, Vec<u8>>, S::Error> {
        if self.values.len() > UNKNOWN_FIELDS {
            return Err(S::too_many());
        }
        Ok(self.values.into_iter().map(|(key, value)| (key, value.to_vec())).collect())
    }
}
