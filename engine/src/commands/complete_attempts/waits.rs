//! Attempts that do not end their step: it waits for a time, is ready again, or becomes a map whose items wait. Each touches its own lane
//! only, guarded by the token.

use super::{Batch, Completed, Decided, Decision, Expansion, Wake, decide::Wait};
use crate::{
    definition::{Action, MapPlan},
    error::{Error, Result},
    lifecycle::Counters,
    store::{
        hot::{self, Holder, Reschedules},
        maps::{self, NewMap},
        records::to_json,
        rows::Lease,
    },
};
use sqlx::{Connection, PgConnection};
use std::time::Duration;

/// Applies `batch.waits`; what is refused moves to the locked path, which tells a stale token from a run that is being stopped.
pub(super) async fn reschedule(conn: &mut PgConnection, batch: &mut Batch, by: Holder, done: &mut Completed) -> Result<()> {
    if batch.waits.is_empty() {
        return Ok(());
    }
    let mut r = Reschedules::default();
    for d in &batch.waits {
        push(&mut r, d)?;
    }
    let accepted = hot::reschedule(conn, &r, by.worker).await?;
    done.commits += 1;
    for (at, d) in std::mem::take(&mut batch.waits).into_iter().enumerate() {
        match (&d.decision, accepted.contains(&at)) {
            (Decision::Waits(wait), true) => note(wait, done),
            _ => batch.locked.push(d),
        }
    }
    Ok(())
}

/// Applies `batch.expansions`.
pub(super) async fn expand(conn: &mut PgConnection, batch: &mut Batch, by: Holder, done: &mut Completed) -> Result<()> {
    if batch.expansions.is_empty() {
        return Ok(());
    }
    let all: Vec<&Decided> = batch.expansions.iter().collect();
    let mut tx = conn.begin().await?;
    let accepted = expand_in(&mut tx, &all, by).await?;
    tx.commit().await?;
    done.commits += 1;
    done.wake = true;
    for (at, d) in std::mem::take(&mut batch.expansions).into_iter().enumerate() {
        if !accepted.contains(&at) {
            batch.locked.push(d);
        }
    }
    Ok(())
}

/// The same for lanes that the caller has locked and found held.
pub(super) async fn apply_held(conn: &mut PgConnection, held: &[&Decided], by: Holder) -> Result<()> {
    let (waits, expansions): (Vec<&Decided>, Vec<&Decided>) = held.iter().partition(|d| matches!(d.decision, Decision::Waits(_)));
    let mut r = Reschedules::default();
    for d in &waits {
        push(&mut r, d)?;
    }
    let mut applied = 0;
    if !waits.is_empty() {
        applied += hot::reschedule(conn, &r, by.worker).await?.len();
    }
    if !expansions.is_empty() {
        applied += expand_in(conn, &expansions, by).await?.len();
    }
    if applied == held.len() { Ok(()) } else { Err(Error::LeaseLost) }
}

fn push(r: &mut Reschedules, d: &Decided) -> Result<()> {
    let empty;
    let wait = match &d.decision {
        Decision::Waits(wait) => wait,
        // An expanded map keeps its attempt: the same one finishes it when the items have ended.
        _ => {
            empty = Wait {
                state: "items",
                phase: Lease::FRESH,
                wake: Wake::After(Duration::ZERO),
                counters: d.lease.counters,
                excused: Duration::ZERO,
                record: None,
            };
            &empty
        }
    };
    let (delay, due) = match wait.wake {
        Wake::After(delay) => (delay, None),
        Wake::At(due) => (Duration::ZERO, Some(due)),
    };
    let Counters { failures, losses } = wait.counters;
    r.run.push(d.lease.run.0);
    r.scope.push(d.lease.scope.0.clone());
    r.lane.push(d.lease.lane);
    r.token.push(d.lease.token);
    r.state.push(wait.state);
    r.phase.push(wait.phase);
    r.delay_s.push(delay.as_secs_f64());
    r.due.push(due);
    r.failures.push(failures as i16);
    r.losses.push(losses as i16);
    r.excused_s.push(wait.excused.as_secs_f64());
    r.step.push(d.lease.step);
    r.attempt.push(d.lease.attempt as i32);
    r.status.push(wait.record.as_ref().map(|(status, _)| *status));
    let error = wait.record.as_ref().and_then(|(_, error)| error.as_ref());
    r.class.push(error.map(|e| e.class.name()));
    r.ms.push(d.ms);
    r.error.push(error.map(to_json).transpose()?);
    r.usage.push(error.and_then(|e| e.usage.as_ref()).map(to_json).transpose()?);
    r.wake |= wait.state == "ready";
    Ok(())
}

/// What this process should know of a wait: when to look again.
fn note(wait: &Wait, done: &mut Completed) {
    match wait.wake {
        Wake::After(Duration::ZERO) => done.wake = true,
        Wake::After(delay) => done.due_in = Some(done.due_in.map_or(delay, |d| d.min(delay))),
        // The claimer asks the database, whose clock decides.
        Wake::At(_) => done.wake = true,
    }
}

async fn expand_in(conn: &mut PgConnection, expansions: &[&Decided], by: Holder) -> Result<Vec<usize>, sqlx::Error> {
    let mut r = Reschedules { wake: true, ..Default::default() };
    for d in expansions {
        push(&mut r, d).map_err(into_sqlx)?;
    }
    let accepted = hot::reschedule(conn, &r, by.worker).await?;
    for at in &accepted {
        let d = expansions[*at];
        if let (Decision::Expands(expansion), Some((_, step))) = (&d.decision, d.version.step(d.lease.step))
            && let Action::Map(plan) = &step.action
        {
            maps::insert(conn, &new_map(d, plan, expansion)).await?;
        }
    }
    Ok(accepted)
}

fn new_map<'a>(d: &'a Decided, plan: &MapPlan, expansion: &'a Expansion) -> NewMap<'a> {
    let total = expansion.items.len() as u32;
    let roots = &d.version.dag.frame(plan.body).roots;
    let (entry, queue) = match roots[..] {
        [only] => (only.0 as i16, d.version.queues[only.at()]),
        _ => (Lease::ENTRY, d.lease.queue),
    };
    NewMap {
        run: d.lease.run,
        scope: &d.lease.scope,
        step: d.lease.step,
        lane: d.lease.lane,
        workflow_version: d.version.id.0,
        total: total as i32,
        max_failed: plan.tolerate.allowed(total) as i32,
        permits: plan.concurrency.map(|n| n.min(total) as i32),
        entry,
        queue,
        priority: d.lease.priority,
        template: d.version.item_template(plan.body).map(|state| state.encode()),
        items: &expansion.items,
        keys: expansion.keys.as_deref(),
    }
}

fn into_sqlx(error: Error) -> sqlx::Error {
    match error {
        Error::Store(e) => e,
        other => sqlx::Error::Protocol(other.to_string()),
    }
}
