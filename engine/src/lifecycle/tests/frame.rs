//! The frame's own machine: every (state, event) pair, its stored form, its end. The joins are in `joins`, the whole in `properties`.

use super::graph::{Graph, at};
use crate::{
    id::FrameIx,
    lifecycle::{Advance, Ended, FrameEnd, FrameState, Illegal, StepEvent, StepState},
};

const ROOT: FrameIx = FrameIx::ROOT;

fn stored(next_lane: u32, steps: &[StepState]) -> Vec<u8> {
    let open = steps.iter().filter(|s| !s.is_terminal()).count() as u16;
    let codes = steps.iter().map(|s| *s as u8).collect();
    [next_lane.to_le_bytes().to_vec(), open.to_le_bytes().to_vec(), codes].concat()
}

#[test]
fn only_a_live_step_ends_and_every_other_pair_is_refused_by_name_and_changes_nothing() {
    let dag = Graph::new().step("a", &[]).step("b", &[]).build();
    for state in StepState::ALL {
        for ended in Ended::ALL {
            let before = FrameState::decode(&stored(2, &[StepState::Live, state])).expect("a state");
            let mut frame = before.clone();
            let result = frame.advance(&dag, ROOT, 1, ended);
            if state == StepState::Live {
                assert_eq!(result, Ok(Advance::default()), "the other step is still open");
                assert_eq!(frame.steps(), [StepState::Live, ended.into()]);
            } else {
                assert_eq!(result, Err(Illegal::Event { step: 1, state, event: StepEvent::Ended(ended) }));
                assert_eq!(frame, before, "{state:?} changed by {ended:?}");
            }
        }
    }
}

#[test]
fn a_refused_event_says_where_the_step_stands_and_what_was_to_happen() {
    let say = |state, event| Illegal::Event { step: 3, state, event }.to_string();
    assert_eq!(say(StepState::Succeeded, StepEvent::Ended(Ended::Failed)), "step 3 is succeeded and can't fail");
    assert_eq!(say(StepState::Pending, StepEvent::Ended(Ended::Skipped)), "step 3 is pending and can't be skipped");
    assert_eq!(say(StepState::UpstreamFailed, StepEvent::Reopened), "step 3 is upstream_failed and can't be redriven");
    assert_eq!(say(StepState::Skipped, StepEvent::Released), "step 3 is skipped and can't be released");
    assert_eq!(say(StepState::Cancelled, StepEvent::Ended(Ended::Succeeded)), "step 3 is cancelled and can't succeed");
}

#[test]
fn a_position_or_a_state_of_another_frame_is_refused() {
    let dag = Graph::new().step("a", &[]).step("b", &["a"]).build();
    let mut frame = FrameState::start(&dag, ROOT);
    assert_eq!(frame.advance(&dag, ROOT, 2, Ended::Succeeded), Err(Illegal::NoStep { step: 2, steps: 2 }));
    let mut short = FrameState::decode(&stored(1, &[StepState::Live])).expect("a state");
    assert_eq!(short.advance(&dag, ROOT, 0, Ended::Succeeded), Err(Illegal::Misfit { stored: 1, declared: 2 }));
}

#[test]
fn terminal_states_are_those_of_the_design() {
    use StepState::*;
    for state in StepState::ALL {
        assert_eq!(state.is_terminal(), [Succeeded, Skipped, Failed, UpstreamFailed, Cancelled].contains(&state), "{state:?}");
    }
}

#[test]
fn a_frame_starts_with_its_first_steps_on_the_first_lanes() {
    let dag = Graph::new().step("c", &["a", "b"]).step("a", &[]).step("b", &[]).build();
    let mut frame = FrameState::start(&dag, ROOT);
    assert_eq!(frame.steps(), [StepState::Pending, StepState::Live, StepState::Live]);
    assert_eq!((frame.open_lane(), frame.open_lane()), (2, 3), "lanes 0 and 1 are the first steps'");
}

#[test]
fn successors_are_released_in_the_frames_order() {
    let dag = Graph::new().step("a", &[]).step("b", &["a"]).step("c", &["a"]).step("d", &["a"]).build();
    let advance = FrameState::start(&dag, ROOT).advance(&dag, ROOT, 0, Ended::Succeeded).expect("legal");
    assert_eq!(advance, Advance { released: vec![1, 2, 3], end: None });
}

#[test]
fn the_stored_form_is_lane_open_count_and_a_byte_a_step() {
    let dag = Graph::new().step("a", &[]).step("b", &["a"]).step("c", &["b"]).build();
    let mut frame = FrameState::start(&dag, ROOT);
    frame.advance(&dag, ROOT, 0, Ended::Succeeded).expect("legal");
    // Rows of this form are in databases: a change here needs a migration.
    assert_eq!(frame.encode(), [1, 0, 0, 0, 2, 0, 2, 1, 0]);
    for (code, state) in (0u8..).zip(StepState::ALL) {
        assert_eq!(state as u8, code, "{state:?}");
        let bytes = stored(0x0102_0304, &[state]);
        let frame = FrameState::decode(&bytes).expect("a state");
        assert_eq!((frame.steps(), frame.encode()), (&[state][..], bytes));
    }
}

#[test]
fn what_is_no_stored_frame_is_refused() {
    for short in 0..6 {
        assert_eq!(FrameState::decode(&vec![0; short]), None, "{short} bytes");
    }
    for code in 7..=u8::MAX {
        for open in [0, 1] {
            assert_eq!(FrameState::decode(&[0, 0, 0, 0, open, 0, code]), None, "code {code}");
        }
    }
    let good = stored(9, &[StepState::Live, StepState::Pending, StepState::Failed]);
    assert!(FrameState::decode(&good).is_some());
    for open in [0, 1, 3, 255] {
        let mut bad = good.clone();
        bad[4] = open;
        assert_eq!(FrameState::decode(&bad), None, "two steps are open, not {open}");
    }
    let cut = &good[..good.len() - 2];
    assert_eq!(FrameState::decode(cut), None, "an open step was cut off");
}

#[test]
fn a_frame_fails_by_the_step_that_failed_not_by_one_that_could_not_run_because_of_it() {
    let dag = Graph::new().step("report", &["extract"]).step("extract", &[]).build();
    let advance = FrameState::start(&dag, ROOT).advance(&dag, ROOT, at(&dag, "extract"), Ended::Failed).expect("legal");
    assert_eq!(advance.end, Some(FrameEnd::Failed { step: at(&dag, "extract") }));
}

#[test]
fn of_several_failures_the_first_in_the_frame_is_named_whichever_came_first() {
    let dag = Graph::new().step("a", &[]).allow_failure().step("b", &[]).step("c", &[]).build();
    let mut frame = FrameState::start(&dag, ROOT);
    for local in [2, 1] {
        assert_eq!(frame.advance(&dag, ROOT, local, Ended::Failed).expect("legal").end, None);
    }
    assert_eq!(frame.advance(&dag, ROOT, 0, Ended::Failed).expect("legal").end, Some(FrameEnd::Failed { step: 1 }));
}

/// The end of a frame whose first step stands so already and whose second one succeeds.
fn end_beside(state: StepState, allow_failure: bool) -> Option<FrameEnd> {
    let first = Graph::new().step("a", &[]);
    let dag = if allow_failure { first.allow_failure() } else { first }.step("b", &[]).build();
    let mut frame = FrameState::decode(&stored(2, &[state, StepState::Live])).expect("a state");
    frame.advance(&dag, ROOT, 1, Ended::Succeeded).expect("legal").end
}

#[test]
fn a_frame_fails_iff_a_step_without_allow_failure_did() {
    use StepState::*;
    for state in StepState::ALL {
        let (plain, excused) = match state {
            Pending | Live => (None, None),
            Succeeded | Skipped => (Some(FrameEnd::Succeeded), Some(FrameEnd::Succeeded)),
            Failed | UpstreamFailed | Cancelled => (Some(FrameEnd::Failed { step: 0 }), Some(FrameEnd::Succeeded)),
        };
        assert_eq!(end_beside(state, false), plain, "{state:?}");
        assert_eq!(end_beside(state, true), excused, "{state:?} with allow_failure");
    }
}

#[test]
fn a_skip_travels_down_the_longest_chain_without_deep_recursion() {
    let names = (0..20_000).map(|n| format!("s{n}")).collect::<Vec<_>>();
    let chain = names.windows(2).fold(Graph::new().step("s0", &[]), |g, pair| g.step(&pair[1], &[&pair[0]]));
    let dag = chain.build();
    let mut frame = FrameState::start(&dag, ROOT);
    assert_eq!(frame.advance(&dag, ROOT, 0, Ended::Skipped).expect("legal").end, Some(FrameEnd::Succeeded));
    assert!(frame.steps().iter().all(|s| *s == StepState::Skipped));
}
