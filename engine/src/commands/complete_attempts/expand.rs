//! A map whose items are known: they are stored, and its lane waits for them. Where this process has room and nothing older waits, the
//! first items are leased to it in the same transaction, with what it knows of their inputs, so that they need neither a claim nor a read.

use super::{Batch, Completed, Decided, Decision, Expansion, Inputs, NoRoom, Room, plan::Continued};
use crate::{
    definition::{Action, MapPlan},
    error::{Error, Result},
    fail_point::{self, Site},
    id::StepIx,
    lifecycle::Counters,
    payload::Payload,
    store::{
        bundles,
        holder::{Claimant, Holder},
        maps::{self, NewMap},
        rows::{Lease, VersionedState},
    },
};
use sqlx::PgConnection;
use std::time::Duration;

/// Applies `batch.expansions`, a transaction for each; what is refused moves to the locked path.
pub(super) async fn expand(conn: &mut PgConnection, batch: &mut Batch, by: Claimant, room: &dyn Room, done: &mut Completed) -> Result<()> {
    while let Some(d) = batch.expansions.last() {
        let holder = by.holder();
        let applied = match fail_point::around(Site::Expand, apply(conn, d, holder, room)).await {
            Ok(applied) => applied,
            Err(e) => {
                done.unheard.push(holder.token);
                return Err(e);
            }
        };
        let decided = batch.expansions.pop();
        match applied {
            Some(Expanded { born, left }) => {
                done.commits += 1;
                done.taken += born.len();
                done.continued.extend(born);
                done.wake |= left;
            }
            None => batch.locked.extend(decided),
        }
    }
    Ok(())
}

/// The same for a lane that the caller has locked and found held, in the caller's transaction.
pub(super) async fn apply_held(conn: &mut PgConnection, d: &Decided, by: Holder) -> Result<bool> {
    Ok(apply(conn, d, by, &NoRoom).await?.is_some())
}

/// A map that was expanded.
struct Expanded {
    /// The items that are leased to this process.
    born: Vec<Continued>,
    /// Items are left that could be claimed at once.
    left: bool,
}

/// None if the lease on the map was lost.
async fn apply(conn: &mut PgConnection, d: &Decided, by: Holder, room: &dyn Room) -> Result<Option<Expanded>> {
    let map = MapLane::of(d)?;
    let mine = map.reserve(room);
    match by.in_time(maps::insert(conn, &map.row(mine), by)).await {
        Ok(true) => {
            let born = (0..mine).map(|item| map.item(item, by)).collect();
            Ok(Some(Expanded { born, left: mine < map.startable() }))
        }
        refused => {
            room.give_back(mine);
            refused.map(|_| None).map_err(Into::into)
        }
    }
}

/// An expansion with what its version says about it.
struct MapLane<'a> {
    d: &'a Decided,
    ix: StepIx,
    plan: &'a MapPlan,
    expansion: &'a Expansion,
    /// What an item's lane begins with, and on which queue.
    entry: i16,
    queue: i16,
    state: Option<VersionedState>,
}

impl<'a> MapLane<'a> {
    fn of(d: &'a Decided) -> Result<Self> {
        let (Decision::Expands(expansion), Some((ix, step))) = (&d.decision, d.version.step(d.lease.step)) else {
            return Err(Error::Internal(format!("step {} of run {} expands nothing", d.lease.step, d.lease.run)));
        };
        let Action::Map(plan) = &step.action else {
            return Err(Error::Internal(format!("step {} of run {} is no map", d.lease.step, d.lease.run)));
        };
        let (entry, queue) = match d.version.dag.frame(plan.body).roots[..] {
            [only] => (only.0 as i16, d.version.queues[only.at()]),
            _ => (Lease::ENTRY, d.lease.queue),
        };
        let state = d.version.item_template(plan.body).map(|frame| VersionedState { version: 1, frame });
        Ok(Self { d, ix, plan, expansion, entry, queue, state })
    }

    fn bundled(&self) -> bool {
        self.d.version.bundles(self.plan.body)
    }

    fn total(&self) -> usize {
        self.expansion.items.len()
    }

    fn permits(&self) -> Option<usize> {
        self.plan.concurrency.map(|n| self.total().min(n as usize))
    }

    /// Items that may be started at once.
    fn startable(&self) -> usize {
        self.permits().unwrap_or(self.total())
    }

    fn reserve(&self, room: &dyn Room) -> usize {
        match room.idle() && room.continues(self.queue, self.d.lease.priority) {
            true => room.take(self.startable()),
            false => 0,
        }
    }

    fn row(&self, mine: usize) -> NewMap<'_> {
        let lease = &self.d.lease;
        NewMap {
            run: lease.run,
            scope: &lease.scope,
            step: lease.step,
            lane: lease.lane,
            held: lease.token,
            workflow_version: self.d.version.id.0,
            total: self.total() as i32,
            max_failed: self.plan.tolerate.allowed(self.total() as u32) as i32,
            permits: self.permits().map(|n| n as i32),
            entry: self.entry,
            queue: self.queue,
            priority: lease.priority,
            bundled: self.bundled(),
            template: self.state.as_ref().map(|state| state.frame.encode()),
            items: &self.expansion.items,
            keys: self.expansion.keys.as_deref(),
            mine: mine as i32,
        }
    }

    /// An item that was born leased.
    fn item(&self, item: usize, by: Holder) -> Continued {
        let lease = Lease {
            scope: self.d.lease.scope.item(self.ix, item as u32),
            lane: 0,
            token: by.token,
            step: self.entry,
            phase: Lease::FRESH,
            attempt: 1,
            counters: Counters::default(),
            queue: self.queue,
            bundle: self.bundled().then(|| (item - item % bundles::SIZE as usize) as i32),
            overdue: Duration::ZERO,
            ..self.d.lease.clone()
        };
        let inputs = self.inputs(item, &lease);
        Continued { lease, version: self.d.version.clone(), inputs, state: self.state.clone() }
    }

    /// What the item's first step looks at, as far as the map's own attempt knew it.
    fn inputs(&self, item: usize, lease: &Lease) -> Inputs {
        let known = &self.d.inputs;
        let mut inputs = Inputs { input: known.input.clone(), facts: known.facts.clone(), ..Inputs::default() };
        // Around an item of another map there is more to know; the loader reads it.
        if !self.d.lease.scope.is_root() {
            return inputs;
        }
        let key = self.expansion.keys.as_ref().map(|keys| serde_json::from_str(&keys[item]));
        let Ok(key) = key.transpose() else { return inputs };
        inputs.keys = vec![key];
        inputs.complete = true;
        let Some(reads) = self.d.version.reads(lease) else { return inputs };
        inputs.complete = !(reads.input && inputs.input.is_none() || reads.run && inputs.facts.is_none());
        for ix in &reads.steps {
            match known.steps.iter().find(|(step, _)| step == ix) {
                Some(step) => inputs.steps.push(step.clone()),
                None => inputs.complete = false,
            }
        }
        if reads.items.contains(&self.ix) {
            inputs.items.push((self.ix, Payload::from_json_text(self.expansion.items[item].as_str())));
        }
        inputs
    }
}
