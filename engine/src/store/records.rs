//! History that is not written on the hot path: attempts that failed for good, dead letters, events.

use crate::{
    executor::{StepError, Usage},
    id::{RunId, ScopePath},
};
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

/// Inserts it.
pub(crate) async fn insert_attempt(conn: &mut PgConnection, a: &AttemptRecord<'_>) -> Result<(), sqlx::Error> {
    let error = a.error.map(to_json).transpose()?;
    let usage = a.usage.or(a.error.and_then(|e| e.usage.as_ref())).map(to_json).transpose()?;
    sqlx::query!(
        "INSERT INTO krowoc.attempt (run_id, scope, step, attempt, status, class, duration_ms, finished_at, worker, error, usage)
         VALUES ($1, $2, $3, $4, $5::text::krowoc.attempt_status, $6::text::krowoc.error_class, $7, krowoc.now(), $8, $9::text::json, $10::text::json)",
        a.run.0,
        &a.scope.0,
        a.step,
        a.attempt as i32,
        a.status,
        a.error.map(|e| e.class.name()),
        a.ms,
        a.worker,
        error,
        usage
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

/// Inserts it; a letter of the same path that was redriven is open again.
pub(crate) async fn insert_dead_letter(conn: &mut PgConnection, d: &DeadLetter<'_>) -> Result<(), sqlx::Error> {
    let error = to_json(d.error)?;
    sqlx::query!(
        "INSERT INTO krowoc.dead_letter AS l (workspace_id, run_id, scope, step, generation, attempts, path, class, error, input)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::krowoc.error_class, $9::text::json, $10::text::json)
         ON CONFLICT (run_id, scope, step) DO UPDATE SET state = 'open', reason = NULL, changed_at = krowoc.now(), generation = excluded.generation,
           attempts = excluded.attempts, class = excluded.class, error = excluded.error, input = excluded.input",
        d.workspace,
        d.run.0,
        &d.scope.0,
        d.step,
        d.generation,
        d.attempts as i32,
        d.path,
        d.error.class.name(),
        error,
        d.input
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Inserts an event that no result row stands for.
pub(crate) async fn insert_event(
    conn: &mut PgConnection,
    run: RunId,
    seq: i32,
    kind: &str,
    data: &serde_json::Value,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO krowoc.run_event (run_id, seq, kind, data) VALUES ($1, $2, $3, $4::text::json)",
        run.0,
        seq,
        kind,
        data.to_string()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Serializes what the engine's own types hold; they are plain data, so a failure is a decoding error of the database layer's kind.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|e| sqlx::Error::Encode(Box::new(e)))
}
