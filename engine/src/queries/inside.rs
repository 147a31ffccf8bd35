//! The steps inside maps, each of them once for all items: how many have ended and failed, and what they used. Counted from the rows of
//! every item, so that a look at a large map costs time in proportion to it.

use super::{
    header,
    steps::kind,
    usage::{self, Tokens},
};
use crate::{
    definition::{Action, Dag},
    error::Result,
    id::{FrameIx, RunId, Scope, StepIx},
};
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::HashMap;

/// A step inside a map, in all items of the maps around it.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct StepInside {
    /// Its dotted name: `review.findings`. The first part is the step of the run that it belongs to.
    pub step: String,
    /// Its id in the file.
    pub id: String,
    /// What it is: `llm`, `http`, `map`, `wait`, …
    pub kind: String,
    /// Items in all of the map that it stands in, as far as that has been expanded.
    pub total: u64,
    /// Items in which it was carried out and has ended, the failed ones included.
    pub done: u64,
    /// Items in which it has failed.
    pub failed: u64,
    /// Attempts that workers hold now.
    pub running: u64,
    /// Attempts so far.
    pub attempts: u64,
    /// What its attempts used.
    pub tokens: Option<Tokens>,
}

/// The steps inside a run's maps, in the file's order, each before what stands inside it; none where the workflow has no map.
pub async fn steps(conn: &mut PgConnection, scope: &Scope, run: RunId, dag: &Dag) -> Result<Vec<StepInside>> {
    header(conn, scope, run).await?;
    if dag.frames.len() < 2 {
        return Ok(vec![]);
    }
    let counted = counts(conn, run).await?;
    let totals = totals(conn, run).await?;
    let mut used: HashMap<String, Tokens> =
        usage::by_step(conn, scope, run, dag).await?.into_iter().map(|used| (used.step, used.tokens)).collect();
    let own = dag.frame(FrameIx::ROOT).members.iter();
    let steps = own.flat_map(|ix| inside(dag, *ix)).map(|(map, ix)| {
        let step = dag.step(ix);
        let Counts { done, failed, running, attempts } = counted.get(&ix).copied().unwrap_or_default();
        StepInside {
            step: step.name.clone(),
            id: step.id.clone(),
            kind: kind(&step.action).into(),
            total: totals.get(&map).copied().unwrap_or_default(),
            done,
            failed,
            running,
            attempts,
            tokens: used.remove(&step.name),
        }
    });
    Ok(steps.collect())
}

/// The steps inside a step, each with the map that it stands in; none inside one that is no map.
fn inside(dag: &Dag, map: StepIx) -> Vec<(StepIx, StepIx)> {
    let Action::Map(plan) = &dag.step(map).action else { return vec![] };
    let members = dag.frame(plan.body).members.iter();
    members.flat_map(|ix| std::iter::once((map, *ix)).chain(inside(dag, *ix))).collect()
}

#[derive(Clone, Copy, Default)]
struct Counts {
    done: u64,
    failed: u64,
    running: u64,
    attempts: u64,
}

async fn counts(conn: &mut PgConnection, run: RunId) -> Result<HashMap<StepIx, Counts>> {
    // A lane below zero stands between steps. What a lane holds has no result yet, so no attempt counts twice.
    let rows = sqlx::query!(
        r#"SELECT step AS "step!", sum(done)::bigint AS "done!", sum(failed)::bigint AS "failed!", sum(running)::bigint AS "running!",
             sum(attempts)::bigint AS "attempts!" FROM (
             SELECT step, count(*) AS done, count(*) FILTER (WHERE status = 'failed') AS failed, 0 AS running, sum(attempt) AS attempts
             FROM krowoc.step_result WHERE run_id = $1 AND scope > '' GROUP BY step
             UNION ALL
             SELECT step, 0, 0, count(*) FILTER (WHERE state IN ('leased', 'aborting')), sum(attempt)
             FROM krowoc.live_lane WHERE run_id = $1 AND scope > '' AND step >= 0 GROUP BY step) t
           GROUP BY step"#,
        run.0
    )
    .fetch_all(conn)
    .await?;
    let number = |n: i64| n.max(0).unsigned_abs();
    let counts = rows.into_iter().map(|r| {
        let counts = Counts { done: number(r.done), failed: number(r.failed), running: number(r.running), attempts: number(r.attempts) };
        (StepIx(r.step.unsigned_abs()), counts)
    });
    Ok(counts.collect())
}

/// Items by map, in all items of the maps around it.
async fn totals(conn: &mut PgConnection, run: RunId) -> Result<HashMap<StepIx, u64>> {
    // The last chunk of a map says how many items it has; no other is looked into.
    let rows = sqlx::query!(
        r#"SELECT step AS "step!", sum(chunk * 256 + json_array_length(items))::bigint AS "total!" FROM (
             SELECT DISTINCT ON (scope, step) step, chunk, items FROM krowoc.map_chunk WHERE run_id = $1 ORDER BY scope, step, chunk DESC) c
           GROUP BY step"#,
        run.0
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|r| (StepIx(r.step.unsigned_abs()), r.total.max(0).unsigned_abs())).collect())
}
