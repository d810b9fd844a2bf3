//! The command `port17`.
fn main() {}
