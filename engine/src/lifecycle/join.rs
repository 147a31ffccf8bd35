//! The join table: what becomes of a step once every predecessor has ended.

use super::frame::{Ended, StepState};
use crate::definition::{Join, Step};

/// How a predecessor's end counts in a join; nothing while it has not ended.
pub(super) fn joins_as(step: &Step, state: StepState) -> Option<Ended> {
    match state {
        StepState::Pending | StepState::Live => None,
        StepState::Succeeded => Some(Ended::Succeeded),
        StepState::Skipped => Some(Ended::Skipped),
        StepState::Failed | StepState::UpstreamFailed | StepState::Cancelled if step.allow_failure => Some(Ended::Skipped),
        StepState::Failed | StepState::UpstreamFailed | StepState::Cancelled => Some(Ended::Failed),
    }
}

/// The join table of docs/language.md. A step without predecessors runs.
pub(super) fn join(rule: Join, some_succeeded: bool, some_skipped: bool, some_failed: bool) -> StepState {
    use StepState::{Live, Skipped, UpstreamFailed};
    match (rule, some_failed) {
        (Join::AllDone, _) => Live,
        (Join::AnySucceeded, _) if some_succeeded => Live,
        (Join::AllSucceeded | Join::NoneFailed | Join::AnySucceeded, true) => UpstreamFailed,
        (Join::NoneFailed, false) => Live,
        (Join::AllSucceeded | Join::AnySucceeded, false) if some_skipped => Skipped,
        (Join::AllSucceeded | Join::AnySucceeded, false) => Live,
    }
}
