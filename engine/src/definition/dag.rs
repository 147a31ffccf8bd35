//! A workflow version, compiled: steps of all nesting in one list, grouped into frames, edges as indexes. Acyclic by
//! construction; the engine's hot path reads nothing else.

use super::{expression::Template, problem::Problem, prompt::PromptVersion, schema::Schema};
use crate::{
    error::ErrorClass,
    id::{FrameIx, ScopePath, StepIx},
    payload::Payload,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A compiled workflow version.
#[derive(Debug)]
pub struct Dag {
    /// The workflow's name.
    pub name: String,
    /// Every step, those inside maps too. At most [`Dag::MAX_STEPS`].
    pub steps: Vec<Step>,
    /// Frame 0 is the run's own; each map has one for its items.
    pub frames: Vec<Frame>,
    /// What a run's input must satisfy.
    pub input: Option<Schema>,
    /// The run's output, computed when every step has ended.
    pub output: Option<Template>,
    /// What `output` looks at.
    pub output_reads: Reads,
    /// What the run's output must satisfy, checked when it has been computed.
    pub output_schema: Option<Schema>,
    /// Wall clock for the whole run.
    pub timeout: Option<Duration>,
    /// Prompts by the reference as the file has it.
    pub prompts: Arc<BTreeMap<String, PromptVersion>>,
}

impl Dag {
    /// The most steps a workflow may declare; the store numbers them with two bytes.
    pub const MAX_STEPS: usize = 20_000;
    /// The deepest nesting of maps.
    pub const MAX_DEPTH: usize = 8;

    /// The step at an index.
    pub fn step(&self, ix: StepIx) -> &Step {
        &self.steps[ix.at()]
    }

    /// The frame at an index.
    pub fn frame(&self, ix: FrameIx) -> &Frame {
        &self.frames[ix.at()]
    }

    /// The frame that is carried out in a scope; none if the scope names no map of this graph.
    pub fn frame_of(&self, scope: &ScopePath) -> Option<FrameIx> {
        match scope.parent() {
            None => Some(FrameIx::ROOT),
            Some((_, map, _)) => match &self.steps.get(map.at())?.action {
                Action::Map(plan) => Some(plan.body),
                Action::Task { .. } | Action::Wait(_) => None,
            },
        }
    }

    /// The scope, at or around `scope`, in which a step is carried out. None for a step inside a map seen from outside: the map collects
    /// those.
    pub fn enclosing(&self, scope: &ScopePath, step: StepIx) -> Option<ScopePath> {
        let frame = self.step(step).frame;
        let mut at = scope.clone();
        while self.frame_of(&at)? != frame {
            at = at.parent()?.0;
        }
        Some(at)
    }

    /// Where an input misses the workflow's schema; pointers lead into the input.
    pub fn check_input(&self, input: &Payload) -> Vec<Problem> {
        let Some(schema) = &self.input else { return vec![] };
        match input.parse() {
            Ok(value) => schema.check(&value).into_iter().map(|v| Problem::new("input", v.pointer, v.message)).collect(),
            Err(e) => vec![Problem::new("invalid_json", "", format!("the input is not JSON: {e}"))],
        }
    }
}

/// Steps that are carried out together: a run's, or those of one map item.
#[derive(Debug, Default)]
pub struct Frame {
    /// The map whose items this frame is carried out for; none for the root.
    pub owner: Option<StepIx>,
    /// The steps: each after those it waits for, and by id where that leaves a choice. So two files that differ in the order of
    /// their keys alone, and therefore are the same version, number their steps alike. A step's `local` is its position here.
    pub members: Vec<StepIx>,
    /// Those without predecessors.
    pub roots: Vec<StepIx>,
}

/// A step.
#[derive(Debug)]
pub struct Step {
    /// As in the file, unique in its frame.
    pub id: String,
    /// Ids from the outermost map inwards, dotted: `review.findings`.
    pub name: String,
    /// The frame it stands in.
    pub frame: FrameIx,
    /// Its position in the frame.
    pub local: u16,
    /// Predecessors, by `local`: references and `needs`.
    pub deps: Vec<u16>,
    /// Successors, by `local`.
    pub successors: Vec<u16>,
    /// When predecessors allow it to run.
    pub join: Join,
    /// Its failure joins as skipped and does not fail the run.
    pub allow_failure: bool,
    /// Skipped when this is false.
    pub when: Option<Template>,
    /// Which workers may take it.
    pub queue: String,
    /// When and how often it is tried again.
    pub retry: RetryPolicy,
    /// How long it may take.
    pub timeout: Timeouts,
    /// What its output must satisfy.
    pub output: Option<Schema>,
    /// What it does.
    pub action: Action,
    /// What `when` and `action` look at (a map's `over` and `key`; its `collect` has reads of its own).
    pub reads: Reads,
}

/// What a step does.
#[derive(Debug)]
pub enum Action {
    /// A step kind with its configuration.
    Task {
        /// The kind's name.
        kind: String,
        /// Rendered for each attempt.
        config: Template,
    },
    /// One frame for each item of a list.
    Map(MapPlan),
    /// A durable timer.
    Wait(WaitPlan),
}

/// A fan-out.
#[derive(Debug)]
pub struct MapPlan {
    /// The frame carried out for each item.
    pub body: FrameIx,
    /// The list.
    pub over: Template,
    /// The name under which the body sees its item.
    pub item: String,
    /// An item's stable identity; its number where there is none.
    pub key: Option<Template>,
    /// How many items at once; none: as many as workers have room for.
    pub concurrency: Option<u32>,
    /// How many items may fail.
    pub tolerate: Tolerance,
    /// What each item contributes to the output; none: the output is a count.
    pub collect: Option<Template>,
    /// What `collect` looks at: steps of the body, the item, and what stands around the map. What `over` and `key` look at is
    /// among the step's own `reads`; with a `key` over the item, those name the map itself among the items.
    pub collect_reads: Reads,
}

/// How many items of a map may fail before the map does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Tolerance {
    /// This many.
    Count(u32),
    /// This part of all, from 0 to 1: floor(part × N).
    Part(f64),
}

impl Tolerance {
    /// Failures allowed among `items`.
    pub fn allowed(self, items: u32) -> u32 {
        match self {
            Self::Count(n) => n,
            // A product such as 0.1 × 30 must not fall to 2 by binary rounding.
            Self::Part(p) => (p * f64::from(items) + 1e-9).floor() as u32,
        }
    }
}

/// How long a `wait` step waits.
#[derive(Debug)]
pub enum WaitPlan {
    /// From when the step starts; renders to a duration (`30s`, `2d`) or a number of seconds.
    For(Template),
    /// Until a point in time; renders to RFC 3339.
    Until(Template),
}

/// When predecessors allow a step to run (docs/language.md).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// Every predecessor succeeded.
    #[default]
    AllSucceeded,
    /// None failed; skipped ones do not matter.
    NoneFailed,
    /// At least one succeeded.
    AnySucceeded,
    /// All ended, however.
    AllDone,
}

/// When and how often a failed attempt is followed by another.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Counted attempts, the first included.
    pub attempts: u16,
    /// Time before the next.
    pub backoff: Backoff,
    /// The classes that are retried.
    pub errors: Vec<ErrorClass>,
    /// A lost worker fails the step instead of starting it again.
    pub fail_when_lost: bool,
}

/// Growing waits: `initial × 2^(n-1)` at most `max`, or `initial` each time; drawn from 0 to that with full jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Doubling or the same each time.
    pub kind: BackoffKind,
    /// After the first failure.
    pub initial: Duration,
    /// At most.
    pub max: Duration,
    /// Spread over the wait or not.
    pub jitter: Jitter,
}

/// How waits grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum BackoffKind {
    Exponential,
    Constant,
}

/// How waits are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Jitter {
    /// Anywhere from 0 to the wait.
    Full,
    /// Exactly the wait.
    None,
}

/// How long a step may take; none: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timeouts {
    /// One attempt.
    pub attempt: Option<Duration>,
    /// Without a sign of progress from outside.
    pub idle: Option<Duration>,
    /// From the first attempt's start, deferrals not counted.
    pub total: Option<Duration>,
}

/// What expressions look at, so that only that is loaded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reads {
    /// `input`.
    pub input: bool,
    /// `run`.
    pub run: bool,
    /// `steps.<id>`, as the indexes they resolve to.
    pub steps: Vec<StepIx>,
    /// Items of enclosing maps: the map's index.
    pub items: Vec<StepIx>,
}
