//! Runs that retention is to remove: dated back, since nobody waits a day here. From then on each is there with everything, or not at all.

use crate::{
    shapes::Shape,
    world::{Cancel, World},
};
use anyhow::{Result, ensure};
use krowoc_engine::RunId;
use std::time::{Duration, Instant};
use uuid::Uuid;

const AT_ONCE: usize = 4;

/// Dates a few ended runs of a shape back; gives how many are there to be removed now.
pub async fn some(world: &mut World, shape: Shape) -> Result<u64> {
    let known: Vec<Uuid> = world.runs.iter().filter(|(_, a)| a.shape == shape && a.cancel == Cancel::None).map(|(id, _)| id.0).collect();
    let dated: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE krowoc.run SET created_at = created_at - interval '1 day', finished_at = finished_at - interval '1 day'
         WHERE id IN (SELECT id FROM krowoc.run WHERE status = 'succeeded' AND id = ANY ($1) ORDER BY id LIMIT $2) RETURNING id",
    )
    .bind(known)
    .bind(AT_ONCE as i64)
    .fetch_all(world.engine.pool())
    .await?;
    for id in dated {
        world.runs.remove(&RunId(id));
        world.retired.insert(RunId(id));
    }
    left(world).await
}

/// Waits until nothing is left to be removed: a server must be about that has just started.
pub async fn until_gone(world: &World, limit: Duration) -> Result<()> {
    let until = Instant::now() + limit;
    while left(world).await? > 0 {
        ensure!(Instant::now() < until, "retention leaves {} runs", left(world).await?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// How many of them are there still.
pub async fn left(world: &World) -> Result<u64> {
    let retired: Vec<Uuid> = world.retired.iter().map(|run| run.0).collect();
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM krowoc.run WHERE id = ANY ($1)").bind(retired).fetch_one(world.engine.pool()).await?;
    Ok(left.unsigned_abs())
}

/// What is left of those that are gone, by table.
pub async fn remains(world: &World) -> Result<Vec<String>> {
    let retired: Vec<Uuid> = world.retired.iter().map(|run| run.0).collect();
    let rows: Vec<(String, Uuid)> = sqlx::query_as(
        "SELECT p.part, p.run_id FROM (
           SELECT 'step_result' AS part, run_id FROM krowoc.step_result UNION SELECT 'attempt', run_id FROM krowoc.attempt
           UNION SELECT 'run_event', run_id FROM krowoc.run_event UNION SELECT 'map_chunk', run_id FROM krowoc.map_chunk
           UNION SELECT 'blob', run_id FROM krowoc.blob UNION SELECT 'dead_letter', run_id FROM krowoc.dead_letter
           UNION SELECT 'scope_state', run_id FROM krowoc.scope_state UNION SELECT 'lane', run_id FROM krowoc.live_lane) p
         WHERE p.run_id = ANY ($1) AND NOT EXISTS (SELECT FROM krowoc.run r WHERE r.id = p.run_id)",
    )
    .bind(retired)
    .fetch_all(world.engine.pool())
    .await?;
    Ok(rows.into_iter().map(|(part, run)| format!("run {run} was removed, and rows of {part} were left")).collect())
}
