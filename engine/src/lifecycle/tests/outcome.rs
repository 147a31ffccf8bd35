//! What the end of an attempt means: every end × class × listed or not × attempts left or not × losses × Retry-After × total timeout,
//! against an oracle that goes by docs/language.md line by line.

use crate::{
    definition::{Backoff, BackoffKind, Jitter, RetryPolicy},
    error::ErrorClass,
    lifecycle::{
        AttemptEnd, Counters, Verdict,
        outcome::{backoff, decide},
    },
};
use proptest::prelude::*;
use std::time::Duration;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn policy(attempts: u16, errors: &[ErrorClass]) -> RetryPolicy {
    let backoff = Backoff { kind: BackoffKind::Exponential, initial: ms(1000), max: ms(60_000), jitter: Jitter::None };
    RetryPolicy { attempts, backoff, errors: errors.to_vec(), fail_when_lost: false }
}

#[derive(Clone, Debug)]
struct Case {
    policy: RetryPolicy,
    total: Option<Duration>,
    end: AttemptEnd,
    before: Counters,
    overdue: Duration,
    chance: f64,
}

impl Case {
    fn decide(&self) -> Verdict {
        decide(&self.policy, self.total, self.end, self.before, self.overdue, self.chance)
    }

    /// The verdict by the text: what is counted, whether there is another attempt, when, and whether time is left for it.
    fn oracle(&self) -> Verdict {
        let mut counters = self.before;
        let time_is_up = |wait: u64| self.total.is_some_and(|total| self.overdue.as_millis() + u128::from(wait) >= total.as_millis());
        let fail = |class, counters| Verdict::Fail { class, counters };
        let listed = |class| self.policy.errors.contains(&class);

        let (class, retry_after) = match self.end {
            // "only succeeded and failed count"
            AttemptEnd::Released if time_is_up(0) => return fail(ErrorClass::TotalTimeout, counters),
            AttemptEnd::Released => return Verdict::Again { counters },
            // "retry whatever `errors` says, up to 3 losses; `on_lost: fail` opts out"
            AttemptEnd::Lost => {
                counters.losses += 1;
                let retried = !self.policy.fail_when_lost && [1, 2, 3].contains(&counters.losses);
                return match (retried, time_is_up(0)) {
                    (false, _) => fail(ErrorClass::Lost, counters),
                    (true, true) => fail(ErrorClass::TotalTimeout, counters),
                    (true, false) => Verdict::Again { counters },
                };
            }
            AttemptEnd::Failed { class, retry_after } => (class, retry_after),
        };
        // "rate_limited: 429 with a time: defer, uncounted"; the time deferred is not in the total.
        if let (ErrorClass::RateLimited, Some(after)) = (class, retry_after) {
            return match time_is_up(0) {
                true => fail(ErrorClass::TotalTimeout, counters),
                false => Verdict::Defer { after: if after < ms(100) { ms(100) } else { after }, counters },
            };
        }
        // "class in `errors` and attempts left: wait max(backoff, Retry-After)"
        counters.failures += 1;
        let wanted = listed(class) || (class == ErrorClass::RateLimited && listed(ErrorClass::Overloaded));
        let left = i32::from(self.policy.attempts) - i32::from(counters.failures);
        if !wanted || left < 1 {
            return fail(class, counters);
        }
        let b = self.policy.backoff;
        let mut wait = b.initial.as_millis() as u64;
        if b.kind == BackoffKind::Exponential {
            for _ in 1..counters.failures {
                wait *= 2;
            }
            wait = wait.min(b.max.as_millis() as u64);
        }
        if b.jitter == Jitter::Full {
            wait = (wait as f64 * self.chance) as u64;
        }
        wait = wait.max(retry_after.map_or(0, |after| after.as_millis() as u64));
        match time_is_up(wait) {
            true => fail(ErrorClass::TotalTimeout, counters),
            false => Verdict::Retry { after: ms(wait), counters },
        }
    }
}

fn ends() -> Vec<AttemptEnd> {
    let waits = [None, Some(ms(0)), Some(ms(40)), Some(ms(2500)), Some(ms(3_600_000))];
    let failed = ErrorClass::ALL.into_iter().flat_map(|class| waits.map(|retry_after| AttemptEnd::Failed { class, retry_after }));
    failed.chain([AttemptEnd::Lost, AttemptEnd::Released]).collect()
}

fn policies(end: AttemptEnd) -> Vec<RetryPolicy> {
    let class = match end {
        AttemptEnd::Failed { class, .. } => class,
        AttemptEnd::Lost | AttemptEnd::Released => ErrorClass::Lost,
    };
    let others = ErrorClass::ALL.into_iter().filter(|c| *c != class).collect::<Vec<_>>();
    let lists = [vec![], vec![class], others, vec![ErrorClass::Overloaded, ErrorClass::Timeout]];
    let mut policies = Vec::new();
    for errors in lists {
        for attempts in [1, 3] {
            for fail_when_lost in [false, true] {
                for (kind, jitter) in [
                    (BackoffKind::Exponential, Jitter::None),
                    (BackoffKind::Exponential, Jitter::Full),
                    (BackoffKind::Constant, Jitter::None),
                    (BackoffKind::Constant, Jitter::Full),
                ] {
                    let backoff = Backoff { kind, initial: ms(2000), max: ms(3000), jitter };
                    policies.push(RetryPolicy { attempts, backoff, errors: errors.clone(), fail_when_lost });
                }
            }
        }
    }
    policies
}

#[test]
fn every_end_means_what_the_design_says() {
    let totals = [None, Some(ms(0)), Some(ms(10_000)), Some(ms(36_000_000))];
    let overdues = [ms(0), ms(7000), ms(9999), ms(10_000)];
    for end in ends() {
        for policy in policies(end) {
            for (failures, losses) in (0..4).flat_map(|f| (0..=5).map(move |l| (f, l))) {
                for (total, overdue) in totals.into_iter().flat_map(|t| overdues.map(|o| (t, o))) {
                    let before = Counters { failures, losses };
                    let case = Case { policy: policy.clone(), total, end, before, overdue, chance: 0.5 };
                    assert_eq!(case.decide(), case.oracle(), "{case:?}");
                }
            }
        }
    }
}

fn durations(max_ms: u64) -> impl Strategy<Value = Duration> {
    (0..=max_ms).prop_map(ms)
}

prop_compose! {
    fn cases()(
        (attempts, errors, fail_when_lost) in (0..6u16, prop::sample::subsequence(ErrorClass::ALL.to_vec(), 0..=22), any::<bool>()),
        (constant, jitter, initial, max) in (any::<bool>(), any::<bool>(), durations(5000), durations(90_000)),
        end in prop::sample::select(ends()),
        total in prop::option::of(durations(100_000)),
        (failures, losses) in (0..7u16, 0..7u16),
        overdue in durations(120_000),
        chance in 0.0..1.0f64,
    ) -> Case {
        let kind = if constant { BackoffKind::Constant } else { BackoffKind::Exponential };
        let backoff = Backoff { kind, initial, max, jitter: if jitter { Jitter::Full } else { Jitter::None } };
        let policy = RetryPolicy { attempts, backoff, errors, fail_when_lost };
        Case { policy, total, end, before: Counters { failures, losses }, overdue, chance }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn counted_attempts_waits_and_the_total_keep_their_bounds(case in cases()) {
        let verdict = case.decide();
        let (wait, counters) = match verdict {
            Verdict::Retry { after, counters } => (after, counters),
            Verdict::Defer { counters, .. } | Verdict::Again { counters } => (Duration::ZERO, counters),
            Verdict::Fail { counters, .. } => (Duration::ZERO, counters),
        };
        prop_assert!(counters.failures - case.before.failures + counters.losses - case.before.losses <= 1, "an attempt counts once");
        if let Verdict::Fail { .. } = verdict {
            return Ok(());
        }
        prop_assert!(case.total.is_none_or(|total| case.overdue + wait < total), "an attempt after the total timeout");
        if let Verdict::Retry { counters, .. } = verdict {
            prop_assert!(counters.failures < case.policy.attempts, "an attempt too many");
        }
        if let (Verdict::Retry { after, .. } | Verdict::Defer { after, .. }, AttemptEnd::Failed { retry_after: Some(bid), .. }) = (verdict, case.end) {
            prop_assert!(after >= bid, "sooner than it was bidden");
        }
    }

    #[test]
    fn a_drawn_wait_lies_between_nothing_and_the_whole_of_it(case in cases(), failures in 1..=u16::MAX) {
        let whole = RetryPolicy { backoff: Backoff { jitter: Jitter::None, ..case.policy.backoff }, ..case.policy.clone() };
        prop_assert!(backoff(&case.policy, failures, case.chance) <= backoff(&whole, failures, case.chance));
        prop_assert!(backoff(&whole, failures, case.chance) <= backoff(&whole, failures.saturating_add(1), case.chance), "waits never shrink");
    }
}

#[test]
fn waits_double_up_to_the_maximum_and_never_overflow() {
    let p = policy(50, &[]);
    let waits = (1..=8).map(|n| backoff(&p, n, 0.0).as_secs()).collect::<Vec<_>>();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    for n in [31, 32, 33, 34, 1000, u16::MAX] {
        assert_eq!(backoff(&p, n, 0.0), ms(60_000), "failure {n}");
    }
}

#[test]
fn a_constant_wait_is_the_one_that_was_asked_for() {
    let mut p = policy(3, &[]);
    p.backoff = Backoff { kind: BackoffKind::Constant, initial: ms(300_000), max: ms(60_000), jitter: Jitter::None };
    assert_eq!([1, 2, 9].map(|n| backoff(&p, n, 0.0)), [ms(300_000); 3], "the maximum is for waits that grow");
}

#[test]
fn full_jitter_spreads_the_wait_by_chance() {
    let mut p = policy(3, &[]);
    p.backoff.jitter = Jitter::Full;
    assert_eq!([0.0, 0.25, 1.0].map(|chance| backoff(&p, 3, chance)), [ms(0), ms(1000), ms(4000)]);
}

/// The verdicts when every attempt ends the same way, until the step fails.
fn until_it_fails(policy: &RetryPolicy, end: AttemptEnd) -> Vec<Verdict> {
    let (mut verdicts, mut counters) = (Vec::new(), Counters::default());
    for _ in 0..100 {
        let verdict = decide(policy, None, end, counters, Duration::ZERO, 0.5);
        verdicts.push(verdict);
        counters = match verdict {
            Verdict::Retry { counters, .. } | Verdict::Defer { counters, .. } | Verdict::Again { counters } => counters,
            Verdict::Fail { .. } => break,
        };
    }
    verdicts
}

#[test]
fn a_step_of_three_attempts_runs_three_times() {
    let end = AttemptEnd::Failed { class: ErrorClass::Timeout, retry_after: None };
    let c = |failures| Counters { failures, losses: 0 };
    assert_eq!(
        until_it_fails(&policy(3, &[ErrorClass::Timeout]), end),
        [
            Verdict::Retry { after: ms(1000), counters: c(1) },
            Verdict::Retry { after: ms(2000), counters: c(2) },
            Verdict::Fail { class: ErrorClass::Timeout, counters: c(3) },
        ]
    );
}

#[test]
fn the_fourth_loss_fails_a_step_and_the_first_where_on_lost_says_so() {
    let verdicts = until_it_fails(&policy(1, &[]), AttemptEnd::Lost);
    assert_eq!(verdicts.len(), 4);
    let last = Verdict::Fail { class: ErrorClass::Lost, counters: Counters { failures: 0, losses: 4 } };
    assert_eq!(verdicts.last(), Some(&last));
    let unwilling = RetryPolicy { fail_when_lost: true, ..policy(3, &[ErrorClass::Lost]) };
    assert_eq!(until_it_fails(&unwilling, AttemptEnd::Lost).len(), 1);
}

#[test]
fn a_rate_limit_with_a_time_never_fails_a_step_and_never_becomes_a_busy_loop() {
    for (bid, wait) in [(ms(0), ms(100)), (ms(99), ms(100)), (ms(7000), ms(7000))] {
        let end = AttemptEnd::Failed { class: ErrorClass::RateLimited, retry_after: Some(bid) };
        let verdicts = until_it_fails(&policy(1, &[]), end);
        assert_eq!(verdicts, vec![Verdict::Defer { after: wait, counters: Counters::default() }; 100]);
    }
}

#[test]
fn a_rate_limit_without_a_time_is_retried_where_it_or_overloaded_is_listed_and_keeps_its_name() {
    let end = AttemptEnd::Failed { class: ErrorClass::RateLimited, retry_after: None };
    for (errors, runs) in [(vec![ErrorClass::RateLimited], 3), (vec![ErrorClass::Overloaded], 3), (vec![ErrorClass::Network], 1)] {
        let verdicts = until_it_fails(&policy(3, &errors), end);
        assert_eq!(verdicts.len(), runs, "{errors:?}");
        assert!(matches!(verdicts.last(), Some(Verdict::Fail { class: ErrorClass::RateLimited, .. })));
    }
}

#[test]
fn no_number_from_outside_overflows() {
    let forever = Some(Duration::MAX);
    let counters = Counters { failures: u16::MAX, losses: u16::MAX };
    for class in ErrorClass::ALL {
        let end = AttemptEnd::Failed { class, retry_after: forever };
        let fresh = decide(&policy(3, &[class]), Some(ms(1000)), end, Counters::default(), ms(1), 0.5);
        match class {
            // The time deferred is not in the total.
            ErrorClass::RateLimited => assert_eq!(fresh, Verdict::Defer { after: Duration::MAX, counters: Counters::default() }),
            _ => assert!(matches!(fresh, Verdict::Fail { class: ErrorClass::TotalTimeout, .. }), "{fresh:?}"),
        }
        decide(&policy(u16::MAX, &[class]), forever, end, counters, Duration::MAX, 0.5);
    }
    assert!(matches!(decide(&policy(3, &[]), None, AttemptEnd::Lost, counters, ms(0), 0.5), Verdict::Fail { class: ErrorClass::Lost, .. }));
}
