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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{drain, lifecycle::Ended};
    use std::fmt::Write as _;

    /// Small, fast, the same every time.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % n
        }
    }

    fn workflow(chance: &mut Chance, steps: usize) -> String {
        let mut text = String::new();
        for step in 0..steps {
            let needs: Vec<String> = (0..step).filter(|_| chance.below(3) == 0).map(|dep| format!("s{dep}")).collect();
            let join = ["all_succeeded", "none_failed", "any_succeeded", "all_done"][chance.below(4)];
            let tolerant = chance.below(4) == 0;
            let join = if needs.is_empty() { String::new() } else { format!("needs: [{}], join: {join}, ", needs.join(", ")) };
            let _ = writeln!(text, "  s{step}: {{{join}allow_failure: {tolerant}, t: 1}}");
        }
        text
    }

    #[test]
    fn results_alone_give_the_state_back_at_every_moment() {
        let chance = &mut Chance(7);
        for _ in 0..300 {
            let text = workflow(chance, 9);
            let dag = drain::compiled(&text).dag;
            let mut state = FrameState::start(&dag, FrameIx::ROOT);
            let mut results = vec![];
            loop {
                assert_eq!(rebuild(&dag, FrameIx::ROOT, results.clone()).steps(), state.steps(), "{results:?} in\n{text}");
                let live: Vec<u16> = (0u16..).zip(state.steps()).filter(|(_, s)| **s == StepState::Live).map(|(local, _)| local).collect();
                if live.is_empty() {
                    break;
                }
                let local = live[chance.below(live.len())];
                let (ended, result) =
                    [(Ended::Succeeded, StepState::Succeeded), (Ended::Skipped, StepState::Skipped), (Ended::Failed, StepState::Failed)]
                        [chance.below(3)];
                state.advance(&dag, FrameIx::ROOT, local, ended).expect("a live step");
                results.push((local, result));
            }
            assert!(state.steps().iter().all(|s| s.is_terminal()));
        }
    }
}
