//! **Promise (I1, I2, I4, I8, I9)**: a connection that breaks at a commit costs nothing, whether the commit came about or not: workers find out
//! by sending their write once more, which the database applies or refuses; a client finds out by sending its request again or by reading.
//!
//! **Guards**: a completion is kept until it is applied or refused (`completer`), token and version refuse a second one, what a commit leased
//! and nobody heard of is put back at once (`put_back_unheard`), renewals are repeated (`heartbeat`), a key is one run (`run_idempotency`),
//! a cancel and a redrive that have happened are told as such.
//!
//! A proxy reads along and knows commits by the statements before them. It cuts a connection when the client has sent one and the server has
//! not heard it, or when the server has answered and the client has not heard that. What became of a client's commit is read in the database,
//! past the proxy.

mod clients;

use crate::{
    arena::Arena,
    findings::{Count, Figure},
    load::Load,
    proxy::{Cuts, Proxy, Side, wire::Act},
    scenario::{Need, Scenario},
    shapes::{MENDED_CHAIN, SHAPES, SLOW, Shape},
    verify::verify,
    world::World,
};
use anyhow::Result;
use clients::Clients;
use futures::FutureExt;
use std::{sync::Arc, time::Duration};

pub const SCENARIO: Scenario = Scenario {
    name: "cuts",
    about: "connections cut before the server hears of a commit, and before the client hears of it",
    needs: &[Need::OwnServer],
    run: |arena| run(arena).boxed_local(),
};

/// Cuts on each side, together 100.
const EACH: [(Act, u64); 8] = [
    (Act::Start, 18),
    (Act::Claim, 22),
    (Act::Complete, 22),
    (Act::Reschedule, 8),
    (Act::Expand, 6),
    (Act::Renew, 6),
    (Act::Cancel, 10),
    (Act::Redrive, 8),
];
/// Commits that only clients make.
const CLIENTS: [Act; 3] = [Act::Start, Act::Cancel, Act::Redrive];

async fn run(arena: &mut Arena) -> Result<()> {
    let times = arena.size.pick(1, 10);
    let each = EACH.map(|(act, n)| (act, n * times));
    let figures = Figures::declare(arena, &each);
    let cuts = Arc::new(Cuts::new(&each, arena.dice.clone()));
    let mut world = World::new(arena).await?;
    let proxy = Proxy::before(&arena.server.url(), Some(cuts.clone())).await?;
    let way = proxy.url(world.database.name());
    world.through(&way);
    world.start(&SHAPES).await?;
    for _ in 0..3 {
        world.add_worker()?;
    }
    let server = world.start_process(world.server(None), None)?;
    let mut clients = Clients::connect(&way, cuts.clone(), &world)?;
    let mix: Vec<Shape> = SHAPES.into_iter().chain([SLOW, MENDED_CHAIN, MENDED_CHAIN]).collect();
    let load = Load { shapes: &mix, live: 24, slice: 6 };
    while cuts.left() > 0 {
        load.top_up(&mut world, &mut arena.dice).await?;
        clients.round(&mut world).await?;
        figures.tell_cuts(&cuts);
        arena.progress(format!("{} cuts to come", cuts.left()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    figures.tell_cuts(&cuts);
    world.all_ended(Duration::from_secs(60)).await?;
    world.redrive_all(Duration::from_secs(20)).await?;
    world.stop_workers().await?;
    server.stop().await?;
    let found = verify(&world).await?;
    figures.runs.set(found.runs as u64);
    figures.refused.set(world.report.refused as u64);
    figures.happened.set(clients.happened);
    figures.not_happened.set(clients.not_happened);
    arena.findings.note(format!("{found:?}; {:?}", world.report));
    Ok(())
}

/// What must have happened.
struct Figures {
    before: Count,
    after: Count,
    acts: Vec<(Act, Count)>,
    happened: Count,
    not_happened: Count,
    refused: Count,
    runs: Count,
}

impl Figures {
    fn declare(arena: &Arena, each: &[(Act, u64)]) -> Self {
        let count = |name: &str, figure| arena.findings.count(name, figure);
        let all: u64 = each.iter().map(|(_, n)| n).sum();
        let of_clients: u64 = each.iter().filter(|(act, _)| CLIENTS.contains(act)).map(|(_, n)| n).sum();
        let completions: u64 = each.iter().filter(|(act, _)| *act == Act::Complete).map(|(_, n)| n).sum();
        Self {
            before: count("cuts before the server heard", Figure::Exactly(all)),
            after: count("cuts after it had answered", Figure::Exactly(all)),
            acts: each.iter().map(|(act, n)| (*act, count(&format!("cuts at {act}"), Figure::Exactly(2 * n)))).collect(),
            // A start that had happened may be cut once more when it is sent again.
            not_happened: count("unknown to a client, had not happened", Figure::AtLeast(of_clients / 2)),
            happened: count("unknown to a client, had happened", Figure::AtLeast(of_clients)),
            // Sent once more after they had been applied.
            refused: count("completions refused", Figure::AtLeast(completions / 2)),
            runs: count("runs", Figure::AtLeast(all)),
        }
    }

    fn tell_cuts(&self, cuts: &Cuts) {
        let made = cuts.made();
        let of_side = |side| made.iter().filter(|cut| cut.side == side).count() as u64;
        self.before.set(of_side(Side::Before));
        self.after.set(of_side(Side::After));
        for (act, count) in &self.acts {
            count.set(made.iter().filter(|cut| cut.act == *act).count() as u64);
        }
    }
}
