//! The one sequence of migrations. Locked by a transaction, not by a session, so that a transaction pooler may stand in front.

use crate::error::{Error, Result};
use sqlx::{Connection, PgConnection, migrate::Migrator};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Any number; the same for every krowoc binary, so that two do not migrate at once.
const LOCK: i64 = 0x6b72_6f77_6f63;

fn migrator() -> Migrator {
    let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
    migrator.set_locking(false).set_ignore_missing(true);
    migrator.dangerous_set_table_name("krowoc.schema_migration");
    migrator.create_schema("krowoc");
    migrator
}

/// Brings the database to this binary's schema; all or nothing.
pub(crate) async fn migrate(conn: &mut PgConnection) -> Result<()> {
    let mut tx = conn.begin().await?;
    sqlx::query!("SELECT pg_advisory_xact_lock($1) AS \"locked!: ()\"", LOCK).fetch_one(&mut *tx).await?;
    migrator().run(&mut *tx).await.map_err(|e| Error::Schema(format!("the database could not be migrated: {e}")))?;
    tx.commit().await?;
    Ok(())
}

/// The schema's version here and in the database; the latter is none where nothing was ever migrated.
pub(crate) async fn versions(conn: &mut PgConnection) -> Result<(i64, Option<i64>)> {
    let known = MIGRATIONS.iter().map(|m| m.version).max().unwrap_or_default();
    let exists =
        sqlx::query_scalar!("SELECT to_regclass('krowoc.schema_migration') IS NOT NULL AS \"exists!\"").fetch_one(&mut *conn).await?;
    if !exists {
        return Ok((known, None));
    }
    // Not checked at compile time: the table is the migrator's own and is not there when queries are prepared.
    let found: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM krowoc.schema_migration WHERE success").fetch_one(conn).await?;
    Ok((known, found))
}

/// Refuses a schema that is older or newer than this binary knows.
pub(crate) async fn check(conn: &mut PgConnection) -> Result<()> {
    match versions(conn).await? {
        (known, Some(found)) if known == found => Ok(()),
        (_, None) => Err(Error::Schema("the database has no krowoc schema yet: run `krowoc migrate`".into())),
        (known, Some(found)) if found < known => {
            Err(Error::Schema(format!("the database's schema is at version {found}, this krowoc needs {known}: run `krowoc migrate`")))
        }
        (known, Some(found)) => Err(Error::Schema(format!(
            "the database's schema is at version {found}, newer than this krowoc knows ({known}): upgrade krowoc"
        ))),
    }
}

/// Names the schema's content: every migration's checksum.
#[cfg(feature = "testing")]
pub(crate) fn fingerprint() -> String {
    let mut hasher = blake3::Hasher::new();
    for migration in MIGRATIONS.iter() {
        hasher.update(&migration.checksum);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}
