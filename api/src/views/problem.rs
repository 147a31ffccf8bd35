//! What is wrong with something that was sent, and where.

use async_graphql::SimpleObject;
use poem_openapi::Object;
use serde::Serialize;

/// One of the problems of a document that was sent: a workflow file, a prompt, an input.
#[derive(Clone, Debug, PartialEq, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct LocatedProblem {
    /// For programs; stable: `unknown_key`, `unknown_step`, `type_mismatch`, …
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// Where: a JSON pointer into the document; empty for the whole.
    pub pointer: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The file that it is in, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in its text, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in its line, in characters from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

impl From<&krowoc_engine::definition::Problem> for LocatedProblem {
    fn from(problem: &krowoc_engine::definition::Problem) -> Self {
        Self {
            code: problem.code.to_owned(),
            message: problem.message.clone(),
            pointer: problem.pointer.clone(),
            help: problem.help.clone(),
            file: problem.file.clone(),
            line: problem.span.map(|span| span.line),
            column: problem.span.map(|span| span.column),
        }
    }
}
