//! A worker process: claims what it has room for, carries it out, and completes it. apalis runs the steps; everything durable is in the
//! commands. No type of apalis leaves this module.
//!
//! `claimer` takes ready steps → `loader` reads what they look at → `backend` hands them to apalis → `execute` finds them a thread →
//! `attempt` carries them out → `completer` records what came of them and goes on with their successors. `heartbeat` renews leases and
//! hears of cancellations; `watchdog` sees to steps that keep their threads.

mod attempt;
mod backend;
mod claimer;
mod completer;
mod execute;
mod expand;
mod flights;
mod gather;
mod heartbeat;
mod limit;
mod loader;
mod pace;
mod page;
mod panics;
mod reader;
mod reconnect;
mod room;
mod runtimes;
mod shared;
#[cfg(test)]
mod tests;
mod thread;
mod underway;
mod watchdog;

pub use runtimes::StepThreads;
pub use shared::Stats;

use crate::{
    commands::Local,
    error::{Error, Result},
    id::RunId,
    store::workers,
    version::Registry,
};
use apalis::layers::{WorkerBuilderExt, tracing::TraceLayer};
use apalis_core::{error::BoxDynError, task::Task, worker::builder::WorkerBuilder};
use shared::{Job, Shared};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use thread::EngineThread;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long the last writes of a worker that stops may take.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Which runs a worker serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Serves {
    /// All that have steps ready in its queues.
    #[default]
    Everything,
    /// The one that [`Worker::serve`] names, and before that only what is handed to it by [`Worker::local`].
    OneRun,
}

/// How a worker works.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// For people: host and process.
    pub name: String,
    /// Task queues it serves, the more important first.
    pub queues: Vec<String>,
    /// Which runs.
    pub serves: Serves,
    /// Steps in flight at once.
    pub concurrency: usize,
    /// A lease that is not renewed for this long is taken over; it is renewed three times as often.
    pub lease: Duration,
    /// How often it looks for work though nobody has told it of any.
    pub poll: Duration,
    /// After a request to stop, how long steps in flight may take before they are given back.
    pub drain: Duration,
    /// Tasks that complete, each with a connection of its own.
    pub completers: usize,
    /// Threads that carry out steps; unless given, as many as tokio takes: `TOKIO_WORKER_THREADS`, or one for each processor.
    pub threads: Option<usize>,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            name: "worker".into(),
            queues: vec!["default".into()],
            serves: Serves::Everything,
            concurrency: 1024,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            drain: Duration::from_secs(30),
            completers: 2,
            threads: None,
        }
    }
}

impl WorkerConfig {
    /// The queues that others may count on it for: none, where it serves one run.
    fn known_for<'a>(&self, queues: &'a [i16]) -> &'a [i16] {
        match self.serves {
            Serves::Everything => queues,
            Serves::OneRun => &[],
        }
    }
}

/// A worker that is asked after from elsewhere.
pub(crate) struct Watched(Weak<Shared>);

impl Watched {
    /// How its step threads stand; none once it has ended.
    pub fn step_threads(&self) -> Option<StepThreads> {
        self.0.upgrade().filter(|shared| !shared.closed.is_cancelled()).map(|shared| shared.runtimes.standing())
    }
}

/// A running worker.
pub struct Worker {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    steps: tokio::task::JoinHandle<Result<(), apalis_core::error::WorkerError>>,
    /// Outlives its tasks.
    _thread: EngineThread,
}

impl Worker {
    /// Registers the worker and starts to work. The database must have this binary's schema. Notifications are listened for at a place of
    /// their own, since they pass no transaction pooler; where they do not come, polling serves.
    pub async fn start(options: &PgConnectOptions, listen_at: &PgConnectOptions, registry: Registry, config: WorkerConfig) -> Result<Self> {
        let (thread, mut tasks) = (EngineThread::start().await?, JoinSet::new());
        let mut conn = PgConnection::connect_with(options).await?;
        crate::commands::check_schema(&mut conn).await?;
        let queues = workers::queue_ids(&mut conn, &config.queues).await?;
        let id = workers::register(&mut conn, &config.name, config.known_for(&queues), config.concurrency as i32).await?;
        let (shared, channels) = Shared::new((options.clone(), listen_at.clone()), registry, config, id, queues)?;
        for completions in channels.completions {
            tasks.spawn_on(completer::run(shared.clone(), completions), &thread.handle);
        }
        tasks.spawn_on(loader::run(shared.clone(), channels.to_load), &thread.handle);
        tasks.spawn_on(claimer::run(shared.clone()), &thread.handle);
        tasks.spawn_on(heartbeat::run(shared.clone()), &thread.handle);
        tasks.spawn_on(watchdog::run(shared.clone()), &thread.handle);
        let backend = backend::StepBackend::new(shared.clone(), channels.jobs);
        let carry_out = shared.clone();
        let worker = WorkerBuilder::new(shared.config.name.clone())
            .backend(backend)
            .layer(TraceLayer::new().make_span_with(span))
            .catch_panic()
            .build(move |job: Arc<Job>| {
                let shared = carry_out.clone();
                async move { Ok::<_, BoxDynError>(execute::execute(&shared, job).await) }
            });
        let closed = shared.closed.clone();
        let steps = thread.handle.spawn(worker.run_until(async move {
            closed.cancelled().await;
            Ok::<_, std::io::Error>(())
        }));
        Ok(Self { shared, tasks, steps, _thread: thread })
    }

    /// For commands in the same process: runs may be started with their first steps leased to this worker.
    pub fn local(&self) -> Arc<dyn Local> {
        self.shared.clone()
    }

    /// Names the run that a worker for one run serves; the first one counts.
    pub fn serve(&self, run: RunId) {
        if self.shared.only.set(run).is_ok() {
            self.shared.wake.notify_one();
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> Arc<Stats> {
        self.shared.stats.clone()
    }

    /// How many steps are in flight.
    pub fn in_flight(&self) -> usize {
        self.shared.flights.steps()
    }

    /// For those who ask after it and do not hold it.
    pub(crate) fn watched(&self) -> Watched {
        Watched(Arc::downgrade(&self.shared))
    }

    /// How the threads stand that carry out its steps.
    pub fn step_threads(&self) -> StepThreads {
        self.shared.runtimes.standing()
    }

    /// Fires when the worker is to stop: no more claims, successors go to others, what is in flight may end.
    pub fn stopping(&self) -> CancellationToken {
        self.shared.stopping.clone()
    }

    /// Drains: waits for steps in flight until the deadline, gives back the rest, and returns when everything is recorded.
    pub async fn stop(self) -> Result<()> {
        self.stop_or(std::future::pending()).await
    }

    /// Stops without waiting: steps in flight are dropped and given back.
    pub async fn stop_now(self) -> Result<()> {
        self.stop_or(std::future::ready(())).await
    }

    /// Drains as [`Worker::stop`] does; when `now` completes first, stops as [`Worker::stop_now`] does. When it completes later, while the
    /// last writes are under way, the worker stops without them.
    pub async fn stop_or(mut self, now: impl Future<Output = ()>) -> Result<()> {
        self.shared.stopping.cancel();
        let mut now = std::pin::pin!(now);
        let mut insisted = false;
        tokio::select! {
            () = self.shared.flights.wait_idle() => {}
            () = &mut now => insisted = true,
            () = tokio::time::sleep(self.shared.config.drain) => {}
        }
        // Giving back is a write like another; a database that does not answer must not keep the process.
        let why = tokio::select! {
            ended = self.end() => return ended,
            () = tokio::time::sleep(LAST_WRITES) => "the database does not answer",
            () = &mut now, if !insisted => "asked to stop at once",
        };
        let in_flight = self.shared.flights.steps();
        tracing::warn!(
            in_flight,
            "stopped with steps in flight neither recorded nor given back ({why}); others take them over when their leases expire"
        );
        self.shared.closed.cancel();
        self.tasks.shutdown().await;
        self.steps.abort();
        Ok(())
    }

    /// Gives back what is in flight, lets every task end, and signs off. Each of these waits for the database.
    async fn end(&mut self) -> Result<()> {
        let in_flight = self.shared.flights.steps();
        if in_flight > 0 {
            tracing::info!(in_flight, "giving back steps in flight");
        }
        self.shared.flights.abort();
        self.shared.flights.wait_idle().await;
        self.shared.closed.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(e) = ended {
                tracing::error!(error = %e, "a task of the worker failed");
            }
        }
        match (&mut self.steps).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(Error::Internal(format!("the step runner failed: {e}"))),
            Err(e) => return Err(Error::Internal(format!("the step runner failed: {e}"))),
        }
        // A row that stays says nothing wrong for long: whoever reaps removes the silent.
        if let Err(error) = sign_off(&self.shared).await {
            tracing::warn!(%error, "stopped without signing off");
        }
        Ok(())
    }
}

impl Drop for Worker {
    /// Steps that do not give their threads back are not waited for.
    fn drop(&mut self) {
        self.shared.runtimes.shut_down();
    }
}

async fn sign_off(shared: &Shared) -> Result<()> {
    let mut conn = reconnect::connect(&shared.options).await?;
    workers::remove(&mut conn, shared.worker).await?;
    Ok(())
}

/// What a step logs is found by its run.
fn span(task: &Task<Arc<Job>>) -> tracing::Span {
    let lease = &task.args.lease;
    tracing::debug_span!("step", run = %lease.run, step = lease.step, attempt = lease.attempt)
}
