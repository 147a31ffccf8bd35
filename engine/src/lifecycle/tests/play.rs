//! Carries out a frame event by event, and after each one holds its state against everything that must always be true of it.

use super::reference;
use crate::{
    definition::Dag,
    id::FrameIx,
    lifecycle::{Advance, Ended, FrameEnd, FrameState, StepState},
};
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Play<'a> {
    pub dag: &'a Dag,
    pub frame: FrameIx,
    pub state: FrameState,
    /// What was carried out, as `step_result` has it.
    pub results: BTreeMap<u16, Ended>,
    /// Every end that was announced, in order.
    pub ends: Vec<FrameEnd>,
    /// How often each step was given a lane.
    pub released: Vec<usize>,
    /// Steps that have one now, as those who carry them out know.
    lanes: BTreeSet<u16>,
}

impl<'a> Play<'a> {
    pub fn start(dag: &'a Dag, frame: FrameIx) -> Self {
        let state = FrameState::start(dag, frame);
        let released = state.steps().iter().map(|s| usize::from(*s == StepState::Live)).collect();
        let lanes = dag.frame(frame).roots.iter().map(|ix| dag.step(*ix).local).collect();
        let play = Self { dag, frame, state, results: BTreeMap::new(), ends: Vec::new(), released, lanes };
        play.check();
        play
    }

    pub fn live(&self) -> Vec<u16> {
        self.standing(StepState::Live)
    }

    pub fn standing(&self, state: StepState) -> Vec<u16> {
        (0u16..).zip(self.state.steps()).filter(|(_, s)| **s == state).map(|(local, _)| local).collect()
    }

    pub fn recorded(&self) -> Vec<(u16, Ended)> {
        self.results.iter().map(|(local, ended)| (*local, *ended)).collect()
    }

    /// A live step ends.
    pub fn end(&mut self, local: u16, ended: Ended) -> Advance {
        let before = self.state.clone();
        let advance = self.state.advance(self.dag, self.frame, local, ended).expect("a live step may end");
        self.results.insert(local, ended);
        self.lanes.remove(&local);
        for step in &advance.released {
            assert_eq!(before.step(*step), StepState::Pending, "step {step} was released where it was not pending");
            for dep in self.deps(*step) {
                assert!(self.state.step(*dep).is_terminal(), "step {step} was released before {dep} had ended");
            }
        }
        for (step, (was, is)) in before.steps().iter().zip(self.state.steps()).enumerate() {
            assert!(!was.is_terminal() || was == is, "step {step} had ended and changed");
        }
        self.note(&advance);
        advance
    }

    /// A failed step is redriven.
    pub fn reopen(&mut self, again: &[u16]) -> Advance {
        let recorded = self.recorded();
        let (state, advance) =
            FrameState::reopen(self.dag, self.frame, &recorded, Some(&self.state), again).expect("a failed step may be redriven");
        let below = self.below(again);
        for (local, (was, is)) in (0u16..).zip(self.state.steps().iter().zip(state.steps())) {
            let untouched = *was == StepState::Live || (self.results.contains_key(&local) && !again.contains(&local));
            assert!(!untouched || was == is, "step {local} is {was:?} and was touched");
            assert!(was == is || again.contains(&local) || below[usize::from(local)], "step {local} is not below what was redriven");
        }
        self.state = state;
        self.results.retain(|local, _| !again.contains(local));
        self.note(&advance);

        let repeated = FrameState::reopen(self.dag, self.frame, &self.recorded(), Some(&self.state), again).expect("it may be repeated");
        assert_eq!(repeated, (self.state.clone(), Advance::default()), "a repeated redrive did something");
        advance
    }

    fn note(&mut self, advance: &Advance) {
        for step in &advance.released {
            self.released[usize::from(*step)] += 1;
            assert!(self.lanes.insert(*step), "step {step} was given a second lane");
        }
        assert_eq!(advance.end.is_some(), self.state.steps().iter().all(|s| s.is_terminal()), "an end is announced when all have ended");
        self.ends.extend(advance.end);
        self.check();
    }

    fn check(&self) {
        let bytes = self.state.encode();
        let open = self.state.steps().iter().filter(|s| !s.is_terminal()).count();
        assert_eq!(usize::from(u16::from_le_bytes([bytes[4], bytes[5]])), open, "the count of open steps");
        assert_eq!(FrameState::decode(&bytes).as_ref(), Some(&self.state), "stored and read again");

        let reading = reference::read(self.dag, self.frame, &self.results, &self.lanes, |step| panic!("step {step} was not released"));
        assert_eq!(self.state.steps(), reading.states, "the states are the reference's");

        let restored = FrameState::restore(self.dag, self.frame, &self.recorded(), Some(&self.state)).expect("a state can be restored");
        assert_eq!(restored.0, self.state, "the state is what follows from the record");
        assert!(restored.1.released.is_empty(), "restoring a frame starts nothing");
    }

    fn deps(&self, local: u16) -> &[u16] {
        &self.dag.step(self.dag.frame(self.frame).members[usize::from(local)]).deps
    }

    fn below(&self, from: &[u16]) -> Vec<bool> {
        let mut below = vec![false; self.released.len()];
        for _ in 0..self.released.len() {
            for local in 0..self.released.len() as u16 {
                if self.deps(local).iter().any(|dep| from.contains(dep) || below[usize::from(*dep)]) {
                    below[usize::from(local)] = true;
                }
            }
        }
        below
    }
}
