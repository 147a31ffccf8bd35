//! The provider-neutral request and answer, and what a provider is. A streaming adapter fits behind the same trait: whatever it
//! assembles from its events is an [`Answer`], or an error when the terminator was missing.

use super::config::Message;
use async_trait::async_trait;
use krowoc_engine::{
    definition::advise,
    executor::{StepContext, StepError, Usage},
};
use serde_json::{Map, Value};
use std::sync::Arc;

/// One chat request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The model, as the provider names it.
    pub model: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// The answer's limit in tokens.
    pub max_output_tokens: Option<u32>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// For repeatable sampling.
    pub seed: Option<i64>,
    /// Texts at which the answer ends.
    pub stop: Vec<String>,
    /// The answer shall be JSON of this schema.
    pub output_schema: Option<Arc<Value>>,
    /// Provider-specific fields.
    pub options: Map<String, Value>,
}

/// What a model answered, and how it ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// How it ended.
    pub finish: FinishReason,
    /// What it used, and who answered.
    pub usage: Usage,
}

/// How an answer ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FinishReason {
    /// By itself or at a stop text, in the provider's word (`stop`, `eos`, …).
    Complete(String),
    /// At a token limit.
    Length,
    /// The model or the provider's filter declined; with their words, where they gave any.
    Refused(Option<String>),
}

/// What is wrong with a model's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelProblem {
    /// For [`Problem::code`](krowoc_engine::definition::Problem::code).
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl ModelProblem {
    /// A problem.
    pub fn new(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: help.into() }
    }

    /// A name that is none of those that are known.
    pub(super) fn unknown(code: &'static str, message: impl Into<String>, name: &str, known: &[&str]) -> Self {
        Self::new(code, message, advise(name, "known", known).unwrap_or_default())
    }
}

/// A wire format.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// The part of a model's name before the slash.
    fn name(&self) -> &'static str;

    /// Can the model's name (after the slash) be right? Asked without a network and without keys.
    fn check(&self, _model: &str) -> Result<(), ModelProblem> {
        Ok(())
    }

    /// Sends the request and brings the whole answer. May be dropped at any await point.
    async fn chat(&self, context: &StepContext, request: Request) -> Result<Answer, StepError>;
}
