//! Clients that don't hear what became of a commit: each reads it, and then sends its request again, which must come to the same.

use crate::{
    process::{
        Job,
        client::{Answer, carry_out},
    },
    proxy::{Cuts, Side, wire::Act},
    shapes::{BARE_MAP, CHAIN, SLEEPY, Shape},
    world::{Accepted, Cancel, Key, World},
};
use anyhow::{Context, Result, anyhow};
use futures::future::try_join_all;
use krowoc_engine::{Error, RunId, Scope, version::Versions};
use sqlx::{Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use std::{str::FromStr, sync::Arc};

/// Requests at once.
const CLIENTS: usize = 6;

/// Clients with a connection each, all through the proxy.
pub struct Clients {
    clients: Vec<Client>,
    cuts: Arc<Cuts>,
    /// Commits of which a client did not know, and that the database had.
    pub happened: u64,
    /// … and that it had not.
    pub not_happened: u64,
}

struct Client {
    name: String,
    options: PgConnectOptions,
    conn: Option<PgConnection>,
    versions: Arc<Versions>,
    scope: Scope,
    pool: PgPool,
    cuts: Arc<Cuts>,
}

/// What came of a request: the answer in the end, and what had been read each time that there was none.
struct Done {
    answer: Answer,
    happened: Vec<bool>,
}

impl Clients {
    /// They connect when they have something to do.
    pub fn connect(url: &str, cuts: Arc<Cuts>, world: &World) -> Result<Self> {
        let client = |n: usize| {
            let name = format!("client-of-cuts-{n}");
            anyhow::Ok(Client {
                options: PgConnectOptions::from_str(url)?.application_name(&name).extra_float_digits(None),
                name,
                conn: None,
                versions: world.engine.registry().versions.clone(),
                scope: world.scope.clone(),
                pool: world.engine.pool().clone(),
                cuts: cuts.clone(),
            })
        };
        Ok(Self { clients: (0..CLIENTS).map(client).collect::<Result<_>>()?, cuts, happened: 0, not_happened: 0 })
    }

    /// A request each, all at once, of kinds that have cuts to come.
    pub async fn round(&mut self, world: &mut World) -> Result<()> {
        let jobs = self.jobs(world).await?;
        let requests = self.clients.iter_mut().zip(&jobs).map(|(client, (job, _))| client.request(job));
        let done = try_join_all(requests).await?;
        for ((job, accepted), done) in jobs.iter().zip(done) {
            self.happened += done.happened.iter().filter(|had| **had).count() as u64;
            self.not_happened += done.happened.iter().filter(|had| !**had).count() as u64;
            self.note(world, job, *accepted, &done);
        }
        Ok(())
    }

    async fn jobs(&self, world: &mut World) -> Result<Vec<(Job, Option<Accepted>)>> {
        let mut jobs = vec![];
        if self.cuts.left_of(Act::Start) > 0 {
            for _ in 0..2 {
                let (request, accepted) = world.request(CHAIN, Key::Own).await?;
                let key = request.idempotency_key.unwrap_or_default();
                jobs.push((Job::Start { version: request.version.0, seed: accepted.seed, key }, Some(accepted)));
            }
        }
        if self.cuts.left_of(Act::Cancel) > 0 {
            let shapes: [Shape; 2] = [SLEEPY, BARE_MAP];
            for run in world.start(&shapes).await? {
                set(world, run, Cancel::Asked);
                jobs.push((Job::Cancel { run }, None));
            }
        }
        if self.cuts.left_of(Act::Redrive) > 0 {
            let letters = world.letters_to_redrive().await?;
            jobs.extend(letters.into_iter().take(2).map(|letters| (Job::Redrive { letters }, None)));
        }
        Ok(jobs)
    }

    fn note(&self, world: &mut World, job: &Job, accepted: Option<Accepted>, done: &Done) {
        let had_happened = done.happened.contains(&true);
        match (job, done.answer) {
            (Job::Start { .. }, Answer::Started(run)) => world.runs.extend(accepted.map(|accepted| (run, accepted))),
            (Job::Cancel { run }, Answer::Cancelled) => set(world, *run, Cancel::Acknowledged),
            (Job::Cancel { run }, Answer::TooLate) if !had_happened => set(world, *run, Cancel::None),
            // Its letters are redriven already, and it says so.
            (Job::Redrive { .. }, Answer::Redriven(n)) if (n == 0) == had_happened => {}
            (job, answer) => world.findings().violation(format!("I8: {job:?} was answered with {answer:?} after {:?}", done.happened)),
        }
    }
}

fn set(world: &mut World, run: RunId, cancel: Cancel) {
    if let Some(accepted) = world.runs.get_mut(&run) {
        accepted.cancel = cancel;
    }
}

impl Client {
    /// Sends it until it is answered. What a cut leaves unknown is read, and must be as the cut was made.
    async fn request(&mut self, job: &Job) -> Result<Done> {
        let mut happened = vec![];
        loop {
            let conn = match &mut self.conn {
                Some(conn) => conn,
                none => none.insert(PgConnection::connect_with(&self.options).await?),
            };
            let error = match carry_out(conn, &self.versions, &self.scope, job).await {
                Ok(answer) => return Ok(Done { answer, happened }),
                Err(error) => error,
            };
            self.conn = None;
            let cut = match error {
                Error::Store(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => self.cuts.take(&self.name),
                _ => None,
            };
            let cut = cut.ok_or_else(|| anyhow!(error).context(format!("{job:?}, whose connection was not cut")))?;
            let had = self.has_happened(job).await?;
            // What had happened stays so, also when it is sent again and that is cut.
            if had != (cut.side == Side::After || happened.contains(&true)) {
                return Err(anyhow!("I2: {job:?} had {}happened after {cut:?}", if had { "" } else { "not " }));
            }
            happened.push(had);
        }
    }

    /// Past the proxy.
    async fn has_happened(&self, job: &Job) -> Result<bool> {
        let asked = match job {
            Job::Start { key, .. } => {
                sqlx::query_scalar("SELECT EXISTS (SELECT FROM krowoc.run WHERE idempotency_key = $1)")
                    .bind(key)
                    .fetch_one(&self.pool)
                    .await
            }
            Job::Cancel { run } => {
                let sql = "SELECT status IN ('cancelling', 'cancelled') FROM krowoc.run WHERE id = $1";
                sqlx::query_scalar(sql).bind(run.0).fetch_one(&self.pool).await
            }
            Job::Redrive { letters } => {
                let sql = "SELECT bool_and(state = 'redriven') FROM krowoc.dead_letter WHERE id = ANY ($1)";
                sqlx::query_scalar(sql).bind(letters).fetch_one(&self.pool).await
            }
        };
        asked.context("reading what has happened")
    }
}
