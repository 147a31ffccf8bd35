//! **Promise (I9)**: one idempotency key, whoever sends it and how often, is one run; with a different body it is a conflict. Slices that share
//! keys, in any order, do not stand in each other's way.
//!
//! **Guards**: the unique index `run_idempotency` with `ON CONFLICT … DO NOTHING` (`start_runs_v1`), the request's hash beside the key, the
//! order in which a slice inserts its keys (`in_key_order`).

use crate::{arena::Arena, dice::Dice, findings::Figure, scenario::Scenario, shapes::CHAIN, world::World};
use anyhow::{Result, anyhow};
use futures::FutureExt;
use krowoc_engine::{
    Error, Payload, RunId, VersionId,
    commands::{StartRun, StartedRun, start_runs},
};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use std::{collections::HashSet, sync::Arc};
use tokio::sync::Barrier;

pub const SCENARIO: Scenario = Scenario {
    name: "idempotency",
    about: "clients that send the same idempotency keys at once, alone and in slices",
    needs: &[],
    run: |arena| run(arena).boxed_local(),
};

const CLIENTS: usize = 50;
/// Every fifth client sends another body.
const OTHERS: usize = 5;

async fn run(arena: &mut Arena) -> Result<()> {
    one_key(arena).await?;
    slices(arena).await
}

async fn one_key(arena: &mut Arena) -> Result<()> {
    let rounds = arena.size.pick(10, 100);
    let findings = arena.findings.clone();
    let sent = findings.count("requests with a shared key", Figure::Exactly(rounds * CLIENTS as u64));
    let created = findings.count("runs of these", Figure::Exactly(rounds));
    let conflicts = findings.count("refused: another body", Figure::AtLeast(rounds * (CLIENTS / OTHERS) as u64));
    let mut world = World::new(arena).await?;
    let version = world.version(CHAIN).await?;
    for round in 0..rounds {
        let body = |client: usize| u64::from(client.is_multiple_of(OTHERS));
        let slices = (0..CLIENTS).map(|client| vec![request(version, format!("key-{round}"), body(client))]).collect();
        let mut same: HashSet<(RunId, u64)> = HashSet::new();
        for (client, answer) in send_at_once(&world, slices).await?.into_iter().enumerate() {
            sent.add(1);
            match answer {
                Ok(started) => {
                    created.add(u64::from(started[0].created));
                    same.insert((started[0].id, body(client)));
                }
                Err(Error::Conflict(why)) if why.contains("idempotency key") => conflicts.add(1),
                Err(e) => return Err(anyhow!(e).context("starting a run")),
            }
        }
        if same.len() != 1 {
            findings.violation(format!("I9: key-{round} gave {same:?}: one run for one body was due"));
        }
    }
    let live = world.live().await?;
    if live != rounds {
        findings.violation(format!("I9: {rounds} keys are {live} runs"));
    }
    world.database.violations().await?.iter().for_each(|what| findings.violation(what));
    Ok(())
}

async fn slices(arena: &mut Arena) -> Result<()> {
    const KEYS: usize = 30;
    let slices = arena.size.pick(20, 60);
    let findings = arena.findings.clone();
    let answered = findings.count("slices that share keys", Figure::Exactly(slices));
    let created = findings.count("runs of these slices", Figure::Exactly(KEYS as u64));
    let mut world = World::new(arena).await?;
    let version = world.version(CHAIN).await?;
    let all: Vec<Vec<StartRun>> = (0..slices).map(|_| slice(version, KEYS, &mut arena.dice)).collect();
    // Somebody has inserted one of the keys and not committed: every slice stops there, or at a key that another slice has inserted, with
    // what it has inserted itself. Which of them go on once that one is gone depends on nothing but their order.
    let mut other = PgConnection::connect_with(&world.options()).await?;
    let mut tx = other.begin().await?;
    start_runs(&mut tx, &world.scope, &world.engine.registry().versions, &all[0][KEYS / 2..=KEYS / 2], None).await?;
    let release = async {
        let mut looking = PgConnection::connect_with(&world.options()).await?;
        until_waiting(&mut looking, slices as i64).await?;
        anyhow::Ok(tx.rollback().await?)
    };
    let (answers, released) = tokio::join!(send_at_once(&world, all.clone()), release);
    released?;
    for answer in answers? {
        match answer {
            Ok(started) => {
                answered.add(1);
                created.add(started.iter().filter(|run| run.created).count() as u64);
            }
            Err(error) => findings.violation(format!("I9: a slice failed because of the others: {error}")),
        }
    }
    world.database.violations().await?.iter().for_each(|what| findings.violation(what));
    Ok(())
}

fn request(version: VersionId, key: String, seed: u64) -> StartRun {
    let input = Payload::from(&json!({ "seed": seed }));
    StartRun { version, input, idempotency_key: Some(key), priority: 0, trigger: "torture".into() }
}

fn slice(version: VersionId, keys: usize, dice: &mut Dice) -> Vec<StartRun> {
    let mut slice: Vec<StartRun> = (0..keys).map(|key| request(version, format!("slice-key-{key}"), key as u64)).collect();
    dice.shuffle(&mut slice);
    slice
}

/// Every client over a connection of its own sends its slice, all at once.
async fn send_at_once(world: &World, slices: Vec<Vec<StartRun>>) -> Result<Vec<Result<Vec<StartedRun>, Error>>> {
    let barrier = Arc::new(Barrier::new(slices.len()));
    let mut clients = vec![];
    for slice in slices {
        let mut conn = PgConnection::connect_with(&world.options()).await?;
        let (barrier, scope, versions) = (barrier.clone(), world.scope.clone(), world.engine.registry().versions.clone());
        clients.push(tokio::spawn(async move {
            barrier.wait().await;
            let answer = start_runs(&mut conn, &scope, &versions, &slice, None).await;
            conn.close().await?;
            anyhow::Ok(answer)
        }));
    }
    let mut answers = vec![];
    for client in clients {
        answers.push(client.await??);
    }
    Ok(answers)
}

/// Returns when so many sessions wait for others, or a deadlock has left fewer: then an answer says so.
async fn until_waiting(conn: &mut PgConnection, sessions: i64) -> Result<()> {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let undone = "SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = current_database()";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *conn).await? < sessions {
        if sqlx::query_scalar::<_, bool>(undone).fetch_one(&mut *conn).await? {
            break;
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}
