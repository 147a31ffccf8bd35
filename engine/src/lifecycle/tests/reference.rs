//! A second reading of docs/language.md: no state of its own, no order of events, only sets and the whole table, again and again
//! until nothing is left to decide. It looks at predecessors alone, and shares no code with the rules that it checks.

use crate::{
    definition::{Dag, Join},
    id::FrameIx,
    lifecycle::{Ended, FrameEnd, StepState},
};
use std::collections::{BTreeMap, BTreeSet};

/// The join table as docs/language.md prints it, row by row.
pub(super) const TABLE: [(Join, [&str; 5]); 4] = [
    (Join::AllSucceeded, ["run", "skipped", "skipped", "upstream_failed", "upstream_failed"]),
    (Join::NoneFailed, ["run", "run", "run", "upstream_failed", "upstream_failed"]),
    (Join::AnySucceeded, ["run", "run", "skipped", "run", "upstream_failed"]),
    (Join::AllDone, ["run", "run", "run", "run", "run"]),
];

/// The table's column for so many predecessors that joined as succeeded, as skipped and as failed; at least one did.
pub(super) fn column(succeeded: usize, skipped: usize, failed: usize) -> usize {
    match (failed > 0, succeeded > 0, skipped > 0) {
        (false, true, false) => 0,
        (false, true, true) => 1,
        (false, false, _) => 2,
        (true, true, _) => 3,
        (true, false, _) => 4,
    }
}

/// How a frame stands.
#[derive(Debug)]
pub(super) struct Reading {
    pub states: Vec<StepState>,
    /// Steps that ran, now or before.
    pub carried_out: BTreeSet<u16>,
    /// Set when every step has ended.
    pub end: Option<FrameEnd>,
}

/// How a frame stands after `done`, with these steps running, when every other step that may run does what `fate` says.
pub(super) fn read(
    dag: &Dag,
    frame: FrameIx,
    done: &BTreeMap<u16, Ended>,
    running: &BTreeSet<u16>,
    fate: impl Fn(u16) -> Ended,
) -> Reading {
    let members = &dag.frame(frame).members;
    let everyone = (0..members.len() as u16).collect::<BTreeSet<_>>();
    let excused = everyone.iter().copied().filter(|s| dag.step(members[usize::from(*s)]).allow_failure).collect::<BTreeSet<_>>();

    let mut ran = done.clone();
    let (mut passed_over, mut doomed) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let which = |ended: Ended| ran.iter().filter(|(_, e)| **e == ended).map(|(s, _)| *s).collect::<BTreeSet<_>>();
        let succeeded = which(Ended::Succeeded);
        let fallen = &which(Ended::Failed) | &doomed;
        let failures = &fallen - &excused;
        let skips = &(&which(Ended::Skipped) | &passed_over) | &(&fallen & &excused);
        let ended = &(&succeeded | &failures) | &skips;

        let undecided = &(&everyone - &ended) - running;
        let next = undecided.iter().filter_map(|s| {
            let step = dag.step(members[usize::from(*s)]);
            let needs = step.deps.iter().copied().collect::<BTreeSet<_>>();
            if !needs.is_subset(&ended) {
                return None;
            }
            if needs.is_empty() {
                return Some((*s, "run"));
            }
            let row = TABLE.iter().find(|(rule, _)| *rule == step.join).expect("a row for each rule").1;
            Some((*s, row[column((&needs & &succeeded).len(), (&needs & &skips).len(), (&needs & &failures).len())]))
        });
        let next = next.collect::<Vec<_>>();
        if next.is_empty() {
            let states = everyone.iter().map(|s| match ran.get(s) {
                Some(Ended::Succeeded) => StepState::Succeeded,
                Some(Ended::Skipped) => StepState::Skipped,
                Some(Ended::Failed) => StepState::Failed,
                None if running.contains(s) => StepState::Live,
                None if passed_over.contains(s) => StepState::Skipped,
                None if doomed.contains(s) => StepState::UpstreamFailed,
                None => StepState::Pending,
            });
            let blamed = (&which(Ended::Failed) - &excused).first().copied();
            let end = (ended == everyone).then(|| match failures.is_empty() {
                true => FrameEnd::Succeeded,
                false => FrameEnd::Failed { step: blamed.expect("something failed before others failed because of it") },
            });
            return Reading { states: states.collect(), carried_out: ran.keys().copied().collect(), end };
        }
        for (s, becomes) in next {
            match becomes {
                "run" => drop(ran.insert(s, fate(s))),
                "skipped" => drop(passed_over.insert(s)),
                _ => drop(doomed.insert(s)),
            }
        }
    }
}
