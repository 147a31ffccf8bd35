//! Dead letters, as commands find, lock and close them.

use crate::id::{RunId, ScopePath};
use sqlx::PgConnection;
use uuid::Uuid;

/// A dead letter, as far as commands need it.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub id: Uuid,
    pub run: RunId,
    pub scope: ScopePath,
    pub step: i16,
    pub path: String,
}

/// The letters with these ids in a workspace; where they lie never changes.
pub(crate) async fn find(conn: &mut PgConnection, workspace: i32, ids: &[Uuid]) -> Result<Vec<Letter>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT id, run_id, scope, step, path FROM krowoc.dead_letter WHERE id = ANY ($1) AND workspace_id = $2",
        ids,
        workspace
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|r| Letter { id: r.id, run: RunId(r.run_id), scope: ScopePath(r.scope), step: r.step, path: r.path }).collect())
}

/// Locks letters in the order of their ids and reads their states.
pub(crate) async fn lock(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<(Uuid, String)>, sqlx::Error> {
    let rows =
        sqlx::query!(r#"SELECT id, state::text AS "state!" FROM krowoc.dead_letter WHERE id = ANY ($1) ORDER BY id FOR UPDATE"#, ids)
            .fetch_all(conn)
            .await?;
    Ok(rows.into_iter().map(|r| (r.id, r.state)).collect())
}

/// Leaves an open letter for good; false if it was not open.
pub(crate) async fn discard(conn: &mut PgConnection, id: Uuid, reason: &str) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE krowoc.dead_letter SET state = 'discarded', reason = $2, changed_at = krowoc.now() WHERE id = $1 AND state = 'open'",
        id,
        reason
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
