//! Why an attempt, and in the end its step, failed.

use super::{Json, Usage, shown};
use async_graphql::SimpleObject;
use poem_openapi::Object;
use serde::Serialize;

shown! {
    /// Why an attempt failed; docs/language.md says what each means and what follows from it.
    ErrorClass from krowoc_engine::ErrorClass {
        RateLimited, Overloaded, ServerError, Network, Timeout, SchemaInvalid, Lost, QuotaExhausted, ContextTooLong, Refused, Auth,
        InvalidRequest, Expression, TooLarge, Internal, TotalTimeout, BudgetExceeded, Rejected, Expired, ToleranceExceeded, ChildFailed,
        RunTimeout,
    }
}

/// A failure.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct Failure {
    /// What kind of failure.
    pub class: ErrorClass,
    /// What happened, where, and what to do next.
    pub message: String,
    /// When the provider said to come back, in seconds after the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<f64>,
    /// More, as the step's kind tells it: status, excerpt of the body, request id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
    /// What the failed attempt used all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

impl From<krowoc_engine::executor::StepError> for Failure {
    fn from(error: krowoc_engine::executor::StepError) -> Self {
        Self {
            class: error.class.into(),
            message: error.message,
            retry_after_s: error.retry_after.map(|after| after.as_secs_f64()),
            details: error.details.as_ref().map(Json::from),
            usage: error.usage.map(Usage::from),
        }
    }
}
