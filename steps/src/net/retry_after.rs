//! When a server says it may be called again. Dates are measured against the answer's own `Date` header: the wait is then right
//! even where the worker's clock is not.

use chrono::{DateTime, Utc};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use std::time::Duration;

/// A wait that is named but can't be understood (a date without a `Date`) is taken for this: coming too early is the worse mistake.
const UNREADABLE: Duration = Duration::from_secs(60);
/// No wait is longer, so that a slip of the server can't overflow a timestamp.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// The wait that the headers name: `retry-after-ms`, `Retry-After` (seconds or date), else the rate-limit resets.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let now = text(DATE.as_str()).and_then(http_date);
    if let Some(ms) = text("retry-after-ms").and_then(|t| t.parse::<f64>().ok()).and_then(|ms| seconds(ms / 1_000.0)) {
        return Some(ms);
    }
    if let Some(value) = headers.get(RETRY_AFTER) {
        return Some(value.to_str().ok().and_then(|t| named_wait(t.trim(), now)).unwrap_or(UNREADABLE));
    }
    resets(headers, now)
}

/// The resets of exhausted limits; if none says that it is exhausted, of all: the one that refused is not known then, and the
/// longest is safe for each.
fn resets(headers: &HeaderMap, now: Option<DateTime<Utc>>) -> Option<Duration> {
    let mut all = Vec::new();
    for (name, value) in headers {
        let name = name.as_str();
        if !(name.starts_with("x-ratelimit-reset") || name == "ratelimit-reset") {
            continue;
        }
        let remaining = headers.get(name.replace("-reset", "-remaining")).and_then(|v| v.to_str().ok());
        if let Some(wait) = value.to_str().ok().and_then(|t| named_wait(t.trim(), now)) {
            all.push((remaining.is_some_and(|r| r.trim() == "0"), wait));
        }
    }
    let exhausted = all.iter().filter(|(exhausted, _)| *exhausted).map(|(_, wait)| *wait).max();
    exhausted.or_else(|| all.iter().map(|(_, wait)| *wait).max())
}

/// Seconds, seconds or milliseconds since 1970, `6m0s`, an HTTP date or RFC 3339.
fn named_wait(text: &str, now: Option<DateTime<Utc>>) -> Option<Duration> {
    let until = |time: DateTime<Utc>| now.map(|now| (time - now).to_std().unwrap_or_default().min(LONGEST));
    if let Ok(number) = text.parse::<f64>() {
        return match number {
            n if n >= 1e12 => until(DateTime::from_timestamp_millis(n as i64)?),
            n if n >= 1e9 => until(DateTime::from_timestamp(n as i64, 0)?),
            n => seconds(n),
        };
    }
    if let Some(wait) = duration(text) {
        return Some(wait.min(LONGEST));
    }
    until(http_date(text).or_else(|| DateTime::parse_from_rfc3339(text).ok().map(|t| t.to_utc()))?)
}

fn http_date(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text).ok().map(|t| t.to_utc())
}

fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok().map(|d| d.min(LONGEST))
}

/// `20ms`, `8.64s`, `6m0s`: fractions are common here, which the language's own durations do not have.
fn duration(text: &str) -> Option<Duration> {
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
    fn every_known_form_is_understood() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        type Headers = [(&'static str, &'static str)];
        let cases: &[(&Headers, Option<f64>)] = &[
            (&[], None),
            (&[("retry-after", "2")], Some(2.0)),
            (&[("retry-after", "0.5")], Some(0.5)),
            (&[("retry-after-ms", "250"), ("retry-after", "1")], Some(0.25)),
            (&[("date", date), ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], Some(30.0)),
            (&[("date", date), ("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT")], Some(0.0)),
            (&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], Some(60.0)),
            (&[("retry-after", "soon")], Some(60.0)),
            (&[("retry-after", "-1")], Some(60.0)),
            (&[("retry-after", "1e300")], Some(60.0)),
            (&[("retry-after", "99999999")], Some(2_592_000.0)),
            (&[("x-ratelimit-reset-requests", "6m0s"), ("x-ratelimit-reset-tokens", "20ms")], Some(360.0)),
            (
                &[("x-ratelimit-reset-requests", "6m0s"), ("x-ratelimit-reset-tokens", "20ms"), ("x-ratelimit-remaining-tokens", "0")],
                Some(0.02),
            ),
            (&[("date", "Sat, 01 Jan 2028 00:00:00 GMT"), ("x-ratelimit-reset", "1830297610")], Some(10.0)),
            (&[("date", "Sat, 01 Jan 2028 00:00:00 GMT"), ("x-ratelimit-reset", "1830297610000")], Some(10.0)),
            (&[("date", "Sat, 01 Jan 2028 00:00:00 GMT"), ("x-ratelimit-reset-tokens", "2028-01-01T00:00:05Z")], Some(5.0)),
        ];
        for (headers, wait) in cases {
            let map: HeaderMap =
                headers.iter().map(|(k, v)| (k.parse::<reqwest::header::HeaderName>().expect(k), v.parse().expect(v))).collect();
            assert_eq!(retry_after(&map).map(|d| d.as_secs_f64()), *wait, "{headers:?}");
        }
    }

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
