//! When an attempt's time is up: its own limit, or what is left of the step's.

use super::shared::Job;
use crate::{definition::Action, error::ErrorClass, executor::StepError};
use std::time::{Duration, Instant};

/// The end of an attempt's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limit {
    pub at: Instant,
    /// As the file has it.
    length: Duration,
    class: ErrorClass,
}

impl Limit {
    /// For an attempt that began then; none where its step may take as long as it likes.
    pub fn of(job: &Job, begun: Instant) -> Option<Self> {
        let (_, step) = job.version.step(job.lease.step)?;
        if !matches!(step.action, Action::Task { .. }) {
            return None;
        }
        let until = |length: Duration, class, from: Instant, spent| {
            // A sum that no clock can hold is no limit.
            from.checked_add(length.saturating_sub(spent)).map(|at| Self { at, length, class })
        };
        let attempt = step.timeout.attempt.and_then(|length| until(length, ErrorClass::Timeout, begun, Duration::ZERO));
        let total = step.timeout.total.and_then(|length| until(length, ErrorClass::TotalTimeout, job.flight.since, job.lease.overdue));
        attempt.into_iter().chain(total).min_by_key(|limit| limit.at)
    }

    /// Has it passed before anything was done? A limit of nothing would still let a quick kind end well.
    pub fn leaves_nothing(&self) -> bool {
        self.class == ErrorClass::TotalTimeout && self.at <= Instant::now()
    }

    /// What an attempt ends with that was stopped by it.
    pub fn error(&self) -> StepError {
        let message = match self.class {
            ErrorClass::TotalTimeout => "the step's total timeout has passed; raise `timeout.total` or lower `timeout.attempt`".to_owned(),
            _ => format!("the attempt took longer than {:?}; raise `timeout.attempt` if that is usual", self.length),
        };
        StepError::new(self.class, message)
    }

    /// The same for one that could not be stopped, because it was computing or blocking, or because others that did had its threads.
    pub fn error_unheard(&self, working: bool) -> StepError {
        let which = match self.class {
            ErrorClass::TotalTimeout => "timeout.total",
            _ => "timeout.attempt",
        };
        let why = match working {
            true => {
                "the step does not give its thread back: it computes or blocks where it should not. Its thread is lost to others until it \
                 does; mend the step kind (such work belongs in `spawn_blocking`), or restart the worker"
            }
            false => "steps that compute or block keep the threads that it needs; the worker's log names them",
        };
        StepError::new(self.class, format!("`{which}`, {:?}, has passed and the attempt could not be stopped: {why}", self.length))
    }
}
