//! A run that is being opened again, in the transaction that does it.

use super::Redrive;
use crate::{
    definition::MapPlan,
    error::{Error, Result},
    id::{FrameIx, RunId, ScopePath, StepIx},
    lifecycle::{FrameEnd, FrameState, RunEvent, RunStatus, StepState, rebuild},
    queries::states,
    store::{
        redrive::{self as store, Letter, MapRow, NewLane, NewSpan, RunRow},
        rows::Lease,
        runs::LockedScope,
    },
    version::Version,
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

pub(super) struct Reopening {
    run: RunId,
    actor: String,
    header: RunRow,
    version: Arc<Version>,
    /// Live scopes, with the version they will be saved with where they have changed.
    scopes: BTreeMap<ScopePath, LiveScope>,
    maps: HashMap<(ScopePath, StepIx), MapRow>,
    /// Results of the scopes looked at so far, without those taken back.
    results: HashMap<ScopePath, HashMap<StepIx, StepState>>,
    loaded: HashSet<ScopePath>,
    /// The number of the run's latest event.
    seq: i32,
    reopens_run: bool,
}

struct LiveScope {
    version: i32,
    frame: FrameState,
    changed: bool,
}

impl Reopening {
    pub fn new(
        run: RunId,
        actor: &str,
        header: RunRow,
        version: Arc<Version>,
        scopes: Vec<LockedScope>,
        maps: Vec<((ScopePath, StepIx), MapRow)>,
    ) -> Self {
        let scopes: BTreeMap<_, _> =
            scopes.into_iter().map(|s| (s.scope, LiveScope { version: s.state.version, frame: s.state.frame, changed: false })).collect();
        let seq = scopes.get(&ScopePath::root()).map_or(header.last_seq, |root| root.version);
        Self {
            run,
            actor: actor.to_owned(),
            header,
            version,
            scopes,
            maps: maps.into_iter().collect(),
            results: HashMap::new(),
            loaded: HashSet::new(),
            seq,
            reopens_run: false,
        }
    }

    /// Opens one letter's step. Everything that may forbid it is looked at before anything is written.
    pub async fn redrive(&mut self, conn: &mut PgConnection, letter: &Letter) -> Result<Redrive> {
        let Ok(step) = u16::try_from(letter.step).map(StepIx) else {
            return Err(Error::Internal(format!("dead letter {} names no step", letter.id)));
        };
        self.load_results(conn, &letter.scope).await?;
        match self.result(&letter.scope, step) {
            Some(StepState::Failed) => {}
            Some(_) => return Ok(Redrive::AlreadyRedriven),
            None if store::is_live(conn, self.run, &letter.scope, letter.step).await? => return Ok(Redrive::AlreadyRedriven),
            None => {}
        }
        if let Some(why) = self.forbids(&letter.scope)? {
            return Ok(Redrive::Refused(Error::Conflict(why)));
        }
        if self.result(&letter.scope, step).is_none() {
            return Err(Error::Internal(format!("dead letter {} is of a step that neither failed nor lives", letter.id)));
        }
        if self.header.status.is_terminal() && !self.reopens_run {
            self.reopen_run(conn).await?;
        }
        let item_failed = self.has_failed(&letter.scope)?;
        let was_live = self.scopes.contains_key(&letter.scope);
        self.open(conn, &letter.scope, step).await?;
        if !was_live {
            self.climb(conn, &letter.scope, item_failed).await?;
        }
        let data = json!({ "path": letter.path, "dead_letter": letter.id, "actor": self.actor });
        self.seq += 1;
        store::record_event(conn, self.run, self.seq, None, "redriven", &data).await?;
        Ok(Redrive::Redriven)
    }

    /// Writes the states of the scopes that were touched; the root's always, for its number of events.
    pub async fn save(&mut self, conn: &mut PgConnection) -> Result<()> {
        if self.reopens_run && !store::reopen_run(conn, self.run).await? {
            return Err(Error::Internal(format!("run {} was not failed under lock", self.run)));
        }
        for (path, scope) in &self.scopes {
            let version = match (path.is_root(), scope.changed) {
                (true, _) => self.seq,
                (false, true) => scope.version + 1,
                (false, false) => continue,
            };
            store::put_scope(conn, self.run, path, version, &scope.frame.encode()).await?;
        }
        store::wake(conn).await?;
        Ok(())
    }

    /// Why a step in this scope can't be redriven, if so.
    fn forbids(&self, scope: &ScopePath) -> Result<Option<String>> {
        let run = self.run;
        if self.header.status.on(RunEvent::Redrive).is_err() {
            return Ok(Some(match self.header.status {
                RunStatus::Cancelling => format!("run {run} is being stopped"),
                status => format!("run {run} has {}; fork it instead", past(status)),
            }));
        }
        let mut at = Some(scope.clone());
        while let Some(scope) = at {
            // In a run that ran out of time steps were stopped: it can't go on as if they had never been started.
            let over = !self.scopes.contains_key(&scope) && !self.is_bare(&scope)?;
            if over && !self.from_results(&scope)?.steps().iter().all(|s| s.is_terminal()) {
                return Ok(Some(format!("steps of run {run} were stopped when it ended; fork it instead")));
            }
            at = match scope.parent() {
                None => None,
                Some((outer, map, _)) => {
                    let name = &self.version.dag.step(map).name;
                    match self.result(&outer, map) {
                        Some(StepState::Failed) => {}
                        None if self.maps.contains_key(&(outer.clone(), map)) => {}
                        Some(_) => return Ok(Some(format!("map `{name}` has succeeded in spite of this failure; fork run {run} instead"))),
                        None => return Ok(Some(format!("map `{name}` of run {run} was stopped; fork the run instead"))),
                    }
                    Some(outer)
                }
            };
        }
        Ok(None)
    }

    /// The run's end becomes an event like the others.
    async fn reopen_run(&mut self, conn: &mut PgConnection) -> Result<()> {
        let error: Option<Value> = self.header.error.as_deref().map(parse).transpose()?;
        let data = error.map_or_else(|| json!({}), |error| json!({ "error": error }));
        store::record_event(conn, self.run, self.header.last_seq, self.header.finished_at, "run_failed", &data).await?;
        self.reopens_run = true;
        Ok(())
    }

    /// Opens a failed step: its result is taken back, its frame has it live, and it gets a ready lane.
    async fn open(&mut self, conn: &mut PgConnection, scope: &ScopePath, step: StepIx) -> Result<()> {
        let (lane, attempt) = self.revive(conn, scope, step).await?;
        let mut phase = Lease::FRESH;
        if let Some(plan) = self.version.clone().map(step) {
            let total = states::total_items(conn, self.run, scope, step).await? as i32;
            // A map that had its items keeps them: what failed is what it made of them.
            if total > 0 {
                let (done, failed) = store::count_items(conn, self.run, scope, step, &self.fatal(plan.body), None).await?;
                let max_failed = plan.tolerate.allowed(total.unsigned_abs()) as i32;
                let row = MapRow { lane, total, goal: done, done, failed, max_failed, span: false };
                store::put_map(conn, self.run, (scope, step), &row, plan.concurrency.is_some()).await?;
                self.maps.insert((scope.clone(), step), row);
                phase = Lease::FILLED;
            }
        }
        self.open_lane(conn, scope, lane, step, "ready", phase, attempt).await
    }

    /// Opens the maps around an item that had ended, from the inside outwards, as far as they had ended too.
    async fn climb(&mut self, conn: &mut PgConnection, item: &ScopePath, item_failed: bool) -> Result<()> {
        let version = self.version.clone();
        let mut item = item.clone();
        let mut failed = item_failed;
        while let Some((scope, map, _)) = item.parent() {
            let plan = version.map(map).ok_or_else(|| Error::Internal(format!("{scope:?} is no item of a map")))?;
            if let Some(row) = self.maps.get(&(scope.clone(), map)).copied() {
                return self.reopen_item(conn, (&scope, map), plan, row, failed).await;
            }
            let scope_was_live = self.scopes.contains_key(&scope);
            failed = self.has_failed(&scope)?;
            self.reopen_map(conn, (&scope, map), plan, &item).await?;
            if scope_was_live {
                return Ok(());
            }
            item = scope;
        }
        Ok(())
    }

    /// One more item of a live map has not ended.
    async fn reopen_item(
        &mut self,
        conn: &mut PgConnection,
        (scope, map): (&ScopePath, StepIx),
        plan: &MapPlan,
        mut row: MapRow,
        failed: bool,
    ) -> Result<()> {
        row.done -= 1;
        row.failed -= i32::from(failed);
        if !store::back_to_items(conn, self.run, scope, row.lane).await? {
            return Err(Error::Internal(format!("run {} has a map without a lane", self.run)));
        }
        let in_flight = row.goal - row.done;
        match row.span {
            true => store::take_permit(conn, self.run, scope, map).await?,
            // Its tolerance was used up, and is not any more: the items that were not started may be.
            false if row.goal < row.total && row.failed <= row.max_failed => {
                self.offer(conn, (scope, map), plan, row.goal, row.total, in_flight).await?;
                row.goal = row.total;
                row.span = true;
            }
            false => {}
        }
        store::put_map(conn, self.run, (scope, map), &row, plan.concurrency.is_some()).await?;
        self.maps.insert((scope.clone(), map), row);
        Ok(())
    }

    /// A map that had failed waits for its items again, one of which has not ended.
    async fn reopen_map(
        &mut self,
        conn: &mut PgConnection,
        (scope, map): (&ScopePath, StepIx),
        plan: &MapPlan,
        item: &ScopePath,
    ) -> Result<()> {
        let (lane, attempt) = self.revive(conn, scope, map).await?;
        let total = states::total_items(conn, self.run, scope, map).await? as i32;
        let (done, failed) = store::count_items(conn, self.run, scope, map, &self.fatal(plan.body), Some(item)).await?;
        let max_failed = plan.tolerate.allowed(total.unsigned_abs()) as i32;
        let started = done + 1;
        let offers = started < total && failed <= max_failed;
        let row = MapRow { lane, total, goal: if offers { total } else { started }, done, failed, max_failed, span: offers };
        store::put_map(conn, self.run, (scope, map), &row, plan.concurrency.is_some()).await?;
        if offers {
            self.offer(conn, (scope, map), plan, started, total, 1).await?;
        }
        self.maps.insert((scope.clone(), map), row);
        // The attempt that was on record has ended; this is the next, though nobody claims it: the last item's worker carries it out.
        self.open_lane(conn, scope, lane, map, "items", Lease::FRESH, attempt + 1).await
    }

    async fn offer(
        &self,
        conn: &mut PgConnection,
        (scope, map): (&ScopePath, StepIx),
        plan: &MapPlan,
        lo: i32,
        hi: i32,
        in_flight: i32,
    ) -> Result<()> {
        let (entry, queue) = match self.version.dag.frame(plan.body).roots[..] {
            [only] => (only.0 as i16, self.version.queues[only.at()]),
            _ => (Lease::ENTRY, self.version.queues[map.at()]),
        };
        let span = NewSpan {
            run: self.run,
            scope,
            map,
            workflow_version: self.header.workflow_version,
            lo,
            hi,
            permits: plan.concurrency.map(|n| n.min(hi.unsigned_abs()) as i32 - in_flight),
            entry,
            queue,
            priority: self.header.priority,
            template: self.version.item_template(plan.body).map(|state| state.encode()),
        };
        Ok(store::insert_span(conn, &span).await?)
    }

    /// Takes a failed result back and has the step live in its frame; gives the lane it may take and the number of its last attempt.
    async fn revive(&mut self, conn: &mut PgConnection, scope: &ScopePath, step: StepIx) -> Result<(i32, i16)> {
        let taken = store::take_back(conn, self.run, scope, step)
            .await?
            .ok_or_else(|| Error::Internal(format!("a failed result of run {} vanished under lock", self.run)))?;
        if scope.is_root() {
            let error: Value = parse(&taken.error)?;
            let id = &self.version.dag.step(step).id;
            let data = json!({ "path": id, "attempt": taken.attempt, "duration_ms": taken.duration_ms, "error": error });
            store::record_event(conn, self.run, taken.seq, Some(taken.finished_at), "step_failed", &data).await?;
            store::drop_finish(conn, self.run, Lease::FINISH).await?;
        }
        if self.is_bare(scope)? {
            self.results.entry(scope.clone()).or_default().remove(&step);
            return Ok((0, taken.attempt));
        }
        let frame = self.version.frame_of(scope)?;
        let (version, old) = match self.scopes.get(scope) {
            Some(live) => (live.version, live.frame.clone()),
            None => (0, self.from_results(scope)?),
        };
        self.results.entry(scope.clone()).or_default().remove(&step);
        let mut new = self.with_live(frame, scope, &old, step, old.clone().open_lane());
        let live = |state: &FrameState| state.steps().iter().filter(|s| **s == StepState::Live).count();
        if live(&new) != live(&old) + 1 {
            return Err(Error::Internal(format!("opening `{}` would start other steps too", self.version.dag.step(step).name)));
        }
        let lane = new.open_lane();
        self.scopes.insert(scope.clone(), LiveScope { version, frame: new, changed: true });
        Ok((lane, taken.attempt))
    }

    /// The frame with the step live: results and live steps stand, everything else the rules decide anew.
    fn with_live(&self, frame: FrameIx, scope: &ScopePath, old: &FrameState, step: StepIx, next_lane: i32) -> FrameState {
        let dag = &self.version.dag;
        let live = (0u16..).zip(old.steps()).filter(|(_, s)| **s == StepState::Live).map(|(local, s)| (local, *s));
        let results = self.results.get(scope).into_iter().flatten().map(|(ix, state)| (dag.step(*ix).local, *state));
        let known: Vec<_> = live.chain(results).chain([(dag.step(step).local, StepState::Live)]).collect();
        FrameState::from_steps(rebuild(dag, frame, known).steps().to_vec(), next_lane.unsigned_abs())
    }

    /// The frame of a scope that is over.
    fn from_results(&self, scope: &ScopePath) -> Result<FrameState> {
        let dag = &self.version.dag;
        let results = self.results.get(scope).into_iter().flatten();
        Ok(rebuild(dag, self.version.frame_of(scope)?, results.map(|(ix, state)| (dag.step(*ix).local, *state))))
    }

    /// Has the item of a scope that is over failed? A scope that lives has not.
    fn has_failed(&self, scope: &ScopePath) -> Result<bool> {
        if self.scopes.contains_key(scope) {
            return Ok(false);
        }
        let frame = self.version.frame_of(scope)?;
        Ok(matches!(self.from_results(scope)?.settle(&self.version.dag, frame, vec![]).end, Some(FrameEnd::Failed { .. })))
    }

    /// Is it an item whose body is one step? Such a scope has no state of its own.
    fn is_bare(&self, scope: &ScopePath) -> Result<bool> {
        Ok(!scope.is_root() && self.version.dag.frame(self.version.frame_of(scope)?).members.len() == 1)
    }

    /// Steps of a frame whose failure is the item's.
    fn fatal(&self, body: FrameIx) -> Vec<i16> {
        let dag = &self.version.dag;
        dag.frame(body).members.iter().filter(|ix| !dag.step(**ix).allow_failure).map(|ix| ix.0 as i16).collect()
    }

    fn result(&self, scope: &ScopePath, step: StepIx) -> Option<StepState> {
        self.results.get(scope)?.get(&step).copied()
    }

    /// Results of the scope and of all around it, once.
    async fn load_results(&mut self, conn: &mut PgConnection, scope: &ScopePath) -> Result<()> {
        let mut wanted = vec![scope.clone()];
        while let Some((outer, ..)) = wanted.last().and_then(ScopePath::parent) {
            wanted.push(outer);
        }
        wanted.retain(|scope| self.loaded.insert(scope.clone()));
        for (scope, step, status) in store::results(conn, self.run, &wanted).await? {
            self.results.entry(scope).or_default().insert(step, states::result_state(&status)?);
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "a row of `lane`, less what is the run's")]
    async fn open_lane(
        &self,
        conn: &mut PgConnection,
        scope: &ScopePath,
        lane: i32,
        step: StepIx,
        state: &'static str,
        phase: i16,
        attempt: i16,
    ) -> Result<()> {
        let lane = NewLane {
            run: self.run,
            scope,
            lane,
            workflow_version: self.header.workflow_version,
            step,
            queue: self.version.queues[step.at()],
            priority: self.header.priority,
            state,
            phase,
            attempt,
        };
        Ok(store::open_lane(conn, &lane).await?)
    }
}

fn parse(text: &str) -> Result<Value> {
    crate::queries::parse(text)
}

fn past(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Cancelled => "been cancelled",
        status => status.name(),
    }
}
