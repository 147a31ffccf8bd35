//! Logs, on standard error: text for people, JSON lines for machines.

use crate::config::{LogConfig, LogFormat};
use anyhow::Context;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging for the process.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.filter)
        .with_context(|| format!("KROWOC_LOG is `{}`; expected something like `info` or `warn,krowoc_engine=debug`", config.filter))?;
    // Nobody reading the log is no failure; the complaint about it would go to standard error too, and panic.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let started = match config.format {
        LogFormat::Text => builder.with_ansi(config.colour && std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("starting the log: {error}"))
}
