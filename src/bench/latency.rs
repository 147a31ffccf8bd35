//! `latency`: from the call that starts a run until its first step is carried out, at 50 arrivals a second. In the worker's own process, or
//! (`--across`) from another, whose worker hears of it by a notification.

use super::{
    Settings,
    floor::Floor,
    flows,
    ground::{Ground, runs_ended},
    meter::Meter,
    report::{Headline, Report},
    spread::Spread,
};
use anyhow::{Context, bail, ensure};
use krowoc_engine::{Engine, RunId, Scope, VersionId, commands::Local};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    process::Stdio,
    time::{Duration, SystemTime},
};
use tokio::{
    process::Command,
    sync::mpsc::UnboundedReceiver,
    time::{Interval, MissedTickBehavior},
};
use uuid::Uuid;

/// 50 a second.
const PACE: Duration = Duration::from_millis(20);
const WARM_UP: usize = 50;

/// A run and when it was asked for.
#[derive(Serialize, Deserialize)]
pub struct Submitted {
    run: RunId,
    at: SystemTime,
}

pub async fn measure(ground: &Ground, settings: &Settings, started: &mut UnboundedReceiver<(RunId, SystemTime)>) -> anyhow::Result<Report> {
    let arrivals = settings.runs.unwrap_or((settings.seconds.unwrap_or(20) * 1000) as usize / PACE.as_millis() as usize);
    let version = flows::register(ground, &flows::chain(1)).await?;
    let (mut floor, mut meter) = (Floor::prepare(ground).await?, Meter::connect(&ground.options).await?);
    let worker = ground.worker(settings.concurrency()).await?;
    let mut plain = paced_commits(&mut floor, arrivals / 4).await?;
    let before = meter.read().await?;
    let submitted = match settings.across {
        true => from_another_process(ground, version, WARM_UP + arrivals).await?,
        false => submit(&ground.engine, &ground.scope, version, WARM_UP + arrivals, Some(&*worker.local())).await?,
    };
    let starts = first_starts(started, submitted.len()).await?;
    let cost = meter.since(before).await?;
    plain.extend(paced_commits(&mut floor, arrivals / 4).await?);
    let stats = worker.stats();
    runs_ended(&stats, submitted.len()).await;
    worker.stop().await?;
    ground.verify(submitted.len()).await?;
    let mut waits = vec![];
    for Submitted { run, at } in submitted.iter().skip(WARM_UP) {
        let start = starts.get(run).with_context(|| format!("run {run} was never carried out"))?;
        waits.push(start.duration_since(*at).context("the clock was set back; measure again")?.as_secs_f64() * 1e3);
    }
    let (waits, plain) = (Spread::of(waits), Spread::of(plain));
    let headline = Headline {
        work: "latency",
        value: waits.p50(),
        unit: "ms",
        floor_name: "one row and its commit at the same pace",
        floor_value: plain.p50(),
    };
    let report = Report::new(headline, submitted.len() as u64, cost)
        .with("variant", if settings.across { "across" } else { "in process" })
        .counters(&stats)
        .with("arrivals", arrivals)
        .figure("p50_ms", waits.p50())
        .figure("p99_ms", waits.p99())
        .figure("max_ms", waits.at(1.0))
        .figure("floor_p99_ms", plain.p99());
    let (p50, p99) = if settings.across { (2.5, 6.0) } else { (1.2, 2.5) };
    Ok(report.at_most("p50_ms", waits.p50(), p50).at_most("p99_ms", waits.p99(), p99))
}

/// Ticks at the pace; one that comes late does not hurry the next.
fn pace() -> Interval {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

async fn paced_commits(floor: &mut Floor, commits: usize) -> anyhow::Result<Vec<f64>> {
    let (mut pace, run, mut took) = (pace(), Uuid::now_v7(), vec![]);
    for step in 0..commits {
        pace.tick().await;
        took.push(floor.commit(run, step as i32).await?.as_secs_f64() * 1e3);
    }
    Ok(took)
}

async fn submit(
    engine: &Engine,
    scope: &Scope,
    version: VersionId,
    runs: usize,
    local: Option<&dyn Local>,
) -> anyhow::Result<Vec<Submitted>> {
    let (mut pace, mut submitted) = (pace(), Vec::with_capacity(runs));
    for _ in 0..runs {
        pace.tick().await;
        let at = super::now();
        let started = engine.start_runs(scope, &[flows::run(version)], local).await?;
        submitted.extend(started.iter().map(|run| Submitted { run: run.id, at }));
    }
    Ok(submitted)
}

/// When each run's first step was carried out.
async fn first_starts(started: &mut UnboundedReceiver<(RunId, SystemTime)>, runs: usize) -> anyhow::Result<HashMap<RunId, SystemTime>> {
    let mut starts = HashMap::new();
    while starts.len() < runs {
        match tokio::time::timeout(Duration::from_secs(10), started.recv()).await {
            Ok(Some((run, at))) => starts.entry(run).or_insert(at),
            _ => bail!("{} of {runs} runs were carried out", starts.len()),
        };
    }
    Ok(starts)
}

async fn from_another_process(ground: &Ground, version: VersionId, runs: usize) -> anyhow::Result<Vec<Submitted>> {
    let program = std::env::current_exe().context("finding this program")?;
    let child = Command::new(program)
        .args(["bench", "latency", "--across", "--runs", &runs.to_string(), "--submit", &version.0.to_string()])
        .env("DATABASE_URL", ground.url())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting the process that submits")?;
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "the process that submits failed: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The other process: submits at the pace, and says when it did.
pub async fn submit_to(engine: &Engine, version: VersionId, runs: usize) -> anyhow::Result<Vec<Submitted>> {
    submit(engine, &Scope::local("bench"), version, runs, None).await
}
