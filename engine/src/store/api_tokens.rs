//! The hash of a workspace's token.

use crate::id::Scope;
use sqlx::PgConnection;

/// Keeps it where there is none yet; false where there is one.
pub(crate) async fn insert(conn: &mut PgConnection, scope: &Scope, hash: &[u8; 32]) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "INSERT INTO krowoc.api_token (workspace_id, hash, created_by) VALUES ($1, $2, $3) ON CONFLICT (workspace_id) DO NOTHING",
        scope.workspace.0,
        &hash[..],
        scope.actor
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Puts it in the place of the one there is, if there is one.
pub(crate) async fn replace(conn: &mut PgConnection, scope: &Scope, hash: &[u8; 32]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO krowoc.api_token (workspace_id, hash, created_by) VALUES ($1, $2, $3)
         ON CONFLICT (workspace_id) DO UPDATE SET hash = excluded.hash, created_by = excluded.created_by, created_at = krowoc.now()",
        scope.workspace.0,
        &hash[..],
        scope.actor
    )
    .execute(conn)
    .await?;
    Ok(())
}
