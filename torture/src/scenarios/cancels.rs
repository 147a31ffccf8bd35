//! **Promise (I8)**: a cancel and a completion have one winner; once a cancel is acknowledged nothing of the run is leased any more, and what is
//! in flight is aborted within a heartbeat and five seconds.
//!
//! **Guards**: leased lanes become `aborting`, which neither claims nor completions take (`lanes::stop`, the predicate `state = 'leased'`),
//! ready ones and spans go in the same commit, and the versions of all scopes are raised under lock (`raise_versions`).

use crate::{
    arena::Arena,
    dice::Dice,
    findings::Figure,
    ledger::{Event, now_us},
    scenario::Scenario,
    shapes::{CANCELLABLE, SLEEPY, Shape},
    world::World,
};
use anyhow::{Result, anyhow};
use futures::FutureExt;
use krowoc_engine::{Error, RunId};
use std::{collections::HashMap, time::Duration};

pub const SCENARIO: Scenario =
    Scenario { name: "cancels", about: "cancels that race with completions", needs: &[], run: |arena| run(arena).boxed_local() };

/// Runs that are cancelled in the same second.
const RUNS: usize = 20;

/// What a cancel was told, and when.
struct Acknowledged {
    at_us: i64,
    in_flight: u64,
}

/// What clients were told.
#[derive(Default)]
struct Told {
    acknowledged: HashMap<RunId, Acknowledged>,
    too_late: Vec<RunId>,
}

async fn run(arena: &mut Arena) -> Result<()> {
    let rounds = arena.size.pick(20, 200);
    let findings = arena.findings.clone();
    let most = rounds * RUNS as u64;
    let cancelled = findings.count("runs cancelled", Figure::AtLeast(most / 4));
    let completed = findings.count("runs that completed first", Figure::AtLeast(most / 20));
    let in_flight = findings.count("attempts in flight at a cancel", Figure::AtLeast(most / 8));
    let aborted = findings.count("attempts aborted", Figure::AtLeast(most / 8));
    let mut world = World::new(arena).await?;
    world.concurrency = 64;
    for _ in 0..2 {
        world.add_worker()?;
    }
    let mut told = Told::default();
    for round in 0..rounds {
        one_round(&mut world, &mut arena.dice, &mut told).await?;
        arena.progress(format!("{round} of {rounds} rounds"));
    }
    world.all_ended(Duration::from_secs(20)).await?;
    world.stop_workers().await?;
    cancelled.set(told.acknowledged.len() as u64);
    completed.set(told.too_late.len() as u64);
    in_flight.set(told.acknowledged.values().map(|a| a.in_flight).sum());
    check_winners(&world, &told).await?;
    let (late, dropped) = check_ledger(&world, &told)?;
    aborted.set(dropped);
    findings.note(format!("{late} attempts began after an acknowledgement that had counted them"));
    world.database.violations().await?.iter().for_each(|what| findings.violation(what));
    Ok(())
}

async fn one_round(world: &mut World, dice: &mut Dice, told: &mut Told) -> Result<()> {
    let shapes: Vec<Shape> = (0..RUNS).map(|_| *dice.pick(&CANCELLABLE)).collect();
    let runs = world.start(&shapes).await?;
    let mut cancels = vec![];
    for (run, shape) in runs.into_iter().zip(&shapes) {
        let (engine, scope) = (world.engine.clone(), world.scope.clone());
        let delay = Duration::from_millis(dice.below(if *shape == SLEEPY { 200 } else { 700 }));
        cancels.push(tokio::spawn(async move {
            // The random moment is what is being tested, not a wait for something.
            tokio::time::sleep(delay).await;
            (run, engine.cancel(&scope, run).await, now_us())
        }));
    }
    for cancel in cancels {
        match cancel.await? {
            (run, Ok(c), at_us) => drop(told.acknowledged.insert(run, Acknowledged { at_us, in_flight: c.in_flight })),
            (run, Err(Error::Conflict(_)), _) => told.too_late.push(run),
            (run, Err(e), _) => return Err(anyhow!(e).context(format!("cancelling {run}"))),
        }
    }
    Ok(())
}

async fn check_winners(world: &World, told: &Told) -> Result<()> {
    let rows: Vec<(uuid::Uuid, String)> = sqlx::query_as("SELECT id, status::text FROM krowoc.run").fetch_all(world.engine.pool()).await?;
    let found: HashMap<RunId, String> = rows.into_iter().map(|(id, status)| (RunId(id), status)).collect();
    for run in world.runs.keys() {
        let due = match (told.acknowledged.contains_key(run), told.too_late.contains(run)) {
            (true, false) => "cancelled",
            _ => "succeeded",
        };
        if found.get(run).map(String::as_str) != Some(due) {
            world.findings().violation(format!("I8: run {run} is {:?}; its cancel was told that it would be {due}", found.get(run)));
        }
    }
    Ok(())
}

/// Gives how many executions began after the acknowledgement (leased before it, all of them counted in it) and how many were aborted.
fn check_ledger(world: &World, told: &Told) -> Result<(u64, u64)> {
    let limit_us = (world.lease / 3 + Duration::from_secs(5)).as_micros() as i64;
    let mut open = HashMap::new();
    let (mut late_starts, mut aborted): (HashMap<RunId, u64>, u64) = (HashMap::new(), 0);
    let (entries, torn) = world.ledger.entries()?;
    if torn > 0 {
        world.findings().violation(format!("{torn} lines of the ledger are torn though nobody was killed"));
    }
    for entry in &entries {
        let Some(cancel) = told.acknowledged.get(&entry.run) else { continue };
        let key = (entry.run, entry.path.clone(), entry.attempt);
        match entry.event {
            Event::Start => {
                open.insert(key, entry.at_us);
                if entry.at_us > cancel.at_us {
                    *late_starts.entry(entry.run).or_default() += 1;
                }
            }
            event => {
                open.remove(&key);
                aborted += u64::from(event == Event::Aborted);
                if entry.at_us > cancel.at_us + limit_us {
                    world.findings().violation(format!("I8: {entry:?} came {} µs after the cancel", entry.at_us - cancel.at_us));
                }
            }
        }
    }
    open.keys().for_each(|never| world.findings().violation(format!("I8: never aborted: {never:?}")));
    for (run, late) in &late_starts {
        let counted = told.acknowledged[run].in_flight;
        if *late > counted {
            world.findings().violation(format!("I8: {late} executions of run {run} began after a cancel that knew of {counted}"));
        }
    }
    Ok((late_starts.values().sum(), aborted))
}
