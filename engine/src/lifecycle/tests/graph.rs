//! Small DAGs for tests, written down: `Graph::new().step("a", &[]).step("b", &["a"]).join(Join::AllDone).build()`.

use crate::{
    definition::{
        Action, Backoff, BackoffKind, Dag, Frame, Jitter, Join, MapPlan, Reads, RetryPolicy, Step, Template, Timeouts, Tolerance,
    },
    id::{FrameIx, StepIx},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Steps in the frame's order; each may need any other, as long as there is no cycle: no rule relies on theirs.
#[derive(Default)]
pub(crate) struct Graph(Vec<Node>);

struct Node {
    id: String,
    needs: Vec<String>,
    join: Join,
    allow_failure: bool,
}

impl Graph {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Another step, with the default join.
    pub(crate) fn step(mut self, id: &str, needs: &[&str]) -> Self {
        let needs = needs.iter().map(|id| (*id).to_owned()).collect();
        self.0.push(Node { id: id.to_owned(), needs, join: Join::default(), allow_failure: false });
        self
    }

    /// The join of the step added last.
    pub(crate) fn join(mut self, join: Join) -> Self {
        self.0.last_mut().expect("a step first").join = join;
        self
    }

    /// The step added last may fail.
    pub(crate) fn allow_failure(mut self) -> Self {
        self.0.last_mut().expect("a step first").allow_failure = true;
        self
    }

    /// As the steps of a run.
    pub(crate) fn build(self) -> Dag {
        let places = (0u16..).take(self.0.len()).map(StepIx).collect::<Vec<_>>();
        let (steps, frame) = self.compile("", FrameIx::ROOT, None, &places);
        dag(steps, vec![frame])
    }

    /// As the steps of a map's items: frame 1. Their indexes are apart from their positions, so that a rule that takes one for the
    /// other shows.
    pub(crate) fn build_in_map(self) -> Dag {
        let (body, map) = (FrameIx(1), StepIx(0));
        let places = (1..=self.0.len() as u16).rev().map(StepIx).collect::<Vec<_>>();
        let (mut steps, frame) = self.compile("map.", body, Some(map), &places);
        steps.reverse();
        let plan = MapPlan {
            body,
            over: nothing(),
            item: "item".into(),
            key: None,
            concurrency: None,
            tolerate: Tolerance::Count(0),
            collect: None,
            collect_reads: Reads::default(),
        };
        steps.insert(0, step("map", "", FrameIx::ROOT, 0, Action::Map(plan)));
        dag(steps, vec![Frame { owner: None, members: vec![map], roots: vec![map] }, frame])
    }

    fn compile(self, prefix: &str, ix: FrameIx, owner: Option<StepIx>, places: &[StepIx]) -> (Vec<Step>, Frame) {
        let at = self.0.iter().map(|n| n.id.clone()).zip(0u16..).collect::<BTreeMap<_, _>>();
        assert_eq!(at.len(), self.0.len(), "two steps of one id");
        let mut steps = Vec::new();
        for (node, local) in self.0.into_iter().zip(0u16..) {
            let mut step = step(&node.id, prefix, ix, local, Action::Task { kind: "test".into(), config: nothing() });
            step.deps = node.needs.iter().map(|id| at[id]).collect();
            step.join = node.join;
            step.allow_failure = node.allow_failure;
            steps.push(step);
        }
        for local in 0..steps.len() {
            for dep in steps[local].deps.clone() {
                steps[usize::from(dep)].successors.push(local as u16);
            }
        }
        let roots = steps.iter().zip(places).filter(|(step, _)| step.deps.is_empty()).map(|(_, ix)| *ix).collect();
        (steps, Frame { owner, members: places.to_vec(), roots })
    }
}

/// The position of a step in its frame.
pub(crate) fn at(dag: &Dag, id: &str) -> u16 {
    dag.steps.iter().find(|step| step.id == id).expect("a step of that id").local
}

fn dag(steps: Vec<Step>, frames: Vec<Frame>) -> Dag {
    let (input, output, output_schema, timeout) = (None, None, None, None);
    let output_reads = Reads::default();
    Dag { name: "test".into(), steps, frames, input, output, output_reads, output_schema, timeout, prompts: Arc::default() }
}

fn step(id: &str, prefix: &str, frame: FrameIx, local: u16, action: Action) -> Step {
    let backoff =
        Backoff { kind: BackoffKind::Exponential, initial: Duration::from_secs(1), max: Duration::from_secs(60), jitter: Jitter::Full };
    Step {
        id: id.to_owned(),
        name: format!("{prefix}{id}"),
        frame,
        local,
        deps: Vec::new(),
        successors: Vec::new(),
        join: Join::default(),
        allow_failure: false,
        when: None,
        queue: "default".into(),
        retry: RetryPolicy { attempts: 3, backoff, errors: Vec::new(), fail_when_lost: false },
        timeout: Timeouts::default(),
        output: None,
        action,
        reads: Reads::default(),
    }
}

fn nothing() -> Template {
    Template::compile(&serde_json::Value::Null, "").expect("a value without expressions compiles")
}
