//! The engine in one handle, for programs that embed it and for the binary: a pool for commands and queries, the step kinds and versions
//! that the process knows, and workers.

use crate::{
    commands::{self, Cancelled, Local, Registered, StartRun, StartedRun},
    definition::Compiled,
    error::Result,
    executor::StepKinds,
    id::{RunId, Scope},
    maintenance::{Maintenance, MaintenanceConfig},
    version::{Registry, Versions},
    worker::{StepThreads, Watched, Worker, WorkerConfig},
};
use sqlx::{
    Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Whoever needs a connection for longer is told that there is none: that the database is away, or that too many ask.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection that has been idle for longer is tried before it is used.
const TRUSTED: Duration = Duration::from_secs(1);

/// An engine on one database. Cloning it is free.
#[derive(Clone)]
pub struct Engine {
    pool: PgPool,
    options: PgConnectOptions,
    listen_at: PgConnectOptions,
    registry: Registry,
    workers: Arc<Mutex<Vec<Watched>>>,
}

impl Engine {
    /// Connects with up to `connections` connections for commands and queries; workers have their own.
    /// A transaction pooler may stand in front if it keeps prepared statements, as PgBouncer 1.21 does.
    pub async fn connect(options: PgConnectOptions, kinds: StepKinds, connections: u32) -> Result<Self> {
        // Poolers refuse what they do not know at the start of a connection; and since PostgreSQL 12 numbers are exact without it.
        let options = options.extra_float_digits(None);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(PATIENCE)
            // A connection that was used a moment ago is good: asking it again would double what starting a run takes.
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRUSTED {
                        conn.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options.clone())
            .await?;
        let registry = Registry { kinds: Arc::new(kinds), versions: Arc::new(Versions::default()) };
        Ok(Self { pool, listen_at: options.clone(), options, registry, workers: Arc::default() })
    }

    /// Workers of this engine listen for notifications at this place: a way to the database without a transaction pooler.
    pub fn listening_at(self, options: PgConnectOptions) -> Self {
        Self { listen_at: options, ..self }
    }

    /// For queries.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The kinds and versions that this process knows.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Brings the database to this binary's schema.
    pub async fn migrate(&self) -> Result<()> {
        commands::migrate(&mut *self.pool.acquire().await?).await
    }

    /// Refuses a database with another schema.
    pub async fn check_schema(&self) -> Result<()> {
        commands::check_schema(&mut *self.pool.acquire().await?).await
    }

    /// Registers a workflow version; see [`commands::register_workflow`].
    pub async fn register(&self, scope: &Scope, compiled: &Compiled) -> Result<Registered> {
        commands::register_workflow(&mut *self.pool.acquire().await?, scope, compiled).await
    }

    /// Starts runs; see [`commands::start_runs`]. With `local`, their first steps may start in this process at once.
    pub async fn start_runs(&self, scope: &Scope, slice: &[StartRun], local: Option<&dyn Local>) -> Result<Vec<StartedRun>> {
        commands::start_runs(&mut *self.pool.acquire().await?, scope, &self.registry.versions, slice, local).await
    }

    /// Cancels a run; see [`commands::cancel_run`].
    pub async fn cancel(&self, scope: &Scope, run: RunId) -> Result<Cancelled> {
        commands::cancel_run(&mut *self.pool.acquire().await?, scope, run).await
    }

    /// Keeps the installation in order from this process, until what is returned is stopped or dropped.
    pub fn maintain(&self, config: MaintenanceConfig) -> Maintenance {
        Maintenance::start(&self.pool, &self.registry, config)
    }

    /// Starts a worker in this process.
    pub async fn worker(&self, config: WorkerConfig) -> Result<Worker> {
        let worker = Worker::start(&self.options, &self.listen_at, self.registry.clone(), config).await?;
        self.workers().push(worker.watched());
        Ok(worker)
    }

    /// How the step threads stand of each worker that was started here and has not ended.
    pub fn step_threads(&self) -> Vec<StepThreads> {
        let mut workers = self.workers();
        workers.retain(|worker| worker.step_threads().is_some());
        workers.iter().filter_map(Watched::step_threads).collect()
    }

    fn workers(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
