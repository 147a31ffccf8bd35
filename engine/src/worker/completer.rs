//! Records what came of attempts. While one commit is under way the next batch gathers: group commit without a timer. A completion is
//! never dropped: it is applied, refused because somebody else holds its lane, or tried again.

use super::{reconnect::Reconnect, shared::Shared};
use crate::{
    commands::{
        complete_attempts::{Batch, Completed, Completion, Continued, ScopeCache, complete_attempts},
        give_way, is_permanent,
    },
    error::Result,
    fail_point::{self, Side, Site},
    measures::Tally,
    store::{lanes, rows::Claimed},
};
use sqlx::PgConnection;
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};
use tokio::sync::mpsc;

const BATCH: usize = 1024;

pub(super) async fn run(shared: Arc<Shared>, mut completions: mpsc::UnboundedReceiver<(u64, Completion)>) {
    let mut reconnect = Reconnect::new("completer", &shared.options);
    let mut cache = ScopeCache::default();
    let mut conn = None;
    let mut gathered = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            // Completions first: closing waits until nothing is in flight.
            biased;
            n = completions.recv_many(&mut gathered, BATCH) => if n == 0 { return },
            () = shared.closed.cancelled() => return,
        }
        let (numbers, ended): (Vec<u64>, Vec<Completion>) = gathered.drain(..).unzip();
        let slots = ended.len();
        let tally = Tally::of(&ended);
        shared.measures.commit_batch.record(slots as f64);
        let mut pending = vec![Batch::decide(ended, || crate::commands::complete_attempts::Room::chance(&*shared))];
        let (mut done, asked) = (Completed::default(), Instant::now());
        while let Some(batch) = pending.last_mut() {
            if batch.is_empty() {
                pending.pop();
                continue;
            }
            if conn.is_none() {
                conn = reconnect.connect(&shared.closed).await;
            }
            let Some(connection) = &mut conn else { return };
            match apply(&shared, connection, &mut cache, batch, &mut done).await {
                Ok(()) => reconnect.succeeded(),
                Err(e) if is_permanent(&e) => give_way(&mut pending, &e),
                Err(e) => {
                    reconnect.failed(&e);
                    conn = None;
                }
            }
        }
        // What was tried again has waited for the locks of the first try, so that one has ended by now.
        if !put_back_unheard(&shared, &mut conn, &mut reconnect, &done.unheard).await {
            return;
        }
        shared.measures.ended(tally);
        go_on(&shared, done, slots, &numbers, asked);
    }
}

async fn apply(shared: &Shared, conn: &mut PgConnection, cache: &mut ScopeCache, batch: &mut Batch, done: &mut Completed) -> Result<()> {
    let begun = Instant::now();
    complete_attempts(conn, cache, batch, shared.claimant(), shared, done).await?;
    shared.measures.commit_seconds.record(begun.elapsed().as_secs_f64());
    Ok(())
}

/// A connection that broke may have committed first: then successors are leased to this worker that nobody here carries out. They are ready
/// again, as if they had not been leased. False once the worker is closed.
async fn put_back_unheard(shared: &Shared, conn: &mut Option<PgConnection>, reconnect: &mut Reconnect, tokens: &[i64]) -> bool {
    for token in tokens {
        loop {
            if conn.is_none() {
                *conn = reconnect.connect(&shared.closed).await;
            }
            let Some(connection) = conn else { return false };
            match shared.claimant().in_time(lanes::put_back_unheard(connection, shared.worker, *token)).await {
                Ok(lanes) => {
                    if lanes > 0 {
                        shared.wake.notify_one();
                    }
                    break;
                }
                Err(e) => {
                    reconnect.failed(&e.into());
                    *conn = None;
                }
            }
        }
    }
    true
}

/// After the commits: successors start, slots are freed, counters move.
fn go_on(shared: &Shared, done: Completed, slots: usize, numbers: &[u64], asked: Instant) {
    let kept = done.continued.len() + done.leased.len();
    if kept > 0 {
        fail_point::reach(Site::GoOn, Side::Before);
    }
    for Continued { lease, version, inputs, state } in done.continued {
        shared.dispatch(lease, version, state, inputs, asked);
    }
    for Claimed { lease, state } in done.leased {
        match shared.registry.versions.get(lease.version) {
            Some(version) => shared.dispatch_claimed(lease, version, state, asked),
            // Not reachable: an item of the same version was completed here. Its lease would expire.
            None => tracing::error!(run = %lease.run, "a map goes on whose version is unknown here"),
        }
    }
    if kept > 0 {
        fail_point::reach(Site::GoOn, Side::After);
    }
    for number in numbers {
        shared.flights.land(*number);
    }
    // Every completed step frees its slot; continued, opened and leased ones keep or took one.
    let free = (slots + done.taken).saturating_sub(kept);
    shared.free_slots(free);
    shared.measure_slots();
    let measures = &shared.measures;
    measures.steps.increment(done.steps as u64);
    measures.runs.increment(done.runs as u64);
    measures.refused.increment(done.refused as u64);
    measures.conflicts.increment(done.conflicts as u64);
    let stats = &shared.stats;
    stats.steps.fetch_add(done.steps, Relaxed);
    stats.commits.fetch_add(done.commits, Relaxed);
    stats.conflicts.fetch_add(done.conflicts, Relaxed);
    stats.refused.fetch_add(done.refused, Relaxed);
    if done.refused > 0 {
        let why = match done.unheard.as_slice() {
            [] => "their leases had been lost",
            _ => "their leases had been lost, or a commit that nobody heard of had recorded them already",
        };
        tracing::warn!(refused = done.refused, "completions were refused: {why}");
    }
    stats.runs.fetch_add(done.runs, Relaxed);
    // A run may have ended by a commit that nobody heard of.
    if done.runs > 0 || !done.unheard.is_empty() {
        stats.ended.notify_waiters();
        stats.ended.notify_one();
    }
    if let Some(due) = done.due_in {
        shared.note_due(due);
    }
    if done.wake {
        shared.wake.notify_one();
    }
}
