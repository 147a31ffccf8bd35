//! `backlog`: runs of five steps that were all there before the worker started, worked off; how fast at first and at last, with a long
//! history behind them or an old transaction that keeps dead rows from being removed.

use super::{
    Settings,
    floor::Floor,
    flows,
    ground::{Ground, runs_ended},
    meter::Meter,
    noop,
    report::{Headline, Report},
    throughput::{STEPS, submit},
};
use krowoc_engine::VersionId;
use sqlx::{Connection, PgConnection};
use std::time::Instant;
use uuid::Uuid;

const QUARTERS: usize = 4;
/// Runs of history in one statement.
const HISTORY_SLICE: usize = 10_000;

pub async fn measure(ground: &Ground, settings: &Settings) -> anyhow::Result<Report> {
    let runs = settings.runs.unwrap_or(100_000);
    let version = flows::register(ground, &flows::chain(STEPS)).await?;
    let (mut floor, mut meter) = (Floor::prepare(ground).await?, Meter::connect(&ground.options).await?);
    let floor_rows = (runs * STEPS).min(100_000);
    let before = meter.read().await?;
    let mut plain = floor.commit_by_thousand(floor_rows).await?;
    let floor_cost = meter.since(before).await?;
    let history = finished_runs(ground, version, settings.history.div_ceil(STEPS)).await?;
    let old = match settings.old_snapshot {
        true => Some(OldSnapshot::take(ground).await?),
        false => None,
    };
    let began = Instant::now();
    submit(ground, version, runs, None).await?;
    let submission_s = began.elapsed().as_secs_f64();
    let before = meter.read().await?;
    let began = Instant::now();
    let worker = ground.worker(settings.concurrency()).await?;
    let stats = worker.stats();
    let mut quarters = vec![];
    let mut reached = 0.0;
    for quarter in 1..=QUARTERS {
        let (from, to) = (runs * (quarter - 1) / QUARTERS, runs * quarter / QUARTERS);
        runs_ended(&stats, to).await;
        let now = began.elapsed().as_secs_f64();
        quarters.push((to - from) as f64 / (now - reached));
        reached = now;
    }
    let cost = meter.since(before).await?;
    worker.stop().await?;
    if let Some(old) = old {
        old.let_go().await?;
    }
    plain += floor.commit_by_thousand(floor_rows).await?;
    ground.verify(runs + history).await?;
    let floor_rate = (2 * floor_rows) as f64 / STEPS as f64 / plain.as_secs_f64();
    let (rate, last_by_first) = (runs as f64 / reached, quarters[QUARTERS - 1] / quarters[0]);
    let headline = Headline {
        work: "backlog",
        value: rate,
        unit: "runs/s",
        floor_name: "five rows to a run, 1,000 rows to a commit",
        floor_value: floor_rate,
    };
    let report = Report::new(headline, (runs * STEPS) as u64, cost)
        .floor_cost(floor_rows, floor_cost)
        .counters(&stats)
        .with("runs", runs)
        .with("steps_per_run", STEPS)
        .with("history_steps", history * STEPS)
        .with("old_snapshot", settings.old_snapshot)
        .figure("submission_runs_per_s", runs as f64 / submission_s)
        .with("quarters_runs_per_s", quarters.iter().map(|q| q.round()).collect::<Vec<_>>())
        .figure("last_by_first_quarter", last_by_first)
        .at_least("value", rate, 10_000.0);
    Ok(match (settings.old_snapshot, history) {
        (true, _) => report.at_least("last_by_first_quarter", last_by_first, 0.8),
        (false, _) => report.at_least("last_by_first_quarter", last_by_first, 0.95),
    })
}

/// Runs that have ended, with their steps, as the engine leaves them.
async fn finished_runs(ground: &Ground, version: VersionId, runs: usize) -> anyhow::Result<usize> {
    let mut conn = PgConnection::connect_with(&ground.options).await?;
    for first in (0..runs).step_by(HISTORY_SLICE) {
        let ids: Vec<Uuid> = (first..runs.min(first + HISTORY_SLICE)).map(|_| Uuid::now_v7()).collect();
        sqlx::query(
            "WITH r AS (
               INSERT INTO krowoc.run (id, workspace_id, workflow_version, status, last_seq, finished_at, trigger, created_by, input, output)
               SELECT id, $2, $3, 'succeeded', $4 + 2, krowoc.now(), 'bench', 'bench', '{}', 'null' FROM unnest($1::uuid[]) AS x(id) RETURNING id)
             INSERT INTO krowoc.step_result (run_id, scope, step, attempt, seq, duration_ms, status, finished_at, output)
             SELECT r.id, '', s, 1, s + 2, 0, 'succeeded', krowoc.now(), $5::text::json FROM r CROSS JOIN generate_series(0, $4 - 1) AS s",
        )
        .bind(ids)
        .bind(ground.scope.workspace.0)
        .bind(version.0)
        .bind(STEPS as i32)
        .bind(noop::OUTPUT)
        .execute(&mut conn)
        .await?;
    }
    Ok(runs)
}

/// A transaction that has looked, and is not done yet: what was alive then must be kept.
struct OldSnapshot(PgConnection);

impl OldSnapshot {
    async fn take(ground: &Ground) -> anyhow::Result<Self> {
        let mut conn = PgConnection::connect_with(&ground.options).await?;
        sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ").execute(&mut conn).await?;
        sqlx::query("SELECT count(*) FROM krowoc.lane").execute(&mut conn).await?;
        Ok(Self(conn))
    }

    async fn let_go(mut self) -> anyhow::Result<()> {
        sqlx::query("COMMIT").execute(&mut self.0).await?;
        Ok(self.0.close().await?)
    }
}
