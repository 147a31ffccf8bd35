//! `chain`: how long a step takes when nothing else goes on. One run of 100 steps at a time, each step's result durable before the next
//! starts.

use super::{
    Settings,
    floor::Floor,
    flows,
    ground::{Ground, runs_ended},
    meter::{Cost, Meter},
    report::{Headline, Report},
    spread::Spread,
};
use std::time::Instant;

const STEPS: usize = 100;
const WARM_UP: usize = 3;

pub async fn measure(ground: &Ground, settings: &Settings) -> anyhow::Result<Report> {
    let runs = settings.runs.unwrap_or(60);
    let version = flows::register(ground, &flows::chain(STEPS)).await?;
    let (mut floor, mut meter) = (Floor::prepare(ground).await?, Meter::connect(&ground.options).await?);
    let worker = ground.worker(settings.concurrency()).await?;
    let (local, stats) = (worker.local(), worker.stats());
    let (mut per_step, mut floors, mut cost, mut floor_cost) = (vec![], vec![], Cost::default(), Cost::default());
    for run in 0..WARM_UP + runs {
        // In turns, so that both see the machine in the same state.
        let before = meter.read().await?;
        let plain = floor.commit_each(STEPS).await?;
        let plain_cost = meter.since(before).await?;
        let before = meter.read().await?;
        let began = Instant::now();
        ground.engine.start_runs(&ground.scope, &[flows::run(version)], Some(&*local)).await?;
        runs_ended(&stats, run + 1).await;
        let took = began.elapsed();
        if run >= WARM_UP {
            cost.add(meter.since(before).await?);
            floor_cost.add(plain_cost);
            per_step.push(took.as_secs_f64() * 1e3 / STEPS as f64);
            floors.push(plain.as_secs_f64() * 1e3 / STEPS as f64);
        }
    }
    worker.stop().await?;
    ground.verify(WARM_UP + runs).await?;
    let (per_step, floors) = (Spread::of(per_step), Spread::of(floors));
    let headline = Headline {
        work: "chain",
        value: per_step.p50(),
        unit: "ms per step",
        floor_name: "one row and its commit per step",
        floor_value: floors.p50(),
    };
    Ok(Report::new(headline, (runs * STEPS) as u64, cost)
        .floor_cost(runs * STEPS, floor_cost)
        .counters(&stats)
        .with("runs", runs)
        .with("steps_per_run", STEPS)
        .figure("p99_ms", per_step.p99())
        .figure("floor_p99_ms", floors.p99())
        .at_most("value", per_step.p50(), 0.32))
}
