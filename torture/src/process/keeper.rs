//! Cleans up where nobody else can any more: a process in a session of its own that waits for the end of the one that started it. Was it not
//! dismissed before, then that one was killed, and what it had made is removed.

use super::{COMMAND, Errand};
use crate::database::Database;
use anyhow::{Context, Result};
use krowoc_postgres::{Local, LocalConfig};
use serde::{Deserialize, Serialize};
use std::{
    io::{BufRead, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// What there is to be removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Belongings {
    /// The folder, with the homes of servers in it.
    pub folder: PathBuf,
    /// The server on which databases were made, if it is not one of these.
    pub url: Option<String>,
    /// What the names of these databases begin with.
    pub prefix: String,
    /// Everything is to stay, and only servers are stopped.
    pub keep: bool,
}

/// The keeper, as whoever started it sees it.
pub struct Keeper(Child);

const DISMISSED: &str = "dismissed";

impl Keeper {
    /// Starts one.
    pub fn start(executable: &Path, belongings: &Belongings) -> Result<Self> {
        let mut child = Command::new(executable)
            .arg(COMMAND)
            .env("KROWOC_LOG", "error")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Nobody reads it when it matters, and a reader of the pipe would wait for its end.
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", executable.display()))?;
        let stdin = child.stdin.as_mut().context("a pipe")?;
        writeln!(stdin, "{}", serde_json::to_string(&Errand::Keeper(belongings.clone()))?)?;
        Ok(Self(child))
    }

    /// Everything is removed already.
    pub fn dismiss(mut self) -> Result<()> {
        let mut stdin = self.0.stdin.take().context("a pipe")?;
        writeln!(stdin, "{DISMISSED}")?;
        drop(stdin);
        self.0.wait()?;
        Ok(())
    }
}

impl Belongings {
    /// Keeps them, in a process of its own, until there is something to do or nothing any more.
    pub async fn keep(self) -> Result<()> {
        // A terminal's signals are for the one that was started there, which cleans up itself then.
        rustix::process::setsid()?;
        let word = tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().next().transpose()).await??;
        if word.as_deref() == Some(DISMISSED) {
            return Ok(());
        }
        if let (Some(url), false) = (&self.url, self.keep) {
            Database::drop_all(url, &self.prefix).await?;
        }
        for home in homes(&self.folder) {
            // Whoever joins a server as the only one stops it with its leaving, whoever has started it.
            Local::join(LocalConfig::new(&home)).await?.leave().await?;
            if !self.keep {
                krowoc_postgres::remove_home(&home)?;
            }
        }
        if !self.keep {
            std::fs::remove_dir_all(&self.folder)?;
        }
        Ok(())
    }
}

/// The homes of servers in the folder, and in the folders of scenarios inside it.
fn homes(folder: &Path) -> Vec<PathBuf> {
    let inside = |folder: &Path| -> Vec<PathBuf> {
        folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let is_home = |path: &PathBuf| path.join("users.lock").exists() && path.join("postgres/data").exists();
    let (homes, others): (Vec<PathBuf>, Vec<PathBuf>) = inside(folder).into_iter().partition(is_home);
    homes.into_iter().chain(others.iter().flat_map(|other| inside(other)).filter(is_home)).collect()
}
