//! Exit policies: what an exit opens, and what it never does (spec 07).
