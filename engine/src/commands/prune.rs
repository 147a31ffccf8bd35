//! Retention: runs that ended long ago go, with everything that is on record of them.

use super::leave;
use crate::{
    error::Result,
    fail_point::{self, Site},
    id::{RunId, Scope},
    store::retention,
};
use sqlx::{Connection, PgConnection};
use std::time::Duration;

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Pruned {
    /// Runs.
    pub runs: u64,
    /// Rows of their parts: results, attempts, events, items, payloads, dead letters.
    pub rows: u64,
}

/// Runs that are looked at together.
const RUNS: i64 = 500;

/// Removes the workspace's runs that ended longer ago than `age`, but none with an open dead letter, about which somebody is to decide. A transaction removes at most about `batch`
/// rows, so that it is short whatever a run holds; what was committed stays gone if a later one fails, and the next call goes on.
pub async fn prune(conn: &mut PgConnection, scope: &Scope, age: Duration, batch: u32) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    let limit = i64::from(batch.max(1));
    let mut after = None;
    loop {
        let mut tx = conn.begin().await?;
        let runs = retention::lock_old(&mut tx, scope, age.as_secs_f64(), after, limit.min(RUNS)).await?;
        let Some(last) = runs.last().copied().map(RunId) else {
            leave(tx).await;
            return Ok(pruned);
        };
        let (rows, all) = retention::delete(&mut tx, &runs, limit).await?;
        fail_point::around(Site::Prune, tx.commit()).await?;
        pruned.rows += rows.unsigned_abs();
        if all {
            pruned.runs += runs.len() as u64;
            after = Some(last);
        }
    }
}
