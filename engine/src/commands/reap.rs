//! Vanished workers: an expired lease is taken over, and its attempt completed as lost by the same rules as any other end.

use super::{
    Stop,
    complete_attempts::{Batch, Completed, Completion, Inputs, NoRoom, Outcome, ScopeCache, complete_attempts},
    give_way, is_permanent, stop_run,
    tries::Tries,
};
use crate::{
    error::{Error, ErrorClass, Result},
    executor::StepError,
    fail_point::{self, Side, Site},
    store::{holder::Claimant, lanes, rows::Lease, runs, workers},
    version::Versions,
};
use sqlx::PgConnection;
use std::time::Duration;

const BATCH: i64 = 500;

/// Completes every expired lease as lost and stops every run whose time is up. Returns how many leases were taken over.
pub(crate) async fn reap(conn: &mut PgConnection, versions: &Versions, worker: i32, lease: Duration) -> Result<usize> {
    let reaped = take_over(conn, versions, worker, lease).await;
    // Whatever became of the leases: a run whose time is up must not wait for them.
    stop_overdue_runs(conn).await?;
    reaped
}

async fn take_over(conn: &mut PgConnection, versions: &Versions, worker: i32, lease: Duration) -> Result<usize> {
    let mut reaped = 0;
    loop {
        let by = Claimant { worker, lease_s: lease.as_secs_f64() };
        fail_point::reach(Site::TakeOver, Side::Before);
        let expired = lanes::take_expired(conn, BATCH, by.holder()).await?;
        if expired.is_empty() {
            return Ok(reaped);
        }
        fail_point::reach(Site::TakeOver, Side::After);
        reaped += expired.len();
        let lost = lost(conn, versions, expired).await?;
        let mut done = Completed::default();
        let completed = complete(conn, Batch::decide(lost, || 1.0), by, &mut done).await;
        // Also of what was completed before an error.
        put_back(conn, &done).await?;
        completed?;
    }
}

/// Leases whose version can't be read stay leased, to be looked at again a lease later; the others must not wait for them.
async fn lost(conn: &mut PgConnection, versions: &Versions, expired: Vec<Lease>) -> Result<Vec<Completion>> {
    let mut lost = Vec::with_capacity(expired.len());
    for lease in expired {
        match versions.load(conn, lease.version).await {
            Ok(version) => {
                let (elapsed, loaded, inputs) = (Duration::ZERO, None, Inputs::default());
                lost.push(Completion { lease, version, outcome: Outcome::Lost, elapsed, loaded, inputs });
            }
            Err(e @ Error::Store(_)) => return Err(e),
            Err(error) => {
                tracing::error!(%error, version = lease.version.0, run = %lease.run, "a lost step can't be taken over: its workflow version is unreadable");
            }
        }
    }
    Ok(lost)
}

async fn complete(conn: &mut PgConnection, batch: Batch, by: Claimant, done: &mut Completed) -> Result<()> {
    let (mut pending, mut cache, mut tries) = (vec![batch], ScopeCache::default(), Tries::default());
    while let Some(batch) = pending.last_mut() {
        if batch.is_empty() {
            pending.pop();
            continue;
        }
        match complete_attempts(conn, &mut cache, batch, by, &NoRoom, done).await {
            Ok(()) => {}
            Err(e) if tries.another(&e) => {}
            Err(e) if is_permanent(&e) => give_way(&mut pending, &e),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A lost item may have been the last of its map: then its map is leased to whoever completed the item, and the reaper finishes none.
async fn put_back(conn: &mut PgConnection, done: &Completed) -> Result<()> {
    debug_assert!(done.continued.is_empty(), "a successor was leased to the reaper, which has no room");
    if done.leased.is_empty() {
        return Ok(());
    }
    let leases: Vec<&Lease> = done.leased.iter().map(|claimed| &claimed.lease).collect();
    lanes::put_back(conn, &leases).await?;
    Ok(workers::wake(conn).await?)
}

async fn stop_overdue_runs(conn: &mut PgConnection) -> Result<()> {
    for (run, workspace) in runs::timed_out(conn, BATCH).await? {
        let error =
            StepError::new(ErrorClass::RunTimeout, "the run's timeout has passed; raise `timeout` in its workflow, or start it again");
        let data = serde_json::json!({ "class": ErrorClass::RunTimeout.name() });
        match stop_run(conn, &Stop { run, workspace, event: "run_timed_out", data, error: Some(error) }).await {
            // Somebody else ended it first, and its timer with it.
            Ok(_) | Err(Error::Conflict(_) | Error::NotFound { .. }) => {}
            Err(e @ Error::Store(_)) => return Err(e),
            Err(error) => tracing::error!(%error, %run, "a run whose time is up can't be stopped"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
