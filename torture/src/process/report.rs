//! What a process says of itself when it has stopped in good order.

use krowoc_engine::worker::Stats;
use serde::{Deserialize, Serialize};
use std::{ops::AddAssign, path::Path, sync::atomic::Ordering::Relaxed};

/// A worker's counters; a server has none.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Steps that it brought to an end.
    pub steps: usize,
    /// Attempts that it began.
    pub started: usize,
    /// Completions that were refused.
    pub refused: usize,
    /// Leases that it took over.
    pub reaped: usize,
    /// Batches that took the locked path.
    pub conflicts: usize,
}

impl Report {
    /// A worker's.
    pub fn of(stats: &Stats) -> Self {
        Self {
            steps: stats.steps.load(Relaxed),
            started: stats.started.load(Relaxed),
            refused: stats.refused.load(Relaxed),
            reaped: stats.reaped.load(Relaxed),
            conflicts: stats.conflicts.load(Relaxed),
        }
    }

    /// Leaves it for who gave the orders.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        Ok(std::fs::write(path, serde_json::to_vec(self)?)?)
    }
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.started += other.started;
        self.refused += other.refused;
        self.reaped += other.reaped;
        self.conflicts += other.conflicts;
    }
}
