//! The lanes of a run, and what each is doing or waiting for.

use super::{Reason, WaitView, words};
use crate::{
    definition::{Dag, RetryPolicy},
    error::Result,
    id::{RunId, ScopePath, StepIx},
    lifecycle::outcome::MAX_LOSSES,
    queries::{keys::Keys, queues::WORKER_SILENCE_S},
    store::rows::Lease,
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Live steps that are named one by one; the sentence counts them all.
const SHOWN: i64 = 100;

/// A worker says every 15 s or more often that it lives. One that is late may still come back, so it counts as alive for a while longer.
const WORKER_LATE_S: f64 = 20.0;

pub(super) struct Lane {
    pub scope: ScopePath,
    step: i16,
    phase: i16,
    attempt: u32,
    losses: u16,
    state: String,
    ready_at: DateTime<Utc>,
    lease_until: Option<DateTime<Utc>>,
    /// When the first attempt began, deferrals left out.
    total_from: Option<DateTime<Utc>>,
    /// When the last attempt ended, unless it is under way.
    ended_at: Option<DateTime<Utc>>,
    /// Who holds it, and was heard of last when; none if that worker is gone.
    worker: Option<(String, DateTime<Utc>)>,
    /// It is held, but its worker has not been heard of in time.
    late: bool,
    queue: String,
    served: bool,
    /// Of a map that waits: items that have ended, that are to end, and that have failed.
    items: Option<(i32, i32, i32)>,
    /// Since when items could be claimed and none was; none if none can be.
    offered_at: Option<DateTime<Utc>>,
}

/// How many lanes there are, and those that matter most.
pub(super) async fn load(conn: &mut PgConnection, run: RunId) -> Result<(i64, Vec<Lane>)> {
    // In the order of the sentence: what runs tells more than a map that waits for it, and a wait with a time more than a place in a queue
    // that is served; a queue that nobody serves comes before all, and then a worker that is silent.
    let rows = sqlx::query!(
        r#"SELECT l.scope AS "scope!", l.step AS "step!", l.phase AS "phase!", l.attempt AS "attempt!", l.losses AS "losses!",
             l.state::text AS "state!", l.ready_at AS "ready_at!", l.lease_until, l.total_from, a.finished_at AS "ended_at?",
             w.name AS "worker?", w.seen_at AS "seen_at?", v.late AS "late!", q.name AS queue, v.served AS "served!",
             m.done AS "done?", m.goal AS "goal?", m.failed AS "failed?", p.ready_at AS "offered_at?", count(*) OVER () AS "live!"
           FROM krowoc.live_lane l LEFT JOIN krowoc.map_state m ON m.run_id = l.run_id AND m.scope = l.scope AND m.step = l.step
           LEFT JOIN krowoc.span p ON p.run_id = l.run_id AND p.scope = l.scope AND p.step = l.step AND (p.permits IS NULL OR p.permits > 0) AND NOT p.held
           LEFT JOIN krowoc.attempt a ON a.run_id = l.run_id AND a.scope = l.scope AND a.step = l.step AND a.attempt = l.attempt
           -- A map that waits is served where its items are.
           JOIN krowoc.task_queue q ON q.id = coalesce(p.queue, l.queue)
           LEFT JOIN krowoc.worker w ON w.id = l.worker AND l.state IN ('leased', 'aborting')
           CROSS JOIN LATERAL (SELECT
             -- Not by the one that has the step and is silent: it is the one who would have to be replaced.
             EXISTS (SELECT FROM krowoc.worker x WHERE q.id = ANY (x.queues) AND x.seen_at > krowoc.now() - make_interval(secs => $2)
               AND (w.id IS DISTINCT FROM x.id OR x.seen_at > krowoc.now() - make_interval(secs => $4))) AS served,
             l.state IN ('leased', 'aborting') AND (w.id IS NULL OR l.lease_until < krowoc.now() OR w.seen_at < krowoc.now() - make_interval(secs => $4)) AS late) v
           WHERE l.run_id = $1
           ORDER BY CASE WHEN l.state = 'ready' AND NOT v.served THEN 0 WHEN v.late THEN 1 WHEN l.state IN ('leased', 'aborting') THEN 2
             WHEN l.state IN ('backoff', 'deferred', 'timer') THEN 3 WHEN l.state = 'items' THEN 4 ELSE 5 END, l.ready_at, l.scope, l.lane
           LIMIT $3"#,
        run.0,
        WORKER_SILENCE_S,
        SHOWN,
        WORKER_LATE_S
    )
    .fetch_all(conn)
    .await?;
    let live = rows.first().map_or(0, |r| r.live);
    let lanes = rows.into_iter().map(|r| Lane {
        scope: ScopePath(r.scope),
        step: r.step,
        phase: r.phase,
        attempt: r.attempt.unsigned_abs(),
        losses: r.losses.unsigned_abs(),
        state: r.state,
        ready_at: r.ready_at,
        lease_until: r.lease_until,
        total_from: r.total_from,
        ended_at: r.ended_at,
        worker: r.worker.zip(r.seen_at),
        late: r.late,
        queue: r.queue,
        served: r.served,
        items: r.done.zip(r.goal).zip(r.failed).map(|((done, goal), failed)| (done, goal, failed)),
        offered_at: r.offered_at,
    });
    Ok((live, lanes.collect()))
}

impl Lane {
    pub fn view(&self, dag: &Dag, keys: &Keys, now: DateTime<Utc>) -> WaitView {
        let step = u16::try_from(self.step).ok().map(StepIx);
        let path = match step {
            Some(ix) => keys.path(dag, &self.scope, ix),
            None if self.scope.is_root() => "output".to_owned(),
            None => keys.item_path(dag, &self.scope),
        };
        let (reason, since, until) = self.doing(now);
        let retry = step.and_then(|ix| dag.steps.get(ix.at())).map(|step| &step.retry);
        WaitView { path, reason, attempt: self.attempt, since, until, wakes: self.wakes(reason, retry, now) }
    }

    /// What it is doing, since when, and until when.
    fn doing(&self, now: DateTime<Utc>) -> (Reason, Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        match self.state.as_str() {
            "leased" | "aborting" if self.late => (Reason::WorkerSilent, self.begun_at(), self.lease_until),
            "leased" => (Reason::Leased, self.begun_at(), self.lease_until),
            "aborting" => (Reason::Aborting, self.begun_at(), self.lease_until),
            // A time that has passed: the next claim on the queue takes it, so it is as good as ready.
            "backoff" if self.ready_at > now => (Reason::Backoff, self.ended_at, Some(self.ready_at)),
            "deferred" if self.ready_at > now => (Reason::Deferred, self.ended_at, Some(self.ready_at)),
            "timer" if self.ready_at > now => (Reason::Timer, self.total_from, Some(self.ready_at)),
            "items" if self.served || self.offered_at.is_none() => (Reason::Items, Some(self.ready_at), None),
            "held" => (Reason::Concurrency, Some(self.ready_at), None),
            _ => {
                let reason = if self.served { Reason::Ready } else { Reason::NoWorker };
                (reason, self.offered_at.max(Some(self.ready_at)), None)
            }
        }
    }

    /// When the attempt under way began. A claim leaves `ready_at` as it was, so that of a later attempt it is known only when it could.
    fn begun_at(&self) -> Option<DateTime<Utc>> {
        match self.phase {
            // Whoever ended the last item went on with the map, and nothing was noted then.
            Lease::FILLED => None,
            _ => self.total_from.map(|first| first.max(self.ready_at)),
        }
    }

    fn wakes(&self, reason: Reason, retry: Option<&RetryPolicy>, now: DateTime<Utc>) -> String {
        let queue = &self.queue;
        match reason {
            Reason::Leased | Reason::Aborting => format!("{} ending the attempt, or its lease running out", self.holder()),
            Reason::WorkerSilent => self.silence(retry, now),
            Reason::NoWorker => format!("a worker for queue `{queue}`: {}", self.start_one()),
            Reason::Ready => format!("a free slot of a worker on queue `{queue}`"),
            Reason::Backoff | Reason::Deferred | Reason::Timer => "the clock".into(),
            Reason::Items => {
                let (done, goal, failed) = self.items.unwrap_or_default();
                let failed = if failed > 0 { format!(", {failed} of them failed") } else { String::new() };
                format!("its items: {done} of {goal} have ended{failed}")
            }
            Reason::Concurrency => "the end of another item of its map, which runs as many as it may".into(),
        }
    }

    fn holder(&self) -> String {
        self.worker.as_ref().map_or_else(|| "its worker".into(), |(name, _)| format!("worker `{name}`"))
    }

    /// A worker that is silent, and what becomes of the step: most of it by itself.
    fn silence(&self, retry: Option<&RetryPolicy>, now: DateTime<Utc>) -> String {
        let silence = self.worker.as_ref().map_or_else(|| "long".into(), |(_, seen_at)| words::span(now - *seen_at));
        let lease = match self.lease_until {
            Some(until) if until > now => format!("ends in {}", words::span(until - now)),
            Some(until) => format!("ended {} ago", words::span(now - until)),
            None => "has ended".into(),
        };
        let then = match retry {
            _ if self.state == "aborting" => "the attempt then counts as ended",
            Some(retry) if retry.fail_when_lost => "the step then fails, as `on_lost` says",
            Some(_) if self.losses >= MAX_LOSSES => "the step then fails: it has been lost too often",
            _ => "the step is then tried again by itself",
        };
        let help = if self.served { String::new() } else { format!("; of the workers for queue `{}` {}", self.queue, self.start_one()) };
        format!("{} has not been heard of for {silence}; its lease {lease}, and {then}{help}", self.holder())
    }

    fn start_one(&self) -> String {
        let option = if self.queue == "default" { String::new() } else { format!(" --queue {}", self.queue) };
        format!("none is alive; `krowoc worker{option}` starts one")
    }
}
