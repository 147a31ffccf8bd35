//! What a worker's tasks share: slots, steps in flight, channels, counters.

use super::{
    flights::{Flight, Flights},
    runtimes::StepRuntimes,
    underway::Register,
};
use crate::{
    commands::complete_attempts::{Completion, Inputs, Outcome},
    error::Result,
    id::RunId,
    measures::WorkerMeasures,
    store::{
        holder::Claimant,
        rows::{Lease, VersionedState},
    },
    version::{Registry, Version},
    worker::{WorkerConfig, reader::Readers},
};
use sqlx::postgres::PgConnectOptions;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI16, AtomicI64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// A leased step on its way through the worker.
#[derive(Debug)]
pub(crate) struct Job {
    pub lease: Lease,
    pub version: Arc<Version>,
    pub loaded: Option<VersionedState>,
    pub inputs: Inputs,
    pub flight: Flight,
}

/// Counters since the worker's start.
#[derive(Default, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Stats {
    pub steps: AtomicUsize,
    pub runs: AtomicUsize,
    pub claims: AtomicUsize,
    pub commits: AtomicUsize,
    pub conflicts: AtomicUsize,
    pub refused: AtomicUsize,
    pub reaped: AtomicUsize,
    pub started: AtomicUsize,
    /// Wakes whoever waits for runs to end.
    pub ended: Notify,
}

pub(crate) struct Shared {
    pub options: PgConnectOptions,
    /// Where notifications are listened for.
    pub listen_at: PgConnectOptions,
    /// Where steps are carried out; the engine's tasks have a thread of their own.
    pub runtimes: StepRuntimes,
    /// Steps that have tasks there.
    pub underway: Register,
    /// No thread is left that could carry out a step.
    without_threads: AtomicBool,
    pub registry: Registry,
    pub config: WorkerConfig,
    pub worker: i32,
    pub queues: Vec<i16>,
    pub stats: Arc<Stats>,
    pub measures: WorkerMeasures,
    /// No more claims; successors are left to others.
    pub stopping: CancellationToken,
    /// Nothing is in flight any more: tasks end.
    pub closed: CancellationToken,
    /// Work may be ready.
    pub wake: Notify,
    /// A slot was freed.
    pub freed: Notify,
    /// The last claim found less than it had room for: nothing older waits.
    pub drained: AtomicBool,
    /// Work of this priority waits in the queues, so continuation is for it or better.
    pub urgent: AtomicI16,
    /// The only run that is served, where the worker is for one; unset until the run is there.
    pub only: OnceLock<RunId>,
    /// When the next timer is due, in milliseconds after `epoch`; `i64::MAX`: none known.
    next_due: AtomicI64,
    epoch: Instant,
    free: AtomicI64,
    pub flights: Flights,
    completions: Vec<mpsc::UnboundedSender<(u64, Completion)>>,
    to_load: mpsc::UnboundedSender<Job>,
    jobs: mpsc::UnboundedSender<Job>,
    /// For reads beside the hot path: gathering a map's output.
    pub readers: Arc<Readers>,
}

pub(crate) struct Channels {
    pub completions: Vec<mpsc::UnboundedReceiver<(u64, Completion)>>,
    pub to_load: mpsc::UnboundedReceiver<Job>,
    pub jobs: mpsc::UnboundedReceiver<Job>,
}

/// Maps that are gathered at once.
const GATHERING: usize = 4;

impl Shared {
    pub fn new(
        (options, listen_at): (PgConnectOptions, PgConnectOptions),
        registry: Registry,
        config: WorkerConfig,
        worker: i32,
        queues: Vec<i16>,
    ) -> Result<(Arc<Self>, Channels)> {
        let (completions, completed): (Vec<_>, Vec<_>) = (0..config.completers.max(1)).map(|_| mpsc::unbounded_channel()).unzip();
        let (to_load, loads) = mpsc::unbounded_channel();
        let (jobs, handed_out) = mpsc::unbounded_channel();
        let shared = Arc::new(Self {
            registry,
            runtimes: StepRuntimes::start(config.threads)?,
            underway: Register::default(),
            without_threads: AtomicBool::new(false),
            worker,
            queues,
            stats: Arc::default(),
            measures: WorkerMeasures::new(config.concurrency),
            stopping: CancellationToken::new(),
            closed: CancellationToken::new(),
            wake: Notify::new(),
            freed: Notify::new(),
            drained: AtomicBool::new(false),
            urgent: AtomicI16::new(i16::MIN),
            only: OnceLock::new(),
            next_due: AtomicI64::new(i64::MAX),
            epoch: Instant::now(),
            free: AtomicI64::new(config.concurrency as i64),
            flights: Flights::default(),
            completions,
            to_load,
            jobs,
            readers: Arc::new(Readers::new(options.clone(), GATHERING)),
            options,
            listen_at,
            config,
        });
        Ok((shared, Channels { completions: completed, to_load: loads, jobs: handed_out }))
    }

    pub fn claimant(&self) -> Claimant {
        Claimant { worker: self.worker, lease_s: self.config.lease.as_secs_f64() }
    }

    /// Says whether there are threads for steps, without which no slot is free; gives what it was before.
    pub fn takes_work(&self, has_threads: bool) -> bool {
        let did = !self.without_threads.swap(!has_threads, Relaxed);
        if has_threads && !did {
            self.freed.notify_one();
            self.wake.notify_one();
        }
        did
    }

    /// Takes up to `max` free slots.
    pub fn take_slots(&self, max: usize) -> usize {
        if self.without_threads.load(Relaxed) {
            return 0;
        }
        let mut free = self.free.load(Relaxed);
        loop {
            let take = free.min(max as i64).max(0);
            match self.free.compare_exchange_weak(free, free - take, Relaxed, Relaxed) {
                Ok(_) => return take as usize,
                Err(now) => free = now,
            }
        }
    }

    /// Frees slots.
    pub fn free_slots(&self, slots: usize) {
        if slots > 0 {
            self.free.fetch_add(slots as i64, Relaxed);
            self.freed.notify_one();
        }
    }

    pub fn has_free_slot(&self) -> bool {
        self.free.load(Relaxed) > 0 && !self.without_threads.load(Relaxed)
    }

    /// Sends a leased step on its way: to the loader while it lacks something, else to apalis. Its slot is taken already. The lease has
    /// held since `asked` at the earliest.
    pub fn dispatch(&self, lease: Lease, version: Arc<Version>, loaded: Option<VersionedState>, inputs: Inputs, asked: Instant) {
        let flight = self.flights.take_off(&lease, asked);
        self.stats.started.fetch_add(1, Relaxed);
        let job = Job { lease, version, loaded, inputs, flight };
        // The receivers live as long as anything is in flight.
        let _ = if job.inputs.complete { self.jobs.send(job) } else { self.to_load.send(job) };
    }

    /// The same for what was leased without a word about its inputs.
    pub fn dispatch_claimed(&self, lease: Lease, version: Arc<Version>, loaded: Option<VersionedState>, asked: Instant) {
        let inputs = Inputs { complete: !version.needs_loading(&lease), ..Default::default() };
        self.dispatch(lease, version, loaded, inputs, asked);
    }

    /// A loaded job goes to apalis.
    pub fn hand_out(&self, job: Job) {
        let _ = self.jobs.send(job);
    }

    /// A job that was read for in vain goes to the end of the line.
    pub fn load_again(&self, job: Job) {
        let _ = self.to_load.send(job);
    }

    /// An attempt has ended: its completion goes to the completer of its run.
    pub fn finish(&self, job: Arc<Job>, outcome: Outcome) {
        let elapsed = job.flight.since.elapsed();
        // A step that was dropped may leave a holder behind for a moment; then its state is read again instead of handed on.
        let job = Arc::try_unwrap(job).unwrap_or_else(|held| Job {
            lease: held.lease.clone(),
            version: held.version.clone(),
            loaded: None,
            inputs: held.inputs.clone(),
            flight: held.flight.clone(),
        });
        let shard = job.lease.run.0.as_u128() as usize % self.completions.len();
        let Job { lease, version, loaded, inputs, flight } = job;
        let _ = self.completions[shard].send((flight.number, Completion { lease, version, outcome, elapsed, loaded, inputs }));
    }

    /// Tells whoever measures how many slots are taken.
    pub fn measure_slots(&self) {
        let free = self.free.load(Relaxed).max(0) as usize;
        self.measures.slots_in_use.set(self.config.concurrency.saturating_sub(free) as f64);
    }

    /// A timer was set, or found: the claimer looks again when it is due.
    pub fn note_due(&self, from_now: Duration) {
        let due = (self.epoch.elapsed() + from_now).as_millis() as i64 + 1;
        if self.next_due.fetch_min(due, Relaxed) > due {
            self.wake.notify_one();
        }
    }

    /// How long until the next known timer; forgets it.
    pub fn take_due(&self) -> Option<Duration> {
        match self.next_due.swap(i64::MAX, Relaxed) {
            i64::MAX => None,
            due => Some(Duration::from_millis((due - self.epoch.elapsed().as_millis() as i64).max(0) as u64)),
        }
    }
}
