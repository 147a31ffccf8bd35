//! `krowoc worker`

use crate::{config::Config, database::Session, signals::Signals};
use clap::Args;
use krowoc_engine::{
    Engine,
    definition::parse_duration,
    worker::{Worker as Running, WorkerConfig},
};
use std::{process::ExitCode, time::Duration};

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc worker
  krowoc worker --queue gpu --queue default --concurrency 64
  DATABASE_URL=postgres://krowoc@db/krowoc krowoc worker --drain 5m

SIGTERM and Ctrl-C drain: no new steps start, those that run may end until --drain is over, the rest is given back for other
workers. A second signal gives back at once. The exit code is 0 either way.")]
pub struct Worker {
    #[command(flatten)]
    options: WorkerOptions,
}

/// How a worker works; `dev` and `serve` take these too.
#[derive(Args, Clone)]
pub struct WorkerOptions {
    /// A task queue to serve; may be given more than once, the more important first
    #[arg(long = "queue", value_name = "QUEUE", default_value = "default")]
    queues: Vec<String>,
    /// Steps in flight at once
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    concurrency: u32,
    /// A step whose worker has been silent for this long goes to another
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = at_least_100ms)]
    lease: Duration,
    /// How long steps in flight may take after a request to stop
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    drain: Duration,
    /// Tasks that record results, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    completers: u8,
    /// The worker's name in lists and logs [default: host and process]
    #[arg(long)]
    name: Option<String>,
}

/// Leases are renewed at a third of their time, by statements that take some milliseconds.
fn at_least_100ms(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        lease if lease < Duration::from_millis(100) => Err(format!("a lease of `{text}` is too short; give at least 100ms")),
        lease => Ok(lease),
    }
}

impl Worker {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let mut signals = Signals::listen()?;
        let session = Session::open(config).await?;
        let worker = self.options.start(&session.engine).await?;
        let signal = signals.next().await;
        drain(worker, signal, &mut signals).await?;
        session.close().await?;
        Ok(ExitCode::SUCCESS)
    }
}

impl WorkerOptions {
    /// Starts the worker, and says so.
    pub async fn start(&self, engine: &Engine) -> anyhow::Result<Running> {
        let config = WorkerConfig {
            name: self.name.clone().unwrap_or_else(host_and_process),
            queues: self.queues.clone(),
            concurrency: self.concurrency as usize,
            lease: self.lease,
            drain: self.drain,
            completers: usize::from(self.completers),
            ..WorkerConfig::default()
        };
        let (name, queues) = (config.name.clone(), config.queues.join(","));
        let worker = engine.worker(config).await?;
        tracing::info!(name, queues, concurrency = self.concurrency, "worker ready");
        Ok(worker)
    }
}

/// Stops a worker as the first signal asks; the second one insists.
pub async fn drain(worker: Running, signal: &str, signals: &mut Signals) -> anyhow::Result<()> {
    tracing::info!(signal, "draining; a second signal stops at once");
    let insisted = async {
        let signal = signals.next().await;
        tracing::info!(signal, "stopping at once");
    };
    worker.stop_or(insisted).await?;
    tracing::info!("worker stopped");
    Ok(())
}

fn host_and_process() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}/{}", std::process::id())
}
