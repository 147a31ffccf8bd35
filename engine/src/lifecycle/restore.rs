//! A frame put together again from what was carried out in it: for a redrive, for a fork, and for whoever reads a run that has ended.
//!
//! Only the ends of steps that were carried out are on record; that a step was skipped or failed because of its predecessors is derived
//! by the rules that decided it the first time. So a redrive is no second set of rules: the failure is taken out of the record and the
//! frame derived anew. What was carried out stays as it is, even below the step that is redriven; what only followed from its failure is
//! open again, be it `upstream_failed` or, below a step with `allow_failure`, skipped by its join.

use super::frame::{Advance, Ended, FrameState, Illegal, StepEvent, StepState};
use crate::{definition::Dag, id::FrameIx};

impl FrameState {
    /// The frame as it stands after `results`, by position; steps that are live in `current` are live, and its lanes are taken.
    ///
    /// In a frame that was carried out to its end nothing is released. In one that was stopped, or is a fork's, the steps to go on with
    /// are: each needs a lane.
    pub fn restore(dag: &Dag, frame: FrameIx, results: &[(u16, Ended)], current: Option<&Self>) -> Result<(Self, Advance), Illegal> {
        Self::derive(dag, frame, results.iter().copied(), live_in(current), next_lane(current))
    }

    /// Redrive: the failed steps of `again` are live, what followed from their failures is decided anew. The caller takes their failures
    /// off the record and opens a lane for each step released; `again` comes first there, without those that were live already, so that
    /// repeating a redrive does nothing. Refused for a step that was not carried out, succeeded or was skipped.
    pub fn reopen(
        dag: &Dag,
        frame: FrameIx,
        results: &[(u16, Ended)],
        current: Option<&Self>,
        again: &[u16],
    ) -> Result<(Self, Advance), Illegal> {
        let (before, _) = Self::restore(dag, frame, results, current)?;
        let mut reopened = Vec::new();
        let mut taken_back = vec![false; before.steps.len()];
        for local in again {
            match before.steps.get(usize::from(*local)) {
                Some(StepState::Live) => {}
                Some(StepState::Failed) if taken_back[usize::from(*local)] => {}
                Some(StepState::Failed) => {
                    taken_back[usize::from(*local)] = true;
                    reopened.push(*local);
                }
                Some(state) => return Err(Illegal::Event { step: *local, state: *state, event: StepEvent::Reopened }),
                None => return Err(Illegal::NoStep { step: *local, steps: before.steps.len() }),
            }
        }
        let results = results.iter().copied().filter(|(local, _)| !taken_back[usize::from(*local)]);
        let live = live_in(current).chain(reopened.iter().copied());
        let (after, mut advance) = Self::derive(dag, frame, results, live, next_lane(current))?;
        advance.released.splice(0..0, reopened);
        Ok((after, advance))
    }

    fn derive(
        dag: &Dag,
        frame: FrameIx,
        results: impl Iterator<Item = (u16, Ended)>,
        live: impl Iterator<Item = u16>,
        next_lane: u32,
    ) -> Result<(Self, Advance), Illegal> {
        let steps = vec![StepState::Pending; dag.frame(frame).members.len()];
        let mut state = Self { next_lane, open: 0, steps };
        let carried_out = results.map(|(local, ended)| (local, StepState::from(ended), StepEvent::Ended(ended)));
        for (step, to, event) in carried_out.chain(live.map(|local| (local, StepState::Live, StepEvent::Released))) {
            let steps = state.steps.len();
            match state.steps.get_mut(usize::from(step)) {
                Some(place @ StepState::Pending) => *place = to,
                Some(place) => return Err(Illegal::Event { step, state: *place, event }),
                None => return Err(Illegal::NoStep { step, steps }),
            }
        }
        state.open = state.steps.iter().filter(|s| !s.is_terminal()).count() as u16;
        // Every step, not only those below an end: a first step may be among those that never came to their turn.
        let all = (0u16..).take(state.steps.len()).collect();
        let advance = state.settle(dag, frame, all);
        Ok((state, advance))
    }
}

fn live_in(current: Option<&FrameState>) -> impl Iterator<Item = u16> {
    let steps = current.map(FrameState::steps).unwrap_or_default();
    (0u16..).zip(steps).filter(|(_, state)| **state == StepState::Live).map(|(local, _)| local)
}

fn next_lane(current: Option<&FrameState>) -> u32 {
    current.map_or(0, |state| state.next_lane)
}
