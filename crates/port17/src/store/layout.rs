//! What can be told of a redb file (its format 3) before redb reads it.
//!
//! redb trusts the first bytes of its file and stops the process where they cannot be true, for instance when the file was cut. So
//! they are looked at first.
//!
//! The header, of which all numbers are little-endian: 9 bytes magic, 1 byte flags, 2 bytes zero, page size u32, header pages of a
//! region u32, most pages of a region u32, full regions u32, pages of the last region u32; at 64 and at 192 a commit slot, whose
//! first byte is the version and whose other bytes have a sum of their own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";
const FLAGS: usize = 9;
/// The flags that exist: which slot holds, not closed in order, committed in two phases.
const KNOWN_FLAGS: u8 = 7;
const SECOND_SLOT: u8 = 1;
const NOT_CLOSED: u8 = 2;
const HEADER_BYTES: usize = 320;
const SLOTS: [usize; 2] = [64, 192];
const SLOT_BYTES: usize = 128;
const PAGE_BYTES: u32 = 4096;
/// 4 GiB.
const REGION_PAGES: u32 = 1 << 20;
const VERSION: u8 = 3;

/// What is wrong with the file, none when redb may open it.
///
/// # Errors
/// When it cannot be read.
pub(super) fn damage(file: &File) -> io::Result<Option<String>> {
    let length = file.metadata()?.len();
    if length < u64::from(PAGE_BYTES) {
        return Ok(Some(format!("{length} bytes are left of it")));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0)?;
    Ok(damage_of(&header, length))
}

/// Has redb check the sums of all pages before it looks into any: `read` are bytes from the beginning of the file on, as redb gets them.
///
/// Where the header says that the last commit had two phases, redb looks for a table of its own first, and panics over what a disk
/// has made of it. So it is told of one phase, and that the file was not closed in order. What it would then go back to when a sum is
/// wrong, the commit before, would be a store of the past: the slot of that one reads as the newest, too.
pub(super) fn have_all_checked(read: &mut [u8]) {
    let Some(header) = read.first_chunk_mut::<HEADER_BYTES>() else { return };
    let holds = usize::from(header[FLAGS] & SECOND_SLOT);
    header[FLAGS] = header[FLAGS] & SECOND_SLOT | NOT_CLOSED;
    let newest = SLOTS[holds]..SLOTS[holds] + SLOT_BYTES;
    header.copy_within(newest, SLOTS[1 - holds]);
}

fn damage_of(header: &[u8; HEADER_BYTES], length: u64) -> Option<String> {
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[..MAGIC.len()] != MAGIC {
        return Some("its first bytes are not those of a store".to_owned());
    }
    if let Some(version) = SLOTS.iter().map(|slot| header[*slot]).find(|version| *version != VERSION) {
        return Some(format!("its format is {version}, not {VERSION}"));
    }
    let flags = header[FLAGS];
    let (page, region_header, region) = (number(12), number(16), number(20));
    if flags & !KNOWN_FLAGS != 0 || (page, region_header, region) != (PAGE_BYTES, 0, REGION_PAGES) {
        return Some("its header is not as it was written".to_owned());
    }
    let pages = 1 + u64::from(number(24)) * u64::from(REGION_PAGES) + u64::from(number(28));
    let wanted = pages * u64::from(PAGE_BYTES);
    if length < wanted || !length.is_multiple_of(u64::from(PAGE_BYTES)) {
        return Some(format!("it has {length} bytes, and {wanted} were written"));
    }
    None
}
