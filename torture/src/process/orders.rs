//! What a worker, server or client is told.

use crate::ledger::LedgerKind;
use anyhow::Result;
use krowoc_engine::{
    RunId,
    executor::StepKinds,
    fail_point::{self, Point},
};
use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use std::{io::BufRead, path::PathBuf, time::Duration};
use uuid::Uuid;

/// Orders.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    /// What it is called, in the database as well.
    pub name: String,
    /// The database.
    pub url: String,
    /// Where notifications are listened for, if not there.
    pub listen: Option<String>,
    /// Where `ledger` steps write.
    pub ledger: PathBuf,
    /// Where it reports when it has stopped in good order.
    pub report: PathBuf,
    /// What it is.
    pub role: Role,
    /// Where it dies.
    pub dies: Option<FailPoint>,
}

/// What a process is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// `krowoc worker`.
    Worker {
        /// `--concurrency`
        concurrency: u32,
        /// `--lease`
        lease: Duration,
    },
    /// `krowoc serve`.
    Server {
        /// How often it looks for expired leases; a third of the lease.
        reap_every: Duration,
        /// `KROWOC_KEEP_RUNS`
        keep_runs: Option<Duration>,
    },
    /// What a command or a request does: one job after the other, each with an answer on standard output.
    Client {
        /// The jobs.
        jobs: Vec<Job>,
    },
}

/// What a client is to do. Each may be repeated until it is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Start a run, once for the key.
    Start {
        /// The workflow version.
        version: i32,
        /// `input.seed`
        seed: u64,
        /// The idempotency key.
        key: String,
    },
    /// Cancel a run.
    Cancel {
        /// The run.
        run: RunId,
    },
    /// Redrive dead letters.
    Redrive {
        /// The letters.
        letters: Vec<Uuid>,
    },
}

/// The point, and which pass of it is the last: from 1.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct FailPoint {
    /// Where.
    pub point: Point,
    /// When.
    pub nth: u32,
}

impl Orders {
    /// Follows them from here on, in the process that got them: it ends with its parent, and dies where it is told to.
    pub fn obey(&self) -> Result<()> {
        // The system's parent-death signal reaches one that is frozen as well.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that died before the signal was asked for has closed the pipe: then there is nobody to work for.
        std::thread::spawn(|| {
            let mut rest = String::new();
            let _ = std::io::stdin().lock().read_line(&mut rest);
            die();
        });
        if let Some(FailPoint { point, nth }) = self.dies {
            fail_point::arm(point, nth, die);
        }
        Ok(())
    }

    /// What the process knows beside the product's own kinds.
    pub fn kinds(&self, kinds: StepKinds) -> Result<StepKinds> {
        Ok(kinds.with(LedgerKind::open(&self.ledger)?))
    }
}

/// SIGKILL: nothing is closed, nothing is said.
fn die() {
    let _ = kill_process(getpid(), Signal::KILL);
}
