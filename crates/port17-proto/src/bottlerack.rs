//! The store of verified Bottles (spec 04).
