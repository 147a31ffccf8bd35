//! `${{ … }}`: what may stand in a workflow file in place of a value. A [`Template`] is compiled once and rendered for each step
//! against [`Bindings`]; nothing here reads a clock, draws a random number or opens a file, and what an expression may cost is
//! bounded (`limits`).

mod bindings;
mod compiled;
mod filters;
pub(super) mod language;
pub(super) mod limits;
mod lookup;
mod meter;
mod path;
pub(super) mod rewrite;
mod scan;
pub(super) mod syntax;
pub(super) mod value;

#[cfg(test)]
pub(super) mod tests;

pub use bindings::Bindings;
pub(super) use compiled::check_nesting;
pub use meter::Budget;

use super::{Problem, pointer};
use crate::payload::Payload;
use compiled::Compiled;
use serde_json::{Map, Value};
use std::fmt::Write;
use value::{Room, TOO_MUCH};

/// A JSON value whose strings may hold expressions, compiled.
#[derive(Debug)]
pub struct Template(Box<Inner>);

// Behind a pointer, because steps hold several templates in enums.
#[derive(Debug)]
struct Inner {
    root: Node,
    references: Vec<Reference>,
    /// The text of a template without expressions.
    constant: Option<Payload>,
}

#[derive(Debug)]
enum Node {
    /// Without expressions, however deep.
    Constant(Value),
    /// A string that is only an expression.
    Expression(Box<Compiled>),
    /// A string with expressions in it.
    Text {
        pointer: String,
        parts: Vec<Part>,
    },
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

#[derive(Debug)]
enum Part {
    Literal(String),
    Expression(Box<Compiled>),
}

impl Template {
    /// Compiles every expression in the value. Problems are at `pointer` + the place inside, all with the code
    /// `expression_syntax`.
    pub fn compile(value: &Value, pointer: &str) -> Result<Self, Vec<Problem>> {
        let mut compiler = Compiler { references: Vec::new(), problems: Vec::new() };
        let root = compiler.node(value, pointer);
        if !compiler.problems.is_empty() {
            return Err(compiler.problems);
        }
        let constant = match &root {
            Node::Constant(value) => Some(Payload::from(value)),
            _ => None,
        };
        Ok(Self(Box::new(Inner { root, references: compiler.references, constant })))
    }

    /// No expression anywhere?
    pub fn is_constant(&self) -> bool {
        self.0.constant.is_some()
    }

    /// Only one expression, and that only a path: rendering walks JSON and evaluates nothing.
    pub fn is_bare_reference(&self) -> bool {
        matches!(&self.0.root, Node::Expression(expression) if expression.is_bare())
    }

    /// Everything the expressions look up, in the order of the file; what is looked up twice is there twice.
    pub fn references(&self) -> &[Reference] {
        &self.0.references
    }

    /// Renders the value. A string that is only an expression keeps the expression's type.
    pub fn render(&self, bindings: &Bindings) -> Result<Value, ExpressionError> {
        self.value(bindings, &mut Room::new())
    }

    /// The same as one of many renders that share a budget.
    pub fn render_within(&self, bindings: &Bindings, budget: &mut Budget) -> Result<Value, ExpressionError> {
        within(budget, |room| self.value(bindings, room))
    }

    fn value(&self, bindings: &Bindings, room: &mut Room) -> Result<Value, ExpressionError> {
        match &self.0.root {
            Node::Expression(expression) => expression.alone(bindings, room),
            root => root.render(bindings, room),
        }
    }

    /// The same as text; a template that is only a bare reference to a whole payload (`${{ steps.x.output }}`, `${{ input }}`,
    /// `${{ item }}`) hands that payload on without parsing it.
    pub fn render_payload(&self, bindings: &Bindings) -> Result<Payload, ExpressionError> {
        self.payload(bindings, &mut Room::new())
    }

    /// The same as one of many renders that share a budget.
    pub fn render_payload_within(&self, bindings: &Bindings, budget: &mut Budget) -> Result<Payload, ExpressionError> {
        within(budget, |room| self.payload(bindings, room))
    }

    fn payload(&self, bindings: &Bindings, room: &mut Room) -> Result<Payload, ExpressionError> {
        if let Some(constant) = &self.0.constant {
            return Ok(constant.clone());
        }
        if let Node::Expression(expression) = &self.0.root {
            return expression.payload(bindings, room);
        }
        let mut text = String::new();
        self.0.root.write(bindings, &mut text, room)?;
        Ok(Payload::from_json_text(text))
    }

    /// The value of a condition: it must be `true` or `false`, nothing is taken for either.
    pub fn render_bool(&self, bindings: &Bindings) -> Result<bool, ExpressionError> {
        match self.render(bindings)? {
            Value::Bool(value) => Ok(value),
            other => Err(self.0.root.unfit(&format!("a condition must be true or false, this is {}", json_type(&other)))),
        }
    }
}

impl Node {
    fn render(&self, bindings: &Bindings, room: &mut Room) -> Result<Value, ExpressionError> {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Expression(expression) => expression.json(bindings, room),
            Self::Text { pointer, parts } => text(pointer, parts, bindings, room).map(Value::String),
            Self::List(items) => items.iter().map(|item| item.render(bindings, room)).collect(),
            Self::Object(fields) => {
                let render = |(key, item): &(String, Node)| Ok((key.clone(), item.render(bindings, room)?));
                fields.iter().map(render).collect::<Result<Map<_, _>, _>>().map(Value::Object)
            }
        }
    }

    /// Renders to JSON text, payloads and parts of payloads as they are.
    fn write(&self, bindings: &Bindings, out: &mut String, room: &mut Room) -> Result<(), ExpressionError> {
        match self {
            Self::Expression(expression) => expression.write(bindings, out, room)?,
            Self::List(items) => {
                for (number, item) in items.iter().enumerate() {
                    out.push(if number == 0 { '[' } else { ',' });
                    item.write(bindings, out, room)?;
                }
                out.push(']');
            }
            Self::Object(fields) => {
                for (number, (key, item)) in fields.iter().enumerate() {
                    out.push(if number == 0 { '{' } else { ',' });
                    push_json(out, &Value::from(key.as_str()));
                    out.push(':');
                    item.write(bindings, out, room)?;
                }
                out.push('}');
            }
            Self::Constant(value) => push_json(out, value),
            Self::Text { .. } => push_json(out, &self.render(bindings, room)?),
        }
        Ok(())
    }

    /// An error about what the whole came to.
    fn unfit(&self, why: &str) -> ExpressionError {
        match self {
            Self::Expression(expression) => expression.error(why),
            Self::Text { pointer, .. } => ExpressionError { pointer: pointer.clone(), message: why.to_owned() },
            _ => ExpressionError { pointer: String::new(), message: why.to_owned() },
        }
    }
}

fn within<T>(budget: &mut Budget, render: impl FnOnce(&mut Room) -> Result<T, ExpressionError>) -> Result<T, ExpressionError> {
    let before = budget.spent();
    let mut room = Room::with_spent(before);
    let rendered = render(&mut room);
    budget.take(room.spent.saturating_sub(before));
    rendered.map_err(|error| match before {
        0 => error,
        // By itself it may be cheap.
        _ => ExpressionError { message: error.message.replace(TOO_MUCH, &format!("{TOO_MUCH}, with the items before it")), ..error },
    })
}

fn text(pointer: &str, parts: &[Part], bindings: &Bindings, room: &mut Room) -> Result<String, ExpressionError> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Literal(literal) => {
                room.take(literal.len()).map_err(|message| ExpressionError { pointer: pointer.to_owned(), message })?;
                text.push_str(literal);
            }
            Part::Expression(expression) => expression.append(bindings, &mut text, room)?,
        }
    }
    Ok(text)
}

fn push_json(out: &mut String, value: &Value) {
    // Writing to a string does not fail.
    let _ = write!(out, "{value}");
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

struct Compiler {
    references: Vec<Reference>,
    problems: Vec<Problem>,
}

impl Compiler {
    fn node(&mut self, value: &Value, pointer: &str) -> Node {
        match value {
            Value::String(string) if !scan::is_plain(string) => self.string(string, pointer),
            Value::Array(items) => {
                let nodes: Vec<Node> = items.iter().enumerate().map(|(n, item)| self.node(item, &format!("{pointer}/{n}"))).collect();
                if nodes.iter().all(|node| matches!(node, Node::Constant(_))) {
                    return Node::Constant(Value::Array(nodes.into_iter().filter_map(Node::into_constant).collect()));
                }
                Node::List(nodes)
            }
            Value::Object(fields) => {
                let nodes: Vec<(String, Node)> = fields.iter().map(|(key, item)| (key.clone(), self.field(key, item, pointer))).collect();
                if nodes.iter().all(|(_, node)| matches!(node, Node::Constant(_))) {
                    let constant = |(key, node): (String, Node)| Some((key, node.into_constant()?));
                    return Node::Constant(Value::Object(nodes.into_iter().filter_map(constant).collect()));
                }
                Node::Object(nodes)
            }
            plain => Node::Constant(plain.clone()),
        }
    }

    fn field(&mut self, key: &str, item: &Value, pointer: &str) -> Node {
        let pointer = pointer::join(pointer, key);
        if !scan::is_plain(key) {
            let message = format!("the key `{}` holds an expression; only values may", shorten(key));
            self.problems.push(Problem::new("expression_syntax", pointer.clone(), message));
        }
        self.node(item, &pointer)
    }

    fn string(&mut self, string: &str, pointer: &str) -> Node {
        // White space around a lone expression means nothing; around other text it does.
        let alone = scan::split(string.trim()).ok().filter(|pieces| matches!(pieces[..], [scan::Piece::Expression(_)]));
        let pieces = match alone.map_or_else(|| scan::split(string), Ok) {
            Ok(pieces) => pieces,
            Err(message) => {
                self.problems.push(Problem::new("expression_syntax", pointer, message));
                return Node::Constant(Value::Null);
            }
        };
        if let [scan::Piece::Expression(source)] = pieces[..] {
            return self.expression(source, pointer).map_or(Node::Constant(Value::Null), Node::Expression);
        }
        let mut parts = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match piece {
                scan::Piece::Text(text) => match parts.last_mut() {
                    Some(Part::Literal(literal)) => literal.push_str(text),
                    _ => parts.push(Part::Literal(text.to_owned())),
                },
                scan::Piece::Expression(source) => parts.extend(self.expression(source, pointer).map(Part::Expression)),
            }
        }
        match parts.as_slice() {
            // Nothing but escaped openings.
            [Part::Literal(literal)] => Node::Constant(Value::from(literal.as_str())),
            _ => Node::Text { pointer: pointer.to_owned(), parts },
        }
    }

    fn expression(&mut self, source: &str, pointer: &str) -> Option<Box<Compiled>> {
        match Compiled::new(source, pointer) {
            Ok((compiled, references)) => {
                self.references.extend(references);
                Some(Box::new(compiled))
            }
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }
}

impl Node {
    fn into_constant(self) -> Option<Value> {
        match self {
            Self::Constant(value) => Some(value),
            _ => None,
        }
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// `.name` or `['name']`
    Key(String),
    /// `[3]`
    Index(i64),
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// Pointer of the string that holds the expression.
    pub pointer: String,
    /// What went wrong, with the expression.
    pub message: String,
}

/// An expression as messages quote it: on one line, not too long.
fn shorten(source: &str) -> String {
    const LONGEST: usize = 120;
    let line = source.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
