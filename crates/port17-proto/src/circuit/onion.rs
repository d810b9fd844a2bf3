//! Cells: one AEAD layer per hop (spec 06, 2).
