//! Validation and compilation of a parsed document.

use super::{Dag, Problem, PromptSource, PromptVersion, Source};
use crate::executor::StepKinds;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// A valid workflow.
#[derive(Debug)]
pub struct Compiled {
    /// Ready to run.
    pub dag: Arc<Dag>,
    /// The document as JSON; [`restore`] makes the same DAG of it.
    pub definition: Value,
    /// The prompts it names, by reference.
    pub prompts: BTreeMap<String, PromptVersion>,
    /// blake3 over definition and prompts, in a canonical form (key order and formatting do not matter).
    pub hash: [u8; 32],
}

/// Validates and compiles; every problem at once, located.
pub fn compile(_source: &Source, _kinds: &StepKinds, _prompts: &dyn PromptSource) -> Result<Compiled, Vec<Problem>> {
    unimplemented!()
}

/// Compiles what [`compile`] accepted once, from the database. Kinds this process does not know are let through: another worker
/// has them.
pub fn restore(_definition: &Value, _prompts: BTreeMap<String, PromptVersion>) -> Result<Dag, Vec<Problem>> {
    unimplemented!()
}

/// The JSON Schema of the language with the kinds given: for editors, and for [`compile`].
pub fn json_schema(_kinds: &StepKinds) -> Value {
    unimplemented!()
}

/// Collects the problems that a step kind finds in its configuration.
pub struct Check<'a> {
    _source: &'a dyn PromptSource,
}

impl Check<'_> {
    /// A problem at a pointer relative to the kind's configuration (`/url`, or empty for the whole).
    pub fn problem(&mut self, _code: &'static str, _pointer: &str, _message: impl Into<String>) {
        unimplemented!()
    }
    /// The same with advice.
    pub fn problem_with_help(&mut self, _code: &'static str, _pointer: &str, _message: impl Into<String>, _help: impl Into<String>) {
        unimplemented!()
    }
    /// Resolves a prompt reference at a pointer and pins it into the workflow version; a failure is reported as a problem there.
    pub fn prompt(&mut self, _pointer: &str, _reference: &str) -> Option<PromptVersion> {
        unimplemented!()
    }
}
