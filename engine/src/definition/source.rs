//! The text of a file with the positions of everything in it.

use super::{Problem, Span};
use serde_json::Value;

/// A parsed document: its JSON and, for every JSON pointer, where it stands in the text.
pub struct Source {}

impl Source {
    /// Parses YAML 1.2 (JSON is a part of it). `file` is how problems name it.
    pub fn parse(_file: &str, _text: &str) -> Result<Self, Vec<Problem>> {
        unimplemented!()
    }
    /// The file's name as given.
    pub fn file(&self) -> &str {
        unimplemented!()
    }
    /// The text.
    pub fn text(&self) -> &str {
        unimplemented!()
    }
    /// The document.
    pub fn json(&self) -> &Value {
        unimplemented!()
    }
    /// Where the value at the pointer stands; the nearest enclosing one if it is not there.
    pub fn span(&self, _pointer: &str) -> Option<Span> {
        unimplemented!()
    }
    /// Puts file and span into the problem.
    pub fn locate(&self, _problem: Problem) -> Problem {
        unimplemented!()
    }
}
