//! A lease that nobody renews is taken over, and one that can't be keeps nobody else waiting.

use super::reap;
use crate::{
    drain::{Act, Drain},
    error::ErrorClass,
    id::RunId,
    queries::{
        attempts, dead_letters,
        runs::{self, RunState},
        steps,
    },
    version::{Version, Versions},
};
use std::time::Duration;

/// Every lease expires, and the reaper comes.
async fn lose_all(d: &mut Drain) -> usize {
    d.sql("UPDATE krowoc.lane SET lease_until = krowoc.now() - interval '1 s' WHERE token IS NOT NULL").await;
    d.sql("UPDATE krowoc.bundle SET lease_until = krowoc.now() - interval '1 s'").await;
    reap(&mut d.conn, &d.versions, 0, Duration::from_secs(30)).await.expect("reaped")
}

async fn status(d: &mut Drain, run: RunId) -> RunState {
    runs::show(&mut d.conn, &d.scope, run).await.expect("a run").run.status
}

async fn tried(d: &mut Drain, run: RunId, version: &Version) -> Vec<(String, u32, String)> {
    let all = attempts::attempts(&mut d.conn, &d.scope, run, &version.dag, None, 100).await.expect("attempts");
    all.into_iter().map(|a| (a.path, a.attempt, a.status.to_string())).collect()
}

async fn lane_states(d: &mut Drain, run: RunId) -> Vec<String> {
    let sql = "SELECT state::text FROM krowoc.lane WHERE run_id = $1 ORDER BY scope, lane";
    sqlx::query_scalar(sql).bind(run.0).fetch_all(&mut d.conn).await.expect("lanes")
}

#[tokio::test]
async fn a_loss_that_can_not_be_recorded_keeps_nobody_else_waiting() {
    let mut d = Drain::new().await;
    let (bad, _) = d.start("  a: {t: 1}\n").await;
    let (good, version) = d.start("  a: {t: 1}\n").await;
    let (late, _) = d.start("  a: {t: 1}\ntimeout: 1h\n").await;
    for _ in 0..2 {
        d.claim().await.expect("a claim");
    }
    // The number of its attempt is taken.
    sqlx::query("INSERT INTO krowoc.attempt (run_id, scope, step, attempt, status, duration_ms, finished_at) VALUES ($1, '', 0, 1, 'failed', 1, now())")
        .bind(bad.0)
        .execute(&mut d.conn)
        .await
        .expect("inserted");
    d.sql("UPDATE krowoc.run_timeout SET due_at = krowoc.now() - interval '1 s'").await;
    assert_eq!(lose_all(&mut d).await, 2);
    assert_eq!(lane_states(&mut d, good).await, ["ready"]);
    assert_eq!(tried(&mut d, good, &version).await, [("a".into(), 1, "lost".into())]);
    assert_eq!(lane_states(&mut d, bad).await, ["leased"], "to be looked at again a lease later");
    assert_eq!(status(&mut d, late).await, RunState::Failed);
    d.done().await;
}

#[tokio::test]
async fn a_version_that_can_not_be_read_keeps_nobody_else_waiting() {
    let mut d = Drain::new().await;
    let (bad, _) = d.start("  a: {t: 1}\n").await;
    let (good, _) = d.start("  b: {t: 1}\n").await;
    for _ in 0..2 {
        d.claim().await.expect("a claim");
    }
    sqlx::query("UPDATE krowoc.workflow_version v SET definition = '{}' FROM krowoc.run r WHERE r.id = $1 AND v.id = r.workflow_version")
        .bind(bad.0)
        .execute(&mut d.conn)
        .await
        .expect("spoilt");
    d.versions = Versions::default();
    assert_eq!(lose_all(&mut d).await, 2);
    assert_eq!((lane_states(&mut d, bad).await, lane_states(&mut d, good).await), (vec!["leased".into()], vec!["ready".into()]));
    d.done().await;
}

const LOST: &str = "  m:
    map:
      over: ${{ [0] }}
      as: it
      tolerate: 1
      steps:
        s: {t: {item: \"${{ it }}\", given: \"${{ input }}\", before: \"${{ steps.a.output }}\"}, retry: {on_lost: fail}}
    needs: [a]
  a: {t: 1}
";

#[tokio::test]
async fn a_map_whose_last_item_is_lost_is_finished_by_a_worker_at_once() {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(1, false)]);
    let (run, version) = d.start(LOST).await;
    while d.log.last().is_none_or(|path| path != "m") {
        assert!(d.step().await);
    }
    d.claim().await.expect("the item");
    assert_eq!(lose_all(&mut d).await, 1);
    assert_eq!(lane_states(&mut d, run).await, ["ready"], "the map waits for no lease");
    assert_eq!(status(&mut d, run).await, RunState::Running);
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    assert!(tried(&mut d, run, &version).await.contains(&("m".into(), 1, "succeeded".into())), "no attempt was made up");
    d.done().await;
}

#[tokio::test]
async fn the_letter_of_a_lost_step_has_its_input_all_the_same() {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(1, false)]);
    d.will("a", [Act::Ok(serde_json::json!(["x"]))]);
    d.start(LOST).await;
    while d.log.last().is_none_or(|path| path != "m") {
        assert!(d.step().await);
    }
    d.claim().await.expect("the item");
    lose_all(&mut d).await;
    let letter = dead_letters::list(&mut d.conn, &d.scope, &Default::default(), None, 9).await.expect("letters").remove(0);
    assert_eq!(letter.class, ErrorClass::Lost);
    let shown = dead_letters::show(&mut d.conn, &d.scope, letter.id).await.expect("a letter");
    let input: serde_json::Value = shown.input.expect("an input").parse().expect("JSON");
    assert_eq!((input, shown.input_rendered_later), (serde_json::json!({ "item": 0, "given": {}, "before": ["x"] }), true));
    d.done().await;
}

#[tokio::test]
async fn lost_work_of_the_engine_itself_is_not_taken_for_a_steps() {
    let mut d = Drain::new().await;
    let (run, version) = d.start("  a: {t: 1}\noutput: ${{ steps.a.output }}\n").await;
    assert!(d.step().await);
    d.claim().await.expect("the output");
    assert_eq!(lose_all(&mut d).await, 1);
    assert!(tried(&mut d, run, &version).await.contains(&("output".into(), 1, "lost".into())));
    let wide = "  m:\n    map:\n      over: ${{ [0] }}\n      as: it\n      steps: {p: {t: 1}, q: {t: 1}}\n";
    d.drain().await;
    d.will("m", [Act::Items(1, false)]);
    let (run, version) = d.start(wide).await;
    assert!(d.step().await);
    d.claim().await.expect("the item's entry");
    assert_eq!(lose_all(&mut d).await, 1);
    assert_eq!(tried(&mut d, run, &version).await, [("m[0].entry".into(), 1, "lost".into())]);
    let all = steps::items(&mut d.conn, &d.scope, run, &version.dag, &"m".parse().expect("a path"), None, 9).await.expect("items");
    assert!(all[0].steps.iter().all(|s| s.attempts == 0 && s.started_at.is_none()), "{all:?}");
    d.drain().await;
    d.done().await;
}
