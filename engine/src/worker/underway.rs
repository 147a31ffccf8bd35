//! Attempts that have a task of their own: which runtime they were given to, whether they have begun, and whether they are at work at this
//! moment. The engine's thread looks here, which no step can block; steps only leave word of themselves.

use super::{limit::Limit, runtimes::StepRuntime, shared::Job};
use crate::definition::Action;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::{sync::Notify, task::AbortHandle};

/// An attempt with a task of its own.
pub(super) struct Underway {
    pub job: Arc<Job>,
    pub on: Arc<StepRuntime>,
    /// When it began; nothing: it was called back before. Whoever comes first, its task or the engine's thread, has decided.
    turn: OnceLock<Option<Instant>>,
    /// Inside a poll.
    working: AtomicBool,
    /// The kind has brought a result: what is left is the engine's own work, and the limit was kept.
    pub returned: AtomicBool,
    /// It was past its limit when it was last looked at.
    overdue: AtomicBool,
    word: OnceLock<Word>,
    told: Notify,
}

/// What the engine's thread has to say to whoever waits for an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    /// It has not begun and will not, there: it is to be given to others.
    CalledBack,
    /// Its time is up, and it does not end.
    TimeIsUp { limit: Limit, working: bool },
}

impl Underway {
    /// Its task's first act. None: it was called back, and must do nothing.
    pub fn begin(&self) -> Option<Instant> {
        *self.turn.get_or_init(|| Some(Instant::now()))
    }

    /// Does a piece of its work.
    pub fn work<T>(&self, piece: impl FnOnce() -> T) -> T {
        self.on.turn();
        self.working.store(true, Relaxed);
        let done = piece();
        self.working.store(false, Relaxed);
        done
    }

    /// Is it inside a piece of its work?
    pub fn is_working(&self) -> bool {
        self.working.load(Relaxed)
    }

    /// Waits for a word.
    pub async fn word(&self) -> Word {
        loop {
            if let Some(word) = self.word.get() {
                return *word;
            }
            self.told.notified().await;
        }
    }

    fn tell(&self, word: Word) {
        if self.word.set(word).is_ok() {
            self.told.notify_one();
        }
    }

    /// Calls it back unless it has begun.
    pub fn call_back(&self) -> bool {
        let called_back = self.turn.get_or_init(|| None).is_none();
        if called_back {
            self.tell(Word::CalledBack);
        }
        called_back
    }

    /// Ends it if its time was up at the last look already: the first time it may be about to end by itself.
    pub fn look(&self, now: Instant) {
        let Some(Some(begun)) = self.turn.get() else { return };
        if self.returned.load(Relaxed) {
            return;
        }
        let Some(limit) = Limit::of(&self.job, *begun).filter(|limit| limit.at <= now) else { return };
        if self.overdue.swap(true, Relaxed) {
            self.tell(Word::TimeIsUp { limit, working: self.is_working() });
        }
    }

    /// For logs: path and kind.
    pub fn name(&self) -> String {
        let Job { lease, version, inputs, .. } = &*self.job;
        let kind = match version.step(lease.step).map(|(_, step)| &step.action) {
            Some(Action::Task { kind, .. }) => kind,
            Some(Action::Map(_)) => "map",
            Some(Action::Wait(_)) => "wait",
            None => "the engine's own",
        };
        format!("{} of run {} ({kind})", version.path(&lease.scope, lease.step, &inputs.keys), lease.run)
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Register {
    attempts: Mutex<HashMap<u64, Arc<Underway>>>,
    strays: Mutex<Vec<Stray>>,
}

/// An attempt that has ended, and whose task has not.
struct Stray {
    underway: Arc<Underway>,
    task: AbortHandle,
    looked_at: bool,
}

impl Register {
    /// Enters an attempt; it is underway until the entry is dropped.
    pub fn enter(&self, job: Arc<Job>, on: Arc<StepRuntime>) -> Entry<'_> {
        let number = job.flight.number;
        let underway = Arc::new(Underway {
            job,
            on,
            turn: OnceLock::new(),
            working: AtomicBool::new(false),
            returned: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
            word: OnceLock::new(),
            told: Notify::new(),
        });
        self.attempts().insert(number, underway.clone());
        Entry { register: self, number, underway }
    }

    fn attempts(&self) -> MutexGuard<'_, HashMap<u64, Arc<Underway>>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strays(&self) -> MutexGuard<'_, Vec<Stray>> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has anything a task?
    pub fn is_busy(&self) -> bool {
        !self.attempts().is_empty() || !self.strays().is_empty()
    }

    /// The attempt has ended without its task, which is being aborted.
    pub fn leave_behind(&self, underway: &Arc<Underway>, task: AbortHandle) {
        if matches!(underway.turn.get(), Some(Some(_))) && !task.is_finished() {
            self.strays().push(Stray { underway: underway.clone(), task, looked_at: false });
        }
    }

    /// Looks at each: ends those whose time is up.
    pub fn look(&self, now: Instant) {
        self.attempts().values().for_each(|underway| underway.look(now));
    }

    /// Looks after those left behind: how many keep a thread, and the names of those found for the first time.
    pub fn look_after_strays(&self) -> (usize, Vec<String>) {
        let (mut keeping, mut news) = (0, vec![]);
        self.strays().retain_mut(|stray| {
            if stray.task.is_finished() {
                return false;
            }
            // At its first look it may be about to end.
            match (stray.underway.is_working(), std::mem::replace(&mut stray.looked_at, true)) {
                (true, true) => keeping += 1,
                (true, false) => news.push(stray.underway.name()),
                (false, _) => {}
            }
            true
        });
        (keeping, news)
    }

    /// Calls back what was given to that runtime and has not begun.
    pub fn call_back(&self, from: &StepRuntime) -> usize {
        self.attempts().values().filter(|underway| underway.on.number == from.number && underway.call_back()).count()
    }

    /// Names of those at work there, ended ones included: they keep its threads. A few; and how many there are.
    pub fn at_work(&self, on: &StepRuntime, few: usize) -> (Vec<String>, usize) {
        let there = |underway: &&Arc<Underway>| underway.on.number == on.number && underway.is_working();
        let mut found: Vec<Arc<Underway>> = self.attempts().values().filter(there).cloned().collect();
        found.extend(self.strays().iter().map(|stray| &stray.underway).filter(there).cloned());
        (found.iter().take(few).map(|underway| underway.name()).collect(), found.len())
    }
}

/// An attempt's place in the register.
pub(super) struct Entry<'a> {
    register: &'a Register,
    number: u64,
    pub underway: Arc<Underway>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.register.attempts().remove(&self.number);
    }
}
