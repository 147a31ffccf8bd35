//! Runs.

use super::{ErrorClass, Json, shown};
use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use krowoc_engine::{
    Payload, commands,
    queries::runs::{RunDetail as Detail, RunState, RunView},
};
use poem_openapi::Object;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

shown! {
    /// Where a run stands.
    RunStatus from RunState {
        /// Nothing of it has been started yet.
        Queued,
        Running,
        /// It was told to stop, and attempts are still in flight.
        Cancelling,
        Succeeded,
        Failed,
        Cancelled,
    }
}

/// A run without what it was given and what it came to.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct Run {
    /// Its id. Ids sort by the time they were made.
    pub id: Uuid,
    /// The workflow's name.
    pub workflow: String,
    /// The number of the version that it is pinned to.
    pub version: i32,
    /// Where it stands.
    pub status: RunStatus,
    /// 1, and one more each time it was opened again after it had failed.
    pub generation: i16,
    /// Higher goes first.
    pub priority: i16,
    /// What started it: `cli`, `api`, …
    pub trigger: String,
    /// Who started it.
    pub created_by: String,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// Under which another request for the same run is recognised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Why it failed or is being stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
}

impl From<RunView> for Run {
    fn from(view: RunView) -> Self {
        Self {
            id: view.id.0,
            workflow: view.workflow,
            version: view.version,
            status: view.status.into(),
            generation: view.generation,
            priority: view.priority,
            trigger: view.trigger,
            created_by: view.created_by,
            created_at: view.created_at,
            finished_at: view.finished_at,
            idempotency_key: view.idempotency_key,
            error: view.error.map(Into::into),
        }
    }
}

/// Why a run failed or is being stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct RunError {
    /// In words.
    pub message: String,
    /// The step that failed, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The class of the failure, where it was the run's own: its output, its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ErrorClass>,
}

impl From<Payload> for RunError {
    fn from(payload: Payload) -> Self {
        // The engine wrote it; should it ever say something else, that is shown as it is.
        payload.parse().unwrap_or_else(|_| Self { message: payload.as_str().to_owned(), step: None, class: None })
    }
}

/// A run with what it was given and what it came to.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct RunDetail {
    #[serde(flatten)]
    #[oai(flatten)]
    #[graphql(flatten)]
    #[expect(missing_docs, reason = "its fields stand beside the others")]
    pub run: Run,
    /// What it was started with.
    pub input: Json,
    /// What it came to, once it has succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
}

impl From<Detail> for RunDetail {
    fn from(detail: Detail) -> Self {
        Self { run: detail.run.into(), input: detail.input.into(), output: detail.output.map(Into::into) }
    }
}

/// A run that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Object, SimpleObject)]
pub struct StartedRun {
    /// Its id.
    pub id: Uuid,
    /// It was started by this request; otherwise its idempotency key had been used for the same request before.
    pub created: bool,
}

impl From<commands::StartedRun> for StartedRun {
    fn from(started: commands::StartedRun) -> Self {
        Self { id: started.id.0, created: started.created }
    }
}

/// A run that was asked for and waited for, and has ended.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
pub struct RunResult {
    #[serde(flatten)]
    #[oai(flatten)]
    #[graphql(flatten)]
    #[expect(missing_docs, reason = "its fields stand beside the others")]
    pub run: RunDetail,
    /// It was started by this request; otherwise its idempotency key had been used for the same request before.
    pub created: bool,
}

/// What came of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Object, SimpleObject)]
pub struct CancelledRun {
    /// `cancelling` while attempts are in flight, else `cancelled`.
    pub status: RunStatus,
    /// Attempts that are still in flight; each ends within its worker's next heartbeat.
    pub in_flight: u64,
}

impl From<commands::Cancelled> for CancelledRun {
    fn from(cancelled: commands::Cancelled) -> Self {
        Self { status: RunState::from(cancelled.status).into(), in_flight: cancelled.in_flight }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_runs_error_is_read() {
        let read = |text: &str| RunError::from(Payload::from_json_text(text));
        let error = |message: &str, step: Option<&str>, class| RunError { message: message.into(), step: step.map(Into::into), class };
        assert_eq!(read(r#"{"message":"step `a` failed","step":"a"}"#), error("step `a` failed", Some("a"), None));
        let late = r#"{"class":"run_timeout","message":"late","details":{"limit_s":1}}"#;
        assert_eq!(read(late), error("late", None, Some(ErrorClass::RunTimeout)));
        assert_eq!(read("7"), error("7", None, None));
    }
}
