//! Attempts.

use super::{ErrorClass, Failure, Json, shown};
use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use krowoc_engine::queries::attempts;
use poem_openapi::Object;
use serde::Serialize;

shown! {
    /// How an attempt ended.
    AttemptStatus from attempts::AttemptStatus {
        Succeeded,
        Skipped,
        Failed,
        /// A limit outside said when to come back; it does not count.
        Deferred,
        /// Its worker vanished.
        Lost,
        Cancelled,
        /// Its worker gave it back unfinished; it does not count.
        Released,
    }
}

/// An attempt that has ended.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct Attempt {
    /// The step's address; `output` for the computation of the run's output, `map[item].entry` for that which opens an item's first steps.
    pub path: String,
    /// Its number, from 1.
    pub attempt: u32,
    /// How it ended.
    pub status: AttemptStatus,
    /// The class of its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<ErrorClass>,
    /// Its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// How long it took; that with which a map or a wait ends took as long as its items or its time.
    pub duration_ms: u32,
    /// When the next one was due, if one was to follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<DateTime<Utc>>,
    /// The worker that carried it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<i32>,
    /// What it used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

impl From<attempts::AttemptView> for Attempt {
    fn from(view: attempts::AttemptView) -> Self {
        Self {
            path: view.path,
            attempt: view.attempt,
            status: view.status.into(),
            class: view.class.map(Into::into),
            error: view.error.map(Into::into),
            started_at: view.started_at,
            finished_at: view.finished_at,
            duration_ms: view.duration_ms,
            next_at: view.next_at,
            worker: view.worker,
            usage: view.usage.map(Into::into),
        }
    }
}

/// What one model call used, in tokens as a price list counts them.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct Usage {
    /// `openai`, `sim`, …
    pub provider: String,
    /// As the provider names the model that answered.
    pub model: String,
    /// All tokens of the request, cached ones included.
    pub input_tokens: u64,
    /// The part of the input tokens that the provider read from its cache.
    pub cached_input_tokens: u64,
    /// All tokens of the answer, reasoning included.
    pub output_tokens: u64,
    /// The part of the output tokens spent on reasoning.
    pub reasoning_tokens: u64,
    /// The provider's id of the request, for its support desk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The answer was made up by the simulator.
    pub simulated: bool,
    /// Usage exactly as the provider sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<Json>,
}

impl From<krowoc_engine::executor::Usage> for Usage {
    fn from(usage: krowoc_engine::executor::Usage) -> Self {
        Self {
            provider: usage.provider,
            model: usage.model,
            input_tokens: usage.input_tokens,
            cached_input_tokens: usage.cached_input_tokens,
            output_tokens: usage.output_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            request_id: usage.request_id,
            simulated: usage.simulated,
            raw: usage.raw.as_ref().map(Json::from),
        }
    }
}
