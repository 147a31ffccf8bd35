//! A database with processes around it, and the runs that it has accepted.

use crate::{
    arena::Arena,
    database::Database,
    findings::Findings,
    ledger::{Ledger, LedgerKind},
    process::{FailPoint, Orders, Process, Report, Role},
    shapes::{SLEEPY, Shape, UNTIL_REDRIVEN},
};
use anyhow::{Result, anyhow, bail, ensure};
use krowoc_engine::{
    Engine, Error, Payload, RunId, Scope, VersionId,
    commands::{Redrive, StartRun, redrive},
    definition::{Problem, PromptSource, PromptVersion, Source, compile},
    executor::StepKinds,
};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// How long a process may take to begin.
pub const BEGINS_WITHIN: Duration = Duration::from_secs(30);

/// A run that was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// What it runs.
    pub shape: Shape,
    /// `input.seed`
    pub seed: u64,
    /// May it end before its shape's end?
    pub cancel: Cancel,
}

/// What is known of a run's cancellation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancel {
    /// Nobody asked for it, or it was refused.
    None,
    /// It was asked for, and there is no answer yet.
    Asked,
    /// It was acknowledged.
    Acknowledged,
}

/// A world. Dropping it kills its processes; its database goes with the arena.
pub struct World {
    /// Where everything is.
    pub database: Database,
    /// For what the scenario does itself.
    pub engine: Engine,
    /// As whom.
    pub scope: Scope,
    /// What the steps did.
    pub ledger: Ledger,
    /// Every run that was accepted, and that is to be there in the end.
    pub runs: HashMap<RunId, Accepted>,
    /// Runs that were given to retention: there with everything, or not at all.
    pub retired: HashSet<RunId>,
    /// Workers that [`World::add_worker`] made.
    pub workers: Vec<Process>,
    /// Of workers and servers made from now on.
    pub lease: Duration,
    /// Of workers made from now on.
    pub concurrency: u32,
    /// What workers said that stopped in good order, together.
    pub report: Report,
    /// Variables for processes made from now on.
    pub environment: Vec<(&'static str, String)>,
    findings: Findings,
    folder: PathBuf,
    executable: PathBuf,
    url: String,
    listen: Option<String>,
    versions: HashMap<&'static str, VersionId>,
    seeds: u64,
    processes: usize,
}

impl World {
    /// On the arena's server.
    pub async fn new(arena: &Arena) -> Result<Self> {
        Self::on(arena, arena.database().await?).await
    }

    /// On a database that the arena has made.
    pub async fn on(arena: &Arena, database: Database) -> Result<Self> {
        std::fs::create_dir_all(&arena.folder)?;
        let ledger = Ledger::at(arena.folder.join("ledger.jsonl"))?;
        let kinds = StepKinds::new().with(LedgerKind::open(ledger.path())?);
        let options = database.options().application_name("krowoc torture");
        let url = database.options().to_url_lossy().to_string();
        // Notifications pass no pooler.
        let listen = database.direct_options().map(|options| options.to_url_lossy().to_string());
        Ok(Self {
            engine: Engine::connect(options, kinds, 4).await?,
            scope: Scope::local("torture"),
            database,
            ledger,
            runs: HashMap::new(),
            retired: HashSet::new(),
            workers: vec![],
            lease: Duration::from_secs(1),
            concurrency: 8,
            report: Report::default(),
            environment: vec![],
            findings: arena.findings.clone(),
            folder: arena.folder.clone(),
            executable: arena.executable.clone(),
            url,
            listen,
            versions: HashMap::new(),
            seeds: 0,
            processes: 0,
        })
    }

    /// Sends processes to another place for the same database, such as a proxy.
    pub fn through(&mut self, url: impl Into<String>) {
        self.url = url.into();
    }

    /// How to connect to the database.
    pub fn options(&self) -> PgConnectOptions {
        self.database.options()
    }

    /// A process more.
    pub fn start_process(&mut self, role: Role, dies: Option<FailPoint>) -> Result<Process> {
        self.processes += 1;
        let what = match role {
            Role::Worker { .. } => "worker",
            Role::Server { .. } => "server",
            Role::Client { .. } => "client",
        };
        let name = format!("{what}-{}", self.processes);
        let joint = if self.url.contains('?') { '&' } else { '?' };
        let orders = Orders {
            url: format!("{}{joint}application_name={name}", self.url),
            listen: self.listen.clone(),
            ledger: self.ledger.path().to_owned(),
            report: self.folder.join(format!("{name}.json")),
            name,
            role,
            dies,
        };
        let environment: Vec<(&str, &str)> = self.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Process::start(&self.executable, &self.folder, &orders, &environment)
    }

    /// What a worker of this world is.
    pub fn worker(&self) -> Role {
        Role::Worker { concurrency: self.concurrency, lease: self.lease }
    }

    /// What a server of this world is.
    pub fn server(&self, keep_runs: Option<Duration>) -> Role {
        Role::Server { reap_every: self.lease / 3, keep_runs }
    }

    /// A worker more in `workers`.
    pub fn add_worker(&mut self) -> Result<()> {
        let worker = self.start_process(self.worker(), None)?;
        self.workers.push(worker);
        Ok(())
    }

    /// Waits until all workers have begun to work.
    pub async fn workers_ready(&mut self) -> Result<()> {
        for worker in &mut self.workers {
            worker.ready(BEGINS_WITHIN).await?;
        }
        Ok(())
    }

    /// Kills a worker and starts another.
    pub fn replace_worker(&mut self, at: usize) -> Result<()> {
        self.workers.swap_remove(at).kill()?;
        self.add_worker()
    }

    /// Stops all workers in good order.
    pub async fn stop_workers(&mut self) -> Result<()> {
        for worker in std::mem::take(&mut self.workers) {
            self.report += worker.stop().await?;
        }
        Ok(())
    }

    /// The version of a shape, registered once.
    pub async fn version(&mut self, shape: Shape) -> Result<VersionId> {
        if let Some(version) = self.versions.get(shape.text) {
            return Ok(*version);
        }
        let said = |problems: Vec<Problem>| anyhow!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        let source = Source::parse("torture.yaml", shape.text).map_err(said)?;
        let compiled = compile(&source, &self.engine.registry().kinds, &NoPrompts).map_err(said)?;
        let version = self.engine.register(&self.scope, &compiled).await?.id;
        self.versions.insert(shape.text, version);
        Ok(version)
    }

    /// A request for a run of a shape, with a key of its own where it may have to be repeated.
    pub async fn request(&mut self, shape: Shape, key: Key) -> Result<(StartRun, Accepted)> {
        self.request_with(shape, key, json!({})).await
    }

    /// The same with more in its input, an object.
    pub async fn request_with(&mut self, shape: Shape, key: Key, mut input: Value) -> Result<(StartRun, Accepted)> {
        let version = self.version(shape).await?;
        self.seeds += 1;
        let idempotency_key = (key == Key::Own).then(|| format!("key-{}", self.seeds));
        input["seed"] = json!(self.seeds);
        let input = Payload::from(&input);
        let accepted = Accepted { shape, seed: self.seeds, cancel: Cancel::None };
        Ok((StartRun { version, input, idempotency_key, priority: 0, trigger: "torture".into() }, accepted))
    }

    /// Starts a run of each shape in one slice.
    pub async fn start(&mut self, shapes: &[Shape]) -> Result<Vec<RunId>> {
        let (requests, accepted) = self.requests(shapes, Key::None).await?;
        self.submit(&requests, accepted).await
    }

    /// Starts the runs of these requests in one slice.
    pub async fn submit(&mut self, requests: &[StartRun], accepted: Vec<Accepted>) -> Result<Vec<RunId>> {
        let started = self.engine.start_runs(&self.scope, requests, None).await?;
        let ids: Vec<RunId> = started.iter().map(|s| s.id).collect();
        self.runs.extend(ids.iter().copied().zip(accepted));
        Ok(ids)
    }

    /// The same with a key each, again and again until it is acknowledged, as a careful client does. Gives how often it was not.
    pub async fn start_until_acknowledged(&mut self, shapes: &[Shape], limit: Duration) -> Result<usize> {
        let (requests, accepted) = self.requests(shapes, Key::Own).await?;
        let (started, mut cut_off) = (Instant::now(), 0);
        loop {
            match self.engine.start_runs(&self.scope, &requests, None).await {
                Ok(report) => {
                    self.runs.extend(report.iter().map(|r| r.id).zip(accepted));
                    return Ok(cut_off);
                }
                Err(Error::Store(e)) if started.elapsed() < limit => {
                    tracing::debug!(error = %e, "not acknowledged");
                    cut_off += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(e) => return Err(anyhow!(e).context("runs are not accepted")),
            }
        }
    }

    async fn requests(&mut self, shapes: &[Shape], key: Key) -> Result<(Vec<StartRun>, Vec<Accepted>)> {
        let (mut requests, mut accepted) = (vec![], vec![]);
        for shape in shapes {
            let (request, run) = self.request(*shape, key).await?;
            requests.push(request);
            accepted.push(run);
        }
        Ok((requests, accepted))
    }

    /// How many runs have not ended.
    pub async fn live(&self) -> Result<u64> {
        let live: i64 =
            sqlx::query_scalar("SELECT count(*) FROM krowoc.run WHERE finished_at IS NULL").fetch_one(self.engine.pool()).await?;
        Ok(live.unsigned_abs())
    }

    /// Waits until every run has ended. One that does not is a violation, and an error: there is nothing to go on with.
    pub async fn all_ended(&self, limit: Duration) -> Result<()> {
        let started = Instant::now();
        while self.live().await? > 0 {
            if started.elapsed() > limit {
                let stuck: Vec<String> = sqlx::query_scalar(
                    "SELECT format('I2: run %s has not ended; its lanes: %s', r.id, (SELECT string_agg(format('scope %s lane %s step %s %s attempt %s worker %s until %s',
                       l.scope, l.lane, l.step, l.state, l.attempt, l.worker, l.lease_until), ', ') FROM krowoc.live_lane l WHERE l.run_id = r.id))
                     FROM krowoc.run r WHERE finished_at IS NULL LIMIT 5",
                )
                .fetch_all(self.engine.pool())
                .await?;
                stuck.iter().for_each(|run| self.findings.violation(run));
                bail!("{} runs have not ended after {limit:?}", self.live().await?);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Steps that were lost four times have failed by rule, as one that brings its worker down should. Here the scenario has killed it, so they
    /// are redriven until all runs have ended as they would have; so is what fails until somebody redrives it. Gives how many there were.
    pub async fn redrive_all(&self, limit: Duration) -> Result<usize> {
        let mut redriven = 0;
        for _ in 0..8 {
            let letters = self.letters_to_redrive().await?.concat();
            if letters.is_empty() {
                return Ok(redriven);
            }
            redriven += letters.len();
            let mut conn = self.engine.pool().acquire().await?;
            for done in redrive(&mut conn, &self.engine.registry().versions, &self.scope, &letters).await? {
                // A map's letter is mended with the first of its items'.
                ensure!(!matches!(done.outcome, Redrive::Refused(_)), "a redrive was refused: {done:?}");
            }
            drop(conn);
            self.all_ended(limit).await?;
        }
        bail!("dead letters stay open though nothing is harmed any more");
    }

    /// Open letters of steps that were lost, and of runs that fail until they are redriven; those of a run together.
    pub async fn letters_to_redrive(&self) -> Result<Vec<Vec<Uuid>>> {
        let rows: Vec<(Uuid, Vec<Uuid>, bool)> = sqlx::query_as(
            "SELECT d.run_id, array_agg(d.id), bool_or(d.class = 'lost') FROM krowoc.dead_letter d JOIN krowoc.run r ON r.id = d.run_id
             WHERE d.state = 'open' AND r.status = 'failed' GROUP BY d.run_id",
        )
        .fetch_all(self.engine.pool())
        .await?;
        let wanted = |run: &Uuid, lost: bool| match self.runs.get(&RunId(*run)).map(|accepted| accepted.shape) {
            // Who cancels it has come too late, and nobody would again.
            Some(SLEEPY) => false,
            shape => lost || shape.is_some_and(|shape| UNTIL_REDRIVEN.contains(&shape)),
        };
        Ok(rows.into_iter().filter(|(run, _, lost)| wanted(run, *lost)).map(|(_, letters, _)| letters).collect())
    }

    /// The arena's findings.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }
}

/// Does a request for a run have a key?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// No.
    None,
    /// One of its own.
    Own,
}

struct NoPrompts;

impl PromptSource for NoPrompts {
    fn resolve(&self, reference: &str) -> Result<PromptVersion, Problem> {
        Err(Problem::new("unknown_prompt", "", format!("no prompt `{reference}`: torture has none")))
    }
}
