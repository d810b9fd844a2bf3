//! Parameters as bytes and as words (spec 09, 1).
//!
//! In a signed list they are a map from a parameter's code to its value: times in whole milliseconds, rates as
//! `[per second, burst]`, numbers, true and false, and the name of the set as text. Only what differs from the default is written;
//! codes that are not known are skipped, since who signs may be newer than who reads. In a network file they are lines of
//! `name = value` with units. Either way [`Params::validate`] has the last word.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Params, ParamsError, Rate, SetName};
use crate::cbor::{CborError, Reader, Writer};
use crate::limits::UNKNOWN_DEPTH;

/// A parameter's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its key in a signed list.
    pub code: u64,
    /// Its name, in a network file as in the code.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
}

/// What a parameter's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The name of a set: text.
    Name,
    /// A time: whole milliseconds; in words `5 min`.
    Time,
    /// A rate: `[per second, burst]`; in words `200/s burst 1000`.
    Rate,
    /// A number.
    Number,
    /// true or false.
    Switch,
}

impl Kind {
    /// How a value is written, as an example.
    pub const fn example(self) -> &'static str {
        match self {
            Self::Name => "default, private, demo or own",
            Self::Time => "a time like 100 ms, 5 s, 10 min, 6 h or 30 d",
            Self::Rate => "a rate like 200/s burst 1000",
            Self::Number => "a number like 4",
            Self::Switch => "true or false",
        }
    }

    /// Whether a network file has it in quotes.
    const fn is_quoted(self) -> bool {
        matches!(self, Self::Name | Self::Time | Self::Rate)
    }
}

/// The words for a parameter are wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterTextError {
    /// No parameter has this name.
    #[error("there is no parameter {0}")]
    Unknown(String),
    /// The value cannot be read.
    #[error("parameter {name}: write {}", kind.example())]
    Value {
        /// The parameter.
        name: &'static str,
        /// What its value is.
        kind: Kind,
    },
}

/// Parameters in a signed list cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParamsReadError {
    /// They are not a map of the one encoding.
    #[error(transparent)]
    Encoding(#[from] CborError),
    /// A value is of the wrong kind or out of range.
    #[error(transparent)]
    Params(#[from] ParamsError),
}

/// No time is longer, so that no sum of times overflows: ten years.
const LONGEST_MS: u64 = 3650 * 24 * 3_600_000;

/// Entries of the map: more than any version has.
const MOST_ENTRIES: u64 = 1024;

trait Value: Sized {
    const KIND: Kind;
    const RULE: &'static str;
    fn write(&self, writer: &mut Writer);
    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, CborError>;
    fn show(&self) -> String;
    fn parse(text: &str) -> Option<Self>;
}

macro_rules! parameters {
    ($($code:literal $name:ident,)+) => {
        /// All parameters, in the order of their codes (spec 09, 1). A code is never given to another parameter.
        pub const PARAMETERS: &[Parameter] = &[$(Parameter { code: $code, name: stringify!($name), kind: kind_of(|it| &it.$name) },)+];

        impl Params {
            /// What differs from the default, encoded, by code. Without `..`: a field that the table forgets does not compile.
            fn encoded(&self) -> BTreeMap<u64, Vec<u8>> {
                let Self { $($name,)+ } = self;
                let mut fields = BTreeMap::new();
                $(if *$name != Self::DEFAULT.$name {
                    let mut writer = Writer::default();
                    $name.write(&mut writer);
                    fields.insert($code, writer.into_bytes());
                })+
                fields
            }

            /// Takes one value; a code that is not known is skipped.
            fn read_value(&mut self, code: u64, value: &mut Reader<'_>) -> Result<(), ParamsReadError> {
                match code {
                    $($code => self.$name = read_as(value, stringify!($name))?,)+
                    _ => { value.value(UNKNOWN_DEPTH)?; }
                }
                Ok(())
            }

            /// Sets the parameter `name` to a value in words, as a network file has it. [`Params::validate`] is still to be called.
            ///
            /// # Errors
            /// When there is no such parameter, or the words are no value of its kind.
            pub fn set(&mut self, name: &str, text: &str) -> Result<(), ParameterTextError> {
                match name {
                    $(stringify!($name) => self.$name = parse_as(text, stringify!($name))?,)+
                    _ => return Err(ParameterTextError::Unknown(name.to_owned())),
                }
                Ok(())
            }

            /// All parameters with their values in words, in the order of their codes.
            pub fn entries(&self) -> Vec<(Parameter, String)> {
                let texts = [$(self.$name.show(),)+];
                PARAMETERS.iter().copied().zip(texts).collect()
            }
        }
    };
}

const fn kind_of<T: Value>(_: fn(&Params) -> &T) -> Kind {
    T::KIND
}

// Codes are for ever: a new parameter takes the next one, one that goes leaves a gap.
parameters! {
    1 name,
    2 circuit_key_interval,
    3 circuit_key_lifetime,
    4 circuit_key_margin,
    5 bottle_lifetime,
    6 link_key_lifetime,
    7 bottle_ahead,
    8 bottle_interval,
    9 bottle_burst,
    10 bottle_batch,
    11 seq_retry,
    12 link_loss_grace,
    13 link_loss_interval,
    14 directory_rescan,
    15 dial_timeout,
    16 handshake_timeout,
    17 backoff_min,
    18 backoff_max,
    19 backoff_reset,
    20 ping_interval,
    21 ping_timeout,
    22 node_lane_circuits,
    23 client_link_circuits,
    24 clients_per_address,
    25 clients_per_prefix,
    26 handshakes_per_address,
    27 loopback_allowed,
    28 client_setups,
    29 node_setups,
    30 pool_share_percent,
    31 pool_min_bytes,
    32 pool_clients_percent,
    33 pool_prefix_percent,
    34 idle_reclaim,
    35 window_growth_floor,
    36 breach_window,
    37 opens,
    38 exit_dial_timeout,
    39 exit_resolve_timeout,
    40 closed_stream_grace,
    41 guard_draw_wait,
    42 hops,
    43 danger_min_hops,
    44 created_timeout,
    45 open_timeout,
    46 hop_skip,
    47 circuit_max_age,
    48 spare_circuits,
    49 list_warn_age,
    50 diversity,
    51 quorum,
    52 pin_hop2,
    53 bulk_timeout,
    54 gossip_batch,
    55 repair_interval,
    56 bottles_per_link,
    57 unknown_share_percent,
    58 hint_lifetime,
    59 tombstone_lifetime,
    60 distrust_equivocation,
    61 degree_min,
    62 degree_max,
    63 link_evaluate,
    64 link_settle,
    65 publish_after,
    66 guard_patience,
    67 guard_return,
    68 guard_replace_after,
    69 guard_change_interval,
    70 private_allowed,
}

impl Params {
    /// What differs from [`Params::DEFAULT`], with its value in words.
    pub fn differences(&self) -> Vec<(Parameter, String)> {
        let defaults = Self::DEFAULT.entries();
        self.entries().into_iter().zip(defaults).filter(|(own, default)| own != default).map(|(own, _)| own).collect()
    }

    /// Writes what differs from the default.
    pub(crate) fn write(&self, writer: &mut Writer) {
        let fields = self.encoded();
        writer.map(fields.len());
        for (code, value) in fields {
            writer.unsigned(code);
            writer.encoded(&value);
        }
    }

    /// Reads what [`Self::write`] wrote, or a newer version; what is not there has its default.
    ///
    /// # Errors
    /// When the bytes are not of the one encoding, a value has the wrong kind, or the whole is out of range (09-M1).
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ParamsReadError> {
        let count = reader.map()?;
        let mut params = Self::DEFAULT;
        let mut last = None;
        for _ in 0..count.min(MOST_ENTRIES + 1) {
            let code = reader.unsigned()?;
            if last >= Some(code) {
                return Err(CborError::KeyOrder.into());
            }
            last = Some(code);
            params.read_value(code, reader)?;
        }
        if count > MOST_ENTRIES {
            return Err(ParamsError { name: "parameters", rule: "at most 1024" }.into());
        }
        params.validate()?;
        Ok(params)
    }
}

/// The lines of a network file's `[parameters]`: what differs from the default.
impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.differences().iter().try_for_each(|(parameter, text)| {
            let quote = if parameter.kind.is_quoted() { "\"" } else { "" };
            writeln!(f, "{} = {quote}{text}{quote}", parameter.name)
        })
    }
}

fn read_as<T: Value>(reader: &mut Reader<'_>, name: &'static str) -> Result<T, ParamsReadError> {
    let wrong = ParamsError { name, rule: T::RULE };
    match T::read(reader) {
        Ok(Some(value)) => Ok(value),
        Ok(None) | Err(CborError::WrongType) => Err(wrong.into()),
        Err(error) => Err(error.into()),
    }
}

fn parse_as<T: Value>(text: &str, name: &'static str) -> Result<T, ParameterTextError> {
    T::parse(text.trim()).ok_or(ParameterTextError::Value { name, kind: T::KIND })
}

impl Value for SetName {
    const KIND: Kind = Kind::Name;
    const RULE: &'static str = "default, private, demo or own";

    fn write(&self, writer: &mut Writer) {
        writer.text(self.as_str());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, CborError> {
        reader.text().map(Self::parse)
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text)
    }
}

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)];

impl Value for Duration {
    const KIND: Kind = Kind::Time;
    const RULE: &'static str = "a time in milliseconds, at most ten years";

    fn write(&self, writer: &mut Writer) {
        writer.unsigned(whole_ms(*self));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, CborError> {
        let ms = reader.unsigned()?;
        Ok((ms <= LONGEST_MS).then(|| Self::from_millis(ms)))
    }

    fn show(&self) -> String {
        let ms = whole_ms(*self);
        let (unit, length) =
            UNITS.into_iter().find(|(_, length)| ms >= *length && ms.is_multiple_of(*length)).unwrap_or(("ms", 1));
        format!("{} {unit}", ms / length)
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, length) = UNITS.into_iter().find(|(name, _)| *name == unit.trim_start())?;
        let ms = number.parse::<u64>().ok()?.checked_mul(length)?;
        (ms <= LONGEST_MS).then(|| Self::from_millis(ms))
    }
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Value for Rate {
    const KIND: Kind = Kind::Rate;
    const RULE: &'static str = "two numbers: a second, and burst";

    fn write(&self, writer: &mut Writer) {
        writer.array(2);
        writer.unsigned(self.per_second.into());
        writer.unsigned(self.burst.into());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, CborError> {
        if reader.array()? != 2 {
            return Ok(None);
        }
        let (Some(per_second), Some(burst)) = (u32::read(reader)?, u32::read(reader)?) else { return Ok(None) };
        Ok(Some(Self { per_second, burst }))
    }

    fn show(&self) -> String {
        format!("{}/s burst {}", self.per_second, self.burst)
    }

    fn parse(text: &str) -> Option<Self> {
        let (per_second, rest) = text.split_once("/s")?;
        let burst = rest.trim_start().strip_prefix("burst")?;
        Some(Self { per_second: u32::parse(per_second.trim_end())?, burst: u32::parse(burst.trim_start())? })
    }
}

impl Value for u32 {
    const KIND: Kind = Kind::Number;
    const RULE: &'static str = "a number of 32 bits";

    fn write(&self, writer: &mut Writer) {
        writer.unsigned((*self).into());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, CborError> {
        Ok(Self::try_from(reader.unsigned()?).ok())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn parse(text: &str) -> Option<Self> {
        is_digits(text).then(|| text.parse().ok())?
    }
}

impl Value for u64 {
    const KIND: Kind = Kind::Number;
    const RULE: &'static str = "a number";

    fn write(&self, writer: &mut Writer) {
        writer.unsigned(*self);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, CborError> {
        reader.unsigned().map(Some)
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn parse(text: &str) -> Option<Self> {
        is_digits(text).then(|| text.parse().ok())?
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|letter| letter.is_ascii_digit())
}

impl Value for bool {
    const KIND: Kind = Kind::Switch;
    const RULE: &'static str = "true or false";

    fn write(&self, writer: &mut Writer) {
        writer.boolean(*self);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, CborError> {
        reader.boolean().map(Some)
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(params: &Params) -> Vec<u8> {
        let mut writer = Writer::default();
        params.write(&mut writer);
        writer.into_bytes()
    }

    fn read(bytes: &[u8]) -> Result<Params, ParamsReadError> {
        let mut reader = Reader::new(bytes);
        let params = Params::read(&mut reader)?;
        reader.finish()?;
        Ok(params)
    }

    /// A map of these pairs of bytes.
    fn map(pairs: &[(u64, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.map(pairs.len());
        for (code, value) in pairs {
            writer.unsigned(*code);
            writer.encoded(value);
        }
        writer.into_bytes()
    }

    fn code_of(name: &str) -> u64 {
        PARAMETERS.iter().find(|parameter| parameter.name == name).unwrap().code
    }

    fn sets() -> [Params; 4] {
        let own = Params { name: SetName::Own, pool_min_bytes: 1 << 40, loopback_allowed: true, ..Params::DEFAULT };
        [Params::DEFAULT, Params::private(), Params::demo(), own]
    }

    #[test]
    fn codes_and_names_stand_once() {
        assert!(PARAMETERS.is_sorted_by(|a, b| a.code < b.code));
        let names: std::collections::BTreeSet<_> = PARAMETERS.iter().map(|parameter| parameter.name).collect();
        assert_eq!(names.len(), PARAMETERS.len());
    }

    #[test]
    fn sets_come_back_from_their_bytes() {
        for params in sets() {
            assert_eq!(read(&bytes_of(&params)), Ok(params));
        }
    }

    #[test]
    fn sets_come_back_from_their_words() {
        for params in sets() {
            let mut read = Params::DEFAULT;
            for (parameter, text) in params.entries() {
                read.set(parameter.name, &text).unwrap();
            }
            assert_eq!(read, params);
        }
    }

    #[test]
    fn only_what_differs_is_written() {
        assert_eq!(bytes_of(&Params::DEFAULT), [0xa0]);
        let params = Params { hops: 5, diversity: false, ..Params::DEFAULT };
        assert_eq!(bytes_of(&params), [0xa2, 0x18, 42, 5, 0x18, 50, 0xf4]);
        let words: Vec<_> = params.differences().into_iter().map(|(parameter, text)| (parameter.name, text)).collect();
        assert_eq!(words, [("hops", "5".to_owned()), ("diversity", "false".to_owned())]);
        assert_eq!(params.to_string(), "hops = 5\ndiversity = false\n");
        let quoted =
            Params { ping_interval: Duration::from_secs(90), opens: Rate { per_second: 1, burst: 2 }, ..Params::DEFAULT };
        assert_eq!(quoted.to_string(), "ping_interval = \"90 s\"\nopens = \"1/s burst 2\"\n");
    }

    #[test]
    fn codes_of_later_versions_are_skipped() {
        let bytes = map(&[(code_of("hops"), &[5]), (9999, &[0x82, 1, 0x61, b'x'])]);
        assert_eq!(read(&bytes), Ok(Params { hops: 5, ..Params::DEFAULT }));
    }

    #[test]
    fn a_value_of_the_wrong_kind_or_range_is_named() {
        let cases: [(&str, &[u8]); 10] = [
            ("hops", &[0x61, b'4']),
            ("hops", &[0x1b, 0, 0, 0, 1, 0, 0, 0, 0]),
            ("hops", &[7]),
            ("diversity", &[1]),
            ("diversity", &[0xf6]),
            ("opens", &[0x81, 1]),
            ("opens", &[0x82, 0, 1]),
            ("name", &[0x63, b'f', b'o', b'o']),
            ("ping_interval", &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ("backoff_reset", &[0x1b, 0, 0, 0, 0x49, 0x6c, 0xeb, 0xd8, 0]),
        ];
        for (name, value) in cases {
            let error = read(&map(&[(code_of(name), value)])).unwrap_err();
            assert!(matches!(error, ParamsReadError::Params(error) if error.name == name), "{name}: {error:?}");
        }
    }

    #[test]
    fn parameters_that_do_not_fit_each_other_are_refused() {
        let error = read(&map(&[(code_of("circuit_key_lifetime"), &[0x1a, 0, 0x36, 0xee, 0x80])])).unwrap_err();
        assert!(matches!(error, ParamsReadError::Params(error) if error.name == "circuit_key_lifetime"), "{error:?}");
    }

    #[test]
    fn the_map_is_of_the_one_encoding() {
        let hops = code_of("hops");
        assert_eq!(read(&map(&[(hops, &[5]), (hops, &[5])])), Err(CborError::KeyOrder.into()));
        assert_eq!(read(&map(&[(50, &[0xf4]), (hops, &[5])])), Err(CborError::KeyOrder.into()));
        assert_eq!(read(&map(&[(hops, &[0x18, 5])])), Err(CborError::NotShortest.into()));
        assert_eq!(read(&[0xa1, 0x18, 42]), Err(CborError::Cut.into()));
        assert_eq!(read(&[0xbb, 255, 255, 255, 255, 255, 255, 255, 255]), Err(CborError::Cut.into()));
    }

    #[test]
    fn words_have_units() {
        let times = [("100 ms", 100), ("100ms", 100), ("5 s", 5000), (" 5 min ", 300_000), ("6 h", 21_600_000), ("0 s", 0)];
        for (text, ms) in times {
            let mut params = Params::DEFAULT;
            params.set("ping_interval", text).unwrap();
            assert_eq!(params.ping_interval, Duration::from_millis(ms), "{text}");
        }
        for text in ["", "5", "s", "-5 s", "5 m", "1.5 s", "5 s s", "99999999999999999999 s", "4000 d", "5 S"] {
            let kind = Kind::Time;
            let error = ParameterTextError::Value { name: "ping_interval", kind };
            assert_eq!(Params::DEFAULT.clone().set("ping_interval", text), Err(error), "{text}");
        }
        for text in ["200", "200/s", "200/s burst", "200/min burst 5", "-1/s burst 5", "1/s burst 5 x"] {
            assert!(Params::DEFAULT.clone().set("opens", text).is_err(), "{text}");
        }
        for (name, text) in [("hops", "four"), ("hops", "+4"), ("hops", ""), ("diversity", "yes"), ("name", "Default")] {
            assert!(Params::DEFAULT.clone().set(name, text).is_err(), "{name} {text}");
        }
        let unknown = Params::DEFAULT.clone().set("hop", "4");
        assert_eq!(unknown, Err(ParameterTextError::Unknown("hop".to_owned())));
    }
}
