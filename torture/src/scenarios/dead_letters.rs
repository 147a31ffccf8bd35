//! **Promise (I6)**: whatever is exhausted is a dead letter; when many redrive it at once, it is redriven once, and no step that had succeeded is
//! carried out again. (What a redrive opens and leaves alone, shape by shape, is tested beside `commands::redrive`.)
//!
//! **Guards**: the run's lock, under which the failed result is taken back (`take_back`) and a step that is live already is let be (`is_live`).

use crate::{arena::Arena, findings::Figure, ledger::Event, scenario::Scenario, shapes::MENDED, verify::verify, world::World};
use anyhow::{Result, anyhow};
use futures::FutureExt;
use krowoc_engine::{
    Error, RunId,
    commands::{Redrive, redrive},
};
use sqlx::{Connection, PgConnection};
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

pub const SCENARIO: Scenario =
    Scenario { name: "dead-letters", about: "dead letters that many redrive at once", needs: &[], run: |arena| run(arena).boxed_local() };

/// Callers at once.
const CLIENTS: usize = 8;
/// Of a run: one step, and two of five items.
const LETTERS: u64 = 3;

async fn run(arena: &mut Arena) -> Result<()> {
    let runs = arena.size.pick(20, 400);
    let findings = arena.findings.clone();
    let letters = findings.count("dead letters", Figure::Exactly(runs * LETTERS));
    let redriven = findings.count("letters redriven", Figure::Exactly(runs * LETTERS));
    let twice = findings.count("letters redriven twice", Figure::Exactly(0));
    let kept = findings.count("steps that had succeeded", Figure::AtLeast(runs * 4));
    let again = findings.count("of these, carried out again", Figure::Exactly(0));
    let mut world = World::new(arena).await?;
    world.start(&vec![MENDED; runs as usize]).await?;
    for _ in 0..2 {
        world.add_worker()?;
    }
    world.all_ended(Duration::from_secs(60)).await?;
    let open: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM krowoc.dead_letter WHERE state = 'open' AND attempts = 2")
        .fetch_all(world.engine.pool())
        .await?;
    letters.set(open.len() as u64);
    let succeeded = ends(&world)?;
    let times = redrive_at_once(&world, &open).await?;
    redriven.set(times.len() as u64);
    twice.set(times.values().filter(|times| **times > 1).count() as u64);
    world.all_ended(Duration::from_secs(60)).await?;
    world.stop_workers().await?;
    let found = verify(&world).await?;
    let after = ends(&world)?;
    kept.set(succeeded.len() as u64);
    again.set(succeeded.iter().filter(|(step, n)| after.get(step) != Some(n)).count() as u64 + found.repeated as u64);
    findings.note(format!("{found:?}"));
    Ok(())
}

/// How often each letter was redriven.
async fn redrive_at_once(world: &World, letters: &[Uuid]) -> Result<HashMap<Uuid, usize>> {
    let mut clients = vec![];
    for _ in 0..CLIENTS {
        let mut conn = PgConnection::connect_with(&world.options()).await?;
        let (versions, scope, letters) = (world.engine.registry().versions.clone(), world.scope.clone(), letters.to_vec());
        clients.push(tokio::spawn(async move { redrive(&mut conn, &versions, &scope, &letters).await }));
    }
    let mut redriven: HashMap<Uuid, usize> = HashMap::new();
    for client in clients {
        for done in client.await?? {
            match done.outcome {
                Redrive::Redriven => *redriven.entry(done.letter).or_default() += 1,
                Redrive::AlreadyRedriven => {}
                // The run has succeeded already: there is nothing left to redrive.
                Redrive::Refused(Error::Conflict(_)) => {}
                Redrive::Refused(e) => return Err(anyhow!(e).context("a redrive was refused")),
            }
        }
    }
    Ok(redriven)
}

/// How often each step came to an output.
fn ends(world: &World) -> Result<HashMap<(RunId, String), usize>> {
    let mut ends = HashMap::new();
    for entry in world.ledger.entries()?.0.into_iter().filter(|e| e.event == Event::End) {
        *ends.entry((entry.run, entry.path)).or_default() += 1;
    }
    Ok(ends)
}
