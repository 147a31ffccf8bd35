//! **Guarantee (I8)**: a cancel and a completion have one winner; once a cancel is acknowledged nothing of the run is leased any more, and
//! what is in flight is aborted within a heartbeat and five seconds.
//!
//! **Guards**: leased lanes become `aborting`, which neither claims nor completions take (`lanes::stop`, the predicate `state = 'leased'`),
//! ready ones and spans go in the same commit, and the versions of all scopes are raised under lock (`raise_versions`).

use crate::{
    ledger::{Event, now_us},
    workflows::{CANCELLABLE, SLEEPY, Shape},
    world::{Dice, World},
};
use krowoc_engine::{Error, RunId};
use std::{collections::HashMap, time::Duration};

const ROUNDS: usize = 40;
/// Runs in a round.
const RUNS: usize = 10;

/// What a cancel was told, and when.
struct Acknowledged {
    at_us: i64,
    in_flight: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_and_a_completion_have_one_winner() {
    let mut dice = Dice::new("cancel");
    let mut world = World::new("cancel").await;
    world.concurrency = 64;
    for _ in 0..2 {
        world.add_worker();
    }
    let (mut acknowledged, mut too_late) = (HashMap::new(), vec![]);
    for _ in 0..ROUNDS {
        let shapes: Vec<Shape> = (0..RUNS).map(|_| CANCELLABLE[dice.below(CANCELLABLE.len() as u64) as usize]).collect();
        let runs = world.start(&shapes).await;
        let cancels = runs.iter().zip(&shapes).map(|(run, shape)| {
            let (engine, scope, run) = (world.engine.clone(), world.scope.clone(), *run);
            let within = if shape.text == SLEEPY.text { 200 } else { 700 };
            let delay = Duration::from_millis(dice.below(within));
            tokio::spawn(async move {
                // The random moment is what is being tested, not a wait for something.
                tokio::time::sleep(delay).await;
                (run, engine.cancel(&scope, run).await, now_us())
            })
        });
        for cancel in cancels.collect::<Vec<_>>() {
            match cancel.await.expect("a client") {
                (run, Ok(c), at_us) => drop(acknowledged.insert(run, Acknowledged { at_us, in_flight: c.in_flight })),
                (run, Err(Error::Conflict(_)), _) => too_late.push(run),
                (run, Err(e), _) => panic!("cancelling {run}: {e}"),
            }
        }
    }
    world.all_ended(Duration::from_secs(20)).await;
    world.stop_workers();
    check_winners(&world, &acknowledged, &too_late).await;
    let (late_starts, aborted) = check_ledger(&world, &acknowledged);
    let in_flight: u64 = acknowledged.values().map(|a| a.in_flight).sum();
    println!(
        "cancel: {} cancelled with {in_flight} in flight, {} completed first, {late_starts} begun after all, {aborted} aborted",
        acknowledged.len(),
        too_late.len()
    );
    assert!(acknowledged.len() >= 100 && too_late.len() >= 20, "the race had one side only");
    assert!(in_flight >= 50 && aborted >= 50, "nothing was in flight");
    assert_eq!(world.database.violations().await.expect("checked"), Vec::<String>::new());
    world.done().await;
}

async fn check_winners(world: &World, acknowledged: &HashMap<RunId, Acknowledged>, too_late: &[RunId]) {
    let rows: Vec<(uuid::Uuid, String)> =
        sqlx::query_as("SELECT id, status::text FROM krowoc.run").fetch_all(world.engine.pool()).await.expect("runs");
    assert_eq!(rows.len(), ROUNDS * RUNS);
    for (id, status) in rows {
        let run = RunId(id);
        let due = match (acknowledged.contains_key(&run), too_late.contains(&run)) {
            (true, false) => "cancelled",
            (false, true) => "succeeded",
            _ => panic!("run {run} has no winner or two"),
        };
        assert_eq!(status, due, "run {run}");
    }
}

/// Gives how many executions began after the acknowledgement (leased before it, all of them counted in it) and how many were aborted.
fn check_ledger(world: &World, acknowledged: &HashMap<RunId, Acknowledged>) -> (usize, usize) {
    let limit_us = (world.lease / 3 + Duration::from_secs(5)).as_micros() as i64;
    let mut open = HashMap::new();
    let (mut late_starts, mut aborted): (HashMap<RunId, u64>, usize) = (HashMap::new(), 0);
    let (entries, torn) = world.ledger.entries();
    assert_eq!(torn, 0);
    for entry in &entries {
        let Some(cancel) = acknowledged.get(&entry.run) else { continue };
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
                aborted += usize::from(event == Event::Aborted);
                assert!(entry.at_us <= cancel.at_us + limit_us, "{entry:?} came {} µs after the cancel", entry.at_us - cancel.at_us);
            }
        }
    }
    assert!(open.is_empty(), "never aborted: {open:?}");
    for (run, late) in &late_starts {
        assert!(
            *late <= acknowledged[run].in_flight,
            "run {run}: {late} executions began after a cancel that knew of {}",
            acknowledged[run].in_flight
        );
    }
    (late_starts.values().sum::<u64>() as usize, aborted)
}
