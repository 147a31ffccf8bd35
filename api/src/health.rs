//! Is the process alive, and may it be sent work? Alive asks nobody; ready asks what the process depends on, within a bound, so
//! that a hanging database can't make the answer hang.

use poem::{
    IntoResponse, Response, handler,
    http::StatusCode,
    web::{Data, Json},
};
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// Probes commonly give up after some seconds; the answer must come before.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What the process depends on.
#[async_trait::async_trait]
pub trait Readiness: Send + Sync + 'static {
    /// One check for each dependency; none failed: ready.
    async fn check(&self) -> Vec<Check>;
}

/// The state of one dependency.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// `database`, `schema`, `workers`, …
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// If not: what is wrong, without secrets; the route is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What else is worth knowing, such as how many workers there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Check {
    /// All is well.
    pub fn ok(name: &'static str) -> Self {
        Self { name, ok: true, problem: None, note: None }
    }

    /// It is not.
    pub fn failed(name: &'static str, problem: impl Into<String>) -> Self {
        Self { name, ok: false, problem: Some(problem.into()), note: None }
    }

    /// With something worth knowing.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Check>,
}

/// `GET /health/live`: 200 as long as the process answers at all.
#[handler]
pub(crate) fn live() -> Response {
    Json(Health { status: "live", checks: Vec::new() }).into_response()
}

/// `GET /health/ready`: 200 if every check holds, else 503 with what does not.
#[handler]
pub(crate) async fn ready(Data(readiness): Data<&Arc<dyn Readiness>>) -> Response {
    let checks = tokio::time::timeout(ANSWER_WITHIN, readiness.check())
        .await
        .unwrap_or_else(|_| vec![Check::failed("checks", format!("no answer within {} s", ANSWER_WITHIN.as_secs()))]);
    let failed: Vec<&str> = checks.iter().filter(|check| !check.ok).map(|check| check.name).collect();
    let (status, word) = if failed.is_empty() {
        (StatusCode::OK, "ready")
    } else {
        tracing::warn!(?failed, "not ready");
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    };
    Json(Health { status: word, checks }).with_status(status).into_response()
}
