//! Where a work is measured: a throw-away, durable PostgreSQL on the same machine, or a scratch database on the user's own server. Nothing
//! of it stays.

use super::noop::Noop;
use crate::config::{Config, Database};
use anyhow::{Context, ensure};
use krowoc_engine::{
    Engine, Scope,
    worker::{Stats, Worker, WorkerConfig},
};
use krowoc_postgres::{DATABASE, Durability, Local, LocalConfig, Purpose};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

/// The engine on its throw-away database.
pub struct Ground {
    /// Knows the steps of the product, and `noop`.
    pub engine: Engine,
    /// How to connect to the database.
    pub options: PgConnectOptions,
    /// Whose runs they are.
    pub scope: Scope,
    server: Server,
}

enum Server {
    Own { local: Local, home: Home },
    Given { url: Box<PgConnectOptions>, database: String },
}

impl Ground {
    /// Makes it. `settings` are for a server of its own.
    pub async fn open(config: &Config, noop: Noop, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let (server, options) = match &config.database {
            Database::Private(home) => own(home, settings).await?,
            Database::Given(url) => given(url).await?,
        };
        let options = options.application_name("krowoc");
        match prepare(config, noop, &options).await {
            Ok(engine) => Ok(Self { engine, options, scope: Scope::local("bench"), server }),
            Err(error) => {
                server.remove().await?;
                Err(error)
            }
        }
    }

    /// The database's URL, for another process.
    pub fn url(&self) -> String {
        match &self.server {
            Server::Own { local, .. } => local.url(DATABASE),
            Server::Given { .. } => self.options.to_url_lossy().into(),
        }
    }

    /// The log of a server of its own.
    pub fn log(&self) -> Option<PathBuf> {
        match &self.server {
            Server::Own { local, .. } => Some(local.log()),
            Server::Given { .. } => None,
        }
    }

    /// A worker in this process.
    pub async fn worker(&self, concurrency: usize) -> anyhow::Result<Worker> {
        Ok(self.engine.worker(WorkerConfig { name: "bench".into(), concurrency, ..WorkerConfig::default() }).await?)
    }

    /// Exactly so many runs have succeeded, and nothing else is in the database: a figure of wrong results is worth nothing.
    pub async fn verify(&self, succeeded: usize) -> anyhow::Result<()> {
        let (good, all, lanes): (i64, i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE status = 'succeeded'), count(*), (SELECT count(*) FROM krowoc.live_lane) FROM krowoc.run",
        )
        .fetch_one(self.engine.pool())
        .await?;
        ensure!(
            (good, all, lanes) == (succeeded as i64, succeeded as i64, 0),
            "{good} of {all} runs succeeded and {lanes} lanes are left; {succeeded} runs were due"
        );
        Ok(())
    }

    /// Removes everything.
    pub async fn close(self) -> anyhow::Result<()> {
        self.engine.pool().close().await;
        self.server.remove().await
    }
}

async fn prepare(config: &Config, noop: Noop, options: &PgConnectOptions) -> anyhow::Result<Engine> {
    let engine = Engine::connect(options.clone(), config.step_kinds().with(noop), 16).await.context("the database can't be reached")?;
    engine.migrate().await?;
    Ok(engine)
}

/// Beside the user's own data, since the folder for temporary files may lie in memory, where `fsync` costs nothing.
async fn own(beside: &Path, settings: &[(&str, &str)]) -> anyhow::Result<(Server, PgConnectOptions)> {
    let home = Home(beside.join(format!("bench-{}", std::process::id())));
    let mut local = LocalConfig { purpose: Purpose::Throwaway, durability: Durability::Durable, ..LocalConfig::new(&home.0) };
    // As the reference figures were measured.
    local.settings = [("shared_buffers", "512MB")].iter().chain(settings).map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let local = Local::join(local).await.context("a PostgreSQL to measure on could not be started")?;
    let options = PgConnectOptions::from_str(&local.url(DATABASE))?;
    Ok((Server::Own { local, home }, options))
}

async fn given(url: &str) -> anyhow::Result<(Server, PgConnectOptions)> {
    // The URL may hold a password: it is not part of any message.
    let url = PgConnectOptions::from_str(url).map_err(|_| anyhow::anyhow!("DATABASE_URL is not a PostgreSQL URL"))?;
    let database = format!("krowoc_bench_{}", std::process::id());
    let mut admin = PgConnection::connect_with(&url).await.context("the database can't be reached")?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {database}")))
        .execute(&mut admin)
        .await
        .context("making a scratch database; the user needs the right to create one")?;
    admin.close().await?;
    let options = url.clone().database(&database);
    Ok((Server::Given { url: Box::new(url), database }, options))
}

impl Server {
    async fn remove(self) -> anyhow::Result<()> {
        match self {
            Self::Own { local, home } => {
                local.leave().await?;
                home.remove()
            }
            Self::Given { url, database } => {
                let mut admin = PgConnection::connect_with(&url).await?;
                sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"))).execute(&mut admin).await?;
                Ok(())
            }
        }
    }
}

/// A server's folder, which goes with it even when something fails on the way.
struct Home(PathBuf);

impl Home {
    fn remove(&self) -> anyhow::Result<()> {
        Ok(krowoc_postgres::remove_home(&self.0)?)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, "the measurement's database was not removed");
        }
    }
}

/// Returns once so many runs have ended since the worker's start.
pub async fn runs_ended(stats: &Stats, runs: usize) {
    while stats.runs.load(Relaxed) < runs {
        // The end of a run between the look and the wait is not announced again: hence the limit.
        let _ = tokio::time::timeout(Duration::from_millis(50), stats.ended.notified()).await;
    }
}
