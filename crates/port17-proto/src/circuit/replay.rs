//! The replay cache of a circuit key (spec 06, 1).
