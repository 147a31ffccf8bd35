//! What a scenario is given.

use crate::{database::Database, dice::Dice, findings::Findings, server::Server};
use anyhow::Result;
use serde::Serialize;
use std::{
    path::PathBuf,
    rc::Rc,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How much of everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// Minutes for all scenarios together.
    Short,
    /// An hour or so.
    Long,
}

impl Size {
    /// The first for the short form, the second for the long one.
    pub fn pick<T>(self, short: T, long: T) -> T {
        if self == Self::Short { short } else { long }
    }
}

/// Where a scenario takes place.
pub struct Arena {
    /// The scenario's name.
    pub name: &'static str,
    /// How much of everything.
    pub size: Size,
    /// For every choice.
    pub dice: Dice,
    /// Where databases are made. Whoever stops it must have asked for [`crate::Need::OwnServer`].
    pub server: Server,
    /// For files; removed after a scenario that passed.
    pub folder: PathBuf,
    /// When the scenario is cut off.
    pub deadline: Instant,
    /// To be told.
    pub findings: Findings,
    /// The product's binary.
    pub executable: PathBuf,
    /// A PgBouncer that is new enough, if there is one.
    pub pgbouncer: Option<PathBuf>,
    progress: Rc<dyn Fn(&str)>,
    prefix: String,
    databases: Mutex<Vec<Database>>,
}

impl Arena {
    pub(crate) fn new(name: &'static str, size: Size, seed: u64, server: Server, place: Place) -> Self {
        let Place { folder, deadline, executable, prefix, pgbouncer, progress } = place;
        let (dice, findings) = (Dice::new(seed, name), Findings::default());
        Self { name, size, dice, server, folder, deadline, findings, executable, pgbouncer, progress, prefix, databases: Mutex::default() }
    }

    /// An arena inside this one, on its own server or another; its findings are its own.
    pub(crate) fn inner(&mut self, name: &'static str, size: Size, server: Server) -> Self {
        let progress = self.progress.clone();
        let place = Place {
            folder: self.folder.join(name),
            deadline: self.deadline,
            executable: self.executable.clone(),
            prefix: self.prefix.clone(),
            pgbouncer: self.pgbouncer.clone(),
            progress: Rc::new(move |text: &str| progress(&format!("{name}: {text}"))),
        };
        Self::new(name, size, self.dice.below(u64::MAX), server, place)
    }

    /// A database of its own on the arena's server, with the schema; it goes with the arena.
    pub async fn database(&self) -> Result<Database> {
        let database = self.bare_database_on(&self.server.url()).await?;
        match self.server.pooler() {
            Some(pooler) => self.adopt(database.by_way_of(pooler)?).await,
            None => self.adopt(database).await,
        }
    }

    /// The same on another server, which must be there as long as the arena is.
    pub async fn database_on(&self, url: &str) -> Result<Database> {
        self.adopt(self.bare_database_on(url).await?).await
    }

    /// The same without a schema, and for the scenario to drop, or to leave to the end of its server.
    pub(crate) async fn bare_database_on(&self, url: &str) -> Result<Database> {
        Database::create(url, &self.prefix, self.name).await
    }

    async fn adopt(&self, database: Database) -> Result<Database> {
        self.databases().push(database.clone());
        database.migrate().await?;
        Ok(database)
    }

    /// Drops every database. One on a server that is gone went with it.
    pub(crate) async fn drop_databases(&self) -> Result<()> {
        let databases = std::mem::take(&mut *self.databases());
        for database in databases {
            database.drop_database().await?;
        }
        Ok(())
    }

    /// The databases there are, by name.
    pub(crate) fn database_names(&self) -> Vec<String> {
        self.databases().iter().map(|database| database.name().to_owned()).collect()
    }

    /// Tells whoever watches how far it is.
    pub fn progress(&self, text: impl AsRef<str>) {
        (self.progress)(text.as_ref());
    }

    /// How long there is.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn databases(&self) -> std::sync::MutexGuard<'_, Vec<Database>> {
        self.databases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where and until when, and who hears of it.
pub(crate) struct Place {
    pub folder: PathBuf,
    pub deadline: Instant,
    pub executable: PathBuf,
    /// What the names of databases begin with.
    pub prefix: String,
    pub pgbouncer: Option<PathBuf>,
    pub progress: Rc<dyn Fn(&str)>,
}
