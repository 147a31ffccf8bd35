//! Vanished workers: an expired lease is taken over, and its attempt completed as lost by the same rules as any other end.

use super::{
    complete_attempts::{Batch, Completed, Completion, Inputs, NoRoom, Outcome, ScopeCache, complete_attempts},
    start_runs::new_token,
    stop_run,
};
use crate::{
    error::{Error, ErrorClass, Result},
    executor::StepError,
    store::{hot::Holder, lanes, runs},
    version::Versions,
};
use sqlx::PgConnection;
use std::time::Duration;

const BATCH: i64 = 500;

/// Completes every expired lease as lost and stops every run whose time is up. Returns how many leases were taken over.
pub(crate) async fn reap(conn: &mut PgConnection, versions: &Versions, worker: i32, lease: Duration) -> Result<usize> {
    let mut reaped = 0;
    loop {
        let by = Holder { token: new_token(), worker, lease_s: lease.as_secs_f64() };
        let expired = lanes::take_expired(conn, BATCH, by).await?;
        if expired.is_empty() {
            break;
        }
        reaped += expired.len();
        let mut lost = Vec::with_capacity(expired.len());
        for lease in expired {
            let version = versions.load(conn, lease.version).await?;
            let (elapsed, loaded, inputs) = (Duration::ZERO, None, Inputs::default());
            lost.push(Completion { lease, version, outcome: Outcome::Lost, elapsed, loaded, inputs });
        }
        let mut batch = Batch::decide(lost, || 1.0);
        let mut done = Completed::default();
        complete_attempts(conn, &mut ScopeCache::default(), &mut batch, by, &NoRoom, &mut done).await?;
    }
    stop_overdue_runs(conn).await?;
    Ok(reaped)
}

async fn stop_overdue_runs(conn: &mut PgConnection) -> Result<()> {
    for (run, workspace) in runs::timed_out(conn, BATCH).await? {
        let error =
            StepError::new(ErrorClass::RunTimeout, "the run's timeout has passed; raise `timeout` in its workflow, or start it again");
        let data = serde_json::json!({ "class": ErrorClass::RunTimeout.name() });
        match stop_run(conn, workspace, run, "run_timed_out", &data, Some(&error)).await {
            // Somebody else ended it first, and its timer with it.
            Ok(_) | Err(Error::Conflict(_) | Error::NotFound { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
