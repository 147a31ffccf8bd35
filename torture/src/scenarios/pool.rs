//! **Promise (I2)**: where others have taken all connections of the server, commands say so at once, nothing that was accepted is lost, and work goes
//! on when there are some again; where a process's own pool is exhausted, requests wait for their turn, for a bounded time.
//!
//! **Guards**: tasks connect anew with pauses that have an end (`Reconnect`); a completion is kept until it is applied (`completer`); the first
//! connection says why it fails (`reach`); the pool's wait has an end.

use crate::{
    arena::Arena,
    command::krowoc,
    dice::Dice,
    findings::{Figure, Stopwatch},
    host::Host,
    load::Load,
    node::Node,
    scenario::{Need, Scenario},
    shapes::{CHAIN, SHAPES},
    verify::verify,
    world::{Key, World},
};
use anyhow::{Context, Result, bail, ensure};
use futures::{FutureExt, future::join_all};
use krowoc_engine::{Engine, Error, commands::start_runs, executor::StepKinds};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};

pub const SCENARIO: Scenario = Scenario {
    name: "pool",
    about: "all connections of the server taken by others, and a process's own pool exhausted",
    needs: &[Need::OwnServer],
    run: |arena| run(arena).boxed_local(),
};

/// What the server has.
const CONNECTIONS: &str = "max_connections=40";
const WORKERS: usize = 2;
/// In each round.
const REFUSED: u64 = 20;
/// Until a start is refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
/// From the moment that connections are free until a step is recorded: the longest pause between tries, and five seconds.
const GOES_ON_WITHIN: Duration = Duration::from_secs(8);

async fn run(arena: &mut Arena) -> Result<()> {
    let (size, server, mut dice) = (arena.size, arena.server.clone(), arena.dice.clone());
    // Its waits take longest, so both go on at once, on servers of their own.
    let beside = arena.inner("own-pool", size, server);
    let (shared, own) = tokio::join!(taken_by_others(arena, &mut dice), own_pool(&beside));
    arena.findings.include("own pool", &beside.findings);
    beside.drop_databases().await?;
    shared.and(own)
}

/// Others hold what there is, and take what becomes free before anybody who pauses between his tries.
struct Others {
    stay: watch::Sender<bool>,
    holding: JoinSet<()>,
    admin: PgConnection,
}

impl Others {
    async fn take_all(node: &Node, database: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(&node.url("postgres"))?.application_name("others");
        let mut admin = PgConnection::connect_with(&options.clone().database(database)).await?;
        let stay = watch::Sender::new(true);
        let mut holding = JoinSet::new();
        for _ in 0..60 {
            let (mut stay, options) = (stay.subscribe(), options.clone());
            holding.spawn(async move {
                let hold = async {
                    loop {
                        match PgConnection::connect_with(&options).await {
                            Ok(_held) => return std::future::pending::<()>().await,
                            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                        }
                    }
                };
                tokio::select! {
                    _ = stay.wait_for(|stay| !stay) => {}
                    () = hold => {}
                }
            });
        }
        // Again and again, as one may have come in between.
        let (until, mut gone) = (Instant::now() + Duration::from_secs(20), 0);
        while gone < 20 {
            ensure!(Instant::now() < until, "others do not get all connections");
            let ended = "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()) AS ended";
            let found: i64 = sqlx::query_scalar(ended).bind(database).fetch_one(&mut admin).await?;
            gone = if found == 0 { gone + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { stay, holding, admin })
    }

    async fn leave(mut self) -> Result<()> {
        self.stay.send_replace(false);
        while self.holding.join_next().await.is_some() {}
        Ok(self.admin.close().await?)
    }
}

async fn taken_by_others(arena: &Arena, dice: &mut Dice) -> Result<()> {
    let rounds = arena.size.pick(4, 40);
    let findings = &arena.findings;
    let taken = findings.count("times that all connections were taken", Figure::Exactly(rounds));
    let refused = findings.count("starts refused: no connection", Figure::AtLeast(rounds * REFUSED));
    let commands = findings.count("commands that said so", Figure::Exactly(rounds));
    let runs = findings.count("runs", Figure::AtLeast(rounds * 10));
    let workers = findings.count("workers that went on to the end", Figure::Exactly(WORKERS as u64));
    let answers = findings.times("until a start was refused", REFUSED_WITHIN);
    let goes_on = findings.times("from free connections until work goes on", GOES_ON_WITHIN);
    let host = Arc::new(Host::beside(arena.server.cluster().context("a cluster of our own")?, "pool").await?);
    let node = Node::create(&host, "few_connections", host.make_folder("few_connections")?, &[], &[CONNECTIONS]).await?;
    let database = arena.bare_database_on(&node.url("postgres")).await?;
    database.migrate().await?;
    let mut world = World::on(arena, database).await?;
    for _ in 0..WORKERS {
        world.add_worker()?;
    }
    let server = world.start_process(world.server(None), None)?;
    let load = Load { shapes: &SHAPES, live: 16, slice: 8 };
    while taken.get() < rounds {
        load.keep_up(&mut world, dice, Duration::from_secs(1)).await?;
        // What is at work when it happens.
        world.start(&SHAPES).await?;
        let mut others = Others::take_all(&node, world.database.name()).await?;
        let (since, before) = (Instant::now(), steps(&mut others.admin).await?);
        refused.add(starts_are_refused(&mut world, &answers).await?);
        commands.add(u64::from(command_is_told(arena, &world).await?));
        // For more than two leases.
        tokio::time::sleep_until((since + world.lease * 5 / 2).into()).await;
        for worker in &mut world.workers {
            ensure!(worker.ended()?.is_none(), "{} has ended: {}", worker.name, worker.last_words());
        }
        others.leave().await?;
        let (free, mut conn) = (Instant::now(), PgConnection::connect_with(&world.options()).await?);
        while steps(&mut conn).await? <= before {
            ensure!(free.elapsed() < GOES_ON_WITHIN * 2, "no step was recorded within {:?}", free.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        goes_on.record(free.elapsed());
        conn.close().await?;
        world.all_ended(Duration::from_secs(60)).await?;
        taken.add(1);
        arena.progress(format!("{} of {rounds} rounds", taken.get()));
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

/// How many steps have been recorded.
async fn steps(conn: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM krowoc.step_result").fetch_one(conn).await?)
}

/// Each by a client that has no connection yet.
async fn starts_are_refused(world: &mut World, answers: &Stopwatch) -> Result<u64> {
    for _ in 0..REFUSED {
        let began = Instant::now();
        match PgConnection::connect_with(&world.options()).await.map_err(Error::from) {
            Err(error) => {
                let said = error.to_string();
                ensure!(said.contains("no more connections") && said.contains("too many clients"), "a start was refused with: {said}");
            }
            Ok(_) => bail!("there was a connection though others had all of them"),
        }
        answers.record(began.elapsed());
    }
    Ok(REFUSED)
}

/// Does a command say what is the matter and what to do?
async fn command_is_told(arena: &Arena, world: &World) -> Result<bool> {
    let url = world.options().to_url_lossy();
    let said = krowoc(&arena.executable, url.as_str(), &["runs", "list"], Duration::from_secs(30)).await?;
    let is_told = !said.success && said.err.contains("takes no more connections") && said.err.contains("max_connections");
    if !is_told {
        arena.findings.violation(format!("a command without a connection: {said:?}"));
    }
    Ok(is_told)
}

/// Many requests at once over few connections, and some while none of them becomes free.
async fn own_pool(arena: &Arena) -> Result<()> {
    const POOL: u32 = 2;
    /// What the pool's wait is, and a little.
    const GIVES_UP_WITHIN: Duration = Duration::from_secs(35);
    let (requests, findings) = (arena.size.pick(200, 2000), &arena.findings);
    let mut world = World::new(arena).await?;
    let started = findings.count("starts at once over two connections", Figure::Exactly(requests));
    let given_up = findings.count("starts given up: the pool was exhausted", Figure::Exactly(8));
    let gives_up = findings.times("until the pool's wait ended", GIVES_UP_WITHIN);
    let engine = Engine::connect(world.options(), StepKinds::new(), POOL).await?;
    let mut slices = vec![];
    for _ in 0..requests {
        slices.push(world.request(CHAIN, Key::Own).await?);
    }
    let scope = world.scope.clone();
    let answers = join_all(slices.iter().map(|(request, _)| engine.start_runs(&scope, std::slice::from_ref(request), None))).await;
    for (answer, (_, accepted)) in answers.into_iter().zip(slices) {
        world.runs.insert(answer.context("a start of many at once")?[0].id, accepted);
        started.add(1);
    }
    let mut held = vec![];
    for _ in 0..POOL {
        held.push(engine.pool().acquire().await?);
    }
    let mut late = vec![];
    for _ in 0..8 {
        late.push(world.request(CHAIN, Key::Own).await?);
    }
    let began = Instant::now();
    let refused = join_all(late.iter().map(|(request, _)| engine.start_runs(&scope, std::slice::from_ref(request), None))).await;
    for answer in refused {
        ensure!(matches!(answer, Err(Error::Store(sqlx::Error::PoolTimedOut))), "an exhausted pool answered with {answer:?}");
        gives_up.record(began.elapsed());
        given_up.add(1);
    }
    drop(held);
    for (request, accepted) in late {
        let mut conn = engine.pool().acquire().await?;
        let again = start_runs(&mut conn, &scope, &engine.registry().versions, &[request], None).await?;
        world.runs.insert(again[0].id, accepted);
    }
    world.add_worker()?;
    world.all_ended(Duration::from_secs(60)).await?;
    world.stop_workers().await?;
    verify(&world).await?;
    engine.pool().close().await;
    Ok(())
}
