//! From a draft to the compiled form: steps in an order that depends on the graph and the ids alone, edges as positions in it.

use super::{
    Problem, PromptVersion,
    dag::{Action, Dag, Frame, Reads, Step},
    draft::{Draft, DraftStep, Reader},
    graph,
    references::{self, Resolved},
};
use crate::id::{FrameIx, StepIx};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// Why there is no DAG.
#[derive(Default)]
pub(super) struct Defects {
    /// Values that can't be read: a schema says it better, where there is one.
    pub shape: Vec<Problem>,
    /// Everything else.
    pub meaning: Vec<Problem>,
    /// About the name at its place.
    pub about_keys: Vec<Problem>,
}

/// Compiles an effective definition: all that a process without the step kinds can do.
pub(super) fn assemble(definition: &Value, prompts: Arc<BTreeMap<String, PromptVersion>>) -> Result<Dag, Defects> {
    let mut reader = Reader::default();
    let draft = reader.read(definition);
    let resolved = references::resolve(&draft);
    let mut defects = Defects { shape: reader.shape, meaning: reader.meaning, about_keys: Vec::new() };
    let deps = local_deps(&draft, &resolved);
    let orders = orders(&draft, &deps, &mut defects.about_keys);
    let Resolved { reads, mut collect_reads, output_reads, problems, .. } = resolved;
    defects.meaning.extend(problems);
    let unread = draft.steps.iter().filter(|s| s.action.is_none());
    if defects.shape.is_empty() && defects.meaning.is_empty() && defects.about_keys.is_empty() {
        defects.shape.extend(unread.map(|s| Problem::new("invalid_value", &s.pointer, format!("the step `{}` can't be read", s.id))));
    }
    if !(defects.shape.is_empty() && defects.meaning.is_empty() && defects.about_keys.is_empty()) {
        return Err(defects);
    }
    let numbers = Numbers::new(&draft, &orders);
    let mut steps: Vec<Option<Step>> = Vec::new();
    steps.resize_with(draft.steps.len(), || None);
    for (ix, (step, reads)) in draft.steps.into_iter().zip(reads).enumerate() {
        let reads = numbers.reads(reads);
        let deps = deps[ix].iter().map(|d| numbers.local[*d]).collect();
        let collect = collect_reads.remove(&ix).map(|r| numbers.reads(r)).unwrap_or_default();
        steps[numbers.steps[ix].at()] = finish(step, reads, deps, numbers.local[ix], collect, &numbers);
    }
    let mut steps: Vec<Step> = steps.into_iter().flatten().collect();
    let frames = numbers.members.iter().zip(&numbers.frame_order).map(|(members, frame)| {
        let owner = draft.frames[*frame].owner.map(|o| numbers.steps[o]);
        let roots = members.iter().copied().filter(|m| steps[m.at()].deps.is_empty()).collect();
        Frame { owner, members: members.clone(), roots }
    });
    let frames: Vec<Frame> = frames.collect();
    connect(&mut steps, &frames);
    Ok(Dag {
        name: draft.name,
        steps,
        frames,
        input: draft.input,
        output: draft.output.map(|(_, template)| template),
        output_reads: numbers.reads(output_reads),
        output_schema: draft.output_schema,
        timeout: draft.timeout,
        prompts,
    })
}

/// For each step, those of its frame that it waits for: sorted, each once.
fn local_deps(draft: &Draft, resolved: &Resolved) -> Vec<Vec<usize>> {
    let mut deps = vec![Vec::new(); draft.steps.len()];
    for (waiting, target) in &resolved.edges {
        deps[*waiting].push(*target);
    }
    for all in &mut deps {
        all.sort_unstable();
        all.dedup();
    }
    deps
}

/// For each frame its steps in order; the cycles are reported.
fn orders(draft: &Draft, deps: &[Vec<usize>], problems: &mut Vec<Problem>) -> Vec<Vec<usize>> {
    let mut position = vec![0; draft.steps.len()];
    let mut orders = Vec::with_capacity(draft.frames.len());
    for frame in &draft.frames {
        for (at, step) in frame.members.iter().enumerate() {
            position[*step] = at;
        }
        let mut by_id: Vec<usize> = (0..frame.members.len()).collect();
        by_id.sort_unstable_by_key(|at| draft.steps[frame.members[*at]].id.as_str());
        let mut rank = vec![0; by_id.len()];
        for (place, at) in by_id.into_iter().enumerate() {
            rank[at] = place;
        }
        let local: Vec<Vec<usize>> = frame.members.iter().map(|s| deps[*s].iter().map(|d| position[*d]).collect()).collect();
        match graph::order(&local, &rank) {
            Ok(order) => orders.push(order.into_iter().map(|at| frame.members[at]).collect()),
            Err(cycles) => problems.extend(cycles.iter().map(|cycle| cycle_problem(draft, &frame.members, cycle))),
        }
    }
    orders
}

fn cycle_problem(draft: &Draft, members: &[usize], cycle: &[usize]) -> Problem {
    const SHOWN: usize = 12;
    let step = |at: usize| &draft.steps[members[at]];
    let mut names: Vec<&str> = cycle.iter().take(SHOWN).map(|at| step(*at).id.as_str()).collect();
    if cycle.len() > SHOWN {
        names.push("…");
    }
    names.push(&step(cycle[0]).id);
    let message = format!("these steps wait for each other: {}", names.join(" → "));
    Problem::new("cycle", &step(cycle[0]).pointer, message).help("`a → b` means that `a` reads from or needs `b`; take one of these away")
}

/// The final numbers of steps and frames, by those of the draft.
struct Numbers {
    steps: Vec<StepIx>,
    local: Vec<u16>,
    frames: Vec<FrameIx>,
    /// The draft's frames in their final order, and their steps.
    frame_order: Vec<usize>,
    members: Vec<Vec<StepIx>>,
}

impl Numbers {
    /// Frames from the outside inwards, in the order of their maps; steps frame by frame. All counts fit: [`Dag::MAX_STEPS`].
    fn new(draft: &Draft, orders: &[Vec<usize>]) -> Self {
        let mut numbers = Self {
            steps: vec![StepIx(0); draft.steps.len()],
            local: vec![0; draft.steps.len()],
            frames: vec![FrameIx(0); draft.frames.len()],
            frame_order: vec![0],
            members: Vec::with_capacity(draft.frames.len()),
        };
        let mut next = 0;
        let mut at = 0;
        while let Some(frame) = numbers.frame_order.get(at).copied() {
            numbers.frames[frame] = FrameIx(at as u16);
            let mut members = Vec::with_capacity(orders[frame].len());
            for (local, step) in orders[frame].iter().enumerate() {
                numbers.steps[*step] = StepIx(next);
                numbers.local[*step] = local as u16;
                members.push(StepIx(next));
                next += 1;
                numbers.frame_order.extend(draft.steps[*step].body);
            }
            numbers.members.push(members);
            at += 1;
        }
        numbers
    }

    fn reads(&self, mut reads: Reads) -> Reads {
        for list in [&mut reads.steps, &mut reads.items] {
            for ix in list.iter_mut() {
                *ix = self.steps[ix.at()];
            }
            list.sort_unstable();
        }
        reads
    }
}

fn finish(step: DraftStep, reads: Reads, mut deps: Vec<u16>, local: u16, collect_reads: Reads, numbers: &Numbers) -> Option<Step> {
    deps.sort_unstable();
    let mut action = step.action?;
    if let Action::Map(plan) = &mut action {
        plan.body = numbers.frames[plan.body.at()];
        plan.collect_reads = collect_reads;
    }
    Some(Step {
        id: step.id,
        name: step.name,
        frame: numbers.frames[step.frame],
        local,
        deps,
        successors: Vec::new(),
        join: step.join,
        allow_failure: step.allow_failure,
        when: step.when,
        queue: step.queue,
        retry: step.retry,
        timeout: step.timeout,
        output: step.output,
        action,
        reads,
    })
}

fn connect(steps: &mut [Step], frames: &[Frame]) {
    for frame in frames {
        let mut successors = vec![Vec::new(); frame.members.len()];
        for (local, member) in frame.members.iter().enumerate() {
            for dep in &steps[member.at()].deps {
                successors[usize::from(*dep)].push(local as u16);
            }
        }
        for (member, successors) in frame.members.iter().zip(successors) {
            steps[member.at()].successors = successors;
        }
    }
}
