//! Routes over links that already exist (spec 08).
