//! The control plane: one engine, `handle` and `poll`.
