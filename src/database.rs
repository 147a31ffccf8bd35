//! The engine on the database that the configuration names: the user's own, or the private one, which is joined and left.

use crate::config::{Config, Database};
use anyhow::Context;
use krowoc_engine::Engine;
use krowoc_postgres::{DATABASE, Local, LocalConfig};
use sqlx::postgres::PgConnectOptions;
use std::str::FromStr;

/// An engine, and the share of the private server that it stands on.
pub struct Session {
    /// The engine.
    pub engine: Engine,
    local: Option<Local>,
}

impl Session {
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
