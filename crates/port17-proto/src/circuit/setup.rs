//! SETUP: the whole route in one packet (spec 06, 1).
