//! What a batch of completions does in the corners: leases lost and taken again, runs that are being stopped, maps that go on. Each test was
//! seen to fail without the guard that it names; with two, without both.

mod bundles;

use super::{Batch, Completed, NoRoom, Room, complete_attempts};
use crate::{
    drain::{Act, Drain},
    error::ErrorClass,
    id::RunId,
    queries::runs::{self, RunState},
    store::{hot, lanes, rows::Claimed},
};
use sqlx::{Connection, postgres::PgListener};
use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

/// Room for so many steps, and nothing older waits.
struct Slots(AtomicUsize);

impl Room for Slots {
    fn take(&self, max: usize) -> usize {
        let take = self.0.load(Relaxed).min(max);
        self.0.fetch_sub(take, Relaxed);
        take
    }
    fn give_back(&self, slots: usize) {
        self.0.fetch_add(slots, Relaxed);
    }
    fn continues(&self, _queue: i16, _priority: i16) -> bool {
        true
    }
    fn idle(&self) -> bool {
        true
    }
    fn chance(&self) -> f64 {
        0.5
    }
}

async fn status(d: &mut Drain, run: RunId) -> RunState {
    runs::show(&mut d.conn, &d.scope, run).await.expect("a run").run.status
}

/// The lease has expired and somebody else has the lane, with the next attempt.
async fn taken_again(d: &mut Drain) -> Claimed {
    d.sql("SELECT krowoc.unbundle_v1(x.b, (x.b).held) FROM (SELECT b FROM krowoc.bundle b FOR UPDATE) x").await;
    d.sql("UPDATE krowoc.lane SET state = 'ready', token = NULL, lease_until = NULL WHERE state = 'leased'").await;
    d.claim().await.expect("the same lane")
}

/// Guards: `by_scope` compares tokens; where two completions exclude each other all the same, the locked path has the batch split.
#[tokio::test]
async fn of_two_attempts_of_a_lane_in_one_batch_the_holder_s_counts() {
    for steps in [
        // A step; an entry with two first steps; an item without a state that fails for good.
        "  a: {t: 1}\n  b: {needs: [a], t: 1}\n",
        "  m: {map: {over: '${{ [1] }}', as: x, steps: {p: {t: 1}, q: {t: 1}}}}\n",
        "  m: {map: {over: '${{ [1] }}', as: x, tolerate: 1, steps: {s: {t: 1}}}}\n",
    ] {
        let mut d = Drain::new().await;
        d.will("m", [Act::Items(1, false)]);
        d.will("m[0].s", [Act::Fail(ErrorClass::Refused), Act::Fail(ErrorClass::Refused)]);
        let (run, _) = d.start(steps).await;
        if steps.contains("map") {
            assert!(d.step().await, "the map expands");
        }
        let stale = d.claim().await.expect("an attempt");
        let held = taken_again(&mut d).await;
        let mut done = d.complete_together(vec![stale, held], &NoRoom).await;
        assert_eq!(done.refused, 1, "{steps}");
        for filled in done.leased.drain(..) {
            assert_eq!(d.carry_out(filled).await, 0);
        }
        assert_eq!(d.violations().await, Vec::<String>::new());
        d.drain().await;
        assert_eq!(status(&mut d, run).await, RunState::Succeeded, "{steps}");
        d.done().await;
    }
}

/// Guard: a finished map in an item without a state takes the locked path, where its counter goes only if its end is accepted.
#[tokio::test]
async fn a_refused_end_of_an_inner_map_leaves_its_counter() {
    let mut d = Drain::new().await;
    let (run, _) =
        d.start("  m: {map: {over: '${{ [1] }}', as: x, steps: {inner: {map: {over: '${{ [1] }}', as: y, steps: {s: {t: 1}}}}}}}\n").await;
    d.will("m", [Act::Items(1, false)]);
    d.will("m[0].inner", [Act::Items(1, false)]);
    assert!(d.step().await && d.step().await, "both maps expand");
    let item = d.claim().await.expect("the item");
    let stale = d.carry_out_but_not_on(item).await;
    let held = taken_again(&mut d).await;
    assert_eq!(d.carry_out(stale).await, 1, "whoever was to finish the map has lost it");
    assert_eq!(d.violations().await, Vec::<String>::new());
    assert_eq!(d.carry_out(held).await, 0);
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    d.done().await;
}

/// Guard: `state <> 'aborting'` where `complete_v1` ends lanes.
#[tokio::test]
async fn a_lane_of_a_stopped_run_ends_no_step_whatever_its_scope_s_version() {
    let mut d = Drain::new().await;
    let (run, _) = d.start("  a: {t: 1}\n").await;
    let claimed = d.claim().await.expect("a step");
    // As a cancel leaves an item that was claimed while it looked: its version was not raised.
    d.sql("UPDATE krowoc.lane SET state = 'aborting'; UPDATE krowoc.run SET status = 'cancelling'").await;
    d.complete_together(vec![claimed], &NoRoom).await;
    assert_eq!(status(&mut d, run).await, RunState::Cancelled);
    d.sql("UPDATE krowoc.run SET last_seq = 2").await;
    let results: i64 = sqlx::query_scalar("SELECT count(*) FROM krowoc.step_result").fetch_one(&mut d.conn).await.expect("a count");
    assert_eq!(results, 0);
}

/// Guard: shares are rounded by chance.
#[tokio::test]
async fn a_claim_of_one_step_gives_items_their_share() {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(10, false)]);
    d.start("  m: {map: {over: '${{ [1] }}', as: x, steps: {s: {t: 1}}}}\n").await;
    assert!(d.step().await, "the map expands");
    d.start("  a: {t: 1}\n  b: {t: 1}\n  c: {t: 1}\n  d: {t: 1}\n").await;
    let mut items = 0;
    for luck in [0.1, 0.9, 0.3, 0.7] {
        let claimed = d.claim_with(luck).await.leased.pop().expect("a step");
        items += usize::from(!claimed.lease.scope.is_root());
    }
    assert_eq!(items, 2, "of four claims of one step");
}

/// Guard: a claim that finds all it wanted looks for what it left.
#[tokio::test]
async fn a_claim_tells_the_priority_of_what_it_leaves() {
    let mut d = Drain::new().await;
    d.start("  a: {t: 1}\n  b: {t: 1}\n").await;
    d.sql("UPDATE krowoc.lane SET priority = 7 WHERE lane = 1").await;
    assert_eq!(d.claim_with(0.5).await.left, Some(0), "the urgent one is taken");
    assert_eq!(d.claim_with(0.5).await.left, None, "nothing is left");
}

/// Guard: a claim that finds too little looks for the next timer; where there is none it says so, or the worker would look all the time.
#[tokio::test]
async fn a_claim_tells_when_the_next_timer_is_due() {
    let mut d = Drain::new().await;
    d.will("a", [Act::Fail(ErrorClass::Overloaded)]);
    let (run, _) = d.start("  a: {t: 1}\n").await;
    let claim = d.claim_with(0.5).await;
    assert_eq!((claim.leased.len(), claim.due_in), (1, None), "all that was wanted");
    assert_eq!(d.claim_with(0.5).await.due_in, None, "nothing waits for a time");
    d.complete_together(claim.leased, &NoRoom).await;
    d.sql("UPDATE krowoc.lane SET ready_at = krowoc.now() + interval '1 min'").await;
    let by = d.claimant().holder();
    let of_run = hot::claim_run(&mut d.conn, run, &[1], 1, by).await.expect("claimed");
    for due_in in [d.claim_with(0.5).await.due_in, of_run.due_in] {
        let due_in = due_in.expect("a timer");
        assert!((Duration::from_secs(55)..=Duration::from_secs(60)).contains(&due_in), "{due_in:?}");
    }
    d.sql("UPDATE krowoc.lane SET ready_at = krowoc.now()").await;
    let of_run = hot::claim_run(&mut d.conn, run, &[1], 9, by).await.expect("claimed");
    assert_eq!((of_run.leased.len(), of_run.due_in), (1, None));
}

/// Guard: `count_items_v1` cuts the span for a caller with room.
#[tokio::test]
async fn the_end_of_an_item_takes_the_next_one_of_a_limited_map() {
    for body in ["s: {t: 1}", "s: {t: 1}, z: {needs: [s], t: 1}"] {
        let mut d = Drain::new().await;
        d.will("m", [Act::Items(5, false)]);
        let (run, _) = d.start(&format!("  m: {{map: {{over: '${{{{ [1] }}}}', as: x, concurrency: 2, steps: {{{body}}}}}}}\n")).await;
        let map = d.claim().await.expect("the map");
        let room = Slots(AtomicUsize::new(10));
        let done = d.complete_together(vec![map], &room).await;
        assert_eq!((done.continued.len(), done.taken), (2, 2), "as many as may run at once are born leased");
        assert!(d.claim().await.is_none(), "no more than that");
        let mut work: Vec<Claimed> = done.continued.into_iter().map(|c| Claimed { lease: c.lease, state: c.state }).collect();
        let mut most = 0;
        while !work.is_empty() {
            most = most.max(work.len());
            let done = d.complete_together(std::mem::take(&mut work), &room).await;
            assert_eq!(done.refused, 0);
            work.extend(done.continued.into_iter().map(|c| Claimed { lease: c.lease, state: c.state }));
            work.extend(done.leased);
            assert_eq!(d.violations().await, Vec::<String>::new());
        }
        assert_eq!(most, 2);
        assert_eq!(status(&mut d, run).await, RunState::Succeeded);
        d.done().await;
    }
}

/// Guard: `wake_v1` looks at queues, and at when the worker was heard of.
#[tokio::test]
async fn only_a_live_idle_worker_of_the_queue_is_notified() {
    let mut d = Drain::new().await;
    let mut listener = PgListener::connect_with(&d.pool().await).await.expect("a listener");
    listener.listen_all(["krowoc_ready", "sentinel"]).await.expect("listening");
    let workers = [
        ("INSERT INTO krowoc.worker (name, version, queues, slots, idle) VALUES ('other', '1', '{2}', 1, true)", false),
        (
            "INSERT INTO krowoc.worker (name, version, queues, slots, idle, seen_at) VALUES ('killed', '1', '{1}', 1, true, now() - interval '2 minutes')",
            false,
        ),
        ("INSERT INTO krowoc.worker (name, version, queues, slots, idle) VALUES ('busy', '1', '{1}', 1, false)", false),
        ("INSERT INTO krowoc.worker (name, version, queues, slots, idle) VALUES ('idle', '1', '{1}', 1, true)", true),
    ];
    for (worker, hears) in workers {
        d.sql(worker).await;
        d.start("  a: {t: 1}\n").await;
        d.sql("NOTIFY sentinel").await;
        let first = listener.recv().await.expect("a notification");
        assert_eq!(first.channel() == "krowoc_ready", hears, "{worker}");
    }
}

/// Guard: a token for each transaction. A step that goes on by a commit that was heard of is not put back with what a later transaction of
/// the same batch leased unheard: it would be carried out twice.
#[tokio::test]
async fn what_goes_on_is_not_put_back_because_the_rest_of_its_batch_was_not_heard_of() {
    let mut d = Drain::new().await;
    d.will("f", [Act::Fail(ErrorClass::Refused)]);
    let (good, _) = d.start("  a: {t: 1}\n  b: {needs: [a], t: 1}\n").await;
    let (bad, _) = d.start("  f: {t: 1}\n").await;
    let claimed = d.claim_many(2).await;
    let completions = d.ended(claimed).await;
    let mut other = d.connect().await;
    let mut tx = other.begin().await.expect("a transaction");
    sqlx::query("SELECT FROM krowoc.scope_state WHERE run_id = $1 FOR UPDATE").bind(bad.0).execute(&mut *tx).await.expect("locked");
    d.sql("SET lock_timeout = '50 ms'").await;
    let (by, room) = (d.claimant(), Slots(AtomicUsize::new(10)));
    let (mut batch, mut done) = (Batch::decide(completions, || 0.5), Completed::default());
    let cut = complete_attempts(&mut d.conn, &mut d.cache, &mut batch, by, &room, &mut done).await;
    assert!(cut.is_err() && done.continued.len() == 1 && batch.len() == 1, "the failure could not be recorded");
    tx.rollback().await.expect("rolled back");
    complete_attempts(&mut d.conn, &mut d.cache, &mut batch, by, &room, &mut done).await.expect("recorded");
    for token in &done.unheard {
        assert_eq!(lanes::put_back_unheard(&mut d.conn, by.worker, *token).await.expect("looked"), 0);
    }
    assert_eq!(done.unheard.len(), 1);
    let next = done.continued.into_iter().map(|c| Claimed { lease: c.lease, state: c.state }).collect();
    assert_eq!(d.complete_together(next, &NoRoom).await.refused, 0);
    assert_eq!((status(&mut d, good).await, status(&mut d, bad).await), (RunState::Succeeded, RunState::Failed));
    d.done().await;
}
