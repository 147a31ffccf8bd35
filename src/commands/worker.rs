//! `krowoc worker`

use crate::{
    config::Config,
    database::{self, Session},
    duration,
    operations::{self, Operations, Surface},
    signals::Signals,
};
use clap::Args;
use futures::future::join_all;
use krowoc_engine::{
    Engine,
    executor::StepKinds,
    maintenance::MaintenanceConfig,
    worker::{Stats, Worker as Running, WorkerConfig},
};
use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc worker
  krowoc worker --queue gpu --queue default --concurrency 64
  DATABASE_URL=postgres://krowoc@db/krowoc krowoc worker --drain 5m --bind 0.0.0.0:7071

SIGTERM and Ctrl-C drain: no new steps start, those that run may end until --drain is over, the rest is given back for other \
workers. A second signal gives back at once. The exit code is 0 either way.")]
pub struct Worker {
    /// A task queue to serve; may be given more than once, the more important first
    #[arg(long = "queue", value_name = "QUEUE", default_value = "default", value_parser = queue)]
    pub queues: Vec<String>,
    /// Steps in flight at once
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub concurrency: u32,
    /// A step whose worker has been silent for this long goes to another
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = at_least_100ms)]
    pub lease: Duration,
    /// How long steps in flight may take after a request to stop
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    pub drain: Duration,
    /// Tasks that record results, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub completers: u8,
    /// The worker's name in lists and logs [default: host and process]
    #[arg(long)]
    pub name: Option<String>,
    /// Where to serve health and metrics [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub bind: Option<SocketAddr>,
}

/// Leases are renewed at a third of their time, by statements that take some milliseconds.
fn at_least_100ms(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        lease if lease < Duration::from_millis(100) => Err(format!("a lease of `{text}` is too short; give at least 100ms")),
        lease => Ok(lease),
    }
}

impl Worker {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        self.work(config, config.step_kinds()).await?;
        Ok(ExitCode::SUCCESS)
    }

    /// With these kinds, until a signal; gives what it has counted.
    pub async fn work(self, config: &Config, kinds: StepKinds) -> anyhow::Result<Arc<Stats>> {
        let http = match self.bind {
            Some(address) => Some((operations::bind(address, "--bind").await?, operations::measure()?)),
            None => None,
        };
        let session = Session::open_with(config, kinds).await?;
        let mut signals = Signals::listen()?;
        let within = self.drain;
        let worker = start(&session.engine, self.config()).await?;
        let stats = worker.stats();
        let maintenance = session.engine.maintain(MaintenanceConfig { keep_runs: config.keep_runs, ..Default::default() });
        let operations = http.map(|(server, metrics)| Operations::start(server, session.engine.clone(), metrics, Surface::Operators));
        let signal = signals.next().await;
        if let Some(operations) = &operations {
            operations.drain();
        }
        drain(vec![worker], within, signal, &mut signals).await?;
        maintenance.stop().await;
        if let Some(operations) = operations {
            operations.stop().await?;
        }
        session.close().await?;
        Ok(stats)
    }

    fn config(self) -> WorkerConfig {
        WorkerConfig {
            name: self.name.unwrap_or_else(host_and_process),
            queues: self.queues,
            concurrency: self.concurrency as usize,
            lease: self.lease,
            drain: self.drain,
            completers: usize::from(self.completers),
            ..WorkerConfig::default()
        }
    }
}

/// Starts a worker, and says what it serves and where.
pub async fn start(engine: &Engine, config: WorkerConfig) -> anyhow::Result<Running> {
    let WorkerConfig { name, queues, concurrency, lease, .. } = config.clone();
    let worker = engine.worker(config).await?;
    let options = engine.pool().connect_options();
    let (host, database) = database::place(&options);
    tracing::info!(name, queues = queues.join(","), concurrency, ?lease, host, database, "worker ready");
    Ok(worker)
}

/// Stops workers as the first signal asks, which may take as long as they have been told; the next one insists.
pub async fn drain(workers: Vec<Running>, within: Duration, signal: &str, signals: &mut Signals) -> anyhow::Result<()> {
    let in_flight: usize = workers.iter().map(Running::in_flight).sum();
    tracing::info!(signal, in_flight, ?within, "draining; a second signal stops at once");
    let now = CancellationToken::new();
    let insist = async {
        let signal = signals.next().await;
        tracing::info!(signal, "stopping at once");
        now.cancel();
        std::future::pending::<()>().await
    };
    let stopped = join_all(workers.into_iter().map(|worker| worker.stop_or(now.cancelled())));
    let stopped = tokio::select! {
        stopped = stopped => stopped,
        () = insist => Vec::new(),
    };
    stopped.into_iter().collect::<Result<(), _>>()?;
    tracing::info!("worker stopped");
    Ok(())
}

/// What a worker is called where nobody has named it.
pub fn host_and_process() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}/{}", std::process::id())
}

/// A task queue's name, as the database has it.
fn queue(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = name.len() <= 63 && name.starts_with(plain) && name.chars().all(|c| plain(c) || "_.-".contains(c));
    match fits {
        true => Ok(name.to_owned()),
        false => Err("a queue has 1 to 63 small letters, digits, `_`, `.` and `-`, the first a letter or a digit".into()),
    }
}
