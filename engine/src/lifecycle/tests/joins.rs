//! The join table of docs/language.md, all twenty cells, by way of `advance`: up to three predecessors that stand in any way a
//! predecessor can, ending in either order.

use super::{
    graph::{Graph, at},
    reference::{TABLE, column},
};
use crate::{
    definition::{Dag, Join},
    id::FrameIx,
    lifecycle::{Ended, FrameState, StepState},
};

/// How a predecessor ends.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Succeeded,
    Skipped,
    Failed,
    UpstreamFailed,
    Cancelled,
}

/// With or without `allow_failure`.
type Predecessor = (Fate, bool);

fn predecessors() -> Vec<Predecessor> {
    use Fate::*;
    [Succeeded, Skipped, Failed, UpstreamFailed, Cancelled].into_iter().flat_map(|fate| [(fate, false), (fate, true)]).collect()
}

/// Steps `x`, which joins them by the rule, and `p0`, `p1`, …; one that is to fail upstream needs a root of its own that fails.
fn graph(rule: Join, predecessors: &[Predecessor]) -> Dag {
    let names = (0..predecessors.len()).map(|n| format!("p{n}")).collect::<Vec<_>>();
    let mut graph = Graph::new().step("x", &names.iter().map(String::as_str).collect::<Vec<_>>()).join(rule);
    for (n, (fate, allowed)) in predecessors.iter().enumerate() {
        let root = format!("r{n}");
        graph = match fate {
            Fate::UpstreamFailed => graph.step(&root, &[]).step(&names[n], &[&root]),
            _ => graph.step(&names[n], &[]),
        };
        graph = if *allowed { graph.allow_failure() } else { graph };
    }
    graph.build_in_map()
}

/// What becomes of `x` when the predecessors end in this order.
fn becomes(dag: &Dag, predecessors: &[Predecessor], order: impl Iterator<Item = usize>) -> StepState {
    let frame = FrameIx(1);
    let x = at(dag, "x");
    let mut bytes = FrameState::start(dag, frame).encode();
    // Nothing in a frame cancels a single step, so that state is put there.
    for (n, _) in predecessors.iter().enumerate().filter(|(_, (fate, _))| *fate == Fate::Cancelled) {
        bytes[6 + usize::from(at(dag, &format!("p{n}")))] = StepState::Cancelled as u8;
        bytes[4] -= 1;
    }
    let mut state = FrameState::decode(&bytes).expect("a state");
    for n in order {
        let (step, ended) = match predecessors[n].0 {
            Fate::Succeeded => ("p", Ended::Succeeded),
            Fate::Skipped => ("p", Ended::Skipped),
            Fate::Failed => ("p", Ended::Failed),
            Fate::UpstreamFailed => ("r", Ended::Failed),
            Fate::Cancelled => continue,
        };
        assert_eq!(state.step(x), StepState::Pending, "decided before its predecessors had ended");
        let advance = state.advance(dag, frame, at(dag, &format!("{step}{n}")), ended).expect("legal");
        assert_eq!(advance.released, if state.step(x) == StepState::Live { vec![x] } else { vec![] });
    }
    if predecessors.iter().all(|(fate, _)| *fate == Fate::Cancelled) {
        state.settle(dag, frame, vec![x]);
    }
    state.step(x)
}

#[test]
fn every_cell_of_the_join_table_holds_for_every_way_to_come_to_it() {
    let all = predecessors();
    let mut sets = all.iter().map(|p| vec![*p]).collect::<Vec<_>>();
    for _ in 0..2 {
        let longer = sets.iter().flat_map(|set| all.iter().map(|p| [set.as_slice(), &[*p]].concat())).collect::<Vec<_>>();
        sets.extend(longer);
    }
    let mut seen = [[0; 5]; 4];
    for (row, (rule, cells)) in TABLE.into_iter().enumerate() {
        for set in &sets {
            let count = |wanted: fn(&Predecessor) -> bool| set.iter().filter(|p| wanted(p)).count();
            let succeeded = count(|(fate, _)| *fate == Fate::Succeeded);
            let failed = count(|(fate, allowed)| !matches!(fate, Fate::Succeeded | Fate::Skipped) && !allowed);
            let cell = column(succeeded, set.len() - succeeded - failed, failed);
            seen[row][cell] += 1;

            let expected = match cells[cell] {
                "run" => StepState::Live,
                "skipped" => StepState::Skipped,
                _ => StepState::UpstreamFailed,
            };
            let dag = graph(rule, set);
            assert_eq!(becomes(&dag, set, 0..set.len()), expected, "{rule:?} of {set:?}");
            assert_eq!(becomes(&dag, set, (0..set.len()).rev()), expected, "{rule:?} of {set:?}, the last first");
        }
    }
    assert!(seen.iter().flatten().all(|n| *n > 0), "a cell was never reached: {seen:?}");
}

#[test]
fn a_step_without_predecessors_runs_by_every_rule() {
    for (rule, _) in TABLE {
        let dag = Graph::new().step("x", &[]).join(rule).build();
        assert_eq!(FrameState::start(&dag, FrameIx::ROOT).step(0), StepState::Live, "{rule:?}");
        let (restored, advance) = FrameState::restore(&dag, FrameIx::ROOT, &[], None).expect("nothing is on record");
        assert_eq!((restored.step(0), advance.released), (StepState::Live, vec![0]), "{rule:?}");
    }
}
