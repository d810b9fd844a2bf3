//! Who holds a name (spec 04, 5): the suffix of a PortName is the beginning of the NodeID by construction, so two nodes can want one
//! name only if 65 bits of their NodeIDs are the same. Then the smaller NodeID holds it, on every node; the other Bottle stays,
//! nameless: maps never split, and nobody erases a node by taking its name.

use super::Bottlerack;
use crate::ids::NodeId;
use crate::portname::{Label, PortName};

/// The bits of a NodeID that a PortName shows.
pub(super) const SUFFIX_BITS: usize = 65;

impl Bottlerack {
    /// A rack in which so few bits of two NodeIDs must be the same for their names to be: for models, as nobody can make two keys
    /// with 65.
    #[doc(hidden)]
    #[must_use]
    pub fn with_suffix_bits(self, suffix_bits: usize) -> Self {
        Self { suffix_bits, ..self }
    }

    /// The name of a node, none if its Bottle is not held or another node holds the name.
    pub fn name_of(&self, node: &NodeId) -> Option<PortName> {
        let label = &self.bottles.get(node)?.bottle.content().label;
        let near = self.bottles.range(first_with_suffix_of(node, self.suffix_bits)..*node);
        let others = near.map(|(other, stored)| (other, &stored.bottle.content().label));
        holds_name(node, label, others, self.suffix_bits).then(|| PortName::of(label.clone(), node))
    }
}

/// Whether `node` may be called `label`, given others and what they want to be called.
fn holds_name<'a>(
    node: &NodeId,
    label: &Label,
    others: impl IntoIterator<Item = (&'a NodeId, &'a Label)>,
    suffix_bits: usize,
) -> bool {
    let first = first_with_suffix_of(node, suffix_bits);
    let wants_the_same = |other: &NodeId, its: &Label| its == label && first_with_suffix_of(other, suffix_bits) == first;
    !others.into_iter().any(|(other, its)| other < node && wants_the_same(other, its))
}

/// The smallest NodeID with the same suffix.
fn first_with_suffix_of(node: &NodeId, suffix_bits: usize) -> NodeId {
    let mut first = node.0;
    for (at, byte) in first.iter_mut().enumerate() {
        let shown = suffix_bits.saturating_sub(8 * at).min(8);
        *byte &= !u8::MAX.checked_shr(u32::try_from(shown).unwrap_or(u32::MAX)).unwrap_or(0);
    }
    NodeId(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> Label {
        text.parse().unwrap()
    }

    fn node(shown: u8, bit: u8, rest: u8) -> NodeId {
        let mut bytes = [rest; 32];
        bytes[..8].fill(shown);
        bytes[8] = bit | (rest & 0x7f);
        NodeId(bytes)
    }

    #[test]
    fn of_two_nodes_with_one_name_the_smaller_node_id_holds_it() {
        let (small, large) = (node(7, 0x80, 1), node(7, 0x80, 2));
        let name = label("same-name");
        assert_eq!(PortName::of(name.clone(), &small), PortName::of(name.clone(), &large), "65 bits are the same");
        assert!(holds_name(&small, &name, [(&large, &name)], SUFFIX_BITS));
        assert!(!holds_name(&large, &name, [(&small, &name)], SUFFIX_BITS));
        assert!(holds_name(&large, &name, [(&small, &label("other"))], SUFFIX_BITS), "another label is another name");
    }

    #[test]
    fn the_65th_bit_makes_another_name() {
        let (small, large) = (node(7, 0, 1), node(7, 0x80, 1));
        let name = label("same-name");
        assert_ne!(PortName::of(name.clone(), &small), PortName::of(name.clone(), &large));
        assert!(holds_name(&large, &name, [(&small, &name)], SUFFIX_BITS));
    }
}
