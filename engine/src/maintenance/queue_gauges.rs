//! Measures the queues: how much waits, for how long, and who is there to take it.

use super::rounds;
use crate::{measures, queries::queues};
use sqlx::PgPool;
use std::time::Duration;

pub(super) async fn run(pool: PgPool, every: Duration) {
    let mut rounds = rounds(every);
    loop {
        rounds.tick().await;
        let measured = async { queues::queues(&mut *pool.acquire().await?).await };
        match measured.await {
            Ok(queues) => measures::queues(&queues),
            Err(error) => tracing::warn!(%error, "the queues can't be measured; trying again"),
        }
    }
}
