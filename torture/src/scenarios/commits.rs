//! **Promise (I1, I4)**: an effect whose commit a `kill -9` prevents is carried out again, one whose commit came first is not, and nothing is
//! recorded by halves.
//!
//! **Guards**: as in `kills`; results, successors and the run's end are one transaction (`complete_v1`), guarded by the scope's version.
//!
//! A worker is killed within the milliseconds after a step has said its last word to the world outside, in which its commit is.

use crate::{arena::Arena, findings::Figure, load::Load, scenario::Scenario, shapes::SHAPES, verify::verify, world::World};
use anyhow::Result;
use futures::FutureExt;
use std::time::Duration;

pub const SCENARIO: Scenario = Scenario {
    name: "commits",
    about: "SIGKILL for workers between an effect and its commit",
    needs: &[],
    run: |arena| run(arena).boxed_local(),
};

const WORKERS: usize = 3;
/// The end has been written, its commit is somewhere in these microseconds.
const WITHIN_US: u64 = 3000;

async fn run(arena: &mut Arena) -> Result<()> {
    let kills = arena.size.pick(60, 600);
    let findings = arena.findings.clone();
    let killed = findings.count("kills", Figure::Exactly(kills));
    let runs = findings.count("runs", Figure::AtLeast(kills / 2));
    let lost = findings.count("attempts lost", Figure::AtLeast(kills / 4));
    // Effects that were complete and whose commit the kill prevented: proof that it came in between.
    let repeated = findings.count("effects repeated", Figure::AtLeast(kills / 12));
    let mut world = World::new(arena).await?;
    let most = kills * u64::from(world.concurrency);
    let not_in_flight = findings.count("effects repeated beyond those in flight", Figure::Exactly(0));
    world.start(&SHAPES).await?;
    for _ in 0..WORKERS {
        world.add_worker()?;
    }
    let load = Load { shapes: &SHAPES, live: 12, slice: 6 };
    while killed.get() < kills {
        // Room for some progress between the kills.
        tokio::time::sleep(Duration::from_millis(arena.dice.below(200))).await;
        let pid = next_end(&mut world, &load, arena).await?;
        let Some(at) = world.workers.iter().position(|worker| worker.id() == pid) else { continue };
        // The random moment is what is being tested, not a wait for something; a timer of the runtime is too coarse for it.
        std::thread::sleep(Duration::from_micros(arena.dice.below(WITHIN_US)));
        world.replace_worker(at)?;
        killed.add(1);
        arena.progress(format!("{} of {kills} kills", killed.get()));
    }
    world.all_ended(Duration::from_secs(60)).await?;
    world.redrive_all(Duration::from_secs(20)).await?;
    world.stop_workers().await?;
    let found = verify(&world).await?;
    runs.set(found.runs as u64);
    lost.set(found.lost as u64);
    repeated.set(found.repeated as u64);
    not_in_flight.set((found.repeated as u64).saturating_sub(most));
    findings.note(format!("{found:?}"));
    Ok(())
}

/// Waits for the next end that a step writes, and gives its process.
async fn next_end(world: &mut World, load: &Load<'_>, arena: &mut Arena) -> Result<u32> {
    world.ledger.latest_end()?;
    loop {
        load.top_up(world, &mut arena.dice).await?;
        for _ in 0..50 {
            if let Some(pid) = world.ledger.latest_end()? {
                return Ok(pid);
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}
