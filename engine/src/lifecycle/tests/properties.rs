//! Random DAGs, random fates, random orders: the same end as the reference's, and everything that `Play` holds true on the way.

use super::{
    graph::{Graph, at},
    play::Play,
    reference,
};
use crate::{
    definition::{Dag, Join},
    id::FrameIx,
    lifecycle::{Ended, FrameState, StepState},
};
use proptest::{collection::vec, prelude::*, sample::Index};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
struct PlannedStep {
    /// Which of the steps before it; one without runs first.
    needs: Vec<Index>,
    join: Join,
    allow_failure: bool,
    fate: Ended,
    /// When it is redriven.
    again: Ended,
    /// Where it stands in the frame: no rule may take that for an order in time.
    place: u16,
}

#[derive(Clone, Debug)]
struct Plan {
    steps: Vec<PlannedStep>,
    in_map: bool,
}

/// A plan, compiled: fates by position.
struct Game {
    dag: Dag,
    frame: FrameIx,
    fate: BTreeMap<u16, Ended>,
    again: BTreeMap<u16, Ended>,
}

fn ends() -> impl Strategy<Value = Ended> {
    prop_oneof![5 => Just(Ended::Succeeded), 2 => Just(Ended::Skipped), 3 => Just(Ended::Failed)]
}

fn plans() -> impl Strategy<Value = Plan> {
    let join = prop_oneof![Just(Join::AllSucceeded), Just(Join::NoneFailed), Just(Join::AnySucceeded), Just(Join::AllDone)];
    let step = (vec(any::<Index>(), 0..5), join, prop::bool::weighted(0.25), ends(), ends(), any::<u16>());
    let step =
        step.prop_map(|(needs, join, allow_failure, fate, again, place)| PlannedStep { needs, join, allow_failure, fate, again, place });
    (vec(step, 1..=40), any::<bool>()).prop_map(|(steps, in_map)| Plan { steps, in_map })
}

fn choices() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 48)
}

impl Plan {
    fn compile(&self) -> Game {
        let mut frame = self.steps.iter().enumerate().collect::<Vec<_>>();
        frame.sort_by_key(|(_, step)| step.place);
        let mut graph = Graph::new();
        for (nth, step) in &frame {
            let needs = step.needs.iter().filter(|_| *nth > 0).map(|ix| ix.index(*nth)).collect::<BTreeSet<_>>();
            let needs = needs.into_iter().map(name).collect::<Vec<_>>();
            graph = graph.step(&name(*nth), &needs.iter().map(String::as_str).collect::<Vec<_>>()).join(step.join);
            graph = if step.allow_failure { graph.allow_failure() } else { graph };
        }
        let (dag, frame) = if self.in_map { (graph.build_in_map(), FrameIx(1)) } else { (graph.build(), FrameIx::ROOT) };
        let by_place = |end: fn(&PlannedStep) -> Ended| {
            self.steps.iter().enumerate().map(|(nth, step)| (at(&dag, &name(nth)), end(step))).collect::<BTreeMap<_, _>>()
        };
        let (fate, again) = (by_place(|step| step.fate), by_place(|step| step.again));
        Game { dag, frame, fate, again }
    }
}

fn name(nth: usize) -> String {
    format!("s{nth}")
}

impl Game {
    fn reference(&self) -> reference::Reading {
        reference::read(&self.dag, self.frame, &BTreeMap::new(), &BTreeSet::new(), |step| self.fate[&step])
    }

    fn play(&self, choices: &[u8]) -> Play<'_> {
        let mut play = Play::start(&self.dag, self.frame);
        go_on(&mut play, &self.fate, choices, TO_THE_END);
        play
    }
}

/// More ends than any game has: forty steps, six redrives of all of them.
const TO_THE_END: usize = 40 * 7 + 1;

/// Live steps end by their fate, one after the other, until none is left or so many have ended.
fn go_on(play: &mut Play<'_>, fate: &BTreeMap<u16, Ended>, choices: &[u8], at_most: usize) {
    for choice in choices.iter().cycle().take(at_most) {
        let live = play.live();
        if live.is_empty() {
            return;
        }
        let step = live[usize::from(*choice) % live.len()];
        play.end(step, fate[&step]);
    }
    assert!(at_most < TO_THE_END, "it goes on for ever");
}

fn failed(play: &Play<'_>) -> Vec<u16> {
    play.results.iter().filter(|(_, ended)| **ended == Ended::Failed).map(|(step, _)| *step).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_order_of_ends_leads_to_the_final_states_of_the_reference(plan in plans(), order in choices(), other in choices()) {
        let game = plan.compile();
        let reference = game.reference();
        for order in [&order, &other] {
            let play = game.play(order);
            prop_assert_eq!(play.state.steps(), reference.states.as_slice());
            prop_assert_eq!(play.ends.as_slice(), reference.end.as_slice(), "one end, and the reference's");
            for (step, times) in play.released.iter().enumerate() {
                prop_assert_eq!(*times, usize::from(reference.carried_out.contains(&(step as u16))), "step {} ran {} times", step, times);
            }
        }
    }

    #[test]
    fn redrives_at_any_moment_leave_a_frame_that_ends_as_its_record_says(plan in plans(), order in choices(), redrives in vec((0..80usize, any::<Index>(), any::<bool>()), 0..6)) {
        let game = plan.compile();
        let mut fate = game.fate.clone();
        let mut play = Play::start(&game.dag, game.frame);
        let mut generations = 1;
        for (moment, which, all) in redrives {
            go_on(&mut play, &fate, &order, moment);
            let failed = failed(&play);
            if failed.is_empty() {
                continue;
            }
            let again = if all { failed } else { vec![failed[which.index(failed.len())]] };
            generations += usize::from(play.live().is_empty());
            let advance = play.reopen(&again);
            prop_assert_eq!((advance.released.as_slice(), advance.end), (again.as_slice(), None));
            for step in again {
                fate.insert(step, game.again[&step]);
            }
        }
        go_on(&mut play, &fate, &order, TO_THE_END);

        prop_assert_eq!(play.standing(StepState::Pending), Vec::<u16>::new(), "a step was forgotten");
        prop_assert_eq!(play.ends.len(), generations, "one end for each time that the frame was open");
        // `Play` has compared the states; this is their sum.
        let reference = reference::read(&game.dag, game.frame, &play.results, &BTreeSet::new(), |step| panic!("step {step} was not released"));
        prop_assert_eq!(play.ends.last().copied(), reference.end);
    }

    #[test]
    fn a_step_that_succeeds_when_redriven_might_as_well_have_succeeded_at_once(plan in plans(), order in choices(), which in any::<Index>()) {
        let game = plan.compile();
        let mut play = game.play(&order);
        let first = play.results.clone();
        let failed = failed(&play);
        prop_assume!(!failed.is_empty());
        let redriven = failed[which.index(failed.len())];
        let mut fate = game.fate.clone();
        fate.insert(redriven, Ended::Succeeded);
        play.reopen(&[redriven]);
        go_on(&mut play, &fate, &order, TO_THE_END);

        for (step, ended) in first.iter().filter(|(step, _)| **step != redriven) {
            prop_assert_eq!(play.state.step(*step), StepState::from(*ended), "step {} was carried out before and touched", step);
        }
        // A step that ran although it would not have, had all gone well the first time (a join that waits for no success, below a
        // step that only now runs and fails), keeps its result; where there is none such, nothing tells the two apart.
        let at_once = reference::read(&game.dag, game.frame, &BTreeMap::new(), &BTreeSet::new(), |step| fate[&step]);
        if first.keys().all(|step| at_once.carried_out.contains(step)) {
            prop_assert_eq!(play.state.steps(), at_once.states.as_slice());
            prop_assert_eq!(play.ends.last().copied(), at_once.end);
        }
    }

    #[test]
    fn a_frame_restored_from_its_record_at_any_moment_goes_on_to_the_same_end(plan in plans(), order in choices(), moment in 0..45usize) {
        let game = plan.compile();
        let mut play = Play::start(&game.dag, game.frame);
        go_on(&mut play, &game.fate, &order, moment);

        let (state, advance) = FrameState::restore(&game.dag, game.frame, &play.recorded(), None).expect("a record of this frame");
        prop_assert_eq!(state.steps(), play.state.steps());
        let released = advance.released.iter().copied().collect::<BTreeSet<_>>();
        prop_assert_eq!(released.len(), advance.released.len(), "released twice");
        prop_assert_eq!(released, play.live().into_iter().collect(), "its lanes are gone: each step that was live is released anew");
        prop_assert_eq!(advance.end.as_slice(), play.ends.as_slice());
        play.state = state;
        go_on(&mut play, &game.fate, &order, TO_THE_END);
        let reference = game.reference();
        prop_assert_eq!(play.state.steps(), reference.states.as_slice());
    }

    #[test]
    fn only_what_encode_writes_is_read(head in any::<[u8; 4]>(), open in 0..6u8, steps in vec(0..8u8, 0..6)) {
        let bytes = [head.as_slice(), &[open, 0], &steps].concat();
        let right = steps.iter().all(|code| *code < 7) && steps.iter().filter(|code| **code < 2).count() == usize::from(open);
        let read = FrameState::decode(&bytes);
        prop_assert_eq!(read.is_some(), right);
        prop_assert_eq!(read.map(|state| state.encode()).unwrap_or(bytes.clone()), bytes);
    }
}
