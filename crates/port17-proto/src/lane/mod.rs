//! Lanes: frames, scheduling, credit, the reader (spec 05).
