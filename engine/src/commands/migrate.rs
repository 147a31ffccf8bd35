//! The database's schema.

use crate::{error::Result, store};
use sqlx::PgConnection;

/// Brings the database to this binary's schema, or changes nothing.
pub async fn migrate(conn: &mut PgConnection) -> Result<()> {
    store::migrate::migrate(conn).await
}

/// Refuses a database whose schema is older or newer than this binary knows, saying what to do.
pub async fn check_schema(conn: &mut PgConnection) -> Result<()> {
    store::migrate::check(conn).await
}
