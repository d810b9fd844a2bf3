/// A time in words, the two largest units: `3 h 20 min`.
pub(crate) fn words(seconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let largest = UNITS.iter().position(|(_, unit)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let (name, unit) = UNITS[largest];
    let mut text = format!("{} {name}", seconds / unit);
    if let Some((name, smaller)) = UNITS.get(largest + 1)
        && seconds % unit / smaller > 0
    {
        text += &format!(" {} {name}", seconds % unit / smaller);
    }
    text
}

/// A round trip in milliseconds.
pub(crate) fn milliseconds(microseconds: u64) -> String {
    format!("{}.{} ms", microseconds / 1000, microseconds % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_units_are_said() {
        let said = [0, 59, 60, 61, 3600, 3660, 86_399, 86_400, 90_000, 31 * 86_400].map(words);
        assert_eq!(said, ["0 s", "59 s", "1 min", "1 min 1 s", "1 h", "1 h 1 min", "23 h 59 min", "1 d", "1 d 1 h", "31 d"]);
        assert_eq!([90, 1200, 20_000].map(milliseconds), ["0.0 ms", "1.2 ms", "20.0 ms"]);
    }
}
