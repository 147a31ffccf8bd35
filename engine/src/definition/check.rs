//! Where a step kind says what is wrong with its configuration.

use super::{Problem, PromptSource, PromptVersion};
use std::collections::BTreeMap;

/// Collects the problems that a step kind finds in its configuration.
pub struct Check<'a> {
    source: &'a dyn PromptSource,
    pinned: &'a mut BTreeMap<String, PromptVersion>,
    /// Of the configuration.
    pointer: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    pub(super) fn new(source: &'a dyn PromptSource, pinned: &'a mut BTreeMap<String, PromptVersion>, pointer: &'a str) -> Self {
        Self { source, pinned, pointer, problems: Vec::new() }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// A problem at a pointer relative to the kind's configuration (`/url`, or empty for the whole).
    pub fn problem(&mut self, code: &'static str, pointer: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(code, format!("{}{pointer}", self.pointer), message));
    }

    /// The same with advice.
    pub fn problem_with_help(&mut self, code: &'static str, pointer: &str, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::new(code, format!("{}{pointer}", self.pointer), message).help(help));
    }

    /// Resolves a prompt reference at a pointer and pins it into the workflow version; a failure is reported as a problem there.
    pub fn prompt(&mut self, pointer: &str, reference: &str) -> Option<PromptVersion> {
        if let Some(version) = self.pinned.get(reference) {
            return Some(version.clone());
        }
        if reference.contains("${{") {
            self.problem_with_help(
                "dynamic_prompt",
                pointer,
                "which prompt is used can't be computed",
                "name it: prompts are pinned when the workflow is registered",
            );
            return None;
        }
        match self.source.resolve(reference) {
            Ok(version) => {
                self.pinned.insert(reference.to_owned(), version.clone());
                Some(version)
            }
            Err(problem) => {
                self.problems.push(Problem { pointer: format!("{}{pointer}", self.pointer), ..problem });
                None
            }
        }
    }
}
