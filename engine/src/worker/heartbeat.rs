//! Keeps what is in flight: renews leases by attempt on a timer of its own (also during a drain), hears of stopped runs, says that the
//! worker lives, and reaps what others have lost.

use super::{reconnect::Reconnect, shared::Shared};
use crate::{
    error::Result,
    fail_point::{self, Site},
    listener::{Hint, Listener},
    maintenance::reaper,
    patience::within,
    store::{
        lanes::{self, HeldLane, Renewal},
        workers,
    },
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
/// The longest pause between attempts to renew.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long it may take to begin to listen; polling serves as well.
const LISTENING: Duration = Duration::from_secs(10);
/// A statement is given at least this long, however short the leases.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn run(shared: Arc<Shared>) {
    // `beat` alone sees that the worker is closed: cut off between taking a lease over and completing it, the lease would be nobody's for as
    // long again.
    tokio::select! {
        () = hear(&shared) => {}
        () = beat(&shared) => {}
    }
}

/// Beside the renewals: neither waits while the other's connection is silent.
async fn hear(shared: &Shared) {
    let mut listener = match within(LISTENING, Listener::connect(&shared.listen_at, &shared.options)).await {
        Ok(listener) => listener,
        Err(e) => {
            tracing::warn!(error = %e, "no notifications; the worker polls");
            return std::future::pending().await;
        }
    };
    // What was said before is found by a look.
    shared.wake.notify_one();
    loop {
        match listener.next().await {
            Hint::Ready => shared.wake.notify_one(),
            Hint::Stopped(run) => shared.flights.stop_run(run),
        }
    }
}

async fn beat(shared: &Shared) {
    let mut reconnect = Reconnect::new("heartbeat", &shared.options).at_most(LONGEST_PAUSE);
    // A third of the lease between looks, and a renewal for whatever is older than half of that: a lease is half spent at most when it is
    // renewed.
    let mut tick = tokio::time::interval((shared.config.lease / 3).min(SELDOM));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A renewal that has not come through by then is worth another connection, while there is time for it.
    let patience = (shared.config.lease / 4).max(LEAST_PATIENCE);
    let mut conn = None;
    loop {
        tokio::select! {
            () = shared.closed.cancelled() => return,
            _ = tick.tick() => {}
        }
        let Some(mut renewed) = keep(shared, &mut conn, &mut reconnect, patience).await else { return };
        // What this does for others may wait for the next time; a connection that fails is not used again.
        match within(patience, look_after(shared, &mut renewed)).await {
            Ok(()) => conn = Some(renewed),
            Err(e) => reconnect.failed(&e),
        }
    }
}

/// Renews whatever is due, again and again until it has come through: by the next look it may be too late. None once the worker is closed.
async fn keep(shared: &Shared, conn: &mut Option<PgConnection>, reconnect: &mut Reconnect, patience: Duration) -> Option<PgConnection> {
    loop {
        let mut connection = match conn.take() {
            Some(connection) => connection,
            None => reconnect.connect(&shared.closed).await?,
        };
        match renew(shared, &mut connection, patience).await {
            Ok(()) => {
                reconnect.succeeded();
                return Some(connection);
            }
            Err(e) => reconnect.failed(&e),
        }
    }
}

async fn renew(shared: &Shared, conn: &mut PgConnection, patience: Duration) -> Result<()> {
    let (numbers, held): (Vec<u64>, Vec<HeldLane>) = shared.flights.due_renewals(shared.config.lease / 6).into_iter().unzip();
    for (numbers, held) in numbers.chunks(BATCH).zip(held.chunks(BATCH)) {
        let at = Instant::now();
        let found = within(patience, fail_point::around(Site::Renew, lanes::renew(conn, held, shared.claimant().lease_s))).await?;
        for (number, found) in numbers.iter().zip(found) {
            match found {
                Renewal::Renewed => shared.flights.renewed(*number, at),
                Renewal::Lost if shared.flights.lost(*number) => shared.measures.leases_lost.increment(1),
                // Asked again at the next look, or landed.
                Renewal::Held | Renewal::Lost => {}
            }
        }
    }
    Ok(())
}

/// Says that the worker lives, and takes over what others have lost.
async fn look_after(shared: &Shared, conn: &mut PgConnection) -> Result<()> {
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
