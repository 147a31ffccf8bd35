//! When a server says it may be called again. Dates are measured against the answer's own `Date` header: the wait is then right
//! even where the worker's clock is not.

use chrono::{DateTime, Utc};
use reqwest::{
    StatusCode,
    header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use std::time::Duration;

/// A wait that is named but can't be understood (a date without a `Date`) is taken for this: coming too early is the worse mistake.
const UNREADABLE: Duration = Duration::from_secs(60);
/// No wait is longer, so that a slip of the server can't overflow a timestamp.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// The wait that an unwelcome answer names: `retry-after-ms`, `Retry-After` (seconds or date), else, for a 429, the resets of its
/// limits. With any other status those are no wait: servers send them with every answer.
pub(crate) fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let now = text(DATE.as_str()).and_then(http_date);
    if let Some(ms) = text("retry-after-ms").and_then(|t| t.parse::<f64>().ok()).and_then(|ms| seconds(ms / 1_000.0)) {
        return Some(ms);
    }
    if let Some(value) = headers.get(RETRY_AFTER) {
        return Some(value.to_str().ok().and_then(|t| named_wait(t.trim(), now)).unwrap_or(UNREADABLE));
    }
    if status == StatusCode::TOO_MANY_REQUESTS { resets(headers, now) } else { None }
}

/// The longest reset of the exhausted limits; if none says that it is exhausted, of those that do not say what remains: one of
/// them may have refused, and the longest is safe for each. A limit with something left did not refuse.
fn resets(headers: &HeaderMap, now: Option<DateTime<Utc>>) -> Option<Duration> {
    let (mut exhausted, mut untold) = (None, None);
    for (name, value) in headers {
        let name = name.as_str();
        if !(name.starts_with("x-ratelimit-reset") || name == "ratelimit-reset") {
            continue;
        }
        let Some(wait) = value.to_str().ok().and_then(|t| named_wait(t.trim(), now)) else { continue };
        match headers.get(name.replace("-reset", "-remaining")).and_then(remaining) {
            Some(left) if left > 0.0 => {}
            Some(_) => exhausted = exhausted.max(Some(wait)),
            None => untold = untold.max(Some(wait)),
        }
    }
    exhausted.or(untold)
}

/// What is left of a limit, where that is a number.
fn remaining(value: &HeaderValue) -> Option<f64> {
    value.to_str().ok()?.trim().parse().ok()
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
            assert_eq!(retry_after(StatusCode::TOO_MANY_REQUESTS, &map(headers)).map(|d| d.as_secs_f64()), *wait, "{headers:?}");
        }
    }

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        headers.iter().map(|(k, v)| (k.parse::<reqwest::header::HeaderName>().expect(k), v.parse().expect(v))).collect()
    }

    #[test]
    fn a_limit_that_is_not_exhausted_names_no_wait_and_none_does_but_for_a_429() {
        let date = ("date", "Sat, 01 Jan 2028 00:00:00 GMT");
        let left = map(&[date, ("x-ratelimit-remaining", "4999"), ("x-ratelimit-reset", "1830300000")]);
        let spent = map(&[date, ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1830297610")]);
        let untold = map(&[("x-ratelimit-reset-requests", "6m0s")]);
        let asked = map(&[("retry-after", "3"), ("x-ratelimit-reset", "60")]);
        for status in [400, 403, 404, 500, 502, 503] {
            let status = StatusCode::from_u16(status).expect("a status");
            for headers in [&left, &spent, &untold] {
                assert_eq!(retry_after(status, headers), None, "{status} {headers:?}");
            }
            assert_eq!(retry_after(status, &asked), Some(Duration::from_secs(3)), "{status}");
        }
        let refused = |headers| retry_after(StatusCode::TOO_MANY_REQUESTS, headers).map(|d| d.as_secs());
        assert_eq!((refused(&left), refused(&spent), refused(&untold)), (None, Some(10), Some(360)));
        let both = map(&[
            ("x-ratelimit-reset-requests", "6m0s"),
            ("x-ratelimit-remaining-requests", "12"),
            ("x-ratelimit-reset-tokens", "20s"),
            ("x-ratelimit-remaining-tokens", "0"),
        ]);
        assert_eq!(refused(&both), Some(20), "the one that refused");
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
