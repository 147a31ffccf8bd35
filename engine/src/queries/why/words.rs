//! The sentence, from what matters most of what is live.

use super::{Reason, WaitView};
use chrono::{DateTime, TimeDelta, Utc};

/// Of a run that is under way.
pub(super) fn summary(first: &WaitView, live: i64, now: DateTime<Utc>) -> String {
    let WaitView { path, attempt, wakes, .. } = first;
    let since = first.since.map(|at| span(now - at));
    let spent = since.as_ref().map(|since| format!(" for {since}")).unwrap_or_default();
    let ago = since.as_ref().map(|since| format!(" {since} ago")).unwrap_or_default();
    let left = first.until.map(|at| span(at - now)).unwrap_or_default();
    let runs = since.as_ref().map_or_else(|| "is running".into(), |since| format!("has been running for {since}"));
    let doing = match first.reason {
        Reason::Leased | Reason::Aborting => format!("{runs} (attempt {attempt}); next: {wakes}"),
        Reason::WorkerSilent => format!("{runs} (attempt {attempt}), but {wakes}"),
        Reason::NoWorker | Reason::Ready | Reason::Items | Reason::Concurrency => format!("has been waiting{spent} for {wakes}"),
        Reason::Backoff => format!("waits another {left} for its next attempt; attempt {attempt} failed{ago}"),
        Reason::Deferred => format!("waits another {left} for a limit that another system has set; attempt {attempt} met it{ago}"),
        Reason::Timer => format!("waits another {left}, as the workflow says; it began to{ago}"),
    };
    let others = if live > 1 { format!("; {} live beside it", count(live - 1, "step is", "steps are")) } else { String::new() };
    format!("`{path}` {doing}{others}.")
}

/// Of a run that is being stopped.
pub(super) fn stopping(first: &WaitView, live: i64) -> String {
    let silent = if first.reason == Reason::WorkerSilent { format!("; {}", first.wakes) } else { String::new() };
    format!("The run is being stopped: {} still in flight{silent}.", count(live, "attempt is", "attempts are"))
}

pub(super) fn count(n: i64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A length of time in its two largest units.
pub(super) fn span(d: TimeDelta) -> String {
    let s = d.num_seconds().max(0);
    match s {
        0 if d.num_milliseconds() > 0 => format!("{} ms", d.num_milliseconds()),
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}
