//! What redrive reads under lock and writes of steps, scopes and the run; [`maps`] has the maps around them.

pub(crate) mod maps;

use crate::{
    id::{RunId, ScopePath, StepIx},
    lifecycle::RunStatus,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// A run's header, as far as redrive needs it.
pub(crate) struct RunRow {
    pub status: RunStatus,
    pub workflow_version: i32,
    pub last_seq: i32,
    pub priority: i16,
    pub finished_at: Option<DateTime<Utc>>,
    pub error: Option<String>,
}

/// Locks the header and reads it. The caller holds whatever is live of the run; only letters come after.
pub(crate) async fn lock_run(conn: &mut PgConnection, run: RunId) -> Result<Option<RunRow>, sqlx::Error> {
    sqlx::query_as!(
        RunRow,
        r#"SELECT status AS "status: RunStatus", workflow_version, last_seq, priority, finished_at, error::text
           FROM krowoc.run WHERE id = $1 FOR UPDATE"#,
        run.0
    )
    .fetch_optional(conn)
    .await
}

/// How the steps of some scopes ended: scope, step, status.
pub(crate) async fn results(
    conn: &mut PgConnection,
    run: RunId,
    scopes: &[ScopePath],
) -> Result<Vec<(ScopePath, StepIx, String)>, sqlx::Error> {
    let scopes: Vec<Vec<u8>> = scopes.iter().map(|s| s.0.clone()).collect();
    let rows = sqlx::query!(
        r#"SELECT scope, step, status::text AS "status!" FROM krowoc.step_result WHERE run_id = $1 AND scope = ANY ($2)"#,
        run.0,
        &scopes
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|r| (ScopePath(r.scope), StepIx(r.step.unsigned_abs()), r.status)).collect())
}

/// Does the step have a lane?
pub(crate) async fn is_live(conn: &mut PgConnection, run: RunId, scope: &ScopePath, step: i16) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM krowoc.live_lane WHERE run_id = $1 AND scope = $2 AND step = $3) AS "live!""#,
        run.0,
        &scope.0,
        step
    )
    .fetch_one(conn)
    .await
}

/// A failed result that was taken back.
pub(crate) struct TakenBack {
    pub seq: i32,
    pub attempt: i32,
    pub duration_ms: i32,
    pub finished_at: DateTime<Utc>,
    pub error: String,
}

/// Removes a failed result, keeps its attempt on record and marks its open letter as redriven; nothing if the step has no failed result.
pub(crate) async fn take_back(
    conn: &mut PgConnection,
    run: RunId,
    scope: &ScopePath,
    step: StepIx,
) -> Result<Option<TakenBack>, sqlx::Error> {
    let step = step.0 as i16;
    sqlx::query!(
        "UPDATE krowoc.dead_letter SET state = 'redriven', changed_at = krowoc.now() WHERE run_id = $1 AND scope = $2 AND step = $3 AND state = 'open'",
        run.0,
        &scope.0,
        step
    )
    .execute(&mut *conn)
    .await?;
    // The class is in the error too; taking it out by SQL would fail on a document that holds `\u0000`.
    sqlx::query_as!(
        TakenBack,
        r#"WITH r AS (DELETE FROM krowoc.step_result WHERE run_id = $1 AND scope = $2 AND step = $3 AND status = 'failed' RETURNING *),
             a AS (INSERT INTO krowoc.attempt (run_id, scope, step, attempt, status, duration_ms, finished_at, error, usage)
               SELECT run_id, scope, step, attempt, 'failed', duration_ms, finished_at, error, usage FROM r ON CONFLICT DO NOTHING)
           SELECT seq, attempt, duration_ms, finished_at, error::text AS "error!" FROM r"#,
        run.0,
        &scope.0,
        step
    )
    .fetch_optional(conn)
    .await
}

/// A lane to open.
pub(crate) struct NewLane<'a> {
    pub run: RunId,
    pub scope: &'a ScopePath,
    pub lane: i32,
    pub workflow_version: i32,
    pub step: StepIx,
    pub queue: i16,
    pub priority: i16,
    /// `ready` or `items`.
    pub state: &'static str,
    pub phase: i16,
    pub attempt: i32,
}

/// Opens it, its counters at zero. A map that waits is at it from now on: no claim will say so.
pub(crate) async fn open_lane(conn: &mut PgConnection, l: &NewLane<'_>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO krowoc.lane (run_id, scope, lane, workflow_version, ready_at, step, queue, priority, state, phase, attempt, total_from)
         VALUES ($1, $2, $3, $4, krowoc.now(), $5, $6, $7, $8::text::krowoc.lane_state, $9, $10, CASE $8 WHEN 'items' THEN krowoc.now() END)",
        l.run.0,
        &l.scope.0,
        l.lane,
        l.workflow_version,
        l.step.0 as i16,
        l.queue,
        l.priority,
        l.state,
        l.phase,
        l.attempt
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A run whose steps are not over does not compute its output: whoever does has lost its lease.
pub(crate) async fn drop_finish(conn: &mut PgConnection, run: RunId, finish: i16) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM krowoc.lane WHERE run_id = $1 AND scope = '' AND step = $2", run.0, finish).execute(conn).await?;
    Ok(())
}

/// Writes a scope's state, new or changed.
pub(crate) async fn put_scope(
    conn: &mut PgConnection,
    run: RunId,
    scope: &ScopePath,
    version: i32,
    steps: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO krowoc.scope_state (run_id, scope, version, steps) VALUES ($1, $2, $3, $4)
         ON CONFLICT (run_id, scope) DO UPDATE SET version = excluded.version, steps = excluded.steps",
        run.0,
        &scope.0,
        version,
        steps
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Opens a failed run again; false if it was not failed.
pub(crate) async fn reopen_run(conn: &mut PgConnection, run: RunId) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE krowoc.run SET status = 'running', generation = generation + 1, finished_at = NULL, error = NULL WHERE id = $1 AND status = 'failed'",
        run.0
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
