//! Round trips and capacities as one byte each (spec 04, 4). Integers only, so that every implementation has the same table.

use crate::wire::registry::MEASURE_UNKNOWN;

const FIRST_RTT_NS: u64 = 100_000;
const LAST_CODE: u8 = MEASURE_UNKNOWN - 1;

/// Code n of a round trip stands for t(n): t(0) = 100,000 ns, t(n + 1) = ⌊t(n) · 28 / 25⌋, so about 0.1 ms · 1.12^n. t(254) · 28
/// fits 64 bits.
fn round_trips_ns() -> impl Iterator<Item = (u8, u64)> {
    let times = std::iter::successors(Some(FIRST_RTT_NS), |time| Some(time * 28 / 25));
    (0..=LAST_CODE).zip(times)
}

/// The code of a round trip: the lowest one whose time is not shorter. Never "unknown".
pub fn rtt_code(rtt_us: u64) -> u8 {
    let rtt_ns = rtt_us.saturating_mul(1000);
    round_trips_ns().find(|(_, time)| *time >= rtt_ns).map_or(LAST_CODE, |(code, _)| code)
}

/// The round trip that a code stands for, in microseconds rounded down; none for "unknown".
pub fn rtt_us(code: u8) -> Option<u64> {
    round_trips_ns().find(|(known, _)| *known == code).map(|(_, time)| time / 1000)
}

/// The code of a capacity: the highest n with 2^n not above it; less than 1 Mbit/s is 0.
pub fn capacity_code(mbit_s: u64) -> u8 {
    // At most 63, so it fits.
    mbit_s.checked_ilog2().map_or(0, |power| power.to_be_bytes()[3])
}

/// The capacity that a code stands for, 2^n Mbit/s; none for "unknown". Claims beyond 2^63 are taken as 2^63.
pub fn capacity_mbit_s(code: u8) -> Option<u64> {
    (code != MEASURE_UNKNOWN).then(|| 1 << code.min(63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_codes_round_up_and_read_back() {
        assert_eq!(rtt_code(0), 0);
        assert_eq!(rtt_code(100), 0);
        assert_eq!(rtt_code(101), 1);
        assert_eq!(rtt_us(0), Some(100));
        assert_eq!(rtt_us(1), Some(112));
        assert_eq!(rtt_us(2), Some(125));
        assert_eq!(rtt_us(MEASURE_UNKNOWN), None);
        for code in 0..=LAST_CODE {
            assert_eq!(rtt_us(code).map(rtt_code), Some(code));
        }
        assert_eq!(rtt_code(u64::MAX), LAST_CODE);
    }

    #[test]
    fn the_table_follows_the_power() {
        for (code, time) in round_trips_ns() {
            let exact = 100_000.0 * 1.12f64.powi(i32::from(code));
            assert!((time as f64 / exact - 1.0).abs() < 1e-4, "{code}");
        }
    }

    #[test]
    fn capacity_codes_round_down_and_read_back() {
        assert_eq!([0, 1, 2, 3, 1000, 1024].map(capacity_code), [0, 0, 1, 1, 9, 10]);
        assert_eq!(capacity_mbit_s(10), Some(1024));
        assert_eq!(capacity_mbit_s(MEASURE_UNKNOWN), None);
        assert_eq!(capacity_mbit_s(200), Some(1 << 63));
        assert!((0..64).all(|code| capacity_mbit_s(code).map(capacity_code) == Some(code)));
    }
}
