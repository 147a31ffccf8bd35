//! What keeps an installation in order while it runs: lost leases are taken over, runs whose time is up are stopped, old runs go by
//! policy, and queues are measured. Every part may run in any number of processes at once; none holds state. What changes is the
//! commands' business, when is decided here.

mod queue_gauges;
pub(crate) mod reaper;
mod retention;

use crate::version::Registry;
use sqlx::PgPool;
use std::time::Duration;
use tokio::{
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval},
};

/// What is to be kept in order, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct MaintenanceConfig {
    /// How often expired leases and overdue runs are looked for. None where a worker runs in the process: it does so by itself.
    pub reap_every: Option<Duration>,
    /// Runs that ended longer ago are removed. None: runs are kept for ever.
    pub keep_runs: Option<Duration>,
    /// How often the queues' gauges are set. None: they are not.
    pub measure_every: Option<Duration>,
}

/// Maintenance under way; ends when dropped.
pub struct Maintenance {
    tasks: JoinSet<()>,
}

impl Maintenance {
    pub(crate) fn start(pool: &PgPool, registry: &Registry, config: MaintenanceConfig) -> Self {
        let mut tasks = JoinSet::new();
        if let Some(every) = config.reap_every {
            tasks.spawn(reaper::run(pool.clone(), registry.versions.clone(), every));
        }
        if let Some(age) = config.keep_runs {
            tasks.spawn(retention::run(pool.clone(), age));
        }
        if let Some(every) = config.measure_every {
            tasks.spawn(queue_gauges::run(pool.clone(), every));
        }
        Self { tasks }
    }

    /// Stops: what has not been committed is as if it had not begun.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Rounds at least so far apart, the first at once.
fn rounds(every: Duration) -> Interval {
    let mut rounds = interval(every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds
}
