//! One table for all deadlines of an engine.
