//! The name of a node that people read: `label~suffix` (spec 03, 2).
//!
//! The label is chosen, the suffix is the beginning of the NodeID: whether a name belongs to a node, each node decides alone.

use std::fmt;
use std::str::FromStr;

use crate::crypto::Entropy;
use crate::ids::NodeId;

/// Characters of the NodeID in a PortName: 65 bits.
pub const SUFFIX_CHARS: usize = 13;
const LABEL_CHARS: std::ops::RangeInclusive<usize> = 3..=24;
const SEPARATOR: char = '~';

/// The text is no label or no PortName.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PortNameError {
    /// Not `[a-z][a-z0-9-]{2,23}`.
    #[error("a label has 3 to 24 characters a-z, 0-9 and -, and begins with a letter")]
    Label,
    /// There is no `~`.
    #[error("a PortName is label~suffix")]
    Separator,
    /// Not 13 characters of base32.
    #[error("the suffix of a PortName has 13 characters a-z and 2-7")]
    Suffix,
}

/// The chosen part of a PortName: `[a-z][a-z0-9-]{2,23}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl Label {
    /// The label of a node whose operator chose none: `node-` and 4 random characters, never the host's name.
    pub fn random(entropy: &mut Entropy) -> Self {
        // The text of any 32 bytes is base32; its first characters are as random as they are.
        let random = NodeId(entropy.bytes()).to_base32();
        Self(format!("node-{}", &random[..4]))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = PortNameError;

    fn from_str(text: &str) -> Result<Self, PortNameError> {
        let starts_well = text.starts_with(|first: char| first.is_ascii_lowercase());
        let mut rest = text.bytes();
        let all_known = rest.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-');
        if starts_well && all_known && LABEL_CHARS.contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PortNameError::Label)
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A node's unique name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName {
    label: Label,
    suffix: String,
}

impl PortName {
    /// The name of `node` under `label`.
    pub fn of(label: Label, node: &NodeId) -> Self {
        Self { label, suffix: suffix_of(node) }
    }

    /// The chosen part.
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// The part that comes from the NodeID.
    pub fn suffix(&self) -> &str {
        &self.suffix
    }

    /// Whether the suffix is that of `node`: a name that is not is nobody's.
    pub fn belongs_to(&self, node: &NodeId) -> bool {
        self.suffix == suffix_of(node)
    }
}

fn suffix_of(node: &NodeId) -> String {
    let mut text = node.to_base32();
    text.truncate(SUFFIX_CHARS);
    text
}

impl FromStr for PortName {
    type Err = PortNameError;

    fn from_str(text: &str) -> Result<Self, PortNameError> {
        let (label, suffix) = text.split_once(SEPARATOR).ok_or(PortNameError::Separator)?;
        let label = label.parse()?;
        let is_base32 = suffix.bytes().all(|letter| letter.is_ascii_lowercase() || (b'2'..=b'7').contains(&letter));
        if !is_base32 || suffix.len() != SUFFIX_CHARS {
            return Err(PortNameError::Suffix);
        }
        Ok(Self { label, suffix: suffix.to_owned() })
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{SEPARATOR}{}", self.label, self.suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        NodeId([0x5a; 32])
    }

    #[test]
    fn a_name_reads_back_as_itself() {
        let name = PortName::of("my-node-1".parse().unwrap(), &node());
        assert_eq!(name.to_string().parse(), Ok(name.clone()));
        assert_eq!(name.to_string(), format!("my-node-1~{}", &node().to_base32()[..13]));
    }

    #[test]
    fn the_suffix_must_come_from_the_node_id() {
        let name = PortName::of("abc".parse().unwrap(), &node());
        assert!(name.belongs_to(&node()));
        assert!(!name.belongs_to(&NodeId([0x5b; 32])));
    }

    #[test]
    fn labels_outside_the_alphabet_are_refused() {
        for good in ["abc", "a-1", "a--", &"a".repeat(24)] {
            assert!(good.parse::<Label>().is_ok(), "{good}");
        }
        for bad in ["", "ab", "1bc", "-bc", "Abc", "abC", "a_b", "a.b", "ab~", "abé", "ab ", &"a".repeat(25)] {
            assert_eq!(bad.parse::<Label>(), Err(PortNameError::Label), "{bad}");
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let suffix = suffix_of(&node());
        assert_eq!("abc".parse::<PortName>(), Err(PortNameError::Separator));
        assert_eq!(format!("ab~{suffix}").parse::<PortName>(), Err(PortNameError::Label));
        assert_eq!(format!("abc~{suffix}a").parse::<PortName>(), Err(PortNameError::Suffix));
        assert_eq!(format!("abc~{}", suffix.to_uppercase()).parse::<PortName>(), Err(PortNameError::Suffix));
        assert_eq!(format!("abc~{}1", &suffix[..12]).parse::<PortName>(), Err(PortNameError::Suffix));
        assert_eq!(format!("abc~~{}", &suffix[..12]).parse::<PortName>(), Err(PortNameError::Suffix));
    }

    #[test]
    fn the_default_label_is_random_and_valid() {
        let mut entropy = Entropy::from_number(3);
        let (first, second) = (Label::random(&mut entropy), Label::random(&mut entropy));
        assert_ne!(first, second);
        assert!(first.as_str().starts_with("node-") && first.as_str().len() == 9);
        assert_eq!(first.as_str().parse(), Ok(first.clone()));
    }
}
