//! Where an attempt is carried out: on the engine's thread what is done at once, anything else in a task of its own among the steps.

use super::{
    attempt::{attempt, bind, input_of},
    shared::{Job, Shared},
};
use crate::{commands::complete_attempts::Outcome, definition::Action, error::ErrorClass, executor::StepError, store::rows::Lease};
use futures::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// Carries out a job. What may take the processor or wait goes to a task of its own; the engine's small work stays on this one.
pub(super) async fn execute(shared: &Arc<Shared>, job: Arc<Job>) -> Outcome {
    if is_small(shared, &job) {
        let ended = AssertUnwindSafe(attempt(shared, &job)).catch_unwind().await;
        return ended.unwrap_or_else(|panic| panicked(&job, &panic_message(panic.as_ref())));
    }
    let task = {
        let (within, job) = (shared.clone(), job.clone());
        AbortOnDropHandle::new(shared.runtime.spawn(async move { attempt(&within, &job).await }.in_current_span()))
    };
    tokio::select! {
        // An end that has come counts, with what it brought and used, though a cancellation came as well.
        biased;
        ended = task => ended.unwrap_or_else(|e| match e.try_into_panic() {
            Ok(panic) => panicked(&job, &panic_message(panic.as_ref())),
            // Its runtime is being shut down: there is nothing left here that could carry out steps.
            Err(_) => {
                shared.stopping.cancel();
                Outcome::Released
            }
        }),
        // Given back: if the lane is still ours the step is ready again; if its run is being stopped, this ends the attempt.
        () = job.flight.cancelled.cancelled() => Outcome::Released,
    }
}

fn panicked(job: &Job, what: &str) -> Outcome {
    // What panicked may be the rendering.
    let input = std::panic::catch_unwind(AssertUnwindSafe(|| input_of(job, &bind(job)))).ok().flatten();
    Outcome::Failed { error: StepError::new(ErrorClass::Internal, format!("the step panicked: {what}")), input }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "no message".to_owned(),
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
