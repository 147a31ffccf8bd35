//! A database of a test's own and a worker with few threads on it.

use crate::kinds::{Bring, Explode, Keep, Place, Reins};
use krowoc_engine::{
    Engine, Error, Payload, RunId, Scope,
    commands::{StartRun, StartedRun},
    executor::StepKinds,
    testing::{TestDatabase, ended, workflow},
    worker::{StepThreads, Worker, WorkerConfig},
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

/// No test waits longer for one thing.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    database: TestDatabase,
    pub engine: Engine,
    pub reins: Arc<Reins>,
    /// How often `place` was begun.
    pub places: Arc<AtomicUsize>,
    pub worker: Worker,
}

/// A step that failed for good.
#[derive(Debug)]
pub struct Letter {
    pub class: String,
    pub message: String,
    pub details: Value,
    /// Of the error as it is stored, in bytes.
    pub size: i64,
    pub input: Option<String>,
}

impl World {
    /// A worker with one step thread.
    pub async fn new() -> Self {
        Self::with(WorkerConfig::default()).await
    }

    pub async fn with(config: WorkerConfig) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("warn").try_init();
        let database = TestDatabase::create(&krowoc_postgres::testing::cluster().expect("a server")).await.expect("a database");
        let (reins, places) = (Arc::<Reins>::default(), Arc::<AtomicUsize>::default());
        let engine = database.engine(kinds(&reins, &places)).await.expect("an engine");
        let worker = engine.worker(WorkerConfig { threads: Some(1), ..config }).await.expect("a worker");
        Self { database, engine, reins, places, worker }
    }

    /// Starts a run of one step `a` that is written so, without its first indentation.
    pub async fn start(&self, step: &str) -> RunId {
        self.start_file(&format!("krowoc: v1\nname: w\nsteps:\n  a:\n    {}\n", step.replace('\n', "\n    "))).await
    }

    pub async fn start_file(&self, text: &str) -> RunId {
        self.start_with(text, Payload::from(&json!({}))).await.expect("started").id
    }

    pub async fn start_with(&self, text: &str, input: Payload) -> Result<StartedRun, Error> {
        let (scope, compiled) = (Scope::local("test"), workflow(&self.engine.registry().kinds, text));
        let version = self.engine.register(&scope, &compiled).await.expect("registered").id;
        let run = StartRun { version, input, idempotency_key: None, priority: 0, trigger: "test".into() };
        Ok(self.engine.start_runs(&scope, &[run], None).await?[0])
    }

    pub async fn ended(&self, run: RunId, limit: Duration) -> String {
        ended(&self.engine, run, limit).await
    }

    /// What the run's step `a` brought.
    pub async fn output(&self, run: RunId) -> Value {
        let text: String = sqlx::query_scalar("SELECT output::text FROM krowoc.step_result WHERE run_id = $1")
            .bind(run.0)
            .fetch_one(self.engine.pool())
            .await
            .expect("a result");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Class, message and duration of the run's attempts that failed.
    pub async fn attempts(&self, run: RunId) -> Vec<(String, String, i32)> {
        sqlx::query_as("SELECT class::text, error ->> 'message', duration_ms FROM krowoc.attempt WHERE run_id = $1 ORDER BY attempt")
            .bind(run.0)
            .fetch_all(self.engine.pool())
            .await
            .expect("attempts")
    }

    /// The run's only dead letter.
    pub async fn letter(&self, run: RunId) -> Letter {
        assert_eq!(self.ended(run, PATIENCE).await, "failed");
        let (class, error, input): (String, String, Option<String>) =
            sqlx::query_as("SELECT class::text, error::text, input::text FROM krowoc.dead_letter WHERE run_id = $1")
                .bind(run.0)
                .fetch_one(self.engine.pool())
                .await
                .expect("a letter");
        let (size, mut error): (i64, Value) = (error.len() as i64, serde_json::from_str(&error).expect("JSON"));
        let message = error["message"].as_str().expect("a message").to_owned();
        Letter { class, message, details: error["details"].take(), size, input }
    }

    pub async fn lanes(&self, state: &str) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM krowoc.lane WHERE state::text = $1")
            .bind(state)
            .fetch_one(self.engine.pool())
            .await
            .expect("counted")
    }

    pub async fn threads(&self, are: impl Fn(StepThreads) -> bool) {
        self.until(|| are(self.worker.step_threads())).await;
    }

    pub async fn until(&self, done: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < until, "{:?}", self.worker.step_threads());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops the worker, checks the rules and removes the database.
    pub async fn done(self) {
        self.reins.let_go();
        tokio::time::timeout(PATIENCE, self.worker.stop()).await.expect("stopped in time").expect("stopped");
        assert_eq!(self.database.violations().await.expect("checked"), Vec::<String>::new());
        self.engine.pool().close().await;
        self.database.drop_database().await.expect("dropped");
    }
}

fn kinds(reins: &Arc<Reins>, places: &Arc<AtomicUsize>) -> StepKinds {
    StepKinds::new().with(Keep(reins.clone())).with(Place(places.clone())).with(Bring).with(Explode)
}
