//! The register of steps in flight: whoever renews leases, stops runs or drains finds them here.

use crate::{
    id::RunId,
    store::{lanes::HeldLane, rows::Lease},
};
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A step in flight: its number in the register, and the signal that it is to stop.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub number: u64,
    pub cancelled: CancellationToken,
    pub since: Instant,
}

/// A step in flight, as heartbeats see it.
struct InFlight {
    held: HeldLane,
    renewed: Instant,
    cancelled: CancellationToken,
}

const SHARDS: usize = 8;

#[derive(Default)]
pub(super) struct Flights {
    shards: [Mutex<HashMap<u64, InFlight>>; SHARDS],
    count: AtomicUsize,
    /// What is in flight is to be given back, and so is whatever takes off from now on.
    aborting: AtomicBool,
    landed: Notify,
    numbers: AtomicU64,
}

impl Flights {
    fn shard(&self, number: u64) -> MutexGuard<'_, HashMap<u64, InFlight>> {
        self.shards[number as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each shard in turn.
    fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, HashMap<u64, InFlight>>> {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Enters a step whose lease has held since `asked` at the earliest.
    pub fn take_off(&self, lease: &Lease, asked: Instant) -> Flight {
        let flight = Flight { number: self.numbers.fetch_add(1, Relaxed), cancelled: CancellationToken::new(), since: Instant::now() };
        let held = HeldLane { run: lease.run, scope: lease.scope.clone(), lane: lease.lane, token: lease.token, bundle: lease.bundle };
        let entry = InFlight { held, renewed: asked, cancelled: flight.cancelled.clone() };
        self.shard(flight.number).insert(flight.number, entry);
        if self.aborting.load(SeqCst) {
            flight.cancelled.cancel();
        }
        self.count.fetch_add(1, Relaxed);
        flight
    }

    /// Is the lease of a step that has not begun still good, as far as this process can tell? A process that was frozen finds that out
    /// here, before it repeats what others have carried out meanwhile.
    pub fn may_start(&self, number: u64, lease: Duration) -> bool {
        self.shard(number).get(&number).is_some_and(|f| !f.cancelled.is_cancelled() && f.renewed.elapsed() < lease)
    }

    /// Its completion is durable, or refused: nobody renews it any more.
    pub fn land(&self, number: u64) {
        self.shard(number).remove(&number);
        self.leave();
    }

    /// Counts a claim as in flight until it is dropped: what it takes is leased before anybody here knows of it.
    pub fn claiming(&self) -> Claiming<'_> {
        self.count.fetch_add(1, Relaxed);
        Claiming(self)
    }

    fn leave(&self) {
        if self.count.fetch_sub(1, Relaxed) == 1 {
            self.landed.notify_waiters();
        }
    }

    /// Steps in flight.
    pub fn steps(&self) -> usize {
        self.shards().map(|shard| shard.len()).sum()
    }

    /// The same with the claims under way.
    fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Returns when nothing is in flight.
    pub async fn wait_idle(&self) {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            // Registered before looking, or the last landing could fall between the look and the wait.
            landed.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            landed.await;
        }
    }

    /// Everything in flight is to be given back.
    pub fn abort(&self) {
        // Set before looking: what takes off meanwhile is either seen here or sees this.
        self.aborting.store(true, SeqCst);
        for shard in self.shards() {
            shard.values().for_each(|flight| flight.cancelled.cancel());
        }
    }

    /// Steps whose lease is due for renewal.
    pub fn due_renewals(&self, older_than: Duration) -> Vec<(u64, HeldLane)> {
        let mut due = vec![];
        for shard in self.shards() {
            let old = shard.iter().filter(|(_, flight)| flight.renewed.elapsed() >= older_than);
            due.extend(old.map(|(number, flight)| (*number, flight.held.clone())));
        }
        due
    }

    /// A lease was renewed.
    pub fn renewed(&self, number: u64, at: Instant) {
        if let Some(flight) = self.shard(number).get_mut(&number) {
            flight.renewed = at;
        }
    }

    /// A lease was lost: the attempt is to stop. False if it has landed already.
    pub fn lost(&self, number: u64) -> bool {
        let shard = self.shard(number);
        let flight = shard.get(&number);
        flight.inspect(|flight| flight.cancelled.cancel()).is_some()
    }

    /// Attempts of a run that is being stopped hear of it.
    pub fn stop_run(&self, run: RunId) {
        for shard in self.shards() {
            shard.values().filter(|flight| flight.held.run == run).for_each(|flight| flight.cancelled.cancel());
        }
    }
}

/// A claim under way.
pub(super) struct Claiming<'a>(&'a Flights);

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}
