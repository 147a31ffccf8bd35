//! Durations as files write them: `500ms`, `30s`, `1h30m`.

use std::time::Duration;

/// The longest duration a file may name: longer is a slip of the hand, and would overflow timestamps further on.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Units from long to short, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Parses `500ms`, `30s`, `5m`, `6h`, `3d`, parts from long to short (`1h30m`), or a plain number of seconds (`90`, `0.5`). At most
/// ten years. The error says what is wrong, without naming a place.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = |why: &str| format!("`{text}` is no duration: {why}");
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(wrong("it is empty; write `30s`, `5m`, `1h30m`"));
    }
    if let Some(seconds) = plain_seconds(trimmed) {
        return bounded(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)).map_err(|why| wrong(&why));
    }
    let mut rest = trimmed;
    let mut total: u64 = 0;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        if number.is_empty() {
            return Err(wrong(&format!(
                "a number is missing before `{}`; write `30s`, `5m`, `1h30m`",
                if unit.is_empty() { tail } else { unit }
            )));
        }
        if !UNITS.iter().any(|(name, _)| *name == unit) {
            return Err(wrong(&format!("`{unit}` is no unit; there are ms, s, m, h, d")));
        }
        // `units` moves on, so that each unit comes once, the longer first.
        let Some((_, factor)) = units.find(|(name, _)| *name == unit) else {
            return Err(wrong("units go from long to short, each once: `1d6h30m`"));
        };
        let number: u64 = number.parse().map_err(|_| wrong("the number is too large"))?;
        total = number.checked_mul(*factor).and_then(|part| total.checked_add(part)).ok_or_else(|| wrong("it is longer than ten years"))?;
        rest = tail;
    }
    bounded(Duration::from_millis(total)).map_err(|why| wrong(&why))
}

/// Digits with at most one dot: everything else that `f64` reads (`1e9`, `inf`, `-1`) is no duration.
fn plain_seconds(text: &str) -> Option<f64> {
    let plain = text.chars().all(|c| c.is_ascii_digit() || c == '.') && text.starts_with(|c: char| c.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn bounded(duration: Duration) -> Result<Duration, String> {
    if duration > LONGEST { Err("it is longer than ten years".into()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("6h", 21_600_000),
            ("3d", 259_200_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("90", 90_000),
            ("0", 0),
            ("0.5", 500),
            (" 2s ", 2_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "empty"),
            ("s", "number is missing"),
            ("5 m", "no unit"),
            ("5w", "`w` is no unit"),
            ("-5s", "number is missing"),
            ("1e9", "no unit"),
            ("inf", "number is missing"),
            ("30m1h", "long to short"),
            ("1h1h", "long to short"),
            ("1.5h", "no unit"),
            ("1.2.3", "no unit"),
            ("11000d", "ten years"),
            ("99999999999", "ten years"),
            ("99999999999999999999s", "too large"),
            ("18446744073709551615d", "ten years"),
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,20}") {
            let _ = parse_duration(&text);
        }

        #[test]
        fn parts_add_up(h in 0u64..1000, m in 0u64..1000, s in 0u64..1000) {
            prop_assert_eq!(parse_duration(&format!("{h}h{m}m{s}s")), Ok(Duration::from_secs(h * 3600 + m * 60 + s)));
        }
    }
}
