//! A place for a process: what it is, how it is to die, and its successor.

use super::{
    Deaths,
    jobs::{Jobs, Task},
    plans::{Kind, Plan, Plans},
};
use crate::{
    dice::Dice,
    process::{FailPoint, Process, was_killed},
    retire,
    shapes::FAN,
    world::World,
};
use anyhow::{Result, bail};
use krowoc_engine::fail_point::Site;
use std::time::{Duration, Instant};

/// Runs that have ended that long ago are removed; those that are to be removed are dated back.
pub const KEEP_RUNS: Duration = Duration::from_secs(3600);
/// A process that has not come to its point by then makes room for another.
const PATIENCE: Duration = Duration::from_secs(15);

/// A process with its plan.
pub struct Slot {
    pub kind: Kind,
    pub process: Process,
    plan: Option<Plan>,
    /// Since when it works, or is there where it does not say so.
    since: Instant,
    ready: bool,
}

/// What a look at it has found.
#[derive(PartialEq, Eq)]
pub enum Look {
    /// It lives.
    Lives,
    /// It is gone, as it was meant to.
    Gone,
}

impl Slot {
    /// A process that dies as the next plan of its kind says, if that can be had now; one that lives where no plan is left. None: a client that
    /// has nothing to do.
    pub async fn fill(kind: Kind, world: &mut World, plans: &mut Plans, jobs: &mut Jobs, dice: &mut Dice) -> Result<Option<Self>> {
        let plan = plans.next(kind);
        let dies = match plan {
            Some(Plan::At(point)) => Some(point),
            _ => None,
        };
        let started = match kind {
            Kind::Worker => Some(world.start_process(world.worker(), dies)?),
            Kind::Server => {
                let pruned = retire::some(world, FAN).await?;
                let possible = pruned > 0 || dies.is_none_or(|at| at.point.site != Site::Prune);
                if possible { Some(world.start_process(world.server(Some(KEEP_RUNS)), dies)?) } else { None }
            }
            Kind::Client if plan.is_none() => return Ok(None),
            Kind::Client => client(world, jobs, dies, dice).await?,
        };
        match (started, plan) {
            (Some(process), plan) => Ok(Some(Self::new(kind, process, plan))),
            (None, Some(plan)) => {
                plans.later(kind, plan);
                let process = match kind {
                    Kind::Client => {
                        let Some(given) = jobs.next(world, Task::Start).await? else { return Ok(None) };
                        let process = world.start_process(given.role(), None)?;
                        jobs.given(&process, given);
                        process
                    }
                    _ => world.start_process(world.server(Some(KEEP_RUNS)), None)?,
                };
                // Soon there is something to do.
                Ok(Some(Self::new(kind, process, None)))
            }
            (None, None) => Ok(None),
        }
    }

    fn new(kind: Kind, process: Process, plan: Option<Plan>) -> Self {
        Self { kind, process, plan, since: Instant::now(), ready: kind == Kind::Client }
    }

    /// Is it to die?
    pub fn is_doomed(&self) -> bool {
        self.plan.is_some()
    }

    /// Sees whether it has died, and kills it if its time has come.
    pub fn look(&mut self, plans: &mut Plans, deaths: &mut Deaths) -> Result<Look> {
        if let Some(status) = self.process.ended()? {
            match self.plan.take() {
                Some(Plan::At(FailPoint { point, .. })) if was_killed(status) => deaths.at_point(self, point),
                // A client that is done before its time.
                plan if self.kind == Kind::Client && status.success() => {
                    plan.into_iter().for_each(|plan| plans.later(self.kind, plan));
                }
                _ => bail!("{} ended by itself ({status}): {}", self.process.name, self.process.last_words()),
            }
            return Ok(Look::Gone);
        }
        if !self.ready {
            self.ready = self.process.is_ready();
            if self.ready {
                self.since = Instant::now();
            }
        }
        match self.plan {
            Some(Plan::After(ms)) if self.ready && self.since.elapsed() >= Duration::from_millis(ms) => {
                self.plan = None;
                let at = self.process.kill()?;
                deaths.at_random(self, at);
                Ok(Look::Gone)
            }
            Some(Plan::At(at)) if self.since.elapsed() >= PATIENCE => {
                self.plan = None;
                if deaths.missed(at.point) {
                    plans.later(self.kind, Plan::At(at));
                }
                let at = self.process.kill()?;
                deaths.in_vain(self, at);
                Ok(Look::Gone)
            }
            // Nothing was to be had for it when it was started; now there may be.
            None if self.kind == Kind::Server && plans.left_of(self.kind) > 0 && self.since.elapsed() >= Duration::from_millis(300) => {
                let at = self.process.kill()?;
                deaths.in_vain(self, at);
                Ok(Look::Gone)
            }
            _ => Ok(Look::Lives),
        }
    }
}

async fn client(world: &mut World, jobs: &mut Jobs, dies: Option<FailPoint>, dice: &mut Dice) -> Result<Option<Process>> {
    let task = match dies.map(|at| at.point.site) {
        Some(Site::Stop) => Task::Cancel,
        Some(Site::Redrive) => Task::Redrive,
        Some(_) => Task::Start,
        None => *dice.pick(&[Task::Start, Task::Cancel, Task::Redrive]),
    };
    let Some(given) = jobs.next(world, task).await? else { return Ok(None) };
    let process = world.start_process(given.role(), dies)?;
    jobs.given(&process, given);
    Ok(Some(process))
}
