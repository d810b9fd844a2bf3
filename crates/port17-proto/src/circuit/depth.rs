//! How deep a hop stands in a route, and the lengths that follow from it (spec 06, 1 and 2).

use crate::wire::registry::{BODY_BYTES, CELL_LAYER_BYTES, CREATED_LAYER_BYTES, MAX_HOPS, SETUP_BYTES, SETUP_LAYER_BYTES};

/// The δ of a hop, 0..=5. Hop i of a route with offset o stands at o + i − 1, so a δ alone does not tell the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Depth(u8);

impl Depth {
    /// The deepest of all: only an exit stands there.
    pub const DEEPEST: Self = Self(5);

    /// Takes δ as it comes from the wire, none above 5.
    pub const fn new(delta: u8) -> Option<Self> {
        if delta <= Self::DEEPEST.0 { Some(Self(delta)) } else { None }
    }

    /// The number on the wire and in every AAD.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Where the next hop stands, none behind the deepest.
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// L(δ): bytes of a body that this hop's cell layer takes; past them all is zero.
    pub const fn cell_bytes(self) -> usize {
        BODY_BYTES - CELL_LAYER_BYTES * self.index()
    }

    /// L(δ + 1): bytes under this hop's cell layer, without the kind.
    pub const fn inner_cell_bytes(self) -> usize {
        self.cell_bytes() - CELL_LAYER_BYTES
    }

    /// C(δ): bytes of a body that this hop's CREATED layer takes.
    pub const fn created_bytes(self) -> usize {
        BODY_BYTES - CREATED_LAYER_BYTES * self.index()
    }

    /// C(δ + 1): bytes under this hop's CREATED layer, without status and confirmation.
    pub const fn inner_created_bytes(self) -> usize {
        self.created_bytes() - CREATED_LAYER_BYTES
    }

    /// Bytes of a SETUP packet that this hop works on.
    pub const fn setup_bytes(self) -> usize {
        SETUP_BYTES - SETUP_LAYER_BYTES * self.index()
    }

    /// Bytes of a SETUP packet that this hop passes on.
    pub const fn inner_setup_bytes(self) -> usize {
        self.setup_bytes() - SETUP_LAYER_BYTES
    }

    const fn index(self) -> usize {
        self.0 as usize
    }
}

// The deepest layers must still hold what is promised: the message area, and a rest in SETUP and CREATED.
const _: () = assert!(Depth::DEEPEST.0 as usize + 1 == MAX_HOPS);
const _: () = assert!(Depth::DEEPEST.inner_cell_bytes() == crate::wire::registry::MESSAGE_BYTES);
const _: () = assert!(Depth::DEEPEST.inner_setup_bytes() == 864 && Depth::DEEPEST.inner_created_bytes() == 1650);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_each_depth() {
        let depths: Vec<_> = (0..=255).filter_map(Depth::new).collect();
        assert_eq!(depths.len(), MAX_HOPS);
        assert_eq!(depths.iter().map(|d| d.cell_bytes()).collect::<Vec<_>>(), [2040, 2023, 2006, 1989, 1972, 1955]);
        assert_eq!(depths.iter().map(|d| d.created_bytes()).collect::<Vec<_>>(), [2040, 1975, 1910, 1845, 1780, 1715]);
        assert_eq!(depths.iter().map(|d| d.setup_bytes()).collect::<Vec<_>>(), [8160, 6944, 5728, 4512, 3296, 2080]);
        assert_eq!(Depth::DEEPEST.next(), None);
    }
}
