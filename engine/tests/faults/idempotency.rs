//! **Guarantee (I9)**: one idempotency key, whoever sends it and how often, is one run; with a different body it is a conflict.
//!
//! **Guards**: the unique index `run_idempotency` with `ON CONFLICT … DO NOTHING` (`start_runs_v1`), the request's hash beside the key, the
//! order in which a slice inserts its keys (`in_key_order`).

use crate::{
    workflows::SHAPES,
    world::{Dice, World},
};
use krowoc_engine::{
    Error, Payload, RunId,
    commands::{StartRun, StartedRun, start_runs},
};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use std::{collections::HashSet, sync::Arc};
use tokio::sync::Barrier;

const CLIENTS: usize = 50;
const ROUNDS: usize = 10;

/// Every client over a connection of its own sends its slice, all at once.
async fn send_at_once(world: &World, slices: Vec<Vec<StartRun>>) -> Vec<Result<Vec<StartedRun>, Error>> {
    let barrier = Arc::new(Barrier::new(slices.len()));
    let mut clients = vec![];
    for slice in slices {
        let mut conn = PgConnection::connect_with(&world.options()).await.expect("connected");
        let (barrier, scope, versions) = (barrier.clone(), world.scope.clone(), world.engine.registry().versions.clone());
        clients.push(tokio::spawn(async move {
            barrier.wait().await;
            let answer = start_runs(&mut conn, &scope, &versions, &slice, None).await;
            conn.close().await.expect("closed");
            answer
        }));
    }
    let mut answers = vec![];
    for client in clients {
        answers.push(client.await.expect("a client"));
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_from_fifty_clients_is_one_run() {
    let mut world = World::new("key").await;
    let version = world.version(SHAPES[0]).await;
    let request = |key: String, seed: u64| StartRun {
        version,
        input: Payload::from(&json!({ "seed": seed })),
        idempotency_key: Some(key),
        priority: 0,
        trigger: "test".into(),
    };
    let mut conflicts = 0;
    for round in 0..ROUNDS {
        // Every fifth client sends another body.
        let body = |client: usize| u64::from(client.is_multiple_of(5));
        let slices = (0..CLIENTS).map(|client| vec![request(format!("key-{round}"), body(client))]).collect();
        let answers = send_at_once(&world, slices).await;
        let mut created = vec![];
        let mut same: HashSet<(RunId, u64)> = HashSet::new();
        for (client, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(started) => {
                    created.extend(started[0].created.then_some(started[0].id));
                    same.insert((started[0].id, body(client)));
                }
                Err(Error::Conflict(why)) => {
                    assert!(why.contains("idempotency key"), "{why}");
                    conflicts += 1;
                }
                Err(e) => panic!("client {client}: {e}"),
            }
        }
        assert_eq!((created.len(), same.len()), (1, 1), "one run was created and everyone with its body got it: {created:?} {same:?}");
    }
    assert!(conflicts >= ROUNDS * CLIENTS / 5, "everyone with the other body was refused: {conflicts}");
    assert_eq!(world.live().await, ROUNDS as i64);
    assert_eq!(world.database.violations().await.expect("checked"), Vec::<String>::new());
    world.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slices_that_share_keys_in_any_order_do_not_stand_in_each_others_way() {
    const KEYS: usize = 30;
    let mut dice = Dice::new("idempotency::slices");
    let mut world = World::new("slices").await;
    let version = world.version(SHAPES[0]).await;
    let mut slices = vec![];
    for _ in 0..20 {
        let mut slice: Vec<_> = (0..KEYS)
            .map(|key| StartRun {
                version,
                input: Payload::from(&json!({ "seed": key })),
                idempotency_key: Some(format!("key-{key}")),
                priority: 0,
                trigger: "test".into(),
            })
            .collect();
        for at in (1..KEYS).rev() {
            slice.swap(at, dice.below(at as u64 + 1) as usize);
        }
        slices.push(slice);
    }
    // Somebody has inserted one of the keys and not committed: every slice stops there, or at a key that another slice has inserted, with
    // what it has inserted itself. Which of them go on once that one is gone depends on nothing but their order.
    let mut other = PgConnection::connect_with(&world.options()).await.expect("connected");
    let mut tx = other.begin().await.expect("a transaction");
    start_runs(&mut tx, &world.scope, &world.engine.registry().versions, &slices[0][KEYS / 2..=KEYS / 2], None).await.expect("started");
    let (clients, mut created) = (slices.len(), 0);
    let release = async {
        let mut looking = PgConnection::connect_with(&world.options()).await.expect("connected");
        until_waiting(&mut looking, clients as i64).await;
        tx.rollback().await.expect("rolled back");
    };
    let (answers, ()) = tokio::join!(send_at_once(&world, slices.clone()), release);
    for answer in answers {
        created += answer.expect("no deadlock").iter().filter(|s| s.created).count();
    }
    assert_eq!((created, world.live().await), (KEYS, KEYS as i64));
    assert_eq!(world.database.violations().await.expect("checked"), Vec::<String>::new());
    world.done().await;
}

/// Returns when so many sessions wait for others, or a deadlock has left fewer: then an answer says so.
async fn until_waiting(conn: &mut PgConnection, sessions: i64) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let undone = "SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = current_database()";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *conn).await.expect("an answer") < sessions {
        if sqlx::query_scalar::<_, bool>(undone).fetch_one(&mut *conn).await.expect("an answer") {
            return;
        }
        tokio::task::yield_now().await;
    }
}
