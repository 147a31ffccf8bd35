//! Dead letters: steps that failed for good, with what is needed to mend and redrive them.

use super::{
    attempts::{AttemptView, at},
    given, parse,
};
use crate::{
    error::{Error, ErrorClass, Result},
    executor::StepError,
    id::{RunId, Scope, ScopePath, StepIx, VersionId},
    payload::Payload,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::ops::RangeInclusive;
use uuid::Uuid;

/// Where a dead letter stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// Somebody has to decide.
    Open,
    /// Its step was opened again and has not ended well yet.
    Redriven,
    /// Its step has succeeded, or was skipped, since.
    Resolved,
    /// Somebody decided to leave it.
    Discarded,
}

impl LetterState {
    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Redriven => "redriven",
            Self::Resolved => "resolved",
            Self::Discarded => "discarded",
        }
    }

    fn of(name: &str) -> Result<Self> {
        [Self::Open, Self::Redriven, Self::Resolved, Self::Discarded]
            .into_iter()
            .find(|s| s.name() == name)
            .ok_or_else(|| Error::Internal(format!("unknown dead letter state `{name}`")))
    }
}

/// A dead letter in a list.
#[derive(Serialize, Clone, Debug)]
pub struct LetterView {
    /// Its id.
    pub id: Uuid,
    /// The run.
    pub run: RunId,
    /// The workflow's name.
    pub workflow: String,
    /// The number of its version.
    pub version: i32,
    /// The step's address.
    pub path: String,
    /// Where the letter stands.
    pub state: LetterState,
    /// Why the step failed last.
    pub class: ErrorClass,
    /// The same in words.
    pub message: String,
    /// Attempts until then.
    pub attempts: u32,
    /// The run's generation then.
    pub generation: i16,
    /// When the step failed for good first.
    pub created_at: DateTime<Utc>,
    /// When the letter changed last.
    pub changed_at: DateTime<Utc>,
    /// Why it was discarded.
    pub reason: Option<String>,
}

/// A dead letter in full.
#[derive(Serialize, Clone, Debug)]
pub struct LetterDetail {
    /// Everything else.
    #[serde(flatten)]
    pub letter: LetterView,
    /// The failure.
    pub error: StepError,
    /// What the step was given, where it came so far.
    pub input: Option<Payload>,
    /// The attempt left no input on record, since its worker had vanished or its time was up: `input` was rendered now, from what the step
    /// looked at then.
    pub input_rendered_later: bool,
    /// Every attempt, in order.
    pub history: Vec<AttemptView>,
}

/// Which dead letters a list holds; empty: all.
#[derive(Clone, Debug, Default)]
pub struct LetterFilter {
    /// Standing here.
    pub state: Option<LetterState>,
    /// Of this workflow.
    pub workflow: Option<String>,
    /// Of this run.
    pub run: Option<RunId>,
    /// Failed with this class.
    pub class: Option<ErrorClass>,
}

struct Row {
    id: Uuid,
    run_id: Uuid,
    workflow: String,
    number: i32,
    path: String,
    state: String,
    class: String,
    error: String,
    attempts: i32,
    generation: i16,
    created_at: DateTime<Utc>,
    changed_at: DateTime<Utc>,
    reason: Option<String>,
}

impl Row {
    fn view(self) -> Result<LetterView> {
        let class = ErrorClass::ALL.into_iter().find(|c| c.name() == self.class);
        Ok(LetterView {
            id: self.id,
            run: RunId(self.run_id),
            workflow: self.workflow,
            version: self.number,
            path: self.path,
            state: LetterState::of(&self.state)?,
            class: class.ok_or_else(|| Error::Internal(format!("unknown error class `{}`", self.class)))?,
            message: parse::<StepError>(&self.error)?.message,
            attempts: self.attempts.unsigned_abs(),
            generation: self.generation,
            created_at: self.created_at,
            changed_at: self.changed_at,
            reason: self.reason,
        })
    }
}

/// The ids of dead letters from one to another, up to so many: what an abbreviated id may mean.
pub async fn ids(conn: &mut PgConnection, scope: &Scope, range: RangeInclusive<Uuid>, limit: i64) -> Result<Vec<Uuid>> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM krowoc.dead_letter WHERE id BETWEEN $1 AND $2 AND workspace_id = $3 ORDER BY id LIMIT $4",
        range.start(),
        range.end(),
        scope.workspace.0,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(ids)
}

/// Dead letters, newest first, those behind the letter `after`.
pub async fn list(
    conn: &mut PgConnection,
    scope: &Scope,
    filter: &LetterFilter,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<LetterView>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT l.id, l.run_id, l.workflow AS "workflow!", l.number AS "number!", l.path, l.state AS "state!", l.class::text AS "class!", l.error::text AS "error!",
             l.attempts, l.generation, l.created_at, l.changed_at, l.reason FROM (
             SELECT d.id, d.run_id, d.path, d.class, d.error, d.attempts, d.generation, d.created_at, d.changed_at, d.reason, w.name AS workflow, v.number,
               CASE WHEN d.state <> 'discarded' AND EXISTS (SELECT FROM krowoc.step_result s
                 WHERE s.run_id = d.run_id AND s.scope = d.scope AND s.step = d.step AND s.status <> 'failed') THEN 'resolved' ELSE d.state::text END AS state
             FROM krowoc.dead_letter d JOIN krowoc.run r ON r.id = d.run_id
             JOIN krowoc.workflow_version v ON v.id = r.workflow_version JOIN krowoc.workflow w ON w.id = v.workflow_id
             WHERE d.workspace_id = $1
               -- Said of the stored column too, for the partial index: what is asked for most are the few that are open.
               AND ($2::text IS NULL OR $2 = 'discarded' AND d.state = 'discarded' OR $2 <> 'discarded' AND d.state IN ('open', 'redriven'))
               AND ($3::text IS NULL OR w.name = $3) AND ($4::uuid IS NULL OR d.run_id = $4) AND ($5::text IS NULL OR d.class = $5::krowoc.error_class)
               AND ($6::uuid IS NULL OR (d.created_at, d.id) < (SELECT c.created_at, c.id FROM krowoc.dead_letter c WHERE c.id = $6 AND c.workspace_id = $1))) l
           WHERE $2 IS NULL OR l.state = $2 ORDER BY l.created_at DESC, l.id DESC LIMIT $7"#,
        scope.workspace.0,
        filter.state.map(LetterState::name),
        filter.workflow,
        filter.run.map(|r| r.0),
        filter.class.map(ErrorClass::name),
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Row::view).collect()
}

/// One dead letter with its error, its input and every attempt.
pub async fn show(conn: &mut PgConnection, scope: &Scope, id: Uuid) -> Result<LetterDetail> {
    let missing = || Error::not_found("dead letter", id);
    let row = sqlx::query_as!(
        Row,
        r#"SELECT d.id, d.run_id, w.name AS workflow, v.number, d.path,
             CASE WHEN d.state <> 'discarded' AND EXISTS (SELECT FROM krowoc.step_result s
               WHERE s.run_id = d.run_id AND s.scope = d.scope AND s.step = d.step AND s.status <> 'failed') THEN 'resolved' ELSE d.state::text END AS "state!",
             d.class::text AS "class!", d.error::text AS "error!", d.attempts, d.generation, d.created_at, d.changed_at, d.reason
           FROM krowoc.dead_letter d JOIN krowoc.run r ON r.id = d.run_id
           JOIN krowoc.workflow_version v ON v.id = r.workflow_version JOIN krowoc.workflow w ON w.id = v.workflow_id
           WHERE d.workspace_id = $1 AND d.id = $2"#,
        scope.workspace.0,
        id
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or_else(missing)?;
    let more = sqlx::query!(
        r#"SELECT d.scope, d.step, d.error::text AS "error!", d.input::text, r.workflow_version FROM krowoc.dead_letter d
               JOIN krowoc.run r ON r.id = d.run_id WHERE d.id = $1"#,
        id
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or_else(missing)?;
    let letter = row.view()?;
    let (place, step) = (ScopePath(more.scope), StepIx(more.step.unsigned_abs()));
    let history = at(conn, letter.run, &letter.path, &place, step).await?;
    let stored = more.input.map(Payload::from_json_text);
    let rendered = match &stored {
        Some(_) => None,
        // At its best: a version or a payload that can't be read must not hide the failure.
        None => given::input(conn, letter.run, VersionId(more.workflow_version), &place, step).await.unwrap_or_else(|error| {
            tracing::warn!(%error, letter = %letter.id, "the input of a dead letter can't be rendered");
            None
        }),
    };
    let input_rendered_later = rendered.is_some();
    Ok(LetterDetail { letter, error: parse(&more.error)?, input: stored.or(rendered), input_rendered_later, history })
}
