//! Lengths of time on the command line and in the environment. Workflow files may leave out the unit, here it is needed: `--lease 1` and
//! `KROWOC_KEEP_RUNS=30` could mean anything, and what they do by mistake is not taken back.

use krowoc_engine::definition;
use std::time::Duration;

/// `30s`, `1h30m`, `250ms`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let duration = definition::parse_duration(text)?;
    match text.contains(|c: char| c.is_ascii_alphabetic()) {
        true => Ok(duration),
        false => Err(format!("`{text}` has no unit; for seconds write `{}`, else ms, m, h or d", in_seconds(duration))),
    }
}

fn in_seconds(duration: Duration) -> String {
    if duration.subsec_millis() == 0 { format!("{}s", duration.as_secs()) } else { format!("{}ms", duration.as_millis()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_needs_a_unit_and_is_told_one() {
        for (text, ms) in [("250ms", 250), ("1s", 1_000), ("1h30m", 5_400_000), ("0s", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, instead) in [("1", "`1s`"), ("0", "`0s`"), ("90", "`90s`"), ("1.5", "`1500ms`")] {
            let wrong = parse(text).expect_err(text);
            assert!(wrong.contains(&format!("`{text}` has no unit")) && wrong.contains(instead), "{wrong}");
        }
        assert!(parse("soon").is_err() && parse("").is_err() && parse("-1s").is_err());
    }
}
