//! Removes runs that ended long ago, in every workspace.

use super::rounds;
use crate::{
    commands::{Pruned, prune},
    error::Result,
    id::Scope,
    measures,
    store::retention,
};
use sqlx::PgPool;
use std::time::Duration;

/// Policies speak of days; an hour more or less is none.
const EVERY: Duration = Duration::from_secs(3600);
/// Rows in one transaction: some tens of milliseconds.
const BATCH: u32 = 5_000;

pub(super) async fn run(pool: PgPool, age: Duration) {
    let mut rounds = rounds(EVERY);
    loop {
        rounds.tick().await;
        match sweep(&pool, age).await {
            Ok(Pruned { runs: 0, .. }) => {}
            Ok(Pruned { runs, rows }) => tracing::info!(runs, rows, "old runs were removed"),
            Err(error) => tracing::warn!(%error, "removing old runs failed; trying again within the hour"),
        }
    }
}

/// One round.
async fn sweep(pool: &PgPool, age: Duration) -> Result<Pruned> {
    let mut conn = pool.acquire().await?;
    let mut all = Pruned::default();
    for workspace in retention::workspaces(&mut conn).await? {
        let scope = Scope { workspace, actor: "retention".into() };
        let pruned = prune(&mut conn, &scope, age, BATCH).await?;
        measures::pruned(pruned.runs);
        all.runs += pruned.runs;
        all.rows += pruned.rows;
    }
    Ok(all)
}
