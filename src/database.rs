//! The engine on the database that the configuration names: the user's own, or the private one, which is joined and left.

use crate::config::{Config, Database};
use anyhow::{Context, bail};
use krowoc_engine::Engine;
use krowoc_postgres::{DATABASE, Local, LocalConfig};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{str::FromStr, time::Duration};

/// How long the first connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An engine, and the share of the private server that it stands on.
pub struct Session {
    /// The engine.
    pub engine: Engine,
    local: Option<Local>,
}

impl Session {
    /// Opens a session for some work and closes it, however the work ends.
    pub async fn with<T>(config: &Config, work: impl AsyncFnOnce(&Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let session = Self::open(config).await?;
        let done = work(&session).await;
        let closed = session.close().await;
        // What went wrong first tells more.
        let value = done?;
        closed?;
        Ok(value)
    }

    /// Connects. A private database is brought to this binary's schema; the user's own is only checked, since `krowoc migrate` is theirs
    /// to run.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let session = Self::connect(config).await?;
        match session.local {
            Some(_) => session.engine.migrate().await?,
            None => session.engine.check_schema().await?,
        }
        Ok(session)
    }

    /// Connects without looking at the schema.
    pub async fn connect(config: &Config) -> anyhow::Result<Self> {
        let (url, local) = match &config.database {
            Database::Given(url) => (url.clone(), None),
            Database::Private(home) => {
                let local = Local::join(LocalConfig::new(home)).await.context("the private PostgreSQL could not be started")?;
                (local.url(DATABASE), Some(local))
            }
        };
        // The URL may hold a password: it is not part of any message.
        let options = PgConnectOptions::from_str(&url).map_err(|_| anyhow::anyhow!("DATABASE_URL is not a PostgreSQL URL"))?;
        reach(&options).await?;
        let engine =
            Engine::connect(options.application_name("krowoc"), config.step_kinds(), 8).await.context("the database can't be reached")?;
        Ok(Self { engine, local })
    }

    /// Closes connections and leaves the private server; the last one out stops it.
    pub async fn close(self) -> anyhow::Result<()> {
        self.engine.pool().close().await;
        if let Some(local) = self.local {
            local.leave().await?;
        }
        Ok(())
    }
}

/// A first connection says at once what a pool would only say after half a minute of trying.
async fn reach(options: &PgConnectOptions) -> anyhow::Result<()> {
    let failure = match tokio::time::timeout(PATIENCE, PgConnection::connect_with(options)).await {
        Ok(Ok(conn)) => return conn.close().await.context("the database does not answer"),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
    };
    let (place, database) = place(options);
    bail!(
        "PostgreSQL at {place}, database `{database}`, can't be reached as user `{}`: {failure}\n\
         See whether it runs (`pg_isready -d \"$DATABASE_URL\"`) and whether DATABASE_URL names it rightly;\n\
         without DATABASE_URL krowoc runs a private PostgreSQL of its own",
        options.get_username()
    )
}

/// Where a database is and what it is called: what may be shown of a URL.
pub fn place(options: &PgConnectOptions) -> (String, &str) {
    let place = match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    (place, options.get_database().unwrap_or(options.get_username()))
}
