//! A definition read step by step, before references are resolved: every frame and step with its templates, numbered as they
//! come. Tolerant: what can't be read is reported and left out, so that the rest is still looked at.

use super::{
    Problem,
    dag::{Action, Backoff, Dag, MapPlan, RetryPolicy, Tolerance, WaitPlan},
    dag::{BackoffKind, Jitter, Join, Reads, Timeouts},
    duration::parse_duration,
    explain::{constant_when, shown},
    expression::{Reference, Template},
    model::{self, BackoffFile, Condition, DurationText, Loose, MapStep, OnLost, WaitStep},
    pointer,
    references::written,
    schema::Schema,
    structure::{COMMON, is_identifier, is_reserved},
};
use crate::id::FrameIx;
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

    fn map(
        &mut self,
        map: MapStep,
        at: &str,
        draft: &Draft,
        frame: usize,
        body: usize,
    ) -> (String, Option<Map<String, Value>>, Option<MapPlan>) {
        let below = |key: &str| format!("{at}/{key}");
        let item = self.take(map.item, &below("as")).unwrap_or_else(|| "item".into());
        self.item_name(&item, &below("as"), draft, frame);
        let over = self.required(map.over, &below("over")).and_then(|v| {
            if v.is_array() || v.as_str().is_some_and(is_expression) {
                return self.template(&v, &below("over"));
            }
            let problem = Problem::new("invalid_value", below("over"), format!("{} is no list", shown(&v)));
            let problems = if v.is_string() { &mut self.meaning } else { &mut self.shape };
            problems.push(problem.help("write a list, or one expression such as `${{ steps.split.output.parts }}`"));
            None
        });
        let key = self.take(map.key, &below("key")).and_then(|v| self.key(&v, &below("key")));
        let concurrency = self.take(map.concurrency, &below("concurrency"));
        let tolerate = self.take(map.tolerate, &below("tolerate")).map_or(Tolerance::Count(0), |t| t.0);
        let collect = self.take(map.collect, &below("collect")).and_then(|v| self.template(&v, &below("collect")));
        let steps = self.required(map.steps, &below("steps"));
        // A draft has at most as many frames as steps.
        let body = FrameIx(body as u16);
        let plan = over.map(|over| MapPlan {
            body,
            over,
            item: item.clone(),
            key,
            concurrency,
            tolerate,
            collect,
            collect_reads: Reads::default(),
        });
        (item, steps, plan)
    }

    fn item_name(&mut self, item: &str, at: &str, draft: &Draft, frame: usize) {
        if !is_identifier(item) {
            let problem = Problem::new("invalid_id", at, format!("`{item}` can't be an item's name"));
            self.meaning.push(problem.help("small letters, digits and underscores, at most 64, a letter first"));
        } else if is_reserved(item) {
            let problem = Problem::new("reserved_name", at, format!("`{item}` is a word of the language"));
            self.meaning.push(problem.help("give the item another name"));
        } else if let Some(outer) = draft.owners(frame).find(|f| draft.frames[*f].item == item) {
            let owner = draft.frames[outer].owner.map_or("", |o| draft.steps[o].id.as_str());
            let problem = Problem::new("reserved_name", at, format!("`{item}` is already the item of the enclosing map `{owner}`"));
            self.meaning.push(problem.help("name one of the items otherwise with `as`"));
        }
    }

    fn key(&mut self, value: &Value, at: &str) -> Option<Template> {
        let key = self.template(value, at)?;
        if key.references().is_empty() {
            let problem = Problem::new("constant_key", at, "every item has the same key");
            self.meaning.push(problem.help("write an expression over the item, such as `${{ item.id }}`"));
            return None;
        }
        Some(key)
    }

    fn when(&mut self, when: &Condition, at: &str) -> Option<Template> {
        let template = self.template(&when.0, at)?;
        if template.references().is_empty() {
            self.meaning.push(constant_when(at, &when.0));
            return None;
        }
        Some(template)
    }

    fn wait(&mut self, wait: WaitStep, at: &str) -> Option<WaitPlan> {
        let (duration, until) = (format!("{at}/for"), format!("{at}/until"));
        match (self.take(wait.duration, &duration), self.take(wait.until, &until)) {
            (Some(value), None) => {
                let template = self.template(&value, &duration)?;
                if let (true, Some(text)) = (template.is_constant(), value.as_str())
                    && let Err(message) = parse_duration(text)
                {
                    self.meaning.push(Problem::new("invalid_value", duration, message));
                }
                Some(WaitPlan::For(template))
            }
            (None, Some(value)) => {
                let template = self.template(&value, &until)?;
                let time = value.as_str().map(chrono::DateTime::parse_from_rfc3339);
                if let (true, Some(Err(e))) = (template.is_constant(), time) {
                    let problem = Problem::new("invalid_value", until, format!("{} is no point in time: {e}", shown(&value)));
                    self.meaning.push(problem.help("write it as RFC 3339: `2030-01-31T09:00:00Z`"));
                }
                Some(WaitPlan::Until(template))
            }
            (Some(_), Some(_)) => {
                self.meaning.push(Problem::new("conflicting_keys", until, "a wait has either `for` or `until`").help("remove one of them"));
                None
            }
            (None, None) => {
                let problem = Problem::new("missing_key", at, "a wait needs `for` or `until`");
                self.meaning.push(problem.help("`for: 30s`, or `until: ${{ input.not_before }}`"));
                None
            }
        }
    }

    fn retry(&mut self, retry: Loose<model::Retry>, at: &str) -> RetryPolicy {
        let retry = self.take(retry, at).unwrap_or_default();
        let backoff = self.take(retry.backoff, &format!("{at}/backoff")).unwrap_or_default();
        RetryPolicy {
            attempts: self.take(retry.attempts, &format!("{at}/attempts")).unwrap_or(1),
            backoff: self.backoff(backoff, &format!("{at}/backoff")),
            errors: self.take(retry.errors, &format!("{at}/errors")).unwrap_or_default(),
            fail_when_lost: self.take(retry.on_lost, &format!("{at}/on_lost")) == Some(OnLost::Fail),
        }
    }

    fn backoff(&mut self, file: BackoffFile, at: &str) -> Backoff {
        let below = |key: &str| format!("{at}/{key}");
        let kind = self.take(file.kind, &below("kind")).unwrap_or(BackoffKind::Exponential);
        let jitter = self.take(file.jitter, &below("jitter")).unwrap_or(Jitter::Full);
        let initial = self.take(file.initial, &below("initial")).map(|d| d.0);
        let max = self.take(file.max, &below("max")).map(|d| d.0);
        if let (Some(initial), Some(max)) = (initial, max)
            && initial > max
        {
            let message = format!("the first wait, {initial:?}, is longer than the longest, {max:?}");
            self.meaning.push(Problem::new("out_of_range", below("initial"), message).help("raise `max` too"));
        }
        Backoff { kind, initial: initial.unwrap_or_default(), max: max.unwrap_or_default(), jitter }
    }

    fn timeouts(&mut self, file: Loose<model::StepTimeouts>, at: &str) -> Timeouts {
        let file = self.take(file, at).unwrap_or_default();
        Timeouts {
            attempt: self.positive(file.attempt, &format!("{at}/attempt")),
            idle: self.positive(file.idle, &format!("{at}/idle")),
            total: self.positive(file.total, &format!("{at}/total")),
        }
    }

    fn positive(&mut self, value: Loose<DurationText>, at: &str) -> Option<Duration> {
        let duration = self.take(value, at)?.0;
        if duration.is_zero() {
            self.meaning.push(Problem::new("out_of_range", at, "a timeout must be longer than nothing"));
        }
        Some(duration)
    }

    fn schema(&mut self, json: &Value, at: &str) -> Option<Schema> {
        if !(json.is_object() || json.is_boolean()) {
            self.shape.push(Problem::new("invalid_value", at, format!("{} is no JSON Schema", shown(json))));
            return None;
        }
        match Schema::compile(json) {
            Ok(schema) => Some(schema),
            Err(violations) => {
                for violation in violations {
                    self.meaning.push(Problem::new("invalid_schema", format!("{at}{}", violation.pointer), violation.message));
                }
                None
            }
        }
    }

    fn template(&mut self, value: &Value, at: &str) -> Option<Template> {
        match Template::compile(value, at) {
            Ok(template) => Some(template),
            Err(problems) => {
                self.meaning.extend(problems);
                None
            }
        }
    }

    fn take<T>(&mut self, value: Loose<T>, at: &str) -> Option<T> {
        match value {
            Loose::Good(value) => Some(value),
            Loose::Missing => None,
            Loose::Wrong(message) => {
                self.shape.push(Problem::new("invalid_value", at, message));
                None
            }
        }
    }

    fn required<T>(&mut self, value: Loose<T>, at: &str) -> Option<T> {
        if matches!(value, Loose::Missing) {
            let name = pointer::last(at);
            self.shape.push(Problem::new("missing_key", at, format!("the key `{name}` is missing")));
        }
        self.take(value, at)
    }
}

impl Draft {
    /// A frame and those around it, outwards.
    pub fn owners(&self, frame: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(frame), |f| self.frames[*f].owner.map(|o| self.steps[o].frame))
    }
}

/// Is the text one expression and nothing else?
pub(super) fn is_expression(text: &str) -> bool {
    let inner = text.trim().strip_prefix("${{").and_then(|t| t.strip_suffix("}}"));
    inner.is_some_and(|t| !t.contains("${{"))
}

/// The reference that a text is and nothing else.
pub(super) fn sole_lookup(text: &str) -> Option<Reference> {
    plain_lookup(&Template::compile(&text.into(), "").ok()?, inner_text(text)?)
}

/// What stands in a string that is one expression.
fn plain_text(value: &Loose<Value>) -> Option<String> {
    let Loose::Good(Value::String(text)) = value else { return None };
    inner_text(text).map(str::to_owned)
}

fn inner_text(text: &str) -> Option<&str> {
    is_expression(text).then(|| text.trim()[3..].trim_end_matches('}').trim())
}

/// The reference that the template is and nothing else.
fn plain_lookup(template: &Template, text: &str) -> Option<Reference> {
    match template.references() {
        [only] if written(only) == text => Some(only.clone()),
        _ => None,
    }
}
