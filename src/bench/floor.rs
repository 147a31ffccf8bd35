//! What PostgreSQL itself takes for the same rows: plain statements over the same kind of connection, in the same run. Absolute times vary
//! between machines and with what else they do; the ratio to the floor says what the engine adds.

use super::{ground::Ground, noop};
use sqlx::{Connection, PgConnection};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Rows of a big commit.
const BATCH: usize = 1000;

/// A connection and a table of results without an engine.
pub struct Floor {
    conn: PgConnection,
}

impl Floor {
    /// Makes the table.
    pub async fn prepare(ground: &Ground) -> anyhow::Result<Self> {
        let mut conn = PgConnection::connect_with(&ground.options).await?;
        sqlx::query("CREATE TABLE public.bench_floor (run uuid, step int, output json NOT NULL, PRIMARY KEY (run, step))")
            .execute(&mut conn)
            .await?;
        Ok(Self { conn })
    }

    /// A row of 200 bytes and its commit.
    pub async fn commit(&mut self, run: Uuid, step: i32) -> anyhow::Result<Duration> {
        let began = Instant::now();
        sqlx::query("INSERT INTO public.bench_floor VALUES ($1, $2, $3::text::json)")
            .bind(run)
            .bind(step)
            .bind(noop::OUTPUT)
            .execute(&mut self.conn)
            .await?;
        Ok(began.elapsed())
    }

    /// So many rows, a commit for each.
    pub async fn commit_each(&mut self, rows: usize) -> anyhow::Result<Duration> {
        let (began, run) = (Instant::now(), Uuid::now_v7());
        for step in 0..rows {
            self.commit(run, step as i32).await?;
        }
        Ok(began.elapsed())
    }

    /// So many rows, a commit for each thousand.
    pub async fn commit_by_thousand(&mut self, rows: usize) -> anyhow::Result<Duration> {
        let began = Instant::now();
        for first in (0..rows).step_by(BATCH) {
            let count = BATCH.min(rows - first);
            let (run, steps, outputs) = (vec![Uuid::now_v7(); count], (0..count as i32).collect::<Vec<_>>(), vec![noop::OUTPUT; count]);
            sqlx::query("INSERT INTO public.bench_floor SELECT r, s, o::json FROM unnest($1::uuid[], $2::int[], $3::text[]) AS x(r, s, o)")
                .bind(run)
                .bind(steps)
                .bind(outputs)
                .execute(&mut self.conn)
                .await?;
        }
        Ok(began.elapsed())
    }
}
