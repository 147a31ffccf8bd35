//! Runs are accepted: header, state and first lanes in one transaction. Once this returns, the run will reach an end.

use super::leave;
use crate::{
    bounds,
    definition::Problem,
    error::{Error, Result},
    fail_point::{self, Site},
    id::{FrameIx, RunId, Scope, ScopePath, VersionId},
    lifecycle::{Counters, FrameState},
    payload::Payload,
    store::{
        blobs,
        holder::{Claimant, Holder},
        rows::{Claimed, Lease, VersionedState},
        runs::{self, NewRuns},
    },
    version::{Version, Versions},
};
use sqlx::{Connection, PgConnection};
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// A run to start.
#[derive(Clone, Debug)]
pub struct StartRun {
    /// The workflow version.
    pub version: VersionId,
    /// The run's input.
    pub input: Payload,
    /// The same key returns the same run; with another version or input it is a conflict. At most 255 bytes.
    pub idempotency_key: Option<String>,
    /// Higher is claimed first; 0 is usual.
    pub priority: i16,
    /// What started it: `cli`, `api`, `schedule`, …
    pub trigger: String,
}

/// What came of a [`StartRun`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StartedRun {
    /// The run.
    pub id: RunId,
    /// Started by this call; otherwise the key had been used for the same request before.
    pub created: bool,
}

/// A worker in the same process: takes first steps that are born leased, so that accepting a run and starting it is one commit.
pub trait Local: Send + Sync {
    /// Room for up to `want` steps of the queue, if nothing older waits.
    fn reserve(&self, want: usize) -> usize;
    /// Which queues it serves.
    fn serves(&self, queue: i16) -> bool;
    /// Who holds the leases.
    fn holder(&self) -> (i32, f64);
    /// Gives reserved room back.
    fn give_back(&self, slots: usize);
    /// Leased steps, to be carried out now.
    fn dispatch(&self, claimed: Vec<LocalStep>);
    /// Ready steps were left in the database.
    fn wake(&self);
}

/// A first step that was born leased.
pub struct LocalStep {
    pub(crate) claimed: Claimed,
    pub(crate) version: Arc<Version>,
    pub(crate) input: Payload,
    /// When its lease was asked for.
    pub(crate) asked: Instant,
}

/// Starts a slice of runs in one transaction, all or none. Versions of another workspace's workflows are not found. Input that misses its
/// workflow's schema is refused with every problem, pointers led by the run's place in the slice when there are several.
pub async fn start_runs(
    conn: &mut PgConnection,
    scope: &Scope,
    versions: &Versions,
    slice: &[StartRun],
    local: Option<&dyn Local>,
) -> Result<Vec<StartedRun>> {
    if slice.is_empty() {
        return Ok(vec![]);
    }
    let mut loaded = Vec::with_capacity(slice.len());
    for run in slice {
        loaded.push(load(conn, scope, versions, run).await?);
    }
    check_inputs(slice, &loaded)?;
    start_checked(conn, scope, slice, &loaded, local).await
}

/// A run's version; not found in another workspace.
pub(crate) async fn load(conn: &mut PgConnection, scope: &Scope, versions: &Versions, run: &StartRun) -> Result<Arc<Version>> {
    let version = versions.load(conn, run.version).await?;
    if version.workspace != scope.workspace {
        return Err(Error::not_found("workflow version", run.version.0));
    }
    Ok(version)
}

/// Starts runs in which [`problems`] found nothing, all or none.
pub(crate) async fn start_checked(
    conn: &mut PgConnection,
    scope: &Scope,
    slice: &[StartRun],
    loaded: &[Arc<Version>],
    local: Option<&dyn Local>,
) -> Result<Vec<StartedRun>> {
    let prepared = Prepared::of(slice, loaded);
    let lanes = prepared.steps.len();
    let by = holder(local);
    let mine = match local {
        // A key may turn out to be taken: then its first steps must not be handed out.
        Some(worker) if prepared.new.keys.is_none() && prepared.new.lane_queue.iter().all(|q| worker.serves(*q)) => worker.reserve(lanes),
        _ => 0,
    };
    let asked = Instant::now();
    let report = match insert(conn, scope, slice, &prepared, mine, by).await {
        Ok(report) => report,
        Err(e) => {
            if let Some(worker) = local {
                worker.give_back(mine);
            }
            return Err(e);
        }
    };
    if let Some(worker) = local {
        worker.dispatch(prepared.born_leased(slice, loaded, mine, by, asked));
        if lanes > mine {
            worker.wake();
        }
    }
    Ok(report)
}

/// Places in the slice, in the order in which the runs are inserted: whoever inserts a key that another has inserted and not committed
/// waits for it, so that two slices with the same keys in different orders would wait for each other.
fn in_key_order(slice: &[StartRun]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..slice.len()).collect();
    order.sort_by_key(|at| slice[*at].idempotency_key.as_deref());
    order
}

fn holder(local: Option<&dyn Local>) -> Holder {
    let (worker, lease_s) = local.map_or((0, 0.0), Local::holder);
    Claimant { worker, lease_s }.holder()
}

fn check_inputs(slice: &[StartRun], versions: &[Arc<Version>]) -> Result<()> {
    let mut problems = vec![];
    for (at, (run, version)) in slice.iter().zip(versions).enumerate() {
        let prefix = if slice.len() > 1 { format!("/{at}") } else { String::new() };
        problems.extend(self::problems(run, version).into_iter().map(|p| Problem { pointer: prefix.clone() + &p.pointer, ..p }));
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
}

/// Everything that is wrong with a run that is to be started.
pub(crate) fn problems(run: &StartRun, version: &Version) -> Vec<Problem> {
    let mut problems = vec![];
    if let Some(key) = &run.idempotency_key
        && !(1..=255).contains(&key.len())
    {
        problems.push(Problem::new("idempotency_key", "", "an idempotency key has 1 to 255 bytes"));
    }
    match run.input.len() {
        size if size > bounds::MAX_PAYLOAD => problems.push(Problem::new("too_large", "", bounds::too_large("the input", size))),
        _ => problems.extend(version.dag.check_input(&run.input)),
    }
    problems
}

struct Prepared {
    new: NewRuns,
    blobs: Vec<(RunId, Payload)>,
    timeouts: (Vec<uuid::Uuid>, Vec<f64>),
    /// For each run, its place in the slice.
    order: Vec<usize>,
    /// For each lane, the run's place in the slice.
    steps: Vec<usize>,
}

impl Prepared {
    fn of(slice: &[StartRun], versions: &[Arc<Version>]) -> Self {
        let order = in_key_order(slice);
        let ids: Vec<RunId> = slice.iter().map(|_| RunId::new()).collect();
        let mut p = Self { new: NewRuns::default(), blobs: vec![], timeouts: (vec![], vec![]), order: vec![], steps: vec![] };
        let keyed = slice.iter().any(|r| r.idempotency_key.is_some());
        for at in order.iter().copied() {
            let (run, version, id) = (&slice[at], &versions[at], ids[at]);
            let n = &mut p.new;
            n.id.push(id.0);
            n.version.push(run.version.0);
            match run.input.packed() {
                Some(packed) => {
                    n.input.push(None);
                    n.blob.push(Some(packed.hash.to_vec()));
                    p.blobs.push((id, run.input.clone()));
                }
                None => {
                    n.input.push(Some(run.input.clone()));
                    n.blob.push(None);
                }
            }
            n.priority.push(run.priority);
            n.trigger.push(run.trigger.clone());
            if keyed {
                n.keys.get_or_insert_default().push(run.idempotency_key.clone());
                n.hash.push(request_hash(run));
            }
            n.steps.push(FrameState::start(&version.dag, FrameIx::ROOT).encode());
            for (lane, root) in version.dag.frame(FrameIx::ROOT).roots.iter().enumerate() {
                n.lane_run.push(id.0);
                n.lane.push(lane as i32);
                n.lane_version.push(run.version.0);
                n.lane_step.push(root.0 as i16);
                n.lane_queue.push(version.queues[root.at()]);
                n.lane_priority.push(run.priority);
                p.steps.push(at);
            }
            if let Some(timeout) = version.dag.timeout {
                p.timeouts.0.push(id.0);
                p.timeouts.1.push(timeout.as_secs_f64());
            }
        }
        p.order = order;
        p
    }

    /// The ids of the runs, in the caller's order.
    fn ids(&self) -> Vec<RunId> {
        let mut ids: Vec<(usize, RunId)> = self.order.iter().copied().zip(self.new.id.iter().copied().map(RunId)).collect();
        ids.sort_by_key(|(at, _)| *at);
        ids.into_iter().map(|(_, id)| id).collect()
    }

    fn born_leased(&self, slice: &[StartRun], versions: &[Arc<Version>], mine: usize, by: Holder, asked: Instant) -> Vec<LocalStep> {
        let n = &self.new;
        (0..mine)
            .map(|i| {
                let at = self.steps[i];
                let lease = Lease {
                    run: RunId(n.lane_run[i]),
                    scope: ScopePath::root(),
                    lane: n.lane[i],
                    token: by.token,
                    version: slice[at].version,
                    step: n.lane_step[i],
                    phase: Lease::FRESH,
                    attempt: 1,
                    counters: Counters::default(),
                    queue: n.lane_queue[i],
                    priority: n.lane_priority[i],
                    bundle: None,
                    overdue: Duration::ZERO,
                };
                let state = VersionedState { version: 1, frame: FrameState::start(&versions[at].dag, FrameIx::ROOT) };
                LocalStep {
                    claimed: Claimed { lease, state: Some(state) },
                    version: versions[at].clone(),
                    input: slice[at].input.clone(),
                    asked,
                }
            })
            .collect()
    }
}

async fn insert(
    conn: &mut PgConnection,
    scope: &Scope,
    slice: &[StartRun],
    p: &Prepared,
    mine: usize,
    by: Holder,
) -> Result<Vec<StartedRun>> {
    if p.blobs.is_empty() && p.timeouts.0.is_empty() && p.new.keys.is_none() {
        fail_point::around(Site::Start, runs::start(conn, scope, &p.new, mine, by)).await?;
        return Ok(p.ids().into_iter().map(|id| StartedRun { id, created: true }).collect());
    }
    let mut tx = conn.begin().await?;
    let report = insert_in(&mut tx, scope, slice, p, mine, by).await;
    match &report {
        Ok(_) => fail_point::around(Site::Start, tx.commit()).await?,
        Err(_) => leave(tx).await,
    }
    report
}

async fn insert_in(
    tx: &mut PgConnection,
    scope: &Scope,
    slice: &[StartRun],
    p: &Prepared,
    mine: usize,
    by: Holder,
) -> Result<Vec<StartedRun>> {
    let started = runs::start(tx, scope, &p.new, mine, by).await?;
    let fresh: HashSet<_> = started.into_iter().collect();
    let blobs: Vec<_> = p.blobs.iter().filter(|(run, _)| fresh.contains(&run.0)).cloned().collect();
    blobs::insert(tx, &blobs).await?;
    let (ids, seconds): (Vec<_>, Vec<_>) =
        p.timeouts.0.iter().copied().zip(p.timeouts.1.iter().copied()).filter(|(id, _)| fresh.contains(id)).unzip();
    runs::set_timeouts(tx, &ids, &seconds).await?;
    let mut report = Vec::with_capacity(slice.len());
    for (run, id) in slice.iter().zip(p.ids()) {
        match &run.idempotency_key {
            // A conflict leaves by `?` and takes the whole slice back with it.
            Some(key) if !fresh.contains(&id.0) => report.push(earlier(tx, scope, run, key).await?),
            _ => report.push(StartedRun { id, created: true }),
        }
    }
    Ok(report)
}

async fn earlier(conn: &mut PgConnection, scope: &Scope, run: &StartRun, key: &str) -> Result<StartedRun> {
    match runs::by_key(conn, scope, key).await? {
        Some((id, hash)) if hash == request_hash(run) => Ok(StartedRun { id, created: false }),
        Some((id, _)) => Err(Error::Conflict(format!(
            "idempotency key `{key}` was used for run {id} with another workflow version or input; use a new key, or send the same request"
        ))),
        None => Err(Error::Conflict(format!("the run that held idempotency key `{key}` has just been removed; send the request again"))),
    }
}

fn request_hash(run: &StartRun) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&run.version.0.to_le_bytes());
    hasher.update(run.input.as_str().as_bytes());
    hasher.finalize().as_bytes().to_vec()
}
