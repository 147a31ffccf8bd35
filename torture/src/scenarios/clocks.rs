//! **Promise (I2, I10)**: there is one clock, the database's. Leases, timers, backoffs, time limits and retention keep to it whatever the clocks
//! of workers and servers say.
//!
//! **Guards**: SQL reads `krowoc.now()`, and no part of the engine the process's clock (`clippy.toml`); what a worker measures itself it measures
//! on the clock that nobody can set.
//!
//! Workers and a server run with clocks that are hours and days wrong. The ledger has the time of a clock that nobody can put wrong, and beside
//! it the one that the process would have read: so it is seen that their clocks were wrong.

use crate::{
    arena::Arena,
    findings::{Figure, Findings, Stopwatch},
    ledger::{Entry, Event, now_us, wall_us},
    retire,
    scenario::{Need, Scenario, library},
    shapes::Shape,
    verify::verify,
    world::{BEGINS_WITHIN, Cancel, Key, World},
};
use anyhow::{Context, Result};
use futures::FutureExt;
use krowoc_engine::RunId;
use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

pub const SCENARIO: Scenario = Scenario {
    name: "clocks",
    about: "workers and servers whose clocks are hours and days wrong",
    needs: &[Need::Library(FAKETIME, "libfaketime")],
    run: |arena| run(arena).boxed_local(),
};

const FAKETIME: &str = "faketime/libfaketimeMT.so.1";
/// Of workers, as libfaketime has it; one is right.
const WRONG: [&str; 4] = ["+6h", "-6h", "+30d", "+0"];
/// More than that is wrong.
const RIGHT_US: i64 = 600_000_000;
/// Of a server that removes old runs.
const SERVER: &str = "+2d";
const KEEP_RUNS: Duration = Duration::from_secs(3600);
/// Longer than anything but a wrong clock delays a heartbeat.
const LEASE: Duration = Duration::from_secs(3);
/// When something is due it is to happen within so long.
const LATE: Duration = Duration::from_secs(5);

const BACKOFF_US: i64 = 700_000;
const PAUSE_US: i64 = 1_200_000;
const TIMEOUT: Duration = Duration::from_secs(2);

/// Backs off, pauses, and waits for a point in time.
const TIMED: Shape = Shape {
    steps: 5,
    status: "succeeded",
    text: "
krowoc: v1
name: timed
timeout: 10m
defaults:
  retry: { attempts: 3, backoff: { kind: constant, initial: 700ms, max: 700ms, jitter: none } }
steps:
  a: { ledger: { ms: 5, expects: 0, seed: '${{ input.seed }}' } }
  flaky: { ledger: { ms: 5, expects: 1, fail_first: 2, in: ['${{ steps.a.output }}'] } }
  pause: { needs: [a], wait: { for: 1200ms } }
  paused: { needs: [pause], ledger: { ms: 5, expects: 1, in: ['${{ steps.a.output }}'] } }
  until: { needs: [a], wait: { until: '${{ input.due }}' } }
  on_time: { needs: [until], ledger: { ms: 5, expects: 1, in: ['${{ steps.a.output }}'] } }
  last: { ledger: { ms: 5, expects: 3, in: ['${{ steps.flaky.output }}', '${{ steps.paused.output }}', '${{ steps.on_time.output }}'] } }
output: ${{ steps.last.output }}
",
};

/// Takes longer than the lease.
const LONG: Shape = Shape {
    steps: 1,
    status: "succeeded",
    text: "
krowoc: v1
name: longer-than-the-lease
timeout: 10m
steps:
  a: { ledger: { ms: 7000, expects: 0, seed: '${{ input.seed }}' } }
",
};

/// Is stopped when its time is up.
const OVERDUE: Shape = Shape {
    steps: 0,
    status: "failed",
    text: "
krowoc: v1
name: overdue
timeout: 2s
steps:
  a: { ledger: { ms: 200000, expects: 0 } }
",
};

async fn run(arena: &mut Arena) -> Result<()> {
    let runs = arena.size.pick(24, 240);
    let findings = arena.findings.clone();
    let wrong = findings.count("workers with a wrong clock", Figure::Exactly(WRONG.len() as u64 - 1));
    let by_them = findings.count("steps carried out by these", Figure::AtLeast(runs * 3));
    let kept = findings.count("steps longer than the lease", Figure::Exactly(runs));
    let lost = findings.count("attempts lost", Figure::Exactly(0));
    let timers = findings.count("timers and backoffs", Figure::Exactly(runs * 4));
    let checked = Checked::declare(&findings);
    let stopped = findings.count("runs stopped when their time was up", Figure::Exactly(runs));
    let removed = findings.count("old runs removed", Figure::AtLeast(1));
    let mut world = World::new(arena).await?;
    world.lease = LEASE;
    world.concurrency = 64;
    for shift in WRONG {
        world.environment = wrong_by(shift)?;
        world.add_worker()?;
    }
    world.environment = wrong_by(SERVER)?;
    let mut server = world.start_process(world.server(None), None)?;
    world.workers_ready().await?;
    server.ready(BEGINS_WITHIN).await?;
    let due = submit(&mut world, runs).await?;
    world.all_ended(Duration::from_secs(60)).await?;
    world.stop_workers().await?;
    server.stop().await?;
    retire::some(&mut world, TIMED).await?;
    let retiring = world.start_process(world.server(Some(KEEP_RUNS)), None)?;
    retire::until_gone(&world, Duration::from_secs(30)).await?;
    retiring.stop().await?;
    removed.set(world.retired.len() as u64);
    let found = verify(&world).await?;
    lost.set(found.lost as u64);
    let (entries, _) = world.ledger.entries()?;
    let off = off(&entries);
    wrong.set(off.len() as u64);
    by_them.set(entries.iter().filter(|e| e.event == Event::End && off.contains(&e.pid)).count() as u64);
    let of = |run: &RunId| world.runs.get(run).map(|accepted| accepted.shape);
    kept.set(entries.iter().filter(|e| e.event == Event::End && of(&e.run) == Some(LONG)).count() as u64);
    timers.set(checked.timers(&entries, &due));
    stopped.set(checked.overdue(&world).await?);
    findings.note(format!("{found:?}"));
    Ok(())
}

/// For processes whose clocks are to be wrong.
fn wrong_by(shift: &str) -> Result<Vec<(&'static str, String)>> {
    let library = library(FAKETIME).context(FAKETIME)?;
    Ok(vec![
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", shift.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ])
}

/// Starts everything; gives when each `until` is due, on the ledger's clock.
async fn submit(world: &mut World, runs: u64) -> Result<HashMap<RunId, i64>> {
    // The database's time and the ledger's at the same moment, to within the round trip.
    let before = now_us();
    let wall: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetch_one(world.engine.pool()).await?;
    let mut due = HashMap::new();
    for _ in 0..runs {
        let in_us = 1_500_000;
        let at: String = sqlx::query_scalar(
            "SELECT to_char(to_timestamp($1::float8 / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        )
        .bind((wall + in_us) as f64)
        .fetch_one(world.engine.pool())
        .await?;
        let (request, accepted) = world.request_with(TIMED, Key::None, json!({ "due": at })).await?;
        let run = world.submit(&[request], vec![accepted]).await?;
        due.insert(run[0], before + in_us);
        let others = world.start(&[LONG, OVERDUE]).await?;
        // What it began comes to nothing.
        world.runs.entry(others[1]).and_modify(|accepted| accepted.cancel = Cancel::Asked);
    }
    Ok(due)
}

/// Processes whose clocks were wrong.
fn off(entries: &[Entry]) -> HashSet<u32> {
    let mine = wall_us() - now_us();
    entries.iter().filter(|e| (e.wall_us - e.at_us - mine).abs() > RIGHT_US).map(|e| e.pid).collect()
}

/// How late it was.
struct Checked {
    findings: Findings,
    late: Stopwatch,
    stopped: Stopwatch,
}

impl Checked {
    fn declare(findings: &Findings) -> Self {
        let late = findings.times("timers and backoffs, late by", LATE);
        let stopped = findings.times("stops of runs, late by", LATE);
        Self { findings: findings.clone(), late, stopped }
    }

    /// Nothing began before it was due; gives how much was looked at.
    fn timers(&self, entries: &[Entry], due: &HashMap<RunId, i64>) -> u64 {
        let at = |event: Event, run: RunId, path: &str, attempt: u32| {
            let found = entries.iter().find(|e| e.event == event && e.run == run && e.path == path && e.attempt == attempt);
            found.map(|e| e.at_us)
        };
        let mut checked = 0;
        for (run, due) in due {
            let a = at(Event::End, *run, "a", 1);
            checked += self.one(*run, "paused", a.map(|a| a + PAUSE_US), at(Event::Start, *run, "paused", 1));
            checked += self.one(*run, "on_time", Some(*due), at(Event::Start, *run, "on_time", 1));
            for attempt in [1, 2] {
                let failed = at(Event::Failed, *run, "flaky", attempt);
                let again = at(Event::Start, *run, "flaky", attempt + 1);
                checked += self.one(*run, "flaky", failed.map(|failed| failed + BACKOFF_US), again);
            }
        }
        checked
    }

    fn one(&self, run: RunId, path: &str, due: Option<i64>, began: Option<i64>) -> u64 {
        match (due, began) {
            (Some(due), Some(began)) if began >= due => {
                self.late.record(Duration::from_micros((began - due).unsigned_abs()));
                1
            }
            (Some(_), Some(_)) => {
                self.findings.violation(format!("I10: {path} of run {run} was due at {due:?} and began at {began:?}"));
                1
            }
            // Of the few that were removed there is the ledger, and nothing is missing there.
            _ => 0,
        }
    }

    /// Runs whose time was up were stopped then; gives how many.
    async fn overdue(&self, world: &World) -> Result<u64> {
        let rows: Vec<(uuid::Uuid, i64)> = sqlx::query_as(
            "SELECT id, (extract(epoch FROM finished_at - created_at) * 1000000)::bigint FROM krowoc.run WHERE error->>'class' = 'run_timeout'",
        )
        .fetch_all(world.engine.pool())
        .await?;
        for (run, took) in &rows {
            match took - TIMEOUT.as_micros() as i64 {
                late if late >= 0 => self.stopped.record(Duration::from_micros(late.unsigned_abs())),
                _ => self.findings.violation(format!("run {run} was stopped {took} µs after its start, before its time was up")),
            }
        }
        Ok(rows.len() as u64)
    }
}
