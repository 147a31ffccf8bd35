//! **Promise (I2, I4)**: nothing that was acknowledged is lost when the primary dies and a synchronous replica takes its place; workers and servers
//! find their way by themselves, and work goes on within seconds.
//!
//! **Guards**: a command returns after its commit, and nothing of the engine weakens `synchronous_commit`; tasks connect anew after an error
//! (`Reconnect`); a completion is kept until it is applied or refused (`completer`).
//!
//! Every commit waits until the replica has it on its disk. The primary is stopped in immediate mode under load, the replica promoted, the way
//! led there, and a replica of the survivor made.

use crate::{
    arena::Arena,
    database::Database,
    dice::Dice,
    findings::{Count, Figure, Stopwatch},
    host::Host,
    node::Node,
    proxy::Proxy,
    scenario::{Need, Scenario},
    shapes::{SHAPES, Shape},
    verify::verify,
    world::World,
};
use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use sqlx::{Connection, PgConnection};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub const SCENARIO: Scenario = Scenario {
    name: "failover",
    about: "the primary killed under load, its synchronous replica promoted",
    needs: &[Need::OwnServer],
    run: |arena| run(arena).boxed_local(),
};

/// From the primary's death until somebody's next step is recorded, the promotion included.
const GOES_ON_WITHIN: Duration = Duration::from_secs(15);

/// The pair of servers, and the way to the one that leads.
struct Pair {
    proxy: Proxy,
    primary: Node,
    replica: Node,
    database: String,
    numbers: u64,
}

async fn run(arena: &mut Arena) -> Result<()> {
    let failovers = arena.size.pick(5, 30);
    let findings = arena.findings.clone();
    let done = findings.count("failovers, in sync until then", Figure::Exactly(failovers));
    let cut_off = findings.count("submissions cut off", Figure::AtLeast(failovers));
    let runs = findings.count("runs", Figure::AtLeast(failovers * 8));
    let workers = findings.count("workers that went on to the end", Figure::Exactly(2));
    let goes_on = findings.times("from a death until work goes on", GOES_ON_WITHIN);
    let host = Arc::new(Host::beside(arena.server.cluster().context("a cluster of our own")?, "failover").await?);
    let (mut pair, database) = Pair::new(&host, arena).await?;
    let mut world = World::on(arena, database).await?;
    world.start(&SHAPES).await?;
    for _ in 0..2 {
        world.add_worker()?;
    }
    let server = world.start_process(world.server(None), None)?;
    while done.get() < failovers {
        let after = Duration::from_millis(arena.dice.between(300, 900));
        let failover = tokio::spawn(pair.fail_over(after, goes_on.clone()));
        pair = keep_submitting(&mut world, &mut arena.dice, failover, &cut_off).await?;
        done.add(1);
        arena.progress(format!("{} of {failovers} failovers", done.get()));
    }
    world.all_ended(Duration::from_secs(60)).await?;
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

/// Submits runs until the failover is over, each until it is acknowledged.
async fn keep_submitting(
    world: &mut World,
    dice: &mut Dice,
    failover: tokio::task::JoinHandle<Result<Pair>>,
    cut_off: &Count,
) -> Result<Pair> {
    while !failover.is_finished() {
        let shapes: Vec<Shape> = (0..2).map(|_| *dice.pick(&SHAPES)).collect();
        cut_off.add(world.start_until_acknowledged(&shapes, Duration::from_secs(60)).await? as u64);
        tokio::time::sleep(Duration::from_millis(dice.below(200))).await;
    }
    failover.await?
}

impl Pair {
    async fn new(host: &Arc<Host>, arena: &Arena) -> Result<(Self, Database)> {
        let primary = Node::create(host, "node_1", host.make_folder("node_1")?, &[], &[]).await?;
        let proxy = Proxy::before(&primary.url("postgres"), None).await?;
        let database = arena.bare_database_on(&proxy.url("postgres")).await?;
        database.migrate().await?;
        let replica = Node::replica_of(&primary, "node_2").await?;
        primary.commit_with(&replica, Duration::from_secs(30)).await?;
        let name = database.name().to_owned();
        Ok((Self { proxy, primary, replica, database: name, numbers: 2 }, database))
    }

    /// Gives the pair of the survivor and its replica.
    async fn fail_over(self, after: Duration, goes_on: Stopwatch) -> Result<Self> {
        let Self { proxy, mut primary, replica, database, numbers } = self;
        // The random moment is what is being tested, not a wait for something.
        tokio::time::sleep(after).await;
        ensure!(primary.is_in_sync().await?, "commits do not wait for {}", replica.name);
        let died = primary.kill().await?;
        replica.promote().await?;
        let mut conn = PgConnection::connect(&replica.url(&database)).await?;
        let recorded = steps(&mut conn).await?;
        proxy.lead_to(&replica.url("postgres"))?;
        while steps(&mut conn).await? <= recorded {
            ensure!(died.elapsed() < GOES_ON_WITHIN * 2, "no step was recorded within {:?} of the primary's death", died.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        goes_on.record(Instant::now() - died);
        conn.close().await?;
        primary.destroy().await?;
        let (primary, numbers) = (replica, numbers + 1);
        let replica = Node::replica_of(&primary, &format!("node_{numbers}")).await?;
        primary.commit_with(&replica, Duration::from_secs(30)).await?;
        Ok(Self { proxy, primary, replica, database, numbers })
    }
}

/// How many steps have been recorded.
async fn steps(conn: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM krowoc.step_result").fetch_one(conn).await?)
}
