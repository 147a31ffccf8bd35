//! Steps as people see them: a run's own, and those of a map's items, a page at a time. Statuses nobody stored are derived here.

use super::{
    header,
    keys::{self, Keys, Place},
    outputs,
    states::{self, LaneRow, MapRow, Stored},
    usage::Tokens,
};
use crate::{
    definition::{Action, Dag},
    error::{Error, ErrorClass, Result},
    executor::{StepError, Usage},
    id::{FrameIx, RunId, Scope, ScopePath, StepIx},
    lifecycle::{FrameEnd, RunStatus, StepState},
    path::StepPath,
    payload::Payload,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

/// Where a step stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum StepStatus {
    Pending,
    Ready,
    Running,
    Waiting,
    Succeeded,
    Skipped,
    Failed,
    UpstreamFailed,
    Cancelled,
}

/// What a waiting step waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// Its last attempt failed; the next has its time.
    Backoff,
    /// A limit outside that says when it is over; no attempt was spent.
    Deferred,
    /// It is a `wait` step.
    Timer,
    /// Its items.
    Items,
    /// Its item was opened again, and as many items of the map are under way as may be.
    Concurrency,
}

/// A waiting step's reason and when it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Waiting {
    /// For what.
    pub reason: WaitReason,
    /// Until when; none where that is no matter of time.
    pub until: Option<DateTime<Utc>>,
}

/// How far a map has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct MapProgress {
    /// Items in all.
    pub total: u32,
    /// Items that have ended, the failed ones included.
    pub done: u32,
    /// Items that have failed.
    pub failed: u32,
    /// Attempts that workers hold now.
    pub running: u32,
}

/// A step.
#[derive(Serialize, Clone, Debug)]
pub struct StepView {
    /// Its address in the run.
    pub path: String,
    /// Its id in the file.
    pub id: String,
    /// What it is: `llm`, `http`, `map`, `wait`, …
    pub kind: String,
    /// Where it stands.
    pub status: StepStatus,
    /// For what it waits, if it does.
    pub waiting: Option<Waiting>,
    /// The number of its latest attempt, 0 before the first.
    pub attempts: u32,
    /// When its first attempt started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// How long its last attempt took, once it has ended; for a map or a wait from its first claim to its end, deferrals left out.
    pub duration_ms: Option<u32>,
    /// What its attempts used; for a map see [`inside`](super::inside).
    pub tokens: Option<Tokens>,
    /// The class of its failure.
    pub class: Option<ErrorClass>,
    /// Its failure.
    pub error: Option<StepError>,
    /// A map's items, once it has been expanded.
    pub items: Option<MapProgress>,
}

/// An item of a map.
#[derive(Serialize, Clone, Debug)]
pub struct ItemView {
    /// Its address: `review[s1]`.
    pub path: String,
    /// Its number, from 0.
    pub number: u32,
    /// Its key, where the map declares one.
    pub key: Option<String>,
    /// Where it stands as a whole.
    pub status: StepStatus,
    /// Its steps, each after those it waits for, then by id.
    pub steps: Vec<StepView>,
}

/// The run's own steps, each after those it waits for, then by id: the order of a file's keys means nothing and is not kept.
pub async fn steps(conn: &mut PgConnection, scope: &Scope, run: RunId, dag: &Dag) -> Result<Vec<StepView>> {
    // A run that is being stopped carries out nothing that it has not begun.
    let over = header(conn, scope, run).await?.status != RunStatus::Running;
    let root = [ScopePath::root()];
    let stored = states::load(conn, run, &root).await?;
    let maps = states::load_maps(conn, run, dag, &states::maps_in(dag, FrameIx::ROOT, &root), &stored).await?;
    let view = Viewer { dag, stored: &stored, maps: &maps, keys: &Keys::default() };
    Ok(view.frame(FrameIx::ROOT, &root[0], over)?.0)
}

/// A map's items with their steps, in their order: those after number `after`. Not found if the address names no map.
pub async fn items(
    conn: &mut PgConnection,
    scope: &Scope,
    run: RunId,
    dag: &Dag,
    map: &StepPath,
    after: Option<u32>,
    limit: u32,
) -> Result<Vec<ItemView>> {
    let over = header(conn, scope, run).await?.status != RunStatus::Running;
    let Place { scope: outer, step: ix, item: None } = keys::resolve(conn, run, dag, map).await? else {
        return Err(Error::not_found("map", map));
    };
    let Action::Map(plan) = &dag.step(ix).action else { return Err(Error::not_found("map", map)) };
    let total = states::total_items(conn, run, &outer, ix).await?;
    let from = after.map_or(0, |n| n.saturating_add(1));
    let scopes: Vec<ScopePath> = (from..total.min(from.saturating_add(limit))).map(|n| outer.item(ix, n)).collect();
    let stored = states::load(conn, run, &scopes).await?;
    let maps = states::load_maps(conn, run, dag, &states::maps_in(dag, plan.body, &scopes), &stored).await?;
    let keys = keys::load(conn, run, dag, &scopes).await?;
    let live = map_is_live(conn, run, &outer, ix).await?;
    let view = Viewer { dag, stored: &stored, maps: &maps, keys: &keys };
    (from..).zip(&scopes).map(|(number, scope)| view.item(plan.body, scope, ix, number, over || !live)).collect()
}

/// A step's output, once it has succeeded.
pub async fn output(conn: &mut PgConnection, scope: &Scope, run: RunId, dag: &Dag, step: &StepPath) -> Result<Option<Payload>> {
    header(conn, scope, run).await?;
    let place = keys::resolve(conn, run, dag, step).await?;
    if place.item.is_some() {
        return Err(Error::not_found("step", step));
    }
    Ok(outputs(conn, run, vec![(place.scope, place.step)]).await?.pop().flatten())
}

async fn map_is_live(conn: &mut PgConnection, run: RunId, scope: &ScopePath, map: StepIx) -> Result<bool> {
    let live = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM krowoc.map_state WHERE run_id = $1 AND scope = $2 AND step = $3) AS "live!""#,
        run.0,
        &scope.0,
        map.0 as i16
    )
    .fetch_one(conn)
    .await?;
    Ok(live)
}

struct Viewer<'a> {
    dag: &'a Dag,
    stored: &'a Stored,
    maps: &'a std::collections::HashMap<(ScopePath, StepIx), MapRow>,
    keys: &'a Keys,
}

impl Viewer<'_> {
    /// The steps of a scope, and what it came to if all have ended. `over`: nothing of what has not ended will be carried out any more.
    fn frame(&self, frame: FrameIx, scope: &ScopePath, over: bool) -> Result<(Vec<StepView>, Option<FrameEnd>)> {
        let members = &self.dag.frame(frame).members;
        let (state, end) = self.stored.frame(self.dag, frame, scope)?;
        // A scope that nobody has started is not at its first steps; and one without a state of its own lives as long as its lane.
        let started = self.stored.knows(scope);
        let steps = members
            .iter()
            .zip(state.steps())
            .map(|(ix, state)| self.step(scope, *ix, if started { *state } else { StepState::Pending }, over))
            .collect();
        Ok((steps, end))
    }

    fn item(&self, body: FrameIx, scope: &ScopePath, map: StepIx, number: u32, over: bool) -> Result<ItemView> {
        let (steps, end) = self.frame(body, scope, over)?;
        let outer = scope.parent().map(|p| p.0).unwrap_or_default();
        let key = self.keys.get(&outer, map, number);
        Ok(ItemView { path: self.keys.item_path(self.dag, scope), number, key, status: item_status(&steps, end), steps })
    }

    fn step(&self, scope: &ScopePath, ix: StepIx, state: StepState, over: bool) -> StepView {
        let step = self.dag.step(ix);
        let result = self.stored.results.get(scope).and_then(|r| r.get(&ix));
        let lane = self.stored.lanes.get(scope).and_then(|l| l.get(&(ix.0 as i16)));
        let tried = self.stored.tried.get(&(scope.clone(), ix));
        let map = self.maps.get(&(scope.clone(), ix));
        let (status, waiting) = match (state, lane) {
            (StepState::Live, Some(lane)) => doing(lane),
            // A map of a run that is being stopped has no lane any more, but is not over before the attempts inside it are.
            (StepState::Live, None) if map.is_some_and(|map| map.running > 0) => waits(WaitReason::Items, None),
            (StepState::Live | StepState::Pending, _) if over => (StepStatus::Cancelled, None),
            // Live without a lane: its item has been claimed and its first lanes are about to be opened.
            (StepState::Live, None) => (StepStatus::Ready, None),
            (state, _) => (settled(state), None),
        };
        let last_start = result.map(|r| r.finished_at - TimeDelta::milliseconds(r.duration_ms.into()));
        let starts = [tried.and_then(|t| t.first_at), last_start, lane.and_then(|l| l.started_at)];
        StepView {
            path: self.keys.path(self.dag, scope, ix),
            id: step.id.clone(),
            kind: kind(&step.action).into(),
            status,
            waiting,
            attempts: result.map(|r| r.attempt).or(lane.map(|l| l.attempt)).unwrap_or_default(),
            started_at: starts.into_iter().flatten().min(),
            finished_at: result.map(|r| r.finished_at),
            duration_ms: result.map(|r| r.duration_ms.max(0).unsigned_abs()),
            tokens: tokens(result, tried),
            class: result.and_then(|r| r.error.as_ref()).map(|e| e.class),
            error: result.and_then(|r| r.error.clone()),
            items: map.map(|m| MapProgress { total: m.total, done: m.done, failed: m.failed, running: m.running }),
        }
    }
}

fn item_status(steps: &[StepView], end: Option<FrameEnd>) -> StepStatus {
    use StepStatus as S;
    let any = |status: &S| steps.iter().any(|s| s.status == *status);
    match end {
        Some(FrameEnd::Failed { .. }) => S::Failed,
        Some(FrameEnd::Succeeded) if steps.iter().all(|s| s.status == S::Skipped) => S::Skipped,
        Some(FrameEnd::Succeeded) => S::Succeeded,
        // What is on its way tells more than what it waits for, and that more than what comes after.
        None => [S::Running, S::Ready, S::Waiting, S::Cancelled].into_iter().find(any).unwrap_or(S::Pending),
    }
}

fn doing(lane: &LaneRow) -> (StepStatus, Option<Waiting>) {
    match lane.state.as_str() {
        "leased" | "aborting" => (StepStatus::Running, None),
        "backoff" => waits(WaitReason::Backoff, Some(lane.ready_at)),
        "deferred" => waits(WaitReason::Deferred, Some(lane.ready_at)),
        "timer" => waits(WaitReason::Timer, Some(lane.ready_at)),
        "items" => waits(WaitReason::Items, None),
        "held" => waits(WaitReason::Concurrency, None),
        _ => (StepStatus::Ready, None),
    }
}

fn waits(reason: WaitReason, until: Option<DateTime<Utc>>) -> (StepStatus, Option<Waiting>) {
    (StepStatus::Waiting, Some(Waiting { reason, until }))
}

fn settled(state: StepState) -> StepStatus {
    match state {
        StepState::Pending => StepStatus::Pending,
        StepState::Live => StepStatus::Ready,
        StepState::Succeeded => StepStatus::Succeeded,
        StepState::Skipped => StepStatus::Skipped,
        StepState::Failed => StepStatus::Failed,
        StepState::UpstreamFailed => StepStatus::UpstreamFailed,
        StepState::Cancelled => StepStatus::Cancelled,
    }
}

pub(super) fn kind(action: &Action) -> &str {
    match action {
        Action::Task { kind, .. } => kind,
        Action::Map(_) => "map",
        Action::Wait(_) => "wait",
    }
}

/// The last attempt is on record with the step's result, and with the attempts too if it failed for good: it counts once.
fn tokens(result: Option<&states::ResultRow>, tried: Option<&states::Tried>) -> Option<Tokens> {
    let before = tried.map(|t| t.usage.as_slice()).unwrap_or_default();
    let last = result.and_then(|r| r.usage.as_ref().map(|usage| (r.attempt, usage))).filter(|(n, _)| before.iter().all(|(m, _)| m != n));
    let all: Vec<&Usage> = before.iter().map(|(_, usage)| usage).chain(last.map(|(_, usage)| usage)).collect();
    (!all.is_empty()).then(|| {
        all.into_iter().fold(Tokens::default(), |mut sum, usage| {
            sum += Tokens { calls: 1, input: usage.input_tokens, cached_input: usage.cached_input_tokens, output: usage.output_tokens };
            sum
        })
    })
}
