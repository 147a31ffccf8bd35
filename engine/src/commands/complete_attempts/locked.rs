//! The path for whatever the fast one could not take: state unknown here, a guard that did not hold, a failure for good, a run that is
//! being stopped. Scopes, maps and lanes are locked in that order, what is stale is dropped, and the same rules decide.

use super::{Batch, Completed, Decided, Decision, Planner, Room, ScopeCache, cache::CachedScope, waits};
use crate::{
    commands::finish_stopped,
    error::{Error, Result},
    fail_point::{self, Site},
    id::{RunId, ScopePath},
    store::{
        bundles,
        holder::{Claimant, Holder},
        hot,
        lanes::{self, Held},
        maps,
        records::{self, AttemptRecord},
        rows::{Claimed, Lease},
        runs::{self, RunFacts},
    },
};
use sqlx::{Connection, PgConnection};
use std::collections::{BTreeSet, HashMap};

/// Completes everything in `batch.locked`.
pub(crate) async fn complete(
    conn: &mut PgConnection,
    cache: &mut ScopeCache,
    batch: &mut Batch,
    by: Claimant,
    room: &dyn Room,
    done: &mut Completed,
) -> Result<()> {
    if batch.locked.is_empty() {
        return Ok(());
    }
    batch.locked.sort_by(|a, b| a.key_ref().cmp(&b.key_ref()));
    let holder = by.holder();
    let mut planner = Planner::new(holder, Some(room));
    match by.in_time(in_one_transaction(conn, cache, &batch.locked, holder, &mut planner)).await {
        Ok(applied) => {
            done.refused += batch.locked.len() - applied.held;
            done.runs += applied.stopped;
            planner.settle(cache, done, applied.leased);
            // Waits that came here because their run was being stopped, but whose lane is held after all, go the ordinary way.
            batch.locked.clear();
            Ok(())
        }
        Err(Error::Store(e)) if hot::is_fenced(&e) => {
            planner.give_back();
            if batch.locked.len() > 1 {
                // Under these locks only two completions that exclude each other can do that: each alone tells which.
                return Err(Error::LeaseLost);
            }
            tracing::error!(run = %batch.locked[0].lease.run, error = %e, "a completion does not fit what the database holds; it is refused");
            done.refused += 1;
            batch.locked.clear();
            Ok(())
        }
        Err(e) => {
            planner.give_back();
            done.unheard.push(holder.token);
            Err(e)
        }
    }
}

struct Applied {
    held: usize,
    stopped: usize,
    leased: Vec<Claimed>,
}

async fn in_one_transaction(
    conn: &mut PgConnection,
    cache: &mut ScopeCache,
    batch: &[Decided],
    by: Holder,
    planner: &mut Planner<'_>,
) -> Result<Applied> {
    let mut tx = conn.begin().await?;
    let mut scopes = lock_scopes(&mut tx, batch).await?;
    lock_maps(&mut tx, batch).await?;
    let leases: Vec<&Lease> = batch.iter().map(|d| &d.lease).collect();
    bundles::take_out(&mut tx, &leases).await?;
    let held = lanes::lock_held(&mut tx, &leases).await?;
    let facts = facts(&mut tx, batch).await?;
    let (groups, aborting) = by_scope(batch, &held);
    for group in groups {
        let first = group[0];
        let facts =
            facts.get(&first.lease.run).ok_or_else(|| Error::Internal(format!("run {} has lanes but no header", first.lease.run)))?;
        let (waiting, ended): (Vec<&Decided>, Vec<&Decided>) =
            group.into_iter().partition(|d| matches!(d.decision, Decision::Waits(_) | Decision::Expands(_)));
        waits::apply_held(&mut tx, &waiting, by).await?;
        if ended.is_empty() {
            continue;
        }
        if first.bare_item {
            for d in ended {
                planner.bare_item(d, Some(facts))?;
            }
            continue;
        }
        let key = first.key();
        let state = scopes.remove(&key).ok_or_else(|| Error::Internal(format!("run {} has a lane in a scope without a state", key.0)))?;
        let mut scope = CachedScope::new(key.0, key.1.clone(), state);
        if let Some(known) = cache.forget(&key) {
            scope.inherit(known);
        }
        planner.scope(scope, &ended, Some(facts))?;
    }
    let leased = planner.apply_in(&mut tx).await?;
    let stopped = stop(&mut tx, &aborting, by).await?;
    fail_point::around(Site::CompleteLocked, tx.commit()).await?;
    Ok(Applied { held: held.len(), stopped, leased })
}

/// Completions whose lane is still held, grouped by scope, and those whose run is being stopped. A batch may hold two attempts of one lane:
/// the token tells which of them has it.
fn by_scope<'a>(batch: &'a [Decided], held: &HashMap<(RunId, ScopePath, i32), Held>) -> (Vec<Vec<&'a Decided>>, Vec<&'a Decided>) {
    let (mut groups, mut aborting): (Vec<Vec<&Decided>>, _) = (vec![], vec![]);
    for d in batch {
        let lane = held.get(&(d.lease.run, d.lease.scope.clone(), d.lease.lane)).filter(|lane| lane.token == d.lease.token);
        match (lane, groups.last_mut()) {
            (Some(Held { aborting: true, .. }), _) => aborting.push(d),
            (Some(_), Some(group)) if group[0].key_ref() == d.key_ref() => group.push(d),
            (Some(_), _) => groups.push(vec![d]),
            (None, _) => {}
        }
    }
    (groups, aborting)
}

async fn lock_scopes(
    conn: &mut PgConnection,
    batch: &[Decided],
) -> Result<HashMap<(RunId, ScopePath), crate::store::rows::VersionedState>> {
    // The root as well: whoever stops or redrives the run holds it.
    let keys: BTreeSet<_> = batch.iter().flat_map(|d| [(d.lease.run, ScopePath::root()), d.key()]).collect();
    let keys: Vec<_> = keys.into_iter().collect();
    let locked = runs::lock_scopes(conn, &keys).await?;
    Ok(locked.into_iter().map(|s| ((s.run, s.scope), s.state)).collect())
}

async fn lock_maps(conn: &mut PgConnection, batch: &[Decided]) -> Result<()> {
    let keys: BTreeSet<_> =
        batch.iter().filter_map(|d| d.lease.scope.parent().map(|(scope, map, _)| (d.lease.run, scope, map.0 as i16))).collect();
    if !keys.is_empty() {
        maps::lock(conn, &keys.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

async fn facts(conn: &mut PgConnection, batch: &[Decided]) -> Result<HashMap<RunId, RunFacts>> {
    let ids: BTreeSet<_> = batch.iter().map(|d| d.lease.run.0).collect();
    let facts = runs::facts(conn, &ids.into_iter().collect::<Vec<_>>()).await?;
    Ok(facts.into_iter().map(|f| (f.run, f)).collect())
}

/// Attempts of runs that are being stopped: whatever they brought is refused, what they used is booked, and the last one ends the run.
async fn stop(conn: &mut PgConnection, aborting: &[&Decided], by: Holder) -> Result<usize> {
    if aborting.is_empty() {
        return Ok(0);
    }
    let records: Vec<_> = aborting.iter().map(|d| cancelled(d, by)).collect();
    records::insert_attempts(conn, &records).await?;
    let leases: Vec<&Lease> = aborting.iter().map(|d| &d.lease).collect();
    lanes::remove_aborting(conn, &leases).await?;
    let mut stopped = 0;
    let runs: BTreeSet<RunId> = leases.iter().map(|l| l.run).collect();
    for run in runs {
        stopped += usize::from(finish_stopped(conn, run).await?);
    }
    Ok(stopped)
}

fn cancelled(d: &Decided, by: Holder) -> AttemptRecord<'_> {
    let (error, usage) = match &d.decision {
        Decision::Succeeded { usage, .. } => (None, usage.as_ref()),
        Decision::Failed { error, .. } => (Some(error), None),
        Decision::Waits(wait) => (wait.record.as_ref().and_then(|(_, error)| error.as_ref()), None),
        Decision::Skipped | Decision::Entered | Decision::Expands(_) => (None, None),
    };
    AttemptRecord {
        run: d.lease.run,
        scope: &d.lease.scope,
        step: d.lease.step,
        attempt: d.lease.attempt,
        status: "cancelled",
        error,
        usage,
        ms: d.ms,
        worker: by.worker,
    }
}
