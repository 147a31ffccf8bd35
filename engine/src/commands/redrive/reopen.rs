//! A run that is being opened again, in the transaction that does it.

use super::Redrive;
use crate::{
    error::{Error, Result},
    id::{FrameIx, RunId, ScopePath, StepIx},
    lifecycle::{Ended, FrameEnd, FrameState, RunEvent, RunStatus},
    queries::states,
    store::{
        dead_letters::Letter,
        records::{self, NewEvent},
        redrive::{
            self as store, NewLane, RunRow,
            maps::{self, MapRow},
        },
        rows::Lease,
        runs::{self, LockedScope},
        workers,
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
    pub(super) run: RunId,
    actor: String,
    pub(super) header: RunRow,
    pub(super) version: Arc<Version>,
    /// Live scopes, with the version they will be saved with where they have changed.
    pub(super) scopes: BTreeMap<ScopePath, LiveScope>,
    pub(super) maps: HashMap<(ScopePath, StepIx), MapRow>,
    /// Results of the scopes looked at so far, without those taken back.
    results: HashMap<ScopePath, HashMap<StepIx, Ended>>,
    loaded: HashSet<ScopePath>,
    /// The number of the run's latest event.
    seq: i32,
    reopens_run: bool,
}

pub(super) struct LiveScope {
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
            Some(Ended::Failed) => {}
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
        let event = NewEvent { run: self.run, seq: self.seq, at: None, kind: "redriven", data };
        records::insert_event(conn, &event).await?;
        Ok(Redrive::Redriven)
    }

    /// Writes the states of the scopes that were touched; the root's always, for its number of events.
    pub async fn save(&mut self, conn: &mut PgConnection) -> Result<()> {
        if self.reopens_run && !store::reopen_run(conn, self.run).await? {
            return Err(Error::Internal(format!("run {} was not failed under lock", self.run)));
        }
        // The failed end took the timer with it; what is left to do has the run's whole time again.
        if self.reopens_run
            && let Some(timeout) = self.version.dag.timeout
        {
            runs::set_timeouts(conn, &[self.run.0], &[timeout.as_secs_f64()]).await?;
        }
        for (path, scope) in &self.scopes {
            let version = match (path.is_root(), scope.changed) {
                (true, _) => self.seq,
                (false, true) => scope.version + 1,
                (false, false) => continue,
            };
            store::put_scope(conn, self.run, path, version, &scope.frame.encode()).await?;
        }
        workers::wake(conn).await?;
        Ok(())
    }

    /// Why a step in this scope can't be redriven, if so.
    fn forbids(&self, scope: &ScopePath) -> Result<Option<String>> {
        let run = self.run;
        if self.header.status.on(RunEvent::Redrive).is_err() {
            return Ok(Some(match self.header.status {
                RunStatus::Cancelling => format!("run {run} is being stopped"),
                status => format!("run {run} has {}; start a new run instead", past(status)),
            }));
        }
        let mut at = Some(scope.clone());
        while let Some(scope) = at {
            // In a run that ran out of time steps were stopped: it can't go on as if they had never been started.
            let over = !self.scopes.contains_key(&scope) && !self.is_bare(&scope)?;
            if over && self.end_of(&scope)?.is_none() {
                return Ok(Some(format!("steps of run {run} were stopped when it ended; start a new run instead")));
            }
            at = match scope.parent() {
                None => None,
                Some((outer, map, _)) => {
                    let name = &self.version.dag.step(map).name;
                    match self.result(&outer, map) {
                        Some(Ended::Failed) => {}
                        None if self.maps.contains_key(&(outer.clone(), map)) => {}
                        Some(_) => {
                            return Ok(Some(format!("map `{name}` has succeeded in spite of this failure; start a new run instead")));
                        }
                        None => return Ok(Some(format!("map `{name}` of run {run} was stopped; start a new run instead"))),
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
        let (seq, at) = (self.header.last_seq, self.header.finished_at);
        records::insert_event(conn, &NewEvent { run: self.run, seq, at, kind: "run_failed", data }).await?;
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
                let (done, failed) = maps::count_items(conn, self.run, scope, step, &self.fatal(plan.body), None).await?;
                let max_failed = plan.tolerate.allowed(total.unsigned_abs()) as i32;
                let row = MapRow { lane, total, goal: done, done, failed, max_failed, unclaimed: 0, held: vec![] };
                maps::put(conn, self.run, (scope, step), &row, plan.concurrency.is_some()).await?;
                self.maps.insert((scope.clone(), step), row);
                phase = Lease::FILLED;
            }
        }
        let state = if self.is_held(scope) { "held" } else { "ready" };
        self.open_lane(conn, scope, lane, step, state, phase, attempt).await
    }

    /// Takes a failed result back and has the step live in its frame; gives the lane it may take and the number of its last attempt.
    pub(super) async fn revive(&mut self, conn: &mut PgConnection, scope: &ScopePath, step: StepIx) -> Result<(i32, i32)> {
        let taken = store::take_back(conn, self.run, scope, step)
            .await?
            .ok_or_else(|| Error::Internal(format!("a failed result of run {} vanished under lock", self.run)))?;
        if scope.is_root() {
            let error: Value = parse(&taken.error)?;
            let id = &self.version.dag.step(step).id;
            let data = json!({ "path": id, "attempt": taken.attempt, "duration_ms": taken.duration_ms, "error": error });
            let event = NewEvent { run: self.run, seq: taken.seq, at: Some(taken.finished_at), kind: "step_failed", data };
            records::insert_event(conn, &event).await?;
            store::drop_finish(conn, self.run, Lease::FINISH).await?;
        }
        if self.is_bare(scope)? {
            self.results.entry(scope.clone()).or_default().remove(&step);
            return Ok((0, taken.attempt));
        }
        let frame = self.version.frame_of(scope)?;
        let local = self.version.dag.step(step).local;
        let live = self.scopes.get(scope);
        let current = live.map(|s| &s.frame);
        let (mut new, advance) = FrameState::reopen(&self.version.dag, frame, &self.ends(scope), current, &[local])
            .map_err(|e| Error::Internal(e.to_string()))?;
        if advance.released != [local] {
            return Err(Error::Internal(format!("opening `{}` would start other steps too", self.version.dag.step(step).name)));
        }
        let (version, lane) = (live.map_or_else(unused_version, |s| s.version), new.open_lane());
        self.results.entry(scope.clone()).or_default().remove(&step);
        self.scopes.insert(scope.clone(), LiveScope { version, frame: new, changed: true });
        Ok((lane, taken.attempt))
    }

    /// Does a map around the scope hold its item back until it has a permit?
    pub(super) fn is_held(&self, scope: &ScopePath) -> bool {
        let mut at = scope.parent();
        while let Some((outer, map, item)) = at {
            if self.maps.get(&(outer.clone(), map)).is_some_and(|row| row.held.contains(&(item as i32))) {
                return true;
            }
            at = outer.parent();
        }
        false
    }

    /// How the steps of a scope ended, by position.
    fn ends(&self, scope: &ScopePath) -> Vec<(u16, Ended)> {
        let results = self.results.get(scope).into_iter().flatten();
        results.map(|(ix, ended)| (self.version.dag.step(*ix).local, *ended)).collect()
    }

    /// What a scope that is over came to; no end where steps of it were stopped.
    fn end_of(&self, scope: &ScopePath) -> Result<Option<FrameEnd>> {
        let frame = self.version.frame_of(scope)?;
        let restored = FrameState::restore(&self.version.dag, frame, &self.ends(scope), None);
        Ok(restored.map_err(|e| Error::Internal(e.to_string()))?.1.end)
    }

    /// Has the item of a scope that is over failed? A scope that lives has not.
    pub(super) fn has_failed(&self, scope: &ScopePath) -> Result<bool> {
        if self.scopes.contains_key(scope) {
            return Ok(false);
        }
        Ok(matches!(self.end_of(scope)?, Some(FrameEnd::Failed { .. })))
    }

    /// Is it an item whose body is one step? Such a scope has no state of its own.
    fn is_bare(&self, scope: &ScopePath) -> Result<bool> {
        Ok(!scope.is_root() && self.version.dag.frame(self.version.frame_of(scope)?).members.len() == 1)
    }

    /// Steps of a frame whose failure is the item's.
    pub(super) fn fatal(&self, body: FrameIx) -> Vec<i16> {
        let dag = &self.version.dag;
        dag.frame(body).members.iter().filter(|ix| !dag.step(**ix).allow_failure).map(|ix| ix.0 as i16).collect()
    }

    fn result(&self, scope: &ScopePath, step: StepIx) -> Option<Ended> {
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
            self.results.entry(scope).or_default().insert(step, states::ended(&status)?);
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "a row of `lane`, less what is the run's")]
    pub(super) async fn open_lane(
        &self,
        conn: &mut PgConnection,
        scope: &ScopePath,
        lane: i32,
        step: StepIx,
        state: &'static str,
        phase: i16,
        attempt: i32,
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

/// A version for a scope that is there again, one that it never had: a worker may still hold a copy of the state that it had when it ended,
/// or before, and its next transition must not pass for one of the new state. Transitions add one each, so that the low numbers were used;
/// those from here on were only if an earlier redrive drew the same. Half of the range is left to grow into.
fn unused_version() -> i32 {
    const LOW: u64 = 1 << 29;
    (LOW + uuid::Uuid::new_v4().as_u64_pair().1 % LOW) as i32
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
