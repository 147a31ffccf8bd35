//! Removes what is on record of runs that nobody needs any more, some rows at a time.

use crate::id::{RunId, Scope, WorkspaceId};
use sqlx::PgConnection;
use uuid::Uuid;

/// Every workspace.
pub(crate) async fn workspaces(conn: &mut PgConnection) -> Result<Vec<WorkspaceId>, sqlx::Error> {
    let ids = sqlx::query_scalar!("SELECT id FROM krowoc.workspace ORDER BY id").fetch_all(conn).await?;
    Ok(ids.into_iter().map(WorkspaceId).collect())
}

/// Locks ended runs of a workspace that finished longer ago than `age_s`, oldest first, those after `after`. Left out are runs that somebody
/// else has locked, and those with an open dead letter: somebody is to decide about them.
pub(crate) async fn lock_old(
    conn: &mut PgConnection,
    scope: &Scope,
    age_s: f64,
    after: Option<RunId>,
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT id FROM krowoc.run
         WHERE workspace_id = $1 AND ($2::uuid IS NULL OR id > $2) AND created_at < krowoc.now() - make_interval(secs => $3)
           AND finished_at < krowoc.now() - make_interval(secs => $3)
           AND NOT EXISTS (SELECT FROM krowoc.dead_letter d WHERE d.run_id = run.id AND d.state = 'open')
         ORDER BY id LIMIT $4 FOR UPDATE SKIP LOCKED",
        scope.workspace.0,
        after.map(|r| r.0),
        age_s,
        limit
    )
    .fetch_all(conn)
    .await
}

/// Removes up to `limit` rows of the runs' parts, their letters first: a run that has begun to go can't be redriven. The headers go when
/// nothing else is left. Gives how many rows went and whether all did.
pub(crate) async fn delete(conn: &mut PgConnection, runs: &[Uuid], limit: i64) -> Result<(i64, bool), sqlx::Error> {
    let mut left = limit;
    // By `ctid = ANY (ARRAY(…))`: with `IN` the planner may go through the whole table.
    macro_rules! part {
        ($sql:literal) => {
            if left > 0 {
                left -= sqlx::query!($sql, runs, left).execute(&mut *conn).await?.rows_affected() as i64;
            }
        };
    }
    part!("DELETE FROM krowoc.dead_letter WHERE ctid = ANY (ARRAY(SELECT ctid FROM krowoc.dead_letter WHERE run_id = ANY ($1) LIMIT $2))");
    part!("DELETE FROM krowoc.step_result WHERE ctid = ANY (ARRAY(SELECT ctid FROM krowoc.step_result WHERE run_id = ANY ($1) LIMIT $2))");
    part!("DELETE FROM krowoc.attempt WHERE ctid = ANY (ARRAY(SELECT ctid FROM krowoc.attempt WHERE run_id = ANY ($1) LIMIT $2))");
    part!("DELETE FROM krowoc.run_event WHERE ctid = ANY (ARRAY(SELECT ctid FROM krowoc.run_event WHERE run_id = ANY ($1) LIMIT $2))");
    part!("DELETE FROM krowoc.map_chunk WHERE ctid = ANY (ARRAY(SELECT ctid FROM krowoc.map_chunk WHERE run_id = ANY ($1) LIMIT $2))");
    part!("DELETE FROM krowoc.blob WHERE ctid = ANY (ARRAY(SELECT ctid FROM krowoc.blob WHERE run_id = ANY ($1) LIMIT $2))");
    if left == 0 {
        return Ok((limit, false));
    }
    sqlx::query!("DELETE FROM krowoc.run_timeout WHERE run_id = ANY ($1)", runs).execute(&mut *conn).await?;
    sqlx::query!("DELETE FROM krowoc.run WHERE id = ANY ($1)", runs).execute(conn).await?;
    Ok((limit - left, true))
}
