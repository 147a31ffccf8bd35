//! A run is stopped: one commit ends everything that is not running, and from then on nothing new starts.

use crate::{
    error::{Error, Result},
    executor::StepError,
    id::{RunId, Scope, ScopePath},
    lifecycle::{RunEvent, RunStatus},
    store::{lanes, records, redrive, runs},
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
    stop_run(conn, scope.workspace.0, run, "cancel_requested", &data, None).await
}

/// Stops a run for a reason: `kind` is the event that says so, `error` what its header will show.
pub(crate) async fn stop_run(
    conn: &mut PgConnection,
    workspace: i32,
    run: RunId,
    kind: &str,
    data: &serde_json::Value,
    error: Option<&StepError>,
) -> Result<Cancelled> {
    let mut tx = conn.begin().await?;
    let scopes = runs::lock_all_scopes(&mut tx, run).await?;
    let header = runs::header(&mut tx, workspace, run).await?.ok_or_else(|| Error::not_found("run", run))?;
    match header.status {
        RunStatus::Cancelled => return Ok(Cancelled { status: RunStatus::Cancelled, in_flight: 0 }),
        status if status.is_terminal() => return Err(Error::Conflict(format!("run {run} has {} already", status.name()))),
        _ => {}
    }
    let next = header.status.on(RunEvent::Cancel).map_err(|e| Error::Conflict(e.to_string()))?;
    if header.status != next {
        let root = scopes.iter().find(|s| s.scope == ScopePath::root());
        let root = root.ok_or_else(|| Error::Internal(format!("run {run} is {} but has no state", header.status.name())))?;
        runs::raise_versions(&mut tx, run).await?;
        records::insert_event(&mut tx, run, root.state.version + 1, kind, data).await?;
        runs::set_status(&mut tx, run, header.status, next).await?;
        if let Some(error) = error {
            runs::set_error(&mut tx, run, &records::to_json(error)?).await?;
        }
    }
    // Before the lanes: items that end hold their map first.
    redrive::lock_maps(&mut tx, run).await?;
    let in_flight = lanes::stop(&mut tx, run).await?;
    let status = if finish_stopped(&mut tx, run).await? { RunStatus::Cancelled } else { next };
    if in_flight > 0 {
        lanes::notify_stopped(&mut tx, run).await?;
    }
    tx.commit().await?;
    Ok(Cancelled { status, in_flight })
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
