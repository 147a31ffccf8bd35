//! **Guarantee (I1, I3)**: a worker that was frozen beyond its leases and goes on is refused: what it brings is not recorded, its heartbeats
//! renew nothing, and what it had taken but not begun it does not begin.
//!
//! **Guards**: the token that every write names (`complete_v1`, `reschedule_v1`, `renew_v1`, `lock_held`), the scope's
//! version, and the worker's own look at the age of a lease before it starts a step (`Shared::may_start`).

use crate::{
    verify::verify,
    workflows::{SHAPES, SLOW},
    world::{Dice, World},
};
use std::time::{Duration, Instant};

const FREEZES: usize = 14;

async fn lost(world: &World) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM krowoc.attempt WHERE status = 'lost'").fetch_one(world.engine.pool()).await.expect("counted")
}

async fn top_up(world: &mut World, dice: &mut Dice) {
    if world.live().await < 10 {
        let slice: Vec<_> = (0..5).map(|_| SHAPES[dice.below(SHAPES.len() as u64) as usize]).collect();
        world.start(&slice).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_thawed_worker_brings_is_refused() {
    let mut dice = Dice::new("frozen");
    let mut world = World::new("frozen").await;
    world.start(&SHAPES).await;
    for _ in 0..3 {
        world.add_worker();
    }
    let deadline = Instant::now() + Duration::from_secs(100);
    let mut froze = 0;
    while froze < FREEZES {
        assert!(Instant::now() < deadline, "only {froze} freezes took anything from the frozen worker");
        let until = Instant::now() + Duration::from_millis(100 + dice.below(300));
        while Instant::now() < until {
            top_up(&mut world, &mut dice).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let before = lost(&world).await;
        let at = dice.below(3) as usize;
        world.workers[at].freeze();
        // Frozen until others have taken over what it held; if it held nothing, that was no freeze.
        let give_up = Instant::now() + world.lease * 3;
        while lost(&world).await == before && Instant::now() < give_up {
            top_up(&mut world, &mut dice).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        froze += usize::from(lost(&world).await > before);
        // Sometimes others have carried it out by now, sometimes they are at it.
        tokio::time::sleep(Duration::from_millis(dice.below(100))).await;
        world.workers[at].thaw();
    }
    world.all_ended(Duration::from_secs(60)).await;
    let given_up = world.redrive_lost(Duration::from_secs(20)).await;
    world.stop_workers();
    let found = verify(&world).await;
    let refused: usize = world.reports.iter().map(|r| r.refused).sum();
    println!("frozen: {refused} refused, {given_up} lost four times; {found:?}");
    assert!(refused >= FREEZES, "too little was refused: {refused}, {:?}", world.reports);
    assert!(found.repeated >= 5, "no frozen worker ended a step that another had taken over: {found:?}");
    world.done().await;
}

/// The moment at which only the token tells: another has the step in its hands and has recorded nothing yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_is_carrying_out_is_not_ended_by_a_thawed_worker() {
    const HITS: usize = 6;
    let mut dice = Dice::new("frozen::another");
    let mut world = World::new("frozen-another").await;
    for _ in 0..2 {
        world.add_worker();
    }
    let deadline = Instant::now() + Duration::from_secs(90);
    let mut hits = 0;
    while hits < HITS {
        assert!(Instant::now() < deadline, "only {hits} freezes left something to another");
        world.start(&[SLOW; 2]).await;
        // In the middle of the items, whose 400 ms have long passed when the worker goes on.
        tokio::time::sleep(Duration::from_millis(50 + dice.below(300))).await;
        let at = dice.below(2) as usize;
        world.workers[at].freeze();
        let give_up = Instant::now() + world.lease * 3;
        loop {
            let taken_over: i64 =
                sqlx::query_scalar("SELECT count(*) FROM krowoc.lane WHERE state = 'leased' AND attempt > 1 AND losses > 0")
                    .fetch_one(world.engine.pool())
                    .await
                    .expect("counted");
            hits += usize::from(taken_over > 0);
            if taken_over > 0 || Instant::now() > give_up {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.workers[at].thaw();
        world.all_ended(Duration::from_secs(20)).await;
    }
    let given_up = world.redrive_lost(Duration::from_secs(20)).await;
    world.stop_workers();
    let found = verify(&world).await;
    let refused: usize = world.reports.iter().map(|r| r.refused).sum();
    println!("frozen::another: {refused} refused, {given_up} lost four times; {found:?}");
    assert!(refused >= HITS && found.lost >= HITS, "{refused} refused; {found:?}");
    world.done().await;
}
