//! The client's side of a circuit (spec 06).
