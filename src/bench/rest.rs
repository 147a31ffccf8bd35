//! `rest`: runs that are started one by one over HTTP, as many callers as there are connections; `rest-bulk`: in batches. No worker takes them:
//! what is measured is the way in, from the request to the answer that a commit stands behind. The server's log is part of it.

use super::{
    Settings,
    client::{Client, Serving},
    floor::Floor,
    flows,
    ground::Ground,
    meter::Meter,
    report::{Headline, Report},
    spread::Spread,
};
use anyhow::ensure;
use futures::future::try_join_all;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Callers that wait for their answers at the same time.
const CALLERS: usize = 64;
/// Runs of one batch, and callers that send batches.
const BATCH: usize = 1000;
const BATCH_CALLERS: usize = 2;

const RUN: &str = r#"{"workflow":"chain","input":{"topic":"benchmark","depth":3}}"#;

pub async fn one_by_one(ground: &Ground, settings: &Settings) -> anyhow::Result<Report> {
    let runs = settings.runs.unwrap_or(20_000) / CALLERS * CALLERS;
    flows::register(ground, &flows::chain(5)).await?;
    let (mut meter, serving) = (Meter::connect(&ground.options).await?, Serving::start(ground).await?);
    let empty = asked(serving.address, CALLERS, runs / CALLERS / 2, ("GET", "/health/live", "", "200")).await?;
    let before = meter.read().await?;
    let took = asked(serving.address, CALLERS, runs / CALLERS, ("POST", "/api/v1/runs", RUN, "202")).await?;
    let cost = meter.since(before).await?;
    let again = asked(serving.address, CALLERS, runs / CALLERS / 2, ("GET", "/health/live", "", "200")).await?;
    serving.stop().await?;
    accepted(ground, runs).await?;
    let rate = runs as f64 / took.all.as_secs_f64();
    let headline = Headline {
        work: "rest",
        value: rate,
        unit: "runs/s",
        floor_name: "requests that are answered from memory, over the same connections",
        floor_value: runs as f64 / (empty.all + again.all).as_secs_f64(),
    };
    let spread = Spread::of(took.each);
    Ok(Report::new(headline, runs as u64, cost)
        .with("runs", runs)
        .with("callers", CALLERS)
        .figure("p50_ms", spread.p50())
        .figure("p99_ms", spread.p99())
        .at_least("value", rate, 3_000.0))
}

pub async fn bulk(ground: &Ground, settings: &Settings) -> anyhow::Result<Report> {
    let batches = (settings.runs.unwrap_or(100_000) / BATCH / BATCH_CALLERS).max(1);
    let runs = batches * BATCH_CALLERS * BATCH;
    flows::register(ground, &flows::chain(5)).await?;
    let (mut floor, mut meter, serving) =
        (Floor::prepare(ground).await?, Meter::connect(&ground.options).await?, Serving::start(ground).await?);
    let batch = format!(r#"{{"runs":[{}]}}"#, vec![RUN; BATCH].join(","));
    let mut plain = floor.commit_by_thousand(runs).await?;
    let before = meter.read().await?;
    let took = asked(serving.address, BATCH_CALLERS, batches, ("POST", "/api/v1/runs/batch", &batch, "202")).await?;
    let cost = meter.since(before).await?;
    plain += floor.commit_by_thousand(runs).await?;
    serving.stop().await?;
    accepted(ground, runs).await?;
    let rate = runs as f64 / took.all.as_secs_f64();
    let headline = Headline {
        work: "rest-bulk",
        value: rate,
        unit: "runs/s",
        floor_name: "a row to a run, 1,000 rows to a commit",
        floor_value: (2 * runs) as f64 / plain.as_secs_f64(),
    };
    Ok(Report::new(headline, runs as u64, cost)
        .with("runs", runs)
        .with("runs_per_batch", BATCH)
        .figure("batch_p50_ms", Spread::of(took.each).p50())
        .at_least("value", rate, 10_000.0))
}

/// How long requests took, all together and each in ms.
struct Took {
    all: Duration,
    each: Vec<f64>,
}

/// Method, path, body, and the status that is due.
type Request<'a> = (&'a str, &'a str, &'a str, &'a str);

/// Each caller asks so often, and waits for each answer.
async fn asked(address: SocketAddr, callers: usize, times: usize, request: Request<'_>) -> anyhow::Result<Took> {
    let clients = try_join_all((0..callers).map(|_| Client::connect(address))).await?;
    let began = Instant::now();
    let each = clients.into_iter().map(|mut client| async move {
        let (method, path, body, status) = request;
        let mut took = Vec::with_capacity(times);
        for _ in 0..times {
            let began = Instant::now();
            client.ask(method, path, body, status).await?;
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        anyhow::Ok(took)
    });
    let each = try_join_all(each).await?.concat();
    Ok(Took { all: began.elapsed(), each })
}

/// Exactly so many runs are there, each with the lane of its first step.
async fn accepted(ground: &Ground, runs: usize) -> anyhow::Result<()> {
    let found: (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM krowoc.run), (SELECT count(*) FROM krowoc.lane WHERE state = 'ready')")
            .fetch_one(ground.engine.pool())
            .await?;
    ensure!(found == (runs as i64, runs as i64), "{found:?} runs and ready lanes are there; {runs} were accepted");
    Ok(())
}
