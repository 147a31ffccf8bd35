//! The PostgreSQL that everything happens on: a cluster of our own, to do with as we like, or somebody's server, on which nothing but
//! databases are made.

use anyhow::{Context, Result};
use krowoc_postgres::{DATABASE, Durability, Local, LocalConfig};
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// A server. Cloning gives another hand on the same.
#[derive(Clone)]
pub enum Server {
    /// Ours.
    Own(Cluster),
    /// Somebody's, by its URL.
    Given(String),
    /// One with a pooler in front, by the URLs of both.
    Pooled {
        /// Databases are made here, and notifications listened for.
        server: String,
        /// Everything else goes through it.
        pooler: String,
    },
}

impl Server {
    /// The URL of a database from which others can be made.
    pub fn url(&self) -> String {
        match self {
            Self::Own(cluster) => cluster.url(),
            Self::Given(url) | Self::Pooled { server: url, .. } => url.clone(),
        }
    }

    /// The cluster, if it is ours.
    pub fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Own(cluster) => Some(cluster),
            Self::Given(_) | Self::Pooled { .. } => None,
        }
    }

    /// The URL of the pooler in front, if there is one.
    pub fn pooler(&self) -> Option<&str> {
        match self {
            Self::Pooled { pooler, .. } => Some(pooler),
            Self::Own(_) | Self::Given(_) => None,
        }
    }
}

/// A durable PostgreSQL of our own. Cloning gives another hand on the same.
#[derive(Clone)]
pub struct Cluster(Arc<Held>);

struct Held {
    config: LocalConfig,
    /// None once it has left.
    local: Mutex<Option<Local>>,
    url: String,
}

/// What a cluster is started with beside this project's usual settings.
const SETTINGS: &[(&str, &str)] = &[
    // Databases come and go; their statistics need no hurry.
    ("autovacuum_naptime", "60s"),
    // After a crash PostgreSQL has everything written to the disk, and asks for it file by file unless it may ask for all at once: seconds.
    #[cfg(target_os = "linux")]
    ("recovery_init_sync_method", "syncfs"),
];

impl Cluster {
    /// Makes one in a home, with further settings.
    pub async fn start(home: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let mut config = LocalConfig { durability: Durability::Durable, max_connections: 300, ..LocalConfig::new(home) };
        config.settings = SETTINGS.iter().chain(settings).map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let local = Local::join(config.clone()).await.context("a PostgreSQL of our own could not be started")?;
        let url = local.url(DATABASE);
        Ok(Self(Arc::new(Held { config, local: Mutex::new(Some(local)), url })))
    }

    /// The URL of its database; that of a restarted server is the same.
    pub fn url(&self) -> String {
        self.0.url.clone()
    }

    /// Stops the server as a crash would, and starts it again.
    pub async fn crash_and_restart(&self) -> Result<()> {
        self.with(|local, config| local.crash_and_restart(config)).await
    }

    /// Stops the server in good order, and keeps its data.
    pub async fn stop(&self) -> Result<()> {
        let held = self.0.clone();
        let stopped = tokio::task::spawn_blocking(move || held.take().map(Local::leave_blocking).transpose());
        stopped.await?.context("stopping PostgreSQL")?;
        Ok(())
    }

    /// Stops the server and removes everything of it.
    pub async fn remove(&self) -> Result<()> {
        self.stop().await?;
        krowoc_postgres::remove_home(&self.0.config.home).context("removing PostgreSQL's data")
    }

    async fn with(&self, act: impl FnOnce(&mut Local, &LocalConfig) -> krowoc_postgres::Result<()> + Send + 'static) -> Result<()> {
        let held = self.0.clone();
        let acted = tokio::task::spawn_blocking(move || {
            let mut local = held.local.lock().unwrap_or_else(PoisonError::into_inner);
            local.as_mut().map(|local| act(local, &held.config)).transpose()
        });
        acted.await??.context("this cluster has been stopped")
    }
}

impl Held {
    fn take(&self) -> Option<Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
