//! `krowoc serve`

use crate::{
    config::Config,
    database::Session,
    operations::{self, Operations},
    signals::Signals,
};
use clap::Args;
use krowoc_engine::{executor::StepKinds, maintenance::MaintenanceConfig};
use std::{net::SocketAddr, process::ExitCode, time::Duration};

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc serve
  krowoc serve --bind 0.0.0.0:7070
  curl -s http://127.0.0.1:7070/health/ready

Serves /health/live, /health/ready and /metrics, and keeps the installation in order: overdue runs are stopped, leases of lost workers \
taken over, and runs that ended longer ago than KROWOC_KEEP_RUNS removed. Steps are carried out by `krowoc worker`. Any number of \
processes may serve. SIGTERM and Ctrl-C stop it when the requests under way have ended.")]
pub struct Serve {
    /// Where to listen [default: KROWOC_BIND, else 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub bind: Option<SocketAddr>,
}

/// How often what nobody looks after is looked for: a third of the usual lease, as a worker does.
const REAP_EVERY: Duration = Duration::from_secs(10);
/// How often queues are measured: the usual interval of scrapes.
pub const MEASURE_EVERY: Duration = Duration::from_secs(15);

impl Serve {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        self.serve(config, config.step_kinds(), REAP_EVERY).await
    }

    /// With these kinds, looking that often for what nobody looks after.
    pub async fn serve(self, config: &Config, kinds: StepKinds, reap_every: Duration) -> anyhow::Result<ExitCode> {
        let metrics = operations::measure()?;
        let server = operations::bind(self.bind.unwrap_or(config.bind), "--bind or KROWOC_BIND").await?;
        let session = Session::open_with(config, kinds).await?;
        let mut signals = Signals::listen()?;
        let maintenance = session.engine.maintain(MaintenanceConfig {
            reap_every: Some(reap_every),
            keep_runs: config.keep_runs,
            measure_every: Some(MEASURE_EVERY),
        });
        let mut operations = Operations::start(server, session.engine.clone(), metrics);
        let ended = tokio::select! {
            signal = signals.next() => {
                tracing::info!(signal, "stopping");
                Ok(())
            }
            error = operations.failed() => Err(error),
        };
        maintenance.stop().await;
        if ended.is_ok() {
            tokio::select! {
                stopped = operations.stop() => stopped?,
                signal = signals.next() => tracing::info!(signal, "stopping at once"),
            }
        }
        session.close().await?;
        ended.map(|()| ExitCode::SUCCESS)
    }
}
