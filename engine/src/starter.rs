//! Starts runs that are named by their workflow. Those that are asked for one by one while a commit is under way are started by the next one
//! together: group commit without a timer. One that can't be started fails alone.

use crate::{
    Engine,
    commands::{StartRun, StartedRun, start_runs},
    error::{Error, Result},
    id::{Scope, VersionId},
    payload::Payload,
    queries::workflows::{VersionName, resolve},
    version::Version,
};
use sqlx::PgConnection;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::{mpsc, oneshot};

/// Runs that one commit starts; more would make those who came first wait for those who came last.
const BATCH: usize = 256;
/// Those who ask beyond this wait for their turn to ask.
const QUEUE: usize = 4 * BATCH;

/// A run to start.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The workflow, and its version unless it is the one registered last.
    pub version: VersionName,
    /// The run's input.
    pub input: Payload,
    /// See [`StartRun::idempotency_key`].
    pub idempotency_key: Option<String>,
    /// Higher is claimed first; 0 is usual.
    pub priority: i16,
    /// What started it: `cli`, `api`, `schedule`, …
    pub trigger: String,
}

/// What comes of one that was asked for with others: an error may be that of all of them.
type Outcome = Result<StartedRun, Arc<Error>>;

struct Ask {
    scope: Scope,
    wanted: Wanted,
    reply: oneshot::Sender<Outcome>,
}

/// Starts runs. Cloning it is free; the task behind it ends with the last clone.
#[derive(Clone)]
pub struct Starter {
    engine: Engine,
    asks: mpsc::Sender<Ask>,
}

impl Starter {
    /// On an engine. To be called where a runtime of tokio runs.
    pub fn new(engine: &Engine) -> Self {
        let (asks, received) = mpsc::channel(QUEUE);
        tokio::spawn(serve(engine.clone(), received));
        Self { engine: engine.clone(), asks }
    }

    /// Starts a run, together with whichever others are asked for now.
    pub async fn start(&self, scope: &Scope, wanted: Wanted) -> Outcome {
        let (reply, answer) = oneshot::channel();
        let gone = || Arc::new(Error::Internal("nobody starts runs any more".into()));
        self.asks.send(Ask { scope: scope.clone(), wanted, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Starts a slice of runs in a transaction of its own, all or none; see [`start_runs`].
    pub async fn start_all(&self, scope: &Scope, wanted: Vec<Wanted>) -> Result<Vec<StartedRun>> {
        let versions = versions(&self.engine, scope, &wanted).await?;
        let slice = wanted.into_iter().map(|wanted| run(wanted, &versions)).collect::<Result<Vec<_>>>()?;
        self.engine.start_runs(scope, &slice, None).await
    }
}

async fn serve(engine: Engine, mut asks: mpsc::Receiver<Ask>) {
    let mut gathered = Vec::with_capacity(BATCH);
    while asks.recv_many(&mut gathered, BATCH).await > 0 {
        let mut scopes: BTreeMap<_, Vec<Ask>> = BTreeMap::new();
        for ask in gathered.drain(..) {
            scopes.entry((ask.scope.workspace, ask.scope.actor.clone())).or_default().push(ask);
        }
        for ((workspace, actor), asks) in scopes {
            let scope = Scope { workspace, actor };
            let (wanted, replies): (Vec<Wanted>, Vec<_>) = asks.into_iter().map(|ask| (ask.wanted, ask.reply)).unzip();
            let outcomes = together(&engine, &scope, wanted).await;
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                // Whoever asked may have gone; the run is started all the same, as it is when an answer is lost on its way.
                reply.send(outcome).ok();
            }
        }
    }
}

/// Starts those that are sound in one transaction if that goes.
async fn together(engine: &Engine, scope: &Scope, wanted: Vec<Wanted>) -> Vec<Outcome> {
    let n = wanted.len();
    let checked = async {
        let versions = versions(engine, scope, &wanted).await?;
        let conn = &mut *engine.pool().acquire().await?;
        let mut checked = Vec::with_capacity(n);
        for wanted in wanted {
            checked.push(check(engine, conn, scope, wanted, &versions).await);
        }
        Ok(checked)
    };
    let checked: Vec<Result<Sound>> = match checked.await {
        Ok(checked) => checked,
        Err(error) => return all_of(error, n),
    };
    let (mut sound, mut refused) = (Vec::with_capacity(n), Vec::new());
    for run in checked {
        refused.push(run.map(|run| sound.push(run)).err());
    }
    let mut started = apart(engine, scope, &sound).await.into_iter();
    let outcome = |refused: Option<Error>| match refused {
        Some(error) => Err(Arc::new(error)),
        None => started.next().unwrap_or_else(|| Err(Arc::new(Error::Internal("a run was neither started nor refused".into())))),
    };
    refused.into_iter().map(outcome).collect()
}

/// A run in which nothing is wrong, with its version.
type Sound = (StartRun, Arc<Version>);

async fn check(
    engine: &Engine,
    conn: &mut PgConnection,
    scope: &Scope,
    wanted: Wanted,
    versions: &BTreeMap<VersionName, VersionId>,
) -> Result<Sound> {
    let run = run(wanted, versions)?;
    let version = start_runs::load(conn, scope, &engine.registry().versions, &run).await?;
    match start_runs::problems(&run, &version) {
        problems if problems.is_empty() => Ok((run, version)),
        problems => Err(Error::Invalid(problems)),
    }
}

/// Starts them in one transaction. Where the key of one is in the way, each half in one of its own, until that one stands alone; where it is
/// the database, all of them fail.
async fn apart(engine: &Engine, scope: &Scope, runs: &[Sound]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(runs.len());
    let mut parts = vec![runs];
    while let Some(part) = parts.pop() {
        match start(engine, scope, part).await {
            Ok(started) => outcomes.extend(started.into_iter().map(Ok)),
            Err(Error::Conflict(_)) if part.len() > 1 => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            Err(error) => outcomes.extend(all_of(error, part.len())),
        }
    }
    outcomes
}

async fn start(engine: &Engine, scope: &Scope, part: &[Sound]) -> Result<Vec<StartedRun>> {
    if part.is_empty() {
        return Ok(vec![]);
    }
    let (runs, versions): (Vec<StartRun>, Vec<Arc<Version>>) = part.iter().cloned().unzip();
    start_runs::start_checked(&mut *engine.pool().acquire().await?, scope, &runs, &versions, None).await
}

fn all_of(error: Error, n: usize) -> Vec<Outcome> {
    let error = Arc::new(error);
    (0..n).map(|_| Err(error.clone())).collect()
}

/// The versions that are named, each looked up once; those that are not there are left out.
async fn versions(engine: &Engine, scope: &Scope, wanted: &[Wanted]) -> Result<BTreeMap<VersionName, VersionId>> {
    let names: BTreeSet<&VersionName> = wanted.iter().map(|wanted| &wanted.version).collect();
    let names: Vec<VersionName> = names.into_iter().cloned().collect();
    let ids = resolve(&mut *engine.pool().acquire().await?, scope, &names).await?;
    Ok(names.into_iter().zip(ids).filter_map(|(name, id)| Some((name, id?))).collect())
}

fn run(wanted: Wanted, versions: &BTreeMap<VersionName, VersionId>) -> Result<StartRun> {
    let what = if wanted.version.number.is_some() { "workflow version" } else { "workflow" };
    let version = *versions.get(&wanted.version).ok_or_else(|| Error::not_found(what, &wanted.version))?;
    let Wanted { input, idempotency_key, priority, trigger, .. } = wanted;
    Ok(StartRun { version, input, idempotency_key, priority, trigger })
}
