//! Key files: made at first start, 0600 in a 0700 directory.
