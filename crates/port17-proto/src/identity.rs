//! A node's own keys: identity, link, circuit (spec 03).
