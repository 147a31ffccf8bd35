//! Workflows and their versions.

use crate::id::{Scope, VersionId, WorkspaceId};
use sqlx::PgConnection;

/// A version as it came out of a registration.
pub(crate) struct Registered {
    pub id: VersionId,
    pub number: i32,
    pub created: bool,
}

/// Adds a version, or finds the one with the same content; either is the workflow's current one afterwards.
pub(crate) async fn register(
    conn: &mut PgConnection,
    scope: &Scope,
    name: &str,
    hash: &[u8; 32],
    definition: &str,
    prompts: &str,
) -> Result<Registered, sqlx::Error> {
    // The no-op update takes the row's lock, so that two registrations of one workflow number their versions one after the other.
    let workflow = sqlx::query_scalar!(
        "INSERT INTO krowoc.workflow (workspace_id, name) VALUES ($1, $2) ON CONFLICT (workspace_id, name) DO UPDATE SET name = excluded.name RETURNING id",
        scope.workspace.0,
        name
    )
    .fetch_one(&mut *conn)
    .await?;
    let found = sqlx::query!(
        "UPDATE krowoc.workflow_version v SET applied_at = CASE
           WHEN v.applied_at = (SELECT max(applied_at) FROM krowoc.workflow_version WHERE workflow_id = $1) THEN v.applied_at ELSE clock_timestamp() END
         WHERE workflow_id = $1 AND hash = $2 RETURNING id, number",
        workflow,
        &hash[..]
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(v) = found {
        return Ok(Registered { id: VersionId(v.id), number: v.number, created: false });
    }
    let v = sqlx::query!(
        "INSERT INTO krowoc.workflow_version (workflow_id, number, hash, definition, prompts, created_by, applied_at)
         VALUES ($1, (SELECT coalesce(max(number), 0) + 1 FROM krowoc.workflow_version WHERE workflow_id = $1), $2, $3::text::json, $4::text::json, $5, clock_timestamp())
         RETURNING id, number",
        workflow,
        &hash[..],
        definition,
        prompts,
        scope.actor
    )
    .fetch_one(conn)
    .await?;
    Ok(Registered { id: VersionId(v.id), number: v.number, created: true })
}

/// A version's workspace, definition and prompts, as stored.
pub(crate) async fn load(conn: &mut PgConnection, id: VersionId) -> Result<Option<(WorkspaceId, String, String)>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT w.workspace_id, v.definition::text AS \"definition!\", v.prompts::text AS \"prompts!\"
         FROM krowoc.workflow_version v JOIN krowoc.workflow w ON w.id = v.workflow_id WHERE v.id = $1",
        id.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|r| (WorkspaceId(r.workspace_id), r.definition, r.prompts)))
}
