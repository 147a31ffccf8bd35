//! Prompts: files with front matter, pinned into the workflow version that names them. A [`PromptVersion`] is plain data; what it
//! needs to be rendered is in it.

mod file;
mod folder;
mod place;
mod template;

#[cfg(test)]
mod tests;

pub use folder::PromptFolder;

use super::{
    Problem, Schema,
    expression::value::{Room, why},
    suggest::advise,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One version of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PromptVersion {
    /// `triage/classify`
    pub name: String,
    /// From the front matter.
    pub version: u32,
    /// Labels that mean this version.
    pub labels: Vec<String>,
    /// The messages, in order, with `{{ variable }}` places.
    pub messages: Vec<PromptMessage>,
    /// Declared variables with their schemas. A variable whose schema has a `default` may be left out.
    pub variables: BTreeMap<String, Value>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// For finding it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The model it is meant for, where the step names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// A message of a prompt, not yet rendered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PromptMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Jinja text.
    pub content: String,
}

impl PromptVersion {
    /// The messages with the variables put in. Values are never rendered again. `vars` is an object; the error names the prompt and
    /// the variable.
    pub fn render(&self, vars: &Value) -> Result<Vec<PromptMessage>, String> {
        let said = |why: String| format!("prompt `{}@{}`: {why}", self.name, self.version);
        let values = self.values(vars).map_err(said)?;
        let mut room = Room::new();
        let render = |(number, message): (usize, &PromptMessage)| {
            let content = template::Template::compile(&message.content)
                .map_err(|faults| faults.first().map_or_else(|| "it can't be read".into(), |fault| fault.message.clone()))
                .and_then(|template| template.render(&values, &mut room).map_err(|e| why(&e)))
                .map_err(|why| said(format!("message {} ({}): {why}", number + 1, message.role)))?;
            Ok(PromptMessage { role: message.role.clone(), content })
        };
        self.messages.iter().enumerate().map(render).collect()
    }

    /// Every declared variable with its value, checked.
    fn values(&self, vars: &Value) -> Result<BTreeMap<String, Value>, String> {
        let Value::Object(given) = vars else {
            return Err("the variables must be an object".into());
        };
        if let Some(name) = given.keys().find(|name| !self.variables.contains_key(*name)) {
            let names: Vec<&str> = self.variables.keys().map(String::as_str).collect();
            let advice = advise(name, "there are", &names).unwrap_or_else(|| "it has no variables".into());
            return Err(format!("there is no variable `{name}`; {advice}"));
        }
        let mut values = BTreeMap::new();
        for (name, schema) in &self.variables {
            let value = match (given.get(name), schema.get("default")) {
                (Some(value), _) | (None, Some(value)) => value,
                (None, None) => return Err(format!("the variable `{name}` is missing")),
            };
            let schema = Schema::compile(schema).map_err(|_| format!("the schema of the variable `{name}` is broken"))?;
            if let Some(violation) = schema.check(value).first() {
                return Err(format!("the variable `{name}`{}: {}", at(&violation.pointer), violation.message));
            }
            values.insert(name.clone(), value.clone());
        }
        Ok(values)
    }
}

fn at(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!(" at {pointer}") }
}

/// Where references to prompts are resolved.
pub trait PromptSource {
    /// `name`, `name@7` or `name@label` → the version. A problem has an empty pointer; the caller puts its own.
    #[allow(clippy::result_large_err, reason = "asked a few times for each file, never in the hot path")]
    fn resolve(&self, reference: &str) -> Result<PromptVersion, Problem>;
}
