//! **Guarantee (I2, I4)**: an immediate restart of PostgreSQL under load loses no run whose start was acknowledged; workers reconnect by
//! themselves, and a completion whose commit was cut off is applied once.
//!
//! **Guards**: a command returns after its commit (`start_runs`), commits are durable (`synchronous_commit`), a completion is kept until it is
//! applied or refused (`completer`), and applying it twice is refused by token and version.

use crate::{
    verify::verify,
    workflows::{SHAPES, Shape},
    world::{Dice, World},
};
use krowoc_postgres::{Durability, Local, Purpose, testing};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

const RESTARTS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_survives_the_database() {
    let mut dice = Dice::new("restart");
    let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-postgres-{}", uuid::Uuid::new_v4().simple()));
    let config = krowoc_postgres::LocalConfig { purpose: Purpose::Keep, ..testing::config(&home, Durability::Durable) };
    let joined = config.clone();
    let mut server = tokio::task::spawn_blocking(move || Local::join_blocking(&joined)).await.expect("joined").expect("a server");
    let mut world = World::on("restart", &server.url(krowoc_postgres::DATABASE)).await;
    world.start(&SHAPES).await;
    for _ in 0..2 {
        world.add_worker();
    }
    let mut cut_off = 0;
    for _ in 0..RESTARTS {
        let crash = Instant::now() + Duration::from_millis(600 + dice.below(900));
        let restart = {
            let config = config.clone();
            tokio::task::spawn_blocking(move || {
                std::thread::sleep(crash.saturating_duration_since(Instant::now()));
                server.crash_and_restart(&config).expect("restarted");
                server
            })
        };
        // Runs are submitted before, during and after the crash, each until it is acknowledged.
        while !restart.is_finished() {
            let shapes: Vec<Shape> = (0..2).map(|_| SHAPES[dice.below(SHAPES.len() as u64) as usize]).collect();
            cut_off += world.start_until_acknowledged(&shapes, Duration::from_secs(30)).await;
            tokio::time::sleep(Duration::from_millis(dice.below(40))).await;
        }
        server = restart.await.expect("the restarting thread");
    }
    world.all_ended(Duration::from_secs(90)).await;
    let given_up = world.redrive_lost(Duration::from_secs(20)).await;
    world.stop_workers();
    let found = verify(&world).await;
    println!("restart: {cut_off} submissions cut off, {given_up} lost four times; {found:?}, {:?}", world.reports);
    assert!(found.runs >= 60, "too little load: {found:?}");
    assert!(cut_off >= 1, "no restart came in the way of a submission");
    assert!(world.reports.iter().all(|r| r.steps > 0), "{:?}", world.reports);
    world.done().await;
    tokio::task::spawn_blocking(move || server.leave_blocking()).await.expect("left").expect("stopped");
    std::fs::remove_dir_all(&home).expect("removed");
}
