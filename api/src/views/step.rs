//! Steps: a run's own, those of a map's items, and those inside maps counted over all items.

use super::{ErrorClass, Failure, shown};
use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use krowoc_engine::queries::{inside, steps, usage};
use poem_openapi::Object;
use serde::Serialize;

shown! {
    /// Where a step stands.
    StepStatus from steps::StepStatus {
        Pending, Ready, Running, Waiting, Succeeded, Skipped, Failed,
        /// What it needs did not succeed.
        UpstreamFailed,
        Cancelled,
    }
}

shown! {
    /// What a waiting step waits for.
    WaitReason from steps::WaitReason {
        /// Its last attempt failed; the next has its time.
        Backoff,
        /// A limit outside says when it is over; no attempt was spent.
        Deferred,
        /// It is a `wait` step.
        Timer,
        /// Its items.
        Items,
        /// Its item was opened again, and as many items of the map are under way as may be.
        Concurrency,
    }
}

/// A waiting step's reason, and when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct Waiting {
    /// For what.
    pub reason: WaitReason,
    /// Until when; absent where that is no matter of time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

/// How far a map has come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Object, SimpleObject)]
pub struct MapProgress {
    /// Items in all.
    pub total: u32,
    /// Items that have ended, the failed ones included.
    pub done: u32,
    /// Items that have failed.
    pub failed: u32,
    /// Attempts that workers hold now.
    pub running: u32,
}

/// Tokens, as a price list counts them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Object, SimpleObject)]
pub struct Tokens {
    /// Model calls.
    pub calls: u64,
    /// Of the requests, cached ones included.
    pub input: u64,
    /// The part of the input that came from the provider's cache.
    pub cached_input: u64,
    /// Of the answers, reasoning included.
    pub output: u64,
}

impl From<usage::Tokens> for Tokens {
    fn from(tokens: usage::Tokens) -> Self {
        let usage::Tokens { calls, input, cached_input, output } = tokens;
        Self { calls, input, cached_input, output }
    }
}

/// A step.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct Step {
    /// Its address in the run: `draft`, `review[s1].findings`.
    pub path: String,
    /// Its id in the file. Inside a map, items have steps of the same id.
    pub id: String,
    /// What it is: `llm`, `http`, `map`, `wait`, …
    pub kind: String,
    /// Where it stands.
    pub status: StepStatus,
    /// For what it waits, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// The number of its latest attempt, 0 before the first.
    pub attempts: u32,
    /// When its first attempt started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// How long its last attempt took, once it has ended; for a map or a wait from its first claim to its end, deferrals left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u32>,
    /// What its attempts used; what the steps inside a map used stands with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// The class of its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<ErrorClass>,
    /// Its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// A map's items, once it has been expanded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<MapProgress>,
}

impl From<steps::StepView> for Step {
    fn from(view: steps::StepView) -> Self {
        Self {
            path: view.path,
            id: view.id,
            kind: view.kind,
            status: view.status.into(),
            waiting: view.waiting.map(|waiting| Waiting { reason: waiting.reason.into(), until: waiting.until }),
            attempts: view.attempts,
            started_at: view.started_at,
            finished_at: view.finished_at,
            duration_ms: view.duration_ms,
            tokens: view.tokens.map(Into::into),
            class: view.class.map(Into::into),
            error: view.error.map(Into::into),
            items: view.items.map(|steps::MapProgress { total, done, failed, running }| MapProgress { total, done, failed, running }),
        }
    }
}

/// An item of a map, with its steps.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct MapItem {
    /// Its address: `review[s1]`.
    pub path: String,
    /// Its number, from 0.
    pub number: u32,
    /// Its key, where the map declares one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where it stands as a whole.
    pub status: StepStatus,
    /// Its steps, each after those it waits for, then by id.
    pub steps: Vec<Step>,
}

impl From<steps::ItemView> for MapItem {
    fn from(view: steps::ItemView) -> Self {
        Self {
            path: view.path,
            number: view.number,
            key: view.key,
            status: view.status.into(),
            steps: view.steps.into_iter().map(Into::into).collect(),
        }
    }
}

/// A step inside a map, counted over all items of the maps around it.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct StepInside {
    /// Its dotted name: `review.findings`. The first part is the step of the run that it belongs to.
    pub step: String,
    /// Its id in the file.
    pub id: String,
    /// What it is: `llm`, `http`, `map`, `wait`, …
    pub kind: String,
    /// Items in all of the map that it stands in, as far as that has been expanded.
    pub total: u64,
    /// Items in which it was carried out and has ended, the failed ones included.
    pub done: u64,
    /// Items in which it has failed.
    pub failed: u64,
    /// Attempts that workers hold now.
    pub running: u64,
    /// Attempts so far.
    pub attempts: u64,
    /// What its attempts used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
}

impl From<inside::StepInside> for StepInside {
    fn from(view: inside::StepInside) -> Self {
        let inside::StepInside { step, id, kind, total, done, failed, running, attempts, tokens } = view;
        Self { step, id, kind, total, done, failed, running, attempts, tokens: tokens.map(Into::into) }
    }
}
