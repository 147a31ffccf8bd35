//! A run is stopped: one commit ends everything that is not running, and from then on nothing new starts.

use super::{leave, tries::Tries};
use crate::{
    error::{Error, Result},
    executor::StepError,
    fail_point::{self, Site},
    id::{RunId, Scope, ScopePath, WorkspaceId},
    lifecycle::{RunEvent, RunStatus},
    store::{
        lanes,
        records::{self, NewEvent},
        redrive, runs,
    },
};
use sqlx::{Connection, PgConnection};

/// What came of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Cancelled {
    /// `cancelling` while attempts are in flight, else `cancelled`.
    pub status: RunStatus,
    /// Attempts that are still in flight; each ends within its worker's next heartbeat.
    pub in_flight: u64,
}

/// Cancels a run. Repeating it is a no-op; a run that has succeeded or failed is a conflict: a completion that committed first stands.
pub async fn cancel_run(conn: &mut PgConnection, scope: &Scope, run: RunId) -> Result<Cancelled> {
    let data = serde_json::json!({ "actor": scope.actor });
    stop_run(conn, &Stop { run, workspace: scope.workspace, event: "cancel_requested", data, error: None }).await
}

/// A run that is to be stopped, and the reason.
pub(crate) struct Stop {
    pub run: RunId,
    pub workspace: WorkspaceId,
    /// The kind of the event that says so.
    pub event: &'static str,
    pub data: serde_json::Value,
    /// What the run's header will show.
    pub error: Option<StepError>,
}

/// Stops a run. Repeating it is a no-op.
pub(crate) async fn stop_run(conn: &mut PgConnection, stop: &Stop) -> Result<Cancelled> {
    let run = stop.run;
    let mut tries = Tries::default();
    loop {
        match try_stop(conn, stop).await {
            Ok(Some(stopped)) => return Ok(stopped),
            Ok(None) if tries.left() => {}
            Ok(None) => return Err(Error::Internal(format!("run {run} is live but has no state"))),
            Err(e) if tries.another(&e) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Nothing if the run was opened again between the look at its scopes and the one at its header.
async fn try_stop(conn: &mut PgConnection, stop: &Stop) -> Result<Option<Cancelled>> {
    let mut tx = conn.begin().await?;
    let stopped = stop_in(&mut tx, stop).await;
    match stopped {
        Ok(Some(_)) => fail_point::around(Site::Stop, tx.commit()).await?,
        Ok(None) | Err(_) => leave(tx).await,
    }
    stopped
}

async fn stop_in(tx: &mut PgConnection, stop: &Stop) -> Result<Option<Cancelled>> {
    let run = stop.run;
    let scopes = runs::lock_all_scopes(tx, run).await?;
    // Before the lanes: items that end hold their map first. And before the versions are raised: no item is claimed from here on, so that
    // none gets a state at a version that was not raised.
    redrive::maps::lock(tx, run).await?;
    let header = runs::header(tx, stop.workspace.0, run).await?.ok_or_else(|| Error::not_found("run", run))?;
    match header.status {
        RunStatus::Cancelled => return Ok(Some(Cancelled { status: RunStatus::Cancelled, in_flight: 0 })),
        status if status.is_terminal() => return Err(Error::Conflict(format!("run {run} has {} already", status.name()))),
        _ => {}
    }
    let Some(root) = scopes.iter().find(|s| s.scope == ScopePath::root()) else { return Ok(None) };
    let next = header.status.on(RunEvent::Cancel).map_err(|e| Error::Conflict(e.to_string()))?;
    if header.status != next {
        runs::raise_versions(tx, run).await?;
        let event = NewEvent { run, seq: root.state.version + 1, at: None, kind: stop.event, data: stop.data.clone() };
        records::insert_event(tx, &event).await?;
        if !runs::set_status(tx, run, header.status, next).await? {
            return Err(Error::Internal(format!("run {run} was not {} under lock", header.status.name())));
        }
        if let Some(error) = &stop.error {
            runs::set_error(tx, run, &records::to_json(error)?).await?;
        }
    }
    let in_flight = lanes::stop(tx, run).await?;
    let status = if finish_stopped(tx, run).await? { RunStatus::Cancelled } else { next };
    if in_flight > 0 {
        lanes::notify_stopped(tx, run).await?;
    }
    Ok(Some(Cancelled { status, in_flight }))
}

/// Ends a run that is being stopped once no lane of it is left. The caller holds the lock of its root scope.
pub(crate) async fn finish_stopped(conn: &mut PgConnection, run: RunId) -> Result<bool> {
    if lanes::count(conn, run).await? > 0 {
        return Ok(false);
    }
    let root = runs::lock_scopes(conn, &[(run, ScopePath::root())]).await?;
    let Some(root) = root.first() else { return Ok(false) };
    Ok(runs::end_stopped(conn, run, root.state.version + 1).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Drain;

    /// Guard: `Tries`.
    #[tokio::test]
    async fn a_deadlock_is_not_the_callers_problem() {
        let mut d = Drain::new().await;
        let (run, _) = d.start("  a: {t: 1}\n").await;
        let (mut other, mut looking) = (d.connect().await, d.connect().await);
        // Whoever has waited for so long is the one that is undone.
        d.sql("SET deadlock_timeout = '2 s'").await;
        sqlx::raw_sql("SET deadlock_timeout = '10 min'").execute(&mut other).await.expect("set");
        let mut tx = other.begin().await.expect("a transaction");
        sqlx::query("SELECT FROM krowoc.lane FOR UPDATE").execute(&mut *tx).await.expect("locked");
        let against_the_order = async {
            Drain::until_one_waits(&mut looking).await;
            sqlx::query("SELECT FROM krowoc.scope_state FOR UPDATE").execute(&mut *tx).await.expect("locked");
            tx.commit().await.expect("committed");
        };
        let (stopped, ()) = tokio::join!(cancel_run(&mut d.conn, &d.scope, run), against_the_order);
        assert_eq!(stopped.expect("stopped").status, RunStatus::Cancelled);
        d.done().await;
    }
}
