//! How a step kind plugs in. A kind gets its rendered configuration and a [`StepContext`], and says what came of it; it never
//! sees the database, the run's state or the retry rules.

use crate::{
    bounds,
    definition::{Check, PromptVersion},
    error::ErrorClass,
    id::RunId,
    payload::Payload,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// A kind of step: the key under a step's id in a workflow file (`llm:`, `http:`, …).
///
/// `execute` may be dropped at any await point: when the attempt times out, when the run is cancelled, when the process dies. It is
/// dropped *only* at an await point: code that computes or blocks for long can't be stopped and keeps its thread from other steps. Such work
/// belongs in `tokio::task::spawn_blocking`, with a clone of [`StepContext::cancelled`] that it looks at, for what runs there is not dropped.
/// An attempt whose code does not come back ends all the same when its time is up, a second later; its late result is dropped. Its thread is
/// taken until it does, and where steps take all of them, spare ones carry out the rest: eight times, then the worker takes no more work.
///
/// A step that panics fails with `internal`, whatever it panics with, and no other step is touched by it. Steps run on threads of the
/// worker's own: what a kind keeps from one call to the next may be used by another runtime than the one it was made on, so a connection
/// whose driver is a task is to be made anew there ([`tokio::runtime::Handle::id`] tells).
///
/// What `execute` uses and does not return is not on record: an attempt that is dropped has no [`Usage`]. An end that has come when
/// the attempt is to be dropped counts, and so does its usage.
///
/// `execute` may run again for the same step (with a new attempt) unless its result was recorded;
/// [`StepContext::idempotency_key`] is the same each time, so that an outside system can tell.
#[async_trait::async_trait]
pub trait StepKind: Send + Sync + 'static {
    /// The key in the file.
    fn name(&self) -> &'static str;

    /// JSON Schema (2020-12) of the configuration below that key. Where a file may write an expression instead of a value, the
    /// engine accepts a string that is only an expression (`${{ … }}`) in its place; a kind's schema need not allow for it.
    fn schema(&self) -> Value;

    /// What a schema can't say: called when a file is validated, with the configuration as written (strings may hold
    /// expressions). Problems carry pointers relative to the configuration.
    fn validate(&self, _config: &Value, _check: &mut Check<'_>) {}

    /// Does the kind talk to anything outside? Then the timeouts and retries of `defaults` apply to it.
    fn calls_out(&self) -> bool {
        true
    }

    /// Does `execute` return at once: without waiting, and after computing no more than it takes to look at its configuration? Then the
    /// worker may call it on the thread of its own tasks instead of sending it to another.
    fn is_instant(&self) -> bool {
        false
    }

    /// Carries out one attempt. `config` is rendered: no expressions are left in it.
    async fn execute(&self, context: &StepContext, config: Value) -> Result<StepOutput, StepError>;
}

/// What an attempt may know and use.
#[derive(Clone)]
pub struct StepContext {
    /// The run.
    pub run: RunId,
    /// The step's address in its run: `summarize`, `review[3].findings`.
    pub path: String,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// Fires when the run is cancelled, the lease is lost, the attempt's time is up, or the worker stops. `execute` is dropped then; this is
    /// for what it has started elsewhere, which must stop by itself.
    pub cancelled: CancellationToken,
    /// The schema that the output will be checked against, if the step declares one.
    pub output_schema: Option<Arc<Value>>,
    /// The prompts of this workflow version, by the reference as the file has it (`triage/classify@prod`).
    pub prompts: Arc<BTreeMap<String, PromptVersion>>,
    /// No byte from outside for this long is a timeout; a kind that streams applies it between chunks.
    pub idle_timeout: Option<Duration>,
}

impl StepContext {
    /// Identifies the step's effect: the same for every attempt, different for every step, item and redrive-free run.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.run, self.path)
    }
}

/// What a successful attempt brings.
#[derive(Clone, Debug)]
pub struct StepOutput {
    /// The step's output: `steps.<id>.output` of later steps.
    pub output: Payload,
    /// What the attempt used, where it called a model.
    pub usage: Option<Usage>,
}

impl StepOutput {
    /// Serializes the output, of at most 32 MiB: a larger one is `too_large`, and a value that can't be JSON an internal error of the kind.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, StepError> {
        let no_json = |e: &dyn std::fmt::Display| StepError::new(ErrorClass::Internal, format!("the output is not JSON: {e}"));
        let (text, size) = bounds::serialize(value, bounds::MAX_PAYLOAD).map_err(|e| no_json(&e))?;
        bounds::check("the output", size)?;
        let text = String::from_utf8(text).map_err(|e| no_json(&e))?;
        Ok(Self { output: Payload::from_json_text(text), usage: None })
    }

    /// With what was used.
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }
}

/// Why an attempt failed. The class decides what happens next (docs/language.md); the message is for people and must hold no
/// secret. Of message and details 32 KiB each are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepError {
    /// What kind of failure.
    pub class: ErrorClass,
    /// What happened, where, and what to do next.
    pub message: String,
    /// The provider's own word on when to come back; never retried before.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::lifecycle::seconds")]
    pub retry_after: Option<Duration>,
    /// More for people and programs: status, body excerpt, request id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    /// What the failed attempt used all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

impl StepError {
    /// An error of a class.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), retry_after: None, details: None, usage: None }
    }

    /// Not before this much later.
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// With details.
    pub fn details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }
}

impl std::fmt::Display for StepError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.class, self.message)
    }
}

/// What one model call used, in tokens as a price list counts them: `input_tokens` includes cached ones, `output_tokens` includes
/// reasoning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// `openai`, `sim`, …
    pub provider: String,
    /// As the provider names the model that answered.
    pub model: String,
    /// All tokens of the request, cached ones included.
    pub input_tokens: u64,
    /// The part of `input_tokens` that the provider read from its cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_input_tokens: u64,
    /// All tokens of the answer, reasoning included.
    pub output_tokens: u64,
    /// The part of `output_tokens` spent on reasoning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reasoning_tokens: u64,
    /// The provider's id of the request, for its support desk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The answer was made up by the simulator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub simulated: bool,
    /// Usage exactly as the provider sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Value>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The kinds a process knows, by name.
#[derive(Clone, Default)]
pub struct StepKinds(BTreeMap<&'static str, Arc<dyn StepKind>>);

impl StepKinds {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind; one of the same name is replaced.
    pub fn with(mut self, kind: impl StepKind) -> Self {
        self.0.insert(kind.name(), Arc::new(kind));
        self
    }

    /// The kind of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn StepKind>> {
        self.0.get(name)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn StepKind>> {
        self.0.values()
    }
}
