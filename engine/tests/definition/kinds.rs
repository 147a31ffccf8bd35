//! Step kinds and prompts for the tests: the shapes of real ones, and nothing behind them.

use krowoc_engine::{
    definition::{Check, Compiled, Problem, PromptMessage, PromptSource, PromptVersion, Source, compile},
    executor::{StepContext, StepError, StepKind, StepKinds, StepOutput},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

struct Llm;
struct Http;
struct Transform;

#[async_trait::async_trait]
impl StepKind for Llm {
    fn name(&self) -> &'static str {
        "llm"
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "model": {"type": "string", "description": "provider/model"},
                "prompt": {"type": "string"},
                "messages": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Message"}},
                "vars": {"type": "object"},
                "temperature": {"type": "number", "minimum": 0, "maximum": 2},
                "max_tokens": {"type": ["integer", "null"], "minimum": 1}
            },
            "$defs": {"Message": {
                "type": "object",
                "required": ["role", "content"],
                "additionalProperties": false,
                "properties": {"role": {"enum": ["system", "user", "assistant"]}, "content": {"type": "string"}}
            }}
        })
    }

    fn validate(&self, config: &Value, check: &mut Check<'_>) {
        if config.get("model").is_none() {
            check.problem_with_help("missing_key", "", "the key `model` is missing", "name a model here or under `defaults`");
        }
        if let Some(reference) = config.get("prompt").and_then(Value::as_str) {
            check.prompt("/prompt", reference);
        }
        if config.get("model").is_some_and(|m| m == "wrong") {
            check.problem("unknown_model", "/model", "no model is called `wrong`");
        }
    }

    async fn execute(&self, _: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        StepOutput::json(&config)
    }
}

#[async_trait::async_trait]
impl StepKind for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "required": ["url"],
            "additionalProperties": false,
            "properties": {
                "method": {"enum": ["GET", "POST", "PUT"]},
                "url": {"type": "string", "pattern": "^https?://"},
                "headers": {"type": "object", "additionalProperties": {"type": "string"}},
                "json": true,
                "expect": {"oneOf": [
                    {"type": "integer"},
                    {"type": "array", "items": {"type": "integer"}},
                    {"type": "object", "required": ["from", "to"], "additionalProperties": false,
                     "properties": {"from": {"type": "integer"}, "to": {"type": "integer"}}}
                ]}
            }
        })
    }

    async fn execute(&self, _: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        StepOutput::json(&config)
    }
}

#[async_trait::async_trait]
impl StepKind for Transform {
    fn name(&self) -> &'static str {
        "transform"
    }

    fn schema(&self) -> Value {
        json!({})
    }

    fn calls_out(&self) -> bool {
        false
    }

    async fn execute(&self, _: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        StepOutput::json(&config)
    }
}

/// Called like a key that every step has.
pub struct Needs;

#[async_trait::async_trait]
impl StepKind for Needs {
    fn name(&self) -> &'static str {
        "needs"
    }

    fn schema(&self) -> Value {
        json!({})
    }

    async fn execute(&self, _: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        StepOutput::json(&config)
    }
}

pub fn kinds() -> StepKinds {
    StepKinds::new().with(Llm).with(Http).with(Transform)
}

/// One prompt, `greet`.
pub struct Prompts;

impl PromptSource for Prompts {
    fn resolve(&self, reference: &str) -> Result<PromptVersion, Problem> {
        let (name, _) = reference.split_once('@').unwrap_or((reference, ""));
        if name != "greet" {
            return Err(Problem::new("unknown_prompt", "", format!("no prompt `{reference}`")).help("did you mean `greet`?"));
        }
        Ok(PromptVersion {
            name: name.into(),
            version: 7,
            labels: vec!["prod".into()],
            messages: vec![PromptMessage { role: "user".into(), content: "Hello {{ name }}".into() }],
            variables: BTreeMap::new(),
            ..PromptVersion::default()
        })
    }
}

pub fn compiled(text: &str) -> Result<Compiled, Vec<Problem>> {
    compile(&Source::parse("test.yaml", text)?, &kinds(), &Prompts)
}
