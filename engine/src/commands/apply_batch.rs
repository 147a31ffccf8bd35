//! What becomes of a batch of completions that the database does not take: trouble passes, wrong data does not.

use super::complete_attempts::Batch;
use crate::{
    error::{Error, ErrorClass},
    executor::StepError,
};

/// Will the same batch fail the same way for ever? Connection troubles, deadlocks and a full disk pass; wrong data does not.
pub(crate) fn is_permanent(error: &Error) -> bool {
    match error {
        Error::Store(sqlx::Error::Database(e)) => {
            // Data exceptions, integrity violations, and programs that are too large (54): the row is at fault.
            e.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
        }
        Error::Store(sqlx::Error::Encode(_) | sqlx::Error::Decode(_)) | Error::Internal(_) | Error::LeaseLost => true,
        _ => false,
    }
}

/// A batch that holds one bad row is split, so that this row alone fails; alone, it fails its step with what the database said.
pub(crate) fn give_way(pending: &mut Vec<Batch>, error: &Error) {
    let Some(batch) = pending.pop() else { return };
    if batch.len() > 1 {
        pending.extend(batch.split());
        return;
    }
    let refused = StepError::new(ErrorClass::Internal, format!("the result could not be stored: {error}"));
    match batch.was_given_up() {
        false => pending.extend(batch.split().into_iter().map(|b| b.give_up(&refused))),
        // Not even the failure can be stored. The lease expires and the reaper, with its limit of losses, decides.
        true => tracing::error!(%error, "a completion could not be stored in any form; its lease will expire"),
    }
}
