//! Task queues: what is ready on them and who serves them. They belong to the installation, not to a workspace.

use crate::error::Result;
use serde::Serialize;
use sqlx::PgConnection;

/// A worker that has said nothing for this long is not counted as alive.
pub const WORKER_SILENCE_S: f64 = 60.0;

/// A task queue.
#[derive(Serialize, Clone, Debug)]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// Steps that may be claimed now.
    pub ready_steps: i64,
    /// Map items that may be claimed now.
    pub ready_items: i64,
    /// Steps that workers hold.
    pub leased: i64,
    /// Steps that wait for a time.
    pub timed: i64,
    /// How long the oldest ready step or item has been waiting, in seconds.
    pub oldest_ready_s: Option<f64>,
    /// Workers that serve it and are alive.
    pub workers: i64,
}

/// Every queue, by name.
pub async fn queues(conn: &mut PgConnection) -> Result<Vec<QueueView>> {
    // A span may hold permits beyond its items, or owe some while redriven items run.
    let rows = sqlx::query_as!(
        QueueView,
        r#"SELECT q.name, coalesce(l.ready, 0) AS "ready_steps!", coalesce(s.items, 0) AS "ready_items!", coalesce(l.leased, 0) AS "leased!",
             coalesce(l.timed, 0) AS "timed!", extract(epoch FROM krowoc.now() - least(l.oldest, s.oldest))::float8 AS oldest_ready_s,
             (SELECT count(*) FROM krowoc.worker w WHERE q.id = ANY (w.queues) AND w.seen_at > krowoc.now() - make_interval(secs => $1)) AS "workers!"
           FROM krowoc.task_queue q
           LEFT JOIN (
             SELECT queue, count(*) FILTER (WHERE state = 'ready') AS ready, count(*) FILTER (WHERE state IN ('leased', 'aborting')) AS leased,
               count(*) FILTER (WHERE state IN ('backoff', 'deferred', 'timer')) AS timed, min(ready_at) FILTER (WHERE state = 'ready') AS oldest
             FROM krowoc.live_lane GROUP BY queue) l ON l.queue = q.id
           LEFT JOIN (
             SELECT queue, sum(greatest(0, least(hi - lo, coalesce(permits, hi - lo))))::bigint AS items, min(ready_at) AS oldest
             FROM krowoc.span WHERE (permits IS NULL OR permits > 0) AND NOT held GROUP BY queue) s ON s.queue = q.id
           ORDER BY q.name"#,
        WORKER_SILENCE_S
    )
    .fetch_all(conn)
    .await?;
    Ok(rows)
}
