//! What the demo's origin serves: bytes that are the same on every machine, from one block that is made once.

use std::sync::Arc;

use port17_proto::crypto::{Entropy, Hash, hash};

/// The block's length: odd, so that a frame, a record or a page that is lost, doubled or misplaced changes every byte after it; and
/// small enough for a processor's cache, so that serving it costs as little as it can beside the mesh that is measured.
const BLOCK_BYTES: usize = 1024 * 1024 - 3;
/// `/`: a page that people and browsers can look at, of at least a megabyte.
const PAGE_BYTES: usize = 1_200_000;

/// Deterministic bytes, any number of them: byte i is byte i mod [`BLOCK_BYTES`] of the block.
#[derive(Debug, Clone)]
pub(super) struct Content {
    block: Arc<[u8]>,
    page: Arc<[u8]>,
}

/// A part of what is served: `bytes` of its block, repeated.
#[derive(Debug, Clone)]
pub(super) struct Body {
    block: Arc<[u8]>,
    pub(super) bytes: u64,
    pub(super) media_type: &'static str,
}

impl Content {
    pub(super) fn new() -> Self {
        let mut block = vec![0; BLOCK_BYTES];
        Entropy::from_number(17).fill(&mut block);
        let page = page(&block);
        Self { block: block.into(), page: page.into() }
    }

    /// The page `/`.
    pub(super) fn page(&self) -> Body {
        Body { block: Arc::clone(&self.page), bytes: self.page.len() as u64, media_type: "text/html; charset=utf-8" }
    }

    /// The first `bytes` of the deterministic ones.
    pub(super) fn bytes(&self, bytes: u64) -> Body {
        Body { block: Arc::clone(&self.block), bytes, media_type: "application/octet-stream" }
    }
}

impl Body {
    /// The longest piece at `position` that lies in memory in one run; empty at the end.
    pub(super) fn piece(&self, position: u64) -> &[u8] {
        let length = self.block.len() as u64;
        let start = position % length;
        let end = length.min(start + self.bytes.saturating_sub(position));
        // Both are at most the block's length.
        &self.block[start as usize..end as usize]
    }

    /// All pieces, in order.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut position = 0;
        std::iter::from_fn(move || {
            let piece = self.piece(position);
            position += piece.len() as u64;
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// SHA-256 of the whole.
    pub(super) fn sha256(&self) -> Hash {
        sha256(&self.pieces().collect::<Vec<_>>())
    }
}

/// SHA-256 as everyone's tools print it: without a tag.
pub(super) fn sha256(parts: &[&[u8]]) -> Hash {
    hash("", parts)
}

fn page(block: &[u8]) -> Vec<u8> {
    const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head><title>Port17 demo origin</title></head>\n<body>\n\
                        <h1>Port17 demo origin</h1>\n<p>These bytes came through the mesh, or directly: compare.</p>\n<pre>\n";
    const TAIL: &str = "</pre>\n</body>\n</html>\n";
    let mut page = Vec::with_capacity(PAGE_BYTES + 200);
    page.extend_from_slice(HEAD.as_bytes());
    for line in block.chunks_exact(32).take((PAGE_BYTES - HEAD.len() - TAIL.len()) / 65 + 1) {
        page.extend_from_slice(hex(line).as_bytes());
        page.push(b'\n');
    }
    page.extend_from_slice(TAIL.as_bytes());
    page
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_up_exactly_the_bytes() {
        let content = Content::new();
        for bytes in [0, 1, 1000, BLOCK_BYTES as u64 - 1, BLOCK_BYTES as u64, BLOCK_BYTES as u64 + 1, 10_000_000] {
            let body = content.bytes(bytes);
            let whole: Vec<u8> = body.pieces().flatten().copied().collect();
            assert_eq!(whole.len() as u64, bytes);
            assert!(whole.iter().enumerate().all(|(index, byte)| *byte == content.block[index % BLOCK_BYTES]), "{bytes}");
            assert_eq!(body.sha256(), sha256(&[&whole]));
        }
    }

    #[test]
    fn a_piece_past_the_end_is_empty() {
        let body = Content::new().bytes(10);
        assert_eq!(body.piece(7).len(), 3);
        assert!(body.piece(10).is_empty() && body.piece(11).is_empty());
    }

    #[test]
    fn content_never_changes() {
        let content = Content::new();
        // A change here changes what every script and every reader of a result compares with.
        assert_eq!(hex(&content.bytes(100_000_000).sha256()), "ffb382c11ec53efc953085fd7f08b453866ace798584edf8758f8cb37ed4acca");
        assert_eq!(hex(&content.page().sha256()), "1e5f9b9dcf491bac9df72ac1bcca1587a506604d0c9be1b7f406760113d0bbd8");
    }

    #[test]
    fn page_has_a_megabyte() {
        let body = Content::new().page();
        assert!(body.bytes >= 1_000_000, "{}", body.bytes);
        let text: Vec<u8> = body.pieces().flatten().copied().collect();
        assert!(text.ends_with(b"</html>\n") && text.starts_with(b"<!doctype html>"));
    }

    #[test]
    fn empty_input_has_the_known_hash() {
        assert_eq!(hex(&sha256(&[])), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
