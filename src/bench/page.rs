//! `page`: pages of one run with a million steps of history, over HTTP: how it stands, its steps, its items, its attempts, its events, each
//! from places all over the run.

use super::{
    Settings,
    client::{Client, Serving},
    flows,
    ground::Ground,
    meter::Meter,
    noop,
    report::{Headline, Report},
    spread::Spread,
};
use anyhow::Context;
use krowoc_engine::VersionId;
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use std::time::Instant;
use uuid::Uuid;

/// Items whose rows are inserted by one statement.
const SLICE: i32 = 50_000;
/// Items in a chunk of a map, as the engine keeps them.
const CHUNK: i32 = 256;
/// Pages of each kind.
const PAGES: usize = 400;

pub async fn measure(ground: &Ground, settings: &Settings) -> anyhow::Result<Report> {
    let items = i32::try_from(settings.items.unwrap_or(1_000_000)).context("--items")?;
    let version = flows::register(ground, &flows::fan(10)).await?;
    let (run, map) = finished_run(ground, version, items).await?;
    let (mut meter, serving) = (Meter::connect(&ground.options).await?, Serving::start(ground).await?);
    let mut client = Client::connect(serving.address).await?;
    let floor = Spread::of(plain_pages(ground, run, map, items).await?);
    let before = meter.read().await?;
    let (mut all, mut report) = (Vec::new(), Vec::new());
    for (name, path) in
        [("run", ""), ("steps", "/steps"), ("events", "/events"), ("items", "/items?map=fan"), ("attempts", "/attempts?limit=20")]
    {
        let path = format!("/api/v1/runs/{run}{path}");
        let took = pages(&mut client, &path).await?;
        report.push((format!("{name}_p99_ms"), Spread::of(took.clone()).p99()));
        all.extend(took);
    }
    let cost = meter.since(before).await?;
    serving.stop().await?;
    let pages = all.len() as u64;
    let all = Spread::of(all);
    let headline = Headline {
        work: "page",
        value: all.p99(),
        unit: "ms p99",
        floor_name: "20 of its rows by their key, over a connection of its own",
        floor_value: floor.p99(),
    };
    let report = report.into_iter().fold(Report::new(headline, pages, cost), |all, (name, p99)| all.figure(&name, p99));
    Ok(report.with("history_steps", items).figure("p50_ms", all.p50()).at_most("value", all.p99(), 20.0))
}

/// Pages one after the other as long as there are more, and from the first again: each in ms. The first is not counted.
async fn pages(client: &mut Client, path: &str) -> anyhow::Result<Vec<f64>> {
    client.ask("GET", path, "", "200").await?;
    let (mut took, mut next) = (Vec::with_capacity(PAGES), path.to_owned());
    for _ in 0..PAGES {
        let began = Instant::now();
        let body = client.ask("GET", &next, "", "200").await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        let page: Value = serde_json::from_slice(body)?;
        let sign = if path.contains('?') { '&' } else { '?' };
        next = page["next"].as_str().map_or_else(|| path.to_owned(), |cursor| format!("{path}{sign}cursor={cursor}"));
    }
    Ok(took)
}

async fn plain_pages(ground: &Ground, run: Uuid, map: i16, items: i32) -> anyhow::Result<Vec<f64>> {
    let mut conn = PgConnection::connect_with(&ground.options).await?;
    let mut took = Vec::with_capacity(PAGES);
    for page in 0..PAGES as i32 {
        let began = Instant::now();
        sqlx::query("SELECT output::text FROM krowoc.step_result WHERE run_id = $1 AND scope > int2send($2) || int4send($3) ORDER BY scope, step LIMIT 20")
            .bind(run)
            .bind(map)
            .bind(items / PAGES as i32 * page)
            .fetch_all(&mut conn)
            .await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

/// A run of a map that has ended, as the engine leaves it, and the map's number among its steps.
async fn finished_run(ground: &Ground, version: VersionId, items: i32) -> anyhow::Result<(Uuid, i16)> {
    let (mut conn, run) = (PgConnection::connect_with(&ground.options).await?, Uuid::now_v7());
    let version_row = ground.engine.registry().versions.load(&mut conn, version).await?;
    let index = |name: &str| {
        let at = version_row.dag.steps.iter().position(|step| step.name == name);
        at.and_then(|at| i16::try_from(at).ok()).with_context(|| format!("no step {name}"))
    };
    let (map, item, join) = (index("fan")?, index("fan.one")?, index("join")?);
    sqlx::query(
        "INSERT INTO krowoc.run (id, workspace_id, workflow_version, status, last_seq, finished_at, trigger, created_by, input, output)
         VALUES ($1, $2, $3, 'succeeded', 4, krowoc.now(), 'bench', 'bench', '{}', 'null')",
    )
    .bind(run)
    .bind(ground.scope.workspace.0)
    .bind(version.0)
    .execute(&mut conn)
    .await?;
    for first in (0..items).step_by(SLICE as usize) {
        sqlx::query(
            "INSERT INTO krowoc.step_result (run_id, scope, step, attempt, seq, duration_ms, status, finished_at, output)
             SELECT $1, int2send($2) || int4send(n), $3, 1, 0, 1, 'succeeded', krowoc.now(), $6::text::json FROM generate_series($4, $5 - 1) AS n",
        )
        .bind(run)
        .bind(map)
        .bind(item)
        .bind(first)
        .bind(items.min(first + SLICE))
        .bind(noop::OUTPUT)
        .execute(&mut conn)
        .await?;
    }
    sqlx::query(
        "INSERT INTO krowoc.map_chunk (run_id, scope, step, chunk, items)
         SELECT $1, '', $2, c, (SELECT json_agg(n) FROM generate_series(c * $4, least($3, (c + 1) * $4) - 1) AS n) FROM generate_series(0, ($3 - 1) / $4) AS c",
    )
    .bind(run)
    .bind(map)
    .bind(items)
    .bind(CHUNK)
    .execute(&mut conn)
    .await?;
    sqlx::query(
        "INSERT INTO krowoc.step_result (run_id, scope, step, attempt, seq, duration_ms, status, finished_at, output)
         SELECT $1, '', s, 1, seq, 1, 'succeeded', krowoc.now(), '1' FROM unnest($2::smallint[], $3::int[]) AS x(s, seq)",
    )
    .bind(run)
    .bind([map, join])
    .bind([2, 3])
    .execute(&mut conn)
    .await?;
    // As autovacuum does after as much as this.
    sqlx::query("VACUUM ANALYZE krowoc.step_result").execute(&mut conn).await?;
    Ok((run, map))
}
