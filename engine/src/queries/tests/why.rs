//! Why a run is not further, at times that the test sets.

use super::{super::why::WaitView, *};
use crate::{commands::redrive, store::rows::Claimed, version::Version};
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// 2030-01-01, at which the test's clock begins, in Unix time.
const START: i64 = 1_893_456_000;

/// Of the test's clock.
fn second(at: Option<DateTime<Utc>>) -> Option<i64> {
    at.map(|at| at.timestamp() - START)
}

/// A run whose clock stands still unless it is moved: at 0 from the start.
struct Watched {
    d: Drain,
    run: RunId,
    version: Arc<Version>,
}

impl Watched {
    async fn start(acts: impl IntoIterator<Item = (&'static str, Act)>, steps: &str) -> Self {
        let mut d = Drain::new().await;
        d.sql("CREATE TABLE public.clock AS SELECT 0::float8 AS s").await;
        let frozen = "CREATE OR REPLACE FUNCTION krowoc.now() RETURNS timestamptz LANGUAGE sql STABLE AS
            $$ SELECT timestamptz '2030-01-01 00:00:00Z' + make_interval(secs => s) FROM public.clock $$";
        d.sql(frozen).await;
        for (path, act) in acts {
            d.will(path, [act]);
        }
        let (run, version) = d.start(steps).await;
        Self { d, run, version }
    }

    /// The worker is heard of for the last time at `heard`; now it is `now`.
    async fn at(&mut self, heard: f64, now: f64) {
        for (s, then) in [(heard, "UPDATE krowoc.worker SET seen_at = krowoc.now()"), (now, "SELECT")] {
            sqlx::query("UPDATE public.clock SET s = $1").bind(s).execute(&mut self.d.conn).await.expect("set");
            self.d.sql(then).await;
        }
    }

    async fn claim_at(&mut self, now: f64) -> Claimed {
        self.at(now, now).await;
        self.d.claim().await.expect("a claim")
    }

    /// Carries out one attempt in no time.
    async fn step_at(&mut self, now: f64) {
        let claimed = self.claim_at(now).await;
        assert_eq!(self.d.carry_out(claimed).await, 0);
    }

    async fn why(&mut self) -> (String, WaitView) {
        let mut view = why_of(&mut self.d.conn, &self.d.scope, self.run, &self.version.dag).await.expect("why");
        (view.sentence, view.waits.remove(0))
    }

    /// What matters most: its reason, since and until which second, and the sentence.
    async fn says(&mut self, reason: Reason, since: Option<i64>, until: Option<i64>, sentence: &str) {
        let (said, first) = self.why().await;
        assert_eq!((first.reason, second(first.since), second(first.until)), (reason, since, until), "{said}");
        assert_eq!(said, sentence);
    }

    /// Sends every failed step back to work.
    async fn redrive_all(&mut self) {
        let letters = dead_letters::list(&mut self.d.conn, &self.d.scope, &Default::default(), None, 9).await.expect("letters");
        let ids: Vec<_> = letters.iter().map(|l| l.id).collect();
        redrive(&mut self.d.conn, &self.d.versions, &self.d.scope, &ids).await.expect("redriven");
    }

    async fn done(self) {
        self.d.done().await;
    }
}

const RETRIED: &str = "  a: {t: 1, retry: {attempts: 3, backoff: {initial: 1m, jitter: none}}}\n";

#[tokio::test]
async fn a_step_waits_for_a_worker_since_it_could_be_carried_out() {
    let mut w = Watched::start([], RETRIED).await;
    w.at(50.0, 70.0).await;
    w.says(Reason::Ready, Some(0), None, "`a` has been waiting for 1 min 10 s for a free slot of a worker on queue `default`.").await;
    w.at(50.0, 110.0).await;
    let none = "`a` has been waiting for 1 min 50 s for a worker for queue `default`: none is alive; `krowoc worker` starts one.";
    w.says(Reason::NoWorker, Some(0), None, none).await;
    w.done().await;
}

#[tokio::test]
async fn a_queue_of_another_name_is_named_in_the_advice() {
    let mut w = Watched::start([], "  a: {t: 1, queue: gpu}\n").await;
    let none = "`a` has been waiting for 0 s for a worker for queue `gpu`: none is alive; `krowoc worker --queue gpu` starts one.";
    w.says(Reason::NoWorker, Some(0), None, none).await;
    w.done().await;
}

#[tokio::test]
async fn an_attempt_runs_since_it_began_and_a_failure_is_waited_over_since_it_happened() {
    let mut w = Watched::start([("a", Act::Fail(ErrorClass::Network))], RETRIED).await;
    let first = w.claim_at(10.0).await;
    w.at(25.0, 30.0).await;
    let next = "next: worker `drain` ending the attempt, or its lease running out.";
    w.says(Reason::Leased, Some(10), Some(610), &format!("`a` has been running for 20 s (attempt 1); {next}")).await;
    assert_eq!(w.d.carry_out(first).await, 0);
    w.at(40.0, 40.0).await;
    let failed = "`a` waits another 50 s for its next attempt; attempt 1 failed 10 s ago.";
    w.says(Reason::Backoff, Some(30), Some(90), failed).await;
    w.at(100.0, 100.0).await;
    w.says(Reason::Ready, Some(90), None, "`a` has been waiting for 10 s for a free slot of a worker on queue `default`.").await;
    w.claim_at(100.0).await;
    w.at(105.0, 105.0).await;
    w.says(Reason::Leased, Some(90), Some(700), &format!("`a` has been running for 15 s (attempt 2); {next}")).await;
    w.done().await;
}

#[tokio::test]
async fn a_limit_is_waited_for_since_it_was_met_and_counts_nothing_afterwards() {
    let mut w = Watched::start([("a", Act::Limited(Duration::from_secs(600)))], RETRIED).await;
    w.step_at(10.0).await;
    w.at(70.0, 70.0).await;
    let limit = "`a` waits another 9 min 0 s for a limit that another system has set; attempt 1 met it 1 min 0 s ago.";
    w.says(Reason::Deferred, Some(10), Some(610), limit).await;
    w.claim_at(610.0).await;
    let (said, first) = w.why().await;
    assert_eq!(second(first.since), Some(610), "{said}");
    w.done().await;
}

#[tokio::test]
async fn a_timer_runs_since_its_step_began() {
    let mut w = Watched::start([("w", Act::Later(Duration::from_secs(7200)))], "  w: {wait: {for: 2h}}\n").await;
    w.step_at(60.0).await;
    w.at(120.0, 120.0).await;
    w.says(Reason::Timer, Some(60), Some(7260), "`w` waits another 1 h 59 min, as the workflow says; it began to 1 min 0 s ago.").await;
    w.done().await;
}

#[tokio::test]
async fn a_map_waits_for_its_items_since_it_has_them() {
    let mut w = Watched::start([("m", Act::Items(1, false))], "  m: {map: {over: '${{ [0] }}', as: i, steps: {s: {t: 1}}}}\n").await;
    w.step_at(10.0).await;
    w.at(30.0, 30.0).await;
    w.says(Reason::Items, Some(10), None, "`m` has been waiting for 20 s for its items: 0 of 1 have ended.").await;
    w.at(30.0, 100.0).await;
    let none = "`m` has been waiting for 1 min 30 s for a worker for queue `default`: none is alive; `krowoc worker` starts one.";
    w.says(Reason::NoWorker, Some(10), None, none).await;
    let item = w.claim_at(110.0).await;
    w.d.carry_out_but_not_on(item).await;
    let (said, first) = w.why().await;
    assert_eq!((first.path.as_str(), first.since), ("m", None), "nobody notes when a map is gone on with");
    assert!(said.starts_with("`m` is running (attempt 1); next: worker `drain`"), "{said}");
    w.done().await;
}

#[tokio::test]
async fn an_item_is_held_and_its_map_waits_since_it_was_redriven() {
    let acts = [("m", Act::Items(2, false)), ("m[0].s", Act::Fail(ErrorClass::Refused)), ("m[1].s", Act::Fail(ErrorClass::Refused))];
    let steps = "  m: {map: {over: '${{ [0, 1] }}', as: i, concurrency: 1, tolerate: 1, steps: {s: {t: 1}}}}\n";
    let mut w = Watched::start(acts, steps).await;
    w.at(10.0, 10.0).await;
    w.d.drain().await;
    w.at(100.0, 100.0).await;
    w.redrive_all().await;
    w.at(130.0, 130.0).await;
    let view = why_of(&mut w.d.conn, &w.d.scope, w.run, &w.version.dag).await.expect("why");
    let mut seen: Vec<_> = view.waits.iter().map(|v| (v.reason, second(v.since))).collect();
    seen.sort_by_key(|(reason, _)| format!("{reason:?}"));
    assert_eq!(seen, [(Reason::Concurrency, Some(100)), (Reason::Items, Some(100)), (Reason::Ready, Some(100))], "{}", view.sentence);
    w.done().await;
}

#[tokio::test]
async fn a_map_that_was_about_to_end_waits_since_an_item_of_it_was_redriven() {
    let acts = [("m", Act::Items(1, false)), ("m[0].s", Act::Fail(ErrorClass::Refused))];
    let mut w = Watched::start(acts, "  m: {map: {over: '${{ [0] }}', as: i, tolerate: 1, steps: {s: {t: 1}}}}\n").await;
    w.step_at(10.0).await;
    let item = w.claim_at(20.0).await;
    w.d.carry_out_but_not_on(item).await;
    w.at(100.0, 100.0).await;
    w.redrive_all().await;
    let view = why_of(&mut w.d.conn, &w.d.scope, w.run, &w.version.dag).await.expect("why");
    let map = view.waits.iter().find(|v| v.path == "m").expect("the map");
    assert_eq!((map.reason, second(map.since)), (Reason::Items, Some(100)));
    w.done().await;
}

#[tokio::test]
async fn of_a_silent_worker_it_is_said_what_follows_by_itself_and_what_does_not() {
    let mut w = Watched::start([], RETRIED).await;
    w.claim_at(10.0).await;
    w.at(15.0, 36.0).await;
    let begun = "`a` has been running for 26 s (attempt 1), but worker `drain` has not been heard of for 21 s";
    let again = "and the step is then tried again by itself";
    let none = "; of the workers for queue `default` none is alive; `krowoc worker` starts one";
    w.says(Reason::WorkerSilent, Some(10), Some(610), &format!("{begun}; its lease ends in 9 min 34 s, {again}{none}.")).await;
    w.at(15.0, 700.0).await;
    let (said, first) = w.why().await;
    let due = format!("worker `drain` has not been heard of for 11 min 25 s; its lease ended 1 min 30 s ago, {again}{none}");
    assert_eq!((first.reason, first.wakes.as_str()), (Reason::WorkerSilent, due.as_str()), "{said}");
    w.d.sql("UPDATE krowoc.lane SET losses = 3").await;
    assert!(w.why().await.0.contains("and the step then fails: it has been lost too often"));
    w.d.sql("DELETE FROM krowoc.worker").await;
    let (said, first) = w.why().await;
    assert_eq!(first.reason, Reason::WorkerSilent, "{said}");
    assert!(first.wakes.starts_with("its worker has not been heard of for long; its lease ended"), "{said}");
    w.done().await;
}

#[tokio::test]
async fn a_step_that_must_not_be_done_twice_is_not_promised_another_attempt() {
    let mut w = Watched::start([], "  a: {t: 1, retry: {on_lost: fail}}\n").await;
    w.claim_at(10.0).await;
    w.at(10.0, 40.0).await;
    let (said, _) = w.why().await;
    assert!(said.contains("its lease ends in 9 min 30 s, and the step then fails, as `on_lost` says; of the workers"), "{said}");
    w.done().await;
}

#[tokio::test]
async fn a_run_that_is_stopped_names_the_worker_that_it_waits_for_only_if_that_is_silent() {
    let mut w = Watched::start([], RETRIED).await;
    w.claim_at(10.0).await;
    cancel_run(&mut w.d.conn, &w.d.scope, w.run).await.expect("stopping");
    w.says(Reason::Aborting, Some(10), Some(610), "The run is being stopped: 1 attempt is still in flight.").await;
    w.at(10.0, 40.0).await;
    let silent = "worker `drain` has not been heard of for 30 s; its lease ends in 9 min 30 s, and the attempt then counts as ended; \
                  of the workers for queue `default` none is alive; `krowoc worker` starts one";
    w.says(Reason::WorkerSilent, Some(10), Some(610), &format!("The run is being stopped: 1 attempt is still in flight; {silent}.")).await;
    w.done().await;
}
