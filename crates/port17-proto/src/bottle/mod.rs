//! Bottles: a node's signed record about itself (spec 04).
