//! A definition read step by step, before references are resolved: every frame and step with its templates, numbered as they
//! come. Tolerant: what can't be read is reported and left out, so that the rest is still looked at.

mod map;
mod values;

use super::{
    Problem,
    dag::{Action, Dag, Join, RetryPolicy, Timeouts},
    expression::{Reference, Template},
    model, pointer,
    schema::Schema,
    sole::{plain_lookup, plain_text},
    structure::COMMON,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// What was read.
#[derive(Default)]
pub(super) struct Draft {
    pub name: String,
    pub timeout: Option<Duration>,
    pub input: Option<Schema>,
    /// As written, and compiled.
    pub output: Option<(Value, Template)>,
    pub output_schema: Option<Schema>,
    pub steps: Vec<DraftStep>,
    pub frames: Vec<DraftFrame>,
}

/// The steps of a run or of a map's items.
#[derive(Default)]
pub(super) struct DraftFrame {
    pub owner: Option<usize>,
    pub depth: usize,
    /// What the owner calls its item.
    pub item: String,
    /// The owner's list, if it is a plain lookup.
    pub list: Option<Reference>,
    pub ids: HashMap<String, usize>,
    pub members: Vec<usize>,
}

/// A step. Indexes in its action are those of the draft.
pub(super) struct DraftStep {
    pub id: String,
    pub name: String,
    pub pointer: String,
    pub frame: usize,
    pub body: Option<usize>,
    pub needs: Vec<String>,
    pub when: Option<Template>,
    pub join: Join,
    pub allow_failure: bool,
    pub queue: String,
    pub output: Option<Schema>,
    pub retry: RetryPolicy,
    pub timeout: Timeouts,
    pub action: Option<Action>,
}

impl Draft {
    /// A frame and those around it, outwards.
    pub fn owners(&self, frame: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(frame), |f| self.frames[*f].owner.map(|o| self.steps[o].frame))
    }
}

/// Reads a definition.
#[derive(Default)]
pub(super) struct Reader {
    /// Values that can't be read at all: the schema finds most of them first.
    pub shape: Vec<Problem>,
    /// What the schema can't know.
    pub meaning: Vec<Problem>,
}

type Body = (usize, Map<String, Value>, String);

impl Reader {
    /// Reads the effective definition.
    pub fn read(&mut self, definition: &Value) -> Draft {
        let mut draft = Draft::default();
        let file = match model::Workflow::deserialize(definition) {
            Ok(file) => file,
            Err(e) => {
                self.shape.push(Problem::new("invalid_value", "", format!("the definition can't be read: {e}")));
                return draft;
            }
        };
        self.required(file.krowoc, "/krowoc");
        draft.name = self.required(file.name, "/name").map(|n| n.0).unwrap_or_default();
        draft.timeout = self.positive(file.timeout, "/timeout");
        draft.input = self.take(file.input, "/input").and_then(|s| self.schema(&s.0, "/input"));
        draft.output = self.take(file.output, "/output").and_then(|v| self.template(&v, "/output").map(|template| (v, template)));
        draft.output_schema = self.take(file.output_schema, "/output_schema").and_then(|s| self.schema(&s.0, "/output_schema"));
        draft.frames.push(DraftFrame::default());
        let mut bodies = VecDeque::new();
        bodies.extend(self.required(file.steps, "/steps").map(|steps| (0, steps, "/steps".to_owned())));
        while let Some((frame, steps, at)) = bodies.pop_front() {
            for (id, step) in &steps {
                if draft.steps.len() == Dag::MAX_STEPS {
                    let message = format!("a workflow may have {} steps", Dag::MAX_STEPS);
                    self.meaning.push(Problem::new("too_many_steps", at, message).help("use `map` for steps that are alike"));
                    return draft;
                }
                self.step(&mut draft, frame, id, step, pointer::join(&at, id), &mut bodies);
            }
        }
        draft
    }

    fn step(&mut self, draft: &mut Draft, frame: usize, id: &str, step: &Value, at: String, bodies: &mut VecDeque<Body>) {
        let ix = draft.steps.len();
        let owner = draft.frames[frame].owner.map(|o| draft.steps[o].name.as_str());
        let name = owner.map_or_else(|| id.to_owned(), |owner| format!("{owner}.{id}"));
        draft.frames[frame].ids.insert(id.to_owned(), ix);
        draft.frames[frame].members.push(ix);
        let file = model::Step::deserialize(step).unwrap_or_default();
        let below = |key: &str| format!("{at}/{key}");
        let mut read = DraftStep {
            id: id.to_owned(),
            name,
            frame,
            body: None,
            needs: self.take(file.needs, &below("needs")).unwrap_or_default(),
            when: self.take(file.when, &below("when")).and_then(|w| self.when(&w, &below("when"))),
            join: self.take(file.join, &below("join")).unwrap_or_default(),
            allow_failure: self.take(file.allow_failure, &below("allow_failure")).unwrap_or_default(),
            queue: self.take(file.queue, &below("queue")).map(|q| q.0).unwrap_or_default(),
            output: self.take(file.output, &below("output")).and_then(|s| self.schema(&s.0, &below("output"))),
            retry: self.retry(file.retry, &below("retry")),
            timeout: self.timeouts(file.timeout, &below("timeout")),
            action: None,
            pointer: String::new(),
        };
        let kind = step.as_object().into_iter().flat_map(|s| s.keys()).find(|key| !COMMON.contains(&key.as_str()));
        match (kind.map(String::as_str), file.map, file.wait) {
            (Some("map"), map, _) => {
                if let Some(map) = self.take(map, &below("map")) {
                    let body = draft.frames.len();
                    read.body = Some(body);
                    let depth = draft.frames[frame].depth + 1;
                    if depth > Dag::MAX_DEPTH {
                        let message = format!("maps are nested deeper than {}", Dag::MAX_DEPTH);
                        self.meaning.push(Problem::new("too_deep", below("map"), message));
                    }
                    let list = plain_text(&map.over);
                    let (item, steps, plan) = self.map(map, &below("map"), draft, frame, body);
                    let list = plan.as_ref().and_then(|p| plain_lookup(&p.over, &list?));
                    draft.frames.push(DraftFrame { owner: Some(ix), depth, item, list, ..DraftFrame::default() });
                    read.action = plan.map(Action::Map);
                    // One problem for each chain of maps that is too deep, not one for each map below.
                    if depth <= Dag::MAX_DEPTH {
                        bodies.extend(steps.map(|steps| (body, steps, below("map/steps"))));
                    }
                }
            }
            (Some("wait"), _, wait) => {
                let plan = self.take(wait, &below("wait")).and_then(|w| self.wait(w, &below("wait")));
                read.action = plan.map(Action::Wait);
            }
            (Some(kind), ..) => {
                let at = pointer::join(&at, kind);
                let config = self.template(&step[kind], &at);
                read.action = config.map(|config| Action::Task { kind: kind.to_owned(), config });
            }
            (None, ..) => self.shape.push(Problem::new("no_kind", at.as_str(), format!("the step `{id}` does nothing"))),
        }
        read.pointer = at;
        draft.steps.push(read);
    }
}
