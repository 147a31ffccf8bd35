//! History that is not written on the hot path: attempts that failed for good, dead letters, events.

use crate::{
    executor::{StepError, Usage},
    id::{RunId, ScopePath},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// An attempt to be put on record.
pub(crate) struct AttemptRecord<'a> {
    pub run: RunId,
    pub scope: &'a ScopePath,
    pub step: i16,
    pub attempt: u32,
    pub status: &'static str,
    pub error: Option<&'a StepError>,
    pub usage: Option<&'a Usage>,
    pub ms: i32,
    pub worker: i32,
}

/// Inserts them in one statement.
pub(crate) async fn insert_attempts(conn: &mut PgConnection, all: &[AttemptRecord<'_>]) -> Result<(), sqlx::Error> {
    if all.is_empty() {
        return Ok(());
    }
    let used = |a: &AttemptRecord<'_>| a.usage.or(a.error.and_then(|e| e.usage.as_ref())).map(to_json).transpose();
    sqlx::query!(
        "INSERT INTO krowoc.attempt (run_id, scope, step, attempt, status, class, duration_ms, finished_at, worker, error, usage)
         SELECT a.run, a.scp, a.step, a.attempt, a.status::krowoc.attempt_status, a.class::krowoc.error_class, a.ms, krowoc.now(), a.worker, a.error::json, a.usage::json
         FROM unnest($1::uuid[], $2::bytea[], $3::smallint[], $4::int[], $5::text[], $6::text[], $7::int[], $8::int[], $9::text[], $10::text[])
           AS a(run, scp, step, attempt, status, class, ms, worker, error, usage)",
        &all.iter().map(|a| a.run.0).collect::<Vec<_>>(),
        &all.iter().map(|a| a.scope.0.clone()).collect::<Vec<_>>(),
        &all.iter().map(|a| a.step).collect::<Vec<_>>(),
        &all.iter().map(|a| a.attempt as i32).collect::<Vec<_>>(),
        &all.iter().map(|a| a.status.to_owned()).collect::<Vec<_>>(),
        &all.iter().map(|a| a.error.map(|e| e.class.name().to_owned())).collect::<Vec<_>>() as _,
        &all.iter().map(|a| a.ms).collect::<Vec<_>>(),
        &all.iter().map(|a| a.worker).collect::<Vec<_>>(),
        &all.iter().map(|a| a.error.map(to_json).transpose()).collect::<Result<Vec<_>, _>>()? as _,
        &all.iter().map(used).collect::<Result<Vec<_>, _>>()? as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A step that failed for good.
pub(crate) struct DeadLetter<'a> {
    pub workspace: i32,
    pub run: RunId,
    pub scope: &'a ScopePath,
    pub step: i16,
    pub generation: i16,
    pub attempts: u32,
    pub path: &'a str,
    pub error: &'a StepError,
    pub input: Option<&'a str>,
}

/// Inserts them in one statement, each of another step; letters that were redriven are open again.
pub(crate) async fn insert_dead_letters(conn: &mut PgConnection, all: &[DeadLetter<'_>]) -> Result<(), sqlx::Error> {
    if all.is_empty() {
        return Ok(());
    }
    // In key order, as everybody who writes several letters of a run.
    let mut all: Vec<&DeadLetter<'_>> = all.iter().collect();
    all.sort_by(|a, b| (a.run, a.scope, a.step).cmp(&(b.run, b.scope, b.step)));
    sqlx::query!(
        "INSERT INTO krowoc.dead_letter AS l (workspace_id, run_id, scope, step, generation, attempts, path, class, error, input)
         SELECT d.workspace, d.run, d.scp, d.step, d.generation, d.attempts, d.path, d.class::krowoc.error_class, d.error::json, d.input::json
         FROM unnest($1::int[], $2::uuid[], $3::bytea[], $4::smallint[], $5::smallint[], $6::int[], $7::text[], $8::text[], $9::text[], $10::text[])
           AS d(workspace, run, scp, step, generation, attempts, path, class, error, input)
         ON CONFLICT (run_id, scope, step) DO UPDATE SET state = 'open', reason = NULL, changed_at = krowoc.now(), generation = excluded.generation,
           attempts = excluded.attempts, class = excluded.class, error = excluded.error, input = excluded.input",
        &all.iter().map(|d| d.workspace).collect::<Vec<_>>(),
        &all.iter().map(|d| d.run.0).collect::<Vec<_>>(),
        &all.iter().map(|d| d.scope.0.clone()).collect::<Vec<_>>(),
        &all.iter().map(|d| d.step).collect::<Vec<_>>(),
        &all.iter().map(|d| d.generation).collect::<Vec<_>>(),
        &all.iter().map(|d| d.attempts as i32).collect::<Vec<_>>(),
        &all.iter().map(|d| storable(d.path)).collect::<Vec<_>>(),
        &all.iter().map(|d| d.error.class.name().to_owned()).collect::<Vec<_>>(),
        &all.iter().map(|d| to_json(d.error)).collect::<Result<Vec<_>, _>>()?,
        &all.iter().map(|d| d.input.map(str::to_owned)).collect::<Vec<_>>() as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A path shows keys, and keys come from data: `text` takes every character but U+0000, which is written as JSON has it.
fn storable(path: &str) -> String {
    path.replace('\0', "\\u0000")
}

/// An event that no result row stands for.
pub(crate) struct NewEvent<'a> {
    pub run: RunId,
    pub seq: i32,
    /// None: now.
    pub at: Option<DateTime<Utc>>,
    pub kind: &'a str,
    pub data: serde_json::Value,
}

/// Inserts it.
pub(crate) async fn insert_event(conn: &mut PgConnection, e: &NewEvent<'_>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO krowoc.run_event (run_id, seq, at, kind, data) VALUES ($1, $2, coalesce($3, krowoc.now()), $4, $5::text::json)",
        e.run.0,
        e.seq,
        e.at,
        e.kind,
        e.data.to_string()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Serializes what the engine's own types hold; they are plain data, so a failure is a decoding error of the database layer's kind.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|e| sqlx::Error::Encode(Box::new(e)))
}
