//! Every change of durable state, one file each. A command opens the transaction, takes locks in the order that stands at the head of
//! `migrations/0006_claims.sql`, asks `lifecycle`, applies through `store`, commits.

mod api_token;
mod apply_batch;
mod cancel_run;
pub(crate) mod complete_attempts;
mod discard;
mod migrate;
mod prune;
mod reap;
mod redrive;
mod register_workflow;
pub(crate) mod start_runs;
#[cfg(test)]
mod tests;
mod tries;

pub use api_token::{make_api_token, renew_api_token};
pub(crate) use apply_batch::{give_way, is_permanent};
pub use cancel_run::{Cancelled, cancel_run};
pub(crate) use cancel_run::{Stop, finish_stopped, stop_run};
pub use discard::{Discarded, discard};
pub use migrate::{check_schema, migrate};
pub use prune::{Pruned, prune};
pub(crate) use reap::reap;
pub use redrive::{Redrive, Redriven, redrive};
pub use register_workflow::{Registered, register_workflow};
pub use start_runs::{Local, LocalStep, StartRun, StartedRun, start_runs};

/// Ends a transaction that is to change nothing. One that is merely dropped ends with the connection's next use, and keeps its locks until
/// then.
pub(crate) async fn leave(tx: sqlx::Transaction<'_, sqlx::Postgres>) {
    // It fails only with its connection, which ends the transaction too.
    if let Err(error) = tx.rollback().await {
        tracing::debug!(%error, "a transaction could not be rolled back");
    }
}
