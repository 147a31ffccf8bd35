//! Worker processes and task queues.

use sqlx::PgConnection;

/// Registers a worker process; its id fences nothing, it only says who holds a lease.
pub(crate) async fn register(conn: &mut PgConnection, name: &str, queues: &[i16], slots: i32) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(
        "INSERT INTO krowoc.worker (name, version, queues, slots) VALUES ($1, $2, $3, $4) RETURNING id",
        name,
        env!("CARGO_PKG_VERSION"),
        queues,
        slots
    )
    .fetch_one(conn)
    .await
}

/// Says that the worker lives, and whether it is idle and wants to be notified.
pub(crate) async fn mark(conn: &mut PgConnection, worker: i32, idle: bool) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE krowoc.worker SET idle = $2, seen_at = krowoc.now() WHERE id = $1", worker, idle).execute(conn).await?;
    Ok(())
}

/// Says that the worker lives; false if its row is gone.
pub(crate) async fn seen(conn: &mut PgConnection, worker: i32) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!("UPDATE krowoc.worker SET seen_at = krowoc.now() WHERE id = $1", worker).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}

/// A worker that was taken for dead is back under its id. It counts as idle until it says otherwise: a notification too many does no harm.
pub(crate) async fn register_again(
    conn: &mut PgConnection,
    worker: i32,
    name: &str,
    queues: &[i16],
    slots: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO krowoc.worker (id, name, version, queues, slots, idle) OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, true)
         ON CONFLICT (id) DO NOTHING",
        worker,
        name,
        env!("CARGO_PKG_VERSION"),
        queues,
        slots
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A worker that has stopped in good order leaves no row.
pub(crate) async fn remove(conn: &mut PgConnection, worker: i32) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM krowoc.worker WHERE id = $1", worker).execute(conn).await?;
    Ok(())
}

/// Removes workers that have said nothing for a long time: they were killed.
pub(crate) async fn remove_silent(conn: &mut PgConnection, seconds: f64) -> Result<u64, sqlx::Error> {
    let done =
        sqlx::query!("DELETE FROM krowoc.worker WHERE seen_at < krowoc.now() - make_interval(secs => $1)", seconds).execute(conn).await?;
    Ok(done.rows_affected())
}

/// The ids of task queues, made where they are new, in the order of the names.
pub(crate) async fn queue_ids(conn: &mut PgConnection, names: &[String]) -> Result<Vec<i16>, sqlx::Error> {
    sqlx::query!(
        "INSERT INTO krowoc.task_queue (name) SELECT DISTINCT n FROM unnest($1::text[]) n
         WHERE NOT EXISTS (SELECT FROM krowoc.task_queue q WHERE q.name = n) ON CONFLICT (name) DO NOTHING",
        names
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query_scalar!(
        "SELECT q.id FROM unnest($1::text[]) WITH ORDINALITY AS n(name, at) JOIN krowoc.task_queue q ON q.name = n.name ORDER BY n.at",
        names
    )
    .fetch_all(conn)
    .await
}

/// Tells an idle worker that there is work; heard after the commit.
pub(crate) async fn wake(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT pg_notify('krowoc_ready', '') FROM (SELECT FROM krowoc.worker WHERE idle AND seen_at > krowoc.now() - interval '1 minute' LIMIT 1) w").fetch_optional(conn).await?;
    Ok(())
}
