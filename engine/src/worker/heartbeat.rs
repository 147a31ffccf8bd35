//! Keeps what is in flight: renews leases by attempt on a timer of its own (also during a drain), hears of stopped runs, says that the
//! worker lives, and reaps what others have lost.

use super::{reconnect::Reconnect, shared::Shared};
use crate::{
    commands::reap,
    error::Result,
    listener::{Hint, Listener},
    store::{lanes, workers},
};
use sqlx::PgConnection;
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};
use tokio::time::MissedTickBehavior;

/// Renewals in one statement.
const BATCH: usize = 2000;
/// A worker that has been silent for this many leases was killed; its row goes.
const SILENT_LEASES: f64 = 20.0;

pub(super) async fn run(shared: Arc<Shared>, mut listener: Option<Listener>) {
    let mut reconnect = Reconnect::new("heartbeat", &shared.options);
    // A third of the lease between looks, and a renewal for whatever is older than half of that: each lease is renewed at least
    // twice before it could expire.
    let every = shared.config.lease / 3;
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut conn = None;
    loop {
        tokio::select! {
            () = shared.closed.cancelled() => return,
            hint = hear(&mut listener) => {
                match hint {
                    Hint::Ready => shared.wake.notify_one(),
                    Hint::Stopped(run) => shared.stop_run(run),
                }
                continue;
            }
            _ = tick.tick() => {}
        }
        if conn.is_none() {
            conn = reconnect.connect(&shared.closed).await;
        }
        let Some(connection) = &mut conn else { return };
        match beat(&shared, connection).await {
            Ok(()) => reconnect.succeeded(),
            Err(e) => {
                reconnect.failed(&e);
                conn = None;
            }
        }
    }
}

async fn hear(listener: &mut Option<Listener>) -> Hint {
    match listener {
        Some(listener) => listener.next().await,
        None => std::future::pending().await,
    }
}

async fn beat(shared: &Shared, conn: &mut PgConnection) -> Result<()> {
    let due = shared.due_renewals(shared.config.lease / 6);
    for batch in due.chunks(BATCH) {
        let at = Instant::now();
        let held: Vec<_> = batch.iter().map(|(_, held)| held.clone()).collect();
        let mut kept = vec![false; batch.len()];
        for position in lanes::renew(conn, &held, shared.lease_s()).await? {
            kept[position] = true;
        }
        for ((number, _), kept) in batch.iter().zip(kept) {
            shared.renewed(*number, kept, at);
        }
    }
    workers::seen(conn, shared.worker).await?;
    workers::remove_silent(conn, shared.lease_s() * SILENT_LEASES).await?;
    let reaped = reap(conn, &shared.registry.versions, shared.worker, shared.config.lease).await?;
    if reaped > 0 {
        tracing::warn!(reaped, "expired leases were taken over");
        shared.stats.reaped.fetch_add(reaped, Relaxed);
        shared.wake.notify_one();
    }
    Ok(())
}
