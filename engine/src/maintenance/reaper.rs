//! Finds what nobody looks after any more: leases that have expired, runs whose time is up, workers that vanished. Each worker does so
//! with its heartbeat; `serve` does too, so that a run is stopped and a loss recorded even where no worker is left.

use super::rounds;
use crate::{commands::reap, error::Result, measures, store::workers, version::Versions};
use sqlx::{PgConnection, PgPool};
use std::{sync::Arc, time::Duration};

/// A worker that has been silent for this long was killed; its row goes. Many times longer than any heartbeat's interval.
const SILENCE_S: f64 = 600.0;
/// Whoever reaps holds what it took over for so many rounds, as a worker holds its steps for three heartbeats.
const LEASE_ROUNDS: u32 = 3;
/// Stands for a process that is no worker. Ids of workers begin at 1.
const NO_WORKER: i32 = 0;

pub(super) async fn run(pool: PgPool, versions: Arc<Versions>, every: Duration) {
    let mut rounds = rounds(every);
    loop {
        rounds.tick().await;
        let swept = async { sweep(&mut *pool.acquire().await?, &versions, NO_WORKER, every * LEASE_ROUNDS).await };
        if let Err(error) = swept.await {
            tracing::warn!(%error, "looking for expired leases failed; trying again");
        }
    }
}

/// One round. Returns how many leases were taken over.
pub(crate) async fn sweep(conn: &mut PgConnection, versions: &Versions, worker: i32, lease: Duration) -> Result<usize> {
    workers::remove_silent(conn, SILENCE_S).await?;
    let reaped = reap(conn, versions, worker, lease).await?;
    if reaped > 0 {
        tracing::warn!(reaped, "expired leases were taken over");
        measures::reaped(reaped);
    }
    Ok(reaped)
}
