//! What an outcome means: the step ends, or waits for something. Pure; the only place where a worker's word meets the retry rules.

use super::{Completion, Expansion, Inputs, Outcome, Wake};
use crate::{
    error::ErrorClass,
    executor::{StepError, Usage},
    id::{RunId, ScopePath},
    lifecycle::{
        AttemptEnd, Counters, Verdict,
        outcome::{self},
    },
    payload::Payload,
    store::rows::{Lease, VersionedState},
    version::Version,
};
use std::{sync::Arc, time::Duration};

/// A completion, decided.
#[derive(Debug)]
pub(crate) struct Decided {
    pub lease: Lease,
    pub version: Arc<Version>,
    pub decision: Decision,
    pub ms: i32,
    pub loaded: Option<VersionedState>,
    pub inputs: Inputs,
    /// An item whose body is one step: it has no state of its own.
    pub bare_item: bool,
}

#[derive(Debug)]
pub(crate) enum Decision {
    Succeeded { output: Payload, usage: Option<Usage> },
    Skipped,
    Failed { error: StepError, input: Option<Payload> },
    Entered,
    Waits(Wait),
    Expands(Expansion),
}

/// A step that goes on later, by another attempt or when its timer runs out.
#[derive(Debug)]
pub(crate) struct Wait {
    pub state: &'static str,
    pub phase: i16,
    pub wake: Wake,
    pub counters: Counters,
    /// The wait does not count towards the total timeout.
    pub excused: Duration,
    /// The attempt that ended, for the record.
    pub record: Option<(&'static str, Option<StepError>)>,
}

impl Decided {
    pub fn key(&self) -> (RunId, ScopePath) {
        (self.lease.run, self.lease.scope.clone())
    }

    pub fn key_ref(&self) -> (RunId, &ScopePath) {
        (self.lease.run, &self.lease.scope)
    }
}

pub(crate) fn decide(c: Completion, chance: &impl Fn() -> f64) -> Decided {
    let bare_item = match c.version.frame_of(&c.lease.scope) {
        Ok(frame) => !c.lease.scope.is_root() && c.version.dag.frame(frame).members.len() == 1,
        // The locked path finds the same and says so; the row names a map that its version does not have.
        Err(_) => false,
    };
    let ended = matches!(c.outcome, Outcome::Succeeded { .. } | Outcome::Failed { .. });
    // A map or a wait ends with its last attempt, and has taken all the time since its first.
    let took = if ended && c.lease.phase != Lease::FRESH { c.lease.overdue.saturating_add(c.elapsed) } else { c.elapsed };
    let ms = i32::try_from(took.as_millis()).unwrap_or(i32::MAX);
    let decision = match c.outcome {
        Outcome::Succeeded { output, usage } => Decision::Succeeded { output, usage },
        Outcome::Skipped => Decision::Skipped,
        Outcome::Entered => Decision::Entered,
        Outcome::Expanded(expansion) => Decision::Expands(expansion),
        Outcome::Sleep(wake) => {
            let counters = c.lease.counters;
            Decision::Waits(Wait { state: "timer", phase: Lease::DUE, wake, counters, excused: Duration::ZERO, record: None })
        }
        Outcome::Failed { error, input } => {
            let end = AttemptEnd::Failed { class: error.class, retry_after: error.retry_after };
            not_done(&c.lease, &c.version, c.elapsed, end, Some(error), input, chance)
        }
        Outcome::Lost => not_done(&c.lease, &c.version, c.elapsed, AttemptEnd::Lost, None, None, chance),
        Outcome::Released => not_done(&c.lease, &c.version, c.elapsed, AttemptEnd::Released, None, None, chance),
    };
    Decided { lease: c.lease, version: c.version, decision, ms, loaded: c.loaded, inputs: c.inputs, bare_item }
}

fn not_done(
    lease: &Lease,
    version: &Version,
    elapsed: Duration,
    end: AttemptEnd,
    error: Option<StepError>,
    input: Option<Payload>,
    chance: &impl Fn() -> f64,
) -> Decision {
    let verdict = match (version.step(lease.step), end) {
        (Some((_, step)), end) => {
            outcome::decide(&step.retry, step.timeout.total, end, lease.counters, lease.overdue.saturating_add(elapsed), chance())
        }
        // The engine's own work (entry, finish): a vanished worker means nothing for it, an error in it is final.
        (None, AttemptEnd::Failed { class, .. }) => Verdict::Fail { class, counters: lease.counters },
        (None, AttemptEnd::Lost | AttemptEnd::Released) => Verdict::Again { counters: lease.counters },
    };
    let record = match end {
        AttemptEnd::Failed { .. } => "failed",
        AttemptEnd::Lost => "lost",
        AttemptEnd::Released => "released",
    };
    let wait = |state, after, counters, excused, record| {
        Decision::Waits(Wait {
            state,
            phase: lease.phase,
            wake: Wake::After(after),
            counters,
            excused,
            record: Some((record, error.clone())),
        })
    };
    match verdict {
        Verdict::Retry { after, counters } => wait("backoff", after, counters, Duration::ZERO, record),
        Verdict::Defer { after, counters } => wait("deferred", after, counters, after, "deferred"),
        Verdict::Again { counters } => wait("ready", Duration::ZERO, counters, Duration::ZERO, record),
        Verdict::Fail { class, .. } => Decision::Failed { error: final_error(error, class, lease), input },
    }
}

/// The error that a step fails with: the attempt's own, or what the rules made of it.
fn final_error(error: Option<StepError>, class: ErrorClass, lease: &Lease) -> StepError {
    match error {
        Some(error) if error.class == class => error,
        Some(error) => {
            let message = format!("the step's total timeout leaves no time for another attempt; the last error was {error}");
            StepError { class, message, ..error }
        }
        None if class == ErrorClass::TotalTimeout => {
            StepError::new(class, "the step's total timeout has passed; its last worker vanished or gave it back")
        }
        None => {
            let losses = lease.counters.losses + 1;
            StepError::new(
                class,
                format!("the worker vanished {losses} times while this step ran; see whether the step itself brings it down"),
            )
        }
    }
}
