//! What clients are to do, and what they have answered. A job that a dead client has not answered is given to the next, as a careful caller
//! does who does not know.

use crate::{
    process::{Job, Process, Role, client::Answer},
    shapes::{self, MENDED_CHAIN, SLEEPY, Shape},
    world::{Accepted, Cancel, Key, World},
};
use anyhow::{Result, ensure};
use krowoc_engine::RunId;
use std::{collections::HashMap, time::Duration};

/// What jobs are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    Start,
    Cancel,
    Redrive,
}

/// A job, and the run that it starts.
struct Open {
    job: Job,
    accepted: Option<Accepted>,
}

/// Jobs without an answer.
#[derive(Default)]
pub struct Jobs {
    again: Vec<Open>,
    given: HashMap<String, Vec<Open>>,
}

impl Jobs {
    /// Jobs that come to what is asked for, behind those that are to be repeated; none if there is nothing of the kind to do.
    pub async fn next(&mut self, world: &mut World, task: Task) -> Result<Option<Given>> {
        let new = match task {
            Task::Start => starts(world).await?,
            Task::Cancel => cancels(world).await?,
            Task::Redrive => redrives(world).await?,
        };
        // What is repeated comes last: a client that dies of the new has done nothing with the old.
        let given = Given(new.into_iter().chain(std::mem::take(&mut self.again)).collect());
        if given.0.is_empty() {
            return Ok(None);
        }
        Ok(Some(given))
    }

    /// A process has them.
    pub fn given(&mut self, to: &Process, jobs: Given) {
        self.given.insert(to.name.clone(), jobs.0);
    }

    /// The process is gone: takes its answers, and puts back what it has left.
    pub fn take_back(&mut self, from: &Process, world: &mut World) -> Result<()> {
        let answers = from.answers()?;
        let mut answers = answers.iter();
        for open in self.given.remove(&from.name).unwrap_or_default() {
            match answers.next() {
                Some(answer) => note(world, &open, serde_json::from_str(answer)?),
                None => self.again.push(open),
            }
        }
        Ok(())
    }

    /// Has what is left done by clients that nobody harms.
    pub async fn finish(&mut self, world: &mut World) -> Result<()> {
        let jobs = Given(std::mem::take(&mut self.again));
        let mut process = world.start_process(jobs.role(), None)?;
        self.given(&process, jobs);
        let status = process.end(Duration::from_secs(60)).await?;
        ensure!(status.success(), "a client failed: {}", process.last_words());
        self.take_back(&process, world)
    }
}

/// Jobs for a process.
pub struct Given(Vec<Open>);

impl Given {
    /// For its orders.
    pub fn role(&self) -> Role {
        Role::Client { jobs: self.0.iter().map(|open| open.job.clone()).collect() }
    }
}

fn note(world: &mut World, open: &Open, answer: Answer) {
    match (&open.job, answer) {
        (Job::Start { .. }, Answer::Started(run)) => {
            world.runs.extend(open.accepted.map(|accepted| (run, accepted)));
        }
        (Job::Cancel { run }, Answer::Cancelled) => cancel(world, *run, Cancel::Acknowledged),
        (Job::Cancel { run }, Answer::TooLate) if world.runs.get(run).is_some_and(|accepted| accepted.shape == SLEEPY) => {}
        (Job::Cancel { run }, Answer::TooLate) => cancel(world, *run, Cancel::None),
        (Job::Redrive { .. }, Answer::Redriven(_)) => {}
        (job, answer) => world.findings().violation(format!("{job:?} was answered with {answer:?}")),
    }
}

fn cancel(world: &mut World, run: RunId, cancel: Cancel) {
    if let Some(accepted) = world.runs.get_mut(&run) {
        accepted.cancel = cancel;
    }
}

async fn starts(world: &mut World) -> Result<Vec<Open>> {
    let mut jobs = vec![];
    for shape in [shapes::CHAIN, MENDED_CHAIN, shapes::FAN, MENDED_CHAIN] {
        let (request, accepted) = world.request(shape, Key::Own).await?;
        let key = request.idempotency_key.unwrap_or_default();
        let job = Job::Start { version: request.version.0, seed: accepted.seed, key };
        jobs.push(Open { job, accepted: Some(accepted) });
    }
    Ok(jobs)
}

/// Of runs that were just started: some are over when it is their turn, two never are.
async fn cancels(world: &mut World) -> Result<Vec<Open>> {
    let shapes: [Shape; 4] = [SLEEPY, shapes::CHAIN, SLEEPY, shapes::BARE_MAP];
    let runs = world.start(&shapes).await?;
    runs.iter().for_each(|run| cancel(world, *run, Cancel::Asked));
    Ok(runs.into_iter().map(|run| Open { job: Job::Cancel { run }, accepted: None }).collect())
}

async fn redrives(world: &mut World) -> Result<Vec<Open>> {
    let letters = world.letters_to_redrive().await?;
    Ok(letters.into_iter().map(|letters| Open { job: Job::Redrive { letters }, accepted: None }).collect())
}
