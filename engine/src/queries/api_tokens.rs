//! The token with which a workspace is used over HTTP, as far as it is known: its hash.

use crate::{
    error::{Error, Result},
    id::WorkspaceId,
};
use sqlx::PgConnection;

/// The hash of the workspace's token, if it has one.
pub async fn hash(conn: &mut PgConnection, workspace: WorkspaceId) -> Result<Option<[u8; 32]>> {
    let hash = sqlx::query_scalar!("SELECT hash FROM krowoc.api_token WHERE workspace_id = $1", workspace.0).fetch_optional(conn).await?;
    hash.map(|hash| hash.try_into().map_err(|_| Error::Internal("the token's hash has not 32 bytes".into()))).transpose()
}
