//! A run's events: numbered from 1 without gaps, readable from any number on. Results of the run's own steps are events themselves; start
//! and end are read from the header.

use super::{header, parse};
use crate::{
    definition::Dag,
    error::Result,
    id::{RunId, Scope, StepIx},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::PgConnection;

/// Something that happened in a run.
#[derive(Serialize, Clone, Debug)]
pub struct EventView {
    /// Its number in the run, from 1.
    pub seq: i32,
    /// When.
    pub at: DateTime<Utc>,
    /// `run_started`, `step_succeeded`, `step_skipped`, `step_failed`, `redriven`, …, `run_succeeded`, `run_failed`, `run_cancelled`.
    pub kind: String,
    /// The step that it concerns.
    pub path: Option<String>,
    /// More, by kind: `attempt`, `duration_ms`, `error`, …
    pub data: Map<String, Value>,
}

/// How far a run has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The number of its last event.
    pub seq: i32,
    /// Has it ended?
    pub ended: bool,
}

/// How far runs have come, all of them in one statement; those that are not there are left out. Ids come from whoever has found them in
/// their workspace, so there is no confinement here.
pub async fn heads(conn: &mut PgConnection, runs: &[RunId]) -> Result<Vec<(RunId, Head)>> {
    let ids: Vec<uuid::Uuid> = runs.iter().map(|run| run.0).collect();
    let rows = sqlx::query!(
        r#"SELECT r.id, coalesce(s.version, r.last_seq) AS "seq!", s.version IS NULL AS "ended!"
           FROM krowoc.run r LEFT JOIN krowoc.scope_state s ON s.run_id = r.id AND s.scope = '' WHERE r.id = ANY ($1)"#,
        &ids
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|r| (RunId(r.id), Head { seq: r.seq, ended: r.ended })).collect())
}

/// The run's events after number `after_seq` (0: all), in their order.
pub async fn events(conn: &mut PgConnection, scope: &Scope, run: RunId, dag: &Dag, after_seq: i32, limit: i64) -> Result<Vec<EventView>> {
    header(conn, scope, run).await?;
    // One statement, so that all is of one moment: an end must not be seen without what led to it.
    let rows = sqlx::query!(
        r#"SELECT seq AS "seq!", at AS "at!", kind AS "kind!", step, attempt, duration_ms, error, data FROM (
             SELECT 1 AS seq, created_at AS at, 'run_started' AS kind, NULL::smallint AS step, NULL::int AS attempt, NULL::int AS duration_ms,
               NULL::text AS error, NULL::text AS data FROM krowoc.run WHERE id = $1
             UNION ALL SELECT seq, finished_at, 'step_' || status::text, step, attempt, duration_ms, error::text, NULL
               FROM krowoc.step_result WHERE run_id = $1 AND scope = '' AND seq > $2
             UNION ALL SELECT seq, at, kind, NULL, NULL, NULL, NULL, data::text FROM krowoc.run_event WHERE run_id = $1 AND seq > $2
             UNION ALL SELECT last_seq, finished_at, 'run_' || status::text, NULL, NULL, NULL, error::text, NULL
               FROM krowoc.run WHERE id = $1 AND finished_at IS NOT NULL) e
           WHERE seq > $2 ORDER BY seq LIMIT $3"#,
        run.0,
        after_seq,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|r| {
            let mut data: Map<String, Value> = r.data.as_deref().map(parse).transpose()?.unwrap_or_default();
            for (name, value) in [("attempt", r.attempt.map(|n| json!(n))), ("duration_ms", r.duration_ms.map(|n| json!(n)))] {
                data.extend(value.map(|v| (name.to_owned(), v)));
            }
            if let Some(error) = &r.error {
                data.insert("error".into(), parse(error)?);
            }
            let step = r.step.and_then(|ix| dag.steps.get(StepIx(u16::try_from(ix).ok()?).at())).map(|s| s.id.clone());
            let path = step.or_else(|| data.remove("path").and_then(|p| p.as_str().map(str::to_owned)));
            Ok(EventView { seq: r.seq, at: r.at, kind: r.kind, path, data })
        })
        .collect()
}
