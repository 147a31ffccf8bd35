//! A run watched until it has ended.

use crate::{progress::Progress, tree::is_over};
use krowoc_engine::{
    Engine, Error, Result, RunId, Scope,
    queries::{
        self,
        inside::{self, StepInside},
        runs::{self, RunState},
        steps,
        why::{Reason, WaitView, why},
    },
    version::Version,
};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// How often the run is looked at.
const PACE: Duration = Duration::from_millis(200);
/// The least time between two looks, however often somebody says that there is something to see.
const SHORTEST: Duration = Duration::from_millis(20);
/// A database that restarts is waited for this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is inside maps is counted from the rows of every item: the pauses between are so many times as long as that took.
const PAUSE: u32 = 20;

/// A run that stands still is asked why so often; what it says twice is told. Shorter waits are the pauses between steps.
const ASK_WHY: Duration = Duration::from_millis(400);

/// A run and the version that it is pinned to.
pub struct Followed<'a> {
    engine: &'a Engine,
    scope: &'a Scope,
    run: RunId,
    version: Arc<Version>,
    tells_why: bool,
}

impl<'a> Followed<'a> {
    /// Finds a run.
    pub async fn find(engine: &'a Engine, scope: &'a Scope, run: RunId) -> Result<Self> {
        let conn = &mut *engine.pool().acquire().await?;
        let version = queries::version_of(conn, scope, run).await?;
        let version = engine.registry().versions.load(conn, version).await?;
        Ok(Self { engine, scope, run, version, tells_why: false })
    }

    /// With a word on what the run waits for while nothing of it is carried out. Not for whoever carries it out: no run can count on a
    /// worker that is there for one run alone, so that it would be missed.
    pub fn telling_why(self) -> Self {
        Self { tells_why: true, ..self }
    }

    /// Shows progress until the run has ended, and says how. `stir` completes when it may have moved; without it, time alone tells.
    pub async fn until_end<F: Future<Output = ()>>(&self, progress: &mut dyn Progress, mut stir: impl FnMut() -> F) -> Result<RunState> {
        let mut answered = Instant::now();
        let mut inside = Inside { steps: vec![], due: answered, ended: 0 };
        let mut waits = Waits { due: answered, heard: None, told: None };
        loop {
            // Made before looking: what happens between the look and the wait is not missed.
            let stirred = stir();
            match self.look(progress, &mut inside, &mut waits).await {
                Ok(state) if state.is_terminal() => return Ok(state),
                Ok(_) => answered = Instant::now(),
                Err(Error::Store(error)) if answered.elapsed() < PATIENCE => {
                    tracing::warn!(%error, "the database does not answer; trying again");
                    sleep(Duration::from_secs(1)).await;
                }
                Err(error) => return Err(error),
            }
            sleep(SHORTEST).await;
            tokio::select! {
                () = stirred => {}
                () = sleep(PACE - SHORTEST) => {}
            }
        }
    }

    /// The state is read first: of a run that had ended by then, the steps are final.
    async fn look(&self, progress: &mut dyn Progress, inside: &mut Inside, waits: &mut Waits) -> Result<RunState> {
        let conn = &mut *self.engine.pool().acquire().await?;
        let state = runs::show(conn, self.scope, self.run).await?.run.status;
        let steps = steps::steps(conn, self.scope, self.run, &self.version.dag).await?;
        let ended = steps.iter().filter(|step| step.items.is_some() && is_over(step.status)).count();
        let maps = self.version.dag.frames.len() > 1;
        if maps && (state.is_terminal() || ended != inside.ended || inside.due <= Instant::now()) {
            let began = Instant::now();
            let steps = inside::steps(conn, self.scope, self.run, &self.version.dag).await?;
            *inside = Inside { steps, due: Instant::now() + began.elapsed() * PAUSE, ended };
        }
        progress.show(&steps, &inside.steps);
        if self.tells_why && !state.is_terminal() && waits.due <= Instant::now() {
            waits.due = Instant::now() + ASK_WHY;
            let answer = why(conn, self.scope, self.run, &self.version.dag).await?;
            if waits.are_news(answer.waits.first()) {
                progress.waits(waits.told.is_some().then_some(answer.sentence));
            }
        }
        Ok(state)
    }
}

/// What a run waits for, as far as it makes a difference: the times in its sentence move on by themselves.
type Wait = (Reason, String);

/// What the run was found waiting for.
struct Waits {
    /// When to ask again.
    due: Instant,
    /// The last time it was asked.
    heard: Option<Wait>,
    /// The last time it was told.
    told: Option<Wait>,
}

impl Waits {
    /// Takes the foremost wait of the run. Is it time to tell what is waited for, or that there is nothing any more?
    fn are_news(&mut self, first: Option<&WaitView>) -> bool {
        // What is being carried out is no wait. Of the steps in maps the map stands for all: one follows the other.
        let waiting = first.filter(|wait| !matches!(wait.reason, Reason::Leased | Reason::Aborting));
        let wait = waiting.map(|wait| (wait.reason, wait.path.split(['[', '.']).next().unwrap_or_default().to_owned()));
        let lasts = self.heard == wait;
        self.heard = wait;
        let news = self.told != self.heard && (lasts || self.heard.is_none());
        if news {
            self.told.clone_from(&self.heard);
        }
        news
    }
}

/// The steps inside maps, as they were last counted.
struct Inside {
    steps: Vec<StepInside>,
    /// When to count again.
    due: Instant,
    /// Maps that had ended by then: the last line of one that ends is to be final.
    ended: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(reason: Reason, path: &str) -> WaitView {
        WaitView { path: path.into(), reason, attempt: 1, since: None, until: None, wakes: String::new() }
    }

    #[test]
    fn a_wait_that_lasts_is_told_once_and_again_when_it_changes() {
        let mut waits = Waits { due: Instant::now(), heard: None, told: None };
        let mut news = |reason, path: &str| waits.are_news(Some(&wait(reason, path)));
        assert!(!news(Reason::NoWorker, "a"), "it may be a moment between two steps");
        assert!(news(Reason::NoWorker, "a"));
        assert!(!news(Reason::NoWorker, "a"), "told before");
        assert!(!news(Reason::Ready, "a") && news(Reason::Ready, "a"), "it waits for something else");
        assert!(news(Reason::Leased, "a"), "it goes on");
        assert!(!news(Reason::Leased, "b"));
        assert!(!news(Reason::Timer, "m[1].b") && news(Reason::Timer, "m[2].b"));
        assert!(!news(Reason::Timer, "m[3].b"), "another item of the same map");
        assert!(!news(Reason::NoWorker, "a") && news(Reason::NoWorker, "a"), "told before the others, not last");
    }
}
