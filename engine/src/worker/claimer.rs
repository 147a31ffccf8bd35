//! Takes ready steps: exactly as many as there are free slots, so that nothing waits behind a long call.

use super::shared::Shared;
use crate::{
    commands::complete_attempts::Room,
    error::{Error, Result},
    fail_point::{self, Side, Site},
    store::{
        holder::Holder,
        hot::{self, Claim},
        lanes,
        rows::Claimed,
        workers,
    },
    worker::{Serves, reconnect::Reconnect},
};
use sqlx::PgConnection;
use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

/// More in one claim brings nothing (prototype: 1,024 was best) and makes for long transactions.
const BATCH: usize = 1024;
/// After this long without work the worker says that it is idle, so that others notify it.
const QUIET: Duration = Duration::from_millis(20);

pub(super) async fn run(shared: Arc<Shared>) {
    let (mut reconnect, mut unheard) = (Reconnect::new("claimer", &shared.options), None);
    while let Some(mut conn) = reconnect.connect(&shared.closed).await {
        match claim_until_closed(&shared, &mut conn, &mut reconnect, &mut unheard).await {
            Ok(()) => return,
            Err(e) => reconnect.failed(&e),
        }
    }
}

/// `unheard` is the token of a claim whose answer was lost with its connection: what it leased is ready again first. (A claim that commits
/// only now is not seen here; what it leases waits for the reaper.)
async fn claim_until_closed(shared: &Shared, conn: &mut PgConnection, reconnect: &mut Reconnect, unheard: &mut Option<i64>) -> Result<()> {
    if let Some(token) = *unheard {
        shared.claimant().in_time(lanes::put_back_unheard(conn, shared.worker, token)).await?;
        *unheard = None;
    }
    let mut marked = false;
    loop {
        if shared.stopping.is_cancelled() {
            return Ok(());
        }
        if !shared.has_free_slot() {
            wait_for_slot(shared, conn).await?;
            continue;
        }
        let claiming = shared.flights.claiming();
        // Asked again under the count: a stop either sees this claim or is seen by it.
        if shared.stopping.is_cancelled() {
            return Ok(());
        }
        let want = shared.take_slots(BATCH);
        if want == 0 {
            continue;
        }
        let by = shared.claimant().holder();
        let Got { steps: got, due } = match claim(shared, conn, want, by).await {
            Ok(got) => got,
            Err(e) => {
                *unheard = Some(by.token);
                shared.free_slots(want);
                return Err(e);
            }
        };
        drop(claiming);
        reconnect.succeeded();
        shared.free_slots(want - got);
        shared.measure_slots();
        shared.drained.store(got < want, Relaxed);
        if got == want {
            if marked {
                marked = false;
                shared.claimant().in_time(workers::mark(conn, shared.worker, false)).await?;
            }
            continue;
        }
        if woken(shared, QUIET).await {
            continue;
        }
        if !marked {
            // Said before the last look: whoever commits after that look sees the mark and notifies.
            marked = true;
            shared.claimant().in_time(workers::mark(conn, shared.worker, true)).await?;
            continue;
        }
        let timer = due.map(|due| due.saturating_duration_since(Instant::now()));
        let pause = [timer, shared.take_due()].into_iter().flatten().fold(shared.config.poll, Duration::min);
        woken(shared, pause).await;
    }
}

/// What came of a claim: steps that are on their way, and when the next timer is due.
struct Got {
    steps: usize,
    due: Option<Instant>,
}

async fn claim(shared: &Shared, conn: &mut PgConnection, want: usize, by: Holder) -> Result<Got> {
    let asked = Instant::now();
    fail_point::reach(Site::Claim, Side::Before);
    let Claim { leased, left, due_in } = match shared.config.serves {
        Serves::Everything => shared.claimant().in_time(hot::claim(conn, &shared.queues, want, shared.chance(), by)).await?,
        Serves::OneRun => match shared.only.get() {
            Some(run) => shared.claimant().in_time(hot::claim_run(conn, *run, &shared.queues, want, by)).await?,
            None => Claim::default(),
        },
    };
    if !leased.is_empty() {
        fail_point::reach(Site::Claim, Side::After);
    }
    shared.stats.claims.fetch_add(1, Relaxed);
    shared.measures.claim_seconds.record(asked.elapsed().as_secs_f64());
    if !leased.is_empty() {
        shared.measures.claim_batch.record(leased.len() as f64);
    }
    shared.urgent.store(left.unwrap_or(i16::MIN), Relaxed);
    for id in leased.iter().map(|c| c.lease.version).collect::<HashSet<_>>() {
        if let Err(e) = shared.claimant().in_time(shared.registry.versions.load(conn, id)).await {
            match e {
                Error::Store(e) => return Err(e.into()),
                // Its leases expire, so that a worker that can read it takes over.
                e => tracing::error!(version = id.0, error = %e, "steps were claimed whose workflow version this worker can't read"),
            }
        }
    }
    let mut steps = 0;
    for Claimed { lease, state } in leased {
        let Some(version) = shared.registry.versions.get(lease.version) else { continue };
        steps += 1;
        shared.dispatch_claimed(lease, version, state, asked);
    }
    Ok(Got { steps, due: due_in.map(|due_in| asked + due_in) })
}

/// Every slot is taken. Once a second, see whether something more urgent waits than what goes on here.
async fn wait_for_slot(shared: &Shared, conn: &mut PgConnection) -> Result<()> {
    tokio::select! {
        () = shared.freed.notified() => {}
        () = shared.stopping.cancelled() => {}
        () = tokio::time::sleep(Duration::from_secs(1)) => {
            let top = shared.claimant().in_time(lanes::most_urgent(conn, &shared.queues)).await?;
            shared.urgent.store(top.unwrap_or(i16::MIN), Relaxed);
        }
    }
    Ok(())
}

async fn woken(shared: &Shared, within: Duration) -> bool {
    tokio::select! {
        () = shared.wake.notified() => true,
        () = shared.stopping.cancelled() => true,
        () = tokio::time::sleep(within) => false,
    }
}
