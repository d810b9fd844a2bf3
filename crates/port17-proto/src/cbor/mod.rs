//! Deterministic CBOR (RFC 8949, 4.2.1), read strictly and written the one way that is read.
//!
//! The profile is smaller than the RFC's (spec 04, 1): integers, byte and text strings, arrays, maps, false, true and null. No tags,
//! floats or other simple values: nothing here needs them, and what cannot be said cannot be said in two ways.

pub(crate) mod record;

/// The bytes are not deterministic CBOR of our profile, or not what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// The bytes end too early.
    #[error("cut short")]
    Cut,
    /// Bytes follow what should be the last.
    #[error("bytes after the end")]
    Trailing,
    /// A length or an integer is longer than it needs to be.
    #[error("an integer or length is not in its shortest form")]
    NotShortest,
    /// A length is indefinite or reserved.
    #[error("a length is indefinite or reserved")]
    Indefinite,
    /// Another type was expected.
    #[error("a value has the wrong type")]
    WrongType,
    /// A tag, a float or another simple value.
    #[error("a tag, float or simple value that is not allowed")]
    Unsupported,
    /// Keys of a map do not ascend, or one stands twice.
    #[error("the keys of a map do not ascend")]
    KeyOrder,
    /// Values nest deeper than is allowed.
    #[error("values nest too deep")]
    TooDeep,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Major {
    Unsigned = 0,
    Negative = 1,
    Bytes = 2,
    Text = 3,
    Array = 4,
    Map = 5,
    Tag = 6,
    Simple = 7,
}

impl Major {
    const ALL: [Self; 8] = {
        use Major::*;
        [Unsigned, Negative, Bytes, Text, Array, Map, Tag, Simple]
    };
}

const FALSE_TRUE_NULL: std::ops::RangeInclusive<u64> = 20..=22;

/// Reads values one after the other. Borrows; allocates nothing.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Ends the reading.
    pub(crate) fn finish(self) -> Result<(), CborError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(CborError::Trailing) }
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, CborError> {
        self.expect(Major::Unsigned)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], CborError> {
        let length = self.expect(Major::Bytes)?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, CborError> {
        let length = self.expect(Major::Text)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| CborError::NotUtf8)
    }

    /// false or true.
    pub(crate) fn boolean(&mut self) -> Result<bool, CborError> {
        match self.expect(Major::Simple)? {
            20 => Ok(false),
            21 => Ok(true),
            _ => Err(CborError::WrongType),
        }
    }

    /// The number of elements that follow. Not to be trusted with an allocation.
    pub(crate) fn array(&mut self) -> Result<u64, CborError> {
        self.expect(Major::Array)
    }

    /// The number of pairs that follow. Not to be trusted with an allocation.
    pub(crate) fn map(&mut self) -> Result<u64, CborError> {
        self.expect(Major::Map)
    }

    /// One whole value of any type, as its bytes; arrays and maps in it at most `depth` deep.
    pub(crate) fn value(&mut self, depth: usize) -> Result<&'a [u8], CborError> {
        let start = self.bytes;
        self.skip(depth)?;
        // `bytes` is what is left of `start`.
        Ok(&start[..start.len() - self.bytes.len()])
    }

    fn skip(&mut self, depth: usize) -> Result<(), CborError> {
        let (major, argument) = self.head()?;
        match major {
            Major::Unsigned | Major::Negative => Ok(()),
            Major::Bytes => self.take(argument).map(|_| ()),
            Major::Text => std::str::from_utf8(self.take(argument)?).map(|_| ()).map_err(|_| CborError::NotUtf8),
            Major::Array => self.skip_array(argument, depth),
            Major::Map => self.skip_map(argument, depth),
            Major::Simple if FALSE_TRUE_NULL.contains(&argument) => Ok(()),
            Major::Tag | Major::Simple => Err(CborError::Unsupported),
        }
    }

    // Every element takes at least a byte, so a made-up count ends with `Cut` after as many steps as there are bytes.
    fn skip_array(&mut self, count: u64, depth: usize) -> Result<(), CborError> {
        let depth = depth.checked_sub(1).ok_or(CborError::TooDeep)?;
        (0..count).try_for_each(|_| self.skip(depth))
    }

    fn skip_map(&mut self, count: u64, depth: usize) -> Result<(), CborError> {
        let depth = depth.checked_sub(1).ok_or(CborError::TooDeep)?;
        let mut last: Option<&[u8]> = None;
        for _ in 0..count {
            let key = self.value(depth)?;
            if last.is_some_and(|last| last >= key) {
                return Err(CborError::KeyOrder);
            }
            last = Some(key);
            self.skip(depth)?;
        }
        Ok(())
    }

    fn expect(&mut self, wanted: Major) -> Result<u64, CborError> {
        let (major, argument) = self.head()?;
        if major == wanted { Ok(argument) } else { Err(CborError::WrongType) }
    }

    fn head(&mut self) -> Result<(Major, u64), CborError> {
        let (&first, rest) = self.bytes.split_first().ok_or(CborError::Cut)?;
        self.bytes = rest;
        let major = Major::ALL[usize::from(first >> 5)];
        let (argument, least) = match first & 31 {
            short @ 0..=23 => return Ok((major, u64::from(short))),
            // Of simple values only the short ones are ours; one with an argument is a float, or an unassigned number.
            24..=27 if major == Major::Simple => return Err(CborError::Unsupported),
            24 => (self.big_endian(1)?, 24),
            25 => (self.big_endian(2)?, 1 << 8),
            26 => (self.big_endian(4)?, 1 << 16),
            27 => (self.big_endian(8)?, 1 << 32),
            _ => return Err(CborError::Indefinite),
        };
        if argument < least { Err(CborError::NotShortest) } else { Ok((major, argument)) }
    }

    fn big_endian(&mut self, length: u64) -> Result<u64, CborError> {
        Ok(self.take(length)?.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], CborError> {
        let length = usize::try_from(length).map_err(|_| CborError::Cut)?;
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(CborError::Cut)?;
        self.bytes = rest;
        Ok(taken)
    }
}

/// Writes values in the one form that [`Reader`] takes. The caller writes the keys of a map in order.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn unsigned(&mut self, value: u64) {
        self.head(Major::Unsigned, value);
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.head(Major::Bytes, value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.head(Major::Text, value.len() as u64);
        self.bytes.extend_from_slice(value.as_bytes());
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.head(Major::Simple, 20 + u64::from(value));
    }

    pub(crate) fn array(&mut self, count: usize) {
        self.head(Major::Array, count as u64);
    }

    pub(crate) fn map(&mut self, count: usize) {
        self.head(Major::Map, count as u64);
    }

    /// A value that is encoded already.
    pub(crate) fn encoded(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    fn head(&mut self, major: Major, argument: u64) {
        let major = (major as u8) << 5;
        let bytes = argument.to_be_bytes();
        match argument {
            0..=23 => self.bytes.push(major | bytes[7]),
            24..=0xff => self.bytes.extend([major | 24, bytes[7]]),
            0x100..=0xffff => self.long_head(major | 25, &bytes[6..]),
            0x1_0000..=0xffff_ffff => self.long_head(major | 26, &bytes[4..]),
            _ => self.long_head(major | 27, &bytes),
        }
    }

    fn long_head(&mut self, first: u8, argument: &[u8]) {
        self.bytes.push(first);
        self.bytes.extend_from_slice(argument);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8], depth: usize) -> Result<(), CborError> {
        let mut reader = Reader::new(bytes);
        reader.value(depth)?;
        reader.finish()
    }

    #[test]
    fn integers_take_their_shortest_form_alone() {
        for number in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            let mut writer = Writer::default();
            writer.unsigned(number);
            assert_eq!(Reader::new(&writer.into_bytes()).unsigned(), Ok(number));
        }
        for long in [&[0x18, 23][..], &[0x19, 0, 255], &[0x1a, 0, 0, 255, 255], &[0x1b, 0, 0, 0, 0, 255, 255, 255, 255]] {
            assert_eq!(Reader::new(long).unsigned(), Err(CborError::NotShortest), "{long:?}");
        }
    }

    #[test]
    fn only_the_profile_is_read() {
        for good in [&[0xf4][..], &[0xf5], &[0xf6], &[0x20], &[0xa0], &[0x80], &[0xa2, 1, 0xf6, 2, 0x80]] {
            assert_eq!(value(good, 4), Ok(()), "{good:?}");
        }
        let float = [0xf9, 0x3c, 0];
        for bad in [&float[..], &[0xf7], &[0xf8, 0xff], &[0xc0, 0], &[0xe0]] {
            assert_eq!(value(bad, 4), Err(CborError::Unsupported), "{bad:?}");
        }
        for bad in [&[0x9f, 0xff][..], &[0xbf, 0xff], &[0x5f, 0xff], &[0x1c], &[0xff]] {
            assert_eq!(value(bad, 4), Err(CborError::Indefinite), "{bad:?}");
        }
        assert_eq!(value(&[0x62, 0xff, 0xff], 4), Err(CborError::NotUtf8));
    }

    #[test]
    fn booleans_are_false_and_true_alone() {
        for value in [false, true] {
            let mut writer = Writer::default();
            writer.boolean(value);
            assert_eq!(Reader::new(&writer.into_bytes()).boolean(), Ok(value));
        }
        for other in [0xf6, 0, 1] {
            assert_eq!(Reader::new(&[other]).boolean(), Err(CborError::WrongType), "{other:x}");
        }
    }

    #[test]
    fn keys_of_maps_ascend() {
        assert_eq!(value(&[0xa2, 2, 0, 1, 0], 4), Err(CborError::KeyOrder));
        assert_eq!(value(&[0xa2, 1, 0, 1, 0], 4), Err(CborError::KeyOrder));
        // Bytewise order of the encoded keys: 24 (18 18) before -1 (20) before "a" (61 61).
        assert_eq!(value(&[0xa3, 0x18, 24, 0, 0x20, 0, 0x61, b'a', 0], 4), Ok(()));
    }

    #[test]
    fn nesting_is_bounded() {
        assert_eq!(value(&[0x81, 0x81, 0x81, 0x81, 0], 4), Ok(()));
        assert_eq!(value(&[0x81, 0x81, 0x81, 0x81, 0x80], 4), Err(CborError::TooDeep));
        assert_eq!(value(&[0x81; 4000], 4), Err(CborError::TooDeep));
        assert_eq!(value(&[0xa1, 0xa1, 0, 0, 0], 1), Err(CborError::TooDeep));
    }

    #[test]
    fn made_up_lengths_end_the_reading() {
        let huge = [0xff; 8];
        for first in [0x5b, 0x7b, 0x9b, 0xbb] {
            let mut bytes = vec![first];
            bytes.extend_from_slice(&huge);
            assert_eq!(value(&bytes, 4), Err(CborError::Cut), "{first:x}");
        }
    }
}
