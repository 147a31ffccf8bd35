//! A run watched until it has ended.

use crate::{progress::Progress, tree::is_over};
use krowoc_engine::{
    Engine, Error, Result, RunId, Scope,
    queries::{
        self,
        inside::{self, StepInside},
        runs::{self, RunState},
        steps,
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

/// A run and the version that it is pinned to.
pub struct Followed<'a> {
    engine: &'a Engine,
    scope: &'a Scope,
    /// The run.
    pub run: RunId,
    version: Arc<Version>,
}

impl<'a> Followed<'a> {
    /// Finds a run.
    pub async fn find(engine: &'a Engine, scope: &'a Scope, run: RunId) -> Result<Self> {
        let conn = &mut *engine.pool().acquire().await?;
        let version = queries::version_of(conn, scope, run).await?;
        let version = engine.registry().versions.load(conn, version).await?;
        Ok(Self { engine, scope, run, version })
    }

    /// Shows progress until the run has ended, and says how. `stir` completes when it may have moved; without it, time alone tells.
    pub async fn until_end<F: Future<Output = ()>>(&self, progress: &mut dyn Progress, mut stir: impl FnMut() -> F) -> Result<RunState> {
        let mut answered = Instant::now();
        let mut inside = Inside { steps: vec![], due: answered, ended: 0 };
        loop {
            // Made before looking: what happens between the look and the wait is not missed.
            let stirred = stir();
            match self.look(progress, &mut inside).await {
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
    async fn look(&self, progress: &mut dyn Progress, inside: &mut Inside) -> Result<RunState> {
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
        Ok(state)
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
