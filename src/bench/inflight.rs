//! `inflight`: simulated model calls that wait, all at once in one worker: the memory they hold, and how long it takes to stop them all.

use super::{
    Settings, flows,
    ground::Ground,
    meter::{self, Meter},
    report::{Headline, Report},
};
use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

/// Longer than the whole work.
const LATENCY: &str = "600s";
/// Bytes of a prompt.
const PROMPT: usize = 1000;
/// Cancellations under way at once.
const CANCELLING: usize = 8;
const WITHIN: Duration = Duration::from_secs(30);
/// How often the database is asked how far things are; what it adds to a time is at most this.
const LOOK: Duration = Duration::from_millis(10);

pub async fn measure(ground: &Ground, settings: &Settings) -> anyhow::Result<Report> {
    let calls = settings.items.unwrap_or(10_000);
    let runs = settings.runs.unwrap_or(100).min(calls);
    let version = flows::register(ground, &flows::calls(LATENCY)).await?;
    let mut meter = Meter::connect(&ground.options).await?;
    let worker = ground.worker(calls).await?;
    let stats = worker.stats();
    let before_mb = resident_mb()?;
    let before = meter.read().await?;
    let began = Instant::now();
    let slice: Vec<_> = (0..runs)
        .map(|run| {
            let documents = (calls * run / runs..calls * (run + 1) / runs).map(|n| format!("{n:<PROMPT$}")).collect::<Vec<_>>();
            flows::run_with(version, &json!({ "documents": documents }))
        })
        .collect();
    let started = ground.engine.start_runs(&ground.scope, &slice, Some(&*worker.local())).await?;
    drop(slice);
    // A map of its own in each run, then its calls.
    while stats.started.load(Relaxed) < runs + calls {
        if began.elapsed() > WITHIN {
            bail!("after {WITHIN:?} only {} of {calls} calls were under way", stats.started.load(Relaxed).saturating_sub(runs));
        }
        tokio::time::sleep(LOOK).await;
    }
    let all_started = began.elapsed();
    // Dispatched is not yet rendered and waiting.
    let resident = settled_mb().await?;
    let began = Instant::now();
    stream::iter(&started)
        .map(|run| ground.engine.cancel(&ground.scope, run.id))
        .buffer_unordered(CANCELLING)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let asked = began.elapsed();
    while cancelled(ground).await? < runs as i64 {
        if began.elapsed() > WITHIN {
            bail!("{WITHIN:?} after their cancellation runs were still under way");
        }
        tokio::time::sleep(LOOK).await;
    }
    let all_cancelled = began.elapsed();
    let cost = meter.since(before).await?;
    let began = Instant::now();
    worker.stop().await?;
    let stopped = began.elapsed();
    let headline = Headline {
        work: "inflight",
        value: resident,
        unit: "MB",
        floor_name: "the same process before the first call",
        floor_value: before_mb,
    };
    Ok(Report::new(headline, calls as u64, cost)
        .with("calls", calls)
        .with("runs", runs)
        .with("prompt_bytes", PROMPT)
        .figure("kb_per_call", (resident - before_mb) * 1024.0 / calls as f64)
        .figure("all_under_way_ms", all_started.as_secs_f64() * 1e3)
        .figure("cancellations_accepted_ms", asked.as_secs_f64() * 1e3)
        .figure("all_cancelled_ms", all_cancelled.as_secs_f64() * 1e3)
        .figure("worker_stopped_ms", stopped.as_secs_f64() * 1e3)
        .at_most("value", resident, 400.0))
}

fn resident_mb() -> anyhow::Result<f64> {
    meter::resident_mb(std::process::id()).context("this system does not tell a process's memory in /proc")
}

/// The memory once it has stopped growing for half a second.
async fn settled_mb() -> anyhow::Result<f64> {
    let mut last = resident_mb()?;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = resident_mb()?;
        if now - last < 0.5 {
            return Ok(now);
        }
        last = now;
    }
}

async fn cancelled(ground: &Ground) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM krowoc.run WHERE status = 'cancelled'").fetch_one(ground.engine.pool()).await?)
}
