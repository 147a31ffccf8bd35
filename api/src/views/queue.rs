//! Task queues.

use async_graphql::SimpleObject;
use krowoc_engine::queries::queues::QueueView;
use poem_openapi::Object;
use serde::Serialize;

/// A task queue.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Steps that may be claimed now.
    pub ready_steps: i64,
    /// Map items that may be claimed now.
    pub ready_items: i64,
    /// Steps that workers hold.
    pub leased: i64,
    /// Steps that wait for a time.
    pub timed: i64,
    /// How long the oldest ready step or item has been waiting, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ready_s: Option<f64>,
    /// Workers that serve it and are alive.
    pub workers: i64,
}

impl From<QueueView> for Queue {
    fn from(view: QueueView) -> Self {
        let QueueView { name, ready_steps, ready_items, leased, timed, oldest_ready_s, workers } = view;
        Self { name, ready_steps, ready_items, leased, timed, oldest_ready_s, workers }
    }
}
