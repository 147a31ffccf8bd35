//! For tests of the engine and of programs around it: a database of their own in milliseconds, step kinds whose behaviour a test
//! scripts, and waiting for what the database says instead of for time to pass.

use crate::{
    Engine,
    definition::{Compiled, Problem, PromptSource, PromptVersion, Source, compile},
    error::Result,
    executor::{StepContext, StepError, StepKind, StepKinds, StepOutput},
    id::RunId,
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{str::FromStr, time::Duration};

/// A database of a test's own, cloned from a migrated template; dropped by [`TestDatabase::drop_database`], or with its server.
pub struct TestDatabase {
    server: PgConnectOptions,
    name: String,
}

impl TestDatabase {
    /// Makes one on the server at `url`, whose user may create databases.
    pub async fn create(url: &str) -> Result<Self> {
        let server = PgConnectOptions::from_str(url)?;
        let mut admin = PgConnection::connect_with(&server).await?;
        let template = format!("krowoc_template_{}", crate::store::migrate::fingerprint());
        // Tests are processes of their own: one of them makes the template, the others wait.
        sqlx::query("SELECT pg_advisory_lock(7281)").execute(&mut admin).await?;
        let made = make_template(&mut admin, &server, &template).await;
        sqlx::query("SELECT pg_advisory_unlock(7281)").execute(&mut admin).await?;
        made?;
        let name = format!("krowoc_test_{}", uuid::Uuid::new_v4().simple());
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")))
            .execute(&mut admin)
            .await?;
        admin.close().await?;
        Ok(Self { server, name })
    }

    /// How to connect to it.
    pub fn options(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    /// An engine on it that knows the scripted kinds beside those given.
    pub async fn engine(&self, kinds: StepKinds) -> Result<Engine> {
        Engine::connect(self.options(), kinds.with(Noop).with(Scripted), 4).await
    }

    /// Drops it, whoever is still connected.
    pub async fn drop_database(self) -> Result<()> {
        let mut admin = PgConnection::connect_with(&self.server).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name))).execute(&mut admin).await?;
        Ok(())
    }

    /// Every broken rule in the database at rest, as text; empty when all hold.
    pub async fn violations(&self) -> Result<Vec<String>> {
        let mut conn = PgConnection::connect_with(&self.options()).await?;
        let rows: Vec<(String, Option<uuid::Uuid>, String)> =
            sqlx::query_as("SELECT rule, run_id, detail FROM krowoc.check_invariants()").fetch_all(&mut conn).await?;
        Ok(rows.into_iter().map(|(rule, run, detail)| format!("{rule}: run {run:?}: {detail}")).collect())
    }
}

async fn make_template(admin: &mut PgConnection, server: &PgConnectOptions, template: &str) -> Result<()> {
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)").bind(template).fetch_one(&mut *admin).await?;
    if exists {
        return Ok(());
    }
    // Under another name until it is complete: a template that a killed test left half made must not be found.
    let half = format!("{template}_half");
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP DATABASE IF EXISTS {half} WITH (FORCE)"))).execute(&mut *admin).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {half}"))).execute(&mut *admin).await?;
    let mut conn = PgConnection::connect_with(&server.clone().database(&half)).await?;
    crate::commands::migrate(&mut conn).await?;
    conn.close().await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("ALTER DATABASE {half} RENAME TO {template}"))).execute(admin).await?;
    Ok(())
}

/// Compiles a workflow text; a test's own mistake in it panics with every problem.
pub fn workflow(kinds: &StepKinds, text: &str) -> Compiled {
    let problems = |problems: Vec<Problem>| -> ! { panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")) };
    let source = Source::parse("test.yaml", text).unwrap_or_else(|p| problems(p));
    compile(&source, kinds, &NoPrompts).unwrap_or_else(|p| problems(p))
}

struct NoPrompts;

impl PromptSource for NoPrompts {
    fn resolve(&self, reference: &str) -> Result<PromptVersion, Problem> {
        Err(Problem::new("unknown_prompt", "", format!("no prompt `{reference}`: this test has none")))
    }
}

/// Waits until a run has ended; panics after `limit` with what is known of it.
pub async fn ended(engine: &Engine, run: RunId, limit: Duration) -> String {
    let started = tokio::time::Instant::now();
    loop {
        let row: Option<(String, bool)> = sqlx::query_as("SELECT status::text, finished_at IS NOT NULL FROM krowoc.run WHERE id = $1")
            .bind(run.0)
            .fetch_optional(engine.pool())
            .await
            .unwrap_or_else(|e| panic!("reading run {run}: {e}"));
        match row {
            Some((status, true)) => return status,
            found if started.elapsed() > limit => panic!("run {run} has not ended after {limit:?}: {found:?}"),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// `noop:` gives its configuration back, or 200 bytes where it has none. It stays in the process and costs nothing, for measurements.
pub struct Noop;

#[async_trait::async_trait]
impl StepKind for Noop {
    fn name(&self) -> &'static str {
        "noop"
    }

    fn schema(&self) -> Value {
        json!(true)
    }

    fn calls_out(&self) -> bool {
        false
    }

    fn is_instant(&self) -> bool {
        true
    }

    async fn execute(&self, _: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        match config {
            Value::Null => Ok(StepOutput { output: crate::Payload::from_json_text(NOOP_OUTPUT), usage: None }),
            config => StepOutput::json(&config),
        }
    }
}

/// 200 bytes of JSON.
const NOOP_OUTPUT: &str = concat!(
    r#"{"ok":true,"model":"noop","text":""#,
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklm",
    "nopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdef",
    r#""}"#
);

/// `scripted:` does what its configuration says: `{sleep_ms, fail_first, class, retry_after_s, panic, output}`; it fails its first
/// `fail_first` attempts.
pub struct Scripted;

#[async_trait::async_trait]
impl StepKind for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "sleep_ms": { "type": "integer" },
                "fail_first": { "type": "integer" },
                "class": { "type": "string" },
                "retry_after_s": { "type": "number" },
                "panic": { "type": "boolean" },
                "output": true
            }
        })
    }

    async fn execute(&self, context: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        if let Some(ms) = config["sleep_ms"].as_u64() {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        if config["panic"] == json!(true) {
            panic!("as the script says");
        }
        if u64::from(context.attempt) <= config["fail_first"].as_u64().unwrap_or(0) {
            let class = serde_json::from_value(config.get("class").cloned().unwrap_or(json!("server_error")));
            let class = class.map_err(|e| StepError::new(crate::ErrorClass::InvalidRequest, e.to_string()))?;
            let after = config["retry_after_s"].as_f64().map(Duration::from_secs_f64);
            return Err(StepError::new(class, "as the script says").retry_after(after));
        }
        StepOutput::json(config.get("output").unwrap_or(&Value::Null))
    }
}
