//! Messages of the control stream (spec 05, 4).
