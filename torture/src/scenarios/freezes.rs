//! **Promise (I1, I3)**: a worker that was frozen beyond its leases and goes on is refused: what it brings is not recorded, its heartbeats
//! renew nothing, and what it had taken but not begun it does not begin.
//!
//! **Guards**: the token that every write names (`complete_v1`, `reschedule_v1`, `renew_v1`, `lock_held`), the scope's version, and the worker's
//! own look at the age of a lease before it starts a step (`Flights::may_start`).
//!
//! A freeze counts if others have taken something over meanwhile. When the worker goes on, the step has sometimes been carried out by another,
//! and sometimes another is at it: then only the token tells.

use crate::{
    arena::Arena,
    dice::Dice,
    findings::Figure,
    holdings::Holdings,
    load::Load,
    scenario::Scenario,
    shapes::{SHAPES, SLOW, Shape},
    verify::verify,
    world::World,
};
use anyhow::Result;
use futures::FutureExt;
use sqlx::PgPool;
use std::time::{Duration, Instant};

pub const SCENARIO: Scenario = Scenario {
    name: "freezes",
    about: "SIGSTOP for workers until others have taken over, then SIGCONT",
    needs: &[],
    run: |arena| run(arena).boxed_local(),
};

const WORKERS: usize = 4;
/// Frozen at once; the others take over.
const FROZEN: usize = 2;

async fn run(arena: &mut Arena) -> Result<()> {
    let freezes = arena.size.pick(50, 500);
    let findings = arena.findings.clone();
    let froze = findings.count("freezes", Figure::AtLeast(freezes));
    let another = findings.count("thawed while another was at it", Figure::AtLeast(freezes / 5));
    let refused = findings.count("completions refused", Figure::AtLeast(freezes));
    let lost = findings.count("attempts lost", Figure::AtLeast(freezes));
    let repeated = findings.count("effects repeated", Figure::AtLeast(freezes / 3));
    let mut world = World::new(arena).await?;
    world.start(&SHAPES).await?;
    for _ in 0..WORKERS {
        world.add_worker()?;
    }
    let mix: Vec<Shape> = SHAPES.into_iter().chain([SLOW; 3]).collect();
    let load = Load { shapes: &mix, live: 12, slice: 5 };
    while froze.get() < freezes {
        let pause = Duration::from_millis(arena.dice.between(50, 250));
        load.keep_up(&mut world, &mut arena.dice, pause).await?;
        let (frozen, at_it) = freeze(&mut world, &load, &mut arena.dice).await?;
        froze.add(frozen);
        another.add(at_it);
        arena.progress(format!("{} of {freezes} freezes", froze.get()));
    }
    world.all_ended(Duration::from_secs(60)).await?;
    world.redrive_all(Duration::from_secs(20)).await?;
    world.stop_workers().await?;
    let found = verify(&world).await?;
    refused.set(world.report.refused as u64);
    lost.set(found.lost as u64);
    repeated.set(found.repeated as u64);
    findings.note(format!("{found:?}"));
    Ok(())
}

/// Freezes some workers together until something of each has been taken over. Gives of how many that was so, and from how many of them
/// another had something in its hands when they went on.
async fn freeze(world: &mut World, load: &Load<'_>, dice: &mut Dice) -> Result<(u64, u64)> {
    dice.shuffle(&mut world.workers);
    let pool = world.engine.pool().clone();
    let mut held = vec![];
    for worker in &world.workers[..FROZEN] {
        worker.freeze()?;
        held.push(Holdings::of(&pool, &worker.name).await?);
    }
    let give_up = Instant::now() + world.lease * 3;
    let mut over = [false; FROZEN];
    while over.contains(&false) && Instant::now() < give_up {
        load.top_up(world, dice).await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
        for (over, held) in over.iter_mut().zip(&held) {
            *over = held.is_empty() || held.left(&pool).await? < held.len();
        }
    }
    let at_it = at_it(&pool, &held, dice.below(2) == 0).await?;
    for worker in &world.workers[..FROZEN] {
        worker.thaw()?;
    }
    // One that held nothing was not frozen at anything.
    let hits = over.iter().zip(&held).filter(|(over, held)| **over && !held.is_empty()).count();
    Ok((hits as u64, at_it))
}

/// From how many another has something in its hands, awaited for a moment if so wished: the items of a map may have to wait for room.
async fn at_it(pool: &PgPool, held: &[Holdings], patient: bool) -> Result<u64> {
    let give_up = Instant::now() + Duration::from_millis(if patient { 500 } else { 0 });
    loop {
        let mut at_it = 0;
        for held in held {
            at_it += u64::from(held.taken_up(pool).await? > 0);
        }
        if at_it > 0 || Instant::now() >= give_up {
            return Ok(at_it);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
