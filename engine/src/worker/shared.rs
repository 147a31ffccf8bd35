//! What a worker's tasks share: slots, steps in flight, channels, counters.

use crate::{
    commands::{
        Local, LocalStep,
        complete_attempts::{Completion, Inputs, Outcome, Room},
    },
    id::{RunId, ScopePath},
    measures::WorkerMeasures,
    store::{
        lanes::HeldLane,
        rows::{Lease, VersionedState},
    },
    version::{Registry, Version},
    worker::{WorkerConfig, reader::Readers},
};
use sqlx::postgres::PgConnectOptions;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicI16, AtomicI64, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
};
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

/// A step in flight: its number in the register, and the signal that it is to stop.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub number: u64,
    pub cancelled: CancellationToken,
    pub since: Instant,
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
    /// Where steps are carried out; the engine's tasks have a thread of their own.
    pub runtime: Handle,
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
    flights: Vec<Mutex<HashMap<u64, InFlight>>>,
    in_flight: AtomicUsize,
    /// What is in flight is to be given back, and so is whatever takes off from now on.
    aborting: AtomicBool,
    landed: Notify,
    numbers: AtomicU64,
    completions: Vec<mpsc::UnboundedSender<(u64, Completion)>>,
    to_load: mpsc::UnboundedSender<Job>,
    jobs: mpsc::UnboundedSender<Job>,
    /// For reads beside the hot path: gathering a map's output.
    pub readers: Arc<Readers>,
}

/// A step in flight, as heartbeats see it.
pub(crate) struct InFlight {
    pub held: HeldLane,
    pub renewed: Instant,
    pub cancelled: CancellationToken,
}

pub(crate) struct Channels {
    pub completions: Vec<mpsc::UnboundedReceiver<(u64, Completion)>>,
    pub to_load: mpsc::UnboundedReceiver<Job>,
    pub jobs: mpsc::UnboundedReceiver<Job>,
}

const SHARDS: usize = 8;

/// Maps that are gathered at once.
const GATHERING: usize = 4;

impl Shared {
    pub fn new(
        options: PgConnectOptions,
        registry: Registry,
        config: WorkerConfig,
        worker: i32,
        queues: Vec<i16>,
    ) -> (Arc<Self>, Channels) {
        let (completions, completed): (Vec<_>, Vec<_>) = (0..config.completers.max(1)).map(|_| mpsc::unbounded_channel()).unzip();
        let (to_load, loads) = mpsc::unbounded_channel();
        let (jobs, handed_out) = mpsc::unbounded_channel();
        let shared = Arc::new(Self {
            registry,
            runtime: Handle::current(),
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
            flights: (0..SHARDS).map(|_| Mutex::default()).collect(),
            in_flight: AtomicUsize::new(0),
            aborting: AtomicBool::new(false),
            landed: Notify::new(),
            numbers: AtomicU64::new(0),
            completions,
            to_load,
            jobs,
            readers: Arc::new(Readers::new(options.clone(), GATHERING)),
            options,
            config,
        });
        (shared, Channels { completions: completed, to_load: loads, jobs: handed_out })
    }

    pub fn lease_s(&self) -> f64 {
        self.config.lease.as_secs_f64()
    }

    /// Takes up to `max` free slots.
    pub fn take_slots(&self, max: usize) -> usize {
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
        self.free.load(Relaxed) > 0
    }

    fn flights(&self, number: u64) -> MutexGuard<'_, HashMap<u64, InFlight>> {
        self.flights[number as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a leased step on its way: to the loader while it lacks something, else to apalis. Its slot is taken already. The lease has
    /// held since `asked` at the earliest.
    pub fn dispatch(&self, lease: Lease, version: Arc<Version>, loaded: Option<VersionedState>, inputs: Inputs, asked: Instant) {
        let flight = Flight { number: self.numbers.fetch_add(1, Relaxed), cancelled: CancellationToken::new(), since: Instant::now() };
        let held = HeldLane { run: lease.run, scope: lease.scope.clone(), lane: lease.lane, token: lease.token, bundle: lease.bundle };
        let entry = InFlight { held, renewed: asked, cancelled: flight.cancelled.clone() };
        self.flights(flight.number).insert(flight.number, entry);
        if self.aborting.load(SeqCst) {
            flight.cancelled.cancel();
        }
        self.in_flight.fetch_add(1, Relaxed);
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

    /// Is the lease of a step that has not begun still good, as far as this process can tell? A process that was frozen finds that out
    /// here, before it repeats what others have carried out meanwhile.
    pub fn may_start(&self, number: u64) -> bool {
        self.flights(number).get(&number).is_some_and(|f| !f.cancelled.is_cancelled() && f.renewed.elapsed() < self.config.lease)
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

    /// Its completion is durable, or refused: nobody renews it any more.
    pub fn land(&self, number: u64) {
        self.flights(number).remove(&number);
        self.leave();
    }

    /// Counts a claim as in flight until it is dropped: what it takes is leased before anybody here knows of it.
    pub fn claiming(&self) -> Claiming<'_> {
        self.in_flight.fetch_add(1, Relaxed);
        Claiming(self)
    }

    fn leave(&self) {
        if self.in_flight.fetch_sub(1, Relaxed) == 1 {
            self.landed.notify_waiters();
        }
    }

    /// Tells whoever measures how many slots are taken.
    pub fn measure_slots(&self) {
        let free = self.free.load(Relaxed).max(0) as usize;
        self.measures.slots_in_use.set(self.config.concurrency.saturating_sub(free) as f64);
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Returns when nothing is in flight.
    pub async fn wait_idle(&self) {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            // Registered before looking, or the last landing could fall between the look and the wait.
            landed.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            landed.await;
        }
    }

    /// Everything in flight is to be given back.
    pub fn abort_in_flight(&self) {
        // Set before looking: what takes off meanwhile is either seen here or sees this.
        self.aborting.store(true, SeqCst);
        for shard in &self.flights {
            for flight in shard.lock().unwrap_or_else(PoisonError::into_inner).values() {
                flight.cancelled.cancel();
            }
        }
    }

    /// Steps whose lease is due for renewal.
    pub fn due_renewals(&self, older_than: Duration) -> Vec<(u64, HeldLane)> {
        let mut due = vec![];
        for shard in &self.flights {
            for (number, flight) in shard.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                if flight.renewed.elapsed() >= older_than {
                    due.push((*number, flight.held.clone()));
                }
            }
        }
        due
    }

    /// A renewal came back: still held, or lost, in which case the attempt is to stop.
    pub fn renewed(&self, number: u64, held: bool, at: Instant) {
        if let Some(flight) = self.flights(number).get_mut(&number) {
            match held {
                true => flight.renewed = at,
                false => {
                    self.measures.leases_lost.increment(1);
                    flight.cancelled.cancel();
                }
            }
        }
    }

    /// Attempts of a run that is being stopped hear of it.
    pub fn stop_run(&self, run: RunId) {
        for shard in &self.flights {
            for flight in shard.lock().unwrap_or_else(PoisonError::into_inner).values().filter(|f| f.held.run == run) {
                flight.cancelled.cancel();
            }
        }
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

/// A claim under way.
pub(crate) struct Claiming<'a>(&'a Shared);

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Room for Shared {
    fn take(&self, max: usize) -> usize {
        self.take_slots(max)
    }

    fn give_back(&self, slots: usize) {
        self.free_slots(slots);
    }

    fn continues(&self, queue: i16, priority: i16) -> bool {
        !self.stopping.is_cancelled() && priority >= self.urgent.load(Relaxed) && self.queues.contains(&queue)
    }

    fn idle(&self) -> bool {
        self.drained.load(Relaxed) && self.has_free_slot() && !self.stopping.is_cancelled()
    }

    fn chance(&self) -> f64 {
        // 53 random bits, the most that a f64 holds exactly.
        (uuid::Uuid::new_v4().as_u128() >> 75) as f64 / (1u64 << 53) as f64
    }
}

impl Local for Shared {
    fn reserve(&self, want: usize) -> usize {
        match self.drained.load(Relaxed) && !self.stopping.is_cancelled() {
            true => self.take_slots(want),
            false => 0,
        }
    }

    fn serves(&self, queue: i16) -> bool {
        self.queues.contains(&queue)
    }

    fn holder(&self) -> (i32, f64) {
        (self.worker, self.lease_s())
    }

    fn give_back(&self, slots: usize) {
        self.free_slots(slots);
    }

    fn dispatch(&self, steps: Vec<LocalStep>) {
        for step in steps {
            let state = step.claimed.state;
            let lease = step.claimed.lease;
            let mut inputs = Inputs { complete: true, ..Default::default() };
            if let Some(reads) = step.version.reads(&lease) {
                inputs.complete = !reads.run;
                inputs.input = reads.input.then_some(step.input);
            }
            debug_assert_eq!(lease.scope, ScopePath::root());
            Self::dispatch(self, lease, step.version, state, inputs, step.asked);
        }
    }

    fn wake(&self) {
        self.wake.notify_one();
    }
}
