//! A redrive beside others who work at the same run, or remember it as it was.

use super::*;
use crate::error::Error;
use sqlx::Connection;

#[tokio::test]
async fn a_map_about_to_be_finished_waits_for_a_redriven_item() {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(1, false)]);
    d.will("m[0].s", [FAIL]);
    let (run, _) = d.start(&map("      tolerate: 1\n", ONE)).await;
    assert!(d.step().await);
    let item = d.claim().await.expect("the item");
    // The item's end hands the map over to be finished; the redrive comes before that is done.
    let filled = d.carry_out_but_not_on(item).await;
    assert!(matches!(redrive_one(&mut d, "m[0].s").await, Redrive::Redriven));
    assert_eq!(d.carry_out(filled).await, 1, "whoever was to finish the map has lost it");
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    d.done().await;
}

/// Guard: `unused_version`. With versions from 1 again, what a worker remembers of the item as it was passes for what it is now.
#[tokio::test]
async fn a_worker_that_remembers_an_item_from_before_does_not_bring_its_old_state_back() {
    let retry = "retry: {attempts: 2}";
    let body = format!("        p: {{t: 1, {retry}}}\n        q: {{t: 1, {retry}}}\n        r: {{needs: [p, q], t: 1}}\n");
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(1, false)]);
    for step in ["m[0].p", "m[0].q"] {
        d.will(step, [Act::Fail(ErrorClass::Network), Act::Fail(ErrorClass::Network)]);
    }
    let (run, _) = d.start(&map("", &body)).await;
    d.drain().await;
    assert_eq!(d.log, ["m", "m[0].p", "m[0].q"], "both wait for another attempt");
    let before = std::mem::take(&mut d.cache);
    d.sql("UPDATE krowoc.lane SET ready_at = ready_at - interval '1 h' WHERE state = 'backoff'").await;
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Failed);
    // Both at once, so that the item is as many transitions old, after the first has succeeded, as when it was remembered.
    let ids = [letter(&mut d, "m[0].p").await, letter(&mut d, "m[0].q").await];
    let done = redrive(&mut d.conn, &d.versions, &d.scope, &ids).await.expect("redriven");
    assert!(done.iter().all(|r| matches!(r.outcome, Redrive::Redriven)), "{done:?}");
    assert!(d.step().await);
    d.cache = before;
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    assert_eq!(d.log.iter().filter(|p| *p == "m[0].r").count(), 1);
    d.done().await;
}

/// Guard: the header is locked before the letters, as retention does.
#[tokio::test]
async fn retention_and_a_redrive_of_the_same_run_do_not_wait_for_each_other() {
    let mut d = Drain::new().await;
    d.will("b", [FAIL]);
    let (run, _) = d.start(CHAIN).await;
    d.drain().await;
    let ids = [letter(&mut d, "b").await];
    // An open one would keep its run.
    d.sql("UPDATE krowoc.dead_letter SET state = 'discarded', reason = 'no more'").await;
    let (mut pruning, mut looking) = (d.connect().await, d.connect().await);
    let mut tx = pruning.begin().await.expect("a transaction");
    let locked = crate::store::retention::lock_old(&mut tx, &d.scope, -60.0, None, 10).await.expect("locked");
    assert_eq!(locked, [run.0]);
    let prune = async {
        Drain::until_one_waits(&mut looking).await;
        crate::store::retention::delete(&mut tx, &locked, 1000).await.expect("no deadlock");
        tx.commit().await.expect("committed");
    };
    let (done, ()) = tokio::join!(redrive(&mut d.conn, &d.versions, &d.scope, &ids), prune);
    let done = done.expect("answered").remove(0);
    assert!(matches!(done.outcome, Redrive::Refused(Error::NotFound { .. })), "{done:?}");
    d.done().await;
}
