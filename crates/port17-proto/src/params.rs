//! Network parameters: every time, rate and count a network may choose (spec 09).
