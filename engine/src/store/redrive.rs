//! What redrive reads under lock and writes: dead letters, results taken back, maps and runs opened again.

use crate::{
    id::{RunId, ScopePath, StepIx},
    lifecycle::RunStatus,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// A dead letter, as far as commands need it.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub id: Uuid,
    pub run: RunId,
    pub scope: ScopePath,
    pub step: i16,
    pub path: String,
}

/// The letters with these ids in a workspace; where they lie never changes.
pub(crate) async fn letters(conn: &mut PgConnection, workspace: i32, ids: &[Uuid]) -> Result<Vec<Letter>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT id, run_id, scope, step, path FROM krowoc.dead_letter WHERE id = ANY ($1) AND workspace_id = $2",
        ids,
        workspace
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|r| Letter { id: r.id, run: RunId(r.run_id), scope: ScopePath(r.scope), step: r.step, path: r.path }).collect())
}

/// Locks letters in the order of their ids and reads their states.
pub(crate) async fn lock_letters(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<(Uuid, String)>, sqlx::Error> {
    let rows =
        sqlx::query!(r#"SELECT id, state::text AS "state!" FROM krowoc.dead_letter WHERE id = ANY ($1) ORDER BY id FOR UPDATE"#, ids)
            .fetch_all(conn)
            .await?;
    Ok(rows.into_iter().map(|r| (r.id, r.state)).collect())
}

/// Leaves an open letter for good; false if it was not open.
pub(crate) async fn discard(conn: &mut PgConnection, id: Uuid, reason: &str) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE krowoc.dead_letter SET state = 'discarded', reason = $2, changed_at = krowoc.now() WHERE id = $1 AND state = 'open'",
        id,
        reason
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

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

/// A live map under lock.
#[derive(Clone, Debug)]
pub(crate) struct MapRow {
    pub lane: i32,
    pub total: i32,
    pub goal: i32,
    pub done: i32,
    pub failed: i32,
    pub max_failed: i32,
    /// Items that nobody has claimed and that may be; 0: it has no span.
    pub unclaimed: i32,
    /// Items that were opened again and wait for a permit.
    pub held: Vec<i32>,
}

impl MapRow {
    /// Items that are under way.
    pub fn running(&self) -> i32 {
        self.goal - self.done - self.unclaimed - self.held.len() as i32
    }
}

/// Locks a run's live maps and then their spans, each in key order, so that no item ends and none is claimed meanwhile.
pub(crate) async fn lock_maps(conn: &mut PgConnection, run: RunId) -> Result<Vec<((ScopePath, StepIx), MapRow)>, sqlx::Error> {
    let maps = sqlx::query!(
        "SELECT scope, step, lane, total, goal, done, failed, max_failed, held FROM krowoc.map_state WHERE run_id = $1 ORDER BY scope, step FOR UPDATE",
        run.0
    )
    .fetch_all(&mut *conn)
    .await?;
    let spans = sqlx::query!("SELECT scope, step, lo, hi FROM krowoc.span WHERE run_id = $1 ORDER BY scope, step FOR UPDATE", run.0)
        .fetch_all(conn)
        .await?;
    Ok(maps
        .into_iter()
        .map(|m| {
            let unclaimed = spans.iter().find(|s| s.scope == m.scope && s.step == m.step).map_or(0, |s| s.hi - s.lo);
            let key = (ScopePath(m.scope), StepIx(m.step.unsigned_abs()));
            let (lane, total, goal, done, failed, max_failed, held) = (m.lane, m.total, m.goal, m.done, m.failed, m.max_failed, m.held);
            (key, MapRow { lane, total, goal, done, failed, max_failed, unclaimed, held })
        })
        .collect())
}

/// Locks the lanes of a run's live maps, and that of its output, in key order: a redrive may take any of them from whoever holds it.
pub(crate) async fn lock_map_lanes(conn: &mut PgConnection, run: RunId, finish: i16) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT l.lane FROM krowoc.lane l WHERE l.run_id = $1 AND (l.step = $2 OR EXISTS (
           SELECT FROM krowoc.map_state m WHERE m.run_id = l.run_id AND m.scope = l.scope AND m.lane = l.lane))
         ORDER BY l.scope, l.lane FOR UPDATE OF l",
        run.0,
        finish
    )
    .fetch_all(conn)
    .await?;
    Ok(())
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

/// Puts an event on record at the number and time that it had.
pub(crate) async fn record_event(
    conn: &mut PgConnection,
    run: RunId,
    seq: i32,
    at: Option<DateTime<Utc>>,
    kind: &str,
    data: &serde_json::Value,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO krowoc.run_event (run_id, seq, at, kind, data) VALUES ($1, $2, coalesce($3, krowoc.now()), $4, $5::text::json)",
        run.0,
        seq,
        at,
        kind,
        data.to_string()
    )
    .execute(conn)
    .await?;
    Ok(())
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

/// A map's lane waits for items again, whatever it was about to do; whoever holds it has lost its lease. The attempt gets a new number: the
/// one it had may be on record already. False if there is no such lane.
pub(crate) async fn back_to_items(conn: &mut PgConnection, run: RunId, scope: &ScopePath, lane: i32) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE krowoc.lane SET attempt = CASE state WHEN 'items' THEN attempt ELSE attempt + 1 END, state = 'items', phase = 0, token = NULL, worker = NULL,
           lease_until = NULL, failures = 0, losses = 0
         WHERE run_id = $1 AND scope = $2 AND lane = $3",
        run.0,
        &scope.0,
        lane
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A run whose steps are not over does not compute its output: whoever does has lost its lease.
pub(crate) async fn drop_finish(conn: &mut PgConnection, run: RunId, finish: i16) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM krowoc.lane WHERE run_id = $1 AND scope = '' AND step = $2", run.0, finish).execute(conn).await?;
    Ok(())
}

/// How many items of a map that is over have ended, and how many of them failed, that of one scope left out.
pub(crate) async fn count_items(
    conn: &mut PgConnection,
    run: RunId,
    scope: &ScopePath,
    map: StepIx,
    fatal: &[i16],
    except: Option<&ScopePath>,
) -> Result<(i32, i32), sqlx::Error> {
    let (from, to) = (scope.item(map, 0), scope.item(map, u32::MAX));
    let row = sqlx::query!(
        r#"SELECT count(DISTINCT scope)::int AS "done!", (count(DISTINCT scope) FILTER (WHERE status = 'failed' AND step = ANY ($4)))::int AS "failed!"
           FROM krowoc.step_result
           WHERE run_id = $1 AND scope >= $2 AND scope <= $3 AND octet_length(scope) = octet_length($3) AND ($5::bytea IS NULL OR scope <> $5)"#,
        run.0,
        &from.0,
        &to.0,
        fatal,
        except.map(|s| s.0.clone())
    )
    .fetch_one(conn)
    .await?;
    Ok((row.done, row.failed))
}

/// A map's counter.
pub(crate) async fn put_map(
    conn: &mut PgConnection,
    run: RunId,
    (scope, map): (&ScopePath, StepIx),
    row: &MapRow,
    limited: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO krowoc.map_state (run_id, scope, step, lane, total, goal, done, failed, max_failed, limited, held) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (run_id, scope, step) DO UPDATE SET goal = excluded.goal, done = excluded.done, failed = excluded.failed, held = excluded.held",
        run.0,
        &scope.0,
        map.0 as i16,
        row.lane,
        row.total,
        row.goal,
        row.done,
        row.failed,
        row.max_failed,
        limited,
        &row.held
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Items to be claimed.
pub(crate) struct NewSpan<'a> {
    pub run: RunId,
    pub scope: &'a ScopePath,
    pub map: StepIx,
    pub workflow_version: i32,
    pub lo: i32,
    pub hi: i32,
    pub permits: Option<i32>,
    pub entry: i16,
    pub queue: i16,
    pub priority: i16,
    pub template: Option<Vec<u8>>,
    pub bundled: bool,
    pub held: bool,
}

/// Offers them.
pub(crate) async fn insert_span(conn: &mut PgConnection, s: &NewSpan<'_>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO krowoc.span (run_id, scope, step, workflow_version, ready_at, lo, hi, permits, entry, queue, priority, template, bundled, held)
         VALUES ($1, $2, $3, $4, krowoc.now(), $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        s.run.0,
        &s.scope.0,
        s.map.0 as i16,
        s.workflow_version,
        s.lo,
        s.hi,
        s.permits,
        s.entry,
        s.queue,
        s.priority,
        s.template,
        s.bundled,
        s.held
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What was opened in an item waits until its map has a permit for it.
pub(crate) async fn hold(conn: &mut PgConnection, run: RunId, item: &ScopePath) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r"WITH s AS (
            UPDATE krowoc.span SET held = true WHERE run_id = $1 AND scope >= $2 AND scope < $2 || '\xff'::bytea)
          UPDATE krowoc.lane SET state = 'held' WHERE run_id = $1 AND scope >= $2 AND scope < $2 || '\xff'::bytea AND state = 'ready'",
        run.0,
        &item.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An item that runs again takes a permit.
pub(crate) async fn take_permit(conn: &mut PgConnection, run: RunId, scope: &ScopePath, map: StepIx) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE krowoc.span SET permits = permits - 1 WHERE run_id = $1 AND scope = $2 AND step = $3",
        run.0,
        &scope.0,
        map.0 as i16
    )
    .execute(conn)
    .await?;
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

/// Tells an idle worker that there is work; heard after the commit.
pub(crate) async fn wake(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT pg_notify('krowoc_ready', '') FROM (SELECT FROM krowoc.worker WHERE idle AND seen_at > krowoc.now() - interval '1 minute' LIMIT 1) w").fetch_optional(conn).await?;
    Ok(())
}
