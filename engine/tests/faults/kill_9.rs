//! **Guarantee (I1, I2, I4)**: a `kill -9` of a worker at any moment loses no accepted run, ends no step twice, starts no step whose end is
//! recorded, and every step sees exactly the recorded outputs of its predecessors.
//!
//! **Guards**: expired leases are taken over (`take_expired`), results, successors and the run's end are one transaction (`complete_v1`),
//! guarded by the scope's version and the lane's token; what a claimed step reads and the process does not know is loaded before it starts
//! (`Inputs::complete`).

use crate::{
    verify::verify,
    workflows::SHAPES,
    world::{Dice, World},
};
use std::time::{Duration, Instant};

const WORKERS: usize = 3;
/// Runs that are kept going while workers are killed.
const LIVE: i64 = 12;

async fn top_up(world: &mut World, dice: &mut Dice) {
    if world.live().await < LIVE {
        let slice: Vec<_> = (0..6).map(|_| SHAPES[dice.below(SHAPES.len() as u64) as usize]).collect();
        world.start(&slice).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_random_moments() {
    const KILLS: usize = 100;
    let mut dice = Dice::new("kill_9::at_random_moments");
    let mut world = World::new("kill-random").await;
    // One of each shape at least.
    world.start(&SHAPES).await;
    for _ in 0..WORKERS {
        world.add_worker();
    }
    for _ in 0..KILLS {
        let until = Instant::now() + Duration::from_millis(50 + dice.below(500));
        while Instant::now() < until {
            top_up(&mut world, &mut dice).await;
            tokio::time::sleep(Duration::from_millis(dice.below(20))).await;
        }
        world.replace_worker(dice.below(WORKERS as u64) as usize);
    }
    world.all_ended(Duration::from_secs(60)).await;
    let given_up = world.redrive_lost(Duration::from_secs(20)).await;
    world.stop_workers();
    let found = verify(&world).await;
    println!("kill_9::at_random_moments: {given_up} lost four times; {found:?}");
    assert!(found.runs >= 100, "too few runs to prove anything: {found:?}");
    assert!(found.lost >= 20, "the kills hit nothing: {found:?}");
    assert!(found.inputs >= 500, "{found:?}");
    assert!(found.lost <= KILLS * world.concurrency, "more attempts were lost than can have been in flight: {found:?}");
    assert!(found.torn <= KILLS, "{found:?}");
    world.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn around_the_completing_commit() {
    const KILLS: usize = 60;
    let mut dice = Dice::new("kill_9::around_the_completing_commit");
    let mut world = World::new("kill-commit").await;
    world.start(&SHAPES).await;
    for _ in 0..WORKERS {
        world.add_worker();
    }
    let (mut killed, deadline) = (0, Instant::now() + Duration::from_secs(100));
    while killed < KILLS {
        assert!(Instant::now() < deadline, "only {killed} kills: nothing ends any more");
        // Room for some progress between the kills.
        tokio::time::sleep(Duration::from_millis(dice.below(200))).await;
        top_up(&mut world, &mut dice).await;
        world.ledger.latest_end();
        let pid = loop {
            match world.ledger.latest_end() {
                Some(pid) => break Some(pid),
                None if world.live().await == 0 || Instant::now() > deadline => break None,
                None => tokio::time::sleep(Duration::from_micros(200)).await,
            }
        };
        let Some(at) = world.workers.iter().position(|w| Some(w.id()) == pid) else { continue };
        // The end has been written, its commit is somewhere in these milliseconds.
        std::thread::sleep(Duration::from_micros(dice.below(3000)));
        world.replace_worker(at);
        killed += 1;
    }
    world.all_ended(Duration::from_secs(60)).await;
    let given_up = world.redrive_lost(Duration::from_secs(20)).await;
    world.stop_workers();
    let found = verify(&world).await;
    println!("kill_9::around_the_completing_commit: {given_up} lost four times; {found:?}");
    assert!(found.runs >= 30 && found.lost >= KILLS / 4, "{found:?}");
    // Effects that were complete and whose commit the kill prevented: proof that it came in between.
    assert!(found.repeated >= 5, "no kill came between an effect and its commit: {found:?}");
    assert!(found.repeated <= KILLS * world.concurrency, "{found:?}");
    world.done().await;
}
