//! What is stored of the steps in some scopes of a run, loaded in a fixed number of statements however many scopes there are.

use super::parse;
use crate::{
    definition::{Action, Dag},
    error::{Error, Result},
    executor::{StepError, Usage},
    id::{FrameIx, RunId, ScopePath, StepIx},
    lifecycle::{Ended, FrameEnd, FrameState},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::HashMap;

/// How a step that was carried out ended.
pub(crate) struct ResultRow {
    pub ended: Ended,
    pub attempt: u32,
    pub finished_at: DateTime<Utc>,
    pub duration_ms: i32,
    pub error: Option<StepError>,
    pub usage: Option<Usage>,
}

/// What a live step is doing.
pub(crate) struct LaneRow {
    pub state: String,
    pub ready_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub attempt: u32,
}

/// Attempts of a step before its last.
#[derive(Default)]
pub(crate) struct Tried {
    pub first_at: Option<DateTime<Utc>>,
    pub usage: Vec<(u32, Usage)>,
}

/// How far a map has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MapRow {
    pub total: u32,
    pub done: u32,
    pub failed: u32,
    pub running: u32,
    /// Items from this one on have not been started.
    pub started: u32,
}

/// What is stored, by scope and step.
#[derive(Default)]
pub(crate) struct Stored {
    pub states: HashMap<ScopePath, FrameState>,
    pub results: HashMap<ScopePath, HashMap<StepIx, ResultRow>>,
    pub lanes: HashMap<ScopePath, HashMap<i16, LaneRow>>,
    pub tried: HashMap<(ScopePath, StepIx), Tried>,
}

/// Loads what is stored of the steps in the scopes.
pub(crate) async fn load(conn: &mut PgConnection, run: RunId, scopes: &[ScopePath]) -> Result<Stored> {
    let keys: Vec<Vec<u8>> = scopes.iter().map(|s| s.0.clone()).collect();
    let mut stored = Stored::default();
    load_live(conn, run, &keys, &mut stored).await?;
    load_history(conn, run, &keys, &mut stored).await?;
    Ok(stored)
}

async fn load_live(conn: &mut PgConnection, run: RunId, scopes: &[Vec<u8>], stored: &mut Stored) -> Result<()> {
    // One statement, so that states and lanes are of one moment: between two a step could end and open its successors.
    let rows = sqlx::query!(
        r#"SELECT scope AS "scope!", steps, NULL::smallint AS step, NULL::text AS state, NULL::timestamptz AS ready_at, NULL::timestamptz AS total_from,
             NULL::int AS attempt FROM krowoc.scope_state WHERE run_id = $1 AND scope = ANY ($2)
           UNION ALL SELECT scope, NULL, step, state::text, ready_at, total_from, attempt FROM krowoc.live_lane WHERE run_id = $1 AND scope = ANY ($2)"#,
        run.0,
        scopes
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let scope = ScopePath(row.scope);
        match (row.steps, row.step, row.state, row.ready_at) {
            (Some(bytes), ..) => {
                let state = FrameState::decode(&bytes).ok_or_else(|| Error::Internal(format!("run {run} has an unreadable state")))?;
                stored.states.insert(scope, state);
            }
            (None, Some(step), Some(state), Some(ready_at)) => {
                let attempt = row.attempt.unwrap_or_default().unsigned_abs();
                stored.lanes.entry(scope).or_default().insert(step, LaneRow { state, ready_at, started_at: row.total_from, attempt });
            }
            _ => return Err(Error::Internal(format!("run {run} has an incomplete lane"))),
        }
    }
    Ok(())
}

async fn load_history(conn: &mut PgConnection, run: RunId, scopes: &[Vec<u8>], stored: &mut Stored) -> Result<()> {
    let rows = sqlx::query!(
        r#"SELECT scope, step, status::text AS "status!", attempt, finished_at, duration_ms, error::text, usage::text
           FROM krowoc.step_result WHERE run_id = $1 AND scope = ANY ($2)"#,
        run.0,
        scopes
    )
    .fetch_all(&mut *conn)
    .await?;
    for row in rows {
        let Ok(step) = u16::try_from(row.step).map(StepIx) else { continue };
        let result = ResultRow {
            ended: ended(&row.status)?,
            attempt: row.attempt.unsigned_abs(),
            finished_at: row.finished_at,
            duration_ms: row.duration_ms,
            error: row.error.as_deref().map(parse).transpose()?,
            usage: row.usage.as_deref().map(parse).transpose()?,
        };
        stored.results.entry(ScopePath(row.scope)).or_default().insert(step, result);
    }
    let rows = sqlx::query!(
        r#"SELECT scope, step, attempt, finished_at - make_interval(secs => duration_ms / 1000.0) AS "started_at!", usage::text
           FROM krowoc.attempt WHERE run_id = $1 AND scope = ANY ($2)"#,
        run.0,
        scopes
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        // Not the attempts of the engine's own work, whose numbers are no step's.
        let Ok(step) = u16::try_from(row.step).map(StepIx) else { continue };
        let tried = stored.tried.entry((ScopePath(row.scope), step)).or_default();
        tried.first_at = Some(tried.first_at.map_or(row.started_at, |first| first.min(row.started_at)));
        if let Some(usage) = row.usage {
            tried.usage.push((row.attempt.unsigned_abs(), parse(&usage)?));
        }
    }
    Ok(())
}

pub(crate) fn ended(status: &str) -> Result<Ended> {
    match status {
        "succeeded" => Ok(Ended::Succeeded),
        "skipped" => Ok(Ended::Skipped),
        "failed" => Ok(Ended::Failed),
        _ => Err(Error::Internal(format!("unknown result status `{status}`"))),
    }
}

impl Stored {
    /// Where the steps of a scope stand, by position, and what it came to if all have ended. A scope that is over is put together again
    /// from its results.
    pub fn frame(&self, dag: &Dag, frame: FrameIx, scope: &ScopePath) -> Result<(FrameState, Option<FrameEnd>)> {
        if let Some(state) = self.states.get(scope) {
            return Ok((state.clone(), None));
        }
        let results: Vec<_> =
            self.results.get(scope).into_iter().flatten().map(|(ix, result)| (dag.step(*ix).local, result.ended)).collect();
        let (state, advance) = FrameState::restore(dag, frame, &results, None).map_err(|e| Error::Internal(e.to_string()))?;
        Ok((state, advance.end))
    }

    /// Has the map succeeded, and no item of it failed?
    fn is_whole(&self, dag: &Dag, scope: &ScopePath, map: StepIx) -> bool {
        let Action::Map(plan) = &dag.step(map).action else { return false };
        let succeeded = self.results.get(scope).and_then(|r| r.get(&map)).is_some_and(|r| r.ended == Ended::Succeeded);
        succeeded && plan.tolerate.allowed(u32::MAX) == 0
    }

    /// Has anything of the scope been touched?
    pub fn knows(&self, scope: &ScopePath) -> bool {
        self.states.contains_key(scope) || self.lanes.contains_key(scope) || self.results.contains_key(scope)
    }
}

/// How many items a map has; 0 for one that has not been expanded.
pub(crate) async fn total_items(conn: &mut PgConnection, run: RunId, scope: &ScopePath, map: StepIx) -> Result<u32> {
    let total = sqlx::query_scalar!(
        r#"SELECT chunk * 256 + json_array_length(items) AS "total!" FROM krowoc.map_chunk
           WHERE run_id = $1 AND scope = $2 AND step = $3 ORDER BY chunk DESC LIMIT 1"#,
        run.0,
        &scope.0,
        map.0 as i16
    )
    .fetch_optional(conn)
    .await?;
    Ok(total.unwrap_or_default().max(0).unsigned_abs())
}

/// How far the maps have come, those that have been expanded. Live ones have counters. Of those that are over, one that succeeded and
/// tolerates no failure is known to be whole; the others are counted from their results, in time that grows with their items.
pub(crate) async fn load_maps(
    conn: &mut PgConnection,
    run: RunId,
    dag: &Dag,
    maps: &[(ScopePath, StepIx)],
    stored: &Stored,
) -> Result<HashMap<(ScopePath, StepIx), MapRow>> {
    if maps.is_empty() {
        return Ok(HashMap::new());
    }
    let scopes: Vec<Vec<u8>> = maps.iter().map(|m| m.0.0.clone()).collect();
    let steps: Vec<i16> = maps.iter().map(|m| m.1.0 as i16).collect();
    let whole: Vec<bool> = maps.iter().map(|(scope, step)| stored.is_whole(dag, scope, *step)).collect();
    // An item fails if and only if a step that matters failed in it: a step fails because of another only below such a one.
    let fatal: Vec<i16> = (0i16..).zip(&dag.steps).filter(|(_, s)| !s.allow_failure).map(|(ix, _)| ix).collect();
    let rows = sqlx::query!(
        r#"SELECT k.scp AS "scope!", k.stp AS "step!", c.total AS "total!", CASE WHEN k.whole THEN c.total ELSE coalesce(m.done, r.done) END::int AS "done!", coalesce(m.failed, r.failed)::int AS "failed!",
             l.running::int AS "running!", CASE WHEN k.whole THEN c.total WHEN m.total IS NULL THEN r.done ELSE coalesce(p.lo, m.goal) END::int AS "started!"
           FROM unnest($2::bytea[], $3::smallint[], $5::bool[]) AS k(scp, stp, whole)
           CROSS JOIN LATERAL (SELECT k.scp || int2send(k.stp) AS path) x
           CROSS JOIN LATERAL (
             SELECT chunk * 256 + json_array_length(items) AS total FROM krowoc.map_chunk
             WHERE run_id = $1 AND scope = k.scp AND step = k.stp ORDER BY chunk DESC LIMIT 1) c
           LEFT JOIN krowoc.map_state m ON m.run_id = $1 AND m.scope = k.scp AND m.step = k.stp
           LEFT JOIN krowoc.span p ON p.run_id = $1 AND p.scope = k.scp AND p.step = k.stp
           CROSS JOIN LATERAL (
             SELECT count(DISTINCT s.scope) AS done, count(DISTINCT s.scope) FILTER (WHERE s.status = 'failed' AND s.step = ANY ($4)) AS failed
             FROM krowoc.step_result s WHERE m.total IS NULL AND NOT k.whole AND s.run_id = $1 AND s.scope >= x.path AND s.scope < x.path || '\xffffffffff'::bytea
               AND octet_length(s.scope) = octet_length(x.path) + 4) r
           CROSS JOIN LATERAL (
             SELECT count(*) AS running FROM krowoc.live_lane n WHERE n.run_id = $1 AND n.scope >= x.path AND n.scope < x.path || '\xffffffffff'::bytea
               AND n.state IN ('leased', 'aborting')) l"#,
        run.0,
        &scopes,
        &steps,
        &fatal,
        &whole
    )
    .fetch_all(conn)
    .await?;
    let count = |n: i32| n.max(0).unsigned_abs();
    let found = rows.into_iter().map(|r| {
        let row = MapRow {
            total: count(r.total),
            done: count(r.done),
            failed: count(r.failed),
            running: count(r.running),
            started: count(r.started),
        };
        ((ScopePath(r.scope), StepIx(r.step.unsigned_abs())), row)
    });
    Ok(found.collect())
}

/// The maps among the steps of some scopes.
pub(crate) fn maps_in(dag: &Dag, frame: FrameIx, scopes: &[ScopePath]) -> Vec<(ScopePath, StepIx)> {
    let maps: Vec<StepIx> = dag.frame(frame).members.iter().copied().filter(|ix| matches!(dag.step(*ix).action, Action::Map(_))).collect();
    scopes.iter().flat_map(|scope| maps.iter().map(|map| (scope.clone(), *map))).collect()
}
