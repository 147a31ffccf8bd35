//! Prompts: files with front matter, pinned into the workflow version that names them.

use super::Problem;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One version of a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptVersion {
    /// `triage/classify`
    pub name: String,
    /// From the front matter.
    pub version: u32,
    /// Labels that mean this version.
    pub labels: Vec<String>,
    /// The messages, in order, with `{{ variable }}` places.
    pub messages: Vec<PromptMessage>,
    /// Declared variables with their schemas.
    pub variables: BTreeMap<String, Value>,
}

/// A message of a prompt, not yet rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Jinja text.
    pub content: String,
}

impl PromptVersion {
    /// The messages with the variables put in. Values are never rendered again.
    pub fn render(&self, _vars: &Value) -> Result<Vec<PromptMessage>, String> {
        unimplemented!()
    }
}

/// Where references to prompts are resolved.
pub trait PromptSource {
    /// `name`, `name@7` or `name@label` → the version. A problem has an empty pointer; the caller puts its own.
    fn resolve(&self, reference: &str) -> Result<PromptVersion, Problem>;
}

/// `prompts/**.md` beside the workflow files.
pub struct PromptFolder {}

impl PromptFolder {
    /// Reads every prompt below the folder; a folder that is not there holds none.
    pub fn read(_root: &std::path::Path) -> Result<Self, Vec<Problem>> {
        unimplemented!()
    }
}

impl PromptSource for PromptFolder {
    fn resolve(&self, _reference: &str) -> Result<PromptVersion, Problem> {
        unimplemented!()
    }
}
