//! **Promise (I1, I2, I4)**: a `kill -9` of a worker, a server or a client at any moment loses no accepted run, ends no step twice, starts no
//! step whose end is recorded, and every step sees exactly the recorded outputs of its predecessors. What a dead worker held is taken over
//! within its lease and five seconds.
//!
//! **Guards**: expired leases are taken over (`take_expired`), results, successors and the run's end are one transaction (`complete_v1`),
//! guarded by the scope's version and the lane's token; what a claimed step reads and the process does not know is loaded before it starts
//! (`Inputs::complete`).
//!
//! Processes die at every point of [`krowoc_engine::fail_point`], which they reach by themselves, and at random moments.

mod jobs;
mod plans;
mod slot;

use crate::{
    arena::Arena,
    findings::{Count, Figure, Findings},
    load::Load,
    recovery::{Seen, Watch},
    retire,
    scenario::Scenario,
    shapes::{self, MENDED_CHAIN, SLOW, Shape},
    verify::{Found, verify},
    world::World,
};
use anyhow::Result;
use futures::FutureExt;
use jobs::Jobs;
use krowoc_engine::fail_point::Point;
use plans::{Kind, Plans};
use slot::{KEEP_RUNS, Look, Slot};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

pub const SCENARIO: Scenario = Scenario {
    name: "kills",
    about: "SIGKILL for workers, servers and clients: before and after every commit, and at random",
    needs: &[],
    run: |arena| run(arena).boxed_local(),
};

const SLOTS: [Kind; 5] = [Kind::Worker, Kind::Worker, Kind::Worker, Kind::Server, Kind::Client];

/// After so many processes in vain a point counts as one that none comes to.
const MISSES: u32 = 4;

async fn run(arena: &mut Arena) -> Result<()> {
    // Kills at each point, and at random moments.
    let (each, random) = arena.size.pick((4, 88), (50, 1600));
    let mut plans = Plans::new(each, random, &mut arena.dice);
    let figures = Figures::declare(arena, plans.left(), random, each);
    let mut world = World::new(arena).await?;
    world.concurrency = 24;
    let recovery = arena.findings.times(format!("recovery (lease {} ms)", world.lease.as_millis()), world.lease + Duration::from_secs(5));
    let (watch, findings) = (Watch::begin(&world, recovery), arena.findings.clone());
    let mut deaths = Deaths { watch, points: BTreeSet::new(), misses: BTreeMap::new(), findings, figures };
    // One of each at least, and one worker that nobody harms: somebody must be there to take over.
    world.start(&shapes::SHAPES).await?;
    world.add_worker()?;
    let slots = kill(arena, &mut world, &mut plans, &mut deaths).await?;
    let Deaths { watch, figures, .. } = deaths;
    world.all_ended(Duration::from_secs(60)).await?;
    world.redrive_all(Duration::from_secs(30)).await?;
    let seen = watch.end(world.lease + Duration::from_secs(30)).await?;
    for slot in slots {
        world.report += slot.process.stop().await?;
    }
    world.stop_workers().await?;
    prune_what_is_left(&mut world).await?;
    figures.tell(&world, seen, &verify(&world).await?);
    Ok(())
}

/// Kills until every plan has been carried out; gives those who live.
async fn kill(arena: &mut Arena, world: &mut World, plans: &mut Plans, deaths: &mut Deaths) -> Result<Vec<Slot>> {
    let (mut jobs, mut slots, total) = (Jobs::default(), vec![], plans.left());
    for kind in SLOTS {
        slots.extend(Slot::fill(kind, world, plans, &mut jobs, &mut arena.dice).await?);
    }
    let mix: Vec<Shape> = shapes::SHAPES.into_iter().chain([MENDED_CHAIN, SLOW, shapes::FAN]).collect();
    let load = Load { shapes: &mix, live: 16, slice: 6 };
    while plans.left() > 0 || slots.iter().any(Slot::is_doomed) {
        load.top_up(world, &mut arena.dice).await?;
        let mut next = vec![];
        for mut slot in slots {
            if slot.look(plans, deaths)? == Look::Lives {
                next.push(slot);
                continue;
            }
            jobs.take_back(&slot.process, world)?;
            next.extend(Slot::fill(slot.kind, world, plans, &mut jobs, &mut arena.dice).await?);
        }
        slots = next;
        arena.progress(format!("{} of {total} kills", deaths.figures.kills.get()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What a client of the last had to do when there was nothing left to die of.
    for slot in slots.extract_if(.., |slot| slot.kind == Kind::Client) {
        let mut client = slot.process;
        client.end(Duration::from_secs(30)).await?;
        jobs.take_back(&client, world)?;
    }
    jobs.finish(world).await?;
    Ok(slots)
}

/// A last server removes what is to be removed; nothing of it may be left then.
async fn prune_what_is_left(world: &mut World) -> Result<()> {
    let server = world.start_process(world.server(Some(KEEP_RUNS)), None)?;
    retire::until_gone(world, Duration::from_secs(30)).await?;
    server.stop().await?;
    for remains in retire::remains(world).await? {
        world.findings().violation(remains);
    }
    Ok(())
}

/// The dead so far.
struct Deaths {
    watch: Watch,
    points: BTreeSet<Point>,
    misses: BTreeMap<Point, u32>,
    findings: Findings,
    figures: Figures,
}

impl Deaths {
    /// It came to its point.
    fn at_point(&mut self, slot: &Slot, point: Point) {
        self.figures.kills.add(1);
        self.figures.at_points.add(1);
        self.points.insert(point);
        self.figures.points.set(self.points.len() as u64);
        self.mourn(slot, Instant::now());
    }

    fn at_random(&mut self, slot: &Slot, at: Instant) {
        self.figures.kills.add(1);
        self.mourn(slot, at);
    }

    /// A process never came to its point. May another try?
    fn missed(&mut self, point: Point) -> bool {
        let misses = self.misses.entry(point).or_default();
        *misses += 1;
        if *misses == MISSES {
            self.findings.violation(format!("no process comes to the fail point {point}"));
        }
        *misses < MISSES
    }

    /// It died of nothing that counts.
    fn in_vain(&mut self, slot: &Slot, at: Instant) {
        self.mourn(slot, at);
    }

    fn mourn(&mut self, slot: &Slot, at: Instant) {
        // The others hold no leases in their names.
        if slot.kind == Kind::Worker {
            self.watch.died(&slot.process.name, at);
        }
    }
}

/// What must have happened.
struct Figures {
    kills: Count,
    at_points: Count,
    points: Count,
    hit: Count,
    runs: Count,
    lost: Count,
    inputs: Count,
    repeated: Count,
    retired: Count,
}

impl Figures {
    fn declare(arena: &Arena, total: u64, random: u64, each: u64) -> Self {
        let count = |name: &str, figure| arena.findings.count(name, figure);
        Self {
            kills: count("kills", Figure::Exactly(total)),
            at_points: count("kills at fail points", Figure::Exactly(total - random)),
            points: count("fail points reached", Figure::Exactly(Point::all().count() as u64)),
            hit: count("kills that hit leases", Figure::AtLeast(total / 4)),
            runs: count("runs", Figure::AtLeast(total / 2)),
            lost: count("attempts lost", Figure::AtLeast(total / 5)),
            inputs: count("inputs compared", Figure::AtLeast(total * 3)),
            repeated: count("effects repeated", Figure::AtLeast(each)),
            retired: count("runs removed by retention", Figure::AtLeast(each)),
        }
    }

    fn tell(&self, world: &World, seen: Seen, found: &Found) {
        self.hit.set(seen.held);
        self.runs.set(found.runs as u64);
        self.lost.set(found.lost as u64);
        self.inputs.set(found.inputs as u64);
        self.repeated.set(found.repeated as u64);
        self.retired.set(world.retired.len() as u64);
        let most = self.kills.get() * u64::from(world.concurrency);
        for (what, n) in [("attempts were lost", found.lost), ("effects were repeated", found.repeated)] {
            if n as u64 > most {
                world.findings().violation(format!("I1: {n} {what}, and {most} at most were in flight at the kills"));
            }
        }
        world.findings().note(format!("{found:?}; {:?}; {seen:?}", world.report));
    }
}
