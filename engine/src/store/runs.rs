//! Run headers and the scopes of live runs.

use super::{
    holder::Holder,
    rows::{VersionedState, decode},
};
use crate::{
    id::{RunId, Scope, ScopePath, WorkspaceId},
    lifecycle::RunStatus,
    payload::Payload,
};
use sqlx::PgConnection;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Runs to start, as arrays: headers with their states, and the lanes of their first steps.
#[derive(Default)]
pub(crate) struct NewRuns {
    pub id: Vec<Uuid>,
    pub version: Vec<i32>,
    pub input: Vec<Option<Payload>>,
    pub blob: Vec<Option<Vec<u8>>>,
    pub priority: Vec<i16>,
    pub trigger: Vec<String>,
    /// Absent where no run of the slice has one: then the index need not be asked.
    pub keys: Option<Vec<Option<String>>>,
    pub hash: Vec<Vec<u8>>,
    pub steps: Vec<Vec<u8>>,
    pub lane_run: Vec<Uuid>,
    pub lane: Vec<i32>,
    pub lane_version: Vec<i32>,
    pub lane_step: Vec<i16>,
    pub lane_queue: Vec<i16>,
    pub lane_priority: Vec<i16>,
}

/// Inserts them; the first `mine` lanes are born leased. Returns the runs that were started: those whose key was taken are not.
pub(crate) async fn start(
    conn: &mut PgConnection,
    scope: &Scope,
    runs: &NewRuns,
    mine: usize,
    by: Holder,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let inputs: Vec<Option<&str>> = runs.input.iter().map(|i| i.as_ref().map(Payload::as_str)).collect();
    let ready: BTreeSet<i16> = runs.lane_queue[mine..].iter().copied().collect();
    let ready: Vec<i16> = ready.into_iter().collect();
    sqlx::query_scalar(
        "SELECT krowoc.start_runs_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)",
    )
    .bind(&runs.id)
    .bind(&runs.version)
    .bind(inputs)
    .bind(&runs.blob)
    .bind(&runs.priority)
    .bind(&runs.trigger)
    .bind(&runs.keys)
    .bind(&runs.hash)
    .bind(&runs.steps)
    .bind(&runs.lane_run)
    .bind(&runs.lane)
    .bind(&runs.lane_version)
    .bind(&runs.lane_step)
    .bind(&runs.lane_queue)
    .bind(&runs.lane_priority)
    .bind(scope.workspace.0)
    .bind(&scope.actor)
    .bind(mine as i32)
    .bind(by.token)
    .bind(by.worker)
    .bind(by.lease_s)
    .bind(ready)
    .fetch_all(conn)
    .await
}

/// The run that holds an idempotency key and the hash of the request that made it.
pub(crate) async fn by_key(conn: &mut PgConnection, scope: &Scope, key: &str) -> Result<Option<(RunId, Vec<u8>)>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT id, request_hash AS \"hash!\" FROM krowoc.run WHERE workspace_id = $1 AND idempotency_key = $2",
        scope.workspace.0,
        key
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|r| (RunId(r.id), r.hash)))
}

/// Notes when runs must have ended.
pub(crate) async fn set_timeouts(conn: &mut PgConnection, runs: &[Uuid], seconds: &[f64]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO krowoc.run_timeout (run_id, due_at)
         SELECT r.id, krowoc.now() + make_interval(secs => r.s) FROM unnest($1::uuid[], $2::float8[]) AS r(id, s)",
        runs,
        seconds
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets them.
pub(crate) async fn clear_timeouts(conn: &mut PgConnection, runs: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM krowoc.run_timeout WHERE run_id = ANY ($1)", runs).execute(conn).await?;
    Ok(())
}

/// Runs whose time is up, with their workspace.
pub(crate) async fn timed_out(conn: &mut PgConnection, limit: i64) -> Result<Vec<(RunId, WorkspaceId)>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT t.run_id, r.workspace_id FROM krowoc.run_timeout t JOIN krowoc.run r ON r.id = t.run_id
         WHERE t.due_at <= krowoc.now() ORDER BY t.due_at LIMIT $1",
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|r| (RunId(r.run_id), WorkspaceId(r.workspace_id))).collect())
}

/// A scope under lock.
pub(crate) struct LockedScope {
    pub run: RunId,
    pub scope: ScopePath,
    pub state: VersionedState,
}

/// Locks the named scopes in key order and loads them; those that are gone are left out.
pub(crate) async fn lock_scopes(conn: &mut PgConnection, keys: &[(RunId, ScopePath)]) -> Result<Vec<LockedScope>, sqlx::Error> {
    let runs: Vec<Uuid> = keys.iter().map(|k| k.0.0).collect();
    let scopes: Vec<Vec<u8>> = keys.iter().map(|k| k.1.0.clone()).collect();
    let rows = sqlx::query!(
        "SELECT s.run_id, s.scope, s.version, s.steps FROM unnest($1::uuid[], $2::bytea[]) AS k(run, scp)
         JOIN krowoc.scope_state s ON s.run_id = ANY (ARRAY[k.run]) AND s.scope = k.scp ORDER BY s.run_id, s.scope FOR UPDATE OF s",
        &runs,
        &scopes
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|r| {
            let state = VersionedState { version: r.version, frame: decode(&r.steps)? };
            Ok(LockedScope { run: RunId(r.run_id), scope: ScopePath(r.scope), state })
        })
        .collect()
}

/// Locks every scope of a run in key order; none are left when the run has ended.
pub(crate) async fn lock_all_scopes(conn: &mut PgConnection, run: RunId) -> Result<Vec<LockedScope>, sqlx::Error> {
    let rows = sqlx::query!("SELECT scope, version, steps FROM krowoc.scope_state WHERE run_id = $1 ORDER BY scope FOR UPDATE", run.0)
        .fetch_all(conn)
        .await?;
    rows.into_iter()
        .map(|r| Ok(LockedScope { run, scope: ScopePath(r.scope), state: VersionedState { version: r.version, frame: decode(&r.steps)? } }))
        .collect()
}

/// A run's header as far as commands need it.
pub(crate) struct Header {
    pub status: RunStatus,
}

/// Reads a header of the workspace.
pub(crate) async fn header(conn: &mut PgConnection, workspace: i32, run: RunId) -> Result<Option<Header>, sqlx::Error> {
    sqlx::query_as!(Header, "SELECT status AS \"status: RunStatus\" FROM krowoc.run WHERE id = $1 AND workspace_id = $2", run.0, workspace)
        .fetch_optional(conn)
        .await
}

/// What the locked path must know of a run beside its scopes.
pub(crate) struct RunFacts {
    pub run: RunId,
    pub workspace: i32,
    pub generation: i16,
}

/// Reads that for several runs.
pub(crate) async fn facts(conn: &mut PgConnection, runs: &[Uuid]) -> Result<Vec<RunFacts>, sqlx::Error> {
    let rows = sqlx::query!("SELECT id, workspace_id, generation FROM krowoc.run WHERE id = ANY ($1)", runs).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|r| RunFacts { run: RunId(r.id), workspace: r.workspace_id, generation: r.generation }).collect())
}

/// Sets a live run's status; zero rows means that it was no longer in `from`.
pub(crate) async fn set_status(conn: &mut PgConnection, run: RunId, from: RunStatus, to: RunStatus) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!("UPDATE krowoc.run SET status = $3 WHERE id = $1 AND status = $2", run.0, from as RunStatus, to as RunStatus)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends a run that was being stopped: as failed where its header says why, else as cancelled. Nothing live of it is left.
pub(crate) async fn end_stopped(conn: &mut PgConnection, run: RunId, seq: i32) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE krowoc.run SET status = CASE WHEN error IS NULL THEN 'cancelled'::krowoc.run_status ELSE 'failed' END, last_seq = $2, finished_at = krowoc.now()
         WHERE id = $1 AND status = 'cancelling'",
        run.0,
        seq
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM krowoc.scope_state WHERE run_id = $1", run.0).execute(&mut *conn).await?;
    sqlx::query!("DELETE FROM krowoc.map_state WHERE run_id = $1", run.0).execute(&mut *conn).await?;
    clear_timeouts(conn, &[run.0]).await?;
    Ok(done.rows_affected() == 1)
}

/// Puts an error on a run's header before its end: why it is being stopped.
pub(crate) async fn set_error(conn: &mut PgConnection, run: RunId, error: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE krowoc.run SET error = $2::text::json WHERE id = $1", run.0, error).execute(conn).await?;
    Ok(())
}

/// Raises the version of every scope of a run, so that no decision made from a cached copy applies any more.
pub(crate) async fn raise_versions(conn: &mut PgConnection, run: RunId) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE krowoc.scope_state SET version = version + 1 WHERE run_id = $1", run.0).execute(conn).await?;
    Ok(())
}
