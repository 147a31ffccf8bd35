//! What people and programs read: views for the CLI, REST and GraphQL alike, with their SQL. Nothing here writes, and everything is
//! confined to the caller's workspace: what belongs to another is not found.
//!
//! Statuses that nobody carried out (skipped or failed because of a predecessor) are not stored; [`steps`] derives them by the rules of
//! [`lifecycle`](crate::lifecycle). Texts from `json` columns are taken apart in Rust, never by SQL operators: those refuse documents that
//! hold `\u0000`, which models do emit.

pub mod api_tokens;
pub mod attempts;
pub mod dead_letters;
pub mod events;
mod given;
pub mod inside;
pub mod keys;
pub mod queues;
pub mod runs;
pub(crate) mod states;
pub mod steps;
#[cfg(test)]
mod tests;
pub mod usage;
pub mod why;
pub mod workflows;

use crate::{
    error::{Error, Result},
    id::{RunId, Scope, ScopePath, StepIx, VersionId},
    lifecycle::RunStatus,
    payload::Payload,
    store::{blobs, inputs},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// What the views of a run's parts need of its header.
pub(crate) struct Header {
    pub status: RunStatus,
    pub version: VersionId,
    pub created_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    /// The database's time when it was read.
    pub now: DateTime<Utc>,
}

/// The run's header; not found in another workspace.
pub(crate) async fn header(conn: &mut PgConnection, scope: &Scope, run: RunId) -> Result<Header> {
    let row = sqlx::query!(
        r#"SELECT status::text AS "status!", workflow_version, created_at, finished_at, krowoc.now() AS "now!"
           FROM krowoc.run WHERE id = $1 AND workspace_id = $2"#,
        run.0,
        scope.workspace.0
    )
    .fetch_optional(conn)
    .await?
    .ok_or_else(|| Error::not_found("run", run))?;
    Ok(Header {
        status: status(&row.status)?,
        version: VersionId(row.workflow_version),
        created_at: row.created_at,
        finished_at: row.finished_at,
        now: row.now,
    })
}

/// The run's workflow version, for [`workflows::load_version`].
pub async fn version_of(conn: &mut PgConnection, scope: &Scope, run: RunId) -> Result<VersionId> {
    Ok(header(conn, scope, run).await?.version)
}

fn status(name: &str) -> Result<RunStatus> {
    RunStatus::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| Error::Internal(format!("unknown run status `{name}`")))
}

/// A payload column and its counterpart that names a blob.
pub(crate) type Stored = (Option<Payload>, Option<Vec<u8>>);

/// Fetches those payloads that have moved to blobs, all in one round trip, and gives all back in their order.
pub(crate) async fn resolve(conn: &mut PgConnection, run: RunId, stored: Vec<Stored>) -> Result<Vec<Option<Payload>>> {
    let keys: Vec<_> = stored.iter().filter_map(|(_, hash)| hash.clone()).map(|hash| (run, hash)).collect();
    let loaded = blobs::load(conn, &keys).await?;
    stored
        .into_iter()
        .map(|stored| match stored {
            (Some(payload), _) => Ok(Some(payload)),
            (None, Some(hash)) => match loaded.get(&(run, hash)) {
                Some(payload) => Ok(Some(payload.clone())),
                None => Err(Error::Internal(format!("run {run} names a payload that is not stored"))),
            },
            (None, None) => Ok(None),
        })
        .collect()
}

/// Outputs of a run's steps, in the order of their addresses; none of one that has not succeeded.
pub(crate) async fn outputs(conn: &mut PgConnection, run: RunId, steps: Vec<(ScopePath, StepIx)>) -> Result<Vec<Option<Payload>>> {
    let mut stored = vec![(None, None); steps.len()];
    let addresses: Vec<_> = steps.into_iter().map(|(scope, step)| (run, scope, step.0 as i16)).collect();
    for (at, output, blob) in inputs::results(conn, &addresses).await? {
        stored[at] = (output, blob);
    }
    resolve(conn, run, stored).await
}

/// JSON that the engine itself has written.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::Internal(format!("stored JSON is not what it was written as: {e}")))
}
