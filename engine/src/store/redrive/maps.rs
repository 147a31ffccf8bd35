//! Maps of a run that is opened again, under lock: their counters, their spans and the lanes that wait for their items.

use crate::id::{RunId, ScopePath, StepIx};
use sqlx::PgConnection;

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
pub(crate) async fn lock(conn: &mut PgConnection, run: RunId) -> Result<Vec<((ScopePath, StepIx), MapRow)>, sqlx::Error> {
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
pub(crate) async fn lock_lanes(conn: &mut PgConnection, run: RunId, finish: i16) -> Result<(), sqlx::Error> {
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

/// A map's lane waits for items again, whatever it was about to do; whoever holds it has lost its lease. The attempt gets a new number: the
/// one it had may be on record already. False if there is no such lane.
pub(crate) async fn back_to_items(conn: &mut PgConnection, run: RunId, scope: &ScopePath, lane: i32) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE krowoc.lane SET attempt = CASE state WHEN 'items' THEN attempt ELSE attempt + 1 END, state = 'items', phase = 0, token = NULL, worker = NULL,
           lease_until = NULL, failures = 0, losses = 0, ready_at = CASE state WHEN 'items' THEN ready_at ELSE krowoc.now() END
         WHERE run_id = $1 AND scope = $2 AND lane = $3",
        run.0,
        &scope.0,
        lane
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
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
pub(crate) async fn put(
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
