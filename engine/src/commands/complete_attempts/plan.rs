//! Ends of steps become a transition: which lanes go on, end or open, which results, which frames and runs are over.

mod apply;

use super::{
    Decided, Decision, Inputs, Room,
    cache::CachedScope,
    extras::{Extras, Failure},
};
use crate::{
    definition::Action,
    error::{Error, Result},
    executor::{StepError, Usage},
    id::{ScopePath, StepIx},
    lifecycle::{Counters, Ended, FrameEnd, RunEvent, RunStatus, StepState},
    payload::Payload,
    store::{
        holder::Holder,
        hot::{ItemCount, Transition},
        records::to_json,
        rows::{Lease, VersionedState},
        runs::RunFacts,
    },
    version::Version,
};
use std::{collections::HashSet, sync::Arc, time::Duration};

/// A successor, or an item of a map just expanded, that the completing process holds already.
pub(crate) struct Continued {
    pub lease: Lease,
    pub version: Arc<Version>,
    pub inputs: Inputs,
    /// The state of an item's scope, which nobody has cached yet.
    pub state: Option<VersionedState>,
}

/// Collects a batch's transition.
pub(crate) struct Planner<'a> {
    pub transition: Transition,
    by: Holder,
    room: Option<&'a dyn Room>,
    scopes: Vec<(CachedScope, bool)>,
    continued: Vec<(usize, Lease, Arc<Version>)>,
    extras: Extras,
    taken: usize,
    steps: usize,
    runs: usize,
    /// Items of a map with a limit have ended, and others may be waiting for their places.
    permits_freed: bool,
}

impl<'a> Planner<'a> {
    pub fn new(by: Holder, room: Option<&'a dyn Room>) -> Self {
        Self {
            transition: Transition::default(),
            by,
            room,
            scopes: vec![],
            continued: vec![],
            extras: Extras::default(),
            taken: 0,
            steps: 0,
            runs: 0,
            permits_freed: false,
        }
    }

    /// Can the rules take these ends on this state? Not where a cached copy is stale, nor where a lane ends twice: one of the two attempts
    /// has lost it.
    pub fn fits(scope: &CachedScope, group: &[Decided]) -> bool {
        let mut lanes = HashSet::with_capacity(group.len());
        group.iter().all(|d| {
            let live = match d.version.step(d.lease.step) {
                Some((_, step)) => {
                    usize::from(step.local) < scope.state.frame.steps().len() && scope.state.frame.step(step.local) == StepState::Live
                }
                None => true,
            };
            live && lanes.insert(d.lease.lane)
        })
    }

    /// Ends of steps in one scope, which [`fits`](Self::fits). `facts` are needed for failures only, which always come with them, from the
    /// locked path.
    pub fn scope(&mut self, mut scope: CachedScope, group: &[&Decided], facts: Option<&RunFacts>) -> Result<()> {
        let at = self.scopes.len();
        let ended = self.scope_steps(&mut scope, group, facts, at)?;
        self.scopes.push((scope, ended));
        Ok(())
    }

    fn scope_steps(&mut self, scope: &mut CachedScope, group: &[&Decided], facts: Option<&RunFacts>, at: usize) -> Result<bool> {
        let (old, root) = (scope.state.version, scope.scope.is_root());
        let mut seq = old;
        let mut ended = false;
        for d in group {
            scope.input = scope.input.take().or_else(|| d.inputs.input.clone());
            scope.facts = scope.facts.take().or_else(|| d.inputs.facts.clone());
            ended |= match d.version.step(d.lease.step) {
                Some((ix, _)) => self.step_ended(scope, d, ix, facts, &mut seq, at)?,
                None if d.lease.step == Lease::FINISH => self.finished(scope, d, &mut seq)?,
                None => self.entered(d, at)?,
            };
        }
        // Inside a map there are no events; the version only guards.
        scope.state.version = if root && seq > old { seq } else { old + 1 };
        let t = &mut self.transition.scopes;
        t.run.push(scope.run.0);
        t.scope.push(scope.scope.0.clone());
        t.old.push(old);
        t.new.push(scope.state.version);
        t.steps.push((!ended).then(|| scope.state.frame.encode()));
        Ok(ended)
    }

    fn step_ended(
        &mut self,
        scope: &mut CachedScope,
        d: &Decided,
        ix: StepIx,
        facts: Option<&RunFacts>,
        seq: &mut i32,
        at: usize,
    ) -> Result<bool> {
        let step = d.version.dag.step(ix);
        let ended = match &d.decision {
            Decision::Succeeded { .. } => Ended::Succeeded,
            Decision::Skipped => Ended::Skipped,
            Decision::Failed { .. } => Ended::Failed,
            other => return Err(Error::Internal(format!("{other:?} does not end a step"))),
        };
        let advance =
            scope.state.frame.advance(&d.version.dag, step.frame, step.local, ended).map_err(|e| Error::Internal(e.to_string()))?;
        if scope.scope.is_root() {
            *seq += 1;
        }
        self.result(d, if scope.scope.is_root() { *seq } else { 0 }, facts)?;
        if let Decision::Succeeded { output, .. } = &d.decision
            && d.version.read[ix.at()]
        {
            scope.remember(ix, output);
        }
        let members = &d.version.dag.frame(step.frame).members;
        let mut released = advance.released.iter().map(|local| members[usize::from(*local)]);
        let first = released.next();
        for next in released {
            let lane = scope.state.frame.open_lane();
            self.open(d, lane, next, at);
        }
        match (first, advance.end) {
            (Some(next), _) => self.go_on(d, next.0 as i16, d.version.queues[next.at()], at),
            (None, Some(FrameEnd::Succeeded)) if scope.scope.is_root() && d.version.dag.output.is_some() => {
                self.go_on(d, Lease::FINISH, d.lease.queue, at);
            }
            (None, Some(end)) => {
                self.end_lane(d);
                self.frame_ended(scope, d, end, seq);
                return Ok(true);
            }
            (None, None) => self.end_lane(d),
        }
        Ok(false)
    }

    fn frame_ended(&mut self, scope: &CachedScope, d: &Decided, end: FrameEnd, seq: &mut i32) {
        match scope.scope.parent() {
            Some((parent, map, _)) => self.count_item(d, parent, map, matches!(end, FrameEnd::Failed { .. })),
            None => match end {
                FrameEnd::Succeeded => self.run_ended(d, RunEvent::Succeed, seq, None, None),
                FrameEnd::Failed { step } => {
                    let name = &d.version.dag.step(d.version.dag.frame(crate::id::FrameIx::ROOT).members[usize::from(step)]).id;
                    let error = serde_json::json!({ "message": format!("step `{name}` failed"), "step": name });
                    self.run_ended(d, RunEvent::Fail, seq, None, Some(error.to_string()));
                }
            },
        }
    }

    /// The run's output was computed, or could not be.
    fn finished(&mut self, scope: &CachedScope, d: &Decided, seq: &mut i32) -> Result<bool> {
        self.end_lane(d);
        match &d.decision {
            Decision::Succeeded { output, .. } => self.run_ended(d, RunEvent::Succeed, seq, Some(output), None),
            Decision::Failed { error, .. } => self.run_ended(d, RunEvent::Fail, seq, None, Some(to_json(error)?)),
            other => return Err(Error::Internal(format!("{other:?} does not end run {}", scope.run))),
        }
        Ok(true)
    }

    /// An item with several first steps: the entry's lane is the first one's, the others open theirs, as its state has it already.
    fn entered(&mut self, d: &Decided, at: usize) -> Result<bool> {
        let frame = d.version.dag.frame(d.version.frame_of(&d.lease.scope)?);
        for (lane, root) in frame.roots.iter().enumerate() {
            match lane {
                0 => self.go_on(d, root.0 as i16, d.version.queues[root.at()], at),
                _ => self.open(d, lane as i32, *root, at),
            }
        }
        Ok(false)
    }

    /// The end of an item whose body is one step.
    pub fn bare_item(&mut self, d: &Decided, facts: Option<&RunFacts>) -> Result<()> {
        self.result(d, 0, facts)?;
        // Whoever has the lanes under lock, and the facts with them, has taken it out of its bundle.
        if facts.is_some() || !self.transition.bundles.add(&d.lease) {
            self.end_lane(d);
        }
        let (parent, map, _) = d.lease.scope.parent().ok_or_else(|| Error::Internal("an item without a map".into()))?;
        let step = d.version.step(d.lease.step).map(|(_, step)| step);
        let failed = matches!(d.decision, Decision::Failed { .. }) && !step.is_some_and(|s| s.allow_failure);
        self.count_item(d, parent, map, failed);
        Ok(())
    }

    /// An item has ended. Where nothing older waits its slot goes to another item of the map, in the same transaction.
    fn count_item(&mut self, d: &Decided, parent: ScopePath, map: StepIx, failed: bool) {
        let limited = d.version.map(map).is_some_and(|plan| plan.concurrency.is_some());
        let here = self.continues(d.lease.queue, d.lease.priority);
        let goes_on = here && self.room.is_some_and(Room::idle);
        if limited && !goes_on {
            self.permits_freed = true;
            if !here {
                self.transition.wake.insert(d.lease.queue);
            }
        }
        let count: &mut ItemCount = self.transition.items.0.entry((d.lease.run, parent, map.0 as i16)).or_default();
        count.done += 1;
        count.failed += i32::from(failed);
        count.more += i32::from(goes_on);
    }

    fn result(&mut self, d: &Decided, seq: i32, facts: Option<&RunFacts>) -> Result<()> {
        let r = &mut self.transition.results;
        let (status, output, error, usage): (_, Option<&Payload>, Option<&StepError>, Option<&Usage>) = match &d.decision {
            Decision::Succeeded { output, usage } => ("succeeded", Some(output), None, usage.as_ref()),
            Decision::Skipped => ("skipped", None, None, None),
            Decision::Failed { error, .. } => ("failed", None, Some(error), error.usage.as_ref()),
            other => return Err(Error::Internal(format!("{other:?} is no result"))),
        };
        self.steps += 1;
        let (inline, blob) = self.extras.stored(d.lease.run, output);
        r.run.push(d.lease.run.0);
        r.scope.push(d.lease.scope.0.clone());
        r.step.push(d.lease.step);
        r.attempt.push(d.lease.attempt as i32);
        r.seq.push(seq);
        r.ms.push(d.ms);
        r.status.push(status);
        r.output.push(inline);
        r.blob.push(blob);
        r.error.push(error.map(to_json).transpose()?);
        r.usage.push(usage.map(to_json).transpose()?);
        if d.lease.phase == Lease::FILLED && d.version.step(d.lease.step).is_some_and(|(_, s)| matches!(s.action, Action::Map(_))) {
            self.extras.finished_maps.push((d.lease.run, d.lease.scope.clone(), d.lease.step));
        }
        if let Decision::Failed { error, input } = &d.decision {
            let facts = facts.ok_or_else(|| Error::Internal("a failure is decided under lock".into()))?;
            self.extras.failures.push(Failure {
                lease: d.lease.clone(),
                version: d.version.clone(),
                error: error.clone(),
                input: input.clone(),
                ms: d.ms,
                workspace: facts.workspace,
                generation: facts.generation,
            });
        }
        Ok(())
    }

    fn continues(&self, queue: i16, priority: i16) -> bool {
        self.room.is_some_and(|room| room.continues(queue, priority))
    }

    /// The lane goes on to another step, here if the queue is served and nothing more urgent waits.
    fn go_on(&mut self, d: &Decided, step: i16, queue: i16, at: usize) {
        let here = self.continues(queue, d.lease.priority);
        let g = &mut self.transition.goes_on;
        g.run.push(d.lease.run.0);
        g.scope.push(d.lease.scope.0.clone());
        g.lane.push(d.lease.lane);
        g.token.push(d.lease.token);
        g.step.push(step);
        g.queue.push(queue);
        g.state.push(if here { "leased" } else { "ready" });
        self.handed_on(d, d.lease.lane, step, queue, here, at);
    }

    fn open(&mut self, d: &Decided, lane: i32, step: StepIx, at: usize) {
        let queue = d.version.queues[step.at()];
        let here = self.continues(queue, d.lease.priority) && self.room.is_some_and(|room| room.take(1) == 1);
        self.taken += usize::from(here);
        let o = &mut self.transition.opens;
        o.run.push(d.lease.run.0);
        o.scope.push(d.lease.scope.0.clone());
        o.lane.push(lane);
        o.version.push(d.version.id.0);
        o.step.push(step.0 as i16);
        o.queue.push(queue);
        o.priority.push(d.lease.priority);
        o.state.push(if here { "leased" } else { "ready" });
        self.handed_on(d, lane, step.0 as i16, queue, here, at);
    }

    fn handed_on(&mut self, d: &Decided, lane: i32, step: i16, queue: i16, here: bool, at: usize) {
        if !here {
            self.transition.wake.insert(queue);
        } else {
            let lease = Lease {
                run: d.lease.run,
                scope: d.lease.scope.clone(),
                lane,
                token: self.by.token,
                version: d.lease.version,
                step,
                phase: Lease::FRESH,
                attempt: 1,
                counters: Counters::default(),
                queue,
                priority: d.lease.priority,
                bundle: None,
                overdue: Duration::ZERO,
            };
            self.continued.push((at, lease, d.version.clone()));
        }
    }

    fn end_lane(&mut self, d: &Decided) {
        let x = &mut self.transition.ends;
        x.run.push(d.lease.run.0);
        x.scope.push(d.lease.scope.0.clone());
        x.lane.push(d.lease.lane);
        x.token.push(d.lease.token);
    }

    fn run_ended(&mut self, d: &Decided, event: RunEvent, seq: &mut i32, output: Option<&Payload>, error: Option<String>) {
        // Only a running run has a state that this could have been decided from; any other was raised past this version.
        let status = if event == RunEvent::Succeed { RunStatus::Succeeded } else { RunStatus::Failed };
        debug_assert_eq!(RunStatus::Running.on(event), Ok(status));
        *seq += 1;
        self.runs += 1;
        let (inline, blob) = self.extras.stored(d.lease.run, output);
        let e = &mut self.transition.run_ends;
        e.run.push(d.lease.run.0);
        e.status.push(status.name());
        e.seq.push(*seq);
        e.output.push(inline.map(|o| o.as_str().to_owned()));
        e.blob.push(blob);
        e.error.push(error);
        if d.version.dag.timeout.is_some() {
            self.extras.untimed.push(d.lease.run.0);
        }
    }
}
