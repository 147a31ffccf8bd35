//! `krowoc serve`

use crate::{
    api_token,
    config::Config,
    database::Session,
    operations::{self, Operations, Surface},
    signals::Signals,
};
use clap::Args;
use krowoc_api::Hosts;
use krowoc_engine::{executor::StepKinds, maintenance::MaintenanceConfig};
use std::{net::SocketAddr, process::ExitCode, time::Duration};

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc serve
  krowoc serve --bind 0.0.0.0:7070
  curl -s http://127.0.0.1:7070/health/ready
  curl -s http://127.0.0.1:7070/api/v1/runs -H \"Authorization: Bearer $TOKEN\"

Serves REST under /api/v1 (docs at /api/v1/docs) for whoever has the token, and /health/live, /health/ready and /metrics for everybody. \
The token is KROWOC_API_TOKEN, or else the one that the first start made and showed once on standard output; `krowoc token renew` replaces \
it. Between other machines and this one put something that speaks TLS. Serving keeps the installation in order: overdue runs are stopped, leases of lost workers \
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
        let (guard, made) = api_token::guard(&session.engine, config.api_token.as_ref()).await?;
        made.iter().try_for_each(api_token::show)?;
        let surface = Surface::All { guard, hosts: Hosts::Any };
        let mut operations = Operations::start(server, session.engine.clone(), metrics, surface);
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
