//! Keeps what is in flight: renews leases by attempt on a timer of its own (also during a drain), hears of stopped runs, says that the
//! worker lives, and reaps what others have lost.

use super::{reconnect::Reconnect, shared::Shared};
use crate::{
    error::Result,
    listener::{Hint, Listener},
    maintenance::reaper,
    store::{lanes, workers},
};
use sqlx::PgConnection;
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::time::MissedTickBehavior;

/// Renewals in one statement.
const BATCH: usize = 2000;
/// With long leases too a worker is heard of often enough to count as alive, and runs that are overdue are found in time.
const SELDOM: Duration = Duration::from_secs(15);

pub(super) async fn run(shared: Arc<Shared>, mut listener: Option<Listener>) {
    let mut reconnect = Reconnect::new("heartbeat", &shared.options);
    // A third of the lease between looks, and a renewal for whatever is older than half of that: each lease is renewed at least
    // twice before it could expire.
    let every = (shared.config.lease / 3).min(SELDOM);
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
    if !workers::seen(conn, shared.worker).await? {
        // The machine slept, or the database was away for long.
        let queues = shared.config.known_for(&shared.queues);
        workers::register_again(conn, shared.worker, &shared.config.name, queues, shared.config.concurrency as i32).await?;
    }
    let reaped = reaper::sweep(conn, &shared.registry.versions, shared.worker, shared.config.lease).await?;
    if reaped > 0 {
        shared.stats.reaped.fetch_add(reaped, Relaxed);
        shared.wake.notify_one();
    }
    Ok(())
}
