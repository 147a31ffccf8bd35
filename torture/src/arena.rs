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
    progress: Rc<dyn Fn(&str)>,
    prefix: String,
    databases: Mutex<Vec<Database>>,
}

impl Arena {
    pub(crate) fn new(name: &'static str, size: Size, seed: u64, server: Server, place: Place) -> Self {
        let Place { folder, deadline, executable, prefix, progress } = place;
        let (dice, findings) = (Dice::new(seed, name), Findings::default());
        Self { name, size, dice, server, folder, deadline, findings, executable, progress, prefix, databases: Mutex::default() }
    }

    /// A database of its own on the arena's server, with the schema; it goes with the arena.
    pub async fn database(&self) -> Result<Database> {
        self.database_on(&self.server.url()).await
    }

    /// The same on another server, which must be there as long as the arena is.
    pub async fn database_on(&self, url: &str) -> Result<Database> {
        let database = Database::create(url, &self.prefix, self.name).await?;
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
    pub progress: Rc<dyn Fn(&str)>,
}
