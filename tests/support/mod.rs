//! Shipped workflows on a database of their own, with a worker in the process and nothing that needs a network.

use krowoc_engine::{
    Engine, Payload, RunId, Scope,
    commands::StartRun,
    definition::{Compiled, Dag, Problem, PromptFolder, Source, compile},
    queries::runs,
    testing::{self, TestDatabase},
    worker::{Worker, WorkerConfig},
};
use krowoc_steps::StepsConfig;
use serde_json::Value;
use sqlx::{Postgres, pool::PoolConnection};
use std::{fs, path::Path, sync::Arc, time::Duration};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Everything that a run needs.
pub struct Bench {
    pub engine: Engine,
    pub scope: Scope,
    database: TestDatabase,
    worker: Worker,
}

/// A run that was started, and what it runs.
pub struct Started {
    pub id: RunId,
    pub dag: Arc<Dag>,
}

impl Bench {
    pub async fn new() -> Self {
        let url = krowoc_postgres::testing::cluster().expect("a server");
        let database = TestDatabase::create(&url).await.expect("a database");
        let engine = database.engine(krowoc_steps::kinds(StepsConfig::default())).await.expect("an engine");
        let worker = engine.worker(WorkerConfig { concurrency: 16, ..WorkerConfig::default() }).await.expect("a worker");
        Self { engine, scope: Scope::local("test"), database, worker }
    }

    /// Starts a shipped workflow.
    pub async fn start(&self, name: &str, input: Value) -> Started {
        let compiled = shipped(name, &self.engine);
        let version = self.engine.register(&self.scope, &compiled).await.expect("registered").id;
        let run = StartRun { version, input: Payload::from(&input), idempotency_key: None, priority: 0, trigger: "test".into() };
        let id = self.engine.start_runs(&self.scope, &[run], None).await.expect("started")[0].id;
        Started { id, dag: compiled.dag }
    }

    pub async fn conn(&self) -> PoolConnection<Postgres> {
        self.engine.pool().acquire().await.expect("a connection")
    }

    /// Waits for the run's end and gives its status.
    pub async fn ended(&self, run: RunId) -> String {
        testing::ended(&self.engine, run, Duration::from_secs(30)).await
    }

    /// Waits until the run has succeeded and gives its output.
    pub async fn succeeded(&self, run: RunId) -> Value {
        let status = self.ended(run).await;
        let detail = runs::show(&mut *self.conn().await, &self.scope, run).await.expect("the run");
        assert_eq!(status, "succeeded", "{:?}", detail.run.error);
        detail.output.expect("an output").parse().expect("JSON")
    }

    /// Stops the worker; no rule may be broken in what it leaves.
    pub async fn done(self) {
        self.worker.stop().await.expect("stopped");
        assert_eq!(self.database.violations().await.expect("checked"), Vec::<String>::new());
        self.engine.pool().close().await;
        self.database.drop_database().await.expect("dropped");
    }
}

fn shipped(name: &str, engine: &Engine) -> Compiled {
    let folder = root().join("workflows");
    let path = folder.join(format!("{name}.yaml"));
    let text = fs::read_to_string(&path).expect("the file");
    let compiled = PromptFolder::read(&folder.join("prompts")).and_then(|prompts| {
        Source::parse(&path.display().to_string(), &text).and_then(|source| compile(&source, &engine.registry().kinds, &prompts))
    });
    compiled.unwrap_or_else(|problems| panic!("{}", shown(&problems)))
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
