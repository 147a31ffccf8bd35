//! Why a run is not further.

use super::shown;
use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use krowoc_engine::queries::why;
use poem_openapi::Object;
use serde::Serialize;

shown! {
    /// What a live step is doing or waits for, and what its `since` counts from.
    Reason from why::Reason {
        /// A worker carries it out: since this attempt began. Where an earlier one is on record, since this one could begin.
        Leased,
        /// A worker is told to stop it: since the same.
        Aborting,
        /// Its worker has not been heard of: since the same.
        WorkerSilent,
        /// No worker serves its queue: since it could have been carried out.
        NoWorker,
        /// The workers of its queue are busy with others: since it could have been carried out.
        Ready,
        /// The next attempt has its time: since the last one failed.
        Backoff,
        /// A limit has its time: since the attempt that met it.
        Deferred,
        /// It is a `wait` step: since it began to wait.
        Timer,
        /// Items of a map are under way: since there were any.
        Items,
        /// As many items of its map are under way as may be: since its item was opened again.
        Concurrency,
    }
}

/// What a run waits for, or how it ended.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
pub struct Why {
    /// One sentence for people.
    pub sentence: String,
    /// How many live steps there are.
    pub live: i64,
    /// Those that matter most, at most 100: what runs, what waits, what is ready.
    pub waits: Vec<Wait>,
}

/// What a live step is doing or waiting for.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct Wait {
    /// The step's address; `output` for the computation of the run's output.
    pub path: String,
    /// What it is doing.
    pub reason: Reason,
    /// The attempt under way, or the last one.
    pub attempt: u32,
    /// Since when, where that is on record; the reason says of what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// Until when: a due time, or the end of a lease that is not renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// What will end the wait.
    pub wakes: String,
}

impl From<why::WhyView> for Why {
    fn from(view: why::WhyView) -> Self {
        let waits = view.waits.into_iter().map(|why::WaitView { path, reason, attempt, since, until, wakes }| Wait {
            path,
            reason: reason.into(),
            attempt,
            since,
            until,
            wakes,
        });
        Self { sentence: view.sentence, live: view.live, waits: waits.collect() }
    }
}
