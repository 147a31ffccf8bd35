//! Attempts that do not end their step: it waits for a time, or is ready again. Each touches its own lane only, guarded by the token.

use super::{Batch, Completed, Decided, Decision, Wake, decide::Wait, expand};
use crate::{
    error::{Error, Result},
    fail_point::{self, Site},
    lifecycle::Counters,
    store::{
        holder::{Claimant, Holder},
        hot::{self, Reschedules},
        records::to_json,
    },
};
use sqlx::PgConnection;
use std::time::Duration;

/// Applies `batch.waits`; what is refused moves to the locked path, which tells a stale token from a run that is being stopped.
pub(super) async fn reschedule(conn: &mut PgConnection, batch: &mut Batch, by: Claimant, done: &mut Completed) -> Result<()> {
    if batch.waits.is_empty() {
        return Ok(());
    }
    // The lock order of lanes.
    batch.waits.sort_by(|a, b| (a.key_ref(), a.lease.lane).cmp(&(b.key_ref(), b.lease.lane)));
    let mut r = Reschedules::default();
    for d in &batch.waits {
        if let Decision::Waits(wait) = &d.decision {
            push(&mut r, d, wait)?;
        }
    }
    let accepted = by.in_time(fail_point::around(Site::Reschedule, hot::reschedule(conn, &r, by.worker))).await?;
    done.commits += 1;
    for (at, d) in std::mem::take(&mut batch.waits).into_iter().enumerate() {
        match (&d.decision, accepted.contains(&at)) {
            (Decision::Waits(wait), true) => note(wait, done),
            _ => batch.locked.push(d),
        }
    }
    Ok(())
}

/// The same, and expansions, for lanes that the caller has locked and found held.
pub(super) async fn apply_held(conn: &mut PgConnection, held: &[&Decided], by: Holder) -> Result<()> {
    let mut r = Reschedules::default();
    let (mut waits, mut applied) = (0, 0);
    for d in held {
        match &d.decision {
            Decision::Waits(wait) => {
                push(&mut r, d, wait)?;
                waits += 1;
            }
            _ => applied += usize::from(expand::apply_held(conn, d, by).await?),
        }
    }
    if waits > 0 {
        applied += hot::reschedule(conn, &r, by.worker).await?.len();
    }
    if applied == held.len() { Ok(()) } else { Err(Error::LeaseLost) }
}

fn push(r: &mut Reschedules, d: &Decided, wait: &Wait) -> Result<()> {
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
    r.bundles.add(&d.lease);
    if wait.state == "ready" {
        r.wake.insert(d.lease.queue);
    }
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
