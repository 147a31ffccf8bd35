//! `throughput`: runs of five steps, started in slices while the worker works on them; until the last has ended.

use super::{
    Settings,
    floor::Floor,
    flows,
    ground::{Ground, runs_ended},
    meter::{Cost, Meter},
    report::{Headline, Report},
    spread::Spread,
};
use krowoc_engine::{
    VersionId,
    commands::{Local, StartRun},
};
use std::time::Instant;

/// Steps of a run.
pub const STEPS: usize = 5;
/// Runs started in one transaction.
const SLICE: usize = 500;

pub async fn measure(ground: &Ground, settings: &Settings) -> anyhow::Result<Report> {
    let runs = settings.runs.unwrap_or(20_000);
    let version = flows::register(ground, &flows::chain(STEPS)).await?;
    let (mut floor, mut meter) = (Floor::prepare(ground).await?, Meter::connect(&ground.options).await?);
    let worker = ground.worker(settings.concurrency()).await?;
    let (local, stats) = (worker.local(), worker.stats());
    let (mut rates, mut floors, mut cost, mut floor_cost, mut ended) = (vec![], vec![], Cost::default(), Cost::default(), 0);
    let warm_up = (runs / 10).max(SLICE);
    submit(ground, version, warm_up, Some(&*local)).await?;
    ended += warm_up;
    runs_ended(&stats, ended).await;
    for _ in 0..settings.passes {
        let before = meter.read().await?;
        let plain = floor.commit_by_thousand(runs * STEPS).await?;
        floor_cost.add(meter.since(before).await?);
        let before = meter.read().await?;
        let began = Instant::now();
        submit(ground, version, runs, Some(&*local)).await?;
        ended += runs;
        runs_ended(&stats, ended).await;
        let took = began.elapsed();
        cost.add(meter.since(before).await?);
        rates.push((runs * STEPS) as f64 / took.as_secs_f64());
        floors.push((runs * STEPS) as f64 / plain.as_secs_f64());
    }
    let singly = 2000.0 / floor.commit_each(2000).await?.as_secs_f64();
    worker.stop().await?;
    ground.verify(ended).await?;
    let (rates, floors) = (Spread::of(rates), Spread::of(floors));
    let headline = Headline {
        work: "throughput",
        value: rates.p50(),
        unit: "steps/s",
        floor_name: "rows/s, 1,000 to a commit",
        floor_value: floors.p50(),
    };
    Ok(Report::new(headline, (runs * STEPS * settings.passes) as u64, cost)
        .floor_cost(runs * STEPS * settings.passes, floor_cost)
        .counters(&stats)
        .with("runs", runs)
        .with("steps_per_run", STEPS)
        .with("passes", settings.passes)
        .figure("lowest", rates.at(0.0))
        .figure("highest", rates.at(1.0))
        .figure("floor_one_connection_commit_per_row", singly)
        .at_least("value", rates.p50(), 60_000.0)
        .cpu_at_most(0.025))
}

/// Starts runs, slice by slice.
pub async fn submit(ground: &Ground, version: VersionId, runs: usize, local: Option<&dyn Local>) -> anyhow::Result<()> {
    let slice: Vec<StartRun> = vec![flows::run(version); SLICE];
    for first in (0..runs).step_by(SLICE) {
        ground.engine.start_runs(&ground.scope, &slice[..SLICE.min(runs - first)], local).await?;
    }
    Ok(())
}
