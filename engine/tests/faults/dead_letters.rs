//! **Guarantee (I6)**: whatever is exhausted is a dead letter; when many redrive it at once, it is redriven once, and no step that had
//! succeeded is carried out again. (What a redrive opens and leaves alone, shape by shape, is tested beside `commands::redrive`.)
//!
//! **Guards**: the run's lock, under which the failed result is taken back (`take_back`) and a step that is live already is let be (`is_live`).

use crate::{ledger::Event, verify::verify, workflows::MENDED, world::World};
use krowoc_engine::commands::{Redrive, redrive};
use sqlx::{Connection, PgConnection};
use std::{collections::HashMap, time::Duration};

const RUNS: usize = 20;
const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_redrive_at_once_and_it_happens_once() {
    let mut world = World::new("dead-letters").await;
    world.start(&[MENDED; RUNS]).await;
    for _ in 0..2 {
        world.add_worker();
    }
    world.all_ended(Duration::from_secs(30)).await;
    let letters: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT id FROM krowoc.dead_letter WHERE state = 'open' AND attempts = 2")
        .fetch_all(world.engine.pool())
        .await
        .expect("letters");
    // One step and two of five items of each run.
    assert_eq!(letters.len(), 3 * RUNS);
    let succeeded = ends(&world);
    let mut clients = vec![];
    for _ in 0..CLIENTS {
        let mut conn = PgConnection::connect_with(&world.options()).await.expect("connected");
        let (versions, scope, letters) = (world.engine.registry().versions.clone(), world.scope.clone(), letters.clone());
        clients.push(tokio::spawn(async move { redrive(&mut conn, &versions, &scope, &letters).await.expect("redriven") }));
    }
    let mut redriven: HashMap<uuid::Uuid, usize> = HashMap::new();
    for client in clients {
        for done in client.await.expect("a client") {
            match done.outcome {
                Redrive::Redriven => *redriven.entry(done.letter).or_default() += 1,
                Redrive::AlreadyRedriven => {}
                // The run has succeeded already: there is nothing left to redrive.
                Redrive::Refused(krowoc_engine::Error::Conflict(_)) => {}
                Redrive::Refused(e) => panic!("{e}"),
            }
        }
    }
    assert_eq!(redriven.len(), letters.len());
    assert!(redriven.values().all(|n| *n == 1), "{redriven:?}");
    world.all_ended(Duration::from_secs(30)).await;
    world.stop_workers();
    let found = verify(&world).await;
    println!("dead_letters: {found:?}");
    assert_eq!(found.repeated, 0, "{found:?}");
    let after = ends(&world);
    assert!(
        succeeded.len() >= RUNS * 4 && succeeded.iter().all(|(step, n)| after.get(step) == Some(n)),
        "a step that had succeeded ran again"
    );
    world.done().await;
}

/// How often each step came to an output.
fn ends(world: &World) -> HashMap<(krowoc_engine::RunId, String), usize> {
    let mut ends = HashMap::new();
    for entry in world.ledger.entries().0.into_iter().filter(|e| e.event == Event::End) {
        *ends.entry((entry.run, entry.path)).or_default() += 1;
    }
    ends
}
