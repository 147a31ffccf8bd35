//! What expressions see: payloads as text, parsed when an expression looks inside, once.

use super::{ExpressionError, RunFacts, Segment, limits::MAX_OUTPUT, meter::SPENT, path};
use crate::payload::Payload;
use minijinja::{
    Error, ErrorKind, Value,
    value::{Enumerator, Object, Serde},
};
use std::sync::{Arc, OnceLock};

/// What expressions see. Building it parses nothing and cloning it shares what was parsed.
#[derive(Clone, Default)]
pub struct Bindings(Arc<Scope>);

impl Bindings {
    /// `input`
    pub fn input(&mut self, value: Payload) {
        self.item("input", value);
    }

    /// `steps.<id>.output`; nothing: the step did not succeed, its output is absent.
    pub fn step(&mut self, id: &str, output: Option<Payload>) {
        let scope = Arc::make_mut(&mut self.0);
        let steps = Arc::make_mut(scope.steps.get_or_insert_default());
        let view = Arc::new(StepView(output.map(Slot::new)));
        match steps.0.iter_mut().find(|(known, _)| **known == *id) {
            Some((_, known)) => *known = view,
            None => steps.0.push((id.into(), view)),
        }
    }

    /// The item of an enclosing map, or any other root (`loop`, `failure`, `body`).
    pub fn item(&mut self, name: &str, value: Payload) {
        let roots = &mut Arc::make_mut(&mut self.0).roots;
        match roots.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, slot)) => *slot = Slot::new(value),
            None => roots.push((name.into(), Slot::new(value))),
        }
    }

    /// `run.*`
    pub fn run(&mut self, facts: RunFacts) {
        Arc::make_mut(&mut self.0).run = Some(Arc::new(RunView { facts, value: OnceLock::new() }));
    }

    /// Is there such a root?
    pub(super) fn has(&self, root: &str) -> bool {
        self.0.has(root)
    }

    /// The roots there are, for messages.
    pub(super) fn known(&self) -> Vec<&str> {
        let scope = &*self.0;
        let fixed = [scope.steps.as_ref().map(|_| "steps"), scope.run.as_ref().map(|_| "run")];
        scope.roots.iter().map(|(name, _)| &**name).chain(fixed.into_iter().flatten()).collect()
    }

    /// The context for minijinja, with what was spent before (see `meter`).
    pub(super) fn context(&self, spent: u64) -> Value {
        Value::from_object(Context { scope: self.0.clone(), spent })
    }

    /// The payload text at a path, without building anything where that is possible.
    pub(super) fn find(&self, root: &str, segments: &[Segment]) -> Result<Found<'_>, String> {
        let (slot, inner) = match (root, segments) {
            ("steps", [Segment::Key(id), Segment::Key(output), inner @ ..]) if output == "output" => {
                match self.0.steps.as_ref().and_then(|steps| steps.get(id)).map(|view| view.0.as_ref()) {
                    Some(Some(slot)) => (slot, inner),
                    Some(None) | None => return Ok(Found::Elsewhere),
                }
            }
            _ => match self.0.roots.iter().find(|(name, _)| **name == *root) {
                Some((_, slot)) => (slot, segments),
                None => return Ok(Found::Elsewhere),
            },
        };
        if inner.is_empty() {
            return Ok(Found::Whole(&slot.0.payload));
        }
        // What is parsed already is walked faster there than the text.
        if slot.0.value.get().is_some() {
            return Ok(Found::Elsewhere);
        }
        match path::find(slot.0.payload.as_str(), inner) {
            Ok(Some(text)) if text.len() > MAX_OUTPUT => Err(format!("the result is larger than {} MiB", MAX_OUTPUT >> 20)),
            Ok(Some(text)) => Ok(Found::Part { text, scanned: end_in(slot.0.payload.as_str(), text) }),
            // Absent, or a character of a string: minijinja knows, and says what is missing.
            Ok(None) => Ok(Found::Elsewhere),
            Err(error) => Err(unreadable(&error)),
        }
    }
}

impl std::fmt::Debug for Bindings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.known()).finish()
    }
}

/// What [`Bindings::find`] came upon.
pub(super) enum Found<'a> {
    /// A payload as it was bound.
    Whole(&'a Payload),
    /// The text of a value inside a payload, and how much of the payload was read to find it.
    Part { text: &'a str, scanned: usize },
    /// Nothing that can be had as text.
    Elsewhere,
}

impl<'a> Found<'a> {
    /// The text, if there is one.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self {
            Self::Whole(payload) => Some(payload.as_str()),
            Self::Part { text, .. } => Some(text),
            Self::Elsewhere => None,
        }
    }
}

/// Where a part of a text ends in it.
fn end_in(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize + part.len()).saturating_sub(text.as_ptr() as usize)
}

#[derive(Debug)]
struct Context {
    scope: Arc<Scope>,
    spent: u64,
}

impl Object for Context {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        if key.as_str() == Some(SPENT) { Some(Value::from(self.spent)) } else { self.scope.get_value(key) }
    }
}

#[derive(Clone, Default, Debug)]
struct Scope {
    roots: Vec<(Box<str>, Slot)>,
    steps: Option<Arc<Steps>>,
    run: Option<Arc<RunView>>,
}

impl Scope {
    fn has(&self, root: &str) -> bool {
        match root {
            "steps" => self.steps.is_some(),
            "run" => self.run.is_some(),
            _ => self.roots.iter().any(|(name, _)| **name == *root),
        }
    }
}

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "steps" => self.steps.clone().map(Value::from_dyn_object),
            "run" => self.run.as_ref().map(|run| run.value()),
            name => self.roots.iter().find(|(known, _)| **known == *name).map(|(_, slot)| slot.value()),
        }
    }
}

#[derive(Clone, Default, Debug)]
struct Steps(Vec<(Box<str>, Arc<StepView>)>);

impl Steps {
    fn get(&self, id: &str) -> Option<&Arc<StepView>> {
        self.0.iter().find(|(known, _)| **known == *id).map(|(_, view)| view)
    }
}

impl Object for Steps {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_str()?).cloned().map(Value::from_dyn_object)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(id, _)| Value::from(&**id)).collect())
    }
}

#[derive(Debug)]
pub(super) struct StepView(Option<Slot>);

impl Object for StepView {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str()? == "output").then(|| self.0.as_ref().map(Slot::value)).flatten()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        if self.0.is_some() { Enumerator::Str(&["output"]) } else { Enumerator::Empty }
    }
}

#[derive(Debug)]
struct RunView {
    facts: RunFacts,
    value: OnceLock<Value>,
}

impl RunView {
    fn value(&self) -> Value {
        self.value.get_or_init(|| Value::from(Serde(&self.facts))).clone()
    }
}

/// A payload and, once someone looked inside, what it holds.
#[derive(Clone, Debug)]
struct Slot(Arc<SlotInner>);

#[derive(Debug)]
struct SlotInner {
    payload: Payload,
    value: OnceLock<Value>,
}

impl Slot {
    fn new(payload: Payload) -> Self {
        Self(Arc::new(SlotInner { payload, value: OnceLock::new() }))
    }

    /// A payload that can't be parsed is an invalid value: minijinja reports it where it is used.
    fn value(&self) -> Value {
        let parse = || {
            let parsed: Result<Value, _> = self.0.payload.parse();
            parsed.unwrap_or_else(|error| Value::from(Error::new(ErrorKind::CannotDeserialize, unreadable(&error))))
        };
        self.0.value.get_or_init(parse).clone()
    }
}

fn unreadable(error: &serde_json::Error) -> String {
    format!("a payload can't be read as JSON: {error}")
}

impl ExpressionError {
    /// The same, with the one of many renders that it happened in.
    pub(crate) fn of(self, render: impl std::fmt::Display) -> Self {
        Self { message: format!("{render}: {}", self.message), ..self }
    }

    pub(super) fn new(pointer: &str, source: &str, why: impl std::fmt::Display) -> Self {
        Self { pointer: pointer.to_owned(), message: format!("`${{{{ {} }}}}`: {why}", super::shorten(source)) }
    }
}
