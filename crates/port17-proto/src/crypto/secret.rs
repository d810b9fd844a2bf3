use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes, zeroised on drop. No `Debug`, no `Clone`, no comparison.
///
/// They stay in one place in memory: moving a value on the stack would leave copies behind that nobody erases.
#[derive(ZeroizeOnDrop)]
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Takes over the bytes; the caller zeroises its own copy, if it keeps one. Where the bytes are made, use [`Self::filled`].
    pub fn new(mut bytes: [u8; N]) -> Self {
        let secret = Self(Box::new(bytes));
        bytes.zeroize();
        secret
    }

    /// Lets `fill` write the bytes, so that no copy of them exists.
    pub fn filled(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0);
        secret
    }

    /// The bytes themselves: only for the library call that needs them.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    pub(super) fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}
