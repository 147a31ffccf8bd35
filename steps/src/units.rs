//! Durations as people and providers write them.

use std::time::Duration;

/// `200ms`, `2s`, `1.5s`, `6m0s`, `1h30m`, `3d`: numbers with units, largest first or not. Nothing else; a bare number has no unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale = match unit {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok()?)?;
        rest = tail;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_add_up() {
        for (text, ms) in [("200ms", 200), ("2s", 2_000), ("1.5s", 1_500), ("6m0s", 360_000), ("1h30m", 5_400_000), ("1d", 86_400_000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-1s", "1.2.3s", "1w", "1e9d", "99999999999999999999d"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
