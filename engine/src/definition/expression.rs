//! `${{ … }}`: what may stand in a workflow file in place of a value.

use super::Problem;
use crate::payload::Payload;
use serde_json::Value;

/// A JSON value whose strings may hold expressions, compiled.
#[derive(Debug)]
pub struct Template {}

impl Template {
    /// Compiles every expression in the value. Problems are at `pointer` + the place inside.
    pub fn compile(_value: &Value, _pointer: &str) -> Result<Self, Vec<Problem>> {
        unimplemented!()
    }
    /// No expression anywhere?
    pub fn is_constant(&self) -> bool {
        unimplemented!()
    }
    /// Everything the expressions look up.
    pub fn references(&self) -> &[Reference] {
        unimplemented!()
    }
    /// Renders the value. A string that is only an expression keeps the expression's type.
    pub fn render(&self, _bindings: &Bindings) -> Result<Value, ExpressionError> {
        unimplemented!()
    }
    /// The same as text; a template that is only a bare reference to a whole payload (`${{ steps.x.output }}`, `${{ input }}`,
    /// `${{ item }}`) hands that payload on without parsing it.
    pub fn render_payload(&self, _bindings: &Bindings) -> Result<Payload, ExpressionError> {
        unimplemented!()
    }
}

/// A lookup: `steps.split.output.sections[0].text`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// `input`, `steps`, `run`, `loop`, `secrets`, `failure`, or an item's name.
    pub root: String,
    /// What follows, as far as it is constant.
    pub path: Vec<Segment>,
    /// Pointer of the string that holds it.
    pub pointer: String,
}

/// One step of a lookup.
#[derive(Clone, Debug, PartialEq)]
pub enum Segment {
    /// `.name` or `['name']`
    Key(String),
    /// `[3]`
    Index(i64),
}

/// What expressions see.
#[derive(Default)]
pub struct Bindings {}

impl Bindings {
    /// `input`
    pub fn input(&mut self, _value: Payload) {}
    /// `steps.<id>.output`; nothing: the step did not succeed, its output is absent.
    pub fn step(&mut self, _id: &str, _output: Option<Payload>) {}
    /// The item of an enclosing map.
    pub fn item(&mut self, _name: &str, _value: Payload) {}
    /// `run.*`
    pub fn run(&mut self, _facts: RunFacts) {}
}

/// `run.*`
#[derive(Clone, Debug, serde::Serialize)]
pub struct RunFacts {
    /// The run's id.
    pub id: String,
    /// `cli`, `api`, …
    pub trigger: String,
    /// RFC 3339.
    pub started_at: String,
    /// 1, and one more for each redrive.
    pub attempt_generation: i32,
}

/// Why an expression has no value.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// Pointer of the string that holds the expression.
    pub pointer: String,
    /// What went wrong, with the expression.
    pub message: String,
}
