//! What commands ask of a worker: room for successors, and for the first steps of runs that are started in its process.

use super::shared::Shared;
use crate::{
    commands::{
        Local, LocalStep,
        complete_attempts::{Inputs, Room},
    },
    id::ScopePath,
};
use std::sync::atomic::Ordering::Relaxed;

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
        (self.worker, self.config.lease.as_secs_f64())
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
