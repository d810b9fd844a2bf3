//! CREATED: each hop's sealed answer (spec 06, 1).
