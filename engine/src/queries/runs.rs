//! Runs: their headers, and lists of them.

use super::{resolve, status};
use crate::{
    error::{Error, Result},
    id::{RunId, Scope, VersionId},
    lifecycle::RunStatus,
    payload::Payload,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

/// Where a run stands, as it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum RunState {
    /// Nothing of it has been started yet.
    Queued,
    Running,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
}

impl RunState {
    /// Has the run ended?
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    fn of(status: RunStatus, untouched: bool) -> Self {
        match status {
            RunStatus::Running if untouched => Self::Queued,
            RunStatus::Running => Self::Running,
            RunStatus::Cancelling => Self::Cancelling,
            RunStatus::Succeeded => Self::Succeeded,
            RunStatus::Failed => Self::Failed,
            RunStatus::Cancelled => Self::Cancelled,
        }
    }

    fn stored(self) -> RunStatus {
        match self {
            Self::Queued | Self::Running => RunStatus::Running,
            Self::Cancelling => RunStatus::Cancelling,
            Self::Succeeded => RunStatus::Succeeded,
            Self::Failed => RunStatus::Failed,
            Self::Cancelled => RunStatus::Cancelled,
        }
    }
}

impl From<RunStatus> for RunState {
    /// Of a run that has been touched, as one has that a command was applied to.
    fn from(status: RunStatus) -> Self {
        Self::of(status, false)
    }
}

/// A run without its payloads.
#[derive(Serialize, Clone, Debug)]
pub struct RunView {
    /// Its id.
    pub id: RunId,
    /// The workflow's name.
    pub workflow: String,
    /// The number of the version that it is pinned to.
    pub version: i32,
    /// That version's id.
    #[serde(skip)]
    pub version_id: VersionId,
    /// Where it stands.
    pub status: RunState,
    /// 1, and one more each time it was opened again after it had failed.
    pub generation: i16,
    /// Higher goes first.
    pub priority: i16,
    /// What started it: `cli`, `api`, …
    pub trigger: String,
    /// Who started it.
    pub created_by: String,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Under which another request for the same run is recognised.
    pub idempotency_key: Option<String>,
    /// Why it failed or is being stopped.
    pub error: Option<Payload>,
}

/// A run with its payloads.
#[derive(Serialize, Clone, Debug)]
pub struct RunDetail {
    /// Everything else.
    #[serde(flatten)]
    pub run: RunView,
    /// What it was started with.
    pub input: Payload,
    /// What it came to, once it has succeeded.
    pub output: Option<Payload>,
}

/// Which runs a list holds; empty: all.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Of this workflow.
    pub workflow: Option<String>,
    /// Standing here.
    pub status: Option<RunState>,
    /// Accepted at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Accepted before this time.
    pub until: Option<DateTime<Utc>>,
}

/// One run.
pub async fn show(conn: &mut PgConnection, scope: &Scope, run: RunId) -> Result<RunDetail> {
    let view = views(conn, scope, &[run.0]).await?.pop().ok_or_else(|| Error::not_found("run", run))?;
    let row = sqlx::query!("SELECT input::text, input_blob, output::text, output_blob FROM krowoc.run WHERE id = $1", run.0)
        .fetch_one(&mut *conn)
        .await?;
    let payload = |text: Option<String>, blob| (text.map(Payload::from_json_text), blob);
    let mut payloads = resolve(conn, run, vec![payload(row.input, row.input_blob), payload(row.output, row.output_blob)]).await?;
    let output = payloads.pop().flatten();
    let input = payloads.pop().flatten().ok_or_else(|| Error::Internal(format!("run {run} has no input")))?;
    Ok(RunDetail { run: view, input, output })
}

/// Runs, newest first, those before the run `after`.
pub async fn list(conn: &mut PgConnection, scope: &Scope, filter: &RunFilter, after: Option<RunId>, limit: i64) -> Result<Vec<RunView>> {
    let ids = match filter.status {
        Some(status) if !status.is_terminal() => live(conn, scope, filter, status, after, limit).await?,
        _ => any(conn, scope, filter, after, limit).await?,
    };
    views(conn, scope, &ids).await
}

/// Ids are made in the order of time (UUIDv7), so they order the list and carry the page.
async fn any(conn: &mut PgConnection, scope: &Scope, filter: &RunFilter, after: Option<RunId>, limit: i64) -> Result<Vec<Uuid>> {
    let ids = sqlx::query_scalar!(
        "SELECT r.id FROM krowoc.run r
         WHERE r.workspace_id = $1 AND ($2::uuid IS NULL OR r.id < $2)
           AND ($3::text IS NULL OR r.workflow_version IN (
             SELECT v.id FROM krowoc.workflow_version v JOIN krowoc.workflow w ON w.id = v.workflow_id WHERE w.workspace_id = $1 AND w.name = $3))
           AND ($4::text IS NULL OR r.status = $4::krowoc.run_status)
           AND ($5::timestamptz IS NULL OR r.created_at >= $5) AND ($6::timestamptz IS NULL OR r.created_at < $6)
         ORDER BY r.id DESC LIMIT $7",
        scope.workspace.0,
        after.map(|r| r.0),
        filter.workflow,
        filter.status.map(|s| s.stored().name()),
        filter.since,
        filter.until,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(ids)
}

/// Status is in no index; but a live run has a root scope, so the few live ones are found without going through the history.
async fn live(
    conn: &mut PgConnection,
    scope: &Scope,
    filter: &RunFilter,
    status: RunState,
    after: Option<RunId>,
    limit: i64,
) -> Result<Vec<Uuid>> {
    let ids = sqlx::query_scalar!(
        "SELECT r.id FROM krowoc.scope_state s JOIN krowoc.run r ON r.id = s.run_id
         WHERE s.scope = '' AND r.workspace_id = $1 AND ($2::uuid IS NULL OR r.id < $2)
           AND ($3::text IS NULL OR r.workflow_version IN (
             SELECT v.id FROM krowoc.workflow_version v JOIN krowoc.workflow w ON w.id = v.workflow_id WHERE w.workspace_id = $1 AND w.name = $3))
           AND r.status = $4::text::krowoc.run_status
           AND ($5::bool IS NULL OR $5 = (s.version = 1 AND NOT EXISTS (SELECT FROM krowoc.live_lane l WHERE l.run_id = r.id AND (l.attempt > 0 OR l.total_from IS NOT NULL))))
           AND ($6::timestamptz IS NULL OR r.created_at >= $6) AND ($7::timestamptz IS NULL OR r.created_at < $7)
         ORDER BY r.id DESC LIMIT $8",
        scope.workspace.0,
        after.map(|r| r.0),
        filter.workflow,
        status.stored().name(),
        match status {
            RunState::Queued => Some(true),
            RunState::Running => Some(false),
            RunState::Cancelling | RunState::Succeeded | RunState::Failed | RunState::Cancelled => None,
        },
        filter.since,
        filter.until,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(ids)
}

/// The runs with these ids, newest first.
async fn views(conn: &mut PgConnection, scope: &Scope, ids: &[Uuid]) -> Result<Vec<RunView>> {
    let rows = sqlx::query!(
        r#"SELECT r.id, w.name AS workflow, v.number, v.id AS version_id, r.status::text AS "status!", r.generation, r.priority, r.trigger, r.created_by,
             r.created_at, r.finished_at, r.idempotency_key, r.error::text,
             (s.version = 1 AND NOT EXISTS (SELECT FROM krowoc.live_lane l WHERE l.run_id = r.id AND (l.attempt > 0 OR l.total_from IS NOT NULL))) IS TRUE AS "untouched!"
           FROM krowoc.run r JOIN krowoc.workflow_version v ON v.id = r.workflow_version JOIN krowoc.workflow w ON w.id = v.workflow_id
           LEFT JOIN krowoc.scope_state s ON s.run_id = r.id AND s.scope = ''
           WHERE r.id = ANY ($1) AND r.workspace_id = $2 ORDER BY r.id DESC"#,
        ids,
        scope.workspace.0
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|r| {
            Ok(RunView {
                id: RunId(r.id),
                workflow: r.workflow,
                version: r.number,
                version_id: VersionId(r.version_id),
                status: RunState::of(status(&r.status)?, r.untouched),
                generation: r.generation,
                priority: r.priority,
                trigger: r.trigger,
                created_by: r.created_by,
                created_at: r.created_at,
                finished_at: r.finished_at,
                idempotency_key: r.idempotency_key,
                error: r.error.map(Payload::from_json_text),
            })
        })
        .collect()
}
