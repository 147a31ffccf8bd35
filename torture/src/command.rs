//! The product's commands as a user calls them.

use anyhow::{Context, Result};
use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::process::Command;

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Was its exit code 0?
    pub success: bool,
    /// On standard output.
    pub out: String,
    /// On standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

/// Calls it on a database; it is killed if it takes longer.
pub async fn krowoc(executable: &Path, url: &str, arguments: &[&str], within: Duration) -> Result<Said> {
    let began = Instant::now();
    let mut command = Command::new(executable);
    command.args(arguments).env("DATABASE_URL", url).env_remove("KROWOC_LISTEN_URL").env("KROWOC_LOG", "warn");
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(within, output).await;
    let output = output.with_context(|| format!("`krowoc {}` has not ended within {within:?}", arguments.join(" ")))??;
    Ok(Said {
        success: output.status.success(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: began.elapsed(),
    })
}
