//! Why a run is not further: one sentence, and what each of its live steps is doing or waiting for.

use super::{Header, header, keys, queues::WORKER_SILENCE_S, runs};
use crate::{
    definition::Dag,
    error::Result,
    id::{RunId, Scope, ScopePath, StepIx},
    lifecycle::RunStatus,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

/// Live steps that are named one by one; the sentence counts them all.
const SHOWN: i64 = 100;

/// The answer.
#[derive(Serialize, Clone, Debug)]
pub struct WhyView {
    /// One sentence.
    pub sentence: String,
    /// How many live steps there are.
    pub live: i64,
    /// Those that matter most, at most 100: what runs, what waits, what is ready.
    pub waits: Vec<WaitView>,
}

/// What a live step is doing or waiting for.
#[derive(Serialize, Clone, Debug)]
pub struct WaitView {
    /// The step's address; `output` for the computation of the run's output.
    pub path: String,
    /// What it is doing.
    pub reason: Reason,
    /// The attempt under way, or the last one.
    pub attempt: u32,
    /// Since when, where that is on record.
    pub since: Option<DateTime<Utc>>,
    /// Until when: a due time, or the end of a lease that is not renewed.
    pub until: Option<DateTime<Utc>>,
    /// What will end the wait.
    pub wakes: String,
}

/// What a live step is doing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A worker carries it out.
    Leased,
    /// A worker is told to stop it.
    Aborting,
    /// No worker serves its queue.
    NoWorker,
    /// The workers of its queue are busy with others.
    Ready,
    /// The next attempt has its time.
    Backoff,
    /// A limit has its time.
    Deferred,
    /// It is a `wait` step.
    Timer,
    /// Items of a map are under way.
    Items,
    /// As many items of its map are under way as may be.
    Concurrency,
}

struct Lane {
    scope: ScopePath,
    step: i16,
    attempt: u32,
    state: String,
    ready_at: DateTime<Utc>,
    lease_until: Option<DateTime<Utc>>,
    started_at: Option<DateTime<Utc>>,
    worker: Option<String>,
    queue: String,
    served: bool,
    items: Option<(i32, i32, i32)>,
    unclaimed: bool,
}

/// What the run waits for, or how it ended.
pub async fn why(conn: &mut PgConnection, scope: &Scope, run: RunId, dag: &Dag) -> Result<WhyView> {
    let head = header(conn, scope, run).await?;
    if head.status.is_terminal() {
        let sentence = ended(conn, scope, run, &head).await?;
        return Ok(WhyView { sentence, live: 0, waits: vec![] });
    }
    let (live, lanes) = lanes(conn, run).await?;
    let keys = keys::load(conn, run, dag, lanes.iter().map(|l| &l.scope)).await?;
    let path = |lane: &Lane| match (u16::try_from(lane.step), lane.scope.is_root()) {
        (Ok(ix), _) => keys.path(dag, &lane.scope, StepIx(ix)),
        (Err(_), true) => "output".to_owned(),
        (Err(_), false) => keys.item_path(dag, &lane.scope),
    };
    let waits: Vec<WaitView> = lanes.iter().map(|lane| wait(lane, path(lane), head.now)).collect();
    let sentence = match (head.status, waits.first()) {
        (RunStatus::Cancelling, _) => format!("The run is being stopped: {} still in flight.", count(live, "attempt is", "attempts are")),
        (_, None) => "Nothing of the run is live: that is a fault of the engine; `krowoc.check_invariants()` says more.".into(),
        (_, Some(first)) => summary(first, live, head.now),
    };
    Ok(WhyView { sentence, live, waits })
}

async fn ended(conn: &mut PgConnection, scope: &Scope, run: RunId, head: &Header) -> Result<String> {
    let took = head.finished_at.map(|at| format!(" after {}", span(at - head.created_at))).unwrap_or_default();
    let view = runs::show(conn, scope, run).await?;
    let why = view.run.error.as_ref().and_then(|e| e.parse::<serde_json::Value>().ok());
    let why = why.as_ref().and_then(|e| e.get("message")).and_then(|m| m.as_str()).map(|m| format!(": {m}")).unwrap_or_default();
    let open = sqlx::query_scalar!(r#"SELECT count(*) AS "open!" FROM krowoc.dead_letter WHERE run_id = $1 AND state = 'open'"#, run.0)
        .fetch_one(conn)
        .await?;
    let letters = if open > 0 { format!(" ({} open)", count(open, "dead letter", "dead letters")) } else { String::new() };
    Ok(format!(
        "The run {}{took}{why}{letters}.",
        match head.status {
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "was cancelled",
            RunStatus::Running | RunStatus::Cancelling => "is live",
        }
    ))
}

async fn lanes(conn: &mut PgConnection, run: RunId) -> Result<(i64, Vec<Lane>)> {
    // In the order of the sentence: what runs tells more than a map that waits for it, and a wait with a time more than a place in a queue
    // that is served; a queue that nobody serves comes before all.
    let rows = sqlx::query!(
        r#"SELECT l.scope AS "scope!", l.step AS "step!", l.attempt AS "attempt!", l.state::text AS "state!", l.ready_at AS "ready_at!", l.lease_until, l.total_from, w.name AS "worker?", q.name AS queue,
             v.served AS "served!", m.done AS "done?", m.goal AS "goal?", m.failed AS "failed?", (p.lo IS NOT NULL) AS "unclaimed!",
             count(*) OVER () AS "live!"
           FROM krowoc.live_lane l LEFT JOIN krowoc.map_state m ON m.run_id = l.run_id AND m.scope = l.scope AND m.step = l.step
           LEFT JOIN krowoc.span p ON p.run_id = l.run_id AND p.scope = l.scope AND p.step = l.step AND (p.permits IS NULL OR p.permits > 0) AND NOT p.held
           -- A map that waits is served where its items are.
           JOIN krowoc.task_queue q ON q.id = coalesce(p.queue, l.queue) LEFT JOIN krowoc.worker w ON w.id = l.worker
           CROSS JOIN LATERAL (SELECT EXISTS (
             SELECT FROM krowoc.worker x WHERE q.id = ANY (x.queues) AND x.seen_at > krowoc.now() - make_interval(secs => $2)) AS served) v
           WHERE l.run_id = $1
           ORDER BY CASE WHEN l.state = 'ready' AND NOT v.served THEN 0 WHEN l.state IN ('leased', 'aborting') THEN 1
             WHEN l.state IN ('backoff', 'deferred', 'timer') THEN 2 WHEN l.state = 'items' THEN 3 ELSE 4 END, l.ready_at, l.scope, l.lane
           LIMIT $3"#,
        run.0,
        WORKER_SILENCE_S,
        SHOWN
    )
    .fetch_all(conn)
    .await?;
    let live = rows.first().map_or(0, |r| r.live);
    let lanes = rows.into_iter().map(|r| Lane {
        scope: ScopePath(r.scope),
        step: r.step,
        attempt: r.attempt.unsigned_abs(),
        state: r.state,
        ready_at: r.ready_at,
        lease_until: r.lease_until,
        started_at: r.total_from,
        worker: r.worker,
        queue: r.queue,
        served: r.served,
        items: r.done.zip(r.goal).zip(r.failed).map(|((done, goal), failed)| (done, goal, failed)),
        unclaimed: r.unclaimed,
    });
    Ok((live, lanes.collect()))
}

fn wait(lane: &Lane, path: String, now: DateTime<Utc>) -> WaitView {
    let queue = &lane.queue;
    let worker = lane.worker.as_deref().map_or_else(|| "its worker".into(), |w| format!("worker `{w}`"));
    let (reason, since, until, wakes) = match lane.state.as_str() {
        "leased" | "aborting" => {
            let reason = if lane.state == "leased" { Reason::Leased } else { Reason::Aborting };
            let over = lane.lease_until.is_some_and(|until| until < now);
            let wakes = match over {
                false => format!("{worker} ending the attempt, or its lease running out"),
                true => format!("the reaper: the lease of {worker} has run out"),
            };
            (reason, lane.started_at, lane.lease_until, wakes)
        }
        // A time that has passed: the next claim on the queue takes it, so it is as good as ready.
        "backoff" | "deferred" | "timer" if lane.ready_at > now => {
            let reason = match lane.state.as_str() {
                "backoff" => Reason::Backoff,
                "deferred" => Reason::Deferred,
                _ => Reason::Timer,
            };
            (reason, None, Some(lane.ready_at), "the clock".into())
        }
        "items" if lane.served || !lane.unclaimed => {
            let (done, goal, failed) = lane.items.unwrap_or_default();
            let failed = if failed > 0 { format!(", {failed} of them failed") } else { String::new() };
            (Reason::Items, Some(lane.ready_at), None, format!("its items: {done} of {goal} have ended{failed}"))
        }
        "held" => {
            (Reason::Concurrency, Some(lane.ready_at), None, "the end of another item of its map, which runs as many as it may".into())
        }
        _ if !lane.served => (Reason::NoWorker, Some(lane.ready_at), None, format!("a worker for queue `{queue}`: none is alive")),
        _ => (Reason::Ready, Some(lane.ready_at), None, format!("a free slot of a worker on queue `{queue}`")),
    };
    WaitView { path, reason, attempt: lane.attempt, since, until, wakes }
}

fn summary(first: &WaitView, live: i64, now: DateTime<Utc>) -> String {
    let WaitView { path, attempt, wakes, .. } = first;
    let since = first.since.map(|at| format!(" for {}", span(now - at))).unwrap_or_default();
    let until = first.until.map(|at| format!(" another {}", span(at - now))).unwrap_or_default();
    let doing = match first.reason {
        Reason::Leased | Reason::Aborting => format!("has been running{since} (attempt {attempt}); next: {wakes}"),
        Reason::NoWorker | Reason::Ready => format!("has been waiting{since} for {wakes}"),
        Reason::Backoff => format!("waits{until} before another attempt, since attempt {attempt} failed"),
        Reason::Deferred => format!("waits{until} for a limit that another system has set"),
        Reason::Timer => format!("waits{until}, as the workflow says"),
        Reason::Items | Reason::Concurrency => format!("waits for {wakes}"),
    };
    let others = if live > 1 { format!("; {} live beside it", count(live - 1, "step is", "steps are")) } else { String::new() };
    format!("`{path}` {doing}{others}.")
}

fn count(n: i64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A length of time in its two largest units.
fn span(d: chrono::TimeDelta) -> String {
    let s = d.num_seconds().max(0);
    match s {
        0 if d.num_milliseconds() > 0 => format!("{} ms", d.num_milliseconds()),
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}
