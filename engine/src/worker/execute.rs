//! Where an attempt is carried out: on the engine's thread what is done at once, anything else in a task of its own among the steps; and
//! what becomes of one that does not end when it should.

use super::{
    attempt::attempt,
    panics,
    shared::{Job, Shared},
    underway::{Underway, Word},
};
use crate::{commands::complete_attempts::Outcome, definition::Action, store::rows::Lease};
use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// Carries out a job. What may take the processor or wait goes to a task of its own; the engine's small work stays on this one.
pub(super) async fn execute(shared: &Arc<Shared>, job: Arc<Job>) -> Outcome {
    if is_small(shared, &job) {
        return attempt(shared, &job, Instant::now(), &AtomicBool::new(false)).await;
    }
    // Called back, it goes to the threads that have taken over. Where none are left it is for other workers.
    while let Some(runtime) = shared.runtimes.current() {
        let entry = shared.underway.enter(job.clone(), runtime);
        if let Some(outcome) = apart(shared, &entry.underway).await {
            return outcome;
        }
    }
    Outcome::Released
}

/// Carries out an attempt in a task of its own; nothing, if it was called back before it had begun.
async fn apart(shared: &Arc<Shared>, underway: &Arc<Underway>) -> Option<Outcome> {
    let work = work(shared.clone(), underway.clone()).in_current_span();
    let task = AbortOnDropHandle::new(underway.on.spawn(work));
    let left = task.abort_handle();
    let cancelled = &underway.job.flight.cancelled;
    let outcome = tokio::select! {
        // An end that has come counts, with what it brought and used, though a cancellation came as well.
        biased;
        ended = task => return ended.unwrap_or_else(|e| Some(broken_off(shared, e))),
        // Given back: if the lane is still ours the step is ready again; if its run is being stopped, this ends the attempt.
        () = cancelled.cancelled() => Outcome::Released,
        word = underway.word() => match word {
            Word::CalledBack => return None,
            Word::TimeIsUp { limit, working } => {
                // For what the step has started elsewhere.
                cancelled.cancel();
                Outcome::Failed { error: limit.error_unheard(working), input: None }
            }
        },
    };
    shared.underway.leave_behind(underway, left);
    Some(outcome)
}

async fn work(shared: Arc<Shared>, underway: Arc<Underway>) -> Option<Outcome> {
    let begun = underway.begin()?;
    let mut attempt = pin!(attempt(&shared, &underway.job, begun, &underway.returned));
    Some(poll_fn(|context| underway.work(|| attempt.as_mut().poll(context))).await)
}

fn broken_off(shared: &Shared, error: JoinError) -> Outcome {
    match error.try_into_panic() {
        // Of the attempt's end: what panics before is caught there.
        Ok(panic) => Outcome::Failed { error: panics::error(panic), input: None },
        // Its runtime is being shut down: there is nothing left here that could carry out steps.
        Err(_) => {
            shared.stopping.cancel();
            Outcome::Released
        }
    }
}

/// What a step on this thread may look at, in bytes: the leases of all others are renewed here.
const SMALL: usize = 16 * 1024;

/// Little constant or passed-on configuration for a kind that is done with it at once: not worth a task.
fn is_small(shared: &Shared, job: &Job) -> bool {
    match job.version.step(job.lease.step) {
        None => job.lease.step == Lease::ENTRY,
        Some((_, step)) => match &step.action {
            Action::Task { kind, config } => {
                let instant = shared.registry.kinds.get(kind).is_some_and(|k| k.is_instant());
                let plain = step.when.is_none() && step.output.is_none() && (config.is_constant() || config.is_bare_reference());
                instant && plain && job.inputs.bytes() <= SMALL
            }
            Action::Wait(_) => job.lease.phase == Lease::DUE,
            Action::Map(_) => false,
        },
    }
}
