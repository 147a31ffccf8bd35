//! What may stand under `llm:`.

use krowoc_engine::definition::{Check, PromptVersion, Schema, advise, join_pointer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The configuration of an `llm` step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LlmConfig {
    /// The model as provider/name: `openai/gpt-4.1`, `sim/fast?latency=200ms`. If neither the step nor `defaults.llm` names one, the
    /// prompt file's.
    pub model: Option<String>,
    /// A prompt file: `name`, `name@7` or `name@label`. Either this or messages.
    pub prompt: Option<String>,
    /// Values of the prompt's variables.
    #[serde(default)]
    pub vars: Map<String, Value>,
    /// The conversation, in place of a prompt file.
    #[schemars(length(min = 1))]
    pub messages: Option<Vec<Message>>,
    /// Sampling temperature.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub temperature: Option<f64>,
    /// The answer's limit in tokens. An answer that reaches it is an error (too_large), never an output.
    #[schemars(range(min = 1))]
    pub max_output_tokens: Option<u32>,
    /// Nucleus sampling.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub top_p: Option<f64>,
    /// Asks the provider for repeatable sampling.
    pub seed: Option<i64>,
    /// Texts at which the answer ends.
    pub stop: Option<Stop>,
    /// Provider-specific fields, sent verbatim. They win over what the step would send itself, except for model, messages, stream
    /// and n, which are the step's own.
    #[serde(default)]
    pub options: Map<String, Value>,
}

/// One message.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text.
    pub content: String,
}

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Role {
    System,
    User,
    Assistant,
}

/// One text or several.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(missing_docs, reason = "said above")]
pub enum Stop {
    One(String),
    Many(Vec<String>),
}

impl Stop {
    /// As a list.
    pub(super) fn into_list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// Options that the step sets itself and could not honour otherwise: an answer is one, whole, to the step's own messages.
const OWN: [&str; 5] = ["model", "messages", "stream", "stream_options", "n"];

/// The first option that is the step's own.
pub(super) fn own_option(options: &Map<String, Value>) -> Option<&str> {
    OWN.into_iter().find(|name| options.contains_key(*name))
}

/// What the schema can't say. Strings that hold expressions are left to the attempt. Brings the prompt, if the step names one.
pub(super) fn validate(config: &Value, check: &mut Check<'_>) -> Option<PromptVersion> {
    let has = |key: &str| config.get(key).is_some();
    match (has("prompt"), has("messages")) {
        (true, true) => check.problem("conflicting_keys", "/messages", "a step has either `prompt` or `messages`, not both"),
        (false, false) => check.problem_with_help("missing_prompt", "", "nothing is asked", "add `prompt` or `messages`"),
        (false, true) if has("vars") => {
            check.problem("conflicting_keys", "/vars", "`vars` belong to a `prompt`; messages take expressions")
        }
        _ => {}
    }
    if let Some(own) = config.get("options").and_then(Value::as_object).and_then(own_option) {
        let help =
            if own == "model" || own == "messages" { "it has a key of its own in the step" } else { "the step takes one whole answer" };
        check.problem_with_help("reserved_option", &format!("/options/{own}"), format!("`{own}` can't be set by `options`"), help);
    }
    let reference = config.get("prompt").and_then(Value::as_str)?;
    let prompt = check.prompt("/prompt", reference)?;
    // `vars` that are one expression are known only when they are rendered.
    if config.get("vars").is_none_or(Value::is_object) {
        validate_vars(reference, &prompt, config.get("vars"), check);
    }
    Some(prompt)
}

fn validate_vars(reference: &str, prompt: &PromptVersion, vars: Option<&Value>, check: &mut Check<'_>) {
    let none = Map::new();
    let vars = vars.and_then(Value::as_object).unwrap_or(&none);
    let declared: Vec<&str> = prompt.variables.keys().map(String::as_str).collect();
    for (name, value) in vars {
        let pointer = join_pointer("/vars", name);
        let Some(schema) = prompt.variables.get(name) else {
            let message = format!("prompt `{reference}` declares no variable `{name}`");
            let help = advise(name, "declared", &declared).unwrap_or_else(|| "leave `vars` out".into());
            check.problem_with_help("unknown_variable", &pointer, message, help);
            continue;
        };
        if !value.to_string().contains("${{")
            && let Ok(schema) = Schema::compile(schema)
        {
            for violation in schema.check(value) {
                let message = format!("variable `{name}` of prompt `{reference}`: {}", violation.message);
                check.problem("type_mismatch", &format!("{pointer}{}", violation.pointer), message);
            }
        }
    }
    for (name, schema) in &prompt.variables {
        if !vars.contains_key(name) && schema.get("default").is_none() {
            let at = if vars.is_empty() { "" } else { "/vars" };
            let message = format!("prompt `{reference}` needs a value for `{name}`");
            check.problem_with_help("missing_variable", at, message, format!("add `{name}: …` under `vars`"));
        }
    }
}
