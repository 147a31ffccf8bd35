//! The text of a file with the positions of everything in it. Parsing is strict: what YAML has beyond JSON (tags of one's own,
//! merge keys, keys that are not text, several documents) is refused with its place.

mod node;
mod syntax;

use super::{Problem, Span, pointer};
use node::Node;
use serde_json::{Map, Value};
use serde_saphyr::{Location, Spanned};
use std::collections::HashMap;

/// A parsed document: its JSON and, for every JSON pointer, where it stands in the text.
#[derive(Debug)]
pub struct Source {
    file: String,
    text: String,
    json: Value,
    places: HashMap<String, Place>,
}

/// Where a node stands: its key (none in lists and for the whole) and its value.
#[derive(Clone, Copy, Debug)]
struct Place {
    key: Option<Span>,
    value: Span,
    /// The key says better where it is: a mapping, a list, or nothing at all.
    by_key: bool,
}

impl Source {
    /// The largest file.
    pub const MAX_BYTES: usize = 2 * 1024 * 1024;
    /// The deepest nesting: JSON parsers stop at 127, and a definition travels inside other documents.
    pub const MAX_DEPTH: usize = 100;

    /// Parses YAML 1.2 (JSON is a part of it). `file` is how problems name it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let refuse = |problem| vec![Problem { file: Some(file.into()), ..problem }];
        if text.len() > Self::MAX_BYTES {
            let message = format!("the file has {} bytes; {} is the most", text.len(), Self::MAX_BYTES);
            return Err(refuse(Problem::new("too_large", "", message).help("move long texts into prompt files or the run's input")));
        }
        let root = syntax::nodes(text).map_err(|problem| refuse(*problem))?;
        let Some(root) = root else {
            return Err(refuse(Problem::new("empty", "", "the file is empty").help("start with `krowoc: v1`")));
        };
        let mut source = Self { file: file.into(), text: text.into(), json: Value::Null, places: HashMap::new() };
        let mut problems = Vec::new();
        source.json = source.take(root, None, &mut String::new(), &mut problems);
        if problems.is_empty() { Ok(source) } else { Err(problems) }
    }

    /// The same from bytes, which must be UTF-8.
    pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Self, Vec<Problem>> {
        utf8(file, bytes).map_err(|problem| vec![problem]).and_then(|text| Self::parse(file, text))
    }

    /// The file's name as given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The document.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Where the value at the pointer stands; the nearest enclosing one if it is not there.
    pub fn span(&self, pointer: &str) -> Option<Span> {
        self.nearest(pointer).map(|place| place.value)
    }

    /// Where the key of the member at the pointer stands; an element of a list has none, its value stands in for it.
    pub fn span_of_key(&self, pointer: &str) -> Option<Span> {
        self.nearest(pointer).map(|place| place.key.unwrap_or(place.value))
    }

    /// Puts file and span into the problem: a scalar's own place, the key that introduces a mapping, a list or nothing. A span that is
    /// there already stays.
    pub fn locate(&self, mut problem: Problem) -> Problem {
        if problem.file.is_none() {
            problem.file = Some(self.file.clone());
            if problem.span.is_none() {
                let place = self.nearest(&problem.pointer);
                problem.span = place.map(|p| if p.by_key { p.key.unwrap_or(p.value) } else { p.value });
            }
        }
        problem
    }

    /// Puts file and the key's span into the problem, for what is wrong with a name.
    pub fn locate_key(&self, mut problem: Problem) -> Problem {
        problem.span = problem.span.or_else(|| self.span_of_key(&problem.pointer));
        problem.file.get_or_insert_with(|| self.file.clone());
        problem
    }

    fn nearest(&self, pointer: &str) -> Option<Place> {
        let mut at = pointer;
        loop {
            if let Some(place) = self.places.get(at) {
                return Some(*place);
            }
            at = &at[..at.rfind('/')?];
        }
    }

    /// Turns a node into JSON and notes the places of all in it. The depth is bounded by the parser's budget.
    fn take(&mut self, node: Spanned<Node>, key: Option<Span>, at: &mut String, problems: &mut Vec<Problem>) -> Value {
        let by_key = matches!(node.value, Node::Map(_) | Node::List(_) | Node::Scalar(Value::Null));
        self.places.insert(at.clone(), Place { key, value: self.span_at(node.referenced), by_key });
        let end = at.len();
        match node.value {
            Node::Scalar(value) => value,
            Node::List(items) => {
                let items = items.into_iter().enumerate().map(|(i, item)| {
                    pointer::push(at, &i.to_string());
                    let value = self.take(item, None, at, problems);
                    at.truncate(end);
                    value
                });
                Value::Array(items.collect())
            }
            Node::Map(members) => {
                let mut map = Map::with_capacity(members.len());
                for (name, value) in members {
                    let span = self.span_at(name.referenced);
                    let name = match name.value {
                        Node::Scalar(Value::String(name)) => name,
                        other => {
                            problems.push(self.at_span(key_problem(&other, at), span));
                            continue;
                        }
                    };
                    pointer::push(at, &name);
                    if map.contains_key(&name) {
                        let first = self.places.get(at.as_str()).and_then(|p| p.key);
                        problems.push(self.at_span(duplicate_problem(&name, at, first), span));
                    } else {
                        let value = self.take(value, Some(span), at, problems);
                        map.insert(name, value);
                    }
                    at.truncate(end);
                }
                Value::Object(map)
            }
        }
    }

    fn at_span(&self, problem: Problem, span: Span) -> Problem {
        Problem { file: Some(self.file.clone()), span: Some(span), ..problem }
    }

    fn span_at(&self, location: Location) -> Span {
        syntax::span_in(&self.text, location)
    }
}

/// The bytes of a file as text; a problem at the first that is none.
pub(super) fn utf8<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Problem> {
    std::str::from_utf8(bytes).map_err(|e| {
        let valid = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
        let line = valid.matches('\n').count() as u32 + 1;
        let column = valid.rsplit('\n').next().map_or(0, |l| l.chars().count()) as u32 + 1;
        let mut problem = Problem::new("invalid_utf8", "", "the file is not UTF-8").help("save it as UTF-8");
        problem.file = Some(file.into());
        problem.span = Some(Span { line, column, offset: e.valid_up_to(), length: 1 });
        problem
    })
}

fn key_problem(key: &Node, at: &str) -> Problem {
    let problem = Problem::new("invalid_key", at, "a key must be text");
    match key {
        Node::Scalar(Value::Null) => problem.help("name the key"),
        Node::Scalar(value) => problem.help(format!("put it in quotes: \"{value}\"")),
        _ => problem.help("a mapping or a list can't be a key; if this was to be an expression, put it in quotes"),
    }
}

fn duplicate_problem(name: &str, at: &str, first: Option<Span>) -> Problem {
    let problem = Problem::new("duplicate_key", at, format!("the key `{name}` is there twice"));
    match first {
        Some(first) => problem.help(format!("the first is at line {}, column {}", first.line, first.column)),
        None => problem,
    }
}
