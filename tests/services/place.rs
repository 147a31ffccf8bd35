//! A database of a test's own, and an engine on it that looks and starts runs but carries nothing out.

use crate::process::{LIMIT, Process};
use krowoc_engine::{
    Engine, Payload, RunId, Scope,
    commands::StartRun,
    testing::{self, TestDatabase, workflow},
};
use krowoc_steps::StepsConfig;
use sqlx::AssertSqlSafe;
use std::time::Instant;

pub struct Place {
    pub engine: Engine,
    pub url: String,
    pub folder: tempfile::TempDir,
    pub scope: Scope,
    database: TestDatabase,
}

impl Place {
    pub async fn new() -> Self {
        let cluster = krowoc_postgres::testing::cluster().expect("a server");
        let database = TestDatabase::create(&cluster).await.expect("a database");
        let name = database.options().get_database().expect("its name").to_owned();
        let (address, query) = cluster.split_once('?').map_or((cluster.as_str(), String::new()), |(a, q)| (a, format!("?{q}")));
        let (server, _) = address.rsplit_once('/').expect("a URL");
        let engine = database.engine(krowoc_steps::kinds(StepsConfig::default())).await.expect("an engine");
        let folder = tempfile::tempdir().expect("a folder");
        Self { engine, url: format!("{server}/{name}{query}"), folder, scope: Scope::local("test"), database }
    }

    /// `krowoc` on this database.
    pub fn krowoc(&self, arguments: &[&str]) -> Process {
        Process::start(self.folder.path(), &[("DATABASE_URL", &self.url)], arguments)
    }

    pub async fn start(&self, text: &str) -> RunId {
        let compiled = workflow(&self.engine.registry().kinds, text);
        let version = self.engine.register(&self.scope, &compiled).await.expect("registered").id;
        let input = Payload::from(&serde_json::json!({}));
        let run = StartRun { version, input, idempotency_key: None, priority: 0, trigger: "test".into() };
        self.engine.start_runs(&self.scope, &[run], None).await.expect("started")[0].id
    }

    pub async fn ended(&self, run: RunId) -> String {
        testing::ended(&self.engine, run, LIMIT).await
    }

    pub async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(self.engine.pool()).await.expect("counted")
    }

    /// Waits until the statement counts so many.
    pub async fn until(&self, sql: &str, wanted: i64) {
        let until = Instant::now() + LIMIT;
        loop {
            let found = self.count(sql).await;
            if found == wanted {
                return;
            }
            assert!(Instant::now() < until, "{sql}: still {found}, not {wanted}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Every rule holds at the end.
    pub async fn done(self) {
        assert_eq!(self.database.violations().await.expect("checked"), Vec::<String>::new());
        self.engine.pool().close().await;
        self.database.drop_database().await.expect("dropped");
    }
}

/// A model call of that latency, then a step.
pub fn slow(latency: &str) -> String {
    format!(
        "krowoc: v1
name: slow
steps:
  call: {{llm: {{model: 'sim/instant?latency={latency}', messages: [{{role: user, content: Say something about the sea.}}]}}}}
  after: {{needs: [call], transform: {{x: 1}}}}
"
    )
}
