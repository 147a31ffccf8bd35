//! `krowoc bench`: what this machine does. One file per work; each measures the product's own path beside a floor of plain statements in
//! the same run, checks that every result is right, and leaves nothing behind. Nothing of the product depends on this.

mod backlog;
mod chain;
mod client;
mod fanout;
mod floor;
mod flows;
mod ground;
mod idle;
mod inflight;
mod latency;
mod meter;
mod noop;
mod page;
mod report;
mod rest;
mod spread;
mod throughput;

pub use latency::submit_to;
pub use report::Report;

use crate::{config::Config, signals::Signals};
use anyhow::anyhow;
use clap::ValueEnum;
use ground::Ground;
use krowoc_engine::worker::WorkerConfig;
use noop::Noop;
use std::time::SystemTime;
use tokio::sync::mpsc;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Work {
    /// ms per step of a run of 100 steps in a row
    Chain,
    /// steps/s of 20,000 runs of 5 steps, submission included
    Throughput,
    /// ms for a map of 1,000 items, its collected results and the step behind it
    Fanout,
    /// ms from starting a run until its first step is carried out, at 50 a second
    Latency,
    /// runs/s while a backlog of 100,000 runs of 5 steps is worked off
    Backlog,
    /// resident MB while 10,000 simulated model calls wait, and ms to cancel them all
    Inflight,
    /// % of a core and statements/s of a server and a worker with nothing to do
    Idle,
    /// runs/s started one by one over REST, by 64 callers
    Rest,
    /// runs/s started over REST in batches of 1,000
    RestBulk,
    /// ms for a page of a run with a million steps of history, over REST
    Page,
}

/// How it is measured; none: as the reference figures were.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Runs of the work.
    pub runs: Option<usize>,
    /// Items of a map, calls in flight, or steps of history.
    pub items: Option<usize>,
    /// How often it is measured; the median counts.
    pub passes: usize,
    /// How long, where time is what is measured over.
    pub seconds: Option<u64>,
    /// Steps in flight at once; none: the worker's default.
    pub concurrency: Option<usize>,
    /// Runs come from another process.
    pub across: bool,
    /// Finished steps that are in the database before.
    pub history: usize,
    /// A transaction that began before stays open.
    pub old_snapshot: bool,
}

impl Settings {
    fn concurrency(&self) -> usize {
        self.concurrency.unwrap_or_else(|| WorkerConfig::default().concurrency)
    }
}

/// Measures a work. An interruption removes the database all the same.
pub async fn measure(config: &Config, work: Work, settings: &Settings) -> anyhow::Result<Report> {
    let mut signals = Signals::listen()?;
    let (started, mut starts) = mpsc::unbounded_channel();
    let noop = Noop { started: (work == Work::Latency).then_some(started) };
    let server_settings: &[_] = if work == Work::Idle { &idle::SERVER_SETTINGS } else { &[] };
    let ground = Ground::open(config, noop, server_settings).await?;
    let measuring = async {
        match work {
            Work::Chain => chain::measure(&ground, settings).await,
            Work::Throughput => throughput::measure(&ground, settings).await,
            Work::Fanout => fanout::measure(&ground, settings).await,
            Work::Latency => latency::measure(&ground, settings, &mut starts).await,
            Work::Backlog => backlog::measure(&ground, settings).await,
            Work::Inflight => inflight::measure(&ground, settings).await,
            Work::Idle => idle::measure(&ground, settings).await,
            Work::Rest => rest::one_by_one(&ground, settings).await,
            Work::RestBulk => rest::bulk(&ground, settings).await,
            Work::Page => page::measure(&ground, settings).await,
        }
    };
    let measured = tokio::select! {
        measured = measuring => measured,
        signal = signals.next() => Err(anyhow!("stopped by {signal}")),
    };
    ground.close().await?;
    measured
}

/// The machine's clock, which two processes share; the database's would cost a round trip.
#[expect(clippy::disallowed_methods, reason = "moments are compared between processes of one machine; nothing durable depends on them")]
fn now() -> SystemTime {
    SystemTime::now()
}
