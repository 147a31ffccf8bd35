//! Attempts end. A batch of completions is decided by `lifecycle` from cached state and applied in one round trip; where a guard does not
//! hold, the batch takes the locked path: the same rules, from state read under lock. Both end in the same statement.
//!
//! [`decide`] asks the rules what each outcome means, [`plan`] turns ends of steps into a transition, [`locked`] reads under lock,
//! [`waits`] applies what does not end a step, [`expand`] what becomes a map, [`extras`] what a transition brings along, [`cache`] is what the
//! completing process remembers of live scopes.

mod cache;
mod decide;
mod expand;
mod extras;
mod locked;
mod plan;
#[cfg(test)]
mod tests;
mod waits;

pub(crate) use cache::{Inputs, ScopeCache};
pub(crate) use plan::Continued;

use crate::{
    error::Result,
    executor::{StepError, Usage},
    payload::Payload,
    store::{
        holder::Claimant,
        hot,
        rows::{Claimed, Lease, VersionedState},
    },
    version::Version,
};
use decide::{Decided, Decision};
use plan::Planner;
use sqlx::PgConnection;
use std::{sync::Arc, time::Duration};

/// What an attempt came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The step is done; on a finish lane: the run's output.
    Succeeded { output: Payload, usage: Option<Usage> },
    /// Its condition was false.
    Skipped,
    /// It failed; the rules decide whether for good.
    Failed { error: StepError, input: Option<Payload> },
    /// A `wait` step: come back later.
    Sleep(Wake),
    /// A map whose items are known.
    Expanded(Expansion),
    /// An item with several first steps: open their lanes.
    Entered,
    /// Its worker vanished.
    Lost,
    /// Its worker gives it back.
    Released,
}

/// When a sleeping step is due.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wake {
    After(Duration),
    At(chrono::DateTime<chrono::Utc>),
}

/// A map's items, each as JSON text, at least one.
#[derive(Debug)]
pub(crate) struct Expansion {
    pub items: Vec<String>,
    /// As JSON strings, where the map declares a key.
    pub keys: Option<Vec<String>>,
}

/// An attempt that ended, with what its worker still knows of its scope.
#[derive(Debug)]
pub(crate) struct Completion {
    pub lease: Lease,
    pub version: Arc<Version>,
    pub outcome: Outcome,
    pub elapsed: Duration,
    pub loaded: Option<VersionedState>,
    pub inputs: Inputs,
}

/// What the completing process can take on.
pub(crate) trait Room: Sync {
    /// Takes up to so many slots.
    fn take(&self, max: usize) -> usize;
    /// Gives slots back.
    fn give_back(&self, slots: usize);
    /// May a successor on this queue, with this priority, go on here?
    fn continues(&self, queue: i16, priority: i16) -> bool;
    /// Is nothing older waiting, so that whoever has items may hand them out without a claim?
    fn idle(&self) -> bool;
    /// From [0, 1): spreads backoff.
    fn chance(&self) -> f64;
}

/// No room: whatever is released is for others.
pub(crate) struct NoRoom;

impl Room for NoRoom {
    fn take(&self, _max: usize) -> usize {
        0
    }
    fn give_back(&self, _slots: usize) {}
    fn continues(&self, _queue: i16, _priority: i16) -> bool {
        false
    }
    fn idle(&self) -> bool {
        false
    }
    fn chance(&self) -> f64 {
        1.0
    }
}

/// What came of a batch.
#[derive(Default)]
pub(crate) struct Completed {
    /// Successors that are leased to the caller already, with what is known of their inputs.
    pub continued: Vec<Continued>,
    /// Leased to the caller: maps whose items have ended, and further items of maps that go on.
    pub leased: Vec<Claimed>,
    /// Steps that were brought to an end.
    pub steps: usize,
    /// Runs that have ended.
    pub runs: usize,
    /// Completions that were refused: their lease was no longer theirs.
    pub refused: usize,
    /// Tokens of transactions that failed on the way: they may have been committed all the same, and what they leased is nobody's.
    pub unheard: Vec<i64>,
    /// Batches that had to take the locked path.
    pub conflicts: usize,
    /// Transactions.
    pub commits: usize,
    /// Work was left in the database: wake this process's claimer.
    pub wake: bool,
    /// Slots taken for successors beyond those that the completed steps held.
    pub taken: usize,
    /// The soonest timer that was set, from now.
    pub due_in: Option<Duration>,
}

/// A batch, decided: what is still to be applied, by the way it takes.
#[derive(Default)]
pub(crate) struct Batch {
    steps: Vec<Decided>,
    items: Vec<Decided>,
    waits: Vec<Decided>,
    expansions: Vec<Decided>,
    locked: Vec<Decided>,
    given_up: bool,
}

impl Batch {
    /// Asks the rules about each completion. A completion whose scope makes no sense in its version comes back as an error beside it.
    pub fn decide(completions: Vec<Completion>, chance: impl Fn() -> f64) -> Self {
        let mut batch = Self::default();
        for completion in completions {
            let decided = decide::decide(completion, &chance);
            match (&decided.decision, decided.bare_item) {
                (Decision::Failed { .. }, _) => batch.locked.push(decided),
                // Its counter goes with it, and must stay if it is refused.
                (Decision::Succeeded { .. }, true) if decided.lease.phase == Lease::FILLED => batch.locked.push(decided),
                (Decision::Waits(_), _) => batch.waits.push(decided),
                (Decision::Expands(_), _) => batch.expansions.push(decided),
                (Decision::Succeeded { .. } | Decision::Skipped, true) => batch.items.push(decided),
                (Decision::Succeeded { .. } | Decision::Skipped | Decision::Entered, _) => batch.steps.push(decided),
            }
        }
        batch
    }

    /// Is everything applied?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many completions are still to be applied.
    pub fn len(&self) -> usize {
        self.steps.len() + self.items.len() + self.waits.len() + self.expansions.len() + self.locked.len()
    }

    /// One batch for each completion: when something in a batch can't be stored, the rest must not suffer.
    pub fn split(self) -> Vec<Batch> {
        let Self { steps, items, waits, expansions, locked, given_up } = self;
        let all = steps.into_iter().chain(items).chain(waits).chain(expansions).chain(locked);
        all.map(|decided| Batch { locked: vec![decided], given_up, ..Default::default() }).collect()
    }

    /// Has it been tried as a failure already?
    pub fn was_given_up(&self) -> bool {
        self.given_up
    }

    /// The database will never take this completion: it fails for good, with that as its error.
    pub fn give_up(mut self, error: &StepError) -> Batch {
        for decided in &mut self.locked {
            decided.decision = Decision::Failed { error: error.clone(), input: None };
        }
        self.given_up = true;
        self
    }
}

/// Applies a batch; not to be dropped in the middle, or what it had taken from `batch` is gone. After an error, `batch` holds what has not
/// been applied; applying that again is safe, since what was applied after all is refused the second time.
pub(crate) async fn complete_attempts(
    conn: &mut PgConnection,
    cache: &mut ScopeCache,
    batch: &mut Batch,
    by: Claimant,
    room: &dyn Room,
    done: &mut Completed,
) -> Result<()> {
    waits::reschedule(conn, batch, by, done).await?;
    expand::expand(conn, batch, by, room, done).await?;
    complete_ended(conn, cache, batch, by, room, done).await?;
    locked::complete(conn, cache, batch, by, room, done).await
}

/// Good ends, decided here: of steps in scopes whose state is cached, guarded by its version, and of items without a state, which touch
/// their bundle or lane and, by count, their map.
async fn complete_ended(
    conn: &mut PgConnection,
    cache: &mut ScopeCache,
    batch: &mut Batch,
    by: Claimant,
    room: &dyn Room,
    done: &mut Completed,
) -> Result<()> {
    loop {
        let holder = by.holder();
        let mut planner = Planner::new(holder, Some(room));
        let steps = plan_steps(cache, batch, &mut planner);
        let items = std::mem::take(&mut batch.items);
        if steps.is_empty() && items.is_empty() {
            return Ok(());
        }
        if let Err(e) = items.iter().try_for_each(|item| planner.bare_item(item, None)) {
            planner.give_back();
            (batch.steps, batch.items) = (steps, items);
            return Err(e);
        }
        match by.in_time(planner.apply(conn)).await {
            Ok(leased) => {
                planner.settle(cache, done, leased);
                return Ok(());
            }
            Err(e) => {
                planner.give_back();
                if !hot::is_fenced(&e) {
                    done.unheard.push(holder.token);
                    (batch.steps, batch.items) = (steps, items);
                    return Err(e.into());
                }
                done.conflicts += 1;
                if steps.is_empty() {
                    // Somebody else holds some of them, or their run is being stopped: the locked path tells which.
                    batch.locked.extend(items);
                    return Ok(());
                }
                // Without the steps the items may hold.
                batch.locked.extend(steps);
                batch.items = items;
            }
        }
    }
}

/// Takes the ends of steps that the rules accept on the state that is known here; the others take the locked path.
fn plan_steps(cache: &mut ScopeCache, batch: &mut Batch, planner: &mut Planner<'_>) -> Vec<Decided> {
    let mut steps = std::mem::take(&mut batch.steps);
    steps.sort_by(|a, b| a.key_ref().cmp(&b.key_ref()));
    let mut planned: Vec<Decided> = Vec::with_capacity(steps.len());
    let mut rest = steps.into_iter().peekable();
    while let Some(first) = rest.next() {
        let mut group = vec![first];
        while rest.peek().is_some_and(|next| next.key_ref() == group[0].key_ref()) {
            group.extend(rest.next());
        }
        match cache.take(&mut group) {
            Some(scope) if Planner::fits(&scope, &group) => {
                let refused = planner.scope(scope, &group.iter().collect::<Vec<_>>(), None).is_err();
                planned.append(&mut group);
                if refused {
                    // The transition holds half of a scope: state under lock decides about everything.
                    planner.begin_again();
                    batch.locked.extend(planned.drain(..).chain(rest));
                    return planned;
                }
            }
            // Unknown here, or a stale copy that the rules refuse: state under lock decides.
            _ => batch.locked.append(&mut group),
        }
    }
    planned
}
