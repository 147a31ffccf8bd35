//! `fanout`: a map, its items, their collected results and the step behind it. Every item reads its item and leaves 200 bytes.

use super::{
    Settings,
    floor::Floor,
    flows,
    ground::{Ground, runs_ended},
    meter::{self, Cost, Meter},
    report::{Headline, Report},
    spread::Spread,
};
use anyhow::ensure;
use std::time::{Duration, Instant};

const WARM_UP: usize = 1;

pub async fn measure(ground: &Ground, settings: &Settings) -> anyhow::Result<Report> {
    let items = settings.items.unwrap_or(1000);
    // Fifty thousand items in all, unless one map has more.
    let runs = settings.runs.unwrap_or((50_000 / items).clamp(3, 50));
    let version = flows::register(ground, &flows::fan(items)).await?;
    let (mut floor, mut meter) = (Floor::prepare(ground).await?, Meter::connect(&ground.options).await?);
    let worker = ground.worker(settings.concurrency()).await?;
    let (local, stats) = (worker.local(), worker.stats());
    let before_all_mb = meter::resident_mb(std::process::id());
    let (mut took, mut floors, mut cost, mut floor_cost) = (vec![], vec![], Cost::default(), Cost::default());
    for run in 0..WARM_UP + runs {
        let before = meter.read().await?;
        let plain = plainly(&mut floor, items).await?;
        let plain_cost = meter.since(before).await?;
        let before = meter.read().await?;
        let began = Instant::now();
        let started = ground.engine.start_runs(&ground.scope, &[flows::run(version)], Some(&*local)).await?;
        runs_ended(&stats, run + 1).await;
        let elapsed = began.elapsed();
        if run >= WARM_UP {
            cost.add(meter.since(before).await?);
            floor_cost.add(plain_cost);
            took.push(elapsed.as_secs_f64() * 1e3);
            floors.push(plain.as_secs_f64() * 1e3);
        }
        for run in started {
            let (sum, error): (Option<String>, Option<String>) =
                sqlx::query_as("SELECT output::text, error::text FROM krowoc.run WHERE id = $1")
                    .bind(run.id.0)
                    .fetch_one(ground.engine.pool())
                    .await?;
            ensure!(error.is_none(), "the run failed: {}", error.unwrap_or_default());
            let due = (items * (items - 1) / 2).to_string();
            ensure!(sum.as_deref() == Some(due.as_str()), "the join found a sum of {sum:?}; {due} is right");
        }
    }
    worker.stop().await?;
    ground.verify(WARM_UP + runs).await?;
    let (took, floors) = (Spread::of(took), Spread::of(floors));
    let per_s = items as f64 / took.p50() * 1e3;
    let headline = Headline {
        work: "fanout",
        value: took.p50(),
        unit: "ms",
        floor_name: "a run's row, its items' rows (1,000 to a commit), the join's row",
        floor_value: floors.p50(),
    };
    let report = Report::new(headline, (runs * (items + 2)) as u64, cost)
        .floor_cost(runs * (items + 2), floor_cost)
        .counters(&stats)
        .with("runs", runs)
        .with("items", items)
        .figure("p99_ms", took.p99())
        .figure("items_per_s", per_s)
        .figure("rss_mb_before", before_all_mb.unwrap_or(f64::NAN));
    Ok(match items {
        1000 => report.at_most("value", took.p50(), 20.0),
        100_000.. => report.at_least("items_per_s", per_s, 80_000.0),
        _ => report,
    })
}

/// The same rows without an engine.
async fn plainly(floor: &mut Floor, items: usize) -> anyhow::Result<Duration> {
    let began = Instant::now();
    floor.commit_each(1).await?;
    floor.commit_by_thousand(items).await?;
    floor.commit_each(1).await?;
    Ok(began.elapsed())
}
