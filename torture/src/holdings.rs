//! What a worker holds at a moment, and what becomes of it.

use anyhow::Result;
use sqlx::PgPool;
use uuid::Uuid;

/// The lanes that were leased to a worker when it was asked.
#[derive(Default)]
pub struct Holdings {
    worker: i32,
    runs: Vec<Uuid>,
    scopes: Vec<Vec<u8>>,
    lanes: Vec<i32>,
    tokens: Vec<i64>,
}

impl Holdings {
    /// Those of the worker of this name; none where there is no such worker yet.
    pub async fn of(pool: &PgPool, worker: &str) -> Result<Self> {
        let rows: Vec<(i32, Uuid, Vec<u8>, i32, i64)> = sqlx::query_as(
            "SELECT w.id, l.run_id, l.scope, l.lane, l.token FROM krowoc.live_lane l JOIN krowoc.worker w ON w.id = l.worker
             WHERE w.name = $1 AND l.state IN ('leased', 'aborting')",
        )
        .bind(worker)
        .fetch_all(pool)
        .await?;
        let mut held = Self::default();
        for (worker, run, scope, lane, token) in rows {
            held.worker = worker;
            held.runs.push(run);
            held.scopes.push(scope);
            held.lanes.push(lane);
            held.tokens.push(token);
        }
        Ok(held)
    }

    /// How many they were.
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// How many of them are still held as they were.
    pub async fn left(&self, pool: &PgPool) -> Result<usize> {
        self.count(pool, "l.token = k.token").await
    }

    /// How many of them another worker has in its hands.
    pub async fn taken_up(&self, pool: &PgPool) -> Result<usize> {
        self.count(pool, "l.token <> k.token AND l.state = 'leased' AND l.worker <> $5").await
    }

    async fn count(&self, pool: &PgPool, how: &'static str) -> Result<usize> {
        let sql = format!(
            "SELECT count(*) FROM unnest($1::uuid[], $2::bytea[], $3::int[], $4::bigint[]) AS k(run, scp, lane, token)
             JOIN krowoc.live_lane l ON l.run_id = k.run AND l.scope = k.scp AND l.lane = k.lane AND $5::int IS NOT NULL WHERE {how}"
        );
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(&self.runs)
            .bind(&self.scopes)
            .bind(&self.lanes)
            .bind(&self.tokens)
            .bind(self.worker)
            .fetch_one(pool)
            .await?;
        Ok(count as usize)
    }
}
