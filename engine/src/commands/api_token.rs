//! The token with which a workspace is used over HTTP. Only its hash comes here.

use crate::{error::Result, id::Scope, store::api_tokens};
use sqlx::PgConnection;

/// Keeps the hash of the workspace's first token. Of several that try at once one succeeds; false for the others, and ever after.
pub async fn make_api_token(conn: &mut PgConnection, scope: &Scope, hash: &[u8; 32]) -> Result<bool> {
    Ok(api_tokens::insert(conn, scope, hash).await?)
}

/// Replaces the workspace's token: the old one is worth nothing from then on.
pub async fn renew_api_token(conn: &mut PgConnection, scope: &Scope, hash: &[u8; 32]) -> Result<()> {
    Ok(api_tokens::replace(conn, scope, hash).await?)
}
