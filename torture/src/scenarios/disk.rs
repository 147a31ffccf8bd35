//! **Promise (I2)**: on a full disk a start is refused and says why, what was accepted before is kept, and when there is room again everything goes
//! on by itself; so it is when the disk of PostgreSQL's log is full, of which PostgreSQL dies.
//!
//! **Guards**: a full disk is no fault of a step's (`is_permanent`), so that a completion is kept until it is applied; `Reconnect`; what the
//! errors say (`Error::Store`).
//!
//! Data and log are on small disks in memory, which a file takes up while work goes on.

use crate::{
    arena::Arena,
    command::krowoc,
    dice::Dice,
    disk::Disk,
    findings::{Count, Figure},
    host::Host,
    load::Load,
    node::Node,
    scenario::{Need, Scenario},
    shapes::SHAPES,
    verify::verify,
    world::{Accepted, Key, World},
};
use anyhow::{Context, Result, anyhow, ensure};
use futures::FutureExt;
use krowoc_engine::{
    Error,
    commands::{StartRun, start_runs},
};
use serde_json::json;
use sqlx::{ConnectOptions, Connection, PgConnection};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub const SCENARIO: Scenario = Scenario {
    name: "disk",
    about: "PostgreSQL's disk full under load, that of its data and that of its log",
    needs: &[Need::OwnServer, Need::Root, Need::Mount],
    run: |arena| run(arena).boxed_local(),
};

const DATA_MIB: u32 = 256;
const LOG_MIB: u32 = 96;
/// Small segments, so that one more is soon needed.
const SEGMENTS: &str = "--wal-segsize=1";
const SETTINGS: [&str; 2] = ["max_wal_size=16MB", "min_wal_size=5MB"];
const WORKERS: usize = 2;
const DISK_FULL: &str = "53100";
/// What the command line starts.
const WORKFLOW: &str = "krowoc: v1\nname: disk\nsteps:\n  a: { wait: { for: 1ms } }\n";

/// The server, and both of its disks.
struct Ground {
    node: Node,
    data: Disk,
    log: Disk,
}

struct Figures {
    data_full: Count,
    log_full: Count,
    refused: Count,
    commands: Count,
    cut_off: Count,
    panics: Count,
}

async fn run(arena: &mut Arena) -> Result<()> {
    let times = arena.size.pick(2, 20);
    let findings = arena.findings.clone();
    let count = |name: &str, figure| findings.count(name, figure);
    let figures = Figures {
        data_full: count("times that the data's disk was full", Figure::Exactly(times)),
        refused: count("starts refused: disk full", Figure::AtLeast(times * 20)),
        commands: count("commands that said so", Figure::Exactly(times)),
        log_full: count("times that the log's disk was full", Figure::Exactly(times)),
        panics: count("deaths of PostgreSQL by that", Figure::AtLeast(times)),
        cut_off: count("starts refused: no server", Figure::AtLeast(times * 5)),
    };
    let runs = count("runs", Figure::AtLeast(times * 20));
    let workers = count("workers that went on to the end", Figure::Exactly(WORKERS as u64));
    let mut ground = Ground::new(arena).await?;
    let database = arena.bare_database_on(&ground.node.url("postgres")).await?;
    database.migrate().await?;
    let mut world = World::on(arena, database).await?;
    // Known before there is no room for them.
    world.start(&SHAPES).await?;
    for _ in 0..WORKERS {
        world.add_worker()?;
    }
    let server = world.start_process(world.server(None), None)?;
    let load = Load { shapes: &SHAPES, live: 16, slice: 6 };
    for time in 1..=times {
        load.keep_up(&mut world, &mut arena.dice, Duration::from_secs(1)).await?;
        data_full(arena, &mut world, &ground, &figures).await?;
        world.all_ended(Duration::from_secs(60)).await?;
        load.keep_up(&mut world, &mut arena.dice, Duration::from_secs(1)).await?;
        log_full(arena, &mut world, &mut ground, &figures).await?;
        world.all_ended(Duration::from_secs(60)).await?;
        arena.progress(format!("{time} of {times} times"));
    }
    world.redrive_all(Duration::from_secs(20)).await?;
    for worker in std::mem::take(&mut world.workers) {
        let report = worker.stop().await?;
        workers.add(u64::from(report.steps > 0));
        world.report += report;
    }
    server.stop().await?;
    let found = verify(&world).await?;
    runs.set(found.runs as u64);
    findings.note(format!("{found:?}; {:?}", world.report));
    Ok(())
}

/// Starts are refused, to a client and to a command; workers hold what they have meanwhile.
async fn data_full(arena: &mut Arena, world: &mut World, ground: &Ground, figures: &Figures) -> Result<()> {
    let mut submissions = Submissions::default();
    ground.data.fill()?;
    let (full, mut refused) = (Instant::now(), 0);
    // For more than two leases.
    while refused < 20 || full.elapsed() < world.lease * 5 / 2 {
        ensure!(full.elapsed() < Duration::from_secs(30), "only {refused} starts were refused on a full disk");
        if let Some(error) = submissions.one_more(world, &mut arena.dice).await? {
            let is_clear = code(&error).as_deref() == Some(DISK_FULL) && error.to_string().contains("disk is full");
            ensure!(is_clear, "a start on a full disk was refused with: {error}");
            refused += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    figures.refused.add(refused);
    figures.commands.add(u64::from(command_is_told(arena, world).await?));
    for worker in &mut world.workers {
        ensure!(worker.ended()?.is_none(), "{} has ended: {}", worker.name, worker.last_words());
    }
    ground.data.free()?;
    submissions.send_again(world).await?;
    figures.data_full.add(1);
    Ok(())
}

/// PostgreSQL dies of it, and comes back when there is room; where it has given up, its operator starts it.
async fn log_full(arena: &mut Arena, world: &mut World, ground: &mut Ground, figures: &Figures) -> Result<()> {
    let mut submissions = Submissions::default();
    let before = ground.node.deaths()?;
    ground.log.fill()?;
    let (full, mut refused) = (Instant::now(), 0);
    while ground.node.deaths()? == before || refused < 5 || full.elapsed() < world.lease * 2 {
        ensure!(full.elapsed() < Duration::from_secs(60), "PostgreSQL does not die of a full log: {}", ground.node.last_words());
        // Uses up the segments that are there.
        if let Ok(mut conn) = ground.node.connect().await {
            let _ = sqlx::query("SELECT pg_logical_emit_message(false, 'torture', repeat('x', 1000000))").execute(&mut conn).await;
        }
        refused += u64::from(submissions.one_more(world, &mut arena.dice).await?.is_some());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    figures.cut_off.add(refused);
    figures.panics.add(ground.node.deaths()? - before);
    ground.log.free()?;
    ground.node.start().await?;
    submissions.send_again(world).await?;
    figures.log_full.add(1);
    Ok(())
}

/// What was not acknowledged, to be sent again.
#[derive(Default)]
struct Submissions(Vec<(Vec<StartRun>, Vec<Accepted>)>);

impl Submissions {
    /// A slice, over a connection of its own; gives why it was not acknowledged.
    async fn one_more(&mut self, world: &mut World, dice: &mut Dice) -> Result<Option<Error>> {
        let mut slice = (vec![], vec![]);
        for _ in 0..8 {
            let (request, accepted) = world.request(*dice.pick(&SHAPES), Key::Own).await?;
            slice.0.push(request);
            slice.1.push(accepted);
        }
        let error = send(world, &slice).await?;
        if error.is_some() {
            self.0.push(slice);
        }
        Ok(error)
    }

    /// Whether it had been recorded or not: there is room, and each has its key.
    async fn send_again(self, world: &mut World) -> Result<()> {
        for slice in self.0 {
            if let Some(error) = send(world, &slice).await? {
                return Err(anyhow!(error).context("a start is refused though there is room"));
            }
        }
        Ok(())
    }
}

async fn send(world: &mut World, (requests, accepted): &(Vec<StartRun>, Vec<Accepted>)) -> Result<Option<Error>> {
    let versions = world.engine.registry().versions.clone();
    let sent = async {
        let mut conn = PgConnection::connect_with(&world.options()).await?;
        let started = start_runs(&mut conn, &world.scope, &versions, requests, None).await?;
        conn.close().await?;
        Ok(started)
    };
    match sent.await {
        Ok(started) => {
            world.runs.extend(started.iter().map(|run| run.id).zip(accepted.iter().copied()));
            Ok(None)
        }
        Err(error @ Error::Store(_)) => Ok(Some(error)),
        Err(error) => Err(error.into()),
    }
}

fn code(error: &Error) -> Option<String> {
    match error {
        Error::Store(error) => Some(error.as_database_error()?.code()?.into_owned()),
        _ => None,
    }
}

/// Does a command that starts a run fail, and say why and what to do? Its input is too large for any room that pages still have.
async fn command_is_told(arena: &Arena, world: &World) -> Result<bool> {
    let (workflow, input) = (arena.folder.join("disk.yaml"), arena.folder.join("input.json"));
    std::fs::write(&workflow, WORKFLOW)?;
    let noise: String = (0..20_000).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
    std::fs::write(&input, serde_json::to_vec(&json!({ "noise": noise }))?)?;
    let (workflow, input) = (workflow.display().to_string(), format!("@{}", input.display()));
    let arguments = ["run", &workflow, "--detach", "--input", &input];
    let said = krowoc(&arena.executable, world.options().to_url_lossy().as_str(), &arguments, Duration::from_secs(30)).await?;
    let is_told = !said.success && said.err.contains("disk is full") && said.err.contains("Free space");
    if !is_told {
        world.findings().violation(format!("a start on a full disk: {said:?}"));
    }
    Ok(is_told)
}

impl Ground {
    async fn new(arena: &Arena) -> Result<Self> {
        let host = Arc::new(Host::beside(arena.server.cluster().context("a cluster of our own")?, "disk").await?);
        let data = Disk::mount(&host, "data", DATA_MIB).await?;
        let log = Disk::mount(&host, "log", LOG_MIB).await?;
        let log_folder = format!("--waldir={}", log.folder().display());
        let node = Node::create(&host, "small_disks", data.folder(), &[SEGMENTS, &log_folder], &SETTINGS).await?;
        Ok(Self { node, data, log })
    }
}
