//! What a run's steps used of models, by step: attempts that failed count as well as those that did not.

use super::header;
use crate::{
    definition::Dag,
    error::Result,
    id::{RunId, Scope, StepIx},
};
use serde::Serialize;
use sqlx::PgConnection;

/// Tokens, as a price list counts them.
#[derive(Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Model calls.
    pub calls: u64,
    /// Of the requests, cached ones included.
    pub input: u64,
    /// The part of `input` that came from the provider's cache.
    pub cached_input: u64,
    /// Of the answers, reasoning included.
    pub output: u64,
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.input += other.input;
        self.cached_input += other.cached_input;
        self.output += other.output;
    }
}

/// What one step used, in all items of the maps around it.
#[derive(Serialize, Clone, Debug)]
pub struct StepUsage {
    /// The step's dotted name: `review.findings`.
    pub step: String,
    /// What it used.
    pub tokens: Tokens,
}

/// Usage by step, in the graph's order (each after those it waits for, then by id); steps that called no model are left out.
pub async fn by_step(conn: &mut PgConnection, scope: &Scope, run: RunId, dag: &Dag) -> Result<Vec<StepUsage>> {
    header(conn, scope, run).await?;
    // A regular expression, not `->>`: that refuses the whole document when the provider's raw part holds `\u0000`. Within a JSON string
    // the quote after the name would be escaped, so only the key itself matches; the engine's own keys come before `raw`.
    // An attempt that failed for good is in both tables, its usage with the attempt.
    let rows = sqlx::query!(
        r#"SELECT u.step AS "step!", count(*) AS "calls!",
             coalesce(sum(substring(u.usage FROM '"input_tokens":\s*(\d+)')::bigint), 0)::bigint AS "input!",
             coalesce(sum(substring(u.usage FROM '"cached_input_tokens":\s*(\d+)')::bigint), 0)::bigint AS "cached!",
             coalesce(sum(substring(u.usage FROM '"output_tokens":\s*(\d+)')::bigint), 0)::bigint AS "output!"
           FROM (SELECT step, usage::text AS usage FROM krowoc.step_result WHERE run_id = $1 AND usage IS NOT NULL AND status <> 'failed'
                 UNION ALL SELECT step, usage::text FROM krowoc.attempt WHERE run_id = $1 AND usage IS NOT NULL) u
           GROUP BY u.step ORDER BY u.step"#,
        run.0
    )
    .fetch_all(conn)
    .await?;
    let usage = rows.into_iter().filter_map(|r| {
        let step = dag.steps.get(StepIx(u16::try_from(r.step).ok()?).at())?;
        let count = |n: i64| n.max(0).unsigned_abs();
        let tokens = Tokens { calls: count(r.calls), input: count(r.input), cached_input: count(r.cached), output: count(r.output) };
        Some(StepUsage { step: step.name.clone(), tokens })
    });
    Ok(usage.collect())
}
