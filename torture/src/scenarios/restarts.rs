//! **Promise (I2, I4)**: an immediate restart of PostgreSQL under load loses no run whose start was acknowledged; workers and servers reconnect
//! by themselves, and a completion whose commit was cut off is applied once.
//!
//! **Guards**: a command returns after its commit (`start_runs`), commits are durable (`synchronous_commit`), a completion is kept until it is
//! applied or refused (`completer`), and applying it twice is refused by token and version.

use crate::{
    arena::Arena,
    findings::Figure,
    scenario::{Need, Scenario},
    shapes::{SHAPES, Shape},
    verify::verify,
    world::{BEGINS_WITHIN, World},
};
use anyhow::{Context, Result};
use futures::FutureExt;
use std::time::{Duration, Instant};

pub const SCENARIO: Scenario = Scenario {
    name: "restarts",
    about: "PostgreSQL stopped in immediate mode under load, and started again",
    needs: &[Need::OwnServer],
    run: |arena| run(arena).boxed_local(),
};

async fn run(arena: &mut Arena) -> Result<()> {
    let restarts = arena.size.pick(50, 300);
    let findings = arena.findings.clone();
    let restarted = findings.count("restarts", Figure::Exactly(restarts));
    let cut_off = findings.count("submissions cut off", Figure::AtLeast(restarts / 5));
    let runs = findings.count("runs", Figure::AtLeast(restarts * 4));
    let workers = findings.count("workers that went on to the end", Figure::Exactly(2));
    let mut world = World::new(arena).await?;
    world.start(&SHAPES).await?;
    for _ in 0..2 {
        world.add_worker()?;
    }
    let mut server = world.start_process(world.server(None), None)?;
    // A process whose database is away when it starts ends, for whoever looks after processes to start again; that is not what is tested.
    world.workers_ready().await?;
    server.ready(BEGINS_WITHIN).await?;
    let cluster = arena.server.cluster().context("a cluster of our own")?.clone();
    while restarted.get() < restarts {
        let crash = Instant::now() + Duration::from_millis(arena.dice.between(50, 350));
        let restart = {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(crash.into()).await;
                cluster.crash_and_restart().await
            })
        };
        // Runs are submitted before, during and after the crash, each until it is acknowledged.
        while !restart.is_finished() {
            let shapes: Vec<Shape> = (0..2).map(|_| *arena.dice.pick(&SHAPES)).collect();
            cut_off.add(world.start_until_acknowledged(&shapes, Duration::from_secs(30)).await? as u64);
            tokio::time::sleep(Duration::from_millis(arena.dice.below(100))).await;
        }
        restart.await??;
        restarted.add(1);
        arena.progress(format!("{} of {restarts} restarts", restarted.get()));
    }
    world.all_ended(Duration::from_secs(90)).await?;
    world.redrive_all(Duration::from_secs(20)).await?;
    for worker in std::mem::take(&mut world.workers) {
        let report = worker.stop().await?;
        workers.add(u64::from(report.steps > 0));
        world.report += report;
    }
    server.stop().await?;
    let found = verify(&world).await?;
    runs.set(found.runs as u64);
    findings.note(format!("{found:?}, {:?}", world.report));
    Ok(())
}
