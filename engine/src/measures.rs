//! What the engine counts, under the names that docs/metrics.md explains. Whoever wants the figures installs a recorder of the `metrics`
//! crate before the first worker starts; without one, counting costs next to nothing. The hot path counts by batch, never by step.

use crate::{
    commands::complete_attempts::{Completion, Outcome},
    error::ErrorClass,
    queries::queues::QueueView,
    store::rows::Lease,
    worker::StepThreads,
};
use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
use std::collections::HashMap;

/// How a measure moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only up, from the process's start.
    Counter,
    /// Up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A measure, for recorders and documentation.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Its name as recorders show it.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// What it says, in a line.
    pub description: &'static str,
}

const ATTEMPTS: &str = "krowoc_attempts_total";
const STEPS: &str = "krowoc_steps_completed_total";
const RUNS: &str = "krowoc_runs_ended_total";
const REFUSED: &str = "krowoc_completions_refused_total";
const CONFLICTS: &str = "krowoc_commit_conflicts_total";
const LEASES_LOST: &str = "krowoc_leases_lost_total";
const LEASES_REAPED: &str = "krowoc_leases_reaped_total";
const RUNS_PRUNED: &str = "krowoc_runs_pruned_total";
const CLAIM_SECONDS: &str = "krowoc_claim_seconds";
const CLAIM_BATCH: &str = "krowoc_claim_batch_steps";
const COMMIT_SECONDS: &str = "krowoc_commit_seconds";
const COMMIT_BATCH: &str = "krowoc_commit_batch_steps";
const SLOTS: &str = "krowoc_slots";
const SLOTS_IN_USE: &str = "krowoc_slots_in_use";
const THREAD_SETS: &str = "krowoc_step_thread_sets";
const THREAD_SETS_STUCK: &str = "krowoc_step_thread_sets_stuck";
const THREADS_KEPT: &str = "krowoc_step_threads_kept";
const QUEUE_READY_STEPS: &str = "krowoc_queue_ready_steps";
const QUEUE_READY_ITEMS: &str = "krowoc_queue_ready_items";
const QUEUE_LEASED: &str = "krowoc_queue_leased_steps";
const QUEUE_TIMED: &str = "krowoc_queue_timed_steps";
const QUEUE_OLDEST: &str = "krowoc_queue_oldest_ready_seconds";
const QUEUE_WORKERS: &str = "krowoc_queue_workers";

const fn counter(name: &'static str, description: &'static str) -> Measure {
    Measure { name, kind: Kind::Counter, unit: Unit::Count, description }
}

const fn gauge(name: &'static str, unit: Unit, description: &'static str) -> Measure {
    Measure { name, kind: Kind::Gauge, unit, description }
}

const fn histogram(name: &'static str, unit: Unit, description: &'static str) -> Measure {
    Measure { name, kind: Kind::Histogram, unit, description }
}

/// Every measure of the engine.
pub const ALL: [Measure; 23] = [
    counter(ATTEMPTS, "Attempts that ended in this process, by status and error class"),
    counter(STEPS, "Steps brought to an end"),
    counter(RUNS, "Runs brought to an end"),
    counter(REFUSED, "Completions that came too late: their lease was somebody else's"),
    counter(CONFLICTS, "Batches of completions that met another process's and took the locked path"),
    counter(LEASES_LOST, "Leases of this process found lost at their renewal"),
    counter(LEASES_REAPED, "Expired leases of others that this process took over"),
    counter(RUNS_PRUNED, "Runs removed by retention"),
    histogram(CLAIM_SECONDS, Unit::Seconds, "Duration of a claim"),
    histogram(CLAIM_BATCH, Unit::Count, "Steps that a claim brought; claims that found nothing are left out"),
    histogram(COMMIT_SECONDS, Unit::Seconds, "Duration of the transaction that completes a batch"),
    histogram(COMMIT_BATCH, Unit::Count, "Attempts completed together"),
    gauge(SLOTS, Unit::Count, "Steps that this process's worker may have in flight"),
    gauge(SLOTS_IN_USE, Unit::Count, "Steps that this process's worker has in flight"),
    gauge(THREAD_SETS, Unit::Count, "Sets of step threads in this process's worker: 1, and spare ones"),
    gauge(THREAD_SETS_STUCK, Unit::Count, "Those of which steps keep every thread"),
    gauge(THREADS_KEPT, Unit::Count, "Threads that steps keep whose attempts have ended"),
    gauge(QUEUE_READY_STEPS, Unit::Count, "Steps that may be claimed now, by queue"),
    gauge(QUEUE_READY_ITEMS, Unit::Count, "Map items that may be claimed now, by queue"),
    gauge(QUEUE_LEASED, Unit::Count, "Steps that workers hold, by queue"),
    gauge(QUEUE_TIMED, Unit::Count, "Steps that wait for a time, by queue"),
    gauge(QUEUE_OLDEST, Unit::Seconds, "How long the oldest ready step has been waiting, by queue; 0 if none"),
    gauge(QUEUE_WORKERS, Unit::Count, "Workers alive that serve the queue"),
];

/// Tells the installed recorder what each measure means.
pub fn describe() {
    for Measure { name, kind, unit, description } in ALL {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, description),
            Kind::Gauge => metrics::describe_gauge!(name, unit, description),
            Kind::Histogram => metrics::describe_histogram!(name, unit, description),
        }
    }
}

/// A worker's handles, looked up once.
pub(crate) struct WorkerMeasures {
    succeeded: Counter,
    skipped: Counter,
    waiting: Counter,
    released: Counter,
    pub steps: Counter,
    pub runs: Counter,
    pub refused: Counter,
    pub conflicts: Counter,
    pub leases_lost: Counter,
    pub claim_seconds: Histogram,
    pub claim_batch: Histogram,
    pub commit_seconds: Histogram,
    pub commit_batch: Histogram,
    slots: Gauge,
    pub slots_in_use: Gauge,
    thread_sets: Gauge,
    thread_sets_stuck: Gauge,
    threads_kept: Gauge,
}

impl WorkerMeasures {
    pub fn new(slots: usize) -> Self {
        let attempts = |status: &'static str| counter!(ATTEMPTS, "status" => status, "class" => "");
        let measures = Self {
            succeeded: attempts("succeeded"),
            skipped: attempts("skipped"),
            waiting: attempts("waiting"),
            released: attempts("released"),
            steps: counter!(STEPS),
            runs: counter!(RUNS),
            refused: counter!(REFUSED),
            conflicts: counter!(CONFLICTS),
            leases_lost: counter!(LEASES_LOST),
            claim_seconds: histogram!(CLAIM_SECONDS),
            claim_batch: histogram!(CLAIM_BATCH),
            commit_seconds: histogram!(COMMIT_SECONDS),
            commit_batch: histogram!(COMMIT_BATCH),
            slots: gauge!(SLOTS),
            slots_in_use: gauge!(SLOTS_IN_USE),
            thread_sets: gauge!(THREAD_SETS),
            thread_sets_stuck: gauge!(THREAD_SETS_STUCK),
            threads_kept: gauge!(THREADS_KEPT),
        };
        measures.slots.set(slots as f64);
        measures.threads(0, StepThreads { sets: 1, ..StepThreads::default() });
        measures
    }

    /// How the step threads stand, and how many of them are kept by steps whose attempts have ended.
    pub fn threads(&self, kept: usize, standing: StepThreads) {
        self.thread_sets.set(standing.sets as f64);
        self.thread_sets_stuck.set(standing.stuck as f64);
        self.threads_kept.set(kept as f64);
    }

    pub fn ended(&self, tally: Tally) {
        for (counter, n) in [
            (&self.succeeded, tally.succeeded),
            (&self.skipped, tally.skipped),
            (&self.waiting, tally.waiting),
            (&self.released, tally.released),
        ] {
            if n > 0 {
                counter.increment(n);
            }
        }
        for (class, n) in tally.failed {
            counter!(ATTEMPTS, "status" => "failed", "class" => class.name()).increment(n);
        }
    }
}

/// What a batch of attempts came to.
#[derive(Default)]
pub(crate) struct Tally {
    succeeded: u64,
    skipped: u64,
    waiting: u64,
    released: u64,
    failed: HashMap<ErrorClass, u64>,
}

impl Tally {
    pub fn of(batch: &[Completion]) -> Self {
        let mut tally = Self::default();
        for completion in batch.iter().filter(|c| c.lease.step != Lease::FINISH) {
            match &completion.outcome {
                Outcome::Succeeded { .. } => tally.succeeded += 1,
                Outcome::Skipped => tally.skipped += 1,
                // A map's expansion is the first half of its attempt.
                Outcome::Sleep(_) | Outcome::Expanded(_) => tally.waiting += 1,
                Outcome::Released => tally.released += 1,
                Outcome::Failed { error, .. } => *tally.failed.entry(error.class).or_default() += 1,
                // The engine's own: an entry is no attempt, a loss is counted where it is reaped.
                Outcome::Entered | Outcome::Lost => {}
            }
        }
        tally
    }
}

/// Expired leases were taken over.
pub(crate) fn reaped(leases: usize) {
    counter!(LEASES_REAPED).increment(leases as u64);
}

/// Runs went.
pub(crate) fn pruned(runs: u64) {
    counter!(RUNS_PRUNED).increment(runs);
}

/// The state of the queues.
pub(crate) fn queues(queues: &[QueueView]) {
    for queue in queues {
        let set = |name: &'static str, value: f64| gauge!(name, "queue" => queue.name.clone()).set(value);
        set(QUEUE_READY_STEPS, queue.ready_steps as f64);
        set(QUEUE_READY_ITEMS, queue.ready_items as f64);
        set(QUEUE_LEASED, queue.leased as f64);
        set(QUEUE_TIMED, queue.timed as f64);
        set(QUEUE_OLDEST, queue.oldest_ready_s.unwrap_or_default().max(0.0));
        set(QUEUE_WORKERS, queue.workers as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_measure_is_documented_under_a_name_of_its_kind() {
        let page = include_str!("../../docs/metrics.md");
        let names: HashSet<_> = ALL.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name is taken twice");
        for measure in ALL {
            assert!(page.contains(&format!("`{}`", measure.name)), "docs/metrics.md lacks {}", measure.name);
            assert_eq!(measure.name.ends_with("_total"), measure.kind == Kind::Counter, "{}", measure.name);
            assert_eq!(measure.name.ends_with("_seconds"), measure.unit == Unit::Seconds, "{}", measure.name);
        }
        let written: HashSet<_> = page.split('`').filter(|word| word.starts_with("krowoc_")).collect();
        assert!(written.is_subset(&names), "docs/metrics.md names what is not there: {:?}", written.difference(&names));
    }
}
