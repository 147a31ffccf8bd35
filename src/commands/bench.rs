//! `krowoc bench`

use crate::{
    bench::{self, Settings, Work},
    config::Config,
    database::Session,
    output,
};
use clap::Args;
use krowoc_engine::VersionId;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc bench chain
  krowoc bench throughput --json | jq .value
  krowoc bench fanout --items 100000
  krowoc bench latency --across
  krowoc bench backlog --history 1000000 --old-snapshot
  krowoc bench rest 2> log             one line of log for each request is part of it

Each work takes less than a minute. It runs on a throw-away PostgreSQL of its own, or with DATABASE_URL in a scratch database on that \
server, and measures plain statements over the same kind of connection beside it: that is the floor.")]
pub struct Bench {
    /// What to measure
    work: Work,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// With --json: the table too, on standard error
    #[arg(long, hide = true, requires = "json")]
    table: bool,
    /// Runs, where the work has a number of them
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    runs: Option<usize>,
    /// fanout: items of the map; inflight: calls; page: steps of history
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    items: Option<usize>,
    /// throughput: how often it is measured; the median counts
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    passes: usize,
    /// latency, idle: for how long
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Steps in flight at once in the worker
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    concurrency: Option<usize>,
    /// latency: runs come from another process
    #[arg(long)]
    across: bool,
    /// backlog: so many finished steps are in the database before
    #[arg(long, value_name = "N", default_value = "0")]
    history: usize,
    /// backlog: a transaction that began before stays open
    #[arg(long)]
    old_snapshot: bool,
    /// The other process of `latency --across`: starts runs of this version on the database of DATABASE_URL
    #[arg(long, hide = true, requires = "runs")]
    submit: Option<i32>,
}

impl Bench {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        if let (Some(version), Some(runs)) = (self.submit, self.runs) {
            let session = Session::open(config).await?;
            output::json(&bench::submit_to(&session.engine, VersionId(version), runs).await?)?;
            session.close().await?;
            return Ok(ExitCode::SUCCESS);
        }
        let Self { runs, items, passes, seconds, concurrency, across, history, old_snapshot, .. } = self;
        let settings = Settings { runs, items, passes, seconds, concurrency, across, history, old_snapshot };
        let report = bench::measure(config, self.work, &settings).await?;
        if self.table {
            output::note(report.table().trim_end());
        }
        match self.json {
            true => output::json(&report)?,
            false => output::bytes(report.table().as_bytes())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
