use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes, zeroised on drop. No `Debug`, no `Clone`, no comparison.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes over the bytes; the caller zeroises its own copy, if it keeps one.
    pub fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves: only for the library call that needs them.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}
