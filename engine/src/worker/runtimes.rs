//! Threads for steps: a runtime of the worker's own, and spare ones for when steps keep all its threads. Whether one has a thread left is
//! asked with a task that does nothing. None of them is ever waited for: a thread that a step does not give back ends with the process.

use crate::error::{Error, Result};
use std::{
    panic::catch_unwind,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};

/// Spare runtimes at once. Each holds as many threads that are lost until their steps give them back; code that has taken so many takes more.
pub(super) const SPARES: usize = 8;
/// So many looks without an answer, and without any step that was at work in between: no thread is left.
const PATIENCE: u32 = 2;

/// A runtime that steps are given to.
pub(super) struct StepRuntime {
    pub number: u64,
    handle: Handle,
    turns: AtomicU64,
}

impl StepRuntime {
    /// Spawns a task there.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.handle.spawn(task)
    }

    /// A step is at work there: it has a thread.
    pub fn turn(&self) {
        self.turns.fetch_add(1, Relaxed);
    }
}

/// A runtime with what was found at the last looks.
struct Kept {
    runtime: Arc<StepRuntime>,
    owner: Runtime,
    probe: Probe,
    stuck_since: Option<Instant>,
}

struct Probe {
    task: JoinHandle<()>,
    /// Of the runtime, when it was last found to go on.
    turns: u64,
    still: u32,
}

impl Probe {
    fn send(to: &StepRuntime) -> Self {
        Self { task: to.spawn(async {}), turns: to.turns.load(Relaxed), still: 0 }
    }
}

impl Kept {
    fn start(number: u64, threads: Option<usize>) -> std::io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().thread_name(if number == 0 { "krowoc-steps".into() } else { format!("krowoc-spare-{number}") });
        if let Some(threads) = threads {
            builder.worker_threads(threads.max(1));
        }
        let owner = builder.build()?;
        let runtime = Arc::new(StepRuntime { number, handle: owner.handle().clone(), turns: AtomicU64::new(0) });
        let probe = Probe::send(&runtime);
        Ok(Self { runtime, owner, probe, stuck_since: None })
    }

    /// Takes in the answer to the last question, and asks the next one.
    fn look(&mut self, seen: &mut Seen) {
        let probe = &mut self.probe;
        if probe.task.is_finished() {
            if let Some(since) = self.stuck_since.take() {
                seen.answering.push((self.runtime.clone(), since.elapsed()));
            }
            *probe = Probe::send(&self.runtime);
            return;
        }
        let turns = self.runtime.turns.load(Relaxed);
        probe.still = if probe.turns == turns { probe.still + 1 } else { 0 };
        probe.turns = turns;
        if probe.still >= PATIENCE && self.stuck_since.is_none() {
            self.stuck_since = Some(Instant::now());
            seen.stuck.push(self.runtime.clone());
        }
    }

    /// Nothing lives there.
    fn is_deserted(&self) -> bool {
        self.stuck_since.is_none() && self.owner.metrics().num_alive_tasks() == 0
    }
}

/// All of a worker's.
pub(super) struct StepRuntimes {
    threads: Option<usize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    all: Vec<Kept>,
    current: Option<Arc<StepRuntime>>,
    started: u64,
    closed: bool,
}

/// What a look has found.
#[derive(Default)]
pub(super) struct Seen {
    /// Found stuck at this look.
    pub stuck: Vec<Arc<StepRuntime>>,
    /// Found to answer again, after so long.
    pub answering: Vec<(Arc<StepRuntime>, Duration)>,
    /// A spare was started: how many there are.
    pub spare: Option<usize>,
    /// Why there is none, though it was needed.
    pub failed: Option<String>,
}

/// How a worker's step threads stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StepThreads {
    /// Sets of step threads: 1, and more while spare ones are needed.
    pub sets: usize,
    /// Those of which steps keep every thread.
    pub stuck: usize,
    /// None can carry out a step, and no more are started: the worker takes no work.
    pub exhausted: bool,
}

impl StepThreads {
    /// Is there anything to see to, though no step be underway?
    pub(super) fn is_unusual(self) -> bool {
        self.sets > 1 || self.stuck > 0 || self.exhausted
    }
}

impl StepRuntimes {
    /// The first of them, with so many threads; as many as tokio takes by itself where that is not said.
    pub fn start(threads: Option<usize>) -> Result<Self> {
        let first = Kept::start(0, threads).map_err(|e| Error::Internal(format!("the step threads can't be started: {e}")))?;
        let state = State { current: Some(first.runtime.clone()), all: vec![first], started: 1, closed: false };
        Ok(Self { threads, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where what comes is to be carried out; none where no thread is left.
    pub fn current(&self) -> Option<Arc<StepRuntime>> {
        self.state().current.clone()
    }

    /// How they stand.
    pub fn standing(&self) -> StepThreads {
        let state = self.state();
        let stuck = state.all.iter().filter(|kept| kept.stuck_since.is_some()).count();
        StepThreads { sets: state.all.len(), stuck, exhausted: state.current.is_none() && !state.closed }
    }

    /// Asks each whether it has a thread left, and chooses where what comes is carried out: the oldest that answers, or a new one.
    pub fn look(&self) -> Seen {
        let (mut seen, mut state) = (Seen::default(), self.state());
        if state.closed {
            return seen;
        }
        retire(&mut state);
        state.all.iter_mut().for_each(|kept| kept.look(&mut seen));
        let answering = state.all.iter().find(|kept| kept.stuck_since.is_none()).map(|kept| kept.runtime.clone());
        state.current = match answering {
            None if state.all.len() <= SPARES => self.spare(&mut state, &mut seen),
            answering => answering,
        };
        seen
    }

    fn spare(&self, state: &mut State, seen: &mut Seen) -> Option<Arc<StepRuntime>> {
        let (number, threads) = (state.started, self.threads);
        // tokio panics where the system gives it no thread.
        match catch_unwind(move || Kept::start(number, threads)) {
            Ok(Ok(kept)) => {
                let runtime = kept.runtime.clone();
                state.started += 1;
                state.all.push(kept);
                seen.spare = Some(state.all.len() - 1);
                Some(runtime)
            }
            Ok(Err(e)) => {
                seen.failed = Some(e.to_string());
                None
            }
            Err(panic) => {
                seen.failed = Some(super::panics::said(panic));
                None
            }
        }
    }

    /// Is every task over?
    #[cfg(test)]
    pub fn are_deserted(&self) -> bool {
        self.state().all.iter().all(Kept::is_deserted)
    }

    /// Ends all of them, in the background.
    pub fn shut_down(&self) {
        let mut state = self.state();
        state.closed = true;
        state.current = None;
        state.all.drain(..).for_each(|kept| kept.owner.shutdown_background());
    }
}

/// Spares that are not needed any more go.
fn retire(state: &mut State) {
    let (current, mut at) = (state.current.as_ref().map_or(0, |runtime| runtime.number), 1);
    while at < state.all.len() {
        if state.all[at].runtime.number != current && state.all[at].is_deserted() {
            state.all.remove(at).owner.shutdown_background();
        } else {
            at += 1;
        }
    }
}
