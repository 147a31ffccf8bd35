//! What the end of an attempt means for its step: done, again after a while, or failed for good.

use crate::{
    definition::{BackoffKind, Jitter, RetryPolicy},
    error::ErrorClass,
};
use std::time::Duration;

/// How an attempt that brought no result ended.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum AttemptEnd {
    /// It failed; `retry_after` is the other side's own word.
    Failed {
        /// Why.
        class: ErrorClass,
        /// Not before this much later.
        retry_after: Option<Duration>,
    },
    /// Its worker vanished, or did not renew the lease in time.
    Lost,
    /// Its worker gave it back unfinished: a drain whose deadline passed.
    Released,
}

/// What a step has been through since it became ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Attempts that failed and count.
    pub failures: u16,
    /// Attempts whose worker vanished.
    pub losses: u16,
}

/// What happens to the step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Verdict {
    /// Another attempt after a wait; this one counted.
    Retry {
        /// From now.
        after: Duration,
        /// As they stand now.
        counters: Counters,
    },
    /// Another attempt when the limit allows it; this one does not count, nor does the wait count towards the total timeout.
    Defer {
        /// From now.
        after: Duration,
        /// As they stand now.
        counters: Counters,
    },
    /// Another attempt at once; this one does not count.
    Again {
        /// As they stand now.
        counters: Counters,
    },
    /// No further attempt.
    Fail {
        /// Why.
        class: ErrorClass,
        /// As they stand now.
        counters: Counters,
    },
}

/// A worker may vanish under a step this often before the step itself is suspected (docs/language.md, `lost`).
pub const MAX_LOSSES: u16 = 3;

/// The shortest deferral: a limit that says "come back now" again and again, which nothing counts, must not become a busy loop.
pub const MIN_DEFERRAL: Duration = Duration::from_millis(100);

/// Decides. `overdue` is how long the step has been at it, without deferrals; `chance` is drawn from [0, 1).
pub fn decide(
    policy: &RetryPolicy,
    total_timeout: Option<Duration>,
    end: AttemptEnd,
    before: Counters,
    overdue: Duration,
    chance: f64,
) -> Verdict {
    let verdict = match end {
        AttemptEnd::Released => Verdict::Again { counters: before },
        AttemptEnd::Lost => {
            let counters = Counters { losses: before.losses.saturating_add(1), ..before };
            match policy.fail_when_lost || counters.losses > MAX_LOSSES {
                true => Verdict::Fail { class: ErrorClass::Lost, counters },
                false => Verdict::Again { counters },
            }
        }
        AttemptEnd::Failed { class: ErrorClass::RateLimited, retry_after: Some(after) } => {
            Verdict::Defer { after: after.max(MIN_DEFERRAL), counters: before }
        }
        AttemptEnd::Failed { class, retry_after } => {
            let counters = Counters { failures: before.failures.saturating_add(1), ..before };
            match is_retried(policy, class) && counters.failures < policy.attempts {
                true => Verdict::Retry { after: backoff(policy, counters.failures, chance).max(retry_after.unwrap_or_default()), counters },
                false => Verdict::Fail { class, counters },
            }
        }
    };
    within(total_timeout, overdue, verdict)
}

fn is_retried(policy: &RetryPolicy, class: ErrorClass) -> bool {
    // A rate limit that names no time is an overload like another.
    policy.errors.contains(&class) || (class == ErrorClass::RateLimited && policy.errors.contains(&ErrorClass::Overloaded))
}

/// No further attempt starts once the total timeout has passed, whatever became of the last one.
fn within(total: Option<Duration>, overdue: Duration, verdict: Verdict) -> Verdict {
    let (wait, counters) = match verdict {
        Verdict::Retry { after, counters } => (after, counters),
        // Its wait does not count.
        Verdict::Defer { counters, .. } | Verdict::Again { counters } => (Duration::ZERO, counters),
        Verdict::Fail { .. } => return verdict,
    };
    match total {
        Some(total) if overdue.saturating_add(wait) >= total => Verdict::Fail { class: ErrorClass::TotalTimeout, counters },
        _ => verdict,
    }
}

/// The wait after the n-th counted failure, n from 1.
pub fn backoff(policy: &RetryPolicy, failures: u16, chance: f64) -> Duration {
    let b = policy.backoff;
    let full = match b.kind {
        BackoffKind::Constant => b.initial,
        // 2^31 × 1 ms is 24 days: past any maximum worth having, so the shift may stop there.
        BackoffKind::Exponential => b.initial.saturating_mul(1 << u32::from(failures.saturating_sub(1)).min(31)).min(b.max),
    };
    match b.jitter {
        Jitter::None => full,
        Jitter::Full => full.mul_f64(chance.clamp(0.0, 1.0)),
    }
}
