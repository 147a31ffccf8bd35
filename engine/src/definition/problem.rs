//! A located problem of a file: what is wrong, where, and what to do.

use serde::Serialize;
use std::fmt;

/// One problem. `pointer` always says where in the document; `span` where in the text, if there is one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// Stable, for programs: `unknown_key`, `unknown_step`, `cycle`, `type_mismatch`, …
    pub code: &'static str,
    /// One sentence without a full stop.
    pub message: String,
    /// JSON pointer into the document (`/steps/classify/llm/prompt`); empty for the whole.
    pub pointer: String,
    /// The file, as the caller named it; absent for documents that came in by the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where in the file's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// What to do: "did you mean `classify`?".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// A place in a text. Lines and columns count from 1, columns in characters; offset and length are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "said above")]
pub struct Span {
    pub line: u32,
    pub column: u32,
    pub offset: usize,
    pub length: usize,
}

impl Problem {
    /// A problem at a pointer, not yet located in a text.
    pub fn new(code: &'static str, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), pointer: pointer.into(), file: None, span: None, help: None }
    }

    /// With advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        if let Some(span) = self.span {
            write!(f, "{}:{}: ", span.line, span.column)?;
        } else if !self.pointer.is_empty() {
            write!(f, "{}: ", self.pointer)?;
        } else if self.file.is_some() {
            f.write_str(" ")?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}
