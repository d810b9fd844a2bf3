use aws_lc_rs::digest;

/// 32 bytes of SHA-256.
pub type Hash = [u8; 32];

/// `H(tag, x)` = SHA-256(tag ‖ x), where x is the concatenation of `parts` (spec 02, 1).
///
/// Every use has its own tag, so that no hash made for one purpose is ever valid for another.
pub fn hash(tag: &str, parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(tag.as_bytes());
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}
