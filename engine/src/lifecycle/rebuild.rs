//! A frame put together again from what is on record of its steps. The same rules that decided once decide again, so a step that was
//! skipped or failed because of a predecessor needs no record of its own.

use super::frame::{FrameState, StepState};
use crate::{definition::Dag, id::FrameIx};

/// The frame's state when the given steps stand as given (by position; steps with a result, or live ones that must stay so) and the rules
/// decide everything else: what has no predecessors, or may run after those that ended, is live; the rest is pending.
///
/// The lanes of the result count from 0; a caller that has live lanes numbers its own.
pub fn rebuild(dag: &Dag, frame: FrameIx, known: impl IntoIterator<Item = (u16, StepState)>) -> FrameState {
    let members = &dag.frame(frame).members;
    let mut steps = vec![StepState::Pending; members.len()];
    for root in &dag.frame(frame).roots {
        steps[usize::from(dag.step(*root).local)] = StepState::Live;
    }
    for (local, state) in known {
        steps[usize::from(local)] = state;
    }
    let ended = (0u16..).zip(&steps).filter(|(_, state)| state.is_terminal()).map(|(local, _)| local).collect();
    let mut state = FrameState::from_steps(steps, 0);
    state.settle(dag, frame, ended);
    state
}
