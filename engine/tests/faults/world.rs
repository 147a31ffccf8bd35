//! A database of a test's own with worker processes around it, and the runs that it has accepted.

use crate::{
    ledger::{Ledger, LedgerKind},
    process::{Orders, Process, Report},
    workflows::Shape,
};
use krowoc_engine::{
    Engine, Error, Payload, RunId, Scope, VersionId,
    commands::{Redrive, StartRun, redrive},
    executor::StepKinds,
    testing::{TestDatabase, workflow},
};
use serde_json::json;
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Pseudo-random numbers from a seed that is printed (splitmix64).
pub struct Dice(u64);

impl Dice {
    /// Prints its seed.
    pub fn new(test: &str) -> Self {
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        println!("{test}: seed {seed}");
        Self(seed)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

/// A run that was accepted.
#[derive(Clone, Copy)]
pub struct Accepted {
    pub shape: Shape,
    pub seed: u64,
}

pub struct World {
    pub database: TestDatabase,
    pub engine: Engine,
    pub scope: Scope,
    pub ledger: Ledger,
    pub runs: HashMap<RunId, Accepted>,
    pub workers: Vec<Process>,
    pub lease: Duration,
    pub concurrency: usize,
    /// Reports of workers that have stopped in good order.
    pub reports: Vec<Report>,
    folder: PathBuf,
    versions: HashMap<&'static str, VersionId>,
    seeds: u64,
    processes: usize,
}

impl World {
    /// On the durable server that all tests of faults share.
    pub async fn new(test: &str) -> Self {
        Self::on(test, &krowoc_postgres::testing::cluster_durable().expect("a durable server")).await
    }

    /// On a server.
    pub async fn on(test: &str, url: &str) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("error").try_init();
        let database = TestDatabase::create(url).await.expect("a database");
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{test}-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let ledger = Ledger::at(folder.join("ledger.jsonl"));
        let engine = database.engine(StepKinds::new().with(LedgerKind::open(ledger.path()))).await.expect("an engine");
        Self {
            database,
            engine,
            scope: Scope::local("faults"),
            ledger,
            runs: HashMap::new(),
            workers: vec![],
            lease: Duration::from_secs(1),
            concurrency: 8,
            reports: vec![],
            folder,
            versions: HashMap::new(),
            seeds: 0,
            processes: 0,
        }
    }

    /// How others connect to the database.
    pub fn options(&self) -> PgConnectOptions {
        self.database.options()
    }

    /// A worker process more.
    pub fn add_worker(&mut self) {
        self.processes += 1;
        let orders = Orders {
            url: self.options().to_url_lossy().to_string(),
            ledger: self.ledger.path().to_owned(),
            report: self.folder.join(format!("report-{}.json", self.processes)),
            concurrency: self.concurrency,
            lease_ms: self.lease.as_millis() as u64,
        };
        self.workers.push(Process::start(&orders));
    }

    /// Kills a worker with SIGKILL and starts another.
    pub fn replace_worker(&mut self, at: usize) {
        self.workers.swap_remove(at).kill();
        self.add_worker();
    }

    /// Stops all workers in good order.
    pub fn stop_workers(&mut self) {
        for worker in self.workers.drain(..) {
            self.reports.push(worker.stop());
        }
    }

    pub async fn version(&mut self, shape: Shape) -> VersionId {
        if let Some(version) = self.versions.get(shape.text) {
            return *version;
        }
        let compiled = workflow(&StepKinds::new().with(LedgerKind::open(self.ledger.path())), shape.text);
        let version = self.engine.register(&self.scope, &compiled).await.expect("registered").id;
        self.versions.insert(shape.text, version);
        version
    }

    /// Starts a run of each shape in one slice.
    pub async fn start(&mut self, shapes: &[Shape]) -> Vec<RunId> {
        let mut slice = vec![];
        for shape in shapes {
            let version = self.version(*shape).await;
            self.seeds += 1;
            let input = Payload::from(&json!({ "seed": self.seeds }));
            slice.push((
                StartRun { version, input, idempotency_key: None, priority: 0, trigger: "test".into() },
                Accepted { shape: *shape, seed: self.seeds },
            ));
        }
        let (requests, accepted): (Vec<_>, Vec<_>) = slice.into_iter().unzip();
        let started = self.engine.start_runs(&self.scope, &requests, None).await.expect("started");
        let ids: Vec<RunId> = started.iter().map(|s| s.id).collect();
        self.runs.extend(ids.iter().copied().zip(accepted));
        ids
    }

    /// The same with a key each, again and again until it is acknowledged, as a careful client does. Gives how often it was not.
    pub async fn start_until_acknowledged(&mut self, shapes: &[Shape], limit: Duration) -> usize {
        let mut requests = vec![];
        let mut accepted = vec![];
        for shape in shapes {
            let version = self.version(*shape).await;
            self.seeds += 1;
            let input = Payload::from(&json!({ "seed": self.seeds }));
            let key = Some(format!("key-{}", self.seeds));
            requests.push(StartRun { version, input, idempotency_key: key, priority: 0, trigger: "test".into() });
            accepted.push(Accepted { shape: *shape, seed: self.seeds });
        }
        let (started, mut cut_off) = (Instant::now(), 0);
        loop {
            match self.engine.start_runs(&self.scope, &requests, None).await {
                Ok(report) => {
                    self.runs.extend(report.iter().map(|r| r.id).zip(accepted));
                    return cut_off;
                }
                Err(Error::Store(e)) if started.elapsed() < limit => {
                    tracing::debug!(error = %e, "not acknowledged");
                    cut_off += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(e) => panic!("runs are not accepted: {e}"),
            }
        }
    }

    /// How many runs have not ended.
    pub async fn live(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM krowoc.run WHERE finished_at IS NULL")
            .fetch_one(self.engine.pool())
            .await
            .expect("counted")
    }

    /// Waits until every run has ended.
    pub async fn all_ended(&self, limit: Duration) {
        let started = Instant::now();
        while self.live().await > 0 {
            if started.elapsed() > limit {
                let stuck: Vec<String> = sqlx::query_scalar(
                    "SELECT format('%s: lanes %s', r.id, (SELECT json_agg(l) FROM krowoc.live_lane l WHERE l.run_id = r.id)) FROM krowoc.run r WHERE finished_at IS NULL LIMIT 5",
                )
                .fetch_all(self.engine.pool())
                .await
                .expect("read");
                panic!("{} runs have not ended after {limit:?}, among them {stuck:#?}", self.live().await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Steps that were lost four times have failed by rule, as one that brings its worker down should. Here the test has killed it, so they are
    /// redriven until all runs have ended as they would have. Gives how many there were.
    pub async fn redrive_lost(&self, limit: Duration) -> usize {
        let mut redriven = 0;
        for _ in 0..5 {
            let letters: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT id FROM krowoc.dead_letter WHERE class = 'lost' AND state = 'open'")
                .fetch_all(self.engine.pool())
                .await
                .expect("letters");
            if letters.is_empty() {
                return redriven;
            }
            redriven += letters.len();
            let mut conn = self.engine.pool().acquire().await.expect("a connection");
            for done in redrive(&mut conn, &self.engine.registry().versions, &self.scope, &letters).await.expect("redriven") {
                // A map's letter is mended with the first of its items'.
                assert!(!matches!(done.outcome, Redrive::Refused(_)), "{done:?}");
            }
            drop(conn);
            self.all_ended(limit).await;
        }
        panic!("dead letters stay open though no worker is killed any more");
    }

    /// Removes what the test made; what a failed test made stays for a look at it.
    pub async fn done(mut self) {
        self.stop_workers();
        self.engine.pool().close().await;
        self.database.drop_database().await.expect("dropped");
        std::fs::remove_dir_all(&self.folder).expect("removed");
    }
}
