//! Events.

use super::Json;
use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use krowoc_engine::{Payload, queries::events::EventView};
use poem_openapi::Object;
use serde::Serialize;
use serde_json::Value;

/// Something that happened in a run. New kinds may come; a reader passes over those that it does not know.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct Event {
    /// Its number in the run, from 1, without gaps: the cursor after which the next ones are read.
    pub seq: i32,
    /// When.
    pub at: DateTime<Utc>,
    /// `run_started`, `step_succeeded`, `step_skipped`, `step_failed`, `redriven`, …, `run_succeeded`, `run_failed`, `run_cancelled`.
    pub kind: String,
    /// The step that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// More, by kind: `attempt`, `duration_ms`, `error`, …
    pub data: Json,
}

impl From<EventView> for Event {
    fn from(view: EventView) -> Self {
        let data = Json(Payload::from(&Value::Object(view.data)));
        Self { seq: view.seq, at: view.at, kind: view.kind, path: view.path, data }
    }
}
