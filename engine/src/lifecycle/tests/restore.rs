//! Redrive and restoring, case by case; `properties` has the random ones.

use super::{
    graph::{Graph, at},
    play::Play,
};
use crate::{
    definition::{Dag, Join},
    id::FrameIx,
    lifecycle::{Advance, Ended, FrameEnd, FrameState, Illegal, StepEvent, StepState},
};

const ROOT: FrameIx = FrameIx::ROOT;

fn state(play: &Play<'_>, id: &str) -> StepState {
    play.state.step(at(play.dag, id))
}

/// The steps end in this order.
fn played<'a>(dag: &'a Dag, ends: &[(&str, Ended)]) -> Play<'a> {
    let mut play = Play::start(dag, ROOT);
    for (id, ended) in ends {
        play.end(at(dag, id), *ended);
    }
    play
}

#[test]
fn a_redriven_step_is_live_and_what_failed_because_of_it_is_pending_again_and_runs() {
    let dag = Graph::new().step("a", &[]).step("b", &["a"]).step("c", &["b"]).build();
    let mut play = played(&dag, &[("a", Ended::Failed)]);
    assert_eq!(play.ends, [FrameEnd::Failed { step: 0 }]);
    assert_eq!(play.reopen(&[0]), Advance { released: vec![0], end: None });
    assert_eq!(play.state.steps(), [StepState::Live, StepState::Pending, StepState::Pending]);
    for local in 0..3 {
        play.end(local, Ended::Succeeded);
    }
    assert_eq!(play.ends[1..], [FrameEnd::Succeeded]);
}

#[test]
fn of_two_failures_the_one_that_is_not_redriven_still_fails_what_is_below_both() {
    let dag = Graph::new().step("a", &[]).step("b", &[]).step("both", &["a", "b"]).step("only_a", &["a"]).build();
    let mut play = played(&dag, &[("a", Ended::Failed), ("b", Ended::Failed)]);
    play.reopen(&[at(&dag, "a")]);
    assert_eq!(state(&play, "both"), StepState::Pending);
    assert_eq!(state(&play, "b"), StepState::Failed);
    play.end(at(&dag, "a"), Ended::Succeeded);
    assert_eq!(state(&play, "both"), StepState::UpstreamFailed);
    play.end(at(&dag, "only_a"), Ended::Succeeded);
    assert_eq!(play.ends, [FrameEnd::Failed { step: 0 }, FrameEnd::Failed { step: at(&dag, "b") }]);
    // And then the other.
    play.reopen(&[at(&dag, "b")]);
    play.end(at(&dag, "b"), Ended::Succeeded);
    play.end(at(&dag, "both"), Ended::Succeeded);
    assert_eq!(play.ends.last(), Some(&FrameEnd::Succeeded));
}

#[test]
fn two_failures_of_one_frame_can_be_redriven_together() {
    let dag = Graph::new().step("a", &[]).step("b", &[]).step("both", &["a", "b"]).build();
    let mut play = played(&dag, &[("a", Ended::Failed), ("b", Ended::Failed)]);
    assert_eq!(play.reopen(&[1, 0]).released, [1, 0]);
    play.end(0, Ended::Succeeded);
    play.end(1, Ended::Succeeded);
    assert_eq!(state(&play, "both"), StepState::Live);
}

#[test]
fn a_redrive_that_fails_again_ends_the_frame_again() {
    let dag = Graph::new().step("a", &[]).step("b", &["a"]).build();
    let mut play = played(&dag, &[("a", Ended::Failed)]);
    play.reopen(&[0]);
    assert_eq!(play.end(0, Ended::Failed).end, Some(FrameEnd::Failed { step: 0 }));
    assert_eq!(state(&play, "b"), StepState::UpstreamFailed);
}

#[test]
fn what_was_carried_out_below_a_failure_stays_as_it_is() {
    let dag = Graph::new()
        .step("good", &[])
        .step("bad", &[])
        .step("any", &["good", "bad"])
        .join(Join::AnySucceeded)
        .step("all", &["bad"])
        .join(Join::AllDone)
        .step("off", &["bad"])
        .join(Join::AllDone)
        .step("rest", &["bad", "all"])
        .build();
    let mut play = played(
        &dag,
        &[
            ("good", Ended::Succeeded),
            ("bad", Ended::Failed),
            ("any", Ended::Succeeded),
            ("all", Ended::Succeeded),
            ("off", Ended::Skipped),
        ],
    );
    assert_eq!(state(&play, "rest"), StepState::UpstreamFailed);
    play.reopen(&[at(&dag, "bad")]);
    for (id, expected) in
        [("good", StepState::Succeeded), ("any", StepState::Succeeded), ("all", StepState::Succeeded), ("off", StepState::Skipped)]
    {
        assert_eq!(state(&play, id), expected, "{id}");
    }
    assert_eq!(play.end(at(&dag, "bad"), Ended::Succeeded).released, [at(&dag, "rest")]);
}

#[test]
fn another_failure_below_a_redriven_step_keeps_its_own_consequences() {
    let dag = Graph::new().step("bad", &[]).step("clean", &["bad"]).join(Join::AllDone).step("after", &["clean"]).build();
    let mut play = played(&dag, &[("bad", Ended::Failed), ("clean", Ended::Failed)]);
    play.reopen(&[at(&dag, "bad")]);
    assert_eq!(state(&play, "after"), StepState::UpstreamFailed);
    assert_eq!(play.end(at(&dag, "bad"), Ended::Succeeded).end, Some(FrameEnd::Failed { step: at(&dag, "clean") }));
}

#[test]
fn a_skip_that_nobody_carried_out_and_that_came_of_the_failure_is_decided_anew() {
    // `allow_failure` makes the failure join as skipped; a redrive that left `after` skipped would end as a success that did nothing.
    let dag = Graph::new().step("bad", &[]).step("soft", &["bad"]).allow_failure().step("after", &["soft"]).build();
    let mut play = played(&dag, &[("bad", Ended::Failed)]);
    assert_eq!(play.state.steps(), [StepState::Failed, StepState::UpstreamFailed, StepState::Skipped]);
    play.reopen(&[0]);
    assert_eq!(play.state.steps(), [StepState::Live, StepState::Pending, StepState::Pending]);
    for local in 0..3 {
        play.end(local, Ended::Succeeded);
    }
    assert_eq!(play.ends.last(), Some(&FrameEnd::Succeeded));
}

#[test]
fn a_redrive_while_other_steps_run_leaves_them_running_and_their_lanes_taken() {
    let dag = Graph::new().step("a", &[]).step("b", &[]).step("c", &["a", "b"]).build();
    let mut play = played(&dag, &[("a", Ended::Failed)]);
    assert_eq!(play.reopen(&[0]).released, [0]);
    assert_eq!(play.state.steps(), [StepState::Live, StepState::Live, StepState::Pending]);
    assert_eq!(play.state.open_lane(), 2, "lanes 0 and 1 have been used");
}

#[test]
fn only_a_failed_step_is_redriven_and_a_live_one_is_left_alone() {
    let dag = Graph::new()
        .step("ok", &[])
        .step("off", &[])
        .step("bad", &[])
        .step("low", &["bad"])
        .step("live", &[])
        .step("late", &["live"])
        .build();
    let play = played(&dag, &[("ok", Ended::Succeeded), ("off", Ended::Skipped), ("bad", Ended::Failed)]);
    let reopen = |again: &[u16]| FrameState::reopen(&dag, ROOT, &play.recorded(), Some(&play.state), again);
    for (id, state) in
        [("ok", StepState::Succeeded), ("off", StepState::Skipped), ("low", StepState::UpstreamFailed), ("late", StepState::Pending)]
    {
        let step = at(&dag, id);
        assert_eq!(reopen(&[at(&dag, "bad"), step]), Err(Illegal::Event { step, state, event: StepEvent::Reopened }), "{id}");
    }
    assert_eq!(reopen(&[6]), Err(Illegal::NoStep { step: 6, steps: 6 }));
    assert_eq!(reopen(&[at(&dag, "live")]), Ok((play.state.clone(), Advance::default())));
    assert_eq!(reopen(&[]), Ok((play.state.clone(), Advance::default())));
    let bad = at(&dag, "bad");
    assert_eq!(reopen(&[bad, bad]).expect("legal").1.released, [bad], "named twice, released once");
}

#[test]
fn a_record_that_contradicts_itself_or_the_frame_is_refused() {
    let dag = Graph::new().step("a", &[]).step("b", &["a"]).build();
    let restore = |results: &[(u16, Ended)], current| FrameState::restore(&dag, ROOT, results, current);
    let event = StepEvent::Ended(Ended::Failed);
    assert_eq!(
        restore(&[(0, Ended::Succeeded), (0, Ended::Failed)], None),
        Err(Illegal::Event { step: 0, state: StepState::Succeeded, event })
    );
    let running = FrameState::start(&dag, ROOT);
    assert_eq!(
        restore(&[(0, Ended::Failed)], Some(&running)),
        Err(Illegal::Event { step: 0, state: StepState::Failed, event: StepEvent::Released })
    );
    assert_eq!(restore(&[(2, Ended::Failed)], None), Err(Illegal::NoStep { step: 2, steps: 2 }));
}

#[test]
fn a_frame_that_was_stopped_is_restored_with_every_step_that_can_go_on() {
    let dag = Graph::new().step("a", &[]).step("b", &[]).step("c", &["a"]).step("d", &["b", "c"]).build();
    let (state, advance) = FrameState::restore(&dag, ROOT, &[(0, Ended::Succeeded)], None).expect("legal");
    assert_eq!(state.steps(), [StepState::Succeeded, StepState::Live, StepState::Live, StepState::Pending]);
    assert_eq!(advance, Advance { released: vec![1, 2], end: None }, "the first step `b` too, which is below nothing");
}

#[test]
fn a_redrive_of_a_frame_that_was_stopped_releases_what_was_stopped_too() {
    let dag = Graph::new().step("bad", &[]).step("stopped", &[]).build();
    let (state, advance) = FrameState::reopen(&dag, ROOT, &[(0, Ended::Failed)], None, &[0]).expect("legal");
    assert_eq!((state.steps(), advance.released), (&[StepState::Live; 2][..], vec![0, 1]));
}

#[test]
fn a_frame_that_ended_is_restored_as_ended() {
    let dag = Graph::new().step("a", &[]).step("b", &["a"]).build();
    let (state, advance) = FrameState::restore(&dag, ROOT, &[(0, Ended::Failed)], None).expect("legal");
    assert_eq!(state.steps(), [StepState::Failed, StepState::UpstreamFailed]);
    assert_eq!(advance, Advance { released: vec![], end: Some(FrameEnd::Failed { step: 0 }) });
}
