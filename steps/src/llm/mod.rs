//! `llm`: one chat request to a model, and its whole answer as the step's output.
//!
//! With an output schema the step's output is the JSON that the model answered, checked against the schema. Without one it is
//! `{text, model, finish_reason}`, and `simulated: true` where the simulator answered. An answer that was cut short is an error
//! of class `too_large` (its limit is the caller's to raise; trying again would pay for the same cut), never an output.
//!
//! `model.rs` is the provider-neutral request and answer; each wire format is a module of its own behind [`Provider`].

mod config;
mod model;
mod openai;
mod output;
mod sim;

pub use config::{LlmConfig, Message, Role, Stop};
pub use model::{Answer, FinishReason, ModelProblem, Provider, Request};
pub use openai::BaseUrl;

use crate::StepsConfig;
use async_trait::async_trait;
use krowoc_engine::{
    ErrorClass,
    definition::{Check, PromptMessage},
    executor::{StepContext, StepError, StepKind, StepOutput},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// The kind.
pub struct Llm {
    providers: BTreeMap<&'static str, Box<dyn Provider>>,
}

impl Llm {
    /// With the providers of this crate.
    pub fn new(config: &StepsConfig) -> Self {
        Self { providers: BTreeMap::new() }.with(openai::OpenAi::new(config)).with(sim::Sim)
    }

    /// Adds a provider; one of the same name is replaced.
    pub fn with(mut self, provider: impl Provider) -> Self {
        self.providers.insert(provider.name(), Box::new(provider));
        self
    }

    /// `provider/model` → the provider and its own name of the model.
    fn provider<'m>(&self, model: &'m str) -> Result<(&dyn Provider, &'m str), ModelProblem> {
        let known: Vec<&str> = self.providers.keys().copied().collect();
        let Some((provider, name)) = model.split_once('/').filter(|(_, name)| !name.is_empty()) else {
            let message = format!("`{model}` does not name a provider and a model");
            return Err(ModelProblem::new("invalid_model", message, format!("write `provider/model`; providers: {}", known.join(", "))));
        };
        let Some(found) = self.providers.get(provider) else {
            return Err(ModelProblem::unknown("unknown_provider", format!("unknown provider `{provider}`"), provider, &known));
        };
        found.check(name)?;
        Ok((found.as_ref(), name))
    }
}

#[async_trait]
impl StepKind for Llm {
    fn name(&self) -> &'static str {
        "llm"
    }

    fn schema(&self) -> Value {
        crate::json_schema_of::<LlmConfig>(
            "One chat request to a model. With an output schema the output is the JSON that the model answered; without one it is \
             {text, model, finish_reason}.",
        )
    }

    fn validate(&self, config: &Value, check: &mut Check<'_>) {
        let prompt = config::validate(config, check);
        let own = config.get("model").map(|model| ("/model", model.as_str()));
        match own.or(prompt.as_ref().and_then(|p| p.model.as_deref()).map(|model| ("/prompt", Some(model)))) {
            Some((pointer, Some(model))) if !model.contains("${{") => {
                if let Err(problem) = self.provider(model) {
                    check.problem_with_help(problem.code, pointer, problem.message, problem.help);
                }
            }
            // A prompt that was not found may have named one.
            None if prompt.is_some() || config.get("prompt").is_none() => {
                check.problem_with_help(
                    "missing_model",
                    "",
                    "no model is named",
                    "add `model: provider/name` here or under `defaults.llm`",
                );
            }
            _ => {}
        }
    }

    async fn execute(&self, context: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        let config: LlmConfig = serde_json::from_value(config).map_err(|e| invalid(format!("llm: {e}")))?;
        let prompt = config.prompt.as_ref().and_then(|reference| context.prompts.get(reference));
        let Some(model) = config.model.clone().or_else(|| prompt.and_then(|prompt| prompt.model.clone())) else {
            return Err(invalid("no model is named; set `model: provider/name` in the step or under `defaults.llm`"));
        };
        let (provider, model) = self.provider(&model).map_err(|p| invalid(format!("{} ({})", p.message, p.help)))?;
        let request = request(context, config, model)?;
        let answer = provider.chat(context, request).await?;
        output::take(context.output_schema.as_deref(), answer)
    }
}

/// The provider-neutral request. Takes the configuration so that nothing of it is kept while the model thinks.
fn request(context: &StepContext, config: LlmConfig, model: &str) -> Result<Request, StepError> {
    let messages = match (&config.prompt, config.messages) {
        (Some(reference), None) => {
            let prompt = context.prompts.get(reference).ok_or_else(|| {
                invalid(format!("prompt `{reference}` is not part of this workflow version; name prompts literally, not by an expression"))
            })?;
            let rendered = prompt.render(&Value::Object(config.vars));
            let rendered = rendered.map_err(|e| StepError::new(ErrorClass::Expression, e))?;
            rendered.into_iter().map(message).collect::<Result<_, _>>()?
        }
        (None, Some(messages)) if !messages.is_empty() => messages,
        _ => return Err(invalid("give either `prompt` or `messages` (at least one)")),
    };
    Ok(Request {
        model: model.into(),
        messages,
        temperature: config.temperature,
        max_output_tokens: config.max_output_tokens,
        top_p: config.top_p,
        seed: config.seed,
        stop: config.stop.map(Stop::into_list).unwrap_or_default(),
        output_schema: context.output_schema.clone(),
        options: config.options,
    })
}

fn message(message: PromptMessage) -> Result<Message, StepError> {
    let role = match message.role.as_str() {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => return Err(invalid(format!("a prompt has a message of role `{other}`; known: system, user, assistant"))),
    };
    Ok(Message { role, content: message.content })
}

fn invalid(message: impl Into<String>) -> StepError {
    StepError::new(ErrorClass::InvalidRequest, message)
}
