//! Task queues.

use super::{Answer, Body, Group, answer::BAD, call::Call};
use crate::{Api, views::Queue};
use krowoc_engine::queries::queues;
use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;

pub struct Queues;

/// The task queues of the installation, by name.
#[derive(Serialize, Object)]
pub struct QueueList {
    /// Every queue.
    items: Vec<Queue>,
}

#[OpenApi(tag = "Group::Queues")]
impl Queues {
    /// What waits on each task queue, and how many workers serve it
    #[oai(path = "/queues", method = "get", operation_id = "listQueues")]
    async fn list(&self, _call: Call, api: Data<&Api>) -> Answer<Body<QueueList>, BAD> {
        let queues = queues::queues(&mut *api.conn().await?).await?;
        Ok(Body(QueueList { items: queues.into_iter().map(Into::into).collect() }))
    }
}
